package core

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

// silentCut cuts a node off: it is silent, nothing reaches it, and what it runs
// runs on.
func (f *fleet) silentCut(name string) { f.agents[name].silent, f.agents[name].cut = true, true }

// renew has an agent ask for the leases of all that it holds.
func (f *fleet) renew(a *agent) {
	f.t.Helper()
	ask := wire.Renewal{ID: uint64(f.now.UnixNano())}
	for _, k := range slices.SortedFunc(maps.Keys(a.holds), compareReplicas) {
		if a.holds[k].Template.Leased() {
			ask.Keys = append(ask.Keys, k)
		}
	}
	if a.renewed = f.now; len(ask.Keys) > 0 && !a.silent {
		f.step(Renew{Node: a.name, Session: a.session, Renewal: ask})
	}
}

// granted counts leases from when the renewal was sent, which its ID tells.
func (f *fleet) granted(e SendGrant) {
	f.t.Helper()
	a := f.agents[e.Node]
	if a.session != e.Session || a.cut {
		return
	}
	a.grants++
	started := false
	for _, l := range e.Grant.Leases {
		if _, ok := a.holds[l.Key]; !ok {
			continue
		}
		started = started || !f.runs(a, l.Key)
		a.leases[l.Key] = time.Unix(0, int64(e.Grant.ID)).Add(l.For - api.LeaseDrift(l.For))
	}
	if started && !a.silent {
		f.step(Status{Node: a.name, Session: a.session, Report: wire.StatusReport{Replicas: f.reports(a)}})
	}
}

// runs tells whether containers of a replica may run on a machine that has power.
func (f *fleet) runs(a *agent, k api.ReplicaKey) bool {
	x, ok := a.holds[k]
	return ok && (!x.Template.Leased() || f.now.Before(a.leases[k]))
}

// alone is I6: what is exclusive runs alone in its slot, whatever anybody knows
// of it. A silent machine is taken to run.
func (f *fleet) alone() {
	f.t.Helper()
	type slot struct {
		api.Key
		slot int
	}
	running, exclusive := map[slot][]string{}, map[slot]bool{}
	for _, name := range slices.Sorted(maps.Keys(f.agents)) {
		for k, x := range f.agents[name].holds {
			if f.runs(f.agents[name], k) && (x.Template.Leased() || !f.leasedOnly) {
				s := slot{k.ServiceKey(), k.Slot}
				running[s] = append(running[s], fmt.Sprintf("%s on %s", k, name))
				exclusive[s] = exclusive[s] || x.Template.Exclusive
			}
		}
	}
	for s, who := range running {
		if exclusive[s] && len(who) > 1 {
			f.t.Fatalf("%s: I6 is broken: %s run at once", f.now.Sub(start), strings.Join(who, " and "))
		}
	}
}
