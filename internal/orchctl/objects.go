package orchctl

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// object is one api object as it came: value is *api.Service, *api.Replica,
// *api.Endpoint, *api.Node, *api.Event, *api.VerdictRecord, *api.Revision or
// *api.Fleet, raw its
// JSON, which a newer controller may have given more fields.
type object struct {
	kind  string
	raw   json.RawMessage
	value any
}

// decode reads an object off the wire.
func decode(o *orchv1.Object) (object, error) {
	out := object{kind: o.GetKind(), raw: o.GetJson()}
	switch out.kind {
	case api.KindService:
		out.value = &api.Service{}
	case api.KindReplica:
		out.value = &api.Replica{}
	case api.KindEndpoint:
		out.value = &api.Endpoint{}
	case api.KindNode:
		out.value = &api.Node{}
	case api.KindEvent:
		out.value = &api.Event{}
	case api.KindVerdict:
		out.value = &api.VerdictRecord{}
	case api.KindRevision:
		out.value = &api.Revision{}
	case api.KindFleet:
		out.value = &api.Fleet{}
	default:
		return out, fmt.Errorf("the controller sent an object of kind %q, which this orchctl does not know: use the controller's version of it", cleanText(out.kind))
	}
	if err := json.Unmarshal(out.raw, out.value); err != nil {
		return out, fmt.Errorf("read %s from the controller: %w", out.kind, err)
	}
	return out, nil
}

func decodeAll(list []*orchv1.Object) ([]object, error) {
	out := make([]object, 0, len(list))
	for _, o := range list {
		x, err := decode(o)
		if err != nil {
			return nil, err
		}
		out = append(out, x)
	}
	return out, nil
}

func (o object) namespace() string {
	switch v := o.value.(type) {
	case *api.Service:
		return v.Metadata.Namespace
	case *api.Replica:
		return v.Metadata.Namespace
	case *api.Endpoint:
		return v.Metadata.Namespace
	case *api.Event:
		return v.Namespace
	case *api.Revision:
		return v.Service.Namespace
	}
	return ""
}

func (o object) name() string {
	switch v := o.value.(type) {
	case *api.Service:
		return v.Metadata.Name
	case *api.Replica:
		return v.Metadata.Name
	case *api.Endpoint:
		return v.Metadata.Name
	case *api.Node:
		return v.Metadata.Name
	case *api.Event:
		return strconv.FormatUint(v.Seq, 10)
	case *api.VerdictRecord:
		return verdictName(v)
	case *api.Revision:
		return revisionName(v.Service.Name, v.Number)
	case *api.Fleet:
		return v.Metadata.Name
	}
	return ""
}

// key is unique among all objects: two fillings of a slot share their name.
func (o object) key() string {
	key := o.kind + "/" + o.namespace() + "/" + o.name()
	if r, ok := o.value.(*api.Replica); ok {
		key += "@" + strconv.FormatUint(r.Spec.Epoch, 10)
	}
	return key
}

// compareObjects orders by kind, namespace and name, replicas by slot, events
// and verdicts by time, a service's revisions newest first.
func compareObjects(a, b object) int {
	if c := strings.Compare(a.kind, b.kind); c != 0 {
		return c
	}
	if x, ok := a.value.(*api.Event); ok {
		y := b.value.(*api.Event)
		return cmp.Or(x.Time.Compare(y.Time), cmp.Compare(x.Seq, y.Seq))
	}
	if x, ok := a.value.(*api.VerdictRecord); ok {
		y := b.value.(*api.VerdictRecord)
		return cmp.Or(x.Time.Compare(y.Time), cmp.Compare(x.Seq, y.Seq))
	}
	if c := strings.Compare(a.namespace(), b.namespace()); c != 0 {
		return c
	}
	if x, ok := a.value.(*api.Replica); ok {
		y := b.value.(*api.Replica)
		return cmp.Or(strings.Compare(x.Spec.Service, y.Spec.Service), cmp.Compare(x.Spec.Slot, y.Spec.Slot), cmp.Compare(x.Spec.Epoch, y.Spec.Epoch))
	}
	if x, ok := a.value.(*api.Revision); ok {
		y := b.value.(*api.Revision)
		return cmp.Or(strings.Compare(x.Service.Name, y.Service.Name), -cmp.Compare(x.Number, y.Number))
	}
	if x, ok := a.value.(*api.Endpoint); ok {
		y := b.value.(*api.Endpoint)
		return cmp.Or(strings.Compare(x.Status.Service, y.Status.Service), cmp.Compare(slotOf(x), slotOf(y)), cmp.Compare(x.Status.Epoch, y.Status.Epoch))
	}
	return strings.Compare(a.name(), b.name())
}

// Kinds and the words for them.
var kindWords = []struct {
	kind, one, many string
	others          []string
}{
	{api.KindService, "service", "services", []string{"svc"}},
	{api.KindReplica, "replica", "replicas", []string{"rep", "reps"}},
	{api.KindEndpoint, "endpoint", "endpoints", []string{"ep", "eps"}},
	{api.KindNode, "node", "nodes", []string{"no"}},
	{api.KindEvent, "event", "events", []string{"ev"}},
	{api.KindVerdict, "verdict", "verdicts", nil},
	{api.KindFleet, "fleet", "fleet", nil},
}

// foreign are words of other systems, and ours for them.
var foreign = map[string]string{"pod": "replica", "pods": "replica", "po": "replica", "container": "replica", "containers": "replica",
	"task": "replica", "tasks": "replica", "ps": "replica", "alloc": "replica", "allocs": "replica", "deployment": "service",
	"deployments": "service", "deploy": "service", "statefulset": "service", "daemonset": "service", "daemonsets": "service", "ds": "service", "endpointslice": "endpoint", "endpointslices": "endpoint", "server": "node", "servers": "node", "client": "node"}

// parseKind reads a word for a kind.
func parseKind(word string) (string, error) {
	low := strings.ToLower(word)
	for _, k := range kindWords {
		if low == k.one || low == k.many || slices.Contains(k.others, low) {
			return k.kind, nil
		}
	}
	hint := ""
	if low == "revision" || low == "revisions" {
		hint = "; did you mean `orchctl history service/NAME`?"
	} else if ours, ok := foreign[low]; ok {
		hint = fmt.Sprintf("; did you mean %q?", ours)
	}
	return "", usagef("there is no kind %q%s (there are service, replica, endpoint, node, event, verdict and fleet)", word, hint)
}

// word gives the kind's word: "service".
func word(kind string) string {
	for _, k := range kindWords {
		if k.kind == kind {
			return k.one
		}
	}
	return strings.ToLower(kind)
}

func words(kind string) string {
	for _, k := range kindWords {
		if k.kind == kind {
			return k.many
		}
	}
	return strings.ToLower(kind) + "s"
}

// target is what an argument names; an empty name means all of the kind.
type target struct{ kind, namespace, name string }

func (x target) ref() *orchv1.Ref {
	return &orchv1.Ref{Kind: x.kind, Namespace: x.namespace, Name: x.name}
}

func (x target) String() string { return word(x.kind) + "/" + x.name }

// parseTargets reads `service`, `service web api`, `service/web node/n1` and
// `services,nodes`.
func (t *tool) parseTargets(args []string) ([]target, error) {
	if len(args) == 0 {
		return nil, usagef("say what: service, replica, endpoint, node, event, verdict or fleet, such as `orchctl get services`")
	}
	if kind, _, ok := strings.Cut(args[0], "/"); ok {
		if _, err := parseKind(kind); err != nil {
			return nil, err
		}
		return t.parseSlashed(args)
	}
	var kinds []string
	for _, w := range strings.Split(args[0], ",") {
		kind, err := parseKind(w)
		if err != nil {
			return nil, err
		}
		kinds = append(kinds, kind)
	}
	var out []target
	for _, kind := range kinds {
		if len(args) == 1 {
			out = append(out, t.target(kind, ""))
		}
		for _, name := range args[1:] {
			if head, _, ok := strings.Cut(name, "/"); ok {
				if _, err := parseKind(head); err == nil {
					return nil, usagef("%q names a kind again: write either `%s NAME...` or `%s/NAME ...`", name, word(kind), word(kind))
				}
			}
			out = append(out, t.target(kind, name))
		}
	}
	return out, nil
}

func (t *tool) parseSlashed(args []string) ([]target, error) {
	var out []target
	for i, a := range args {
		head, name, ok := strings.Cut(a, "/")
		if !ok || name == "" {
			like := ""
			if i > 0 {
				like = ", like the arguments before it"
			}
			return nil, usagef("%q: want TYPE/NAME, such as service/web%s", a, like)
		}
		kind, err := parseKind(head)
		if err != nil {
			return nil, err
		}
		out = append(out, t.target(kind, name))
	}
	return out, nil
}

// spaceless tells whether objects of a kind are in no namespace.
func spaceless(kind string) bool {
	return kind == api.KindNode || kind == api.KindVerdict || kind == api.KindFleet
}

// target completes a name: "shop/web" carries its namespace; nodes have none.
func (t *tool) target(kind, name string) target {
	x := target{kind: kind, name: name, namespace: t.space()}
	if spaceless(kind) {
		x.namespace = ""
		return x
	}
	if ns, rest, ok := strings.Cut(name, "/"); ok {
		x.namespace, x.name = ns, rest
	}
	return x
}
