package reconciler

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/orchctl/orch/api"
)

// Plan says what is to be done for a service. The same view and time give the
// same decision. The view is not changed. Only fences and MinReady depend on now.
func Plan(v View, now time.Time) Decision {
	if v.Global || v.Bound {
		return planSeated(v, now)
	}
	p := newPlanner(v, now)
	p.voidDead()
	p.removeUnwanted()
	p.measure()
	if p.recreating() {
		p.stopOthers()
	}
	switch {
	case p.recreating():
	case v.Exclusive:
		p.oneEach()
	default:
		p.withSpares()
	}
	return Decision{Actions: p.sorted(), Wake: earlier(p.wake(), p.ripens()), Counted: p.counted(), Slots: p.Replicas, Waiting: p.waiting()}
}

// earlier gives the earlier of two times, of which zero is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// withSpares plans the wanted slots of an ordinary service.
func (p *planner) withSpares() {
	proven := p.proven()
	for _, s := range p.wanted() {
		p.adoptOrphan(s)
		p.relieve(s)
	}
	p.evict()
	for _, s := range p.wanted() {
		p.contest(s)
		p.prune(s)
	}
	p.retract()
	p.pruneProtected()
	for _, s := range p.wanted() {
		p.standIn(s, proven)
	}
	p.stopFirst()
	p.fill()
	p.startFirst()
	for _, s := range p.wanted() {
		p.prepareRelief(s, proven)
	}
}

// planner works on a copy of the view to which each action is applied as it is
// decided, so that later rules see what earlier ones did and budgets are
// counted once: that is also why an applied plan plans nothing more.
type planner struct {
	View
	now     time.Time
	relief  bool    // something is to be relieved: most services are spared the look
	overdue bool    // something is overdue
	slots   []*slot // slots 0..Replicas-1, filled or not, then higher ones with fillings
	actions []Action

	// See bounds.go. trial: the wanted revision has never been ready, and there is one
	// that was rolled out well.
	bounded, trial bool
	mayBeDown      int
	reach          reach
}

type slot struct {
	number   int
	fillings []*Filling // by epoch; void ones are taken out, new ones have epoch 0
	lost     string     // why its incumbent was voided or given up, in words
	fence    time.Time  // until when something that is not in it any more may run
	measured bool       // counted is kept
	counted  reach
}

func newPlanner(v View, now time.Time) *planner {
	if v.Deleting {
		v.Replicas = 0
	}
	v.Replicas, v.MaxSurge, v.MaxUnavailable = max(v.Replicas, 0), max(v.MaxSurge, 0), max(v.MaxUnavailable, 0)
	if v.Exclusive {
		v.MaxSurge = 0
	}
	if v.MaxSurge == 0 && v.MaxUnavailable == 0 {
		v.MaxUnavailable = 1
	}
	v.Fillings = slices.Clone(v.Fillings)
	slices.SortStableFunc(v.Fillings, func(a, b Filling) int { return compareFillings(&a, &b) })
	p := &planner{View: v, now: now, slots: make([]*slot, 0, v.Replicas)}
	for n := range v.Replicas {
		p.slots = append(p.slots, &slot{number: n, fence: v.Fenced[n]})
	}
	for i := range v.Fillings {
		f := &p.Fillings[i]
		f.wasReady = f.ready() && f.Verdict != api.VerdictDead
		if v.Exclusive && !f.heard() && f.fenced(now) {
			f.Ready = false // whatever it was when it was last heard of
		}
		p.relief = p.relief || f.Relieve != ""
		p.overdue = p.overdue || f.Overdue
		if n := f.Key.Slot; n < v.Replicas {
			p.slots[n].fillings = append(p.slots[n].fillings, f)
			continue
		}
		if last := len(p.slots) - 1; last < v.Replicas || p.slots[last].number != f.Key.Slot {
			p.slots = append(p.slots, &slot{number: f.Key.Slot})
		}
		s := p.slots[len(p.slots)-1]
		s.fillings = append(s.fillings, f)
	}
	return p
}

func compareFillings(a, b *Filling) int {
	return cmp.Or(cmp.Compare(a.Key.Slot, b.Key.Slot), cmp.Compare(a.Key.Epoch, b.Key.Epoch))
}

// wanted are the slots that the service is to have.
func (p *planner) wanted() []*slot { return p.slots[:p.Replicas] }

// live are the slot's fillings that are not on their way out.
func (s *slot) live() []*Filling {
	return s.filter(func(f *Filling) bool { return !f.Stopping })
}

// incumbents are the live fillings that are no spares: one, or two while the
// slot is rolled start-first.
func (s *slot) incumbents() []*Filling {
	return s.filter(func(f *Filling) bool { return !f.Stopping && !f.Spare })
}

func (s *slot) spares() []*Filling {
	return s.filter(func(f *Filling) bool { return !f.Stopping && f.Spare })
}

// filter asks keep once for each filling. Most slots have one filling, which is
// why the whole is returned without a copy: nobody writes to what is returned,
// and its capacity is cut so that an append cannot either.
func (s *slot) filter(keep func(*Filling) bool) []*Filling {
	var out []*Filling
	all := true
	for i, f := range s.fillings {
		switch k := keep(f); {
		case k && !all:
			out = append(out, f)
		case !k && all:
			out, all = slices.Clone(s.fillings[:i]), false
		}
	}
	if all {
		return slices.Clip(s.fillings)
	}
	return out
}

// available counts the wanted slots that serve.
func (p *planner) available() int {
	n := 0
	for _, s := range p.wanted() {
		if p.slotCounts(s) {
			n++
		}
	}
	return n
}

// floor is how many slots must stay available (I4).
func (p *planner) floor() int { return max(p.Replicas-p.MaxUnavailable, 0) }

// occupants counts what holds room in the slot; spares are apart.
func (s *slot) occupants() int {
	n := 0
	for _, f := range s.fillings {
		if !f.Spare && f.holdsRoom() {
			n++
		}
	}
	return n
}

// surge counts the fillings beyond one for each wanted slot, the stopping ones
// too, for they still hold their room and their host ports. Counting it slot by
// slot, not as a sum over the service, keeps a slot from paying for another's
// surplus: a slot that nothing occupies is always filled.
func (p *planner) surge() int {
	n := 0
	for _, s := range p.slots {
		entitled := 1
		if s.number >= p.Replicas {
			entitled = 0
		}
		n += max(s.occupants()-entitled, 0)
	}
	return n
}

// proven tells whether the wanted revision has shown that it can become ready.
func (p *planner) proven() bool {
	for i := range p.Fillings {
		if f := &p.Fillings[i]; f.available() && f.Revision == p.Revision {
			return true
		}
	}
	return false
}

// voidDead drops what the end of its node ended.
func (p *planner) voidDead() {
	for _, s := range p.slots {
		s.fillings = s.filter(func(f *Filling) bool {
			if f.Verdict != api.VerdictDead {
				return true
			}
			p.act(Void, f, "%s is dead", f.Node)
			if !f.Spare && !f.Stopping {
				s.lost = fmt.Sprintf("%s is void: %s is dead", f.name(), f.Node)
			}
			if p.Exclusive && f.Leased && f.FencedAt.After(s.fence) {
				s.fence = f.FencedAt // to take it for dead ends no lease
			}
			return false
		})
	}
}

// removeUnwanted takes away what the user no longer wants, whatever the verdict
// of its node: a node that cannot be reached now will find it so on its return.
func (p *planner) removeUnwanted() {
	for _, s := range p.slots[p.Replicas:] {
		for _, f := range s.live() {
			if p.Deleting {
				p.remove(f, "the service is deleted")
			} else {
				p.remove(f, "the service is scaled to %d", p.Replicas)
			}
		}
	}
}

func (p *planner) act(op Op, f *Filling, why string, args ...any) {
	p.actions = append(p.actions, Action{Op: op, Key: f.Key, Revision: f.Revision, Why: fmt.Sprintf(why, args...)})
}

func (p *planner) remove(f *Filling, why string, args ...any) {
	p.act(Remove, f, why, args...)
	f.Stopping = true
	p.recountAt(f.Key.Slot)
}

func (p *planner) adopt(f *Filling, why string, args ...any) {
	p.act(Adopt, f, why, args...)
	f.Spare = false
}

// create puts a filling without epoch and node into the slot, so that budgets
// count it; the core gives it both.
func (p *planner) create(s *slot, a Action) {
	a.Op = Create
	a.Key = api.ReplicaKey{Namespace: p.Service.Namespace, Service: p.Service.Name, Slot: s.number}
	p.actions = append(p.actions, a)
	s.fillings = append(s.fillings, &Filling{Key: a.Key, Revision: a.Revision, Spare: a.Spare,
		Verdict: api.VerdictHealthy, Phase: api.PhasePending})
	p.recount(s)
}

func (p *planner) sorted() []Action {
	slices.SortStableFunc(p.actions, func(a, b Action) int {
		return cmp.Or(cmp.Compare(a.Key.Slot, b.Key.Slot), cmp.Compare(opOrder[a.Op], opOrder[b.Op]),
			cmp.Compare(a.Key.Epoch, b.Key.Epoch))
	})
	return p.actions
}
