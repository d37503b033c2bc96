package liveness

import (
	"slices"
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
	m        *Machine
	verdicts map[string]Verdict
	asked    map[string]AskWitnesses
	alive    map[string]bool // the latest ask about this node saw host and ports answer
	reported map[string]bool // the latest ask about this node has a report
	impaired map[string]bool
	damped   map[string]bool
	frozen   bool
	since    time.Time // frozen
	lastDead time.Time // by silence, while frozen
}

func newChecker(t *rapid.T, m *Machine) *checker {
	return &checker{t: t, m: m, verdicts: map[string]Verdict{}, asked: map[string]AskWitnesses{}, alive: map[string]bool{},
		reported: map[string]bool{}, impaired: map[string]bool{}, damped: map[string]bool{}}
}

// silences gives of each node with a session, of which gossip says nothing bad, how
// long it will be quiet at a step, but for its tolerance.
func (c *checker) silences(now time.Time) map[string]time.Duration {
	quiet := map[string]time.Duration{}
	for name, n := range c.m.nodes {
		if n.session && !n.hinted {
			quiet[name] = now.Sub(n.heard) - n.tolerance.now
		}
	}
	return quiet
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

func (c *checker) effects(ev Event, now time.Time, effects []Effect, sessions map[string]bool, quiet map[string]time.Duration) {
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
			if beats := time.Duration(c.m.limits.BeatMiss) * c.m.beat; e.To == Suspect && (e.From == Healthy || e.From == Back) &&
				sessions[e.Node] && quiet[e.Node] < beats && !isHint(ev) && quiet[e.Node] != 0 {
				c.t.Fatalf("%T: %s: suspect with a session, only %s quiet", ev, e.Node, quiet[e.Node])
			}
			c.word(ev, e)
			if e.To == Dead && e.From == Suspect && !isHardFact(ev) && c.frozen {
				l := c.m.limits
				if now.Sub(c.since) < l.FreezeMax || !c.lastDead.IsZero() && now.Sub(c.lastDead) < l.FreezeDeadEvery {
					c.t.Fatalf("%T: %s died %s after the freeze, %s after the one before", ev, e.Node, now.Sub(c.since), now.Sub(c.lastDead))
				}
				c.lastDead = now
			}
			if e.To == Dead {
				c.impaired[e.Node] = false
			}
			c.verdicts[e.Node] = e.To
		case SetImpaired:
			if c.impaired[e.Node] == e.Impaired || e.Why == "" || e.Impaired && !sessions[e.Node] {
				c.t.Fatalf("%T: %+v, was %v", ev, e, c.impaired[e.Node])
			}
			c.impaired[e.Node] = e.Impaired
		case SetDamped:
			if !c.damped[e.Node] && !e.Damped || e.Why == "" || e.Damped && (!e.Until.After(now) || c.verdicts[e.Node] != Back) {
				c.t.Fatalf("%T: %+v, was %v", ev, e, c.damped[e.Node])
			}
			c.damped[e.Node] = e.Damped
		case SetFrozen:
			if c.frozen == e.Frozen || e.Why == "" {
				c.t.Fatalf("%T: %+v, was %v", ev, e, c.frozen)
			}
			c.frozen, c.since, c.lastDead = e.Frozen, now, time.Time{}
		}
	}
}

// word checks that a verdict names those on whose word it rests, and nobody else.
func (c *checker) word(ev Event, e SetVerdict) {
	switch e.To {
	case Suspect, AgentLost:
		for _, o := range e.By {
			if !slices.Contains(c.asked[e.Node].Observers, o) {
				c.t.Fatalf("%T: %s: %s by the word of %v, asked were %v", ev, e.Node, e.To, e.By, c.asked[e.Node].Observers)
			}
		}
		if len(e.By) == 0 {
			c.t.Fatalf("%T: %s: %s by nobody's word", ev, e.Node, e.To)
		}
	case Dead:
		if _, operator := ev.(OperatorDead); operator && !slices.Equal(e.By, []string{"operator kim"}) {
			c.t.Fatalf("%s: dead by the word of %v", e.Node, e.By)
		}
	}
}

func isHint(ev Event) bool {
	_, hint := ev.(GossipHint)
	return hint
}

func isHardFact(ev Event) bool {
	switch ev.(type) {
	case OperatorDead, SessionOpened:
		return true
	}
	return false
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

// checkCounts compares what the machine counts on its way with what is.
func checkCounts(t *rapid.T, m *Machine, c *checker) {
	var count [Back + 1]int
	var suspects [standings]int
	for _, name := range m.names {
		n := m.nodes[name]
		count[n.verdict]++
		if n.standing != notSuspect {
			suspects[n.standing]++
		}
		if (n.standing != notSuspect) != (n.verdict == Suspect) {
			t.Fatalf("%s is %s and stands as %d", name, n.verdict, n.standing)
		}
		if l := m.limits; n.tolerance.now < l.BeatJitter || n.tolerance.now > l.JitterMax {
			t.Fatalf("%s: tolerance %s", name, n.tolerance.now)
		}
		if n.health.impaired != c.impaired[name] || n.flaps.until.IsZero() == c.damped[name] {
			t.Fatalf("%s: impaired %v, damped until %s; effects said %v, %v", name, n.health.impaired, n.flaps.until, c.impaired[name], c.damped[name])
		}
	}
	suspects[notSuspect] = m.freeze.suspects[notSuspect]
	if count != m.count || suspects != m.freeze.suspects {
		t.Fatalf("counted %v and %v, are %v and %v", m.count, m.freeze.suspects, count, suspects)
	}
	if m.freeze.on() != c.frozen || c.frozen && count[Suspect]+count[AgentLost] == 0 {
		t.Fatalf("frozen: %v, effects said %v; %v", m.freeze.on(), c.frozen, count)
	}
}
