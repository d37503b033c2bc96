package core

import (
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

func unprobed(s *api.ServiceSpec) { s.Rollout.MinReady = nil }

// running is how a replica looks between two ends, which is ready as soon as it runs.
func running(ended int) api.ReplicaStatus {
	s := crashed(ended)
	s.Containers[0].State, s.Containers[0].Reason, s.Containers[0].Ready, s.Ready = api.ContainerRunning, "", true, true
	if ended == 0 {
		s.Containers[0].LastExit = nil
	}
	return s
}

// TestReadyForAMoment: what has no readiness probe is ready as soon as it runs. That
// proves nothing, and takes nothing away from what serves.
func TestReadyForAMoment(t *testing.T) {
	f := rolledFleet2(t)
	f.trouble(2, running(0))
	f.mustApply(4, "app:2", bounds(0, 1), unprobed)
	for i := 1; i < 3; i++ {
		f.pass(200 * time.Millisecond)
		f.trouble(2, crashed(i))
		f.pass(200 * time.Millisecond)
		f.trouble(2, running(i))
		if n := f.placedWith(1); n != 3 {
			t.Fatalf("%d of revision 1 are left", n)
		}
		f.mustRollout(2, api.RolloutProgressing)
	}
	f.pass(200 * time.Millisecond)
	f.trouble(2, crashed(3))
	if r := f.revisionNo(2).Rollout; r.State != api.RolloutRolledBack || !strings.Contains(r.Why, " ended 3 times without being ready for long enough to count: exit code 1; last output:") {
		t.Errorf("revision 2 is %s: %s", r.State, r.Why)
	}
	f.pass(2 * time.Second)
	f.mustRollout(3, api.RolloutComplete)
	f.mustReady("web", 4)
}

// rolledFleet2 is rolledFleet of a service that counts by itself.
func rolledFleet2(t *testing.T) *fleet {
	t.Helper()
	f := newFleet(t)
	for _, n := range []string{"n1", "n2", "n3"} {
		f.node(n, "b")
	}
	f.mustApply(4, "app:1", unprobed)
	f.mustRollout(1, api.RolloutProgressing)
	f.pass(500 * time.Millisecond)
	f.mustRollout(1, api.RolloutProgressing)
	f.pass(600 * time.Millisecond)
	f.mustRollout(1, api.RolloutComplete)
	return f
}

// TestWhatCountedEndsAgainAndAgain: the canary was well for long enough, and is not any
// more. Each time something that serves takes its place, and the next one comes: all of
// them count.
func TestWhatCountedEndsAgainAndAgain(t *testing.T) {
	f := rolledFleet(t, bounds(1, 0))
	ended := map[uint64]int{} // by epoch
	down := false
	f.says = func(_ *agent, x wire.Assignment) *api.ReplicaStatus {
		if x.Revision != 2 {
			return nil
		}
		s := running(ended[x.Key.Epoch])
		if down {
			s = crashed(ended[x.Key.Epoch])
		}
		return &s
	}
	f.mustApply(4, "app:2", bounds(1, 0), canary(api.CanaryStep{Replicas: *api.Count(1)}))
	crash := func() {
		down = true // that is told before it is started again
		f.reportEach()
		down = false
		for _, x := range f.core.fillings {
			if x.revision == 2 && !x.stopping && x.status.Containers != nil && !x.status.Ready {
				ended[x.key.Epoch]++
			}
		}
		f.reportEach()
		f.pass(2 * time.Second)
		f.reportEach()
		f.pass(2 * time.Second)
	}
	for i := range 2 {
		f.mustRollout(2, api.RolloutPaused)
		f.mustReady("web", 4)
		if i == 1 {
			f.pass(2 * time.Minute) // a good run: what was before it is forgiven
			f.reportEach()
		}
		crash()
	}
	f.mustRollout(2, api.RolloutPaused)
	crash()
	f.mustRollout(2, api.RolloutPaused)
	crash()
	if r := f.revisionNo(2).Rollout; r.State != api.RolloutRolledBack || !strings.Contains(r.Why, " in a row, and no other replica of the revision runs well: exit code 1; last output:") {
		t.Errorf("revision 2 is %s: %s", r.State, r.Why)
	}
}

// TestOneThatRunsWellSpeaksForTheRevision: what ends beside it may have a bad node. The
// deadline's clock goes all the same.
func TestOneThatRunsWellSpeaksForTheRevision(t *testing.T) {
	f := rolledFleet(t, bounds(1, 0))
	f.mustApply(4, "app:2", bounds(1, 0), canary(api.CanaryStep{Replicas: *api.Count(2)}), within(time.Minute))
	f.pass(time.Second)
	f.mustRollout(2, api.RolloutPaused)
	bad := ""
	for _, x := range f.core.services[api.Key{Namespace: "default", Name: "web"}].fillings {
		if x.revision == 2 {
			bad = x.key.Name()
		}
	}
	f.says = func(_ *agent, x wire.Assignment) *api.ReplicaStatus {
		if x.Key.Name() != bad || x.Revision != 2 {
			return nil
		}
		s := crashed(4)
		return &s
	}
	f.reportEach()
	f.pass(10 * time.Second)
	f.mustRollout(2, api.RolloutProgressing)
	f.pass(time.Minute)
	if r := f.revisionNo(2).Rollout; r.State != api.RolloutRolledBack || !strings.HasPrefix(r.Why, "no progress for 1m0s: web-") {
		t.Errorf("revision 2 is %s: %s", r.State, r.Why)
	}
}

// TestWhatWasDoneUnseenIsNoEvidence: a replica that ended while its node was cut off may
// have missed what it needs from elsewhere; one whose lease ended did not fail.
func TestWhatWasDoneUnseenIsNoEvidence(t *testing.T) {
	lease := crashed(5)
	lease.Containers[0].LastExit.Reason = api.ReasonLeaseLost
	for name, c := range map[string]struct {
		says api.ReplicaStatus
		cut  bool
	}{"cut off": {crashed(5), true}, "its lease ended": {lease, false}} {
		t.Run(name, func(t *testing.T) {
			f := rolledFleet(t, bounds(1, 0))
			f.trouble(2, hangs())
			f.mustApply(4, "app:2", bounds(1, 0), within(time.Minute))
			f.pass(time.Second)
			if c.cut {
				for _, x := range f.core.services[api.Key{Namespace: "default", Name: "web"}].fillings {
					if x.revision == 2 {
						x.doubted = true // as when its node was suspect
					}
				}
			}
			f.trouble(2, c.says)
			f.pass(time.Second)
			f.mustRollout(2, api.RolloutProgressing)
			f.trouble(2, crashed(7)) // twice since it is heard again
			f.mustRollout(2, api.RolloutProgressing)
			f.trouble(2, crashed(8))
			f.pass(time.Second)
			f.mustRollout(3, api.RolloutComplete)
			if why := f.revisionNo(2).Rollout.Why; !strings.Contains(why, "ended 3 times") {
				t.Errorf("why %q", why)
			}
		})
	}
}
