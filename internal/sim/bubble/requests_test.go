package bubble

import (
	"context"
	"slices"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

const (
	// requestEvery is the time between two requests of the little client.
	requestEvery = 10 * time.Millisecond
	// newLease is how long a leader has to lead before all agents have found it.
	newLease = 10 * time.Second
)

// request asks, every now and then, what a node leads traffic to: I8, nothing that
// orch itself has stopped or is stopping, where neither end nor a controller had any
// trouble of late. What ends by itself may fail until its agent has said so.
func (w *world) request(ctx context.Context) {
	r := newChance(w.cfg.seed, 5)
	for sleep(ctx, requestEvery) {
		n := w.nodes[r.n(len(w.nodes))]
		ends := n.traffic.Endpoints()
		if len(ends) == 0 {
			continue
		}
		e := ends[r.n(len(ends))]
		w.bit("asked")
		if w.answers(e) {
			continue
		}
		w.bit("lost")
		from, to := n, w.node(e.Node)
		if to.runtime.endedAlone(e.Replica) {
			continue
		}
		if !from.well(settledAfter) || !to.well(settledAfter) || !w.controllersWell(settledAfter) {
			continue
		}
		if _, since := from.routes.current(); since.IsZero() || time.Since(since) < newLease {
			continue
		}
		w.etcd.look(func(g *ledger) {
			at, stopped := g.goneAt[e.Replica]
			if !stopped || time.Since(g.ledSince) < newLease || g.boots[e.Replica] != to.bootID() {
				return
			}
			w.violate("I8", "a request from %s to %s on %s is lost: it is told to stop since %s, and still led to", n.name, e.Replica, e.Node, time.Since(at))
		})
	}
}

// stillLed: I8, likewise in the moment in which a replica is stopped because the
// leader said so.
func (w *world) stillLed(at *node, k api.ReplicaKey) {
	if !at.well(settledAfter) || !w.controllersWell(settledAfter) {
		return
	}
	for _, n := range w.nodes {
		if _, since := n.routes.current(); !n.well(settledAfter) || since.IsZero() || time.Since(since) < newLease {
			continue
		}
		if slices.ContainsFunc(n.traffic.Endpoints(), func(e wire.Endpoint) bool { return e.Replica == k }) {
			w.violate("I8", "%s stops %s, and %s still leads traffic there", at.name, k, n.name)
		}
	}
}

// answers tells whether all of a replica's containers run and have not been told to
// end.
func (w *world) answers(e wire.Endpoint) bool {
	n, running := w.node(e.Node), 0
	for _, p := range n.runtime.running() {
		if p.spec.Replica == e.Replica {
			running++
			if n.runtime.isStopping(p) {
				return false
			}
		}
	}
	return running > 0 && n.net.see(n.runs)
}

func (r *runtime) isStopping(p *process) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return p.stopping != ""
}

// kernelSlow has a node's kernel take long to be programmed: shorter than any
// hand-over waits, so that nothing may be lost by it.
func (f *faults) kernelSlow() (func(), time.Duration) {
	n := f.node()
	if f.w.net.see(func() bool { return n.slowKernel }) {
		return nil, 0
	}
	f.w.say("the kernel of %s takes no rules", n.name)
	f.w.net.change(func() { n.slowKernel = true })
	n.traffic.Hold(true)
	return func() {
		f.w.say("the kernel of %s takes rules again", n.name)
		n.traffic.Hold(false)
		f.w.net.change(func() { n.slowKernel = false })
	}, f.r.between(20*time.Millisecond, 1200*time.Millisecond)
}

// drain empties a node, and opens it some time later.
func (f *faults) drain() (func(), time.Duration) {
	n := f.node()
	if slices.ContainsFunc(f.w.nodes, func(x *node) bool { return f.w.net.see(func() bool { return x.drains > 0 }) }) {
		return nil, 0
	}
	f.w.net.change(func() { n.drains++ })
	f.running.Go(func() { f.w.operator(f.w.ctx, n, "drain") })
	return func() {
		f.running.Go(func() {
			f.w.operator(f.w.ctx, n, "uncordon")
			f.w.net.change(func() { n.drains-- })
		})
	}, f.long()
}
