package core

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/settings"
	"github.com/orchctl/orch/reconciler"
)

// Budgets bound what is started beside replicas that run, or may (spares for what
// cannot be reached, and reliefs), and how long is waited before they are stopped. Table says of each what it is and why. A zero
// field means its value in DefaultBudgets; none may be negative.
type Budgets struct {
	SparesMin        int
	SparesShare      float64
	SparesFleetMin   int
	SparesFleetShare float64
	SparesFree       float64
	ReliefsMin       int
	ReliefsShare     float64
	ReliefPatience   time.Duration
	RebalanceMoves   int
	HandoverMax      time.Duration
	FailingEnds      int
	FailingMoves     int
	RolloutEnds      int
	RolloutImage     time.Duration
}

// DefaultBudgets gives the budgets for production.
func DefaultBudgets() Budgets {
	return Budgets{
		SparesMin: 5, SparesShare: 0.5,
		SparesFleetMin: 100, SparesFleetShare: 0.2,
		SparesFree: 0.8,
		ReliefsMin: 3, ReliefsShare: 0.05, ReliefPatience: 5 * time.Minute,
		RebalanceMoves: 50, HandoverMax: 2 * time.Second,
		FailingEnds: 5, FailingMoves: 2,
		RolloutEnds: 3, RolloutImage: 10 * time.Second,
	}
}

func (b *Budgets) settings() []settings.Setting {
	return []settings.Setting{
		settings.Count("spares-min", &b.SparesMin, "spares that a service may have at once, however small it is"),
		settings.Share("spares-share", &b.SparesShare, "share of a service's replicas for which it may have spares at once; more lost than that is hardly the nodes' fault"),
		settings.Count("spares-fleet-min", &b.SparesFleetMin, "spares that all services together may have at once, however small the fleet is"),
		settings.Share("spares-fleet-share", &b.SparesFleetShare, "share of all replicas for which there may be spares at once; their start loads registries, disks and what they all depend on"),
		settings.Share("spares-free", &b.SparesFree, "share of the free cpu and memory of healthy nodes that all spares together may take; the rest is for what users ask for meanwhile"),
		settings.Count("reliefs-min", &b.ReliefsMin, "replicas that may be relieved at once, one per service, however small the fleet is"),
		settings.Share("reliefs-share", &b.ReliefsShare, "share of all replicas that may be relieved at once; they run, so nothing hurries"),
		settings.Duration("relief-patience", &b.ReliefPatience, "after which a relief whose spare is not ready no longer keeps others waiting"),
		settings.Count("rebalance-moves", &b.RebalanceMoves, "replicas that one rebalance moves; each is started anew and warms up again, and what is still uneven can be asked for again"),
		settings.Duration("handover-max", &b.HandoverMax, "how long a replica that is to stop waits for agents to say that they send it no traffic any more; an agent that hangs may not keep it running, one that works says so within 0.3s"),
		settings.Count("failing-ends", &b.FailingEnds, "ends in a row, none of them after it was ready for as long as its resetAfter, from which a replica is tried on another node, if others of its revision are ready elsewhere; fewer are what the first restarts cure"),
		settings.Count("failing-moves", &b.FailingMoves, "how often a slot is tried on another node with one revision; what ends on three nodes hardly does so because of them"),
		settings.Count("rollout-ends", &b.RolloutEnds, "how often a replica of a new revision may end without counting until the rollout has failed; once may be a dependency that was late, more often is the revision"),
		settings.Duration("rollout-image", &b.RolloutImage, "how long a replica of a new revision may be impossible to start (no such image, command or user, a mount refused) until the rollout has failed; an image that is pushed at the same time as the manifest is applied comes within that"),
	}
}

// Table gives every budget with its value and what it is for; a zero field shows
// its default.
func (b Budgets) Table() []settings.Setting {
	b = b.withDefaults()
	return b.settings()
}

// Set gives one budget a value by its name, as Table shows them.
// settings.ErrUnknown: there is none of that name.
func (b *Budgets) Set(name, value string) error { return settings.Set(b.settings(), name, value) }

// Validate tells what is wrong with the budgets, all of it.
func (b Budgets) Validate() error { return settings.Check(b.Table()) }

func (b Budgets) withDefaults() Budgets {
	d := DefaultBudgets()
	return Budgets{
		cmp.Or(b.SparesMin, d.SparesMin), cmp.Or(b.SparesShare, d.SparesShare),
		cmp.Or(b.SparesFleetMin, d.SparesFleetMin), cmp.Or(b.SparesFleetShare, d.SparesFleetShare),
		cmp.Or(b.SparesFree, d.SparesFree),
		cmp.Or(b.ReliefsMin, d.ReliefsMin), cmp.Or(b.ReliefsShare, d.ReliefsShare), cmp.Or(b.ReliefPatience, d.ReliefPatience),
		cmp.Or(b.RebalanceMoves, d.RebalanceMoves), cmp.Or(b.HandoverMax, d.HandoverMax),
		cmp.Or(b.FailingEnds, d.FailingEnds), cmp.Or(b.FailingMoves, d.FailingMoves),
		cmp.Or(b.RolloutEnds, d.RolloutEnds), cmp.Or(b.RolloutImage, d.RolloutImage),
	}
}

// shareOf is a share of a whole, but at least a minimum.
func shareOf(share float64, whole, least int) int { return max(least, int(share*float64(whole))) }

// amounts are what budgets count of resources, in thousandths.
type amounts struct{ cpu, memory int64 }

func (a amounts) plus(b amounts) amounts  { return amounts{a.cpu + b.cpu, a.memory + b.memory} }
func (a amounts) minus(b amounts) amounts { return amounts{a.cpu - b.cpu, a.memory - b.memory} }

func amountsOf(l api.ResourceList) amounts { return amounts{l[api.CPU].Milli(), l[api.Memory].Milli()} }

// requested is what a replica asks for, as the scheduler has it: of each resource what
// runs on asks for together, or the init container that asks for most.
func requested(t *api.Template) amounts {
	of := func(ct *api.Container) amounts {
		one := func(name string) int64 {
			if q, ok := ct.Resources.Requests[name]; ok {
				return q.Milli()
			}
			return ct.Resources.Limits[name].Milli()
		}
		return amounts{one(api.CPU), one(api.Memory)}
	}
	var sum amounts
	for _, ct := range t.LongRunning() {
		sum = sum.plus(of(&ct))
	}
	for _, ct := range t.InitContainers {
		alone := of(&ct)
		sum = amounts{max(sum.cpu, alone.cpu), max(sum.memory, alone.memory)}
	}
	return sum
}

// usage is what a service, or all of them, has outstanding.
type usage struct {
	standIns int // spares of incumbents that cannot be reached
	reliefs  int // spares of those that are relieved
	// held is what spares take of the nodes that take new replicas.
	held amounts
}

// spending is what there is of each budget, and what is used of it.
type spending struct {
	used usage
	// short are the services whose spares wait for a budget that others use;
	// freed is set when some of it was given back.
	short map[api.Key]bool
	freed bool
	// waiting counts spares that wait for a budget.
	waiting int
}

// account makes anew what the service uses. It costs the service's fillings, as
// planning does, and is done when it was planned.
func (c *Core) account(s *service) {
	var u usage
	for _, f := range s.fillings {
		if !f.spare || f.stopping || f.void {
			continue
		}
		switch {
		case s.reliefs[f.key.Slot] != nil && !s.reliefs[f.key.Slot].incumbent.spare: // what relieves a spare stands in as it did
			u.reliefs++
		case c.verdictOf(f) == api.VerdictSuspect: // it stands in for nobody, and another may
		default:
			u.standIns++
		}
		if n := c.nodes[f.node]; n.takesReplicas() {
			u.held = u.held.plus(s.revisions[f.revision].requested)
		}
	}
	was := s.used
	s.used = u
	t := &c.spending.used
	t.standIns += u.standIns - was.standIns
	t.reliefs += u.reliefs - was.reliefs
	t.held = t.held.plus(u.held.minus(was.held))
	c.spending.freed = c.spending.freed || u.standIns < was.standIns || u.held.cpu < was.held.cpu || u.held.memory < was.held.memory
}

// planned is what one service wants created.
type planned struct {
	s       *service
	creates []reconciler.Action
	// share of its slots that serve, as ready out of want.
	ready, want int
}

// byImportance sorts what is to be created: where room or a budget is short, who
// comes first is served.
func (c *Core) byImportance(plans []planned) {
	if len(plans) < 2 {
		return
	}
	for i := range plans {
		plans[i].ready, plans[i].want = c.serving(plans[i].s)
	}
	slices.SortFunc(plans, func(a, b planned) int {
		return cmp.Or(cmp.Compare(b.s.obj.Spec.Priority, a.s.obj.Spec.Priority),
			cmp.Compare(a.ready*b.want, b.ready*a.want), compareKeys(a.s.key, b.s.key))
	})
}

// serving counts the service's slots that serve, of how many.
func (c *Core) serving(s *service) (ready, want int) {
	want = s.want()
	last := -1
	for _, f := range s.fillings { // sorted by slot
		if v := c.verdictOf(f); f.key.Slot != last && s.wants(f.key.Slot) && f.status.Ready && !f.stopping && v != api.VerdictSuspect && v != api.VerdictDead {
			last = f.key.Slot
			ready++
		}
	}
	return ready, max(want, 1)
}

// admission gives out budgets for one turn.
type admission struct {
	c    *Core
	used usage
	room amounts // what all spares together may take
	told bool    // room is known
	// relieving is how many reliefs hold budget, but for those that found no node
	// before and try again now; counted when first asked for.
	plans     []planned
	relieving int
	counted   bool
}

// admit lets through what a service wants created, but for the spares that have
// to wait for a budget; those are put into words.
func (a *admission) admit(p planned) []reconciler.Action {
	s, b := p.s, a.c.budgets
	perService := shareOf(b.SparesShare, s.want(), b.SparesMin)
	inFleet := shareOf(b.SparesFleetShare, len(a.c.fillings), b.SparesFleetMin)
	var out []reconciler.Action
	var ofService, ofFleet, ofRoom int
	mine := s.used.standIns
	for _, x := range p.creates {
		need := s.revisions[x.Revision].requested
		switch {
		case x.Spare && x.Relief && !a.admitRelief(s, x):
			continue
		case !x.Spare || x.Relief:
			out = append(out, x)
			continue
		case mine >= perService:
			ofService++
		case a.used.standIns >= inFleet:
			ofFleet++
		case !a.fits(need):
			ofRoom++
		default:
			mine++
			a.used.standIns++
			a.used.held = a.used.held.plus(need)
			out = append(out, x)
			continue
		}
		s.held[a.c.standsFor(s, x.Key.Slot)]++
	}
	for _, w := range []struct {
		n   int
		why string
	}{
		{ofService, fmt.Sprintf("budget of %d per service", perService)},
		{ofFleet, fmt.Sprintf("budget of %d in the fleet", inFleet)},
		{ofRoom, fmt.Sprintf("all spares together may take %.0f%% of what is free", b.SparesFree*100)},
	} {
		if w.n > 0 {
			s.budgeted = append(s.budgeted, fmt.Sprintf("%s: %s", count(w.n, "spare waits", "spares wait"), w.why))
		}
	}
	if ofFleet+ofRoom > 0 {
		a.c.spending.short[s.key] = true
	}
	a.c.waitFor(s, ofService+ofFleet+ofRoom)
	return out
}

// triesAgain tells whether a slot has a relief that found no node before.
func (s *service) triesAgain(slot int) bool {
	_, again := s.refusedBefore[slot]
	return again && s.reliefs[slot] != nil
}

// admitRelief holds back a relief that found no node before, if others have its
// place in the budget by now. One that was begun just now has been counted.
func (a *admission) admitRelief(s *service, x reconciler.Action) bool {
	if !s.triesAgain(x.Key.Slot) {
		return true
	}
	if !a.counted {
		a.counted, a.relieving = true, a.c.underRelief(a.plans)
	}
	most := a.c.reliefsMost()
	if a.relieving < most {
		a.relieving++
		return true
	}
	s.refused[x.Key.Slot] = refusal{revision: x.Revision, spare: true, reason: fmt.Sprintf("budget of %d reliefs at once", most), since: s.refusedBefore[x.Key.Slot].since}
	a.c.spending.short[s.key] = true
	return false
}

// fits tells whether one more spare leaves free what is to stay free. The fleet
// is summed once a turn, and only when spares are wanted.
func (a *admission) fits(need amounts) bool {
	if !a.told {
		a.told = true
		sum := amountsOf(a.c.fleet.Free()).plus(a.used.held)
		a.room = amounts{int64(a.c.budgets.SparesFree * float64(sum.cpu)), int64(a.c.budgets.SparesFree * float64(sum.memory))}
	}
	then := a.used.held.plus(need)
	return (need.cpu == 0 || then.cpu <= a.room.cpu) && (need.memory == 0 || then.memory <= a.room.memory)
}

// standsFor is the node of the incumbent for which the slot has, or wants, a spare.
func (c *Core) standsFor(s *service, slot int) string {
	name := ""
	for _, f := range s.inSlot(slot) {
		if f.spare || f.stopping {
			continue
		}
		if name == "" || f.relieve != "" || c.verdictOf(f) == api.VerdictSuspect {
			name = f.node
		}
	}
	return name
}

// waitFor remembers how many spares of the service wait for a budget.
func (c *Core) waitFor(s *service, n int) {
	c.spending.waiting += n - s.overBudget
	s.overBudget = n
}

// forgetBudgets is for a service that is gone, and all its fillings with it.
func (c *Core) forgetBudgets(s *service) {
	for _, slot := range slices.Sorted(maps.Keys(s.reliefs)) {
		c.endRelief(s, slot)
	}
	c.account(s)
	c.waitFor(s, 0)
	s.refused, s.held = nil, nil // its spares that found no room wait no more, either
	c.noteWaiting(s)
	delete(c.spending.short, s.key)
}

// count gives "1 spare waits" or "2 spares wait".
func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
