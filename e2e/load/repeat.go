package load

import (
	"context"
	"slices"
	"sync"
	"time"
)

// answer is what one request brought.
type answer struct {
	by, seen string
}

// request asks once; n numbers requests from 0 and chooses the target.
type request func(ctx context.Context, n int) (answer, error)

// pacer hands out turns: numbers from 0, each not before its time.
type pacer struct {
	mu    sync.Mutex
	count int // 0: without end
	least int // as many turns are given even after the end
	step  time.Duration
	taken int
	next  time.Time
}

// lateMax is how far the pace may be made up after a stall; what is older is
// left out, so that a stall is not followed by a burst.
const lateMax = 50 * time.Millisecond

// turn waits for the next turn; false: there is none any more.
func (p *pacer) turn(ctx context.Context) (int, bool) {
	p.mu.Lock()
	if p.count > 0 && p.taken == p.count || p.taken >= p.least && ctx.Err() != nil {
		p.mu.Unlock()
		return 0, false
	}
	if p.taken < p.least {
		ctx = context.WithoutCancel(ctx)
	}
	n := p.taken
	p.taken++
	at, now := p.next, time.Now()
	if p.step > 0 {
		if now.Sub(at) > lateMax {
			at = now
		}
		p.next = at.Add(p.step)
	}
	p.mu.Unlock()
	if wait := at.Sub(now); p.step > 0 && wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return 0, false
		}
	}
	return n, true
}

// tally adds up one worker's requests; it is the worker's own.
type tally struct {
	requests, failed int
	failures         map[string]*Failure
	took             []int32 // µs
	by               map[string]int
	seen             string
}

func newTally() *tally { return &tally{failures: map[string]*Failure{}, by: map[string]int{}} }

func (t *tally) add(began time.Time, took time.Duration, a answer, err error, keep int) {
	t.requests++
	if err == nil {
		if len(t.took) < keep {
			t.took = append(t.took, int32(min(took.Microseconds(), 1<<31-1)))
		}
		t.by[a.by]++
		if a.seen != "" {
			t.seen = a.seen
		}
		return
	}
	t.failed++
	kind := kindOf(err)
	f := t.failures[kind]
	if f == nil {
		f = &Failure{Kind: kind, First: began, Last: began, Example: err.Error()}
		t.failures[kind] = f
	}
	f.Count++
	if began.Before(f.First) {
		f.First = began
	}
	if began.After(f.Last) {
		f.Last = began
	}
}

// repeat asks again and again, as the job says, and adds up.
func repeat(ctx context.Context, j Job, ask request) Report {
	r := Report{Began: time.Now()}
	p := &pacer{count: j.Count, least: j.AtLeast, next: r.Began}
	if j.Rate > 0 {
		p.step = time.Second / time.Duration(j.Rate)
	}
	tallies := make([]*tally, j.Workers)
	var group sync.WaitGroup
	for i := range tallies {
		t := newTally()
		tallies[i] = t
		group.Go(func() {
			for {
				n, ok := p.turn(ctx)
				if !ok {
					return
				}
				// A request that has begun is always waited for: the end of a job
				// cuts none off and so counts none wrongly.
				one, cancel := context.WithTimeout(context.WithoutCancel(ctx), j.Timeout)
				began := time.Now()
				a, err := ask(one, n)
				t.add(began, time.Since(began), a, err, latenciesMax/j.Workers)
				cancel()
			}
		})
	}
	group.Wait()
	r.Ended = time.Now()
	sum(&r, tallies)
	return r
}

func sum(r *Report, tallies []*tally) {
	var took []int32
	failures := map[string]*Failure{}
	r.By = map[string]int{}
	for _, t := range tallies {
		r.Requests += t.requests
		r.Failed += t.failed
		took = append(took, t.took...)
		for by, n := range t.by {
			r.By[by] += n
		}
		if t.seen != "" {
			r.Seen = t.seen
		}
		for kind, f := range t.failures {
			g := failures[kind]
			if g == nil {
				failures[kind] = f
				continue
			}
			g.Count += f.Count
			if f.First.Before(g.First) {
				g.First, g.Example = f.First, f.Example
			}
			if f.Last.After(g.Last) {
				g.Last = f.Last
			}
		}
	}
	r.Failures = sorted(failures)
	if len(took) > 0 {
		slices.Sort(took)
		at := func(percent int) time.Duration {
			return time.Duration(took[max(0, (len(took)*percent+99)/100-1)]) * time.Microsecond
		}
		r.P50, r.P99, r.Max = at(50), at(99), at(100)
	}
}
