package bubble

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

const (
	// convergeWithin is how long after the last fault all must be as it is wanted:
	// a node that came and went is damped for up to 8 minutes, the rest takes
	// seconds.
	convergeWithin = 10 * time.Minute
	// lookEvery is how often the world is looked at meanwhile.
	lookEvery = 500 * time.Millisecond
	// quietFor is how long nothing may happen after that.
	quietFor = 5 * time.Second
	// takeoverWithin is what a new leader needs to hear of all nodes, with what may
	// hide in it: an election, dials that back off, the first self-check.
	takeoverWithin = 10 * time.Second
	// awayWithin is how long a node without power may still be sent traffic by
	// agents that nothing ails.
	awayWithin = 3 * time.Second
	// settledAfter is how long after a fault a controller counts as well: one that
	// lost its store holds its agents until its commit has timed out, 5 s.
	settledAfter = 10 * time.Second
)

// settle: E. All is as wanted within convergeWithin, and then nothing moves.
func (w *world) settle() {
	w.calm.Store(true)
	defer w.calm.Store(false)
	w.say("faults stop")
	from, calm, what := time.Now(), 0, ""
	for calm < 3 {
		if !w.pause(lookEvery) {
			return
		}
		if what = w.unsettled(); what == "" {
			calm++
			continue
		}
		calm = 0
		if time.Since(from) > convergeWithin {
			w.violate("I1", "%s after the last fault: %s", convergeWithin, what)
			return
		}
	}
	took := time.Since(from)
	w.say("all is as wanted, after %s", took)
	w.mu.Lock()
	w.settled = append(w.settled, took.Seconds())
	w.mu.Unlock()
	if !w.quiet("I10", "though nothing changed", quietFor) {
		return
	}
	w.takeover()
}

// quiet lets time pass in which nothing may move; false if something did.
func (w *world) quiet(invariant, why string, d time.Duration) bool {
	before, commits := w.fingerprint(), w.etcd.count()
	if !w.pause(d) {
		return false
	}
	if after := w.fingerprint(); after != before {
		w.violate(invariant, "something moved %s:\n%s\nwas\n%s", why, after, before)
	}
	if n := w.etcd.count() - commits; n != 0 && w.allFine() {
		w.violate(invariant, "%d transactions were written %s", n, why)
	}
	return !w.isBroken()
}

// takeover kills the leader in the settled world: a new one that comes upon it
// moves nothing, and soon all is as wanted under it.
func (w *world) takeover() {
	i := slices.IndexFunc(w.controllers, func(c *ctlMachine) bool { return c.leads() != nil })
	if i < 0 {
		w.violate("I1", "nobody leads in a settled world")
		return
	}
	c := w.controllers[i]
	c.stop(true)
	ok := w.quiet("I5", "when a new leader came", takeoverWithin)
	c.start()
	if !ok {
		return
	}
	if what := w.unsettled(); what != "" {
		w.violate("I1", "%s after a new leader came: %s", takeoverWithin, what)
	}
}

// allFine tells whether no service tries in vain.
func (w *world) allFine() bool {
	return !slices.ContainsFunc(w.users, func(u *user) bool {
		acked, _ := u.state()
		return acked.exists && !goodImage(acked.image)
	})
}

func goodImage(image string) bool {
	return fine(&api.Template{Containers: []api.Container{{Image: image}}})
}

// fingerprint is what may not change: placements and runs of services that have
// all they want.
func (w *world) fingerprint() string {
	var b strings.Builder
	good := map[api.Key]bool{}
	for _, u := range w.users {
		acked, _ := u.state()
		good[u.key] = goodImage(acked.image)
	}
	w.etcd.look(func(g *ledger) {
		for _, k := range slices.SortedFunc(maps.Keys(g.placements), compareReplicas) {
			if p := g.placements[k]; good[k.ServiceKey()] {
				fmt.Fprintf(&b, "%s %s %d %v %v\n", k, p.node, p.revision, p.spare, p.stopping)
			}
		}
	})
	for _, n := range w.nodes {
		for _, c := range n.runtime.All() {
			if good[c.Replica.ServiceKey()] {
				fmt.Fprintf(&b, "%s %s %s\n", n.name, c.ID, c.StartedAt.Format(time.StampMicro))
			}
		}
	}
	return b.String()
}

// unsettled says what is not as wanted yet.
func (w *world) unsettled() string {
	for _, u := range w.users {
		if _, asking := u.state(); asking {
			return "the user of " + u.key.Name + " waits for an answer"
		}
	}
	want := map[api.ReplicaKey]string{} // node
	what := ""
	w.etcd.look(func(g *ledger) {
		for _, u := range w.users {
			if what = w.unplaced(g, u, want); what != "" {
				return
			}
		}
		if what = w.leftovers(g); what != "" {
			return
		}
		for name, n := range g.nodes {
			if n.Status.Verdict == api.VerdictDead {
				what = name + " is still dead"
			}
		}
	})
	for _, check := range []func(map[api.ReplicaKey]string) string{w.notRunning, w.misrouted, func(map[api.ReplicaKey]string) string { return w.misreported() }} {
		if what == "" {
			what = check(want)
		}
	}
	return what
}

// unplaced looks whether a service has what was acknowledged, and adds where.
func (w *world) unplaced(g *ledger, u *user, want map[api.ReplicaKey]string) string {
	acked, _ := u.state()
	s, ks := g.services[u.key], g.of(u.key)
	if !acked.exists {
		if s != nil || len(ks) > 0 {
			return fmt.Sprintf("service %s is to be gone; there are %v", u.key, ks)
		}
		return ""
	}
	if wantOf(s) != acked {
		w.violate("I2", "service %s is not as acknowledged: %s", u.key, acked)
		return "violated"
	}
	switch state := s.Status.Rollout.State; {
	case state != api.RolloutComplete && state != api.RolloutFailed:
		return fmt.Sprintf("the rollout of %s is %q", u.key, state)
	case !goodImage(acked.image):
		return ""
	case u.global:
		return w.notEverywhere(g, s, ks, want)
	}
	if len(ks) != acked.replicas {
		return fmt.Sprintf("service %s has %v, wanted are %d", u.key, ks, acked.replicas)
	}
	for i, k := range ks {
		p := g.placements[k]
		if k.Slot != i || !g.isNewest(k, p) || p.spare || p.stopping {
			return fmt.Sprintf("%s is %+v, newest is revision %d", k, p, s.Status.Revision)
		}
		want[k] = p.node
	}
	return ""
}

// notEverywhere looks whether a global service is on every node, once.
func (w *world) notEverywhere(g *ledger, s *api.Service, ks []api.ReplicaKey, want map[api.ReplicaKey]string) string {
	on := map[string]api.ReplicaKey{}
	for _, k := range ks {
		p := g.placements[k]
		if other, twice := on[p.node]; twice || !g.isNewest(k, p) || p.stopping {
			return fmt.Sprintf("%s is %+v, newest is revision %d, beside it is %v", k, p, s.Status.Revision, other)
		}
		on[p.node], want[k] = k, p.node
	}
	for _, n := range w.nodes {
		if _, there := on[n.name]; !there {
			return fmt.Sprintf("%s has none of global service %s", n.name, s.Metadata.Key())
		}
	}
	return ""
}

// leftovers: I7. What nobody wants is gone.
func (w *world) leftovers(g *ledger) string {
	for _, n := range w.nodes {
		for _, c := range n.runtime.All() {
			if p, ok := g.placements[c.Replica]; !ok || p.node != n.name {
				return fmt.Sprintf("%s still has container %s, which nobody wants", n.name, c.ID)
			}
		}
		for _, k := range n.network.Keys() {
			if p, ok := g.placements[k]; !ok || p.node != n.name {
				return fmt.Sprintf("%s still has the network of %s, which nobody wants", n.name, k)
			}
		}
	}
	return ""
}

// notRunning looks whether each replica runs where it is placed.
func (w *world) notRunning(want map[api.ReplicaKey]string) string {
	for _, k := range slices.SortedFunc(maps.Keys(want), compareReplicas) {
		n, ready := w.node(want[k]), 0
		for id, p := range n.runtime.running() {
			if p.spec.Replica == k && n.runtime.serves(id) {
				ready++
			}
		}
		if ready != 1 {
			return fmt.Sprintf("%s runs %d times on %s and is ready", k, ready, n.name)
		}
	}
	return ""
}

// misrouted looks whether every agent sends traffic to all that is ready and to
// nothing else, as far as the services that have all they want go.
func (w *world) misrouted(want map[api.ReplicaKey]string) string {
	for _, n := range w.nodes {
		routes, since := n.routes.current()
		if routes == nil {
			return n.name + " has no session"
		}
		got := map[api.ReplicaKey]bool{}
		for _, e := range routes {
			got[e.Replica] = true
			if want[e.Replica] == "" && w.isGood(e.Replica.ServiceKey()) {
				return fmt.Sprintf("%s sends traffic to %s (session since %s)", n.name, e.Replica, since.Sub(w.began))
			}
			if e.Degraded {
				return fmt.Sprintf("%s: the endpoint %s is still degraded", n.name, e.Replica)
			}
		}
		for k := range want {
			if !got[k] {
				return fmt.Sprintf("%s sends no traffic to %s", n.name, k)
			}
		}
		led := n.traffic.Endpoints()
		if len(led) != len(got) || slices.ContainsFunc(led, func(e wire.Endpoint) bool { return !got[e.Replica] }) {
			return fmt.Sprintf("%s was told to send traffic to %v and does to %v", n.name, routes, led)
		}
	}
	return ""
}

func (w *world) isGood(key api.Key) bool {
	acked, _ := w.user(key).state()
	return !acked.exists || goodImage(acked.image)
}

// misreported asks the leader whether it says so, too.
func (w *world) misreported() string {
	ctx, cancel := context.WithTimeout(w.ctx, askMax)
	defer cancel()
	for _, u := range w.users {
		acked, _ := u.state()
		if !acked.exists || !goodImage(acked.image) {
			continue
		}
		s := &api.Service{}
		err := w.get(ctx, &orchv1.Ref{Kind: api.KindService, Name: u.key.Name}, s)
		if err != nil {
			return fmt.Sprintf("service %s cannot be read: %v", u.key, err)
		}
		if u.global {
			acked.replicas = len(w.nodes)
		}
		if s.Status.Ready != acked.replicas || len(s.Status.Reasons) > 0 {
			return fmt.Sprintf("service %s says %d of %d ready, %v", u.key, s.Status.Ready, acked.replicas, s.Status.Reasons)
		}
	}
	for _, n := range w.nodes {
		x := &api.Node{}
		if err := w.get(ctx, &orchv1.Ref{Kind: api.KindNode, Name: n.name}, x); err != nil {
			return fmt.Sprintf("node %s cannot be read: %v", n.name, err)
		}
		s := x.Status
		if s.Verdict != api.VerdictHealthy && s.Verdict != api.VerdictBack || s.Impaired != "" || !s.DampedUntil.IsZero() {
			return fmt.Sprintf("node %s is %s (%s), impaired %q, damped until %s", n.name, s.Verdict, s.VerdictWhy, s.Impaired, s.DampedUntil)
		}
	}
	fleet := &api.Fleet{}
	if err := w.get(ctx, &orchv1.Ref{Kind: api.KindFleet, Name: "fleet"}, fleet); err != nil {
		return fmt.Sprintf("the fleet cannot be read: %v", err)
	}
	if s := fleet.Status; s.Frozen || w.allFine() && s.Spares+s.SparesWaiting+s.Reliefs > 0 {
		return fmt.Sprintf("the fleet is frozen: %q, %d spares, %d wait, %d reliefs", s.FrozenWhy, s.Spares, s.SparesWaiting, s.Reliefs)
	}
	return ""
}

// get reads from the controller that leads.
func (w *world) get(ctx context.Context, ref *orchv1.Ref, v any) error {
	for i, c := range w.controllers {
		if c.leads() == nil {
			continue
		}
		o, err := w.admins[i].Get(ctx, &orchv1.GetRequest{Ref: ref})
		if err != nil {
			return err
		}
		return json.Unmarshal(o.GetJson(), v)
	}
	return fmt.Errorf("nobody leads")
}

func (w *world) controllersWell(d time.Duration) bool {
	return !slices.ContainsFunc(w.controllers, func(c *ctlMachine) bool { return !c.well(d) })
}

// watch holds what must be so at any time against a well part of the world: I8,
// within awayWithin.
func (w *world) watch(ctx context.Context) {
	for sleep(ctx, time.Second) {
		w.progress.Store(int64(w.now()))
		if !w.controllersWell(settledAfter) {
			continue
		}
		for _, n := range w.nodes {
			routes, since := n.routes.current()
			if routes == nil || time.Since(since) < awayWithin || !n.well(settledAfter) {
				continue
			}
			for _, e := range routes {
				m := w.node(e.Node)
				away := w.net.see(func() bool { return m.off > 0 && time.Since(m.offSince) > awayWithin })
				if away && !e.Degraded {
					w.violate("I8", "%s still sends traffic to %s, though %s has no power for more than %s", n.name, e.Replica, e.Node, awayWithin)
				}
			}
		}
	}
}
