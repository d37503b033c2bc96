package api

import "testing"

func TestSlips(t *testing.T) {
	for _, x := range []struct {
		a, b string
		want int
	}{{"web", "web", 0}, {"wbe", "web", 1}, {"we", "web", 1}, {"webb", "web", 1}, {"api", "web", 3}, {"", "web", 3}, {"web-1", "web-2", 1}} {
		if got := slips(x.a, x.b); got != x.want || slips(x.b, x.a) != got {
			t.Errorf("%q to %q: %d, want %d", x.a, x.b, got, x.want)
		}
	}
}
