package plan

import (
	"maps"
	"slices"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

// Config is what the core must know of its node.
type Config struct {
	// BootID names the node's present life.
	BootID string
	// Node is its name, for variables that are taken from it.
	Node string
	// Cores is how many the node has; starts keep them busy and no more. Zero
	// means many.
	Cores int
	// Saved is the last assignment from disk; nil if there is none.
	Saved *Saved
	// Endpoints are those by which traffic was led last, from disk: a leader may
	// want some of them kept.
	Endpoints []wire.Endpoint
}

// Core is the agent's picture and its rules. It is not safe for concurrent use:
// one goroutine drives it.
type Core struct {
	cfg Config
	now time.Time
	out []Effect

	// What is assigned.
	incarnation   string
	orphansGo     bool // an operator wants to be rid of those that are there now
	storeRevision int64
	sequence      uint64 // of the last set of this session; 0: none yet
	connected     bool
	whole         bool // this session gave its complete set
	taken         bool // one did, in this life
	mayPrune      bool // the assigned set is known to be all there is
	replicas      map[api.ReplicaKey]*replica
	saveDue       bool
	// anew are replicas of another life of the node whose init containers have not all
	// been run in this one: that they ended well then is no evidence.
	anew         map[api.ReplicaKey]bool
	pruneNetsDue bool
	pruning      uint64 // PruneNetworks is out; 0: none
	volumes      volumes

	// What was observed.
	observed  bool                 // the runtime was listed since the last reset
	byID      map[string]*run      // runs of our replicas, by the runtime's id
	strays    map[string]Container // containers of no replica of ours
	early     map[string]api.Exit  // ends heard of before the start was answered
	observing uint64               // id of the listing under way; 0: none
	observeAt time.Time            // the next full look
	lookedAt  uint64               // the step in which the listing was asked for
	removed   map[string]bool      // removed since
	steps     uint64               // counts events: what changed after a listing was asked for is newer than it

	// What is under way.
	nextID  uint64
	ops     map[uint64]op
	busy    [classes]int
	atOnce  [classes]int
	blocked [classes]queue
	images  map[string]*image
	dirty   []api.ReplicaKey
	isDirty map[api.ReplicaKey]bool

	endpoints map[api.ReplicaKey]wire.Endpoint
	endsWhole bool      // the endpoints of this session are complete
	balanced  uint64    // mark of the last Balance
	balances  []balance // by mark
	ackDue    bool
	ack       Ack

	// What there is to report.
	changed    map[api.ReplicaKey]bool
	gone       map[api.ReplicaKey]bool
	allDue     bool // a complete report is due
	reportAt   time.Time
	reported   time.Time
	adoptUntil time.Time
	unanswered map[string]bool // adopted containers whose readiness is not known yet
	wakeAt     time.Time       // as last told

	// Leases.
	renewals []renewal // without an answer, oldest first
	renewAt  time.Time // the next renewal of all; zero: none
	partedAt time.Time // the session ended; zero: there was none yet
}

// New makes a core from what lies on disk. Nothing happens before Started.
func New(cfg Config) *Core {
	c := &Core{cfg: cfg, atOnce: atOnce(cfg.Cores), replicas: map[api.ReplicaKey]*replica{}, isDirty: map[api.ReplicaKey]bool{},
		ops: map[uint64]op{}, images: map[string]*image{}, endpoints: map[api.ReplicaKey]wire.Endpoint{}, volumes: newVolumes(),
		anew: map[api.ReplicaKey]bool{}}
	c.forget()
	for _, e := range cfg.Endpoints {
		c.endpoints[e.Replica] = e
	}
	if s := cfg.Saved; s != nil {
		c.incarnation, c.storeRevision = s.Incarnation, s.StoreRevision
		for _, k := range s.Anew {
			c.anew[k] = true
		}
		for _, a := range s.Assignments {
			r := newReplica(a)
			// Of another life of the node: its epoch may be void meanwhile.
			r.held = s.BootID != cfg.BootID
			r.unsure = a.Job
			if r.held {
				c.anew[a.Key] = true
			}
			c.replicas[a.Key] = r
			if a.Stopping {
				r.stopOrdered = true
				c.leave(r, stopOrderedWhy)
			}
		}
	}
	return c
}

// forget drops everything observed.
func (c *Core) forget() {
	c.observed, c.observing = false, 0
	c.byID, c.strays, c.early = map[string]*run{}, map[string]Container{}, map[string]api.Exit{}
	c.changed, c.gone, c.unanswered = map[api.ReplicaKey]bool{}, map[api.ReplicaKey]bool{}, map[string]bool{}
}

// StoreRevision at which the assigned set was last known whole, 0 if never: for Hello.
func (c *Core) StoreRevision() int64 { return c.storeRevision }

// Step takes one event and gives what is to be done, in order. Time must not go
// back; if it does, the latest counts.
func (c *Core) Step(ev Event, now time.Time) []Effect {
	if now.After(c.now) {
		c.now = now
	}
	c.steps++
	c.out = nil
	switch ev := ev.(type) {
	case Started:
		c.observe("the agent starts")
	case Connected:
		c.connected, c.whole, c.endsWhole, c.sequence, c.allDue = true, false, false, 0, false
		c.ack, c.ackDue, c.balances = Ack{}, false, nil
		clear(c.volumes.gone)
		c.newSession()
	case Disconnected:
		c.connected, c.whole, c.partedAt = false, false, c.now
		c.newSession()
	case Assigned:
		c.assigned(ev)
	case Endpoints:
		c.takeEndpoints(ev.Set)
	case Programmed:
		c.programmed(ev.Mark)
	case Granted:
		c.granted(ev)
	case LeaseSet:
		c.leaseSet(ev)
	case Unguarded:
		c.unguarded(ev)
	case Slept:
		c.slept(ev.For)
	case RuntimeBack:
		c.observe("the runtime's events arrive again")
	case Observed:
		c.takeObserved(ev)
	case Exited:
		c.exited(ev)
	case Done:
		c.done(ev)
	case Progress:
		c.progress(ev)
	case ImagesChanged:
		c.imagesChanged()
	case Probed:
		c.probed(ev)
	case Tick:
	}
	c.due()
	c.settleAll()
	c.removeVolumes()
	c.flush()
	out := c.out
	c.out = nil
	return out
}

func (c *Core) emit(e Effect) { c.out = append(c.out, e) }

func (c *Core) id() uint64 {
	c.nextID++
	return c.nextID
}

// mark has a replica settled at the end of the step.
func (c *Core) mark(r *replica) { c.markKey(r.key) }

func (c *Core) markKey(k api.ReplicaKey) {
	if !c.isDirty[k] {
		c.isDirty[k] = true
		c.dirty = append(c.dirty, k)
	}
}

// settleAll brings every marked replica a step further, and then those that
// waited for room.
func (c *Core) settleAll() {
	for {
		for len(c.dirty) > 0 {
			k := c.dirty[0]
			c.dirty = c.dirty[1:]
			delete(c.isDirty, k)
			if r := c.replicas[k]; r != nil && c.observed {
				c.settle(r)
			}
		}
		for class := range classes {
			if c.room(class) {
				if k, ok := c.blocked[class].pop(); ok {
					c.markKey(k)
				}
			}
		}
		if c.markUnshared(); len(c.dirty) == 0 {
			return
		}
	}
}

// due does what the clock asks for.
func (c *Core) due() {
	if !c.observeAt.IsZero() && !c.now.Before(c.observeAt) {
		c.observe("it is time for a full look")
	}
	for _, k := range c.sortedKeys() {
		if r := c.replicas[k]; !r.wake.IsZero() && !c.now.Before(r.wake) {
			r.wake = time.Time{}
			c.mark(r)
		}
	}
}

func (c *Core) sortedKeys() []api.ReplicaKey {
	keys := make([]api.ReplicaKey, 0, len(c.replicas))
	for k := range c.replicas {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, compareKeys)
	return keys
}

// NextWake gives the time at which the next Tick is due, and whether one is.
func (c *Core) NextWake() (time.Time, bool) {
	at := c.observeAt
	at = earliest(at, c.reportAt)
	at = earliest(at, c.renewAt)
	at = earliest(at, c.volumes.wake)
	if c.connected && c.allDue && len(c.unanswered) > 0 {
		at = earliest(at, c.adoptUntil)
	}
	for _, r := range c.replicas {
		at = earliest(at, r.wake)
	}
	return at, !at.IsZero()
}

// earliest gives the earlier of two times, of which zero is none.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}

// flush ends a step: renewals, acknowledgement, disk, report, alarm.
func (c *Core) flush() {
	c.renew()
	if c.saveDue {
		c.saveDue = false
		c.emit(SaveAssignment{Saved: c.saved()})
	}
	if c.ackDue && c.connected {
		c.ackDue = false
		c.emit(c.ack)
	}
	c.report()
	if at, ok := c.NextWake(); ok && !at.Equal(c.wakeAt) {
		c.wakeAt = at
		c.emit(Wake{At: at})
	}
}

func (c *Core) saved() Saved {
	s := Saved{Incarnation: c.incarnation, StoreRevision: c.storeRevision, BootID: c.cfg.BootID}
	for _, k := range c.sortedKeys() {
		r := c.replicas[k]
		if r.assigned && (!r.gone || r.stopOrdered) { // what was stopped is not begun anew by the next life
			s.Assignments = append(s.Assignments, r.assignment())
		}
		if r.held { // they wait for a session's word after a restart of the agent, too
			s.BootID = c.cfg.Saved.BootID
		}
	}
	maps.DeleteFunc(c.anew, func(k api.ReplicaKey, _ bool) bool { return c.replicas[k] == nil })
	s.Anew = slices.SortedFunc(maps.Keys(c.anew), compareKeys)
	return s
}
