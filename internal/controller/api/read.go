package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/controller/view"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// listBytesMax is the most that one list answers with, in bytes: clients take a little
// more. Configs alone come to so much.
const listBytesMax = 240 << 20

// kinds that can be read.
var kinds = []string{api.KindService, api.KindJob, api.KindConfig, api.KindSecret, api.KindReplica, api.KindEndpoint, api.KindNode, api.KindEvent,
	api.KindVerdict, api.KindFleet, api.KindRevision, api.KindOutcome, api.KindVolume}

// labelled are the kinds that can be selected by labels.
var labelled = []string{api.KindService, api.KindJob, api.KindConfig, api.KindSecret, api.KindReplica, api.KindEndpoint, api.KindNode}

// spaceless are the kinds whose objects are in no namespace.
var spaceless = []string{api.KindNode, api.KindVerdict, api.KindFleet}

func checkKind(kind string) error {
	if !slices.Contains(kinds, kind) {
		return invalid("unknown kind %.80q: want one of %s", kind, strings.Join(kinds, ", "))
	}
	return nil
}

func (s *Server) snapshot() (*view.Snapshot, error) {
	if snap := s.cfg.View.Snapshot(); snap != nil {
		return snap, nil
	}
	return nil, status.Error(codes.Unavailable, "this controller knows nothing yet; try again")
}

// Get implements orch.v1.Orch. Replicas go by name, with or without epoch, or by
// a prefix that only one has.
func (s *Server) Get(_ context.Context, r *orchv1.GetRequest) (*orchv1.Object, error) {
	ref := r.GetRef()
	if err := checkKind(ref.GetKind()); err != nil {
		return nil, err
	}
	snap, err := s.snapshot()
	if err != nil {
		return nil, err
	}
	if ref.GetKind() == api.KindReplica {
		x, err := resolve(snap, ref.GetNamespace(), ref.GetName())
		if err != nil {
			return nil, err
		}
		return object(api.KindReplica, x)
	}
	k := core.ViewKey{Kind: ref.GetKind(), Namespace: ref.GetNamespace(), Name: ref.GetName()}
	switch {
	case slices.Contains(spaceless, k.Kind):
		k.Namespace = ""
	case k.Kind != api.KindEvent:
		k.Namespace = cmp.Or(k.Namespace, api.DefaultNamespace)
	}
	x, ok := snap.Get(k)
	if !ok {
		return nil, notFound("%s %s: not found%s", strings.ToLower(k.Kind), api.Key{Namespace: k.Namespace, Name: k.Name}, didYouMean(snap, k.Kind, k.Namespace, k.Name))
	}
	return object(k.Kind, x)
}

// filter is which objects a list or watch is about.
type filter struct {
	kind, namespace string
	selector        api.Selector
	about           *orchv1.Ref
	// uid of what it is about, where that is there now: events of one of its name that
	// was deleted are not meant.
	uid string
}

// known notes what the filter's object is now.
func (f *filter) known(snap *view.Snapshot) {
	if f.kind != api.KindEvent || f.about == nil {
		return
	}
	name, namespace := f.about.GetName(), cmp.Or(f.about.GetNamespace(), api.DefaultNamespace)
	kinds := []string{f.about.GetKind()}
	if f.about.GetKind() == api.KindReplica {
		name, _, _ = strings.Cut(name, "@")
		if i := strings.LastIndexByte(name, '-'); i > 0 {
			name = name[:i]
		}
		kinds = []string{api.KindService, api.KindJob}
	}
	for _, kind := range kinds {
		x, ok := snap.Get(core.ViewKey{Kind: kind, Namespace: namespace, Name: name})
		if o, is := x.(api.Object); ok && is {
			f.uid = o.GetMetadata().UID
		}
	}
}

func filterOf(r *orchv1.ListRequest) (filter, error) {
	f := filter{kind: r.GetKind(), namespace: r.GetNamespace(), about: r.GetAbout()}
	if err := checkKind(f.kind); err != nil {
		return f, err
	}
	var err error
	if f.selector, err = api.ParseSelector(r.GetSelector()); err != nil {
		return f, invalid("%v", err)
	}
	if slices.Contains(spaceless, f.kind) {
		f.namespace = ""
	}
	if !slices.Contains(labelled, f.kind) && len(f.selector) > 0 {
		return f, invalid("objects of kind %s have no labels to select by", f.kind)
	}
	if f.about == nil {
		if f.kind == api.KindRevision {
			return f, invalid("revisions are listed about one service: name it")
		}
		return f, nil
	}
	if err := checkKind(f.about.GetKind()); err != nil {
		return f, err
	}
	switch {
	case f.kind == api.KindEvent:
		f.namespace = "" // node events have none: the reference says it
	case f.kind == api.KindVerdict && f.about.GetKind() == api.KindNode && f.about.GetName() != "":
	case f.kind == api.KindEndpoint && (f.about.GetKind() == api.KindService || f.about.GetKind() == api.KindReplica) && f.about.GetName() != "":
		if f.namespace == "" {
			f.namespace = cmp.Or(f.about.GetNamespace(), api.DefaultNamespace)
		}
	case f.kind == api.KindRevision && f.about.GetKind() == api.KindService && f.about.GetName() != "":
		f.namespace = cmp.Or(f.about.GetNamespace(), f.namespace, api.DefaultNamespace)
	case f.kind == api.KindOutcome && f.about.GetKind() == api.KindJob && f.about.GetName() != "":
		f.namespace = cmp.Or(f.about.GetNamespace(), f.namespace, api.DefaultNamespace)
	case f.kind == api.KindOutcome:
		return f, invalid("outcomes are a job's, not of %s %.80q", f.about.GetKind(), f.about.GetName())
	case f.kind == api.KindRevision:
		return f, invalid("revisions are a service's, not of %s %.80q", f.about.GetKind(), f.about.GetName())
	case f.kind == api.KindEndpoint && f.about.GetKind() == api.KindNode:
	case f.kind == api.KindEndpoint:
		return f, invalid("endpoints are of a service, a replica or a node, not of %s %.80q", f.about.GetKind(), f.about.GetName())
	case f.kind == api.KindVerdict:
		return f, invalid("verdicts are about nodes, not %s %.80q", f.about.GetKind(), f.about.GetName())
	default:
		return f, invalid("only events, verdicts, endpoints, revisions and outcomes can be listed about something, not kind %s", f.kind)
	}
	return f, nil
}

// all visits the objects that may be wanted: of a node's verdicts, a service's revisions
// and a job's outcomes only its own.
func (f filter) all(snap *view.Snapshot, visit func(core.Entry) bool) {
	switch {
	case f.kind == api.KindVerdict && f.about != nil:
		snap.Within(f.kind, f.namespace, f.about.GetName()+"/", visit)
	case f.kind == api.KindRevision, f.kind == api.KindOutcome && f.about != nil:
		snap.Within(f.kind, f.namespace, f.about.GetName()+"@", visit)
	default:
		snap.All(f.kind, f.namespace, visit)
	}
}

func (f filter) wants(x any) bool {
	if f.about != nil {
		switch x := x.(type) {
		case *api.Event:
			return isAbout(x, f.about) && (f.uid == "" || x.UID == "" || x.UID == f.uid)
		case *api.VerdictRecord:
			return x.Node == f.about.GetName()
		case *api.Endpoint:
			return isOf(x, f.about)
		case *api.Revision:
			return x.Service.Name == f.about.GetName()
		case *api.Outcome:
			return x.Job == f.about.GetName()
		}
		return false
	}
	return len(f.selector) == 0 || f.selector.Matches(labelsOf(x))
}

// isAbout: events of a replica are of its slot, whatever fills it.
func isAbout(e *api.Event, ref *orchv1.Ref) bool {
	name, namespace := ref.GetName(), cmp.Or(ref.GetNamespace(), api.DefaultNamespace)
	switch kind := ref.GetKind(); {
	case slices.Contains(spaceless, kind):
		namespace = ""
	case kind == api.KindReplica:
		name, _, _ = strings.Cut(name, "@")
	}
	return e.Kind == ref.GetKind() && e.Name == name && e.Namespace == namespace
}

// isOf tells whether an endpoint is of a service, of a slot ("web-0") or one of its
// fillings ("web-0@17"), or on a node.
func isOf(e *api.Endpoint, ref *orchv1.Ref) bool {
	namespace := cmp.Or(ref.GetNamespace(), api.DefaultNamespace)
	switch ref.GetKind() {
	case api.KindNode:
		return e.Status.Node == ref.GetName()
	case api.KindService:
		return e.Status.Service == ref.GetName() && e.Metadata.Namespace == namespace
	}
	slot, _, exact := strings.Cut(ref.GetName(), "@")
	if exact && fmt.Sprintf("%s@%d", e.Status.Replica, e.Status.Epoch) != ref.GetName() {
		return false
	}
	return e.Status.Replica == slot && e.Metadata.Namespace == namespace
}

func labelsOf(x any) map[string]string {
	switch x := x.(type) {
	case api.Object: // not what only the leader makes
		return x.GetMetadata().Labels
	case *api.Replica:
		return x.Metadata.Labels
	case *api.Endpoint:
		return x.Metadata.Labels
	case *api.Node:
		return x.Metadata.Labels
	}
	return nil
}

// List implements orch.v1.Orch.
func (s *Server) List(ctx context.Context, r *orchv1.ListRequest) (*orchv1.ListResponse, error) {
	f, err := filterOf(r)
	if err != nil {
		return nil, err
	}
	snap, err := s.snapshot()
	if err != nil {
		return nil, err
	}
	f.known(snap)
	out := &orchv1.ListResponse{}
	if !snap.StaleSince.IsZero() {
		out.StaleSince = timestamppb.New(snap.StaleSince)
	}
	size := 0
	f.all(snap, func(e core.Entry) bool {
		if !f.wants(e.Object) {
			return true
		}
		var o *orchv1.Object
		if o, err = object(e.Key.Kind, e.Object); err == nil {
			out.Objects = append(out.Objects, o)
			err = ctx.Err() // nobody waits for it any more
		}
		if size += len(o.GetJson()); size > listBytesMax && err == nil {
			err = status.Error(codes.ResourceExhausted, fmt.Sprintf("the objects of kind %s that match are more than %d MiB: list those of one namespace, or choose some by labels", f.kind, listBytesMax>>20))
		}
		return err == nil
	})
	if f.kind == api.KindRevision {
		slices.Reverse(out.Objects) // newest first
	}
	return out, statusOf(err)
}

// Watch implements orch.v1.Orch.
func (s *Server) Watch(r *orchv1.WatchRequest, st orchv1.Orch_WatchServer) error {
	f, err := filterOf(r.GetList())
	if err != nil {
		return err
	}
	snap, w := s.cfg.View.Watch(f.kind, f.namespace)
	defer w.Close()
	if snap == nil {
		_, err := s.snapshot()
		return err
	}
	f.known(snap)
	x := watch{filter: f, stream: st, shown: map[core.ViewKey]bool{}}
	f.all(snap, func(e core.Entry) bool {
		err = x.tell(view.Change{Key: e.Key, Object: e.Object})
		return err == nil
	})
	if err == nil {
		err = st.Send(&orchv1.WatchEvent{Type: orchv1.WatchEvent_SYNCED})
	}
	for err == nil {
		var changes []view.Change
		if changes, err = w.Next(st.Context()); errors.Is(err, view.ErrTooSlow) {
			return status.Error(codes.ResourceExhausted, err.Error())
		}
		for i := 0; i < len(changes) && err == nil; i++ {
			err = x.tell(changes[i])
		}
	}
	return statusOf(err)
}

// watch knows what it has shown: what does not match the selector any more is
// gone for this watcher.
type watch struct {
	filter filter
	stream orchv1.Orch_WatchServer
	shown  map[core.ViewKey]bool
}

func (x *watch) tell(c view.Change) error {
	show := !c.Gone && x.filter.wants(c.Object)
	if !show && !x.shown[c.Key] {
		return nil
	}
	o, err := object(c.Key.Kind, c.Object)
	if err != nil {
		return err
	}
	typ := orchv1.WatchEvent_PUT
	if show {
		x.shown[c.Key] = true
	} else {
		delete(x.shown, c.Key)
		typ = orchv1.WatchEvent_GONE
	}
	return x.stream.Send(&orchv1.WatchEvent{Type: typ, Object: o})
}
