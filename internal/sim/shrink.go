package sim

// shrinkRuns bounds how long a shrinker tries: each run is a fraction of a second.
const shrinkRuns = 60

// Shrink looks for a smaller run of the same seed that breaks the same
// invariant: fewer steps, fewer kinds of faults. It returns the smallest found,
// with its story.
func Shrink(c Config) Result {
	if c.Steps == 0 {
		c.Steps = StepsDefault
	}
	best := runOnce(c)
	if best.Violation == nil {
		return best
	}
	runs := 0
	try := func(c Config) bool {
		if runs++; runs > shrinkRuns {
			return false
		}
		r := runOnce(c)
		if r.Violation == nil || r.Violation.Invariant != best.Violation.Invariant {
			return false
		}
		best = r
		return true
	}
	fewer := func() {
		if v := best.Violation; !v.Settling && v.Step < best.Config.Steps {
			c := best.Config
			c.Steps = v.Step
			try(c)
		}
		for cut := best.Config.Steps / 2; cut >= 5 && runs < shrinkRuns; cut /= 2 {
			for best.Config.Steps > cut {
				c := best.Config
				c.Steps -= cut
				if !try(c) {
					break
				}
			}
		}
	}
	fewer()
	AllFaults.Each(func(k Fault) {
		c := best.Config
		if c.Without&k != 0 {
			return
		}
		c.Without |= k
		try(c)
	})
	fewer()
	again := best.Config
	again.Tell = c.Tell
	return Run(again)
}
