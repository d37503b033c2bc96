package core

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
	"pgregory.net/rapid"
)

// rolling is a fleet at whose service a user and faults are let at random.
type rolling struct {
	*fleet
	spec     []func(*api.ServiceSpec)
	replicas int
	floor    int // of ready replicas that nothing but a fault may take
}

func newRolling(t *testing.T, r *rapid.T) *rolling {
	w := &rolling{fleet: newFleet(t), replicas: rapid.IntRange(1, 5).Draw(r, "replicas")}
	for _, n := range []string{"n1", "n2", "n3"} {
		w.node(n, "b")
	}
	surge := rapid.IntRange(0, 2).Draw(r, "surge")
	unavailable := rapid.IntRange(0, 2).Draw(r, "unavailable")
	if surge == 0 {
		unavailable = max(1, unavailable)
	}
	w.floor = max(0, w.replicas-unavailable)
	ready := api.Duration(time.Duration(rapid.SampledFrom([]int{0, 0, 3}).Draw(r, "minReady")) * time.Second)
	w.spec = append(w.spec, bounds(surge, unavailable), within(20*time.Second), func(s *api.ServiceSpec) {
		s.Rollout.MinReady = &ready
		if auto := rapid.Bool().Draw(r, "auto"); !auto {
			s.Rollout.AutoRollback = &auto
		}
		for n := range rapid.IntRange(0, 2).Draw(r, "steps") {
			step := api.CanaryStep{Replicas: *api.Count(n + 1)}
			if rapid.Bool().Draw(r, "pause") {
				pause := api.Duration(4 * time.Second)
				step.Pause = &pause
			}
			s.Rollout.Canary = append(s.Rollout.Canary, step)
		}
	})
	var once api.ServiceSpec // drawn once, the same for every apply
	for _, do := range w.spec {
		do(&once)
	}
	w.spec = []func(*api.ServiceSpec){func(s *api.ServiceSpec) { s.Rollout = once.Rollout }}
	w.says = func(_ *agent, x wire.Assignment) *api.ReplicaStatus {
		var s api.ReplicaStatus
		switch image := x.Template.Containers[0].Image; {
		case strings.HasPrefix(image, "crash"):
			s = crashed(3)
		case strings.HasPrefix(image, "hang"):
			s = hangs()
		case strings.HasPrefix(image, "missing"):
			s = imageless(api.ReasonImageMissing, "not there")
		default:
			return nil
		}
		return &s
	}
	w.mustApply(w.replicas, "good:0", w.spec...)
	w.pass(4 * time.Second)
	w.mustRollout(1, api.RolloutComplete)
	return w
}

// word does one thing that users do.
func (w *rolling) word(r *rapid.T, i int) {
	switch op := rapid.SampledFrom([]string{"good", "crash", "hang", "missing", "pause", "resume", "undo", "restart"}).Draw(r, "word"); op {
	case "pause", "resume", "undo", "restart":
		w.order(op, 0) // which may be refused
	default:
		w.mustApply(w.replicas, fmt.Sprintf("%s:%d", op, i), w.spec...)
	}
}

// sound checks what holds at any time.
func (w *rolling) sound(r *rapid.T) {
	s := w.service("web").Status
	for k, x := range w.seen {
		rev, ok := x.(*api.Revision)
		if !ok {
			continue
		}
		switch st := rev.Rollout.State; {
		case rev.Number == s.Revision && (st != s.Rollout.State || st == api.RolloutRolledBack || st == api.RolloutSuperseded):
			r.Fatalf("%s is the newest: %s, its service %s", k.Name, st, s.Rollout.State)
		case rev.Number < s.Revision && (st == api.RolloutProgressing || st == api.RolloutPaused || rev.Rollout.EndedAt.IsZero()):
			r.Fatalf("%s is older and still %s", k.Name, st)
		}
	}
}

// settles resumes whatever waits for a word, and checks that it comes to an end.
func (w *rolling) settles(r *rapid.T) {
	w.mustApply(w.replicas, "good:last", w.spec...)
	for range 12 {
		if s := w.service("web").Status; s.Rollout.State == api.RolloutComplete && len(s.Reasons) == 0 {
			break
		}
		if w.roll().State == api.RolloutPaused {
			w.order("resume", 0)
		}
		w.pass(5 * time.Second)
	}
	if s := w.service("web").Status; s.Rollout.State != api.RolloutComplete || s.Ready != w.replicas || s.UpdatedReady != w.replicas || len(s.Reasons) > 0 {
		r.Fatalf("it does not come to an end: %+v", s)
	}
	w.sound(r)
}

// TestRolloutsAndUsers: whatever is applied and said, no rollout by itself takes the
// service below its floor (I4), and a good revision ends well.
func TestRolloutsAndUsers(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		w := newRolling(t, r)
		for i := range rapid.IntRange(1, 6).Draw(r, "words") {
			w.word(r, i+1)
			for range rapid.IntRange(0, 15).Draw(r, "seconds") {
				w.pass(time.Second)
				if s := w.service("web").Status; s.Ready < w.floor {
					r.Fatalf("I4: %d ready, floor %d: %+v", s.Ready, w.floor, s)
				}
			}
			w.sound(r)
		}
		w.settles(r)
	})
}

// TestRolloutsAndFaults: the same while nodes are silent or booted and leaders die.
func TestRolloutsAndFaults(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		w := newRolling(t, r)
		boots := 0
		back := func(n string) {
			if a := w.agents[n]; a.silent || a.session == 0 {
				w.node(n, a.boot)
			}
		}
		for i := range rapid.IntRange(1, 6).Draw(r, "events") {
			n := rapid.SampledFrom([]string{"n1", "n2", "n3"}).Draw(r, "node")
			switch rapid.SampledFrom([]string{"word", "word", "silence", "back", "boot", "leader"}).Draw(r, "event") {
			case "word":
				w.word(r, i+1)
			case "silence":
				w.agents[n].silent = true
			case "back":
				back(n)
			case "boot":
				boots++
				w.node(n, fmt.Sprint("boot ", boots))
			case "leader":
				w.elect()
				for _, n := range []string{"n1", "n2", "n3"} {
					if !w.agents[n].silent {
						back(n)
					}
				}
			}
			w.pass(time.Duration(rapid.IntRange(0, 10).Draw(r, "seconds")) * time.Second)
			w.sound(r)
		}
		for _, n := range []string{"n1", "n2", "n3"} {
			back(n)
		}
		w.settles(r)
	})
}
