package plan

import (
	"cmp"
	"maps"
	"slices"

	"github.com/orchctl/orch/api"
)

// observe asks for a look at the runtime. One that is under way is replaced: it
// may have begun before what is asked about.
func (c *Core) observe(why string) {
	c.observing = c.id()
	c.lookedAt, c.removed = c.steps, map[string]bool{}
	c.observeAt = c.now.Add(observeEvery)
	c.emit(Observe{ID: c.observing, Why: why})
}

// noteRemoved keeps a listing from before a removal from bringing it back.
func (c *Core) noteRemoved(id string) {
	if c.observing != 0 {
		c.removed[id] = true
	}
}

// takeObserved compares the runtime with the picture. What changed since the
// listing was asked for, or is under way, is newer than the listing.
func (c *Core) takeObserved(ev Observed) {
	if ev.ID != c.observing || ev.ID == 0 {
		return
	}
	c.observing = 0
	if ev.Err != "" {
		c.observeAt = c.now.Add(observeAgain)
		return
	}
	if !c.observed && c.startsOfBefore() {
		return // what they start is not in the listing; their end asks for another
	}
	first := !c.observed
	c.observed = true
	if first {
		c.adoptUntil = c.now.Add(adoptMax)
		for _, k := range c.sortedKeys() {
			c.markKey(k)
		}
	}
	orphans := c.orphans()
	clear(c.strays)
	seen := map[string]bool{}
	// The best first: where two fill one place, the one that runs, then the later one.
	list := slices.SortedFunc(slices.Values(ev.Containers), func(a, b Container) int {
		if a.Running != b.Running {
			if a.Running {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(b.Attempt, a.Attempt), cmp.Compare(a.ID, b.ID))
	})
	for _, o := range list {
		if c.removed[o.ID] {
			continue
		}
		seen[o.ID] = true
		if o.Uncertain {
			c.observeAt = c.now.Add(observeAgain)
		}
		if x := c.byID[o.ID]; x != nil {
			c.refresh(x, o)
		} else if r := c.replicas[o.Replica]; r != nil && r.findLeftover(o.ID) != nil {
			if l := r.findLeftover(o.ID); l.op == 0 {
				l.Running = o.Running
			}
		} else {
			c.place(o)
		}
	}
	if first {
		c.holdUnsure()
	}
	c.missAll(seen)
	if !slices.Equal(orphans, c.orphans()) {
		c.allDue = c.whole
		c.pruneNetsDue = true // one may have been removed by hand
	}
	c.prune()
}

// holdUnsure holds a job's replica of which not all is there: the disk may have been too
// full to save that it was done, told to stop and cleared away. A job's work is not
// begun again on that ground; the leader knows.
func (c *Core) holdUnsure() {
	for _, k := range c.sortedKeys() {
		r := c.replicas[k]
		if r.unsure && !r.going && r.anyRun(func(x *run) bool { return x.id == "" }) {
			r.held = true
		}
	}
}

// startsOfBefore tells whether starts are under way that a new incarnation left
// without a replica.
func (c *Core) startsOfBefore() bool {
	for _, o := range c.ops {
		if o.class == starts && c.replicas[o.replica.key] != o.replica {
			return true
		}
	}
	return false
}

// missAll takes note of what the runtime no longer has, or never had.
func (c *Core) missAll(seen map[string]bool) {
	for _, k := range c.sortedKeys() {
		for _, x := range c.replicas[k].runs {
			if x.doubtful && x.op == 0 && x.changed <= c.lookedAt {
				x.doubtful = false
				c.mark(x.r)
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(c.byID)) {
		x := c.byID[id]
		if seen[id] || x.op != 0 || x.changed > c.lookedAt {
			continue
		}
		c.mark(x.r)
		if x.state != ended {
			c.endRun(x, api.Exit{Code: lostCode, Reason: api.ExitError, Message: "its container is gone from the runtime", FinishedAt: c.now})
		}
		c.forgetContainer(x)
	}
	for _, k := range c.sortedKeys() {
		r := c.replicas[k]
		for _, l := range slices.Clone(r.leftovers) {
			if !seen[l.ID] && l.op == 0 {
				r.removeLeftover(l)
				c.mark(r)
			}
		}
	}
}

// refresh corrects a run by what the runtime says of its container.
func (c *Core) refresh(x *run, o Container) {
	if x.op != 0 || x.changed > c.lookedAt {
		return
	}
	x.uncertain = o.Uncertain
	if o.Unguarded && !x.unguarded {
		x.unguarded = true
		c.mark(x.r)
	}
	if o.Running && !o.Uncertain && x.state == running && x.hook == hookVoid && x.sick == "" {
		x.hook = hookWanted // its hook was said not to find it, but it runs
		c.mark(x.r)
	}
	if o.Running || (x.state != running && x.state != stopped) {
		return
	}
	exit := api.Exit{Code: lostCode, Reason: api.ExitError, Message: "how it ended is not known", FinishedAt: c.now}
	if o.Exit != nil {
		exit = *o.Exit
	}
	c.endRun(x, exit)
	c.mark(x.r)
}

// place finds out whose a container is: a run's, a replica's that does not want
// it so, or nobody's.
func (c *Core) place(o Container) {
	r := c.replicas[o.Replica]
	if r == nil || r.gone {
		c.strays[o.ID] = o
		return
	}
	c.mark(r)
	x := r.find(o.Name)
	wanted := x != nil && o.Revision == r.revision && x.is(o)
	fits := wanted && (o.Running || o.Exit != nil)
	switch {
	case wanted && x.state == starting:
		// The start's own answer brings it. The listing may have caught it half made.
	case fits && x.state == absent && x.changed > c.lookedAt:
		c.observeAt = c.now.Add(observeAgain) // the listing is older than what is known
	case fits && x.state == absent:
		x.adopted, x.inRow = true, o.Attempt
		x.lastExit = nil
		c.take(x, o)
	case o.Incarnation == c.incarnation || fits:
		r.leftovers = append(r.leftovers, &leftover{Container: o})
	default:
		c.strays[o.ID] = o
	}
}
