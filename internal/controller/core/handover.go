package core

import (
	"cmp"
	"slices"
	"time"

	"github.com/orchctl/orch/api"
)

// A replica that is to go is handed over in order: its placement is committed as
// stopping and its endpoint withdrawn, and only when nobody sends it traffic any
// more is its agent told to stop it. Who says so: every agent with an open session,
// by the newest version of the endpoints that is in force in its kernel and its
// DNS. Who cannot be heard is not waited for, and nobody for longer than
// Budgets.HandoverMax: an agent may hang, or be of a version that never says.
//
// Nothing of it is durable but that the filling is stopping. So a new leader cannot
// know what was handed over, and begins anew with all that is: what its agent stops
// already, that says so.

// handover is what left the endpoints with one version.
type handover struct {
	version uint64
	since   time.Time // when agents were told; zero: they are not yet
	of      []*filling
}

// handovers cost what changes: what is to be told by one version waits as one.
type handovers struct {
	// left are fillings that lost their endpoint in this turn, due those that are
	// to be told to stop: the version comes at the turn's end.
	left, due []*filling
	waiting   []*handover // by version; since never falls
	// behind are the nodes that may not have the version asked yet, as far as they
	// were looked at; asked 0: none is asked for.
	asked  uint64
	behind []*node
	told   uint64 // the newest version that went down a session
	// tellings are when versions went down first, of the last HandoverMax: a
	// withdrawal may have waited for a commit for longer than that.
	tellings []telling
}

// telling is when agents were told of a version, and of all below it.
type telling struct {
	version uint64
	at      time.Time
}

// withdrawn: the filling is no endpoint any more.
func (c *Core) withdrawn(f *filling) {
	f.wasEndpoint, f.withdrawn = true, 0
	c.handovers.left = append(c.handovers.left, f)
}

// handOver has the filling's agent told to stop it, at once if nobody sends it
// traffic. It costs nothing to ask: what was no endpoint for longer than any
// hand-over lasts has none to be waited for.
func (c *Core) handOver(f *filling) {
	if f.job || !f.loaded && !(f.wasEndpoint && c.toldOfLate(f.withdrawn)) {
		c.sendToNode(f.node, c.assignmentOf(f))
		return
	}
	f.handing = true
	c.handovers.due = append(c.handovers.due, f)
}

// toldEndpoints notes that agents are told of a version now.
func (c *Core) toldEndpoints(version uint64) {
	h := &c.handovers
	if version <= h.told {
		return
	}
	h.told = version
	old := 0
	for old < len(h.tellings) && c.now.Sub(h.tellings[old].at) >= c.budgets.HandoverMax {
		old++
	}
	h.tellings = append(slices.Delete(h.tellings, 0, old), telling{version, c.now})
}

// toldOfLate tells whether agents may not have had HandoverMax to take up a version
// yet; 0 is the one of this turn.
func (c *Core) toldOfLate(version uint64) bool {
	h := &c.handovers
	if version == 0 || version > h.told {
		return true
	}
	i, _ := slices.BinarySearchFunc(h.tellings, version, func(x telling, v uint64) int { return cmp.Compare(x.version, v) })
	return i < len(h.tellings) && c.now.Sub(h.tellings[i].at) < c.budgets.HandoverMax
}

// handOverAgain is for a node whose session begins: what nobody could tell it to
// stop meanwhile is told only now, and others may have come back before it that
// lead traffic there.
func (c *Core) handOverAgain(n *node) {
	for _, f := range n.sortedFillings() {
		if f.untold && f.stopping && !f.void && !f.handing && c.toldOfLate(f.withdrawn) {
			f.handing = true
			c.handovers.due = append(c.handovers.due, f)
		}
		f.untold = false
	}
}

// beginHandovers begins anew with what the term before was stopping: agents may
// send it traffic until they have this leader's endpoints.
func (c *Core) beginHandovers() {
	var of []*filling
	for _, s := range c.sortedServices() {
		for _, f := range s.fillings {
			if f.stopping && !f.void && !f.job {
				f.handing = true
				of = append(of, f)
			}
		}
	}
	if len(of) > 0 {
		c.handovers.waiting = []*handover{{version: c.ends.version, since: c.now, of: of}}
	}
}

// acked notes which endpoints are in force on a node.
func (c *Core) acked(ev Acked) {
	if n := c.current(ev.Node, ev.Session); n != nil {
		n.acked = max(n.acked, ev.EndpointVersion)
	}
}

// settleHandovers tells agents to stop what nobody sends traffic to any more. It
// comes after the endpoints were sent, and so behind them in every session.
func (c *Core) settleHandovers() {
	h := &c.handovers
	for _, f := range h.left {
		f.withdrawn = c.ends.version
	}
	for _, f := range h.due {
		if f.withdrawn == 0 { // only the term before knew of it
			f.withdrawn = c.ends.version
		}
		h.add(f)
	}
	h.left, h.due = nil, nil
	for _, x := range h.waiting {
		if x.since.IsZero() && x.version <= h.told {
			x.since = c.now
		}
	}
	for len(h.waiting) > 0 {
		x := h.waiting[0]
		over := !x.since.IsZero() && !c.now.Before(x.since.Add(c.budgets.HandoverMax))
		if !over && c.anyBehind(x.version) {
			return
		}
		h.waiting = h.waiting[1:]
		for _, f := range x.of {
			c.tellStop(f)
		}
	}
	h.waiting, h.asked, h.behind = nil, 0, nil
}

// add has a filling wait with the others of its version.
func (h *handovers) add(f *filling) {
	i, found := slices.BinarySearchFunc(h.waiting, f.withdrawn, func(x *handover, v uint64) int {
		switch {
		case x.version < v:
			return -1
		case x.version > v:
			return 1
		}
		return 0
	})
	if !found {
		x := &handover{version: f.withdrawn}
		if i < len(h.waiting) { // agents were told of it no later than of the next
			x.since = h.waiting[i].since
		}
		h.waiting = slices.Insert(h.waiting, i, x)
	}
	h.waiting[i].of = append(h.waiting[i].of, f)
}

// tellStop ends a hand-over; for one that is not handed over there is nothing to do.
func (c *Core) tellStop(f *filling) {
	if !f.handing {
		return
	}
	f.handing = false
	if c.fillings[f.key] != f || f.void {
		return
	}
	n := c.nodes[f.node]
	f.untold = n == nil || n.session == 0
	c.view.touchFilling(f)
	c.sendToNode(f.node, c.assignmentOf(f))
}

// anyBehind tells whether a node that is waited for has not yet said that it has
// the version. What a session has said it does not take back, so each node is
// looked at once for a version, and again when it opens a session or its verdict
// changes.
func (c *Core) anyBehind(version uint64) bool {
	h := &c.handovers
	if h.asked != version {
		h.asked, h.behind = version, slices.Clone(c.sortedNodes())
	}
	for ; len(h.behind) > 0; h.behind = h.behind[:len(h.behind)-1] {
		if n := h.behind[len(h.behind)-1]; c.mayRoute(n) && n.acked < version {
			return true
		}
	}
	return false
}

// mayRoute tells whether a node may send traffic by older endpoints and is about to
// say by which: it has a session, or this leader has not heard of it yet.
func (c *Core) mayRoute(n *node) bool {
	switch n.verdict {
	case api.VerdictSuspect, api.VerdictDead:
		return false
	case api.VerdictUnknown:
		return c.nodes[n.name] == n
	}
	return n.session != 0
}

// askAgain has a node looked at again, if any is.
func (h *handovers) askAgain(n *node) {
	if h.asked != 0 {
		h.behind = append(h.behind, n)
	}
}

// nextHandover is when the first that waits is over whoever has not spoken; zero:
// none waits, or agents are not told yet.
func (c *Core) nextHandover() time.Time {
	if len(c.handovers.waiting) == 0 || c.handovers.waiting[0].since.IsZero() {
		return time.Time{}
	}
	return c.handovers.waiting[0].since.Add(c.budgets.HandoverMax)
}
