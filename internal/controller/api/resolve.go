package api

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/controller/view"
)

func keyOfReplica(x *api.Replica) api.ReplicaKey {
	return api.ReplicaKey{Namespace: x.Metadata.Namespace, Service: x.Spec.Service, Slot: x.Spec.Slot, Epoch: x.Spec.Epoch}
}

// nameOfReplica gives "web-0@17".
func nameOfReplica(k api.ReplicaKey) string { return fmt.Sprintf("%s@%d", k.Name(), k.Epoch) }

// candidatesMax is how many names an ambiguous prefix lists.
const candidatesMax = 5

// resolve finds the replica that a user means: "web-0", "web-0@17",
// "default/web-0", or a prefix of one slot's name. Where several fill the slot,
// it is the one that serves.
func resolve(snap *view.Snapshot, namespace, text string) (*api.Replica, error) {
	if before, after, ok := strings.Cut(text, "/"); ok {
		if namespace != "" && namespace != before {
			return nil, invalid("replica %q: the namespace is said twice, as %s and %s", text, before, namespace)
		}
		namespace, text = before, after
	}
	namespace = cmp.Or(namespace, api.DefaultNamespace)
	if text == "" {
		return nil, invalid("no replica is named; want <service>-<slot>, such as web-0")
	}
	var exact, begin []*api.Replica
	snap.All(api.KindReplica, namespace, func(e core.Entry) bool {
		r := e.Object.(*api.Replica)
		switch {
		case r.Metadata.Name == text || e.Key.Name == text:
			exact = append(exact, r)
		case isPrefix(text, e.Key.Name):
			begin = append(begin, r)
		}
		return true
	})
	if len(exact) > 0 {
		return serving(exact), nil
	}
	if len(begin) == 0 {
		return nil, notFound("replica %s/%s: not found%s", namespace, text, didYouMean(snap, api.KindReplica, namespace, text))
	}
	var slots []string
	for _, r := range begin {
		if !slices.Contains(slots, r.Metadata.Name) {
			slots = append(slots, r.Metadata.Name)
		}
	}
	if len(slots) > 1 {
		more := ""
		if len(slots) > candidatesMax {
			slots, more = slots[:candidatesMax], ", ..."
		}
		return nil, invalid("replica %q is ambiguous: it could be %s%s", text, strings.Join(slots, ", "), more)
	}
	return serving(begin), nil
}

// isPrefix does not cut a number in two: "web-1" does not mean web-10.
func isPrefix(text, name string) bool {
	rest, ok := strings.CutPrefix(name, text)
	return ok && !(digit(text[len(text)-1]) && rest != "" && digit(rest[0]))
}

func digit(c byte) bool { return '0' <= c && c <= '9' }

// serving picks among fillings of one slot.
func serving(list []*api.Replica) *api.Replica {
	return slices.MaxFunc(list, func(a, b *api.Replica) int {
		return cmp.Or(
			-compareBool(a.Status.Phase.Ended(), b.Status.Phase.Ended()),
			-compareBool(a.Status.Phase == api.PhaseStopping, b.Status.Phase == api.PhaseStopping),
			compareBool(a.Status.Ready, b.Status.Ready),
			compareBool(a.Status.Phase == api.PhaseRunning, b.Status.Phase == api.PhaseRunning),
			-compareBool(a.Status.LastKnown, b.Status.LastKnown),
			cmp.Compare(a.Spec.Epoch, b.Spec.Epoch),
		)
	})
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}
