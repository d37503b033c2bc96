package liveness

import (
	"fmt"
	"testing"
	"time"
)

// TestBeatAllocatesNothing: the commonest event costs no memory, but for the Wake
// that is announced once in many; not from a node that is impaired either.
func TestBeatAllocatesNothing(t *testing.T) {
	m, now := New(Limits{}), epoch
	names := list("n1-n500") // beat every 300 ms
	for _, n := range names {
		m.Step(NodeAdded{Node: n, BootID: "a"}, now)
		m.Step(SessionOpened{Node: n, BootID: "a"}, now)
	}
	var beats []Event
	for seq := range uint64(60) {
		for i, n := range names {
			b := Beat{Node: n, Seq: seq + 1}
			if i == 0 {
				b.Check = SelfCheck{Age: time.Minute, Failing: "disk: no space left"}
			}
			beats = append(beats, b)
		}
	}
	beat := func() {
		now = now.Add(600 * time.Microsecond)
		m.Step(beats[0], now)
		beats = beats[1:]
	}
	for range len(beats) / 2 {
		beat()
	}
	if !m.nodes["n1"].health.impaired {
		t.Fatal("n1 is not impaired")
	}
	if allocs := testing.AllocsPerRun(len(beats)-1, beat); allocs != 0 {
		t.Errorf("%v allocations in a beat", allocs)
	}
}

// BenchmarkBeat is the commonest event, in the largest fleet that orch is made for.
func BenchmarkBeat(b *testing.B) {
	m, now, names := New(Limits{}), epoch, make([]string, 10_000)
	for i := range names {
		names[i] = fmt.Sprintf("n%05d", i)
		m.Step(NodeAdded{Node: names[i], BootID: "a"}, now)
		m.Step(SessionOpened{Node: names[i], BootID: "a"}, now)
	}
	seq := uint64(0)
	for i := 0; b.Loop(); i++ {
		if i%len(names) == 0 {
			seq++
		}
		now = now.Add(500 * time.Microsecond)
		m.Step(Beat{Node: names[i%len(names)], Seq: seq}, now)
	}
}
