package core

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/store"
	"github.com/orchctl/orch/reconciler"
	"github.com/orchctl/orch/scheduler"
)

// service is one service with its revisions and everything that fills its slots.
type service struct {
	key           api.Key
	obj           api.Service
	job           *job  // nil: it is none; else obj is what it has in common with services
	fresh         bool  // its newest revision is not written yet
	ended         int64 // the revision whose outcome is not written yet; 0: none
	progress      progress
	revisions     map[int64]*revision
	fillings      []*filling          // sorted by slot, then epoch
	refused       map[int]refusal     // slots that found no node, by slot
	refusedBefore map[int]refusal     // of the plan before, so that news can be told from what lasts
	nextToBegin   []reconciler.Action // see beginNext
	waiting       []string            // what a rollout waits for, in words
	// settled are references, by the root of their revisions, of which this leader knows
	// that nothing is found out any more; see pinlate.go.
	settled map[int64]map[string]bool

	seats      seats           // of a global one
	binding    int             // fillings with volumes
	exclusives int             // fillings of a revision that is exclusive
	reliefs    map[int]*relief // under way, by slot; nil: none is
	tries      map[int]*tries  // of replicas that fail where they are, by slot
	placeless  bool            // nowhere to go for what is exclusive and to be relieved, as last looked
	used       usage           // of the budgets
	budgeted   []string        // what waits for a budget, in words
	overBudget int             // spares that do
	held       map[string]int  // spares that wait for a budget or a node, by the incumbent's node
	heldBefore map[string]int  // as last noted with the nodes' verdicts
	bare       bool            // no endpoint is known to be well
	traced     traced
}

type revision struct {
	api.Revision
	shape *scheduler.Shape
	ports []api.Port
	// volumes by name, sorted.
	volumes []string
	// requested by all containers.
	requested amounts
	// assumed: of a dry run, nobody is asked what its images mean.
	assumed bool
}

// final tells whether a container that is to run as long as the replica has ended for
// good: then that will never be ready.
func (r *revision) final(s api.ReplicaStatus) bool {
	return slices.ContainsFunc(s.Containers, func(x api.ContainerStatus) bool {
		return x.State == api.ContainerExited && !slices.ContainsFunc(r.Template.InitContainers, func(i api.Container) bool { return i.Name == x.Name })
	})
}

// refusal is a replica that wants a node and found none.
type refusal struct {
	revision int64
	spare    bool
	reason   string
	since    time.Time
}

// filling is one placement: durable where it is, soft what it does there.
type filling struct {
	key        api.ReplicaKey
	node       string
	bootID     string
	revision   int64
	serviceUID string
	spare      bool
	stopping   bool
	why        string
	chosen     string // by what its node was, in words
	placedAt   time.Time
	trace      string // see trace.go

	// From the revision: the ports of all containers that run on, whether they are its node's,
	// whether it is exclusive, and its lease; 0: it needs none.
	ports       []api.Port
	hostNetwork bool
	exclusive   bool
	job         bool // its service is one
	lease       time.Duration
	volumes     []string

	void bool // its node's life is over: nothing is there to stop
	// See lease.go. lapsed: void, and kept until its fence has passed. over: it
	// surely runs no more. inherited: placed by a leader before this one. granted:
	// when this one last granted it a lease.
	lapsed, over, inherited bool
	granted                 time.Time

	relieve string // why it is being relieved
	moving  string // why it is moved though its node is well
	doubted bool   // its node was suspect since it last answered

	// How often its containers ended in a row, and how often before that does not
	// count; see elsewhere.go.
	inRow, endsForgiven int

	// handing: it is stopping, and its agent is not told yet. withdrawn is the
	// version of the endpoints that is without it; see handover.go.
	handing     bool
	withdrawn   uint64
	wasEndpoint bool // in this term
	untold      bool // it was to be told, and its node had no session

	sent       uint64 // sequence of the assignment set that told of it last, in this session
	loaded     bool   // from the store, and not heard of since
	reported   bool   // in this session of its node
	status     api.ReplicaStatus
	found      map[string]string // digests of references that its revision has none for
	readySince time.Time         // zero: not ready

	// See failing.go. wasReady: ever, as this leader saw; counted: for as long as it
	// takes. endsBefore are how often its containers had ended before it saw.
	wasReady         bool
	counted          bool
	carried          int // ends in a row of those in its slot before
	endsBefore       map[string]int
	unstartableSince time.Time // zero: it may be started, for all that is known
}

func newService(key api.Key) *service {
	return &service{key: key, revisions: map[int64]*revision{}, refused: map[int]refusal{}}
}

// serviceOf gives the service, making room for one whose object was not read yet.
func (c *Core) serviceOf(key api.Key) *service {
	s := c.services[key]
	if s == nil {
		s = newService(key)
		c.services[key] = s
	}
	return s
}

func (s *service) deleting() bool { return !s.obj.Metadata.DeletedAt.IsZero() }

func (s *service) newest() *revision { return s.revisions[s.obj.Status.Revision] }

func (s *service) addRevision(r *api.Revision) {
	rev := &revision{Revision: *r, shape: scheduler.NewShape(r.Template), requested: requested(&r.Template), volumes: r.Template.Volumes()}
	for _, ct := range r.Template.LongRunning() {
		rev.ports = append(rev.ports, ct.Ports...)
	}
	s.revisions[r.Number] = rev
}

// inSlot are the slot's fillings; do not change the slice.
func (s *service) inSlot(slot int) []*filling {
	from, _ := slices.BinarySearchFunc(s.fillings, slot, func(f *filling, slot int) int { return cmp.Compare(f.key.Slot, slot) })
	to := from
	for to < len(s.fillings) && s.fillings[to].key.Slot == slot {
		to++
	}
	return s.fillings[from:to]
}

func (s *service) insert(f *filling) {
	i, _ := slices.BinarySearchFunc(s.fillings, f, func(a, b *filling) int { return compareReplicas(a.key, b.key) })
	s.fillings = slices.Insert(s.fillings, i, f)
	s.seats.settled = false
}

// index makes a filling known to everything that looks things up by it.
func (c *Core) index(f *filling, r *revision) {
	c.fillings[f.key] = f
	f.job = c.services[f.key.ServiceKey()].job != nil
	f.ports, f.hostNetwork, f.exclusive, f.lease = r.ports, r.Template.HostNetwork, r.Template.Exclusive, r.Template.Lease()
	if f.volumes = r.volumes; len(f.volumes) > 0 {
		c.services[f.key.ServiceKey()].binding++
		c.touchVolumes(f)
	}
	if f.exclusive {
		c.services[f.key.ServiceKey()].exclusives++
	}
	c.fleet.Bind(f.key, f.node, r.shape)
	c.view.touchFilling(f)
	if n := c.nodes[f.node]; n != nil {
		n.fillings[f.key] = f
		c.view.touchNode(n)
	} else { // removed by an operator; the filling's record has yet to go
		f.void = true
	}
	if f.status.Phase == "" {
		f.status.Phase = api.PhaseAssigned
	}
}

// lose forgets a filling whose node's life is over, and says so; an exclusive one
// only when it surely runs no more.
func (c *Core) lose(s *service, f *filling, why string) {
	c.event(f.key.Namespace, api.KindReplica, f.key.Name(), api.EventWarning, "Lost", fmt.Sprintf("on %s: %s", f.node, why))
	if c.fenced(s, f) {
		c.lapse(s, f, why)
		return
	}
	c.drop(s, f)
}

// drop forgets a filling whose record goes.
func (c *Core) drop(s *service, f *filling) {
	c.partWords(f)
	s.fillings = slices.DeleteFunc(s.fillings, func(x *filling) bool { return x == f })
	s.seats.settled = false
	delete(c.fillings, f.key)
	delete(c.reliefs.failing, f.key)
	if n := c.nodes[f.node]; n != nil {
		delete(n.fillings, f.key)
		c.view.touchNode(n)
	}
	if f.exclusive {
		s.exclusives--
	}
	if len(f.volumes) > 0 {
		s.binding--
		c.touchVolumes(f)
	}
	c.fleet.Unbind(f.key)
	c.withdraw(f)
	c.unsettle(s.key)
	c.view.forgetFilling(f)
	c.write(store.Delete(placementKey(f.key)))
	c.sendToNode(f.node, dropOf(f.key))
	c.markDirty(s)
	c.roomMade()
}

// removeIfDone forgets a deleted service once nothing fills its slots.
func (c *Core) removeIfDone(s *service) bool {
	if !s.deleting() || len(s.fillings) > 0 {
		return false
	}
	ops := []store.Op{store.Delete(s.record().Key)}
	if s.job != nil {
		c.forgetOutcomes(s)
	}
	for _, n := range slices.Sorted(maps.Keys(s.revisions)) {
		// Key by key: a prefix may not be deleted beside a put below it, and one
		// may still be gathering in this batch.
		ops = append(ops, store.Delete(revisionKey(s.key, n)))
		c.view.touchRevision(s.key, n)
	}
	c.write(ops...)
	for _, n := range slices.Sorted(maps.Keys(s.revisions)) {
		c.forgetUser(s.key, s.revisions[n])
	}
	c.event(s.key.Namespace, s.kind(), s.key.Name, api.EventNormal, "Deleted", "every replica is gone")
	delete(c.services, s.key)
	c.unclaimPorts(s.key)
	c.ends.dropService(s.key)
	c.returnVIP(s)
	delete(c.dirty, s.key)
	delete(c.blocked, s.key)
	delete(c.wakes, s.key)
	delete(c.globals, s.key)
	c.forgetBudgets(s)
	delete(c.history.ofOne, s.key)
	c.view.forget(s)
	return true
}
