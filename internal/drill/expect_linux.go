package drill

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/follow"
)

// expect looks whether something holds, or comes to hold in time, and gives the
// time from the last fault until it did.
func (x *run) expect(ctx context.Context, s Step) (time.Duration, error) {
	x.note(&x.view.View)
	switch s.Verb {
	case "expect wrongful":
		ended, err := x.census.wrongful()
		if err != nil {
			return 0, err
		}
		return 0, count(s, len(ended), "containers ended without cause")
	case "expect spares":
		// All that has happened until now, not only what was looked at.
		if err := x.drain(ctx); err != nil {
			return 0, err
		}
		return 0, count(s, len(x.spares), "spares were started")
	case "expect duplicates":
		most, _, _ := x.census.duplicates(s.Service, time.Now())
		return 0, count(s, most, "containers too many ran at once in a slot")
	case "expect single":
		return x.single(ctx, s)
	}
	left := s.Within - time.Since(x.zero)
	if left < 0 {
		return 0, fmt.Errorf("looked at only %.1f s after the last change, for the steps between took so long: put it earlier", time.Since(x.zero).Seconds())
	}
	if s.Verb == "expect ready" {
		err := x.ready(ctx, s.Service, s.Count, s.Of, left)
		return time.Since(x.zero), err
	}
	at, err := x.until(ctx, left, s.Text, func(v *follow.View) error { return x.holds(s, v) })
	if err != nil {
		return 0, err
	}
	return max(at.Sub(x.zero), 0), nil
}

func count(s Step, n int, what string) error {
	if n == s.Count || s.AtMost && n < s.Count {
		return nil
	}
	return fmt.Errorf("%d %s", n, what)
}

// until is the view's, with spares noted.
func (x *run) until(ctx context.Context, within time.Duration, what string, cond func(*follow.View) error) (time.Time, error) {
	return x.view.Until(ctx, within, what, func(v *follow.View) error {
		x.note(v)
		return cond(v)
	})
}

// drain takes what has arrived.
func (x *run) drain(ctx context.Context) error {
	_, err := x.until(ctx, settleMax, "the watch to be read", func(*follow.View) error {
		if n := x.view.Waiting(); n > 0 {
			return fmt.Errorf("%d changes wait", n)
		}
		return nil
	})
	return err
}

func (x *run) holds(s Step, v *follow.View) error {
	switch s.Verb {
	case "expect away":
		for _, all := range v.Of(s.Service) {
			for _, r := range all {
				if r.Spec.Node == s.Node && r.Status.Ready {
					return fmt.Errorf("%s@%d on %s counts as ready", r.Metadata.Name, r.Spec.Epoch, s.Node)
				}
			}
		}
		return nil
	case "expect node", "expect impaired", "expect damped":
		n, ok := v.Nodes[s.Node]
		switch {
		case !ok:
			return fmt.Errorf("there is no node %s", s.Node)
		case s.Verb == "expect impaired" && n.Status.Impaired == "":
			return fmt.Errorf("%s is %s and not impaired", s.Node, n.Status.Verdict)
		case s.Verb == "expect damped" && n.Status.DampedUntil.IsZero():
			return fmt.Errorf("%s is %s and not damped", s.Node, n.Status.Verdict)
		case s.Verb == "expect node" && n.Status.Verdict != s.Verdict:
			return fmt.Errorf("%s is %s: %s", s.Node, n.Status.Verdict, n.Status.VerdictWhy)
		}
		return nil
	case "expect frozen", "expect thawed":
		if v.Fleet.Status.Frozen != (s.Verb == "expect frozen") {
			return fmt.Errorf("frozen: %v", v.Fleet.Status.Frozen)
		}
		return nil
	case "expect settled":
		for _, k := range slices.SortedFunc(maps.Keys(v.Replicas), func(a, b api.ReplicaKey) int { return strings.Compare(a.String(), b.String()) }) {
			if r := v.Replicas[k]; r.Spec.Spare {
				return fmt.Errorf("%s on %s is a spare", k, r.Spec.Node)
			}
		}
		return nil
	}
	return fmt.Errorf("nobody knows how to look for %q", s.Text)
}

// ready waits until so many slots of a service run: the leader says so, and
// their containers' processes live where it says. What runs then and is no spare
// may not end by itself.
func (x *run) ready(ctx context.Context, service string, want, of int, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, max(within, sampleEvery))
	defer cancel()
	for {
		var running map[int]api.Replica
		_, err := x.until(ctx, max(within, sampleEvery), fmt.Sprintf("%s %d/%d", service, want, of), func(v *follow.View) error {
			s, ok := v.Services[api.Key{Namespace: api.DefaultNamespace, Name: service}]
			if !ok {
				return errors.New("there is no such service")
			}
			if s.Spec.Want() != of {
				return fmt.Errorf("it wants %d replicas", s.Spec.Want())
			}
			running = v.Running(service)
			if len(running) != want {
				return fmt.Errorf("%d of %d run", len(running), s.Spec.Want())
			}
			return nil
		})
		if err != nil {
			return err
		}
		missing := x.missing(running)
		if missing == "" {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the leader says that %s is ready, but no process of it lives there", missing)
		case <-time.After(sampleEvery):
		}
	}
	// By replica: a container may run before its agent has said which one it is.
	spares := map[string]bool{}
	for _, all := range x.view.View.Of(service) {
		for _, r := range all {
			if r.Spec.Spare {
				spares[fmt.Sprintf("%s.%s.%d", r.Metadata.Namespace, r.Metadata.Name, r.Spec.Epoch)] = true
			}
		}
	}
	x.census.hold(service, func(id string) bool { return spares[replicaOf(id)] })
	return nil
}

// missing names a container that is said to run and does not.
func (x *run) missing(running map[int]api.Replica) string {
	for _, slot := range slices.Sorted(maps.Keys(running)) {
		r := running[slot]
		for _, c := range r.Status.Containers {
			if !x.census.runs(r.Spec.Node, c.ID) {
				return fmt.Sprintf("%s (%s on %s)", r.Metadata.Name, c.ID, r.Spec.Node)
			}
		}
	}
	return ""
}

// single waits until no slot of a service has two running containers.
func (x *run) single(ctx context.Context, s Step) (time.Duration, error) {
	deadline := x.zero.Add(s.Within)
	for {
		_, present, _ := x.census.duplicates(s.Service, time.Now())
		switch {
		case present == 0:
			return time.Since(x.zero), nil
		case time.Now().After(deadline):
			return 0, fmt.Errorf("not within %s: %d containers too many run", s.Within, present)
		}
		if err := x.watchFor(ctx, sampleEvery); err != nil {
			return 0, err
		}
	}
}
