package manifests

import (
	"fmt"
	"reflect"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	sigsyaml "sigs.k8s.io/yaml"

	"github.com/orchctl/orch/api"
)

// document reads one object and adds it, or what is wrong with it.
func (l *loader) document(file string, i int, root *yaml.Node) {
	r := &reader{file: file, doc: i, places: map[string]place{}}
	defer func() { l.problems = append(l.problems, r.problems...) }()
	kind := r.header(root)
	if kind == "" {
		return
	}
	r.secret = kind == api.KindSecret
	object := r.read(root, newObject[kind]())
	if object == nil {
		return
	}
	r.fromSystem(object)
	r.namespace(object.GetMetadata(), l.namespace)
	if meta := object.GetMetadata(); meta.Namespace == "" {
		meta.Namespace = l.fallback
	}
	l.once(r, object, root.Line)
	r.validate(object)
	if len(r.problems) > 0 {
		return
	}
	object.Default()
	if r.validate(object); len(r.problems) > 0 {
		return
	}
	l.docs = append(l.docs, Doc{File: file, Index: i, Line: root.Line, Object: object})
}

// newObject makes what a document of a kind is read into.
var newObject = map[string]func() api.Object{
	api.KindService: func() api.Object { return &api.Service{} },
	api.KindJob:     func() api.Object { return &api.Job{} },
	api.KindConfig:  func() api.Object { return &api.Config{} },
	api.KindSecret:  func() api.Object { return &api.Config{} },
}

// wantKind names the kinds that a manifest may have, the usual one first.
const wantKind = api.KindService + ", " + api.KindJob + ", " + api.KindConfig + " or " + api.KindSecret

// once refuses a second document for the same object, and a job and a service of one
// name: the replicas of both are named after them.
func (l *loader) once(r *reader, o api.Object, line int) {
	key := o.GetMetadata().Key()
	if key.Namespace == "" {
		key.Namespace = api.DefaultNamespace
	}
	if key.Name == "" {
		return
	}
	id := o.ObjectKind() + " " + key.String()
	if before, ok := l.seen[id]; ok {
		r.refuse(r.placeOf("metadata.name"), "metadata.name", "%s is declared in %s already: remove one of them", id, before)
		return
	}
	if other := map[string]string{api.KindService: api.KindJob, api.KindJob: api.KindService}[o.ObjectKind()]; other != "" {
		if before, ok := l.seen[other+" "+key.String()]; ok {
			r.refuse(r.placeOf("metadata.name"), "metadata.name", "is that of the %s in %s, and replicas of both would be named %s-0: give one of them another name",
				strings.ToLower(other), before, clip(key.Name))
			return
		}
	}
	l.seen[id] = fmt.Sprintf("%s:%d (document %d)", r.file, line, r.doc)
}

// header checks apiVersion and kind, without which the rest has no meaning. It gives
// the kind, "" if it is none that can be applied.
func (r *reader) header(root *yaml.Node) string {
	if root = deref(root); root.Kind != yaml.MappingNode {
		r.refuse(placeAt(root), "", "want a mapping with apiVersion, kind, metadata and spec, but found %s", found(root))
		return ""
	}
	version, kind := child(root, "apiVersion"), child(root, "kind")
	if services := child(root, "services"); services != nil && services.Kind == yaml.MappingNode && version == nil && kind == nil {
		r.refuse(placeAt(root), "", "this is a Compose file: write each of its services as a document of its own with apiVersion: %s and kind: %s (see manifests/examples/web.yaml)",
			api.Version, api.KindService)
		return ""
	}
	if kind == nil {
		r.refuse(placeAt(root), "kind", "is missing: add kind: %s", wantKind)
	}
	if version == nil {
		r.refuse(placeAt(root), "apiVersion", "is missing: add apiVersion: %s", api.Version)
		if kind != nil {
			r.kind(kind)
		}
		return ""
	}
	if version.Value != api.Version {
		if kind != nil && version.Kind == yaml.ScalarNode {
			r.refuse(placeAt(version), "apiVersion", "want %q, but found %q%s", api.Version, clip(version.Value), foreign(version.Value, kind.Value))
		} else {
			r.refuse(placeAt(version), "apiVersion", "want %q, but found %s", api.Version, found(version))
		}
		return ""
	}
	if kind == nil {
		return ""
	}
	return r.kind(kind)
}

// kind gives the kind that stands there, "" if it is none that can be applied.
func (r *reader) kind(n *yaml.Node) string {
	refuse := func(format string, args ...any) string {
		r.refuse(placeAt(n), "kind", format, args...)
		return ""
	}
	if n.Kind != yaml.ScalarNode {
		return refuse("want %s, but found %s", wantKind, found(n))
	}
	if why, ok := laterKinds[n.Value]; ok { // before ours: what is not built is refused
		return refuse("%s is not yet supported%s", n.Value, why)
	}
	switch kind := n.Value; kind {
	case api.KindService, api.KindJob, api.KindConfig, api.KindSecret:
		return kind
	case api.KindVolume:
		return refuse("a Volume is made by orch itself, for a service with a mount that names one: write volume: NAME in its mounts")
	case api.KindNode, api.KindReplica, api.KindEvent, api.KindEndpoint, api.KindRevision, api.KindOutcome:
		return refuse("%s is made by orch itself and cannot be applied", kind)
	default:
		if right, ok := otherKinds[kind]; ok {
			return refuse("%s is not known here: %s", kind, right)
		}
		if near := nearest(kind, append(keys(laterKinds), keys(newObject)...)); near != "" {
			return refuse("%q is unknown; did you mean %q?", clip(kind), near)
		}
		return refuse("%q is unknown: want %s", clip(kind), wantKind)
	}
}

// foreign helps those who come with a manifest of another system.
func foreign(version, kind string) string {
	if right, ok := otherKinds[kind]; ok {
		if !strings.HasPrefix(right, "write kind: "+api.KindService) {
			return fmt.Sprintf(": this is a Kubernetes manifest; for a %s %s", kind, right)
		}
		return fmt.Sprintf(": this is a Kubernetes manifest; for a %s %s, with containers directly under spec (see manifests/examples/web.yaml)", kind, right)
	}
	if kind == api.KindService && version == "v1" {
		return ": a Service here is what runs (replicas and containers), not Kubernetes' load balancer (see manifests/examples/web.yaml)"
	}
	if why, ok := laterKinds[kind]; ok {
		return fmt.Sprintf(": this is a Kubernetes manifest, and %s is not yet supported%s", kind, why)
	}
	if right, ok := foreignKinds[kind]; ok && !strings.HasPrefix(version, "orch/") {
		return ": " + right
	}
	if strings.HasPrefix(version, "orch/") {
		return ": this version of orch knows only that one"
	}
	return ""
}

// read checks the tree against the object's type and converts what passed into it.
func (r *reader) read(root *yaml.Node, into api.Object) api.Object {
	r.root = reflect.TypeOf(into).Elem()
	clean := r.value(root, r.root, "")
	if clean == nil {
		return nil
	}
	text, err := yaml.Marshal(clean)
	if err == nil {
		err = sigsyaml.UnmarshalStrict(text, into)
	}
	if err != nil {
		if len(r.problems) == 0 {
			r.refuse(placeAt(root), "", "cannot be converted: %s", err)
		}
		return nil
	}
	return into
}

// fromSystem accepts what only orch writes where the document came from orch:
// `get -o yaml` prints a uid with it. It is then cleared, but for uid and
// resourceVersion, which ask that nothing changed since.
func (r *reader) fromSystem(o api.Object) {
	meta := o.GetMetadata()
	for _, path := range []string{"metadata.generation", "metadata.createdAt", "status"} {
		if _, present := r.places[path]; present && meta.UID == "" && !r.tainted("metadata.uid") {
			r.refuse(r.placeOf(path), path, "is written by orch: remove it (it is accepted only beside the metadata.uid that get -o yaml prints)")
		}
	}
	meta.Generation, meta.CreatedAt = 0, time.Time{}
	switch x := o.(type) {
	case *api.Service:
		x.Status = api.ServiceStatus{}
	case *api.Job:
		x.Status = api.JobStatus{}
	case *api.Config:
		r.shown(x)
		x.Status = api.ConfigStatus{}
	}
}

// shown refuses a Secret as it is shown, without values: applied it would have none.
func (r *reader) shown(x *api.Config) {
	if r.secret && len(x.Status.Keys) > 0 && len(x.Data)+len(x.BinaryData) == 0 {
		r.refuse(r.placeOf("status"), "data", "is missing, for a Secret's values are not shown, and to apply it so would remove them: write all values anew")
	}
}

// namespace applies InNamespace.
func (r *reader) namespace(meta *api.Metadata, want string) {
	switch {
	case want == "":
	case meta.Namespace == "":
		meta.Namespace = want
	case meta.Namespace != want:
		r.refuse(r.placeOf("metadata.namespace"), "metadata.namespace", "is %q, but namespace %q was asked for: change one of them",
			clip(meta.Namespace), want)
	}
}

// validate adds what the api package finds, with lines; but not what only
// follows from a problem that is told already.
func (r *reader) validate(o api.Object) {
	for _, v := range api.Validate(o) {
		if !r.tainted(v.Path) {
			r.problems = append(r.problems, r.problem(r.placeOf(v.Path), v.Path, v.Message))
		}
	}
}
