package sim

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller/core"
)

// knowledge is what one leader was told, kept beside it: checks compare its
// decisions with that, not with what it could not know.
type knowledge struct {
	hearsay
	handing
	session   map[string]uint64
	status    map[api.ReplicaKey]*known
	verdict   map[string]api.Verdict
	unfit     map[string]uint64 // the event since which a node is not healthy; 0: it is
	dead      map[string]bool   // was ever dead in this term
	impaired  map[string]uint64 // the event since which a node cannot work; 0: it can
	damped    map[string]uint64 // likewise since when it goes and comes too often
	sick      map[string]sickness
	ails      map[string]int64 // when a node became agent lost or impaired; 0: it is neither
	suspectAt map[string]int64
	awayAt    map[string]int64 // when it became agent lost or suspect
	judged    uint64           // the last event that changed a verdict or began a session
	mass      mass
	// rebalanced: somebody has asked for a rebalance in this term.
	rebalanced bool
	// missed is when a replica was on a node that is not heard, left when at the
	// earliest this leader decided that it goes; looked when it last looked; stalledAt
	// when it last did not run for a while.
	missed    map[api.ReplicaKey][]span
	left      map[api.ReplicaKey]int64
	looked    int64
	stalledAt int64
	// tries counts, by slot and revision, what was placed because a replica failed again
	// and again where it was; trying is the revision of the latest such, by what failed.
	tries  map[tryOf]int
	trying map[api.ReplicaKey]int64
	// drains are the events at which each node was last told to be drained.
	drains map[string]uint64

	ends     map[api.ReplicaKey]bool // who gets traffic, as last sent; true: degraded
	stopping []api.ReplicaKey        // told to stop since the last check
}

type known struct {
	ready, reported bool
	phase           api.Phase
	everReady       bool
	unreadySince    uint64
	flips           []flip // the latest, in order
	heard           []flip // likewise events at which it was reported, or its node's session began
}

// flip is an event at which a replica was said to be ready, or not any more.
type flip struct {
	event uint64
	ready bool
	clock int64
}

// flipsMax bounds what is remembered of one replica: checks look back over one
// or two transactions only.
const flipsMax = 8

func (s *known) say(ready bool, event uint64, clock int64) {
	if s.ready == ready {
		return
	}
	if s.ready = ready; !ready {
		s.unreadySince = event
	}
	s.everReady = s.everReady || ready
	s.flips = append(s.flips, flip{event, ready, clock})
	if len(s.flips) > flipsMax {
		s.flips = s.flips[1:]
	}
}

// hear keeps whether its agent has spoken of it in the node's session.
func (s *known) hear(heard bool, event uint64) {
	if s.reported == heard {
		return
	}
	s.reported = heard
	s.heard = append(s.heard, flip{event, heard, 0})
	if len(s.heard) > flipsMax {
		s.heard = s.heard[1:]
	}
}

// at is what was so by then.
func at(flips []flip, event uint64) bool {
	so := false
	for _, f := range flips {
		if f.event <= event {
			so = f.ready
		}
	}
	return so
}

func newKnowledge() *knowledge {
	return &knowledge{hearsay: newHearsay(), handing: newHanding(), session: map[string]uint64{}, status: map[api.ReplicaKey]*known{}, verdict: map[string]api.Verdict{}, unfit: map[string]uint64{},
		dead: map[string]bool{}, impaired: map[string]uint64{}, damped: map[string]uint64{}, ails: map[string]int64{}, sick: map[string]sickness{}, suspectAt: map[string]int64{}, awayAt: map[string]int64{}, mass: mass{fell: map[string]int64{}}, drains: map[string]uint64{}, missed: map[api.ReplicaKey][]span{}, left: map[api.ReplicaKey]int64{}, tries: map[tryOf]int{}, trying: map[api.ReplicaKey]int64{}, ends: map[api.ReplicaKey]bool{}}
}

func (n *knowledge) opened(l *lead, node string, session uint64) {
	n.session[node] = session
	n.begins(node, l.events+1)
	n.judged = l.events + 1
	for k, s := range n.status {
		if l.w.ledger.placed[k] == node {
			s.hear(false, l.events+1)
		}
	}
}

func (n *knowledge) of(k api.ReplicaKey) *known {
	s := n.status[k]
	if s == nil {
		s = &known{}
		n.status[k] = s
	}
	return s
}

// report takes what an agent says, as the core does.
func (n *knowledge) report(l *lead, ev core.Status) {
	if n.session[ev.Node] != ev.Session {
		return
	}
	said := map[api.ReplicaKey]bool{}
	for _, r := range ev.Report.Replicas {
		said[r.Key] = true
		s := n.of(r.Key)
		s.say(r.Status.Ready, l.events, l.w.clock)
		s.phase = r.Status.Phase
		s.hear(true, l.events)
	}
	if !ev.Report.Complete {
		return
	}
	n.whole[ev.Node] = true
	for k, s := range n.status {
		if !said[k] && l.w.ledger.placed[k] == ev.Node {
			s.say(false, l.events, l.w.clock)
			s.hear(true, l.events)
		}
	}
}

// verdicts looks at what the leader holds of each node, before it plans.
func (n *knowledge) verdicts(l *lead) {
	defer n.mass.look(l, n)
	defer n.overlook(l)
	for _, h := range l.w.hosts {
		v := l.core.Verdict(h.name)
		if was := n.verdict[h.name]; was != v {
			n.verdict[h.name] = v
			l.w.mixText(string(v))
			n.judged = l.events
			n.judge(l, h, was, v)
			n.flapped(l, h, was, v)
			n.turn(l, h.name, v)
		}
		n.dead[h.name] = n.dead[h.name] || v == api.VerdictDead
		impaired, damped := l.core.Trouble(h.name)
		n.ailing(l, h, v, impaired)
		n.troubles(l, h.name, v, impaired)
		n.since(n.damped, h.name, damped, l, &l.w.res.Damped)
		n.since(n.impaired, h.name, impaired, l, &l.w.res.Impaired)
		n.since(n.unfit, h.name, v != api.VerdictHealthy || impaired || damped, l, nil)
	}
}

// since keeps the event since which something is so of a node, and counts how
// often it came to be so.
func (n *knowledge) since(of map[string]uint64, node string, so bool, l *lead, counted *int) {
	switch {
	case !so && of[node] != 0, so && of[node] == 0:
		of[node] = 0
		n.judged = l.events
		if so {
			of[node] = max(l.events, 1)
		}
		if so && counted != nil {
			*counted++
		}
	}
}

// available is the reconciler's word, from what the leader had been told by an
// event.
func (n *knowledge) available(pic picture, k api.ReplicaKey, p placement, event uint64) bool {
	s := n.status[k]
	if s == nil || !at(s.flips, event) || p.stopping {
		return false
	}
	if node := pic.nodes[p.node]; node == nil || node.Status.BootID != p.boot {
		return false
	}
	switch n.verdictAt(p.node, event) {
	case api.VerdictSuspect, api.VerdictDead:
		return false
	case api.VerdictBack:
		return at(s.heard, event)
	}
	return true
}

// counts tells whether it counts as available: what has the newest revision only when
// it was ready for a while.
func (n *knowledge) counts(l *lead, pic picture, k api.ReplicaKey, p placement, event uint64) bool {
	if !n.available(pic, k, p, event) {
		return false
	}
	least, _ := l.minReady(pic, k, p)
	return l.w.clock-since(n.status[k].flips, event) >= int64(least*minReadyShare/100)
}

// ripe tells whether what counts did so, by its leader's clock too, when the batch was
// begun. What is not may have been taken for too young at any turn since.
func (n *knowledge) ripe(l *lead, pic picture, k api.ReplicaKey, p placement) bool {
	_, most := l.minReady(pic, k, p)
	return l.openAt-since(n.status[k].flips, l.openSince) >= int64(most*(200-minReadyShare)/100)
}

// minReady is for how long a replica has to be ready to count, by what is written and by
// what is decided now: at least, and at most.
func (l *lead) minReady(pic picture, k api.ReplicaKey, p placement) (least, most time.Duration) {
	least = 1 << 62
	for _, x := range []picture{l.w.ledger.pic, pic} {
		if s := x.services[k.ServiceKey()]; s != nil {
			d := s.Spec.MinReady()
			if !x.isNewest(k, p) {
				d = 0
			}
			least, most = min(least, d), max(most, d)
		}
	}
	return least, most
}

// minReadyShare is what clocks may be wrong by, in either direction.
const minReadyShare = 97

// since is when it became what it was by an event.
func since(flips []flip, event uint64) (clock int64) {
	for _, f := range flips {
		if f.event <= event {
			clock = f.clock
		}
	}
	return clock
}

// overlook keeps of which replicas' nodes nothing is heard.
func (n *knowledge) overlook(l *lead) {
	now, before := max(l.w.clock, 1), n.looked
	n.looked = now
	silent := map[string]bool{}
	for node, v := range n.verdict {
		if v != api.VerdictHealthy && v != api.VerdictBack {
			silent[node] = true
		}
	}
	if len(silent) == 0 {
		return
	}
	for k, p := range l.w.ledger.pic.placements {
		if !silent[p.node] || p.stopping {
			continue
		}
		if last := len(n.missed[k]) - 1; last >= 0 && n.missed[k][last].to >= before {
			n.missed[k][last].to = now
		} else {
			n.missed[k] = append(n.missed[k], span{now, now})
		}
	}
}

// heardFor is for how long everything of a service was heard, at the time since the
// batch was begun when it was longest; from is when at the earliest that may have begun.
// What of it was paused does not count.
func (n *knowledge) heardFor(l *lead, key api.Key, from int64, paused []span) (most time.Duration) {
	var spans []span
	ends := []int64{l.w.clock}
	for k, of := range n.missed {
		if k.ServiceKey() != key {
			continue
		}
		for _, x := range of {
			if left, gone := n.left[k]; gone {
				x.to = min(x.to, left)
			}
			if x.to >= x.from {
				spans, ends = append(spans, x), append(ends, max(x.from-1, l.openAt))
			}
		}
	}
	for _, end := range ends {
		since := from
		for _, x := range spans {
			if x.from <= end {
				since = max(since, min(x.to, end))
			}
		}
		if end < l.openAt {
			continue
		}
		lasted := end - since
		for _, x := range paused {
			if x.to == 0 {
				x.to = end
			}
			lasted -= max(0, min(x.to, end)-max(x.from, since))
		}
		most = max(most, time.Duration(lasted))
	}
	return most
}

// endpoints: I8. Nobody is to get traffic who is not ready.
func (n *knowledge) endpoints(l *lead, e core.SendEndpoints) {
	if e.Set.Complete {
		clear(n.ends)
	}
	for _, x := range e.Set.Put {
		l.w.mixKey(x.Replica)
		s := n.status[x.Replica]
		if s == nil && !x.Degraded || s != nil && !s.everReady || s != nil && !s.ready && s.unreadySince <= l.openBefore {
			l.w.violate("I8", "%s is told to send traffic to %s on %s, which is not ready", e.Node, x.Replica, x.Node)
		}
		if t := l.w.ledger.templates[x.Replica]; x.Degraded && t != nil && t.Exclusive {
			l.w.violate("I8", "%s is told to send traffic to %s on %s, which is exclusive and cannot be reached", e.Node, x.Replica, x.Node)
		}
		n.ends[x.Replica] = x.Degraded
	}
	for _, k := range e.Set.Drop {
		delete(n.ends, k)
	}
	n.degraded(l, e)
	n.keepsUnheard(l, e)
	n.awayFromSuspects(l, e)
}

// checkLeases: I8. What has surely stopped for want of a lease gets no traffic any
// more, though nobody hears from its node.
func (n *knowledge) checkLeases(l *lead) {
	if l.core.Failed() {
		return
	}
	listener := false
	for _, s := range l.sessions {
		listener = listener || present(n.verdict[s.host.name]) && l.w.clock-s.openedAt > int64(time.Second)
	}
	if !l.committing {
		l.idleAt = l.w.clock
	}
	if !listener || l.w.clock-l.idleAt > int64(100*time.Millisecond) {
		return // nobody can be told, or could be until just now, or commits hold it up
	}
	for k, at := range l.w.ledger.left {
		if _, ok := n.ends[k]; !ok || !l.w.ledger.hasLeft(k) || present(n.verdict[l.w.ledger.placed[k]]) {
			continue
		}
		d := l.w.ledger.templates[k].Lease()
		if most := int64(d + 3*api.LeaseDrift(d) + 3*time.Second); l.w.clock-max(at, l.beganAt, n.awayAt[l.w.ledger.placed[k]]) > most {
			l.w.violate("I8", "%s on %s stopped for want of a lease %s ago, and still gets traffic", k, l.w.ledger.placed[k], time.Duration(l.w.clock-at))
		}
	}
}

// degraded: I8. Last known endpoints get traffic only while their service has
// none that is better.
func (n *knowledge) degraded(l *lead, e core.SendEndpoints) {
	for _, x := range e.Set.Put {
		for k, degraded := range n.ends {
			if degraded != x.Degraded && k.ServiceKey() == x.Replica.ServiceKey() {
				l.w.violate("I8", "%s is told to send traffic to %s (degraded: %t) beside %s (degraded: %t)", e.Node, x.Replica, x.Degraded, k, degraded)
				return
			}
		}
		if x.Degraded {
			l.w.res.Degraded++
		}
	}
}

// checkWithdrawn: I8. What is told to stop gets no traffic any more.
func (n *knowledge) checkWithdrawn(l *lead) {
	for _, k := range n.stopping {
		if _, ok := n.ends[k]; ok {
			l.w.violate("I8", "%s is told to stop, and still gets traffic", k)
		}
	}
	n.stopping = n.stopping[:0]
}

func sortedSessions(m map[uint64]*session) []*session {
	return slices.SortedFunc(maps.Values(m), func(a, b *session) int { return cmp.Compare(a.id, b.id) })
}
