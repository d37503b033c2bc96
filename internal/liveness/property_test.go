package liveness

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// anyEvent draws an event about one of the nodes, valid or stale.
func anyEvent(t *rapid.T, names []string, asked map[string]AskWitnesses, seq map[string]uint64) Event {
	n := rapid.SampledFrom(names).Draw(t, "node")
	switch rapid.IntRange(0, 18).Draw(t, "event") {
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
		return Beat{Node: n, Seq: seq[n], Check: SelfCheck{
			Age:        time.Duration(rapid.IntRange(0, 12).Draw(t, "age")) * time.Second,
			Failing:    rapid.SampledFrom([]string{"", "", "disk: no space left"}).Draw(t, "failing"),
			IOPressure: rapid.Float64Range(0, 1).Draw(t, "pressure")}}
	case 18:
		return OperatorThaw{By: "kim"}
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
		// So that deaths, stretched beats, freezes and dampings happen in a short run.
		limits := Limits{DeadAfter: 2 * time.Second, BeatFleet: 3, FreezeConfirm: 2 * time.Second, FreezeMax: 4 * time.Second,
			FreezeDeadEvery: time.Second, FlapDamp: 1.5, FlapReuse: 1, FlapHalfLife: 2 * time.Second,
			SelfCheckStale: time.Second, SelfCheckGood: time.Second, PressureFor: time.Second}
		m, twin := New(limits), New(limits)
		c := newChecker(t, m)
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
				delete(c.impaired, ev.Node)
				delete(c.damped, ev.Node)
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
			quiet := c.silences(now)
			effects := m.Step(ev, now)
			if s, ok := ev.(LeaderStalled); ok && s.For > 0 && c.frozen {
				c.since = earlier(now, c.since.Add(s.For))
				if !c.lastDead.IsZero() {
					c.lastDead = earlier(now, c.lastDead.Add(s.For))
				}
			}
			c.effects(ev, now, effects, sessions, quiet)
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
			checkCounts(t, m, c)
		}
	})
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

// TestAsksUnderJitter: however late a node's beats are, it costs no more than 5 asks
// in any second, and while its host answers it is never suspected.
func TestAsksUnderJitter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newScript(t)
		s.step(NodeAdded{Node: "n1"})
		s.step(SessionOpened{Node: "n1", BootID: "a"})
		s.beat("n1")
		var asks []time.Time
		took := func(effects []Effect) {
			for _, e := range effects {
				switch e := e.(type) {
				case SetVerdict:
					if e.To == Suspect || e.To == Dead {
						t.Fatalf("%+v", e)
					}
				case AskWitnesses:
					asks = append(asks, s.now)
					if i := len(asks) - 6; i >= 0 && s.now.Sub(asks[i]) <= time.Second {
						t.Fatalf("six asks within %s:\n%s", s.now.Sub(asks[i]), s.out.String())
					}
				}
			}
		}
		most := rapid.SampledFrom([]int{120, 200, 300, 450, 700}).Draw(t, "most")
		answer := time.Duration(rapid.IntRange(1, 140).Draw(t, "answer")) * time.Millisecond
		for range 60 {
			beat := s.now.Add(time.Duration(rapid.IntRange(50, most).Draw(t, "gap")) * time.Millisecond)
			for s.now.Before(beat) {
				next := beat
				if wake, ok := s.m.NextWake(); ok {
					next = earlier(next, later(s.now, wake))
				}
				reports := s.m.nodes["n1"].asking() && s.asked["n1"].AskID != 0
				if reports && !asks[len(asks)-1].Add(answer).After(next) {
					s.now = later(s.now, asks[len(asks)-1].Add(answer))
					took(s.step(WitnessReport{Observer: LeaderObserver, Target: "n1", AskID: s.asked["n1"].AskID, HostAnswers: true}))
					continue
				}
				s.now = next
				took(s.step(Tick{}))
			}
			took(s.beat("n1"))
		}
	})
}

// TestSettles: whatever happened, once all nodes beat and their checks are good
// nothing is left of it: no freeze, no impairment, no damping.
func TestSettles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := []string{"n1", "n2", "n3", "n4", "n5"}
		s := newScript(t)
		s.m = New(Limits{FlapHalfLife: 5 * time.Second})
		for _, n := range names {
			s.step(NodeAdded{Node: n, BootID: "a"})
		}
		for range rapid.IntRange(0, 80).Draw(t, "steps") {
			ev := anyEvent(t, names, s.asked, s.seq)
			s.now = s.now.Add(time.Duration(rapid.IntRange(0, 300).Draw(t, "ms")) * time.Millisecond)
			s.step(ev)
		}
		for _, n := range names {
			s.step(NodeAdded{Node: n, BootID: "a"})
			s.seq[n] = 0
			s.step(SessionOpened{Node: n, BootID: "a"})
			s.step(Reconciled{n})
		}
		s.out.Reset()
		s.tick(11*time.Second, names, nil)
		if s.m.freeze.on() {
			t.Fatalf("still frozen:\n%s", s.out.String())
		}
		s.tick(10*time.Second, names, nil) // FlapMax is below FlapReuse after three halvings
		for _, name := range names {
			if n := s.m.nodes[name]; n.verdict != Healthy || n.health.impaired || !n.flaps.until.IsZero() {
				t.Fatalf("%s is %s, impaired %v, damped until %s:\n%s", name, n.verdict, n.health.impaired, n.flaps.until, s.out.String())
			}
		}
	})
}

// TestSilenceKills: nodes that stay silent, by the word of all who are asked, die
// in the end, however many they are and whatever was before.
func TestSilenceKills(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := list("n1-n9")
		s := newScript(t)
		s.m = New(Limits{DeadAfter: 6 * time.Second, FreezeConfirm: time.Second, FreezeMax: 6 * time.Second, FreezeDeadEvery: time.Second})
		for _, n := range names {
			s.step(NodeAdded{Node: n, BootID: "a"})
			s.step(SessionOpened{Node: n, BootID: "a"})
		}
		lost := rapid.IntRange(1, 8).Draw(t, "lost")
		mute := rapid.IntRange(0, 9-lost).Draw(t, "mute")
		s.mute = names[9-mute:]
		s.brief = true
		s.tick(500*time.Millisecond, names, nil)
		see := map[string]string{}
		for _, n := range names[:lost] {
			see[n] = "no"
		}
		within := 8 * time.Second
		if mute > 0 { // asks that wait for mute ones take longer, and none may confirm
			within += time.Duration(lost) * 2 * time.Second
		}
		dead := lost
		if mute == 9-lost {
			dead = 0 // witnesses are there and say nothing
		}
		s.tick(within, names[lost:], see)
		if s.m.count[Dead] != dead || s.m.count[Healthy] != len(names)-lost {
			t.Fatalf("%d lost, %d mute: %v dead:\n%s", lost, mute, s.m.count, s.out.String())
		}
	})
}
