package orchctl

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/orchctl/orch/api"
)

// leaving follows replicas that are to leave their nodes.
type leaving struct {
	t        *tool
	replicas map[string]*api.Replica // all that are there, by key
	starting map[string]bool         // those of which was told where they start anew
}

func newLeaving(t *tool) *leaving {
	return &leaving{t: t, replicas: map[string]*api.Replica{}, starting: map[string]bool{}}
}

// see takes in news of a replica, and gives what was known of it; nil: it is new.
func (l *leaving) see(s sighting) *api.Replica {
	r, ok := s.o.value.(*api.Replica)
	if !ok {
		return nil
	}
	key := s.o.key()
	before := l.replicas[key]
	if s.news == gone {
		delete(l.replicas, key)
		delete(l.starting, key)
	} else {
		l.replicas[key] = r
	}
	return before
}

// on gives what is on a node and not at its end, in order.
func (l *leaving) on(node string) []*api.Replica {
	return l.all(func(r *api.Replica) bool { return r.Spec.Node == node && !r.Status.Phase.Ended() })
}

func (l *leaving) all(want func(*api.Replica) bool) []*api.Replica {
	var out []*api.Replica
	for _, r := range l.replicas {
		if want(r) {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b *api.Replica) int {
		return compareObjects(object{kind: api.KindReplica, value: a}, object{kind: api.KindReplica, value: b})
	})
	return out
}

// successor is what fills, or is about to fill, the slot elsewhere; nil if nothing
// does. One that is ready is preferred, then the newest.
func (l *leaving) successor(r *api.Replica) *api.Replica {
	list := l.all(func(x *api.Replica) bool {
		return x.Metadata.Namespace == r.Metadata.Namespace && x.Spec.Service == r.Spec.Service && x.Spec.Slot == r.Spec.Slot &&
			x.Spec.Epoch != r.Spec.Epoch && x.Spec.Node != "" && x.Spec.Node != r.Spec.Node && !x.Status.Phase.Ended() && x.Status.Phase != api.PhaseStopping
	})
	if len(list) == 0 {
		return nil
	}
	return slices.MaxFunc(list, func(a, b *api.Replica) int {
		if a.Status.Ready != b.Status.Ready {
			if a.Status.Ready {
				return 1
			}
			return -1
		}
		return cmp.Compare(a.Spec.Epoch, b.Spec.Epoch)
	})
}

// replaced tells whether the slot was filled anew on the same node, as a rollout does.
func (l *leaving) replaced(r *api.Replica) bool {
	return len(l.all(func(x *api.Replica) bool {
		return x.Metadata.Namespace == r.Metadata.Namespace && x.Spec.Service == r.Spec.Service && x.Spec.Slot == r.Spec.Slot &&
			x.Spec.Node == r.Spec.Node && x.Spec.Epoch > r.Spec.Epoch && !x.Status.Phase.Ended()
	})) > 0
}

// label names a replica, with its namespace where that is not the usual one.
func (l *leaving) label(r *api.Replica) string {
	if r.Metadata.Namespace != l.t.space() {
		return cleanText(r.Metadata.Namespace + "/" + r.Metadata.Name)
	}
	return cleanText(r.Metadata.Name)
}

// starts tells once where a replica starts anew; "" where there is nothing to tell.
func (l *leaving) starts(r *api.Replica) string {
	key := object{kind: api.KindReplica, value: r}.key()
	next := l.successor(r)
	if next == nil || next.Spec.Epoch < r.Spec.Epoch || l.starting[key] { // an older one does not start: it was there before
		return ""
	}
	l.starting[key] = true
	return fmt.Sprintf("%s starts on %s", l.label(r), next.Spec.Node)
}

// left tells what became of one that is gone from its node; well is set where
// something ready has taken its place.
func (l *leaving) left(r *api.Replica) (text string, well bool) {
	switch next := l.successor(r); {
	case next != nil && next.Status.Ready && next.Spec.Epoch < r.Spec.Epoch:
		return fmt.Sprintf("%s is gone from here, and runs on %s as before", l.label(r), next.Spec.Node), true
	case next != nil && next.Status.Ready:
		return fmt.Sprintf("%s has moved to %s", l.label(r), next.Spec.Node), true
	case next != nil:
		return fmt.Sprintf("%s was stopped, and starts on %s", l.label(r), next.Spec.Node), false
	case l.replaced(r):
		return fmt.Sprintf("%s@%d was stopped: a newer one has taken its place here", l.label(r), r.Spec.Epoch), true
	}
	return fmt.Sprintf("%s was stopped, and nothing has taken its place yet", l.label(r)), false
}
