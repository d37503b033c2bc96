package agent

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/orchctl/orch/agent/ctrd"
	"github.com/orchctl/orch/agent/plan"
	"github.com/orchctl/orch/agent/runtimetest"
	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// machine is a clock of boot time beside the bubble's.
type machine struct {
	start     time.Time
	suspended atomic.Int64
}

func (m *machine) bootTime() time.Duration {
	return time.Hour + time.Since(m.start) + time.Duration(m.suspended.Load())
}

// leasedRig has an exclusive replica whose leader's tests answer renewals.
func leasedRig(t *testing.T) (*rig, *machine) {
	r, m := newRig(t), &machine{start: time.Now()}
	r.bootTime = m.bootTime
	r.runtime.SetBootTime(m.bootTime)
	return r, m
}

func exclusive(k api.ReplicaKey) wire.Assignment {
	a := web(k)
	a.Template.Exclusive = true
	return a
}

// renewal waits for one and gives it.
func (l *leader) renewal() wire.Renewal {
	var got wire.Renewal
	l.Hear(func(m *orchv1.AgentMessage) bool {
		got = wire.RenewalFromPB(m.GetRenewal())
		return m.GetRenewal() != nil
	})
	return got
}

func (l *leader) grant(r wire.Renewal) {
	g := wire.Grant{ID: r.ID}
	for _, k := range r.Keys {
		g.Leases = append(g.Leases, wire.Lease{Key: k, For: api.DefaultLease})
	}
	l.Say(&orchv1.ControllerMessage{Message: &orchv1.ControllerMessage_Grant{Grant: g.ToPB()}})
}

const web0ID = "default.web-0.1.main"

// The part of the default lease in which a replica with the default grace runs.
const leaseTerm = api.DefaultLease - api.DefaultLease/100 - api.LeaseKill - api.DefaultGrace

func TestLeasedReplicaRunsUnderItsLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, m := leasedRig(t)
		r.start()
		l := r.next(10)
		l.assign(t, wire.AssignmentSet{Complete: true, Put: []wire.Assignment{exclusive(web0)}})
		sent := l.renewal()
		if len(sent.Keys) != 1 || sent.Keys[0] != web0 {
			t.Fatalf("renewal %+v", sent)
		}
		sentAt := m.bootTime()
		time.Sleep(100 * time.Millisecond)
		r.wantTook() // no lease, no start
		l.grant(sent)
		l.hear(ready)
		r.wantTook("start " + web0ID)
		if got := r.runtime.LeaseOf(web0ID); got.Term != sentAt+leaseTerm || got.Kill != got.Term+api.DefaultGrace {
			t.Errorf("started under %v, the renewal was sent at %s", got, sentAt)
		}
		// The watchdog hears of each later one.
		for range 3 {
			sent = l.renewal()
			sentAt = m.bootTime()
			l.grant(sent)
			synctest.Wait()
			if got := r.runtime.LeaseOf(web0ID); got.Term != sentAt+leaseTerm {
				t.Errorf("renewed to %v, the renewal was sent at %s", got, sentAt)
			}
		}
		// Without a leader it ends when its lease does, to the moment, and stays away.
		r.c.Stop()
		time.Sleep(leaseTerm - time.Millisecond)
		r.wantTook()
		time.Sleep(time.Millisecond)
		r.wantTook("stop "+web0ID, "remove "+web0ID)
		time.Sleep(time.Minute)
		r.wantTook()
		// It is told why, and starts with the next lease at once.
		r.c.Serve(nil)
		l = r.next(11)
		l.assign(t, wire.AssignmentSet{Complete: true, Put: []wire.Assignment{exclusive(web0)}})
		rep := l.hear(func(s wire.StatusReport) bool { return s.Complete })
		if s := rep.Replicas[0].Status; s.Ready || s.Reason != api.ReasonLeaseLost || !strings.Contains(s.Message, "no session with the leader since") {
			t.Errorf("reported as %+v", s)
		}
		l.grant(l.renewalOf(web0))
		synctest.Wait()
		r.wantTook("start " + web0ID + "_1")
		r.stop()
	})
}

// renewalOf is the first that is about the replica.
func (l *leader) renewalOf(k api.ReplicaKey) wire.Renewal {
	for {
		if r := l.renewal(); len(r.Keys) > 0 && r.Keys[0] == k {
			return r
		}
	}
}

func TestRestartOfTheAgentKeepsLeased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, m := leasedRig(t)
		r.start()
		l := r.next(10)
		l.assign(t, wire.AssignmentSet{Complete: true, Put: []wire.Assignment{exclusive(web0)}})
		l.grant(l.renewal())
		l.hear(ready)
		r.runtime.Took()
		r.c.Stop()
		r.restart()
		time.Sleep(time.Minute) // the watchdog's business; this one never acts
		r.wantTook()
		r.c.Serve(nil)
		l = r.next(11)
		sent := l.renewal() // at once, before it is assigned anything
		sentAt := m.bootTime()
		l.assign(t, wire.AssignmentSet{Complete: true, Put: []wire.Assignment{exclusive(web0)}})
		l.grant(sent)
		synctest.Wait()
		if got := r.runtime.LeaseOf(web0ID); got.Term != sentAt+leaseTerm {
			t.Errorf("its lease is %v, the renewal was sent at %s", got, sentAt)
		}
		r.wantTook()
		r.stop()
	})
}

func TestSuspendedMachineHasUsedItsLeaseUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, m := leasedRig(t)
		r.start()
		l := r.next(10)
		l.assign(t, wire.AssignmentSet{Complete: true, Put: []wire.Assignment{exclusive(web0)}})
		l.grant(l.renewal())
		l.hear(ready)
		r.runtime.Took()
		m.suspended.Add(int64(20 * time.Second))
		rep := l.hear(func(s wire.StatusReport) bool { return len(s.Replicas) == 1 && !s.Replicas[0].Status.Ready })
		if s := rep.Replicas[0].Status; s.Reason != api.ReasonLeaseLost || !strings.Contains(s.Message, "suspended for 20s") {
			t.Errorf("reported as %+v", s)
		}
		r.wantTook("stop "+web0ID, "remove "+web0ID)
		r.stop()
	})
}

func TestUnguardedIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := leasedRig(t)
		r.start()
		l := r.next(10)
		l.assign(t, wire.AssignmentSet{Complete: true, Put: []wire.Assignment{exclusive(web0)}})
		l.grant(l.renewal())
		l.hear(ready)
		r.runtime.Took()
		r.runtime.SetLeaseErr(ctrd.ErrUnguarded)
		l.grant(l.renewal())
		synctest.Wait()
		r.runtime.SetLeaseErr(nil)
		r.wantTook("stop "+web0ID, "remove "+web0ID, "start "+web0ID+"_1")
		// An agent that starts finds it in its first look.
		r.runtime.SetLeaseErr(ctrd.ErrUnguarded)
		r.c.Stop()
		r.restart()
		time.Sleep(2 * time.Second) // longer than its back-off
		r.wantTook("stop "+web0ID+"_1", "remove "+web0ID+"_1")
		r.end()
	})
}

// slowLeases is a runtime whose disk takes its time.
type slowLeases struct {
	*runtimetest.Runtime
	gate chan struct{}
	set  []ctrd.Lease
}

func (s *slowLeases) SetLease(_ context.Context, _ string, l ctrd.Lease) error {
	<-s.gate
	s.set = append(s.set, l)
	return nil
}

// TestOlderLeaseNeverComesAfter: while one is written, only the newest waits.
func TestOlderLeaseNeverComesAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slowLeases{Runtime: newRuntime(), gate: make(chan struct{})}
		d := newDriver(Config{Network: newNetwork(), Traffic: runtimetest.NewTraffic(), Runtime: s, BootTime: func() time.Duration { return 0 }, Data: t.TempDir(), Logger: slog.New(slog.DiscardHandler)}, plan.New(plan.Config{}), newConfigs())
		for i := range time.Duration(5) {
			d.setLease(t.Context(), "x", plan.Lease{Term: i, Kill: i})
		}
		for range 2 {
			synctest.Wait()
			s.gate <- struct{}{}
			d.handle(t.Context(), <-d.inbox)
		}
		d.work.Wait()
		if len(s.set) != 2 || s.set[0].Term != 0 || s.set[1].Term != 4 || len(d.leases.writing) != 0 {
			t.Errorf("told %v, still telling %v", s.set, d.leases.writing)
		}
	})
}

func TestSlept(t *testing.T) {
	var l leases
	now := time.Now()
	for i, x := range []struct{ boot, clock, want time.Duration }{
		{100 * time.Second, 0, 0}, // the first step
		{101 * time.Second, time.Second, 0},
		{101 * time.Second, 3 * time.Second, 0}, // busy between the readings
		{104 * time.Second, 4 * time.Second, 0},
		{125 * time.Second, 5 * time.Second, 20 * time.Second},
		{126 * time.Second, 6 * time.Second, 0},
		{127*time.Second + 10*time.Millisecond, 7 * time.Second, 0}, // too short to be one
		{137 * time.Second, 8 * time.Second, 9 * time.Second},
	} {
		if got := l.slept(x.boot, now.Add(x.clock)); got != x.want {
			t.Errorf("step %d: slept %s, want %s", i, got, x.want)
		}
	}
}

// TestALeaseThatIsNotWritten: what its watchdog ends then has not failed, even if
// there was no room to note who ended it.
func TestALeaseThatIsNotWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := leasedRig(t)
		r.start()
		l := r.next(10)
		a := exclusive(web0)
		a.Template.RestartPolicy.Condition = api.RestartNever
		l.assign(t, wire.AssignmentSet{Complete: true, Put: []wire.Assignment{a}})
		l.grant(l.renewal())
		l.hear(ready)
		r.runtime.SetLeaseErr(errors.New("no space left on device"))
		began := time.Now()
		for time.Since(began) < leaseTerm {
			l.grant(l.renewal())
		}
		synctest.Wait()
		r.runtime.Took()
		r.runtime.End(web0ID, api.Exit{Code: 143, Signal: 15, Reason: api.ExitSignaled})
		r.wantTook("remove "+web0ID, "start "+web0ID+"_1")
		r.stop()
	})
}
