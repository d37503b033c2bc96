package rig

import (
	"context"
	"fmt"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/e2e/load"
)

// Loss is what clients of a service noticed when a node that ran some of it lost
// its power.
type Loss struct {
	Victim string
	Cut    time.Time
	Ways   Ways
	// Held is the report of connections that waited for an answer, Doomed how many
	// of them led to the victim.
	Held   load.Report
	Doomed int
}

// Dull is how long after the cut the last request began that failed, on kept or on
// fresh connections; 0: none failed.
func (l *Loss) Dull(fresh bool) time.Duration {
	var dull time.Duration
	for way, r := range l.Ways {
		if last := r.LastFailure(); !last.IsZero() && isFresh(way) == fresh {
			dull = max(dull, last.Sub(l.Cut))
		}
	}
	return dull
}

const (
	// heldConns wait during a loss: enough that some lead to the victim.
	heldConns = 48
	// settledFor is how long requests go on before the cut and after all replicas
	// run elsewhere.
	settledFor = 2 * time.Second
	// replacedMax is when a loss has failed.
	replacedMax = 30 * time.Second
)

// LosePower cuts the power of a node under load, and brings it back when the
// service's replicas all run elsewhere and the load has gone on for a while. The
// service listens on 8080 and echoes on 7000, published at publish; client is a
// replica of another one, whose node is spared. Published ports are asked of the
// nodes that keep their power: what is sent to a dead machine fails, whoever
// answers elsewhere.
func (f *Fleet) LosePower(ctx context.Context, service string, replicas, publish, rate int, client api.Replica) (*Loss, error) {
	s, err := f.Service(ctx, service)
	if err != nil {
		return nil, err
	}
	all, err := f.Replicas(ctx, service)
	if err != nil {
		return nil, err
	}
	l := &Loss{}
	for _, r := range all {
		if r.Spec.Node != client.Spec.Node {
			l.Victim = r.Spec.Node
		}
	}
	doomed := map[string]bool{}
	for _, r := range all {
		if r.Spec.Node == l.Victim {
			doomed[fmt.Sprintf("%s-%d", r.Spec.Service, r.Spec.Slot)] = true
		}
	}
	status, err := f.Lab.Status(ctx)
	if err != nil {
		return nil, err
	}
	var published []string
	for _, n := range status.Nodes {
		if n.Name != l.Victim {
			published = append(published, fmt.Sprintf("http://%s:%d/whoami", n.Address, publish))
		}
	}
	held, err := f.StartIn(ctx, client, load.Job{Kind: load.Hold, Targets: []string{s.Status.VIP + ":7000"}, Workers: heldConns, Timeout: 5 * time.Second})
	if err != nil {
		return nil, err
	}
	under := Under{Service: service, Client: client, Port: 8080, Publish: publish, Published: published, Rate: rate}
	l.Ways, err = under.Run(ctx, f, func(ctx context.Context) error {
		if err := pass(ctx, settledFor); err != nil {
			return err
		}
		l.Cut = time.Now()
		if err := f.Lab.KillNode(ctx, l.Victim); err != nil {
			return err
		}
		err := Until(ctx, replacedMax, fmt.Sprintf("%d ready replicas elsewhere", replicas), func() error {
			all, err := f.Replicas(ctx, service)
			if err != nil {
				return err
			}
			slots := map[int]bool{}
			for _, r := range all {
				if r.Status.Ready && r.Spec.Node != l.Victim {
					slots[r.Spec.Slot] = true
				}
			}
			if len(slots) != replicas {
				return fmt.Errorf("%d slots are ready", len(slots))
			}
			return nil
		})
		if err != nil {
			return err
		}
		return pass(ctx, settledFor)
	})
	if err != nil {
		return nil, err
	}
	if l.Held, err = held.Stop(); err != nil {
		return nil, err
	}
	for by, n := range l.Held.By {
		if doomed[by] {
			l.Doomed += n
		}
	}
	if err := f.Lab.StartNode(ctx, l.Victim); err != nil {
		return nil, err
	}
	if err := f.WaitNodes(ctx, len(status.Nodes)); err != nil {
		return nil, err
	}
	return l, f.WaitReady(ctx, service, replicas, replacedMax)
}

// pass lets time pass under load.
func pass(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
