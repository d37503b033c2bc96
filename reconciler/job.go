package reconciler

import (
	"fmt"
	"math/bits"
	"slices"
	"time"

	"github.com/orchctl/orch/api"
)

// A slot of a job is one of its indexes. What fills it is a try, which comes to an end by
// itself: well, and the index is completed for good; or not, and the index is tried again
// after its back-off. A try that an end of its node took, or that was told to stop, has
// not failed.
//
//	JobView ─► void ─► judge ──► ended? ─┬► stop all                  job is over, or deleted
//	           dead    what has          └► one of each ─► stand in ─► fill ─► JobDecision
//	           nodes   ended                index alone    for what    lowest first, after
//	                                                       is silent   their back-off

// JobView is one job as the leader holds it, with all that PlanJob needs.
type JobView struct {
	Job api.Key
	// Deleting asks for everything to be removed.
	Deleting bool
	// State is the one that is committed: what has ended begins nothing any more.
	State api.JobState
	// Completions is how many indexes there are, Parallelism how many may be active at
	// once, spares apart, and MayFail how many tries may fail.
	Completions, Parallelism, MayFail int
	// Deadline is when the job has failed unless it is complete; zero: never.
	Deadline time.Time
	// BackOff is the delay after the first try of an index that failed; it doubles with
	// each that follows, up to MaxBackOff.
	BackOff, MaxBackOff time.Duration
	// Done are the indexes that are completed, Failures how many tries failed, over all.
	Done     Indexes
	Failures int
	// Failed are the indexes that failed and are not completed, sorted.
	Failed []FailedIndex
	// Fillings as in View. Of one that is not Stopping an ended Phase was reported in this
	// session; Succeeded tells how it ended.
	Fillings []Filling
}

// FailedIndex is an index whose last try failed.
type FailedIndex struct {
	Index    int
	Failures int // in its tries so far
	// At is when the last one was counted, Node where it was.
	At   time.Time
	Node string
}

// JobDecision is what PlanJob returns.
type JobDecision struct {
	// Ends are tries that have ended. Each is to be committed together with the stop of
	// its filling, or it would be counted again.
	Ends []JobEnd
	// Actions as in Decision; none is for a filling in Ends.
	Actions []Action
	// State is the job's, once Ends are committed; Why it has failed, in words.
	State api.JobState
	Why   string
	// Wake is when to plan again though nothing changed; zero for not at all.
	Wake time.Time
	// Waiting says in words what is in the way; empty where all that may runs.
	Waiting []string
}

// JobEnd is a try that has ended: it completes its index, or has failed.
type JobEnd struct {
	Key       api.ReplicaKey
	Succeeded bool
}

// PlanJob says what is to be done for a job. The same view and time give the same
// decision. The view is not changed.
func PlanJob(v JobView, now time.Time) JobDecision {
	p := &jobPlanner{JobView: v, planner: planner{View: View{Service: v.Job}, now: now}, failed: map[int]FailedIndex{}}
	p.Done = slices.Clone(v.Done)
	for _, x := range v.Failed {
		p.failed[x.Index] = x
	}
	p.group()
	p.voidDead()
	p.judge()
	p.conclude()
	if p.Deleting || p.State == api.JobComplete || p.State == api.JobFailed {
		p.stopAll()
	} else {
		for _, s := range p.slots {
			p.one(s)
		}
		for _, s := range p.slots {
			p.standIn(s)
		}
		p.fill()
	}
	return JobDecision{Ends: p.ends, Actions: p.sorted(), State: p.State, Why: p.why, Wake: p.wake, Waiting: p.waiting()}
}

// jobPlanner applies each action to its own copy as it is decided, as planner does.
type jobPlanner struct {
	JobView
	planner
	failed map[int]FailedIndex
	ends   []JobEnd
	why    string
	wake   time.Time
}

// group makes slots of the indexes that anything fills: the others are only counted.
func (p *jobPlanner) group() {
	fillings := slices.Clone(p.JobView.Fillings)
	slices.SortStableFunc(fillings, func(a, b Filling) int { return compareFillings(&a, &b) })
	for i := range fillings {
		f := &fillings[i]
		if n := len(p.slots); n == 0 || p.slots[n-1].number != f.Key.Slot {
			p.slots = append(p.slots, &slot{number: f.Key.Slot})
		}
		s := p.slots[len(p.slots)-1]
		s.fillings = append(s.fillings, f)
	}
}

// judge takes what has ended by itself. The first that completes its index counts.
func (p *jobPlanner) judge() {
	for _, s := range p.slots {
		for _, f := range s.live() {
			if f.ended() && f.Succeeded && !p.Done.Has(s.number) {
				p.end(f)
				p.Done.Add(s.number)
				delete(p.failed, s.number)
			}
		}
		for _, f := range s.live() {
			if f.ended() && !f.Succeeded && !p.Done.Has(s.number) {
				p.end(f)
				p.Failures++
				x := p.failed[s.number]
				p.failed[s.number] = FailedIndex{Index: s.number, Failures: x.Failures + 1, At: p.now, Node: f.Node}
			}
		}
	}
}

func (p *jobPlanner) end(f *Filling) {
	p.ends = append(p.ends, JobEnd{f.Key, f.Succeeded})
	f.Stopping = true
}

// conclude tells whether the job is over. What completes it at last is not undone by
// what failed beside it, nor by a deadline of the same moment.
func (p *jobPlanner) conclude() {
	if p.Deleting || p.State != api.JobRunning {
		return
	}
	done := p.Done.Count()
	switch {
	case done >= p.Completions:
		p.State = api.JobComplete
	case p.Failures > p.MayFail:
		p.State = api.JobFailed
		p.why = fmt.Sprintf("%s failed, backoffLimit is %d", counted(p.Failures, "try", "tries"), p.MayFail)
	case !p.Deadline.IsZero() && !p.Deadline.After(p.now):
		p.State = api.JobFailed
		p.why = fmt.Sprintf("its deadline has passed: %d of %s completed", done, counted(p.Completions, "index is", "indexes are"))
	default:
		p.wake = earlier(p.wake, p.Deadline)
	}
}

// stopAll removes what runs, wherever it is: a node that cannot be reached finds it so on
// its return.
func (p *jobPlanner) stopAll() {
	why := map[bool]string{true: "the job is deleted"}[p.Deleting]
	switch {
	case why != "":
	case p.State == api.JobComplete:
		why = "the job is complete"
	default:
		why = "the job has failed"
	}
	for _, s := range p.slots {
		for _, f := range s.live() {
			p.remove(f, "%s", why)
		}
	}
}

// one leaves one filling of an index, where two are heard that run; and none where it is
// completed, or its node was to be empty by now.
func (p *jobPlanner) one(s *slot) {
	for _, f := range s.live() {
		switch {
		case p.Done.Has(s.number) || s.number >= p.Completions:
			p.remove(f, "index %d is completed", s.number)
		case f.Overdue:
			p.remove(f, "%s was to be empty by now: it begins anew elsewhere", f.Node)
		}
	}
	p.adoptOrphan(s)
	incumbents, spares := s.incumbents(), s.spares()
	if len(incumbents) == 0 || len(spares) == 0 || slices.ContainsFunc(incumbents, (*Filling).doubtful) || !allReported(incumbents) {
		return // what cannot be relied on keeps its spare; what has not spoken is waited for
	}
	begun := func(f *Filling) bool { return f.reported() && !f.relieved() && !f.Phase.Before(api.PhaseRunning) }
	i := slices.IndexFunc(spares, begun)
	if i >= 0 && !slices.ContainsFunc(incumbents, begun) {
		for _, f := range incumbents {
			p.remove(f, "%s is back, but the incumbent has not begun there and the spare %s on %s has", f.Node, spares[i].name(), spares[i].Node)
		}
		p.adopt(spares[i], "the incumbent %s on %s goes", incumbents[0].name(), incumbents[0].Node)
		return
	}
	if slices.ContainsFunc(incumbents, func(f *Filling) bool { return f.Damped }) {
		return // its node may be gone again in a moment: the first that ends counts
	}
	for _, f := range spares {
		if f.heard() || f.relieved() {
			p.remove(f, "incumbent on %s is back and runs", incumbents[0].Node)
		}
	}
}

// standIn begins an index elsewhere where all that fills it is suspect or to be relieved.
// Both run on: the first that completes it counts.
func (p *jobPlanner) standIn(s *slot) {
	live := s.live()
	if len(live) == 0 || slices.ContainsFunc(live, func(f *Filling) bool { return !f.doubtful() }) || p.backsOff(s.number) {
		return
	}
	if f := live[0]; !slices.ContainsFunc(live, func(f *Filling) bool { return f.relieved() }) {
		p.create(s, Action{Revision: f.Revision, Spare: true, Avoid: doubtfulNodes(s), Rather: p.elsewhere(s.number),
			Why: fmt.Sprintf("%s suspect: %s cannot be reached", f.Node, f.name())})
		return
	}
	f := live[slices.IndexFunc(live, func(f *Filling) bool { return f.relieved() })]
	p.create(s, Action{Revision: f.Revision, Spare: true, Relief: true, Avoid: doubtfulNodes(s), Rather: p.elsewhere(s.number),
		Why: fmt.Sprintf("%s on %s is to be relieved: %s", f.name(), f.Node, f.Relieve)})
}

// backsOff tells whether an index waits for its next try, and wakes the plan for it.
func (p *jobPlanner) backsOff(index int) bool {
	x, ok := p.failed[index]
	if !ok {
		return false
	}
	at := x.At.Add(p.backOff(x.Failures))
	if !at.After(p.now) {
		return false
	}
	p.wake = earlier(p.wake, at)
	return true
}

func (p *jobPlanner) backOff(failures int) time.Duration {
	d := p.BackOff
	for range failures - 1 {
		if d >= p.MaxBackOff {
			return p.MaxBackOff
		}
		d *= 2
	}
	return min(d, p.MaxBackOff)
}

// elsewhere is where the index failed last: another node is tried, if one is fit.
func (p *jobPlanner) elsewhere(index int) []string {
	if x, ok := p.failed[index]; ok && x.Node != "" {
		return []string{x.Node}
	}
	return nil
}

// fill begins indexes that nothing fills, the lowest first, as many as may be active.
func (p *jobPlanner) fill() {
	active, filled := 0, map[int]bool{}
	for _, s := range p.slots {
		if slices.ContainsFunc(s.fillings, func(f *Filling) bool { return p.occupies(s, f) }) {
			filled[s.number] = true
			active++
		}
	}
	for i := p.Done.Without(0); i < p.Completions && active < p.Parallelism; i = p.Done.Without(i + 1) {
		if filled[i] || p.backsOff(i) {
			continue
		}
		why := fmt.Sprintf("index %d of %d", i, p.Completions)
		if x, ok := p.failed[i]; ok {
			why += fmt.Sprintf(", after %s that failed", counted(x.Failures, "try", "tries"))
		}
		p.create(&slot{number: i}, Action{Revision: 1, Rather: p.elsewhere(i), Why: why})
		active++
	}
}

// occupies tells whether a filling keeps its index from being begun: what is stopping may
// still run, but where nobody can stop it that is not waited for.
func (p *jobPlanner) occupies(s *slot, f *Filling) bool {
	if !f.Stopping {
		return true
	}
	return !f.ended() && !p.Done.Has(s.number) && f.holdsRoom()
}

// waiting says what stands in the job's way, given that the plan is applied. What it
// creates is left to the one who places it.
func (p *jobPlanner) waiting() []string {
	var lines []string
	for _, s := range p.slots {
		for _, f := range s.fillings {
			if line := f.hampered(); line != "" && !p.Done.Has(s.number) {
				lines = append(lines, line)
			}
		}
	}
	if p.State == api.JobRunning && !p.Deleting {
		for _, x := range p.JobView.Failed {
			if at := x.At.Add(p.backOff(x.Failures)); at.After(p.now) && !p.Done.Has(x.Index) {
				lines = append(lines, fmt.Sprintf("index %d failed %s and is tried again at %s", x.Index, times(x.Failures), at.UTC().Format("15:04:05Z")))
			}
		}
	}
	if more := len(lines) - waitingMax; more > 0 {
		lines = append(lines[:waitingMax:waitingMax], fmt.Sprintf("and %d more", more))
	}
	return lines
}

// hampered says what about a try is not as it should be; "" for one that runs.
func (f *Filling) hampered() string {
	switch {
	case f.Key.Epoch == 0 || f.ended():
		return ""
	case f.Stopping:
		return fmt.Sprintf("%s is stopping on %s%s", f.name(), f.Node, unheard(f))
	case f.relieved():
		return fmt.Sprintf("%s is to be relieved on %s: %s", f.name(), f.Node, f.Relieve)
	case f.suspect():
		return fmt.Sprintf("%s cannot be reached: %s is suspect", f.name(), f.Node)
	case f.heard() && !f.known():
		return fmt.Sprintf("%s is not yet reported by %s", f.name(), f.Node)
	case !f.heard():
		return fmt.Sprintf("%s is left alone on %s%s", f.name(), f.Node, unheard(f))
	}
	return ""
}

// counted gives "1 try" or "2 tries".
func counted(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// Indexes is a set of indexes of a job, one bit each: a job of 10,000 costs each of its
// plans a few hundred bytes. The zero value is empty.
type Indexes []uint64

// Has tells whether an index is in the set.
func (x Indexes) Has(i int) bool { return i/64 < len(x) && x[i/64]&(1<<(i%64)) != 0 }

// Add puts an index, not below 0, into the set.
func (x *Indexes) Add(i int) {
	for i/64 >= len(*x) {
		*x = append(*x, 0)
	}
	(*x)[i/64] |= 1 << (i % 64)
}

// Count is how many indexes are in the set.
func (x Indexes) Count() int {
	n := 0
	for _, w := range x {
		n += bits.OnesCount64(w)
	}
	return n
}

// Without gives the lowest index, not below from, that is not in the set.
func (x Indexes) Without(from int) int {
	for i := from / 64; i < len(x); i++ {
		free := ^x[i]
		if i == from/64 {
			free &^= 1<<(from%64) - 1
		}
		if free != 0 {
			return i*64 + bits.TrailingZeros64(free)
		}
	}
	return max(from, len(x)*64)
}
