package core

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/store"
)

// TestAnythingLeavesThePictureStraight: whatever becomes of nodes, agents, the store
// and leaders, and whatever users and operators want, what the leader counts is what
// is there, agents know what it knows, users see it, and in the end everything has
// come to its place: services serve, drained nodes are empty, nothing waits.
func TestAnythingLeavesThePictureStraight(t *testing.T) {
	for seed := range *seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { newStraits(t, uint64(seed)).run() })
	}
}

// straits is a fleet to which everything happens.
type straits struct {
	*fleet
	r     *rand.Rand
	names []string
	boots int
	deeds []string
	did   int
}

func newStraits(t *testing.T, seed uint64) *straits {
	r := rand.New(rand.NewPCG(seed, 7))
	f := newFleet(t)
	clear(f.kv)
	f.conf = Config{Network: small(), Budgets: Budgets{ReliefsMin: 1 + r.IntN(6), ReliefPatience: 5 * time.Second}}
	f.leasedOnly = true
	f.elect()
	h := &straits{fleet: f, r: r}
	for i := range 3 + r.IntN(3) {
		h.names = append(h.names, fmt.Sprintf("n%d", i+1))
		f.node(h.names[i], "boot1")
	}
	return h
}

func (h *straits) note(format string, args ...any) {
	h.deeds = append(h.deeds, fmt.Sprintf("%6s ", h.now.Sub(start))+fmt.Sprintf(format, args...))
}

func (h *straits) run() {
	defer func() {
		if h.t.Failed() {
			for _, d := range h.deeds {
				h.t.Log(d)
			}
		}
	}()
	for _, n := range []string{"a", "b", "c", "db"} {
		h.order(n)
	}
	h.pass(3 * time.Second)
	for range 30 {
		h.deed()
		for range h.r.IntN(60) {
			h.pass(50 * time.Millisecond)
		}
		if !h.commits && h.r.IntN(2) == 0 {
			h.quick()
		}
		if !h.commits {
			continue
		}
		h.check()
		if h.t.Failed() {
			return
		}
	}
	h.calm()
}

func (h *straits) order(name string) {
	s := surging(named(name, 1+h.r.IntN(6), fmt.Sprintf("a:%d", h.r.IntN(3))), h.r.IntN(3), h.r.IntN(3))
	if *s.Spec.Rollout.MaxSurge == (api.IntOrPercent{}) && *s.Spec.Rollout.MaxUnavailable == (api.IntOrPercent{}) {
		s = surging(s, 1, 0)
	}
	s.Spec.Containers[0].Resources.Requests = api.ResourceList{api.Memory: api.Whole(int64(h.r.IntN(10)) << 27)}
	if name == "db" {
		s.Spec.Exclusive = h.r.IntN(4) != 0
	}
	if h.r.IntN(5) == 0 {
		s.Spec.Headless = true
	}
	switch h.r.IntN(5) {
	case 0:
		s.Spec.Containers[0].Ports = []api.Port{{Name: "p", Port: 80, Publish: 8080 + h.r.IntN(2)}}
	case 1:
		s.Spec.Containers[0].Ports = []api.Port{{Name: "p", Port: 80, Publish: 8080 + h.r.IntN(2), Mode: api.PublishHost}}
	case 2:
		s.Spec.Containers[0].Ports = []api.Port{{Name: "p", Port: 8080 + h.r.IntN(2)}}
		s.Spec.HostNetwork = true
	}
	s.Default()
	h.did++
	h.note("apply %s: %d of %s, exclusive %t, headless %t, ports %v %t: %v", name, *s.Spec.Replicas, s.Spec.Containers[0].Image, s.Spec.Exclusive, s.Spec.Headless, s.Spec.Containers[0].Ports, s.Spec.HostNetwork, h.apply(fmt.Sprint("h", h.did), s).Err)
}

func (h *straits) deed() {
	node := h.names[h.r.IntN(len(h.names))]
	a := h.agents[node]
	name := []string{"a", "b", "c", "db"}[h.r.IntN(4)]
	switch h.r.IntN(18) {
	case 16:
		h.note("the store is slow")
		h.commits = false
		return
	case 17:
		applied := h.r.IntN(2) == 0
		h.note("the leader falls with what it has not committed; applied %t", applied)
		if len(h.out) > 0 && applied {
			for _, op := range h.out[0].Ops {
				if op.Kind == store.OpPut {
					h.kv[op.Key] = op.Value
				} else {
					delete(h.kv, op.Key)
				}
			}
			h.rev++
		}
		h.commits = true
		h.elect()
		for _, n := range h.names {
			if !h.agents[n].silent {
				h.dial(n)
			}
		}
	case 0, 1:
		h.order(name)
	case 2, 3:
		deadline := time.Duration(h.r.IntN(3)) * 2 * time.Second
		if h.core.nodes[node] == nil {
			return
		}
		h.note("drain %s by %s: %v", node, deadline, h.drainBy(node, deadline))
	case 4:
		h.note("uncordon %s: %v", node, h.word(node, "uncordon"))
	case 5:
		r, err := h.rebalance(h.r.IntN(4) == 0)
		h.note("rebalance: %v, %v", r, err)
	case 6:
		is := h.r.IntN(2) == 0
		h.mute(is, node)
		h.note("%s is mute: %t", node, is)
	case 7:
		h.note("another leads")
		h.elect()
		for _, n := range h.names {
			if !h.agents[n].silent && h.r.IntN(6) > 0 {
				h.dial(n)
			}
			h.pass(time.Duration(h.r.IntN(4)) * 50 * time.Millisecond)
		}
	case 8:
		h.note("%s is silent", node)
		h.silence(node)
	case 9:
		h.note("%s loses its agent", node)
		if a.session != 0 {
			h.loseAgent(node)
		}
	case 10, 11:
		h.note("%s dials", node)
		h.dial(node)
	case 12:
		h.boots++
		h.note("%s boots", node)
		h.node(node, fmt.Sprintf("again%d", h.boots))
	case 13:
		h.note("%s dead: %v", node, h.word(node, "dead"))
		a.session = 0
	case 14:
		h.note("dead and remove %s: %v %v", node, h.word(node, "dead"), h.word(node, "remove"))
		a.session, a.silent, a.cut = 0, true, true
	case 15:
		h.note("delete %s", name)
		h.delete(name)
	}
}

// check compares what is kept in two places.
func (h *straits) check() {
	h.t.Helper()
	h.checkCounts()
	h.checkEndpoints()
	h.checkPorts()
	h.checkAgents()
}

func (h *straits) checkCounts() {
	h.t.Helper()
	c := h.core
	for i, x := range c.handovers.waiting {
		if i > 0 && x.version <= c.handovers.waiting[i-1].version {
			h.t.Errorf("waiting out of order")
		}
		if i > 0 && !x.since.IsZero() && x.since.Before(c.handovers.waiting[i-1].since) {
			h.t.Errorf("since falls")
		}
		if !x.since.IsZero() && c.now.Sub(x.since) > 2*time.Second+100*time.Millisecond {
			h.t.Errorf("waits since %s", c.now.Sub(x.since))
		}
	}
	reliefs := 0
	for key, s := range c.services {
		reliefs += len(s.reliefs)
		if (len(s.reliefs) > 0) != c.relieved[key] {
			h.t.Errorf("%s: %d reliefs, relieved %t", key, len(s.reliefs), c.relieved[key])
		}
	}
	if reliefs != c.reliefs.count {
		h.t.Errorf("%d reliefs, %d counted", reliefs, c.reliefs.count)
	}
	for k, f := range c.fillings {
		if f.handing && !f.stopping {
			h.t.Errorf("%s hands over and is not stopping", k)
		}
		if f.handing && !slices.ContainsFunc(c.handovers.waiting, func(x *handover) bool { return slices.Contains(x.of, f) }) {
			h.t.Errorf("%s hands over and nothing waits", k)
		}
	}
}

func (h *straits) checkEndpoints() {
	h.t.Helper()
	c := h.core
	for k, e := range c.ends.live {
		f := c.fillings[k]
		if f == nil || f.stopping || f.void {
			h.t.Errorf("%s is an endpoint: %+v", k, f)
			continue
		}
		if n := c.nodes[f.node]; n != nil && e.NodeIP != n.obj.Status.Address {
			h.t.Errorf("%s: node ip %s", k, e.NodeIP)
		}
		if x, ok := h.seen[endpointKey(f)].(*api.Endpoint); !ok || x.Status.IP != e.IP || x.Status.Kept {
			h.t.Errorf("%s is live and shown as %+v", k, x)
		}
	}
	for k := range h.seen {
		if k.Kind == api.KindEndpoint {
			ok := false
			for rk, f := range c.fillings {
				if endpointKey(f) == k {
					_, live := c.ends.live[rk]
					ok = live || c.keeps(f)
				}
			}
			if !ok {
				h.t.Errorf("%v is published and none", k)
			}
		}
	}
	for k := range c.ends.kept {
		if f := c.fillings[k]; f == nil {
			h.t.Errorf("%s is kept and gone", k)
		}
	}
	for key := range c.ends.services {
		if c.services[key] == nil {
			h.t.Errorf("%s is told and gone", key)
		}
	}
}

// checkPorts: a port that is published on every node is one service's.
func (h *straits) checkPorts() {
	h.t.Helper()
	c := h.core
	for key := range c.claims.claimed {
		if c.services[key] == nil {
			h.t.Errorf("%s claims and gone", key)
		}
	}
	type holder struct {
		key        api.Key
		everywhere bool
	}
	held := map[port][]holder{}
	for _, f := range c.fillings {
		s := c.services[f.key.ServiceKey()]
		for _, x := range claimsOf(&s.revisions[f.revision].Template) {
			held[x.port] = append(held[x.port], holder{s.key, x.everywhere})
		}
	}
	for p, hs := range held {
		for _, a := range hs {
			for _, b := range hs {
				if a.key != b.key && (a.everywhere || b.everywhere) {
					h.t.Errorf("%s is of %v and %v", p, a, b)
				}
			}
		}
	}
}

// checkAgents: who has a session knows what the leader knows.
func (h *straits) checkAgents() {
	h.t.Helper()
	c := h.core
	for name, a := range h.agents {
		n := c.nodes[name]
		if n == nil || n.session == 0 || n.session != a.session || a.cut {
			continue
		}
		for k, e := range c.ends.live {
			if x := a.ends[k]; x.IP != e.IP || x.NodeIP != e.NodeIP || x.Degraded != e.Degraded {
				h.t.Errorf("%s knows %+v of %s, it is %+v", name, x, k, e)
			}
		}
		for k := range a.ends {
			if _, ok := c.ends.live[k]; !ok && !(c.fillings[k] != nil && c.keeps(c.fillings[k])) {
				h.t.Errorf("%s knows %s, which is none", name, k)
			}
		}
		if !maps.EqualFunc(a.services, c.ends.services, sameService) {
			h.t.Errorf("%s knows services %v", name, a.services)
		}
	}
}

// quick has the store answer again.
func (h *straits) quick() {
	h.note("the store is quick again")
	h.commits = true
	for len(h.out) > 0 {
		e := h.out[0]
		h.out = h.out[1:]
		h.commit(e)
	}
	h.turn()
}

// calm heals everything and gives last orders, which come true.
func (h *straits) calm() {
	h.quick()
	h.note("calm")
	slices.Sort(h.names)
	for _, n := range h.names {
		h.mute(false, n)
		h.dial(n)
	}
	h.pass(100 * time.Second)
	h.check()
	if h.core.Frozen() {
		h.ticket++
		h.step(Thaw{Ticket: h.ticket, By: "x"})
		h.pass(10 * time.Second)
	}
	drained := 0
	for _, n := range h.core.sortedNodes() {
		if n.obj.Spec.Drain != nil {
			drained++
		}
	}
	if drained > 1 {
		for _, n := range h.names[:len(h.names)-1] {
			if h.core.nodes[n] != nil && h.core.nodes[n].obj.Spec.Drain != nil {
				h.note("uncordon %s: %v", n, h.word(n, "uncordon"))
			}
		}
	}
	for _, name := range []string{"a", "b", "c", "db"} {
		if h.core.services[api.Key{Namespace: "default", Name: name}] == nil || h.core.services[api.Key{Namespace: "default", Name: name}].deleting() {
			continue
		}
		h.did++
		s := surging(named(name, 2, "a:last"), 1, 1)
		if h.core.services[api.Key{Namespace: "default", Name: name}].exclusive() {
			s.Spec.Exclusive = true
			s.Default()
		}
		if err := h.apply(fmt.Sprint("h", h.did), s).Err; err != nil {
			h.t.Errorf("last apply of %s: %v", name, err)
		}
	}
	h.note("last orders")
	h.pass(180 * time.Second)
	h.check()
	c := h.core
	for key, s := range c.services {
		if s.deleting() {
			h.t.Errorf("%s is still there: %v", key, s.fillings[0])
		}
		if p := h.service(key.Name); p.Status.Ready != 2 || len(s.fillings) != 2 || p.Status.Replicas != 2 {
			h.t.Errorf("%s: %+v, %d fillings", key, p.Status, len(s.fillings))
		}
		if s.lacksVIP() {
			h.t.Errorf("%s lacks a vip", key)
		}
	}
	for _, n := range c.sortedNodes() {
		if x := n.obj.Spec.Drain; x != nil && (x.Done.IsZero() || len(n.fillings) > 0) {
			h.t.Errorf("%s is not drained: %+v, %v", n.name, x, strings.Join(h.published(n.name).Status.DrainWaits, "; "))
		}
	}
	if c.reliefs.count != 0 || len(c.relieved) != 0 || len(c.handovers.waiting) != 0 || len(c.reliefs.moves) != 0 || len(c.spending.short) != 0 || c.spending.waiting != 0 || c.spending.used != (usage{}) {
		h.t.Errorf("left: reliefs %d %v, waiting %d, moves %v, spending %+v", c.reliefs.count, c.relieved, len(c.handovers.waiting), c.reliefs.moves, c.spending)
	}
	if len(h.seen) > 0 && h.status().Reliefs != 0 {
		h.t.Errorf("fleet %+v", h.status())
	}
}
