package traffic

import (
	"testing"
	"time"
)

func TestSettling(t *testing.T) {
	var s settling
	start := time.Unix(1000, 0)
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	check := func(ms int, want uint64) {
		t.Helper()
		got, ok := s.take(at(ms))
		if got != want || ok != (want > 0) {
			t.Errorf("at %d ms mark %d is told (%v), want %d", ms, got, ok, want)
		}
	}
	s.add(1, at(0), false)
	check(0, 1) // nothing was withdrawn
	s.add(2, at(10), true)
	s.add(3, at(20), false) // not before the one that it comes after
	s.add(3, at(25), true)  // the same once more: the kernel was put right
	check(209, 0)
	check(210, 3)
	s.add(4, at(300), true)
	s.add(5, at(400), true)
	check(500, 4)
	if next, ok := s.next(); !ok || !next.Equal(at(600)) {
		t.Errorf("the next is told at %v, %v", next, ok)
	}
	check(1000, 5)
	check(2000, 0)
	if _, ok := s.next(); ok {
		t.Error("one waits although all were told")
	}
}
