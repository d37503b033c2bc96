package metrics

import (
	"context"
	"time"
)

// aliveWithin bounds the checks that a service manager's watchdog rests on: one that
// hangs has failed.
const aliveWithin = 10 * time.Second

// Alive gives a function that tells whether all checks pass, for who asks from within
// the program.
func Alive(ctx context.Context, checks []Check) func() bool {
	return func() bool {
		ctx, cancel := context.WithTimeout(ctx, aliveWithin)
		defer cancel()
		for _, c := range checks {
			if _, err := c.Try(ctx); err != nil {
				return false
			}
		}
		return true
	}
}
