package orchctl

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// object is one api object as it came: value is a pointer to its type of package api,
// raw its JSON, which a newer controller may have given more fields.
type object struct {
	kind  string
	raw   json.RawMessage
	value any
}

// blanks make the value that an object of a kind is read into.
var blanks = map[string]func() any{
	api.KindService:  func() any { return &api.Service{} },
	api.KindJob:      func() any { return &api.Job{} },
	api.KindReplica:  func() any { return &api.Replica{} },
	api.KindEndpoint: func() any { return &api.Endpoint{} },
	api.KindConfig:   func() any { return &api.Config{} },
	api.KindSecret:   func() any { return &api.Config{} },
	api.KindVolume:   func() any { return &api.Volume{} },
	api.KindOutcome:  func() any { return &api.Outcome{} },
	api.KindNode:     func() any { return &api.Node{} },
	api.KindEvent:    func() any { return &api.Event{} },
	api.KindVerdict:  func() any { return &api.VerdictRecord{} },
	api.KindRevision: func() any { return &api.Revision{} },
	api.KindFleet:    func() any { return &api.Fleet{} },
}

// decode reads an object off the wire.
func decode(o *orchv1.Object) (object, error) {
	out := object{kind: o.GetKind(), raw: o.GetJson()}
	blank, ok := blanks[out.kind]
	if !ok {
		return out, fmt.Errorf("the controller sent an object of kind %q, which this orchctl does not know: use the controller's version of it", cleanText(out.kind))
	}
	out.value = blank()
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

// metadata gives what an object has of it; nil of those that have none.
func (o object) metadata() *api.Metadata {
	switch v := o.value.(type) {
	case api.Object:
		return v.GetMetadata()
	case *api.Replica:
		return &v.Metadata
	case *api.Endpoint:
		return &v.Metadata
	case *api.Volume:
		return &v.Metadata
	case *api.Outcome:
		return &v.Metadata
	case *api.Node:
		return &v.Metadata
	case *api.Fleet:
		return &v.Metadata
	}
	return nil
}

func (o object) namespace() string {
	switch v := o.value.(type) {
	case *api.Event:
		return v.Namespace
	case *api.Revision:
		return v.Service.Namespace
	}
	if m := o.metadata(); m != nil {
		return m.Namespace
	}
	return ""
}

func (o object) name() string {
	switch v := o.value.(type) {
	case *api.Event:
		return strconv.FormatUint(v.Seq, 10)
	case *api.VerdictRecord:
		return verdictName(v)
	case *api.Revision:
		return revisionName(v.Service.Name, v.Number)
	}
	if m := o.metadata(); m != nil {
		return m.Name
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

// compareObjects orders by kind, namespace and name, replicas and volumes by slot,
// outcomes by index, events and verdicts by time, a service's revisions newest first.
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
	if x, ok := a.value.(*api.Outcome); ok {
		y := b.value.(*api.Outcome)
		return cmp.Or(strings.Compare(x.Job, y.Job), cmp.Compare(x.Index, y.Index))
	}
	if x, ok := a.value.(*api.Volume); ok {
		y := b.value.(*api.Volume)
		return cmp.Or(strings.Compare(x.Spec.Service, y.Spec.Service), cmp.Compare(x.Spec.Slot, y.Spec.Slot), strings.Compare(x.Spec.Volume, y.Spec.Volume))
	}
	if x, ok := a.value.(*api.Endpoint); ok {
		y := b.value.(*api.Endpoint)
		return cmp.Or(strings.Compare(x.Status.Service, y.Status.Service), cmp.Compare(slotOf(x), slotOf(y)), cmp.Compare(x.Status.Epoch, y.Status.Epoch))
	}
	return strings.Compare(a.name(), b.name())
}
