package bubble

import (
	"math/rand/v2"
	"sync"
	"time"
)

// chance is a stream of random numbers for any goroutine. Each part of the world
// has its own, so that one draw more here changes nothing there.
type chance struct {
	mu sync.Mutex
	r  *rand.Rand
}

func newChance(seed, stream uint64) *chance {
	return &chance{r: rand.New(rand.NewPCG(seed, stream))}
}

// n gives a number from 0 to below most.
func (c *chance) n(most int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.r.IntN(most)
}

func (c *chance) hits(p float64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.r.Float64() < p
}

// between gives a time, short ones as likely as long ones by their order of
// magnitude's half: the square of a uniform draw.
func (c *chance) between(least, most time.Duration) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	x := c.r.Float64()
	return least + time.Duration(x*x*float64(most-least))
}

func pick[T any](c *chance, of []T) T { return of[c.n(len(of))] }
