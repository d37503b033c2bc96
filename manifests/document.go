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
	if !r.header(root) {
		return
	}
	service := r.service(root)
	if service == nil {
		return
	}
	r.fromSystem(service)
	r.namespace(service, l.namespace)
	if service.Metadata.Namespace == "" {
		service.Metadata.Namespace = l.fallback
	}
	l.once(r, service, root.Line)
	r.validate(service)
	if len(r.problems) > 0 {
		return
	}
	service.Default()
	if r.validate(service); len(r.problems) > 0 {
		return
	}
	l.docs = append(l.docs, Doc{File: file, Index: i, Line: root.Line, Object: service})
}

// once refuses a second document for the same object.
func (l *loader) once(r *reader, s *api.Service, line int) {
	key := s.Metadata.Key()
	if key.Namespace == "" {
		key.Namespace = api.DefaultNamespace
	}
	if key.Name == "" {
		return
	}
	id := api.KindService + " " + key.String()
	if before, ok := l.seen[id]; ok {
		r.refuse(r.placeOf("metadata.name"), "metadata.name", "%s is declared in %s already: remove one of them", id, before)
		return
	}
	l.seen[id] = fmt.Sprintf("%s:%d (document %d)", r.file, line, r.doc)
}

// header checks apiVersion and kind, without which the rest has no meaning. It
// tells whether the document is a Service.
func (r *reader) header(root *yaml.Node) bool {
	if root = deref(root); root.Kind != yaml.MappingNode {
		r.refuse(placeAt(root), "", "want a mapping with apiVersion, kind, metadata and spec, but found %s", found(root))
		return false
	}
	version, kind := child(root, "apiVersion"), child(root, "kind")
	if kind == nil {
		r.refuse(placeAt(root), "kind", "is missing: add kind: %s", api.KindService)
	}
	if version == nil {
		r.refuse(placeAt(root), "apiVersion", "is missing: add apiVersion: %s", api.Version)
		return kind != nil && r.kind(kind)
	}
	if version.Value != api.Version {
		if kind != nil && version.Kind == yaml.ScalarNode {
			r.refuse(placeAt(version), "apiVersion", "want %q, but found %q%s", api.Version, clip(version.Value), foreign(version.Value, kind.Value))
		} else {
			r.refuse(placeAt(version), "apiVersion", "want %q, but found %s", api.Version, found(version))
		}
		return false
	}
	return kind != nil && r.kind(kind)
}

func (r *reader) kind(n *yaml.Node) bool {
	refuse := func(format string, args ...any) bool {
		r.refuse(placeAt(n), "kind", format, args...)
		return false
	}
	if n.Kind != yaml.ScalarNode {
		return refuse("want %q, but found %s", api.KindService, found(n))
	}
	if why, ok := laterKinds[n.Value]; ok { // before ours: what is not built is refused
		return refuse("%s is not yet supported%s", n.Value, why)
	}
	switch kind := n.Value; kind {
	case api.KindService:
		return true
	case api.KindNode, api.KindReplica, api.KindEvent, api.KindEndpoint, api.KindRevision:
		return refuse("%s is made by orch itself and cannot be applied", kind)
	default:
		if right, ok := otherKinds[kind]; ok {
			return refuse("%s is not known here: %s", kind, right)
		}
		if near := nearest(kind, append(keys(laterKinds), api.KindService)); near != "" {
			return refuse("%q is unknown; did you mean %q?", clip(kind), near)
		}
		return refuse("%q is unknown: want %s", clip(kind), api.KindService)
	}
}

// foreign helps those who come with a manifest of another system.
func foreign(version, kind string) string {
	if right, ok := otherKinds[kind]; ok {
		return fmt.Sprintf(`: this is a Kubernetes manifest; for a %s %s, with containers directly under spec (see manifests/examples/web.yaml)`, kind, right)
	}
	if kind == api.KindService && version == "v1" {
		return ": a Service here is what runs (replicas and containers), not Kubernetes' load balancer (see manifests/examples/web.yaml)"
	}
	if strings.HasPrefix(version, "orch/") {
		return ": this version of orch knows only that one"
	}
	return ""
}

// service checks the tree against the api type and converts what passed.
func (r *reader) service(root *yaml.Node) *api.Service {
	clean := r.value(root, reflect.TypeFor[api.Service](), "")
	if clean == nil {
		return nil
	}
	text, err := yaml.Marshal(clean)
	service := &api.Service{}
	if err == nil {
		err = sigsyaml.UnmarshalStrict(text, service)
	}
	if err != nil {
		if len(r.problems) == 0 {
			r.refuse(placeAt(root), "", "cannot be converted: %s", err)
		}
		return nil
	}
	return service
}

// fromSystem accepts what only orch writes where the document came from orch:
// `get -o yaml` prints a uid with it. It is then cleared, but for uid and
// resourceVersion, which ask that nothing changed since.
func (r *reader) fromSystem(s *api.Service) {
	for _, path := range []string{"metadata.generation", "metadata.createdAt", "status"} {
		if _, present := r.places[path]; present && s.Metadata.UID == "" && !r.tainted("metadata.uid") {
			r.refuse(r.placeOf(path), path, "is written by orch: remove it (it is accepted only beside the metadata.uid that get -o yaml prints)")
		}
	}
	s.Metadata.Generation, s.Metadata.CreatedAt, s.Status = 0, time.Time{}, api.ServiceStatus{}
}

// namespace applies InNamespace.
func (r *reader) namespace(s *api.Service, want string) {
	switch {
	case want == "":
	case s.Metadata.Namespace == "":
		s.Metadata.Namespace = want
	case s.Metadata.Namespace != want:
		r.refuse(r.placeOf("metadata.namespace"), "metadata.namespace", "is %q, but namespace %q was asked for: change one of them",
			clip(s.Metadata.Namespace), want)
	}
}

// validate adds what the api package finds, with lines; but not what only
// follows from a problem that is told already.
func (r *reader) validate(s *api.Service) {
	for _, v := range api.Validate(s) {
		if !r.tainted(v.Path) {
			r.problems = append(r.problems, r.problem(r.placeOf(v.Path), v.Path, v.Message))
		}
	}
}
