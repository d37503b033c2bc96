package liveness

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// edges are the changes of verdict that may happen. Unknown is entered only when
// a term begins.
var edges = map[Verdict][]Verdict{
	Unknown:   {Healthy, AgentLost, Suspect, Dead, Back},
	Healthy:   {Unknown, AgentLost, Suspect, Dead},
	AgentLost: {Unknown, Suspect, Dead, Back},
	Suspect:   {Unknown, AgentLost, Dead, Back},
	Dead:      {Healthy, Back},
	Back:      {Unknown, Healthy, AgentLost, Suspect, Dead},
}

// checker watches a machine's effects for what must never happen.
type checker struct {
	t        *rapid.T
	verdicts map[string]Verdict
	asked    map[string]AskWitnesses
	alive    map[string]bool // the latest ask about this node saw host and ports answer
	reported map[string]bool // the latest ask about this node has a report
}

func (c *checker) event(ev Event) {
	if r, ok := ev.(WitnessReport); ok {
		a := c.asked[r.Target]
		if r.AskID == a.AskID && slices.Contains(a.Observers, r.Observer) {
			c.reported[r.Target] = true
			c.alive[r.Target] = c.alive[r.Target] || r.HostAnswers && (r.PortsAsked == 0 || r.PortsAnswered > 0)
		}
	}
}

func (c *checker) effects(ev Event, effects []Effect, sessions map[string]bool) {
	for _, e := range effects {
		switch e := e.(type) {
		case AskWitnesses:
			c.asked[e.Target], c.alive[e.Target], c.reported[e.Target] = e, false, false
			last := len(e.Observers) - 1
			if e.Observers[last] != LeaderObserver || last > 3 || slices.Contains(e.Observers, e.Target) {
				c.t.Fatalf("%T: observers %v of %s", ev, e.Observers, e.Target)
			}
			for i, o := range e.Observers[:last] {
				if !sessions[o] || c.verdicts[o] != Healthy || slices.Contains(e.Observers[:i], o) {
					c.t.Fatalf("%T: observer %s of %s: session %v, %s", ev, o, e.Target, sessions[o], c.verdicts[o])
				}
			}
		case SetVerdict:
			if e.From != c.verdicts[e.Node] || !slices.Contains(edges[e.From], e.To) {
				c.t.Fatalf("%T: %s: %s -> %s, was %s", ev, e.Node, e.From, e.To, c.verdicts[e.Node])
			}
			if _, term := ev.(LeaderStarted); (e.To == Unknown) != term && e.To == Unknown {
				c.t.Fatalf("%T: %s became unknown within a term", ev, e.Node)
			}
			if (e.To == Suspect || e.To == Dead && e.From == Suspect) && c.alive[e.Node] && !isHardFact(ev) {
				c.t.Fatalf("%T: %s: %s though an observer got answers: %v", ev, e.Node, e.To, e.Evidence)
			}
			if (e.To == Suspect || e.To == AgentLost) && !c.reported[e.Node] {
				c.t.Fatalf("%T: %s: %s without any report", ev, e.Node, e.To)
			}
			if e.Why == "" {
				c.t.Fatalf("%T: %s: %s without a reason", ev, e.Node, e.To)
			}
			c.verdicts[e.Node] = e.To
		}
	}
}

func isHardFact(ev Event) bool {
	switch ev.(type) {
	case OperatorDead, SessionOpened:
		return true
	}
	return false
}

// anyEvent draws an event about one of the nodes, valid or stale.
func anyEvent(t *rapid.T, names []string, asked map[string]AskWitnesses, seq map[string]uint64) Event {
	n := rapid.SampledFrom(names).Draw(t, "node")
	switch rapid.IntRange(0, 17).Draw(t, "event") {
	case 0:
		return NodeAdded{Node: n, Verdict: Verdict(rapid.IntRange(0, 5).Draw(t, "last")), BootID: "a"}
	case 1:
		return NodeRemoved{n}
	case 2, 3:
		return SessionOpened{Node: n, BootID: rapid.SampledFrom([]string{"a", "a", "a", "b"}).Draw(t, "boot"),
			WasDead: rapid.IntRange(0, 9).Draw(t, "wasdead") == 0}
	case 4:
		return SessionClosed{n, rapid.Bool().Draw(t, "graceful")}
	case 5, 6, 7:
		seq[n]++
		return Beat{Node: n, Seq: seq[n]}
	case 8:
		return GossipHint{n, rapid.Bool().Draw(t, "alive")}
	case 9:
		return OperatorDead{n, "kim"}
	case 10:
		return Reconciled{n}
	case 11:
		if rapid.IntRange(0, 9).Draw(t, "term") == 0 {
			return LeaderStarted{}
		}
		return LeaderStalled{time.Duration(rapid.IntRange(0, 2000).Draw(t, "stall")) * time.Millisecond}
	case 12, 13, 14, 15:
		a := asked[n]
		observers := append([]string{LeaderObserver, n}, a.Observers...)
		return WitnessReport{Target: n, AskID: a.AskID - uint64(rapid.IntRange(0, 9).Draw(t, "stale")/9),
			Observer:    rapid.SampledFrom(observers).Draw(t, "observer"),
			HostAnswers: rapid.IntRange(0, 3).Draw(t, "host") == 0,
			PortsAsked:  rapid.IntRange(0, 1).Draw(t, "asked"), PortsAnswered: rapid.IntRange(0, 1).Draw(t, "answered")}
	default:
		return Tick{}
	}
}

// TestAnyEvents feeds anything to the machine, stale and foreign events included:
// verdicts change only along the edges, suspicion only without an answer, a Tick
// leaves nothing due, and a second machine given the same does the same.
func TestAnyEvents(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := []string{"n1", "n2", "n3", "n4", "n5"}
		limits := Limits{DeadAfter: 2 * time.Second, BeatFleet: 3} // so that deaths and stretched beats happen
		m, twin := New(limits), New(limits)
		c := &checker{t: t, verdicts: map[string]Verdict{}, asked: map[string]AskWitnesses{},
			alive: map[string]bool{}, reported: map[string]bool{}}
		sessions, seq := map[string]bool{}, map[string]uint64{}
		now := epoch
		for range rapid.IntRange(1, 150).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 300).Draw(t, "ms")) * time.Millisecond)
			ev := anyEvent(t, names, c.asked, seq)
			switch ev := ev.(type) {
			case NodeAdded:
				if _, known := m.Verdict(ev.Node); !known {
					c.verdicts[ev.Node] = Unknown
					if ev.Verdict == Dead {
						c.verdicts[ev.Node] = Dead
					}
				}
			case NodeRemoved:
				delete(sessions, ev.Node)
			case SessionOpened:
				_, sessions[ev.Node] = m.Verdict(ev.Node)
				seq[ev.Node] = 0
			case SessionClosed:
				sessions[ev.Node] = false
			case OperatorDead:
				sessions[ev.Node] = false
			case LeaderStarted:
				clear(sessions)
			}
			c.event(ev)
			effects := m.Step(ev, now)
			c.effects(ev, effects, sessions)
			if other := twin.Step(ev, now); fmt.Sprintf("%#v", effects) != fmt.Sprintf("%#v", other) {
				t.Fatalf("%#v gave\n%#v\nand\n%#v", ev, effects, other)
			}
			for _, name := range names {
				if v, known := m.Verdict(name); known && v != c.verdicts[name] {
					t.Fatalf("%#v: %s is %s, effects said %s", ev, name, v, c.verdicts[name])
				}
			}
			wake, ok := m.NextWake()
			if _, tick := ev.(Tick); tick && ok && !wake.After(now) {
				t.Fatalf("a Tick left %s due", now.Sub(wake))
			}
			checkWakes(t, m)
		}
	})
}

// checkWakes looks inside: every node that is due has a wake that is not late.
func checkWakes(t *rapid.T, m *Machine) {
	for _, name := range m.names {
		n := m.nodes[name]
		due, ok := m.due(n)
		if !ok {
			continue
		}
		// A pending shorter interval may make wakes late until it counts.
		if n.index < 0 || m.wakes[n.index] != n || n.wakeAt.After(due) {
			t.Fatalf("%s is due at %s, wakes at %s (index %d)", name, due.Sub(epoch), n.wakeAt.Sub(epoch), n.index)
		}
		if n.asking() {
			for _, o := range n.ask.waiting {
				if w, ok := m.nodes[o]; ok && !slices.Contains(w.witnessOf, n) {
					t.Fatalf("%s waits for %s, which does not know", name, o)
				}
			}
		}
	}
}

// TestBeatsOnTime: a node whose beats arrive on time is never anything but
// healthy, whatever gossip, observers and the other nodes do.
func TestBeatsOnTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := New(Limits{})
		now := epoch
		asked := map[string]AskWitnesses{}
		step := func(ev Event) {
			for _, e := range m.Step(ev, now) {
				switch e := e.(type) {
				case SetVerdict:
					if e.Node == "steady" && e.To != Healthy {
						t.Fatalf("%T at %s: %+v", ev, now.Sub(epoch), e)
					}
				case AskWitnesses:
					asked[e.Target] = e
				}
			}
		}
		others := []string{"n1", "n2", "n3"}
		seq := map[string]uint64{}
		for _, n := range append([]string{"steady"}, others...) {
			step(NodeAdded{Node: n, BootID: "a"})
			step(SessionOpened{Node: n, BootID: "a"})
		}
		due := now.Add(100 * time.Millisecond)
		for beat := uint64(1); beat < 60; beat++ {
			arrives := due.Add(time.Duration(rapid.IntRange(0, 49).Draw(t, "jitter")) * time.Millisecond)
			due = arrives.Add(100 * time.Millisecond)
			for {
				next := now.Add(time.Duration(rapid.IntRange(1, 60).Draw(t, "ms")) * time.Millisecond)
				if !next.Before(arrives) {
					break
				}
				now = next
				switch rapid.IntRange(0, 4).Draw(t, "what") {
				case 0:
					step(GossipHint{"steady", false})
				case 1:
					a := asked["steady"]
					for _, o := range a.Observers {
						step(WitnessReport{Observer: o, Target: "steady", AskID: a.AskID})
					}
				case 2:
					if ev := anyEvent(t, others, asked, seq); !isLeaderEvent(ev) {
						step(ev)
					}
				default:
					step(Tick{})
				}
			}
			now = arrives
			step(Beat{Node: "steady", Seq: beat})
		}
	})
}

func isLeaderEvent(ev Event) bool {
	switch ev.(type) {
	case LeaderStarted, LeaderStalled:
		return true
	}
	return false
}

// TestSilentIsFound: whatever happened before, a node that falls silent while its
// host does not answer is suspect when three of its beats are missing, by its own
// tolerance. Where its witnesses fall silent with it a second look may follow.
func TestSilentIsFound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := []string{"n1", "n2", "n3", "n4", "n5"}
		s := newScript(t)
		for _, n := range names {
			s.step(NodeAdded{Node: n, BootID: "a"})
		}
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			ev := anyEvent(t, names, s.asked, s.seq)
			s.now = s.now.Add(time.Duration(rapid.IntRange(0, 100).Draw(t, "ms")) * time.Millisecond)
			s.step(ev)
		}
		for _, n := range names { // all is well
			s.step(NodeAdded{Node: n, BootID: "a"})
			s.seq[n] = 0
			s.step(SessionOpened{Node: n, BootID: "a"})
			s.step(Reconciled{n})
			s.beat(n)
		}
		lost := names[:rapid.IntRange(1, len(names)).Draw(t, "lost")]
		see := map[string]string{}
		var wait time.Duration
		for _, n := range lost {
			see[n] = "no"
			wait = max(wait, 300*time.Millisecond+s.m.nodes[n].tolerance.now)
		}
		if len(lost) > 1 {
			wait += s.m.limits.ProbeTimeout
		}
		s.tick(wait, names[len(lost):], see)
		for i, n := range names {
			want := Healthy
			if i < len(lost) {
				want = Suspect
			}
			if v, _ := s.m.Verdict(n); v != want {
				t.Fatalf("%s is %s, want %s:\n%s", n, v, want, s.out.String())
			}
		}
	})
}
