package rig

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// View is what the leader holds of nodes and replicas, as the API's watch told it.
type View struct {
	Nodes    map[string]api.Node
	Replicas map[api.ReplicaKey]api.Replica
}

// Of gives a service's replicas of the default namespace, by slot; where a slot
// has several, all of them, in no order.
func (v *View) Of(service string) map[int][]api.Replica {
	out := map[int][]api.Replica{}
	for _, r := range v.Replicas {
		if r.Spec.Service == service && r.Metadata.Namespace == api.DefaultNamespace {
			out[r.Spec.Slot] = append(out[r.Spec.Slot], r)
		}
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
	cancel context.CancelFunc
}

// change is one event of a watch and when it arrived here.
type change struct {
	at     time.Time
	kind   orchv1.WatchEvent_Type
	object *orchv1.Object
	err    error
}

// followQueue is how many changes wait for the one who looks: a burst of some
// hundred replicas, several changes each.
const followQueue = 4096

// Follow watches nodes and replicas from now until Close, and returns when it
// has what is there.
func (f *Fleet) Follow(ctx context.Context) (*Follower, error) {
	ctx, cancel := context.WithCancel(ctx)
	w := &Follower{
		View:   View{Nodes: map[string]api.Node{}, Replicas: map[api.ReplicaKey]api.Replica{}},
		events: make(chan change, followQueue), cancel: cancel,
	}
	kinds := []string{api.KindNode, api.KindReplica}
	for _, kind := range kinds {
		stream, err := f.Orch.Watch(ctx, &orchv1.WatchRequest{List: &orchv1.ListRequest{Kind: kind}})
		if err != nil {
			cancel()
			return nil, fmt.Errorf("watch %s: %w", kind, err)
		}
		go w.receive(ctx, kind, stream.Recv)
	}
	for synced := 0; synced < len(kinds); {
		c := <-w.events
		if c.kind == orchv1.WatchEvent_SYNCED {
			synced++
			continue
		}
		if err := w.take(c); err != nil {
			cancel()
			return nil, err
		}
	}
	return w, nil
}

// Close ends the watches.
func (w *Follower) Close() { w.cancel() }

func (w *Follower) receive(ctx context.Context, kind string, next func() (*orchv1.WatchEvent, error)) {
	for {
		e, err := next()
		c := change{at: time.Now(), err: err}
		if err == nil {
			c.kind, c.object = e.Type, e.Object
		} else if err == io.EOF {
			c.err = fmt.Errorf("watch %s: ended", kind)
		}
		select {
		case w.events <- c:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

func (w *Follower) take(c change) error {
	if c.err != nil {
		return c.err
	}
	if c.kind == orchv1.WatchEvent_SYNCED {
		return nil
	}
	switch c.object.Kind {
	case api.KindNode:
		var n api.Node
		if err := json.Unmarshal(c.object.Json, &n); err != nil {
			return err
		}
		if c.kind == orchv1.WatchEvent_GONE {
			delete(w.View.Nodes, n.Metadata.Name)
		} else {
			w.View.Nodes[n.Metadata.Name] = n
		}
	case api.KindReplica:
		var r api.Replica
		if err := json.Unmarshal(c.object.Json, &r); err != nil {
			return err
		}
		key := api.ReplicaKey{Namespace: r.Metadata.Namespace, Service: r.Spec.Service, Slot: r.Spec.Slot, Epoch: r.Spec.Epoch}
		if c.kind == orchv1.WatchEvent_GONE {
			delete(w.View.Replicas, key)
		} else {
			w.View.Replicas[key] = r
		}
	}
	return nil
}

// Until takes changes until cond holds, and says when the change that made it
// hold arrived; that is now where it held already. On the deadline it says what
// cond said last.
func (w *Follower) Until(ctx context.Context, within time.Duration, what string, cond func(*View) error) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	at := time.Now()
	for {
		err := cond(&w.View)
		if err == nil {
			return at, nil
		}
		select {
		case c := <-w.events:
			if err := w.take(c); err != nil {
				return time.Time{}, fmt.Errorf("%s: %w", what, err)
			}
			at = c.at
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("%s: not within %s: %w", what, within, err)
		}
	}
}

// Waiting tells how many changes have arrived and were not yet taken.
func (w *Follower) Waiting() int { return len(w.events) }
