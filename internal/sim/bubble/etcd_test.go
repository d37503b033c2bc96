package bubble

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/controller/election"
	"github.com/orchctl/orch/internal/store"
	"github.com/orchctl/orch/internal/store/mem"
)

const (
	// commitMin and commitMax are what a healthy etcd needs for a round trip.
	commitMin, commitMax = 300 * time.Microsecond, 3 * time.Millisecond
	// electionAfter is how long etcd's leader must be unreachable until another
	// member leads.
	electionAfter = time.Second
	// keepRevisions are left by a compaction.
	keepRevisions = 1000
)

// etcd is the store of all controllers. Every write passes the ledger in the
// moment in which it takes effect.
type etcd struct {
	w   *world
	mem *mem.Store

	mu      sync.Mutex // makes a write and the ledger's look at it one step
	ledger  *ledger
	commits int
	// decided are the transactions that touch what is decided, not only what is
	// told of it.
	decided int

	leading sync.Mutex
	leader  int // index of the controller beside which etcd's leader runs
	changed chan struct{}
}

func newEtcd(w *world) *etcd {
	return &etcd{w: w, mem: mem.New(), ledger: newLedger(w), changed: make(chan struct{})}
}

// move makes the member of controller i lead etcd.
func (e *etcd) move(i int) {
	e.leading.Lock()
	e.leader = i
	close(e.changed)
	e.changed = make(chan struct{})
	e.leading.Unlock()
	e.w.net.change(func() {}) // elect is to watch the new one
}

func (e *etcd) isLeader(i int) bool {
	e.leading.Lock()
	defer e.leading.Unlock()
	return e.leader == i
}

// elect gives the lead to another member when the leader's was away for long.
func (e *etcd) elect(ctx context.Context) {
	n := e.w.net
	for ctx.Err() == nil {
		var lead *ctlMachine
		gone := func() bool {
			lead = e.w.controllers[e.leaderIndex()]
			return !lead.votes()
		}
		if !n.until(gone, ctx.Done()) {
			return
		}
		if !sleep(ctx, electionAfter) {
			return
		}
		i := slices.IndexFunc(e.w.controllers, func(c *ctlMachine) bool { return n.see(c.votes) })
		if i < 0 {
			n.until(func() bool {
				return slices.ContainsFunc(e.w.controllers, func(c *ctlMachine) bool { return c.votes() })
			}, ctx.Done())
			continue
		}
		if !n.see(lead.votes) && e.leaderIndex() == lead.i {
			e.move(i)
		}
	}
}

func (e *etcd) leaderIndex() int {
	e.leading.Lock()
	defer e.leading.Unlock()
	return e.leader
}

// upkeep compacts history, as etcd does.
func (e *etcd) upkeep(ctx context.Context) {
	for sleep(ctx, 5*time.Minute) {
		if _, rev, err := e.mem.Range(ctx, election.LeaderKey); err == nil && rev > keepRevisions {
			if err := e.mem.Compact(ctx, rev-keepRevisions); err != nil {
				e.w.say("compact: %v", err)
			}
		}
	}
}

// decides tells an op on services, revisions and placements from what time alone
// may write: events, verdicts, the end of a node's damping.
func decides(op store.Op) bool {
	what, _, _ := strings.Cut(strings.TrimPrefix(op.Key, core.Prefix), "/")
	return what == "services" || what == "revisions" || what == "placements"
}

// count of the transactions that decided something.
func (e *etcd) count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.decided
}

// look reads the ledger.
func (e *etcd) look(f func(*ledger)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f(e.ledger)
}

// member is etcd as one life of a controller has it: a store.Store and an
// election.EtcdMember.
type member struct {
	*etcd
	c *ctlMachine
	p *proc
}

// Limits implements store.Store, as do the methods below.
func (m *member) Limits() store.Limits { return m.mem.Limits() }

// Close leaves the store to the others.
func (m *member) Close() error { return nil }

// there waits until this member has a quorum.
func (m *member) there(ctx context.Context) bool {
	sleep(ctx, m.w.disk.between(commitMin, commitMax)+m.c.storeDelay())
	n := m.w.net
	return n.until(m.c.votes, ctx.Done(), m.p.gone) && !m.p.isGone() && ctx.Err() == nil
}

// Txn may end with store.ErrUnknown, written or not.
func (m *member) Txn(ctx context.Context, t store.Txn) (int64, error) {
	unknown := func(why string) (int64, error) {
		return 0, fmt.Errorf("write transaction: %w: %s", store.ErrUnknown, why)
	}
	if !m.there(ctx) {
		if err := ctx.Err(); err == nil || m.p.isGone() || m.w.disk.hits(0.5) {
			return unknown("no quorum")
		}
		// It was sent before the cut, and is written when nobody waits any more.
		if rev, err := m.write(t); err == nil {
			m.w.say("%s: a transaction was written at %d after it was given up", m.c.name, rev)
		}
		return unknown("no quorum")
	}
	switch m.c.takeStoreFault() {
	case storeForgets:
		m.w.say("%s: a transaction of %d ops is lost", m.c.name, len(t.Then))
		return unknown("connection lost")
	case storeSilent:
		_, err := m.write(t)
		m.w.say("%s: the result of a transaction of %d ops is lost (%v)", m.c.name, len(t.Then), err)
		return unknown("connection lost")
	}
	rev, err := m.write(t)
	if m.p.isGone() {
		return unknown("killed")
	}
	return rev, err
}

// write does it, with the ledger's look at it.
func (m *member) write(t store.Txn) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	rev, err := m.mem.Txn(context.Background(), t)
	if err == nil && len(t.Then) > 0 {
		m.commits++
		if slices.ContainsFunc(t.Then, decides) {
			m.decided++
		}
		m.ledger.written(m.c, t, rev)
	}
	return rev, err
}

// Range waits for a quorum.
func (m *member) Range(ctx context.Context, prefix string) ([]store.KV, int64, error) {
	if !m.there(ctx) {
		if err := ctx.Err(); err != nil {
			return nil, 0, fmt.Errorf("read %q: %w", prefix, err)
		}
		return nil, 0, fmt.Errorf("read %q: %w", prefix, store.ErrClosed)
	}
	return m.mem.Range(ctx, prefix)
}

// Watch holds back what happens while there is no quorum.
func (m *member) Watch(ctx context.Context, prefix string, from int64) store.Watcher {
	w := &watcher{inner: m.mem.Watch(ctx, prefix, from), out: make(chan store.Change)}
	go func() {
		defer close(w.out)
		for c := range w.inner.Changes() {
			if !m.there(ctx) {
				for range w.inner.Changes() { // until ctx ends
				}
				return
			}
			select {
			case w.out <- c:
			case <-ctx.Done():
			}
		}
	}()
	return w
}

type watcher struct {
	inner store.Watcher
	out   chan store.Change
}

// Changes implements store.Watcher, as does Err.
func (w *watcher) Changes() <-chan store.Change { return w.out }

// Err is why it ended.
func (w *watcher) Err() error { return w.inner.Err() }

// IsLeader implements election.EtcdMember, as does LeaderChanged.
func (m *member) IsLeader() bool { return m.isLeader(m.c.i) }

// LeaderChanged is closed at the next election.
func (m *member) LeaderChanged() <-chan struct{} {
	m.leading.Lock()
	defer m.leading.Unlock()
	return m.etcd.changed
}
