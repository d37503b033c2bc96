package sim

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/liveness"
	"github.com/orchctl/orch/internal/network"
	"github.com/orchctl/orch/internal/store/mem"
)

const incarnation = "incarnation-1"

// gentleShare is how many runs have no faults but those of gentleFaults.
const (
	gentleShare  = 0.15
	gentleFaults = Commits | Delay | ControllerKill
)

// start is the virtual time at which every run begins.
var start = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// world is everything there is in one run.
type world struct {
	cfg     Config
	r       streams
	queue   queue
	clock   int64 // ns since start
	now     time.Time
	steps   int
	hash    uint64
	limits  liveness.Limits
	budgets core.Budgets

	hosts       []*host
	controllers []*controller
	cuts        map[[2]string]int // how often cut: no packet goes from the first to the second
	full        int64             // until then the store refuses writes
	tenants     tenants
	store       *mem.Store
	ledger      *ledger
	users       []*user
	owners      []*owner
	moved       map[string]int // how often a tag has moved on in the registry
	sessions    uint64
	tickets     uint64

	faults, requests int                   // drawn so far
	plan             *core.RebalanceResult // the last that was answered
	lost             *host                 // never comes back; nil in most runs
	// lingering is until when a commit may be under way that a fault has met.
	lingering int64
	mute      *host         // likewise its agent
	pace      time.Duration // the longest time between two faults
	calm      bool          // faults and users have come to an end
	broken    *Violation
	// gentle: nothing goes wrong with nodes, so no request may be lost.
	gentle bool
	// anew: volumes on the node that never comes back are removed by an operator.
	anew  bool
	drawn network.Cluster // the replicas' network, as controllers are told it
	res   Result
	story []string
	ctx   context.Context
}

func newWorld(c Config) *world {
	w := &world{cfg: c, r: newStreams(c.Seed), now: start, hash: 14695981039346656037, cuts: map[[2]string]int{}, tenants: tenants{map[string][]tenant{}}, store: mem.New(), moved: map[string]int{}, ctx: context.Background()}
	w.res = Result{Config: c, Faults: map[Fault]int{}}
	w.limits, w.budgets, w.drawn = w.drawLimits(), w.drawBudgets(), w.drawNetwork()
	if w.gentle = chance(w.r.world, gentleShare) || c.Without == AllFaults; w.gentle {
		w.cfg.Without |= AllFaults &^ gentleFaults
		w.res.Gentle = 1
		w.budgets.HandoverMax = core.DefaultBudgets().HandoverMax // what agents need to find a new leader is less
	}
	w.ledger = newLedger(w)
	for i := range 3 + w.r.world.IntN(5) {
		w.hosts = append(w.hosts, newHost(w, i))
	}
	for i := range 1 + w.r.world.IntN(3) {
		w.controllers = append(w.controllers, newController(w, i))
	}
	for i := range 3 + w.r.world.IntN(3) {
		w.users = append(w.users, newUser(w, i))
	}
	w.owners, w.anew = newOwners(w), w.r.owners.IntN(2) == 0
	w.say("%d nodes, %d controllers, %d services; a silent node is dead after %s", len(w.hosts), len(w.controllers), len(w.users), w.limits.DeadAfter)
	return w
}

// run lets faults and users act for the steps asked for, then heals everything
// and waits for the world to come to rest.
func (w *world) run() {
	for _, c := range w.controllers {
		c.start()
	}
	for _, h := range w.hosts {
		h.powerOn()
	}
	w.nextRequest()
	w.nextOwned()
	w.nextFault()
	for w.steps < w.cfg.Steps && w.broken == nil {
		w.step()
	}
	if w.broken == nil {
		w.settle()
	}
}

// step lets the next thing happen.
func (w *world) step() {
	h, ok := w.queue.pop()
	if !ok {
		w.violate("sim", "nothing is going to happen any more")
		return
	}
	if h.at > w.clock {
		w.clock = h.at
		w.now = start.Add(time.Duration(h.at))
	}
	if !h.upkeep {
		w.steps++
	}
	w.mix(uint64(h.at))
	defer func() {
		if r := recover(); r != nil {
			w.violate("panic", "%v\n%s", r, debug.Stack())
		}
	}()
	h.do()
}

// runFor lets a while pass.
func (w *world) runFor(d time.Duration) {
	for end := w.clock + int64(d); w.broken == nil && len(w.queue.heap) > 0 && w.queue.heap[0].at <= end; {
		w.step()
	}
}

func (w *world) after(d time.Duration, do func())  { w.queue.push(w.clock+int64(max(d, 0)), false, do) }
func (w *world) upkeep(d time.Duration, do func()) { w.queue.push(w.clock+int64(max(d, 0)), true, do) }

// mix puts a number into the run's hash.
func (w *world) mix(n uint64) { w.hash = (w.hash ^ n) * 1099511628211 }

func (w *world) mixText(s string) {
	for i := range len(s) {
		w.mix(uint64(s[i]))
	}
}

func (w *world) mixKey(k api.ReplicaKey) {
	w.mixText(k.Service)
	w.mix(uint64(k.Slot)<<40 | k.Epoch)
}

// say adds a line to the story. Arguments are rendered only while it is told.
func (w *world) say(format string, args ...any) {
	if !w.cfg.Tell && w.broken == nil {
		return
	}
	w.story = append(w.story, fmt.Sprintf("%9.3fs  ", time.Duration(w.clock).Seconds())+fmt.Sprintf(format, args...))
}

// violate ends the run: an invariant is broken.
func (w *world) violate(invariant, format string, args ...any) {
	if w.broken != nil {
		return
	}
	w.broken = &Violation{Invariant: invariant, What: fmt.Sprintf(format, args...), Step: w.steps, At: time.Duration(w.clock), Settling: w.calm}
	w.say("%s IS BROKEN: %s", invariant, w.broken.What)
}

func (w *world) result() Result {
	r := w.res
	r.Drawn, r.DrawnRequests = w.faults, w.requests
	r.Steps, r.Virtual, r.Hash, r.Violation, r.Story = w.steps, time.Duration(w.clock), w.hash, w.broken, w.story
	return r
}

func (w *world) host(name string) *host {
	for _, h := range w.hosts {
		if h.name == name {
			return h
		}
	}
	return nil
}

// reaches tells whether a packet gets from one machine to the other now.
func (w *world) reaches(from, to string) bool {
	if len(w.cuts) > 0 && w.cuts[[2]string{from, to}] > 0 {
		return false
	}
	return w.isUp(from) && w.isUp(to)
}

func (w *world) isUp(machine string) bool {
	if h := w.host(machine); h != nil {
		return h.on && !h.frozen
	}
	return true // a controller's machine; its process is another matter
}

// again is after how long a packet that is no part of a stream comes once more;
// 0: it does not.
func (w *world) again() time.Duration {
	twice, late := w.r.net.IntN(20) == 0, between(w.r.net, time.Millisecond, 1500*time.Millisecond)
	if !twice || w.calm || w.cfg.Without&Datagrams != 0 {
		return 0
	}
	w.res.Faults[Datagrams]++
	return late
}

// datagram delivers a packet that is no part of a stream: now and then twice,
// and so after others that were sent later.
func (w *world) datagram(deliver func()) {
	w.upkeep(w.latency(), deliver)
	if late := w.again(); late > 0 {
		w.upkeep(late, deliver)
	}
}

// latency of one message.
func (w *world) latency() time.Duration {
	d := between(w.r.net, 100*time.Microsecond, 2*time.Millisecond)
	if !w.calm && w.cfg.Without&Delay == 0 && w.r.net.IntN(100) == 0 {
		d += between(w.r.net, 5*time.Millisecond, 400*time.Millisecond)
		w.res.Faults[Delay]++
	}
	return d
}
