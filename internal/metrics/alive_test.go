package metrics

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
)

func TestAlive(t *testing.T) {
	good := Check{Name: "good", Try: func(context.Context) (string, error) { return "", nil }}
	bad := Check{Name: "bad", Try: func(context.Context) (string, error) { return "", errors.New("stuck") }}
	hangs := Check{Name: "hangs", Try: func(ctx context.Context) (string, error) { <-ctx.Done(); return "", ctx.Err() }}
	synctest.Test(t, func(t *testing.T) {
		for name, c := range map[string]struct {
			checks []Check
			want   bool
		}{"none": {nil, true}, "good": {[]Check{good}, true}, "one bad": {[]Check{good, bad}, false}, "one hangs": {[]Check{hangs, good}, false}} {
			if got := Alive(t.Context(), c.checks)(); got != c.want {
				t.Errorf("%s: %v", name, got)
			}
		}
	})
}
