package sim

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// shrinkRuns bounds how long a shrinker tries: each run is a fraction of a second.
const shrinkRuns = 400

// shrinker looks for a smaller run of one seed that breaks the same invariant.
type shrinker struct {
	best Result
	runs int
}

// Shrink looks for a smaller run of the same seed that breaks the same
// invariant: fewer steps, fewer kinds of faults, fewer single faults, fewer
// requests. It returns the smallest found, with its story.
func Shrink(c Config) Result {
	if c.Steps == 0 {
		c.Steps = StepsDefault
	}
	s := &shrinker{best: runOnce(c)}
	if s.best.Violation == nil {
		return s.best
	}
	s.steps()
	AllFaults.Each(func(k Fault) {
		if c := s.best.Config; c.Without&k == 0 {
			c.Without |= k
			s.try(c)
		}
	})
	s.steps()
	s.singles(s.best.Drawn, func(c *Config) *[]int { return &c.Skip })
	s.singles(s.best.DrawnRequests, func(c *Config) *[]int { return &c.SkipRequests })
	s.steps()
	again := s.best.Config
	again.Tell = c.Tell
	return Run(again)
}

func (s *shrinker) try(c Config) bool {
	if s.runs++; s.runs > shrinkRuns {
		return false
	}
	r := runOnce(c)
	if r.Violation == nil || r.Violation.Invariant != s.best.Violation.Invariant {
		return false
	}
	s.best = r
	return true
}

// steps ends the faults sooner.
func (s *shrinker) steps() {
	if v := s.best.Violation; !v.Settling && v.Step < s.best.Config.Steps {
		c := s.best.Config
		c.Steps = v.Step
		s.try(c)
	}
	for cut := s.best.Config.Steps / 2; cut >= 5 && s.runs < shrinkRuns; cut /= 2 {
		for s.best.Config.Steps > cut {
			c := s.best.Config
			c.Steps -= cut
			if !s.try(c) {
				break
			}
		}
	}
}

// singles leaves out what is numbered from 1 to n: halves of it first, then
// smaller and smaller parts.
func (s *shrinker) singles(n int, of func(*Config) *[]int) {
	for size := max(n/2, 1); ; size /= 2 {
		for from := 1; from <= n; from += size {
			c := s.best.Config
			list := of(&c)
			before := len(*list)
			*list = slices.Clone(*list)
			for i := from; i < from+size && i <= n; i++ {
				if !slices.Contains(*list, i) {
					*list = append(*list, i)
				}
			}
			if len(*list) > before {
				s.try(c)
			}
		}
		if size <= 1 {
			return
		}
	}
}

// Numbers gives "1-3,7" for a list; ParseNumbers reads it.
func Numbers(list []int) string {
	list = slices.Compact(slices.Sorted(slices.Values(list)))
	var out []string
	for i := 0; i < len(list); {
		j := i
		for j+1 < len(list) && list[j+1] == list[j]+1 {
			j++
		}
		if text := strconv.Itoa(list[i]); j > i {
			out = append(out, text+"-"+strconv.Itoa(list[j]))
		} else {
			out = append(out, text)
		}
		i = j + 1
	}
	return strings.Join(out, ",")
}

// numbersMax bounds what a range may hold: no run has that many.
const numbersMax = 1 << 20

// ParseNumbers reads what Numbers gives.
func ParseNumbers(s string) ([]int, error) {
	var out []int
	for _, part := range strings.FieldsFunc(s, func(r rune) bool { return r == ',' }) {
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		a, errA := strconv.Atoi(from)
		b, errB := strconv.Atoi(to)
		if errA != nil || errB != nil || a < 1 || b < a || b > numbersMax {
			return nil, fmt.Errorf("%q is no list of numbers such as 1-3,7", s)
		}
		for i := a; i <= b; i++ {
			out = append(out, i)
		}
	}
	return out, nil
}
