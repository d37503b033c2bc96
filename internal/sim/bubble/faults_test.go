package bubble

import (
	"context"
	"slices"
	"sync"
	"time"
)

// fault is one kind; act begins it and returns what ends it (nil: nothing does)
// and how long it is to last.
type fault struct {
	name string
	act  func(f *faults) (over func(), lasts time.Duration)
}

// faults makes trouble in one round.
type faults struct {
	w       *world
	r       *chance
	turn    chan struct{} // holds one word: one fault begins or ends at a time
	running sync.WaitGroup
}

// kinds, the likelier ones more than once.
var kinds = []fault{
	{"power-cut", (*faults).powerCut}, {"power-cut", (*faults).powerCut},
	{"rack", (*faults).rack},
	{"agent-kill", (*faults).agentKill}, {"agent-kill", (*faults).agentKill},
	{"agent-restart", (*faults).agentRestart},
	{"agent-pause", (*faults).agentPause}, {"agent-pause", (*faults).agentPause},
	{"stun", (*faults).stun}, {"stun", (*faults).stun},
	{"cut", (*faults).cutNode}, {"cut", (*faults).cutNode},
	{"cut-one-way", (*faults).cutOneWay}, {"cut-one-way", (*faults).cutOneWay},
	{"cut-pair", (*faults).cutPair},
	{"cut-controller", (*faults).cutController},
	{"slow", (*faults).slow},
	{"drop", (*faults).drop}, {"drop", (*faults).drop},
	{"gossip-loss", (*faults).gossipLoss},
	{"controller-kill", (*faults).controllerKill}, {"controller-kill", (*faults).controllerKill},
	{"controller-restart", (*faults).controllerRestart},
	{"controller-pause", (*faults).controllerPause},
	{"store-cut", (*faults).storeCut},
	{"store-unknown", (*faults).storeUnknown}, {"store-unknown", (*faults).storeUnknown},
	{"store-slow", (*faults).storeSlow},
	{"store-leader", (*faults).storeLeader},
	{"containerd-hangs", (*faults).containerdHangs},
	{"crash", (*faults).crash}, {"crash", (*faults).crash}, {"crash", (*faults).crash},
	{"operator", (*faults).operator},
	{"kernel-slow", (*faults).kernelSlow}, {"kernel-slow", (*faults).kernelSlow},
	{"drain", (*faults).drain}, {"drain", (*faults).drain},
}

// run makes trouble for so long; when it returns, every fault has ended.
func (f *faults) run(ctx context.Context) {
	defer f.running.Wait()
	for sleep(ctx, f.r.between(200*time.Millisecond, 15*time.Second)) {
		kind := pick(f.r, kinds)
		f.w.count(kind.name)
		f.turn <- struct{}{}
		over, lasts := kind.act(f)
		<-f.turn
		if over == nil {
			continue
		}
		f.running.Go(func() {
			sleep(ctx, lasts)
			f.turn <- struct{}{}
			over()
			<-f.turn
		})
	}
}

// short outlasts no patience, long outlasts all.
func (f *faults) short() time.Duration { return f.r.between(50*time.Millisecond, 8*time.Second) }
func (f *faults) long() time.Duration  { return f.r.between(300*time.Millisecond, 100*time.Second) }

func (f *faults) node() *node             { return pick(f.r, f.w.nodes) }
func (f *faults) controller() *ctlMachine { return pick(f.r, f.w.controllers) }

func (f *faults) powerCut() (func(), time.Duration) {
	n := f.node()
	over := f.w.net.trouble(n.machine)
	n.powerOff()
	return func() { n.powerOn(); over() }, f.long()
}

// rack has most of the fleet vanish at once: its power goes, or its switch.
func (f *faults) rack() (func(), time.Duration) {
	gone := f.w.nodes[f.r.n(3):][:3]
	if f.r.hits(0.5) {
		var ends []func()
		for _, n := range gone {
			over := f.w.net.trouble(n.machine)
			n.powerOff()
			ends = append(ends, func() { n.powerOn(); over() })
		}
		return func() {
			for _, end := range ends {
				end()
			}
		}, f.long()
	}
	var ms []*machine
	var paths [][2]*machine
	for _, n := range gone {
		f.w.say("%s is cut off, with its rack", n.name)
		ms = append(ms, n.machine)
	}
	for _, m := range ms {
		paths = append(paths, slices.DeleteFunc(f.around(m, true, true), func(p [2]*machine) bool { return slices.Contains(ms, p[0]) && slices.Contains(ms, p[1]) })...)
	}
	over, heal := f.w.net.trouble(ms...), f.cut(paths)
	return func() { f.w.say("the rack is no longer cut off"); heal(); over() }, f.long()
}

func (f *faults) agentKill() (func(), time.Duration) {
	n := f.node()
	over := f.w.net.trouble(n.machine)
	n.stop(true)
	return func() { n.start(); over() }, f.r.between(50*time.Millisecond, 60*time.Second)
}

func (f *faults) agentRestart() (func(), time.Duration) {
	n := f.node()
	over := f.w.net.trouble(n.machine)
	n.stop(false)
	return func() { n.start(); over() }, f.r.between(100*time.Millisecond, 3*time.Second)
}

// hold keeps a process from its network; its goroutines cannot be stopped in a
// bubble.
func (f *faults) hold(m *machine) func() {
	f.w.say("%s: its process is paused", m.name)
	f.w.net.change(func() { m.held++ })
	return func() {
		f.w.say("%s: its process goes on", m.name)
		f.w.net.change(func() { m.held-- })
	}
}

func (f *faults) agentPause() (func(), time.Duration) {
	n := f.node()
	over, resume := f.w.net.trouble(n.machine), f.hold(n.machine)
	return func() { resume(); over() }, f.short()
}

func (f *faults) stun() (func(), time.Duration) {
	n := f.node()
	over, thaw := f.w.net.trouble(n.machine), n.freeze()
	return func() { thaw(); over() }, f.r.between(200*time.Millisecond, 75*time.Second)
}

// cut cuts paths, from and to.
func (f *faults) cut(paths [][2]*machine) func() {
	n := f.w.net
	n.change(func() {
		for _, p := range paths {
			n.cuts[p]++
		}
	})
	return func() {
		n.change(func() {
			for _, p := range paths {
				n.cuts[p]--
				p[0].reachedFrom, p[1].reachedFrom = time.Now(), time.Now()
			}
		})
	}
}

// around gives the paths between a machine and the others; out, in, or both.
func (f *faults) around(m *machine, out, in bool) [][2]*machine {
	var paths [][2]*machine
	for _, x := range f.w.machines() {
		if x == m {
			continue
		}
		if out {
			paths = append(paths, [2]*machine{m, x})
		}
		if in {
			paths = append(paths, [2]*machine{x, m})
		}
	}
	return paths
}

func (f *faults) cutNode() (func(), time.Duration) {
	n := f.node()
	f.w.say("%s is cut off", n.name)
	over, heal := f.w.net.trouble(n.machine), f.cut(f.around(n.machine, true, true))
	return func() { f.w.say("%s is no longer cut off", n.name); heal(); over() }, f.long()
}

func (f *faults) cutOneWay() (func(), time.Duration) {
	n, out := f.node(), f.r.hits(0.5)
	f.w.say("%s %s", n.name, map[bool]string{true: "is not heard by others", false: "does not hear others"}[out])
	over, heal := f.w.net.trouble(n.machine), f.cut(f.around(n.machine, out, !out))
	return func() { f.w.say("%s can speak again", n.name); heal(); over() }, f.long()
}

func (f *faults) cutPair() (func(), time.Duration) {
	n, other := f.node(), pick(f.r, f.w.machines())
	if other == n.machine {
		other = f.w.controllers[0].machine
	}
	f.w.say("%s and %s are cut from each other", n.name, other.name)
	over, heal := f.w.net.trouble(n.machine, other), f.cut([][2]*machine{{n.machine, other}, {other, n.machine}})
	return func() { f.w.say("%s and %s meet again", n.name, other.name); heal(); over() }, f.long()
}

func (f *faults) cutController() (func(), time.Duration) {
	c := f.controller()
	f.w.say("%s is cut off, but from the store", c.name)
	over, heal := f.w.net.trouble(c.machine), f.cut(f.around(c.machine, true, true))
	return func() { f.w.say("%s is no longer cut off", c.name); heal(); over() }, f.r.between(100*time.Millisecond, 30*time.Second)
}

func (f *faults) slow() (func(), time.Duration) {
	m, by := pick(f.r, f.w.machines()), f.r.between(5*time.Millisecond, 300*time.Millisecond)
	f.w.say("%s has a slow link: up to %s", m.name, by)
	over := f.w.net.trouble(m)
	f.w.net.change(func() { m.slow += by })
	return func() { f.w.net.change(func() { m.slow -= by }); over() }, f.long()
}

func (f *faults) drop() (func(), time.Duration) {
	m := pick(f.r, f.w.machines())
	f.w.say("the connections of %s break", m.name)
	over := f.w.net.trouble(m)
	f.w.net.dropAll(m)
	return over, 10 * time.Millisecond
}

func (f *faults) gossipLoss() (func(), time.Duration) {
	share := 0.2 + float64(f.r.n(80))/100
	f.w.say("gossip loses %.0f %% of its packets", 100*share)
	f.w.net.change(func() { f.w.net.lossy += share })
	return func() { f.w.net.change(func() { f.w.net.lossy = max(0, f.w.net.lossy-share) }) }, f.long()
}

func (f *faults) controllerKill() (func(), time.Duration) {
	c := f.controller()
	over := f.w.net.trouble(c.machine)
	c.stop(true)
	return func() { c.start(); over() }, f.short()
}

func (f *faults) controllerRestart() (func(), time.Duration) {
	c := f.controller()
	over := f.w.net.trouble(c.machine)
	c.stop(false)
	return func() { c.start(); over() }, f.short()
}

func (f *faults) controllerPause() (func(), time.Duration) {
	c := f.controller()
	over, resume := f.w.net.trouble(c.machine), f.hold(c.machine)
	return func() { resume(); over() }, f.r.between(200*time.Millisecond, 20*time.Second)
}

func (f *faults) storeCut() (func(), time.Duration) {
	c := f.controller()
	f.w.say("%s is cut from the store", c.name)
	over := f.w.net.trouble(c.machine)
	f.w.net.change(func() { c.storeCut++ })
	return func() { f.w.say("%s has the store again", c.name); f.w.net.change(func() { c.storeCut-- }); over() }, f.r.between(100*time.Millisecond, 60*time.Second)
}

func (f *faults) storeUnknown() (func(), time.Duration) {
	c, silent := f.controller(), f.r.hits(0.5)
	f.w.net.change(func() {
		c.faults = append(c.faults, map[bool]storeFault{true: storeSilent, false: storeForgets}[silent])
	})
	return nil, 0
}

func (f *faults) storeSlow() (func(), time.Duration) {
	c, by := f.controller(), f.r.between(20*time.Millisecond, 3*time.Second)
	f.w.say("the store of %s is slow: up to %s", c.name, by)
	over := f.w.net.trouble(c.machine)
	f.w.net.change(func() { c.storeSlow = by })
	return func() { f.w.net.change(func() { c.storeSlow = 0 }); over() }, f.long()
}

func (f *faults) storeLeader() (func(), time.Duration) {
	c := f.controller()
	if f.w.net.see(c.votes) {
		f.w.say("the store's leader moves to %s", c.name)
		f.w.etcd.move(c.i)
	}
	return nil, 0
}

func (f *faults) containerdHangs() (func(), time.Duration) {
	n := f.node()
	f.w.say("containerd of %s hangs", n.name)
	over := f.w.net.trouble(n.machine)
	f.w.net.change(func() { n.runtime.hung++ })
	return func() {
		f.w.say("containerd of %s answers again", n.name)
		f.w.net.change(func() { n.runtime.hung-- })
		n.runtime.Reconnect()
		over()
	}, f.long()
}

func (f *faults) crash() (func(), time.Duration) {
	n := f.node()
	if what := n.runtime.crash(f.r, f.short()); what != "" {
		f.w.say("%s: %s", n.name, what)
	}
	return nil, 0
}

// operator gives a node that has no power up for dead.
func (f *faults) operator() (func(), time.Duration) {
	i := slices.IndexFunc(f.w.nodes, func(n *node) bool { return f.w.net.see(func() bool { return n.off > 0 }) })
	if i < 0 {
		return nil, 0
	}
	n := f.w.nodes[i]
	f.w.net.change(func() { n.calledDead++ })
	f.running.Go(func() { f.w.operator(f.w.ctx, n, "dead") })
	return nil, 0
}

// machines of nodes and controllers.
func (w *world) machines() []*machine {
	var out []*machine
	for _, n := range w.nodes {
		out = append(out, n.machine)
	}
	for _, c := range w.controllers {
		out = append(out, c.machine)
	}
	return out
}

func (w *world) count(kind string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counts[kind]++
}

func (w *world) bit(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.bits[what]++
}
