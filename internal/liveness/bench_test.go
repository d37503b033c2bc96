package liveness

import (
	"fmt"
	"testing"
	"time"
)

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
