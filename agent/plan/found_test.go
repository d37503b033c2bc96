package plan

import (
	"slices"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

// TestHeldOverASecondRestart holds a bug that the simulator found: what was
// assigned to another life of the node was started after the agent had saved
// anything in this life and was restarted.
func TestHeldOverASecondRestart(t *testing.T) {
	grace := api.Duration(0)
	template := &api.Template{Containers: []api.Container{{Name: "main", Image: "a:1"}}, TerminationGracePeriod: &grace}
	key := func(slot int) api.ReplicaKey {
		return api.ReplicaKey{Namespace: "default", Service: "web", Slot: slot, Epoch: uint64(slot + 1)}
	}
	disk := &Saved{Incarnation: "i", BootID: "boot1", Assignments: []wire.Assignment{
		{Key: key(0), Revision: 1, Template: template},
		{Key: key(1), Revision: 1, Template: template, Stopping: true},
	}}
	saves := 0
	for life := range 2 {
		c := New(Config{BootID: "boot2", Saved: disk})
		now := time.Date(2026, 11, 1, 12, 0, life, 0, time.UTC)
		todo := c.Step(Started{}, now)
		for len(todo) > 0 {
			e := todo[0]
			todo = todo[1:]
			switch e := e.(type) {
			case Observe:
				todo = append(todo, c.Step(Observed{ID: e.ID}, now)...)
			case TeardownNetwork:
				todo = append(todo, c.Step(Done{ID: e.ID}, now)...)
			case SaveAssignment:
				saves++
				disk = &e.Saved
			case EnsureImage, SetupNetwork, StartContainer:
				t.Fatalf("life %d of the agent: %T before any session", life, e)
			}
		}
	}
	if saves == 0 {
		t.Error("nothing was saved: this tests nothing")
	}
}

// TestGoneAfterAStartThatFailed holds a hole that a review found: containerd was
// killed between starting a container and saying so, and the replica was to go
// before it was tried again. It was said to be gone while its container ran.
func TestGoneAfterAStartThatFailed(t *testing.T) {
	for _, c := range []struct {
		name   string
		listed bool // the first look at containerd after that succeeds
	}{{"containerd answers", true}, {"containerd is away for a while", false}} {
		t.Run(c.name, func(t *testing.T) {
			m := newModel()
			m.start()
			m.connect()
			for len(m.pending) > 0 {
				m.carryOut(0, false)
			}
			a := assignmentOf(t, []string{"db-0@1", "exclusive", "grace=0s"})
			m.assigned[a.Key] = a
			m.send(wire.AssignmentSet{Put: []wire.Assignment{a}})
			m.answer(0, m.grantable)
			for len(m.pending) > 0 {
				if _, ok := m.pending[0].(StartContainer); ok {
					break
				}
				m.carryOut(0, false)
			}
			m.carryOutBut(0) // it runs, and nobody hears of it
			if len(m.containers) != 1 {
				t.Fatalf("containers %v", m.containers)
			}
			a.Stopping = true
			m.assigned[a.Key] = a
			m.send(wire.AssignmentSet{Put: []wire.Assignment{a}})
			for len(m.pending) > 0 {
				_, look := m.pending[0].(Observe)
				m.carryOut(0, look && !c.listed)
				m.mustNotBeGone(t)
			}
			for range 4 {
				m.settle()
				m.mustNotBeGone(t)
				m.now = m.now.Add(observeAgain)
				m.step(Tick{})
			}
			if len(m.containers) != 0 || len(m.assigned) != 0 {
				t.Errorf("left: containers %v, assigned %v", m.containers, m.assigned)
			}
		})
	}
}

// mustNotBeGone fails where the leader took a replica for gone that runs.
func (m *model) mustNotBeGone(t *testing.T) {
	t.Helper()
	for id, c := range m.containers {
		if _, ok := m.assigned[c.Replica]; c.Running && !ok {
			t.Fatalf("%s was said to be gone, and %s runs", c.Replica, id)
		}
	}
}

// TestHalfMadeWhileItStarts holds a bug that the end-to-end tests found on a busy
// machine: another replica's start failed, the runtime was looked at, and what the
// look caught half made was taken for a leftover and killed as it began to run.
func TestHalfMadeWhileItStarts(t *testing.T) {
	m := newModel()
	m.start()
	m.connect()
	a := assignmentOf(t, []string{"web-0@1"})
	m.assigned[a.Key] = a
	m.send(wire.AssignmentSet{Put: []wire.Assignment{a}})
	starts := func(e Effect) bool { _, is := e.(StartContainer); return is }
	for !slices.ContainsFunc(m.pending, starts) {
		m.carryOut(0, false)
	}
	m.step(RuntimeBack{})
	i := slices.IndexFunc(m.pending, starts)
	started := m.result(m.pending[i], false)
	m.pending = slices.Delete(m.pending, i, i+1)
	if len(m.containers) != 1 {
		t.Fatalf("containers %v", m.containers)
	}
	for _, c := range m.containers {
		c.Running = false
	}
	m.carryOut(slices.IndexFunc(m.pending, func(e Effect) bool { _, is := e.(Observe); return is }), false)
	for _, c := range m.containers {
		c.Running = true
	}
	m.step(started)
	for _, e := range m.pending {
		switch e.(type) {
		case RemoveContainer, StopContainer:
			t.Errorf("what was starting as assigned is ended: %s", inWords(m, e))
		}
	}
	m.settle()
	if s := m.told[a.Key].Status; !s.Ready || s.Restarts != 0 {
		t.Errorf("told %+v", s)
	}
}

// TestTheLatestAnswerIsTold: a server that refused connections at first and answers
// with an error since then is told with that, and not at every try.
func TestTheLatestAnswerIsTold(t *testing.T) {
	m := newModel()
	m.start()
	m.connect()
	a := assignmentOf(t, []string{"web-0@1", "readiness"})
	m.assigned[a.Key] = a
	m.send(wire.AssignmentSet{Put: []wire.Assignment{a}})
	m.settle()
	var id string
	for id = range m.containers {
	}
	answer := func(message string, after time.Duration) string {
		m.now = m.now.Add(after)
		m.step(Probed{ContainerID: id, Kind: Readiness, Message: message})
		m.now = m.now.Add(reportEvery)
		m.step(Tick{})
		return m.told[a.Key].Status.Message
	}
	for range api.DefaultProbeFailureThreshold {
		answer("connection refused", 0)
	}
	for _, x := range []struct {
		message, want string
		after         time.Duration
	}{
		{"HTTP 503 (1)", "connection refused", 100 * time.Millisecond},
		{"HTTP 503 (2)", "HTTP 503 (2)", answerEvery},
		{"HTTP 503 (3)", "HTTP 503 (2)", 100 * time.Millisecond},
	} {
		if got, want := answer(x.message, x.after), "readiness probe: "+x.want; got != want {
			t.Errorf("after %q: told %q, want %q", x.message, got, want)
		}
	}
}
