package core

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/liveness"
	"github.com/orchctl/orch/internal/store"
	"github.com/orchctl/orch/internal/wire"
	"github.com/orchctl/orch/scheduler"
)

// node is one server: its durable record, its verdict and its session.
type node struct {
	name     string
	obj      api.Node // durable: metadata, spec; of status what Hello said and verdict Dead
	verdict  api.Verdict
	why      string
	since    time.Time
	fillings map[api.ReplicaKey]*filling

	session  uint64 // 0: none
	opened   uint64 // the latest session that was, open or not
	sequence uint64 // of assignment sets in this session
	acked    uint64 // the newest version of endpoints in force there, as said in this session
	reported bool   // a complete report came in this session
	orphans  []string

	lostForLong   bool   // its agent is lost for longer than the grace
	impaired      string // why it cannot work though it beats; empty: it can
	impairedSince time.Time
	dampedUntil   time.Time // zero: it is not damped
	records       []*entry  // oldest first
}

func (c *Core) loadNode(obj *api.Node) {
	n := c.nodeOf(obj.Metadata.Name)
	n.obj = *obj
	if obj.Status.Verdict == api.VerdictDead {
		c.judge(n, api.VerdictDead)
		n.why, n.since = obj.Status.VerdictWhy, obj.Status.VerdictSince
	}
	c.view.touchNode(n)
}

// nodeOf gives the node, making room for one whose record was not read yet.
func (c *Core) nodeOf(name string) *node {
	n := c.nodes[name]
	if n == nil {
		n = &node{name: name, fillings: map[api.ReplicaKey]*filling{}}
		c.judge(n, api.VerdictUnknown)
		n.obj.TypeMeta = api.TypeMeta{APIVersion: api.Version, Kind: api.KindNode}
		n.obj.Metadata.Name = name
		c.nodes[name], c.byName = n, nil
	}
	return n
}

// current gives the node if the session is its current one.
func (c *Core) current(name string, session uint64) *node {
	if n := c.nodes[name]; n != nil && n.session == session && session != 0 {
		return n
	}
	return nil
}

func (n *node) forScheduler() scheduler.Node {
	addresses, noNetwork := addressesOf(n)
	return scheduler.Node{Name: n.name, Labels: n.obj.Metadata.Labels, Capacity: n.obj.Status.Capacity, Addresses: addresses, NoNetwork: noNetwork,
		Verdict: n.verdict, Unschedulable: n.obj.Spec.Unschedulable, Impaired: n.impaired, Damped: n.damped()}
}

func (n *node) damped() bool { return !n.dampedUntil.IsZero() }

// takesReplicas as the scheduler means it.
func (n *node) takesReplicas() bool {
	return n != nil && n.verdict == api.VerdictHealthy && !n.obj.Spec.Unschedulable && n.impaired == "" && !n.damped()
}

func (n *node) sortedFillings() []*filling {
	return slices.SortedFunc(maps.Values(n.fillings), func(a, b *filling) int { return compareReplicas(a.key, b.key) })
}

func (c *Core) putNode(n *node) {
	n.obj.Metadata.ResourceVersion++
	c.write(store.Put(nodeKey(n.name), object(api.KindNode, &n.obj)))
	c.view.touchNode(n)
}

func (c *Core) sessionOpened(ev SessionOpened) {
	known := c.nodes[ev.Node] != nil
	n := c.nodeOf(ev.Node)
	if ev.Session < n.opened {
		return // it ended while it waited to be told of
	}
	n.opened = ev.Session
	wasDead := n.verdict == api.VerdictDead
	n.reported = false
	for _, f := range n.fillings {
		f.reported = false
		c.view.touchFilling(f)
	}
	if !known {
		n.obj.Metadata.CreatedAt = c.now
		c.liveStep(liveness.NodeAdded{Node: n.name, BootID: ev.Hello.BootID})
		c.event("", api.KindNode, n.name, api.EventNormal, "Joined", fmt.Sprintf("from %s, orch %s, %s", ev.Hello.Address, ev.Hello.Version, ev.Hello.Runtime))
	}
	c.liveStep(liveness.SessionOpened{Node: n.name, BootID: ev.Hello.BootID, WasDead: wasDead})
	for _, f := range n.fillings {
		// Nothing of another life is left; see lease.go.
		f.over = f.over || f.bootID != ev.Hello.BootID
	}
	// What is lost goes before the record says that the node lives: a leader
	// that dies in between must not leave old placements to the new life.
	c.dropVoid(n, true, "its node's life is over")
	n.session, n.sequence, n.acked = ev.Session, 0, 0
	c.handovers.askAgain(n)
	c.fresh[n.name] = true

	before := object(api.KindNode, &n.obj)
	h := ev.Hello
	n.obj.Metadata.Labels = h.Labels
	s := &n.obj.Status
	if s.Subnet == "" {
		c.giveSubnet(n)
	} else if s.Address != h.Address {
		c.addresses.changed[n.name] = true
	}
	s.BootID, s.Address, s.Capacity, s.Version, s.OS, s.Kernel, s.Runtime = h.BootID, h.Address, h.Capacity, h.Version, h.OS, h.Kernel, h.Runtime
	s.Verdict, s.VerdictWhy, s.VerdictSince = "", "", time.Time{} // Dead is over: it has a session
	if !known || string(before) != string(object(api.KindNode, &n.obj)) {
		c.putNode(n)
	}
	c.fleet.SetNode(n.forScheduler())
	c.reseat(n.name)
	c.view.touchNode(n)
	c.roomMade()
	c.sendStanding(n)
	c.handOverAgain(n)
	c.sendToNode(n.name, wire.AssignmentSet{Complete: true, Put: c.assignmentsOf(n), RemoveVolumes: c.removalsOn(n.name)})
}

func (c *Core) sessionClosed(ev SessionClosed) {
	n := c.current(ev.Node, ev.Session)
	if n == nil {
		return
	}
	n.session = 0
	c.liveStep(liveness.SessionClosed{Node: n.name, Graceful: ev.Graceful})
}

func (c *Core) closeSession(n *node, why string) {
	if n.session != 0 {
		c.emit(CloseSession{Node: n.name, Session: n.session, Why: why})
		n.session = 0
	}
}

// dropVoid forgets what was placed on a life that is over. Where the machine is
// here again in the same life, what may still run there is stopped.
func (c *Core) dropVoid(n *node, here bool, why string) {
	for _, f := range n.sortedFillings() {
		s := c.services[f.key.ServiceKey()]
		switch {
		case !f.void:
		case here && c.fenced(s, f):
			c.resume(f)
		default:
			c.lose(s, f, why)
		}
	}
}

// voidAll marks everything placed on the node's life as over.
func (c *Core) voidAll(n *node) {
	voided := 0
	for _, f := range n.sortedFillings() {
		if !f.void {
			voided++
		}
		f.void = true
		c.unsettle(f.key.ServiceKey())
		c.touch(f)
	}
	c.did(n.name, func(d *api.Done) { d.Voided += voided })
}

func (c *Core) askWitnesses(e liveness.AskWitnesses) {
	target := c.nodes[e.Target]
	ask := wire.Ask{ID: e.AskID, Target: e.Target, Address: target.obj.Status.Address, Timeout: e.Timeout, Ports: portsToAsk(target, false)}
	for _, o := range e.Observers {
		effect := AskWitness{Observer: o, Ask: ask}
		if o != liveness.LeaderObserver {
			effect.Session = c.nodes[o].session
		} else {
			effect.Ask.Ports = portsToAsk(target, true)
		}
		c.out = append(c.out, effect) // waits for nothing: it only asks
	}
}

// portsAskedMax bounds what one witness tries: a handful answer the question
// whether the node's replicas are alive, more would only load it.
const portsAskedMax = 4

// portsToAsk gives TCP ports that a living node answers: first those of its own
// address that replicas there have taken, by mode host or with the node's network;
// for an observer with an agent then those on replicas' own addresses, to which it
// has a route. The leader's host may have none. Ports that are published on every
// node are no proof: another node may answer.
func portsToAsk(n *node, leader bool) []string {
	own, err := netip.ParseAddr(n.obj.Status.Address)
	if err != nil {
		return nil
	}
	var onNode, onReplicas []string
	for _, f := range n.sortedFillings() {
		if !f.status.Ready || f.stopping || f.void {
			continue
		}
		replica, err := netip.ParseAddr(f.status.IP)
		for _, p := range f.ports {
			switch {
			case p.Protocol == api.UDP:
			case f.hostNetwork:
				onNode = append(onNode, netip.AddrPortFrom(own, uint16(p.Port)).String())
			case p.Publish != 0 && p.Mode == api.PublishHost:
				onNode = append(onNode, netip.AddrPortFrom(own, uint16(p.Publish)).String())
				fallthrough
			default:
				if err == nil && !leader {
					onReplicas = append(onReplicas, netip.AddrPortFrom(replica, uint16(p.Port)).String())
				}
			}
			if len(onNode) == portsAskedMax {
				return onNode
			}
		}
	}
	all := append(onNode, onReplicas...)
	return all[:min(len(all), portsAskedMax)]
}

// status takes an agent's report.
func (c *Core) status(ev Status) {
	n := c.current(ev.Node, ev.Session)
	if n == nil {
		return
	}
	if !n.reported {
		c.reseat(n.name) // of two with one number the one that serves keeps it
	}
	said := map[api.ReplicaKey]bool{}
	for _, r := range ev.Report.Replicas {
		said[r.Key] = true
		if f := n.fillings[r.Key]; f != nil && !f.void {
			f.found = r.Images
			c.report(f, r.Status)
		}
	}
	for _, k := range ev.Report.Gone {
		c.gone(n.fillings[k])
	}
	for _, k := range ev.Report.VolumesGone {
		c.volumeGone(n.name, k, "nothing of it is left on "+n.name)
	}
	if !ev.Report.Complete {
		return
	}
	n.orphans = ev.Report.Orphans
	for _, f := range n.sortedFillings() {
		if said[f.key] || f.sent > ev.Report.Taken { // what was sent later it cannot know
			c.touch(f)
			continue
		}
		f.reported = true
		f.loaded, f.doubted = false, false
		c.unsettle(f.key.ServiceKey())
		// It has nothing of it: not begun yet, or nothing left of what was to stop.
		if f.stopping {
			c.gone(f)
			continue
		}
		if !f.void && f.status.Phase != api.PhaseAssigned {
			c.report(f, api.ReplicaStatus{Phase: api.PhaseAssigned, Reason: "NotThere", Message: "the node has nothing of it"})
		}
		c.touch(f)
	}
	n.reported = true
	c.view.touchNode(n)
}

func (c *Core) report(f *filling, s api.ReplicaStatus) {
	was := f.status
	unseen := f.loaded || f.doubted || c.verdictOf(f) == api.VerdictBack
	c.noteCounted(c.services[f.key.ServiceKey()], f)
	c.noteEnds(f, s, unseen)
	c.hearWords(f, s)
	f.status, f.reported, f.doubted = s, true, false
	switch {
	case !s.Ready:
		f.readySince = time.Time{}
	case f.readySince.IsZero():
		f.readySince = c.now
	}
	f.note(unseen, c.now)
	if f.loaded { // told by the term before
		f.loaded = false
	} else {
		c.tellChange(f, was, s)
	}
	if !s.Phase.Before(api.PhaseStopping) {
		c.tellStop(f) // it stops, or has ended: there is nothing to wait for
	}
	c.unsettle(f.key.ServiceKey())
	c.touch(f)
}

// gone: nothing of the replica is left on its node. One that was not told to
// stop is wanted again; the agent starts it from its next assignment.
func (c *Core) gone(f *filling) {
	if f == nil || !f.stopping && !f.void {
		return
	}
	c.drop(c.services[f.key.ServiceKey()], f)
}

// settleBack ends the return of nodes whose slots have one filling again.
func (c *Core) settleBack() {
	for _, n := range c.sortedBack() {
		if !n.reported || slices.ContainsFunc(n.sortedFillings(), func(f *filling) bool { return f.void || c.rivalOf(f) }) {
			continue
		}
		c.liveStep(liveness.Reconciled{Node: n.name})
	}
}

func (c *Core) sortedBack() []*node {
	var out []*node
	for _, name := range slices.Sorted(maps.Keys(c.back)) {
		if n := c.nodes[name]; n != nil && n.verdict == api.VerdictBack {
			out = append(out, n)
		} else {
			delete(c.back, name)
		}
	}
	return out
}

// rivalOf tells whether another filling wants the slot too while one of them is
// a spare, and the next plan will choose. Where neither is ready, or the other
// cannot be heard, nothing is to be chosen yet: that may last as long as a
// service that never becomes ready, and may not hold the node's return. Nor is
// anything chosen as long as a node is damped.
func (c *Core) rivalOf(f *filling) bool {
	return !f.stopping && !c.nodes[f.node].damped() && slices.ContainsFunc(c.services[f.key.ServiceKey()].fillings, func(x *filling) bool {
		return x != f && x.key.Slot == f.key.Slot && !x.stopping && (x.spare || f.spare) &&
			(x.status.Ready || f.status.Ready) && c.heard(x)
	})
}

func (c *Core) heard(f *filling) bool {
	v := c.verdictOf(f)
	return v == api.VerdictHealthy || v == api.VerdictBack
}

// removeNode forgets a dead node, or one that holds nothing and has no session; forced, any.
func (c *Core) removeNode(n *node, force bool, by string) error {
	if !force && n.verdict != api.VerdictDead && (n.session != 0 || len(n.fillings) > 0) {
		return fmt.Errorf("remove node %s: %w: it is %s and holds %d replicas; stop its agent and say \"orchctl node dead %s\" first", n.name, ErrBusy, n.verdict, len(n.fillings), n.name)
	}
	c.voidAll(n)
	for _, f := range n.fillings {
		f.over = f.over || f.lease == 0 // the operator's word is all there is; see lease.go
	}
	c.dropVoid(n, false, "node "+n.name+" was removed")
	c.closeSession(n, "an operator removed this node")
	if delete(c.unknown, n.name); len(c.unknown) == 0 {
		c.roomMade() // what waited for it to be known
	}
	c.liveStep(liveness.NodeRemoved{Node: n.name})
	c.fleet.RemoveNode(n.name)
	delete(c.nodes, n.name)
	c.byName = nil
	for _, key := range c.removalsOn(n.name) {
		c.volumeGone(n.name, key, n.name+" was removed: what is on it is left as it is")
	}
	c.reseat(n.name)
	c.returnSubnet(n)
	delete(c.reliefs.ailing, n.name)
	delete(c.reliefs.drains, n.name)
	c.judge(n, "")
	for _, x := range n.records {
		c.forgetRecord(x)
	}
	c.write(store.Delete(nodeKey(n.name)))
	c.view.forgetNode(n)
	c.event("", api.KindNode, n.name, api.EventNormal, "Removed", "by "+by)
	return nil
}
