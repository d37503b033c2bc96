package core

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/liveness"
)

// frozen is the freeze of verdicts: so many nodes vanished at once that none is
// taken for dead.
type frozen struct {
	on    bool
	why   string
	since time.Time
}

// tally counts nodes by verdict.
type tally struct {
	of      map[api.Verdict]int
	changed bool
}

// move counts a node under another verdict; "" is for one that is not there (yet
// or any more).
func (t *tally) move(from, to api.Verdict) {
	if from != "" {
		if t.of[from]--; t.of[from] == 0 {
			delete(t.of, from)
		}
	}
	if to != "" {
		t.of[to]++
	}
	t.changed = true
}

// beside counts published nodes by what is to be known beside their verdicts.
type beside struct{ impaired, damped, drained int }

// count adds by for a node; everything else counts nothing.
func (b *beside) count(object any, by int) {
	n, ok := object.(*api.Node)
	if !ok {
		return
	}
	if n.Status.Impaired != "" {
		b.impaired += by
	}
	if !n.Status.DampedUntil.IsZero() {
		b.damped += by
	}
	if n.Spec.Drain != nil {
		b.drained += by
	}
}

func (c *Core) setFrozen(e liveness.SetFrozen) {
	kind, what := api.EventNormal, "Thawed"
	c.frozen = frozen{}
	if e.Frozen {
		kind, what = api.EventWarning, "Frozen"
		c.frozen = frozen{true, e.Why, c.now}
	}
	c.event("", api.KindFleet, api.FleetName, kind, what, withEvidence(e.Why, e.Evidence))
	c.reliefs.due = true
	c.roomMade()                                                      // for reliefs that were held
	for _, name := range slices.Sorted(maps.Keys(c.reliefs.drains)) { // and what is overdue
		c.nodeChanged(c.nodes[name])
	}
}

// withEvidence is for what has no record that keeps it.
func withEvidence(why string, evidence []string) string {
	return strings.Join(append([]string{why}, evidence...), "; ")
}

func (c *Core) thaw(ev Thaw) {
	if !c.frozen.on {
		c.answer(ev.Ticket, nil, fmt.Errorf("thaw the fleet: %w: its verdicts are not frozen", ErrBusy))
		return
	}
	c.liveStep(liveness.OperatorThaw{By: ev.By})
	c.answer(ev.Ticket, nil, nil)
}

// publishFleet shows what is held of the fleet as a whole, where it changed.
func (c *Core) publishFleet() {
	k := ViewKey{Kind: api.KindFleet, Name: api.FleetName}
	st := api.FleetStatus{Frozen: c.frozen.on, FrozenWhy: c.frozen.why, FrozenSince: c.frozen.since,
		Impaired: c.view.beside.impaired, Damped: c.view.beside.damped, Drained: c.view.beside.drained,
		Spares: c.spending.used.standIns, SparesWaiting: c.spending.waiting, Reliefs: c.reliefs.count}
	if old, ok := c.view.known[k].(*api.Fleet); ok && !c.tally.changed {
		st.Nodes = old.Status.Nodes
	} else {
		st.Nodes = maps.Clone(c.tally.of)
	}
	c.tally.changed = false
	c.view.put(k, &api.Fleet{TypeMeta: api.TypeMeta{APIVersion: api.Version, Kind: api.KindFleet}, Metadata: api.Metadata{Name: api.FleetName}, Status: st})
}
