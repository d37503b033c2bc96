package api

import (
	"regexp"
	"testing"
)

func TestEventReasons(t *testing.T) {
	seen, word := map[string]bool{}, regexp.MustCompile(`^[A-Z][A-Za-z]+$`)
	for _, r := range EventReasons {
		if seen[r.Reason] || !word.MatchString(r.Reason) || len(r.Of) == 0 || r.Means == "" {
			t.Errorf("%+v", r)
		}
		seen[r.Reason] = true
	}
}
