package sim

import "time"

// driftMax is by how much clocks run too fast or too slow, in millionths: what
// the design allows two of them to differ by over a lease, on either side.
const driftMax = 10_000

// clock is a machine's. It may be set wrong, run too fast or too slow, and stand
// still while the machine is suspended.
type clock struct {
	drift int64 // millionths
	from  int64 // the world's time at which it showed what is in showed
	// showed is in ns since the start of the run; it may begin elsewhere.
	showed  int64
	stopped bool
}

// at is what it shows at a time of the world.
func (c *clock) at(world int64) int64 {
	if c.stopped {
		return c.showed
	}
	d := world - c.from
	return c.showed + d + d/1e6*c.drift + d%1e6*c.drift/1e6
}

// when is the time of the world at which it shows so much, if nothing happens to
// it until then.
func (c *clock) when(shown int64) int64 {
	d := shown - c.showed
	rate := 1e6 + c.drift
	world := c.from + d/rate*1e6 + d%rate*1e6/rate
	for c.at(world) < shown && !c.stopped {
		world++
	}
	return world
}

func (c *clock) stop(world int64) { c.showed, c.from, c.stopped = c.at(world), world, true }

func (c *clock) goOn(world int64) { c.showed, c.from, c.stopped = c.at(world), world, false }

// newClock draws how wrong a machine's clock is.
func (w *world) newClock() clock {
	c := clock{drift: w.r.world.Int64N(2*driftMax+1) - driftMax, showed: int64(between(w.r.world, -2*time.Second, 2*time.Second))}
	if w.cfg.Without&Clocks != 0 {
		return clock{}
	}
	w.res.Faults[Clocks]++
	return c
}

// now is what the machine's programs take for the time.
func (h *host) now() time.Time { return start.Add(time.Duration(h.clock.at(h.w.clock))) }

// sinceBoot is CLOCK_BOOTTIME: it goes on while the machine is frozen or
// suspended. Whoever stops it breaks what leases rest on, as the documents say.
func (h *host) sinceBoot() time.Duration { return time.Duration(h.boottime.at(h.w.clock)) }

// behind is by how much the clock is behind the time since boot: it grows only
// while the machine is suspended.
func (h *host) behind() time.Duration {
	return time.Duration(h.boottime.at(h.w.clock) - h.clock.at(h.w.clock))
}

func (c *controller) now() time.Time { return start.Add(time.Duration(c.clock.at(c.w.clock))) }
