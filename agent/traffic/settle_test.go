package traffic

import (
	"maps"
	"net/netip"
	"testing"
	"time"
)

func TestSettling(t *testing.T) {
	var s settling
	start := time.Unix(1000, 0)
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	at80 := func(i byte) server { return server{netip.AddrFrom4([4]byte{10, 64, 0, i}), 80} }
	gone := func(all ...byte) map[server]bool {
		out := map[server]bool{}
		for _, i := range all {
			out[at80(i)] = true
		}
		return out
	}
	check := func(ms int, want uint64) {
		t.Helper()
		got, _, ok := s.take(at(ms))
		if got != want || ok != (want > 0) {
			t.Errorf("at %d ms mark %d is told (%v), want %d", ms, got, ok, want)
		}
	}
	s.add(1, at(0), nil)
	check(0, 1) // nothing was withdrawn
	s.add(2, at(10), gone(1))
	s.add(3, at(20), nil)     // not before the one that it comes after
	s.add(3, at(25), gone(1)) // the same once more: the kernel was put right
	check(209, 0)
	check(210, 3)
	s.add(4, at(300), gone(1, 2))
	s.add(5, at(400), gone(3))
	check(500, 4)
	if next, ok := s.next(); !ok || !next.Equal(at(600)) {
		t.Errorf("the next is told at %v, %v", next, ok)
	}
	s.add(6, at(410), nil)
	s.spare(at80(3)) // its address is another's now
	s.add(7, at(420), gone(4))
	if mark, left, _ := s.take(at(1000)); mark != 7 || !maps.Equal(left, gone(4)) {
		t.Errorf("mark %d is told, and %v is out of use; want 7 and %v", mark, left, gone(4))
	}
	check(2000, 0)
	if _, ok := s.next(); ok {
		t.Error("one waits although all were told")
	}
}
