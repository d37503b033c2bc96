package liveness

import (
	"testing"
	"time"
)

func TestBeatInterval(t *testing.T) {
	for nodes, want := range map[int]time.Duration{
		0: 100 * time.Millisecond, 1: 100 * time.Millisecond, 200: 100 * time.Millisecond,
		201: 200 * time.Millisecond, 400: 200 * time.Millisecond, 401: 300 * time.Millisecond,
		10_000: 5 * time.Second,
	} {
		if got := (Limits{}).BeatInterval(nodes); got != want {
			t.Errorf("%d nodes: %s, want %s", nodes, got, want)
		}
	}
}

// TestShrinkingFleet: when most of a large fleet is removed, the nodes that are
// left still beat at the old, longer interval until they hear of the new one; it
// counts against nobody, and afterwards silence is found at the new pace.
func TestShrinkingFleet(t *testing.T) {
	m := New(Limits{BeatFleet: 1}) // 4 nodes: 400 ms
	now := epoch
	step := func(ev Event) (asked int) {
		for _, e := range m.Step(ev, now) {
			if _, ok := e.(AskWitnesses); ok {
				asked++
			}
		}
		return asked
	}
	for _, n := range []string{"n1", "n2", "n3", "n4"} {
		step(NodeAdded{Node: n})
		step(SessionOpened{Node: n, BootID: "a"})
	}
	for _, n := range []string{"n2", "n3", "n4"} {
		step(NodeRemoved{n})
	}
	for seq := range uint64(3) { // n1 has not heard yet
		now = now.Add(400 * time.Millisecond)
		if step(Tick{})+step(Beat{Node: "n1", Seq: seq + 1}) > 0 {
			t.Fatalf("asked at %s", now.Sub(epoch))
		}
	}
	now = now.Add(50 * time.Millisecond)
	step(Beat{Node: "n1", Seq: 4}) // at the new pace
	now = now.Add(149 * time.Millisecond)
	if step(Tick{}) > 0 {
		t.Error("asked too early")
	}
	now = now.Add(time.Millisecond)
	if step(Tick{}) != 1 {
		t.Error("not asked when a beat of the new interval is late")
	}
}
