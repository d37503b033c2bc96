package ctrd

import (
	"context"
	"fmt"
	"time"

	eventsapi "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
)

// The topics of containerd's that are listened to, and one of our own.
const (
	topicExit = "/tasks/exit"
	topicOOM  = "/tasks/oom"
	// topicHere is published by ourselves: when it comes back, the
	// subscription is known to be in force.
	topicHere = "/orch/here"
)

const (
	eventBuffer = 256 // events that may wait for a slow reader before containerd has to
	// hereTimeout bounds the wait for our own event; containerd takes about 1 ms.
	hereTimeout = 5 * time.Second
)

// Events gives what happens to our containers until ctx ends, when the channel
// is closed. Events are not durable: each Reconnected, the first one among
// them, asks the caller to List.
func (r *Runtime) Events(ctx context.Context) <-chan Event {
	out := make(chan Event, eventBuffer)
	go func() {
		defer close(out)
		for pause := time.Duration(0); ctx.Err() == nil; {
			confirmed, err := r.listen(r.in(ctx), out)
			if ctx.Err() != nil {
				return
			}
			if confirmed || pause == 0 { // told once per outage
				r.log.Warn("containerd's events broke off; listening again", "err", err)
				pause = reconnectMin / 2
			}
			pause = min(2*pause, reconnectMax)
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
		}
	}()
	return out
}

// listen is one subscription, until its end. It tells whether it was in force.
func (r *Runtime) listen(ctx context.Context, out chan<- Event) (confirmed bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var filters []string
	for _, topic := range []string{topicExit, topicOOM, topicHere} {
		filters = append(filters, fmt.Sprintf("topic==%q,namespace==%q", topic, r.cfg.Namespace))
	}
	envelopes, errs := r.client.EventService().Subscribe(ctx, filters...)

	// Publish until one comes back: the subscription may take force a moment
	// after Subscribe returned.
	here := time.NewTicker(reconnectMin)
	defer here.Stop()
	deadline := time.NewTimer(hereTimeout)
	defer deadline.Stop()
	if err := r.publishHere(ctx); err != nil {
		return confirmed, err
	}
	for {
		select {
		case err := <-errs:
			return confirmed, fmt.Errorf("listen to containerd: %w", err)
		case <-here.C:
			if err := r.publishHere(ctx); err != nil {
				return confirmed, err
			}
		case <-deadline.C:
			return confirmed, fmt.Errorf("listen to containerd: its events do not arrive within %s", hereTimeout)
		case env := <-envelopes:
			if !confirmed && env.Topic == topicHere {
				confirmed = true
				here.Stop()
				deadline.Stop()
				if !send(ctx, out, Reconnected{}) {
					return confirmed, ctx.Err()
				}
				continue
			}
			if e := r.eventOf(ctx, env); e != nil && !send(ctx, out, e) {
				return confirmed, ctx.Err()
			}
		}
	}
}

func (r *Runtime) publishHere(ctx context.Context) error {
	if err := r.client.EventService().Publish(ctx, topicHere, &eventsapi.NamespaceUpdate{Name: r.cfg.Namespace}); err != nil {
		return fmt.Errorf("publish to containerd: %w", err)
	}
	return nil
}

func send(ctx context.Context, out chan<- Event, e Event) bool {
	select {
	case out <- e:
		return true
	case <-ctx.Done():
		return false
	}
}

// eventOf translates one event; nil if it is none of ours.
func (r *Runtime) eventOf(ctx context.Context, env *events.Envelope) Event {
	if env.Topic == topicHere {
		return nil
	}
	v, err := typeurl.UnmarshalAny(env.Event)
	if err != nil {
		r.log.Warn("an event of containerd's cannot be read", "topic", env.Topic, "err", err)
		return nil
	}
	switch e := v.(type) {
	case *eventsapi.TaskOOM:
		return OOM{ID: e.ContainerID}
	case *eventsapi.TaskExit:
		if e.ID != e.ContainerID {
			return nil // a process of Exec
		}
		c, err := r.client.ContainerService().Get(ctx, e.ContainerID)
		if err != nil {
			if !errdefs.IsNotFound(err) { // the break that follows makes the caller list
				r.log.Warn("cannot look at a container that ended", "id", e.ContainerID, "err", err)
			}
			return nil
		}
		if _, ours := c.Labels[labelService]; !ours {
			return nil
		}
		return Exited{ID: e.ContainerID, Exit: r.exitOf(c.ID, c.Labels, e.ExitStatus, e.ExitedAt.AsTime())}
	}
	return nil
}
