package core

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/liveness"
	"github.com/orchctl/orch/internal/network"
	"github.com/orchctl/orch/internal/store"
	"github.com/orchctl/orch/internal/wire"
	"github.com/orchctl/orch/scheduler"
)

// Errors that answers carry; the API turns them into status codes.
var (
	ErrNotFound = errors.New("not found")
	// ErrChanged: the object is not what the caller thinks it is.
	ErrChanged = errors.New("changed since")
	// ErrInvalid: what was asked can never work as it stands.
	ErrInvalid = errors.New("invalid")
	// ErrBusy: it cannot be done now, but later.
	ErrBusy = errors.New("not now")
)

// Config is what a term starts with.
type Config struct {
	// Incarnation of the store, and the leader's term.
	Incarnation string
	Term        uint64
	// BootID is that of the leader's own host: an agent there is cut off with it,
	// and is no witness. Empty: not known.
	BootID string
	// Limits of one transaction.
	Limits   store.Limits
	Liveness liveness.Limits
	// RevisionHistory is how many revisions of a service are kept; 0 means 10.
	RevisionHistory int
	// EventHistory is how many events of a namespace are kept; 0 means 1,000.
	EventHistory int
	// VerdictHistory is how many verdict records of a node are kept; 0 means 100.
	VerdictHistory int
	Budgets        Budgets
	// KeptPorts are ports of the nodes that no service may have there, and whose they
	// are in words: published, they would lead what is meant for those elsewhere.
	KeptPorts map[api.HostPort]string
	// Network is the replicas' network where the store does not say yet; the zero
	// value means network.DefaultCluster.
	Network network.Cluster
}

// Core is the leader's picture and mind for one term. Not safe for concurrent use.
type Core struct {
	cfg      Config
	services map[api.Key]*service
	nodes    map[string]*node
	byName   []*node // see sortedNodes; empty: to be made
	fillings map[api.ReplicaKey]*filling
	configs  map[configID]*config
	pullers  map[configID]map[revisionOf]bool // kept revisions whose templates pull with a Secret, there or not
	volumes  volumes
	listed   map[wire.ConfigKey]*configVersion // to be sealed anew; see reseal
	fleet    *scheduler.Fleet
	live     *liveness.Machine
	history  *history
	words    lastWords

	dirty   map[api.Key]bool // to be planned by the next Turn
	blocked map[api.Key]bool // hold replicas that found no node; see roomMade
	wakes   map[api.Key]time.Time
	globals map[api.Key]bool // services whose slots belong to nodes

	counters, written counters
	batches           []*batch
	inflight          bool
	failed            bool
	seq               uint64
	rev               int64

	back  map[string]bool // nodes whose return is not settled
	fresh map[string]bool // nodes whose session has no endpoint set yet
	ends  endpoints
	view  view

	addresses addresses
	claims    claims

	unknown map[string]bool // nodes of which nothing is known yet in this term
	tally   tally
	frozen  frozen
	records []*entry // changed in this turn

	budgets   Budgets
	handovers handovers
	spending  spending
	reliefs   reliefs
	relieved  map[api.Key]bool // services with a relief under way

	began    time.Time          // this term did
	quorumAt time.Time          // when the newest commit that succeeded was sent
	renewals map[string][]Renew // held until a quorum has answered, by node

	requests *requests
	answers  []Reply // of this turn; see answer
	now      time.Time
	out      []Effect
}

// New makes the core of a new term; Load gives it its picture, Begin starts it.
func New(cfg Config) *Core {
	cfg.RevisionHistory = cmp.Or(cfg.RevisionHistory, 10)
	cfg.EventHistory = cmp.Or(cfg.EventHistory, 1000)
	cfg.VerdictHistory = cmp.Or(cfg.VerdictHistory, 100)
	if cfg.Limits == (store.Limits{}) {
		cfg.Limits = store.EmbeddedLimits
	}
	return &Core{
		cfg: cfg, services: map[api.Key]*service{}, nodes: map[string]*node{}, fillings: map[api.ReplicaKey]*filling{}, configs: map[configID]*config{}, pullers: map[configID]map[revisionOf]bool{}, volumes: newVolumes(), listed: map[wire.ConfigKey]*configVersion{},
		fleet: scheduler.NewFleet(), live: liveness.New(cfg.Liveness), history: newHistory(cfg.EventHistory), words: newLastWords(),
		dirty: map[api.Key]bool{}, blocked: map[api.Key]bool{}, wakes: map[api.Key]time.Time{}, globals: map[api.Key]bool{},
		back: map[string]bool{}, fresh: map[string]bool{}, ends: newEndpoints(), view: newView(),
		addresses: newAddresses(), claims: newClaims(),
		unknown: map[string]bool{}, requests: newRequests(), tally: tally{of: map[api.Verdict]int{}},
		budgets: cfg.Budgets.withDefaults(), spending: spending{short: map[api.Key]bool{}},
		reliefs: reliefs{ailing: map[string]bool{}, drains: map[string]bool{}, failing: map[api.ReplicaKey]bool{}}, relieved: map[api.Key]bool{}, renewals: map[string][]Renew{},
	}
}

// Begin starts the term: every node has a grace to return.
func (c *Core) Begin(now time.Time) []Effect {
	c.now, c.began = now, now
	c.beginNetwork()
	c.event("", api.KindFleet, api.FleetName, api.EventNormal, "LeaderElected", fmt.Sprintf("term %d begins with %s and %s", c.cfg.Term, count(len(c.services), "service or job", "services and jobs"), count(len(c.nodes), "node", "nodes")))
	unreached := c.unreached()
	for _, n := range c.sortedNodes() {
		last := liveness.Unknown
		switch {
		case n.obj.Status.Verdict == api.VerdictDead:
			last = liveness.Dead
		case unreached[n.name]:
			last = liveness.Suspect
		}
		if last != liveness.Dead {
			c.unknown[n.name] = true
		}
		c.liveStep(liveness.NodeAdded{Node: n.name, Verdict: last, BootID: n.obj.Status.BootID})
	}
	c.liveStep(liveness.LeaderStarted{BootID: c.cfg.BootID})
	c.beginHandovers()
	c.beginConfigs()
	c.beginDrains()
	for _, n := range c.sortedNodes() {
		c.fleet.SetNode(n.forScheduler())
	}
	return c.take()
}

// unreached are nodes whose replicas have spares: the term before took them for
// suspect, and they must come back by way of Back so that one of the two goes.
func (c *Core) unreached() map[string]bool {
	out := map[string]bool{}
	for _, s := range c.services {
		spared := map[int]bool{}
		for _, f := range s.fillings {
			spared[f.key.Slot] = spared[f.key.Slot] || f.spare && !f.stopping
		}
		for _, f := range s.fillings {
			if spared[f.key.Slot] && !f.spare {
				out[f.node] = true
			}
		}
	}
	return out
}

// Step takes one event. Planning waits for Turn, so that a burst of events is
// planned for once.
func (c *Core) Step(ev Event, now time.Time) []Effect {
	if c.failed {
		return nil
	}
	c.now = later(c.now, now)
	switch ev := ev.(type) {
	case Apply:
		c.apply(ev)
	case Scale:
		c.scale(ev)
	case Rollout:
		c.rollout(ev)
	case Delete:
		c.delete(ev)
	case NodeWord:
		c.nodeWord(ev)
	case Write:
		if err := c.fits("write", ev.Ops); err != nil {
			c.answer(ev.Ticket, nil, err)
			break
		}
		c.write(ev.Ops...)
		c.answer(ev.Ticket, nil, nil)
	case ListSealed:
		c.listSealed(ev)
	case Reseal:
		c.reseal(ev)
	case Explain:
		c.explain(ev)
	case Recall:
		c.recall(ev)
	case SessionOpened:
		c.sessionOpened(ev)
	case NodeCloned:
		if c.nodes[ev.Node] != nil {
			c.event("", api.KindNode, ev.Node, api.EventWarning, "NodeCloned", ev.Why)
		}
	case SessionClosed:
		c.sessionClosed(ev)
	case Status:
		c.status(ev)
	case Acked:
		c.acked(ev)
	case Rebalance:
		c.rebalance(ev)
	case Beat:
		if n := c.current(ev.Node, ev.Session); n != nil {
			c.liveStep(liveness.Beat{Node: ev.Node, Seq: ev.Seq, Check: liveness.SelfCheck(ev.Check)})
		}
	case Renew:
		c.renew(ev)
	case Thaw:
		c.thaw(ev)
	case Witnessed:
		c.liveStep(liveness.WitnessReport{Observer: ev.Observer, Target: ev.Target, AskID: ev.AskID, HostAnswers: ev.HostAnswers,
			PortsAsked: ev.PortsAsked, PortsAnswered: ev.PortsAnswered, How: ev.How})
	case Gossip:
		c.liveStep(liveness.GossipHint{Node: ev.Node, Alive: ev.Alive})
	case Stalled:
		c.liveStep(liveness.LeaderStalled{For: ev.For})
		c.reliefs.stalledAt, c.reliefs.due = c.now, true
		c.doubtQuorum()
	case Committed:
		c.committed(ev)
	case Tick:
		c.tick()
	}
	return c.take()
}

// answer answers an API call at the end of the turn: after what it changed is
// published, and behind everything that is not committed yet, so that whoever
// has an answer sees what it speaks of.
func (c *Core) answer(ticket uint64, value any, err error) {
	c.answers = append(c.answers, Reply{Ticket: ticket, Value: value, Err: err})
}

// Turn plans for everything that is dirty, publishes what changed, answers and
// sends the next transaction. The driver calls it when its inbox is empty.
func (c *Core) Turn(now time.Time) []Effect {
	if c.failed {
		return nil
	}
	c.now = later(c.now, now)
	c.planDirty()
	c.settleBack()
	c.settleEndpoints()
	c.sendNetwork() // first the way, then the traffic
	c.sendEndpoints()
	c.settleHandovers()
	c.settleDrains()
	c.writeRecords()
	c.publish()
	for _, a := range c.answers {
		c.emit(a)
	}
	c.answers = nil
	c.flush()
	return c.take()
}

// Failed tells whether a commit failed: this core is to be dropped.
func (c *Core) Failed() bool { return c.failed }

// Verdict is what is held of a node's life now; empty for a node not known.
func (c *Core) Verdict(node string) api.Verdict {
	if n := c.nodes[node]; n != nil {
		return n.verdict
	}
	return ""
}

// Trouble tells what is held of a node beside its verdict.
func (c *Core) Trouble(node string) (impaired, damped bool) {
	n := c.nodes[node]
	return n != nil && n.impaired != "", n != nil && !n.dampedUntil.IsZero()
}

// Frozen tells whether so many nodes vanished that none dies by its silence.
func (c *Core) Frozen() bool { return c.frozen.on }

// NextWake is when Tick is due; false means never.
func (c *Core) NextWake() (time.Time, bool) {
	at, ok := c.live.NextWake()
	if !ok {
		at = time.Time{}
	}
	at = earliest(earliest(at, c.reliefs.at), c.nextHandover())
	for _, w := range c.wakes {
		at = earliest(at, w)
	}
	return at, !at.IsZero()
}

func (c *Core) tick() {
	if at, ok := c.live.NextWake(); ok && !at.After(c.now) {
		c.liveStep(liveness.Tick{})
	}
	if at := c.reliefs.at; !at.IsZero() && !at.After(c.now) {
		c.reliefs.due = true
	}
	for key, at := range c.wakes {
		if !at.After(c.now) {
			delete(c.wakes, key)
			if s := c.services[key]; s != nil {
				c.markDirty(s)
				c.unsettle(key)
			}
		}
	}
}

func (c *Core) take() []Effect {
	out := c.out
	c.out = nil
	return out
}

func (c *Core) markDirty(s *service) { c.dirty[s.key] = true }

// touch has the filling's service planned, and the filling published anew.
func (c *Core) touch(f *filling) {
	c.view.touchFilling(f)
	c.markDirty(c.services[f.key.ServiceKey()])
}

// roomMade gives services that lack a node for some replica another try.
func (c *Core) roomMade() {
	c.reliefs.due = true
	for key := range c.blocked {
		c.dirty[key] = true
	}
	for key := range c.spending.short {
		c.dirty[key] = true
	}
}

func (c *Core) sortedServices() []*service {
	out := make([]*service, 0, len(c.services))
	for _, s := range c.services {
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b *service) int { return compareKeys(a.key, b.key) })
	return out
}

// sortedNodes are all nodes by name; do not change the slice. It is asked for in
// many turns, and made anew when a node came or went.
func (c *Core) sortedNodes() []*node {
	if len(c.byName) != len(c.nodes) {
		c.byName = slices.SortedFunc(maps.Values(c.nodes), func(a, b *node) int { return cmp.Compare(a.name, b.name) })
	}
	return c.byName
}

func sortedKeys(of map[api.Key]bool) []api.Key { return slices.SortedFunc(maps.Keys(of), compareKeys) }

func compareKeys(a, b api.Key) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

func compareReplicas(a, b api.ReplicaKey) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Service, b.Service), cmp.Compare(a.Slot, b.Slot), cmp.Compare(a.Epoch, b.Epoch))
}
