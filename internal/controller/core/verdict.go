package core

import (
	"fmt"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/liveness"
	"github.com/orchctl/orch/internal/store"
)

var verdicts = map[liveness.Verdict]api.Verdict{
	liveness.Unknown: api.VerdictUnknown, liveness.Healthy: api.VerdictHealthy, liveness.AgentLost: api.VerdictAgentLost,
	liveness.Suspect: api.VerdictSuspect, liveness.Dead: api.VerdictDead, liveness.Back: api.VerdictBack,
}

// liveStep tells the verdict machine and does what it says.
func (c *Core) liveStep(ev liveness.Event) {
	for _, e := range c.live.Step(ev, c.now) {
		switch e := e.(type) {
		case liveness.SetVerdict:
			c.setVerdict(e)
		case liveness.SetImpaired:
			c.setImpaired(e)
		case liveness.SetDamped:
			c.setDamped(e)
		case liveness.SetFrozen:
			c.setFrozen(e)
		case liveness.NewLife:
			c.event("", api.KindNode, e.Node, api.EventWarning, "Rebooted", "its boot id is a new one: everything placed on its life before is lost")
			c.voidAll(c.nodes[e.Node])
		case liveness.AskWitnesses:
			c.askWitnesses(e)
		}
	}
}

func (c *Core) setVerdict(e liveness.SetVerdict) {
	n := c.nodes[e.Node]
	if n == nil {
		return
	}
	c.judge(n, verdicts[e.To])
	n.why, n.since = e.Why, c.now
	c.handovers.askAgain(n)
	if c.unknown[n.name] && e.To != liveness.Unknown {
		delete(c.unknown, n.name)
		if len(c.unknown) == 0 {
			c.roomMade() // creates that waited for the fleet to be known
		}
	}
	switch e.To {
	case liveness.Back:
		c.back[n.name] = true
	case liveness.Suspect: // whoever lacks a node may lack this one; see missesNodes
		for key := range c.blocked {
			c.dirty[key] = true
		}
	}
	kind := api.EventNormal
	switch e.To {
	case liveness.AgentLost, liveness.Suspect, liveness.Dead:
		kind = api.EventWarning
	}
	// That a new leader hears of a node for the first time changes nothing of it.
	// Kept all the same, takeovers would push out what somebody may ask for.
	if heard := e.From == liveness.Unknown && e.To == liveness.Healthy; !heard || len(n.records) == 0 {
		c.event("", api.KindNode, n.name, kind, string(n.verdict), e.Why) // the record has the evidence
		c.record(n, api.VerdictRecord{From: verdicts[e.From], To: n.verdict, Why: e.Why, By: e.By, Evidence: e.Evidence})
	}
	if e.To == liveness.Dead {
		n.impaired = "" // part of the verdict now
	}
	c.ails(n)
	if e.To == liveness.Dead || e.From == liveness.Dead && e.To == liveness.Back {
		c.voidAll(n)
	}
	if e.To == liveness.Dead {
		// A stream that is still half open would be taken up again when the link
		// heals: a dead node must dial anew.
		c.closeSession(n, "this node was taken for dead: "+e.Why)
		n.obj.Status.Verdict, n.obj.Status.VerdictWhy, n.obj.Status.VerdictSince = n.verdict, n.why, n.since
		c.putNode(n)
	}
	if e.To == liveness.Suspect {
		// Until its agent speaks: a host that answers again without one may have
		// booted, and then nothing that was there runs.
		for _, f := range n.fillings {
			f.doubted = true
		}
	}
	c.nodeChanged(n)
	if e.To == liveness.Healthy {
		c.roomMade()
	}
}

// nodeChanged has everything looked at that hangs on what is held of a node.
func (c *Core) nodeChanged(n *node) {
	c.fleet.SetNode(n.forScheduler())
	c.reseat(n.name)
	for _, f := range n.sortedFillings() {
		c.unsettle(f.key.ServiceKey())
		c.touch(f)
	}
	c.view.touchNode(n)
}

// judge changes a node's verdict, and nothing else.
func (c *Core) judge(n *node, v api.Verdict) {
	c.tally.move(n.verdict, v)
	n.verdict = v
}

func (c *Core) setImpaired(e liveness.SetImpaired) {
	n := c.nodes[e.Node]
	if n == nil {
		return
	}
	kind, what := api.EventNormal, "Works"
	n.impaired, n.impairedSince = "", time.Time{}
	if e.Impaired {
		kind, what = api.EventWarning, "Impaired"
		n.impaired, n.impairedSince = orElse(e.Why, "it cannot work"), c.now
	}
	c.event("", api.KindNode, n.name, kind, what, e.Why)
	c.record(n, api.VerdictRecord{What: what, Why: e.Why, By: []string{"agent"}, Evidence: e.Evidence})
	c.ails(n)
	c.nodeChanged(n)
	if !e.Impaired {
		c.roomMade()
	}
}

func (c *Core) setDamped(e liveness.SetDamped) {
	n := c.nodes[e.Node]
	if n == nil {
		return
	}
	kind, what := api.EventNormal, "Undamped"
	n.dampedUntil = time.Time{}
	if e.Damped {
		kind, what = api.EventWarning, "Damped"
		n.dampedUntil = e.Until
	}
	c.event("", api.KindNode, n.name, kind, what, e.Why)
	c.record(n, api.VerdictRecord{What: what, Why: e.Why, By: []string{liveness.LeaderObserver}})
	c.nodeChanged(n)
	if !e.Damped {
		c.roomMade()
	}
}

// entry is one record of a node's history, which goes on changing while it is the
// latest.
type entry struct {
	api.VerdictRecord
	changed   bool // to be written
	published bool
	gone      bool
}

// record keeps what changed of a node, with its evidence.
func (c *Core) record(n *node, r api.VerdictRecord) {
	c.counters.event++
	r.Seq, r.Time, r.Node = c.counters.event, c.now, n.name
	if last := n.latest(); last != nil && last.Done.SparesWaiting > 0 {
		// They are no longer that verdict's, but this one's.
		r.Done.SparesWaiting, last.Done.SparesWaiting = last.Done.SparesWaiting, 0
		c.changed(last)
	}
	x := &entry{VerdictRecord: r}
	n.records = append(n.records, x)
	c.changed(x)
	for len(n.records) > c.cfg.VerdictHistory {
		c.forgetRecord(n.records[0])
		n.records = n.records[1:]
	}
}

func (n *node) latest() *entry {
	if len(n.records) == 0 {
		return nil
	}
	return n.records[len(n.records)-1]
}

// did notes what orch did because of the node's latest verdict.
func (c *Core) did(node string, note func(*api.Done)) {
	n := c.nodes[node]
	if n == nil || n.latest() == nil {
		return
	}
	before := n.latest().Done
	note(&n.latest().Done)
	if n.latest().Done != before {
		c.changed(n.latest())
	}
}

func (c *Core) changed(x *entry) {
	if !x.changed {
		x.changed = true
		c.records = append(c.records, x)
	}
}

func (c *Core) forgetRecord(x *entry) {
	x.gone = true
	c.write(store.Delete(verdictKey(&x.VerdictRecord)))
	if x.published {
		c.view.out.set(verdictViewKey(&x.VerdictRecord), nil)
	}
}

// writeRecords writes and publishes each record that changed, once a turn.
func (c *Core) writeRecords() {
	for _, x := range c.records {
		x.changed = false
		if x.gone {
			continue
		}
		x.published = true
		r := x.VerdictRecord // what is published never changes
		c.write(store.Put(verdictKey(&r), object(api.KindVerdict, &r)))
		c.view.out.set(verdictViewKey(&r), &r)
	}
	c.records = nil
}

func verdictKey(r *api.VerdictRecord) string {
	return fmt.Sprintf("%s%s/%020d", verdictPrefix, r.Node, r.Seq)
}

func verdictViewKey(r *api.VerdictRecord) ViewKey {
	return ViewKey{Kind: api.KindVerdict, Name: fmt.Sprintf("%s/%d", r.Node, r.Seq)}
}

// loadRecord takes one that the store held; they come in their order, and after
// the nodes.
func (c *Core) loadRecord(r *api.VerdictRecord) {
	n := c.nodes[r.Node]
	if n == nil {
		return // removed
	}
	n.records = append(n.records, &entry{VerdictRecord: *r, published: true})
	c.view.out.set(verdictViewKey(r), r)
}
