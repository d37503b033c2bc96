// Package follow keeps a picture of what the leader holds, by the API's watches,
// with the time at which each change arrived.
//
// It owns the picture and its currency: where a watch breaks, because a
// controller died, it watches again and forgets what is no longer told. It
// decides nothing. Invariant: after Until returned, View is what was told up to
// the time that it gave.
//
//	controller ──Watch(nodes, services, replicas, fleet)──► Follower ──► View
package follow

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// View is what the leader holds.
type View struct {
	Nodes    map[string]api.Node
	Services map[api.Key]api.Service
	Replicas map[api.ReplicaKey]api.Replica
	Fleet    api.Fleet
}

// Of gives a service's replicas of the default namespace, by slot; where a slot
// has several, all of them, by epoch.
func (v *View) Of(service string) map[int][]api.Replica {
	out := map[int][]api.Replica{}
	for _, r := range v.Replicas {
		if r.Spec.Service == service && r.Metadata.Namespace == api.DefaultNamespace {
			out[r.Spec.Slot] = append(out[r.Spec.Slot], r)
		}
	}
	for _, all := range out {
		slices.SortFunc(all, func(a, b api.Replica) int { return int(a.Spec.Epoch) - int(b.Spec.Epoch) })
	}
	return out
}

// Running gives for each slot of a service one replica that runs, is ready, and
// is not merely last known.
func (v *View) Running(service string) map[int]api.Replica {
	out := map[int]api.Replica{}
	for slot, all := range v.Of(service) {
		for _, r := range all {
			if r.Status.Phase == api.PhaseRunning && r.Status.Ready && !r.Status.LastKnown {
				out[slot] = r
			}
		}
	}
	return out
}

// Follower holds a View current. It is for one goroutine.
type Follower struct {
	View   View
	events chan change
	told   map[string]map[any]bool // by kind, what its watch has told since it began; nil once in step
	cancel context.CancelFunc
}

// change is one event of a watch and when it arrived here.
type change struct {
	at     time.Time
	kind   string
	began  bool // the watch of this kind begins anew
	event  orchv1.WatchEvent_Type
	object *orchv1.Object
}

const (
	// queueMax is how many changes wait for the one who looks: a burst of some
	// hundred replicas, several changes each.
	queueMax = 4096
	// againAfter is the pause before a watch that broke is begun anew.
	againAfter = 20 * time.Millisecond
)

var kinds = []string{api.KindNode, api.KindService, api.KindReplica, api.KindFleet}

// New watches from now until Close, and returns when it has what is there.
func New(ctx context.Context, client orchv1.OrchClient) (*Follower, error) {
	watching, cancel := context.WithCancel(context.WithoutCancel(ctx))
	w := &Follower{
		View:   View{Nodes: map[string]api.Node{}, Services: map[api.Key]api.Service{}, Replicas: map[api.ReplicaKey]api.Replica{}},
		events: make(chan change, queueMax), told: map[string]map[any]bool{}, cancel: cancel,
	}
	for _, kind := range kinds {
		go w.watch(watching, client, kind)
	}
	for synced := 0; synced < len(kinds); {
		select {
		case c := <-w.events:
			if c.event == orchv1.WatchEvent_SYNCED {
				synced++
			}
			if err := w.take(c); err != nil {
				cancel()
				return nil, err
			}
		case <-ctx.Done():
			cancel()
			return nil, fmt.Errorf("watch the cluster: %w", ctx.Err())
		}
	}
	return w, nil
}

// Close ends the watches.
func (w *Follower) Close() { w.cancel() }

// watch tells of one kind until ctx ends.
func (w *Follower) watch(ctx context.Context, client orchv1.OrchClient, kind string) {
	for ctx.Err() == nil {
		stream, err := client.Watch(ctx, &orchv1.WatchRequest{List: &orchv1.ListRequest{Kind: kind}})
		if err == nil {
			w.tell(ctx, change{at: time.Now(), kind: kind, began: true})
			for {
				e, err := stream.Recv()
				if err != nil {
					break
				}
				w.tell(ctx, change{at: time.Now(), kind: kind, event: e.GetType(), object: e.GetObject()})
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(againAfter):
		}
	}
}

func (w *Follower) tell(ctx context.Context, c change) {
	select {
	case w.events <- c:
	case <-ctx.Done():
	}
}

func (w *Follower) take(c change) error {
	switch {
	case c.began:
		w.told[c.kind] = map[any]bool{}
		return nil
	case c.event == orchv1.WatchEvent_SYNCED:
		w.forget(c.kind)
		return nil
	}
	gone := c.event == orchv1.WatchEvent_GONE
	var err error
	switch c.kind {
	case api.KindNode:
		err = put(w, c, gone, w.View.Nodes, func(n *api.Node) string { return n.Metadata.Name })
	case api.KindService:
		err = put(w, c, gone, w.View.Services, func(s *api.Service) api.Key { return s.Metadata.Key() })
	case api.KindReplica:
		err = put(w, c, gone, w.View.Replicas, func(r *api.Replica) api.ReplicaKey {
			return api.ReplicaKey{Namespace: r.Metadata.Namespace, Service: r.Spec.Service, Slot: r.Spec.Slot, Epoch: r.Spec.Epoch}
		})
	case api.KindFleet:
		w.View.Fleet = api.Fleet{} // what is not told is zero
		err = json.Unmarshal(c.object.GetJson(), &w.View.Fleet)
	}
	if err != nil {
		return fmt.Errorf("read %s that the watch told of: %w", c.kind, err)
	}
	return nil
}

func put[K comparable, T any](w *Follower, c change, gone bool, into map[K]T, key func(*T) K) error {
	var object T
	if err := json.Unmarshal(c.object.GetJson(), &object); err != nil {
		return err
	}
	k := key(&object)
	if gone {
		delete(into, k)
		return nil
	}
	into[k] = object
	if told := w.told[c.kind]; told != nil {
		told[k] = true
	}
	return nil
}

// forget drops what a watch that began anew did not tell again.
func (w *Follower) forget(kind string) {
	told := w.told[kind]
	delete(w.told, kind)
	switch kind {
	case api.KindNode:
		maps.DeleteFunc(w.View.Nodes, func(k string, _ api.Node) bool { return !told[k] })
	case api.KindService:
		maps.DeleteFunc(w.View.Services, func(k api.Key, _ api.Service) bool { return !told[k] })
	case api.KindReplica:
		maps.DeleteFunc(w.View.Replicas, func(k api.ReplicaKey, _ api.Replica) bool { return !told[k] })
	}
}

// Until takes changes until cond holds and no change waits that might undo it,
// and says when the change that made it hold arrived; that is now where it held
// from the first. On the deadline it says what cond said last.
func (w *Follower) Until(ctx context.Context, within time.Duration, what string, cond func(*View) error) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	since := time.Now()
	err := cond(&w.View)
	for {
		if err == nil && len(w.events) == 0 {
			return since, nil
		}
		select {
		case c := <-w.events:
			if err := w.take(c); err != nil {
				return time.Time{}, fmt.Errorf("%s: %w", what, err)
			}
			before := err
			if err = cond(&w.View); before != nil && err == nil {
				since = c.at
			}
		case <-ctx.Done():
			if err == nil {
				return since, nil
			}
			return time.Time{}, fmt.Errorf("%s: not within %s: %w", what, within, err)
		}
	}
}

// Take takes the changes that have arrived, for at most the given time, and
// calls seen after each. It ends early when ctx does.
func (w *Follower) Take(ctx context.Context, d time.Duration, seen func(at time.Time, v *View)) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		select {
		case c := <-w.events:
			if err := w.take(c); err != nil {
				return err
			}
			seen(c.at, &w.View)
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Waiting tells how many changes have arrived and were not yet taken.
func (w *Follower) Waiting() int { return len(w.events) }
