package bubble

import (
	"cmp"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/controller/election"
	"github.com/orchctl/orch/internal/store"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// ledger is what the store holds, decoded, and what it ever held. It is read and
// written under etcd's lock.
type ledger struct {
	w          *world
	holder     election.Holder
	ledSince   time.Time // when it came to hold
	services   map[api.Key]*api.Service
	revisions  map[revisionKey]*api.Revision
	placements map[api.ReplicaKey]placement
	nodes      map[string]*api.Node
	requests   map[string]bool // ever done, by id

	epochs map[uint64]api.ReplicaKey
	// boots is the life of the node that each placement ever was committed to,
	// goneAt when its removal was.
	boots  map[api.ReplicaKey]string
	goneAt map[api.ReplicaKey]time.Time
	// deadAt is when a node's verdict became dead.
	deadAt map[string]time.Time

	// stable is the image that each service had when a revision of it was rolled out
	// well last; bornAt when its newest revision was made.
	stable map[string]string
	bornAt map[string]time.Time

	spares, stops, voids int
}

// rollback is a revision that nobody asked for, because the one before failed.
type rollback struct {
	cause, stable string
	// lasted is how long the one before was the newest.
	lasted time.Duration
}

// change is one of a service.
type change struct {
	key      api.Key
	old, now *api.Service
}

type placement struct {
	node, boot      string
	revision        int64
	spare, stopping bool
	since           time.Time
}

type revisionKey struct {
	service api.Key
	number  int64
}

func newLedger(w *world) *ledger {
	return &ledger{w: w, services: map[api.Key]*api.Service{}, revisions: map[revisionKey]*api.Revision{}, placements: map[api.ReplicaKey]placement{},
		nodes: map[string]*api.Node{}, requests: map[string]bool{}, epochs: map[uint64]api.ReplicaKey{}, boots: map[api.ReplicaKey]string{},
		goneAt: map[api.ReplicaKey]time.Time{}, deadAt: map[string]time.Time{}, stable: map[string]string{}, bornAt: map[string]time.Time{}}
}

func compareReplicas(a, b api.ReplicaKey) int {
	return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Slot, b.Slot), cmp.Compare(a.Epoch, b.Epoch))
}

// of gives a service's placements, sorted.
func (g *ledger) of(s api.Key) []api.ReplicaKey {
	var out []api.ReplicaKey
	for k := range g.placements {
		if k.ServiceKey() == s {
			out = append(out, k)
		}
	}
	slices.SortFunc(out, compareReplicas)
	return out
}

func (g *ledger) template(k api.ReplicaKey, revision int64) *api.Template {
	if r := g.revisions[revisionKey{k.ServiceKey(), revision}]; r != nil {
		return &r.Template
	}
	return nil
}

// written takes up a transaction in the moment in which it takes effect.
func (g *ledger) written(by *ctlMachine, t store.Txn, rev int64) {
	g.fenced(by, t, rev)
	before := g.snapshot()
	var stopped, gone, placed []api.ReplicaKey
	done := g.done(t)
	var written []change
	var backs []*api.Revision
	for _, op := range t.Then {
		if op.Kind == store.OpDeletePrefix {
			g.w.violate("sim", "a prefix is deleted, which the ledger does not know: %s", op.Key)
			continue
		}
		deleted := op.Kind == store.OpDelete
		if op.Key == election.LeaderKey {
			g.leader(op.Value)
			continue
		}
		rest, ours := strings.CutPrefix(op.Key, core.Prefix)
		what, path, _ := strings.Cut(rest, "/")
		parts := strings.Split(path, "/")
		switch {
		case !ours:
		case what == "placements":
			k := replicaOf(parts)
			old, known := g.placements[k]
			if deleted {
				if known {
					gone = append(gone, k)
				}
				delete(g.placements, k)
				continue
			}
			p := g.readPlacement(op.Value)
			g.placements[k] = p
			switch {
			case !known:
				placed = append(placed, k)
			case p.node != old.node || p.boot != old.boot || p.revision != old.revision || old.stopping && !p.stopping || !old.spare && p.spare:
				g.w.violate("epochs", "placement %s went back: %+v, then %+v", k, old, p)
			case p.stopping && !old.stopping:
				stopped = append(stopped, k)
			}
		case what == "services":
			written = append(written, g.service(api.Key{Namespace: parts[0], Name: parts[1]}, op, deleted))
		case what == "revisions":
			number, _ := strconv.ParseInt(parts[2], 10, 64)
			at := revisionKey{api.Key{Namespace: parts[0], Name: parts[1]}, number}
			old := g.revisions[at]
			delete(g.revisions, at)
			if !deleted {
				r := &api.Revision{}
				g.revisions[at] = r
				if g.open(op.Value, r); r.By == byOrch && (old == nil || old.UID != r.UID) {
					backs = append(backs, r)
				}
			}
		case what == "nodes":
			g.node(parts[0], op, deleted)
		}
	}
	for _, x := range written {
		g.w.user(x.key).stored(x.old, x.now, done, g.rollback(x, backs))
	}
	g.rolledOut()
	for _, k := range placed {
		g.placed(k)
	}
	for _, k := range stopped {
		g.stops++
		g.goneAt[k] = time.Now()
		g.stopsRightly(before, k)
	}
	for _, k := range gone {
		g.released(before, k)
	}
}

// done gives the requests that are done by a transaction: I2, each once.
func (g *ledger) done(t store.Txn) []string {
	var ids []string
	for _, op := range t.Then {
		if op.Kind != store.OpPut || !strings.HasPrefix(op.Key, core.Prefix+"requests/") {
			continue
		}
		var r struct{ ID string }
		g.open(op.Value, &r)
		if g.requests[r.ID] {
			g.w.violate("I2", "request %s is done twice", r.ID)
		}
		g.requests[r.ID] = true
		ids = append(ids, r.ID)
	}
	return ids
}

// picture is what a decision is held against.
type picture struct {
	placements map[api.ReplicaKey]placement
	nodes      map[string]*api.Node
}

func (g *ledger) snapshot() picture {
	p := picture{make(map[api.ReplicaKey]placement, len(g.placements)), make(map[string]*api.Node, len(g.nodes))}
	for k, v := range g.placements {
		p.placements[k] = v
	}
	for k, v := range g.nodes {
		p.nodes[k] = v
	}
	return p
}

func replicaOf(parts []string) api.ReplicaKey {
	slot, _ := strconv.Atoi(parts[2])
	epoch, _ := strconv.ParseUint(parts[3], 10, 64)
	return api.ReplicaKey{Namespace: parts[0], Service: parts[1], Slot: slot, Epoch: epoch}
}

func (g *ledger) readPlacement(value []byte) placement {
	var p orchv1.Placement
	if err := proto.Unmarshal(value, &p); err != nil {
		g.w.violate("I2", "a placement cannot be read: %v", err)
	}
	return placement{node: p.Node, boot: p.BootId, revision: p.Revision, spare: p.Spare, stopping: p.Stopping, since: time.Now()}
}

func (g *ledger) open(b []byte, v any) {
	var e orchv1.Envelope
	err := proto.Unmarshal(b, &e)
	if err == nil {
		err = json.Unmarshal(e.Json, v)
	}
	if err != nil {
		g.w.violate("I2", "what is committed cannot be read: %v", err)
	}
}

// fenced: I9. Whatever is written below the core's keys, or into the book of
// tokens and names, carries the fence of the leader.
func (g *ledger) fenced(by *ctlMachine, t store.Txn, rev int64) {
	if slices.ContainsFunc(t.Then, func(op store.Op) bool { return op.Key == election.LeaderKey }) && len(t.Then) == 1 {
		return // the key itself
	}
	for _, c := range t.If {
		if c.Key == election.LeaderKey && c.Kind == store.CompareModRev {
			if g.holder.ID != by.name {
				g.w.violate("I9", "%s writes at revision %d, the leader is %+v", by.name, rev, g.holder)
			}
			return
		}
	}
	for _, op := range t.Then {
		if strings.HasPrefix(op.Key, core.Prefix) {
			g.w.violate("I9", "%s writes %s at revision %d without a fence", by.name, op.Key, rev)
		}
	}
}

func (g *ledger) leader(value []byte) {
	var h election.Holder
	if err := json.Unmarshal(value, &h); err != nil {
		g.w.violate("I9", "the leader key cannot be read: %v", err)
	}
	if h.Term < g.holder.Term || h.Term == g.holder.Term && h.ID != "" {
		g.w.violate("I9", "the leader key became %+v, it was %+v", h, g.holder)
	}
	if h.ID != "" {
		g.w.say("%s leads term %d", h.ID, h.Term)
	} else {
		h.ID = "nobody"
	}
	g.holder, g.ledSince = h, time.Now()
}

// byOrch is who makes a revision that nobody asked for.
const byOrch = "orch"

// rollback gives what a service is rolled back by; nil: it is not.
func (g *ledger) rollback(x change, backs []*api.Revision) *rollback {
	for _, r := range backs {
		if x.now != nil && r.Service == x.key && r.Number == x.now.Status.Revision {
			if gone := g.revisions[revisionKey{x.key, r.Number - 1}]; gone == nil || gone.By == byOrch {
				g.w.violate("rollout", "service %s is rolled back from what was a rollback itself", x.key)
			}
			return &rollback{cause: r.Cause, stable: g.stable[r.UID], lasted: time.Since(g.bornAt[r.UID])}
		}
	}
	return nil
}

// isNewest tells whether a placement counts as of its service's newest revision: has
// it, or has what that repeats.
func (g *ledger) isNewest(k api.ReplicaKey, p placement) bool {
	s := g.services[k.ServiceKey()]
	if p.revision == s.Status.Revision {
		return true
	}
	own, newest := g.revisions[revisionKey{k.ServiceKey(), p.revision}], g.revisions[revisionKey{k.ServiceKey(), s.Status.Revision}]
	root := func(r *api.Revision) int64 {
		if r.SameAs != 0 {
			return r.SameAs
		}
		return r.Number
	}
	return own != nil && newest != nil && newest.SameAs != 0 && root(own) == root(newest)
}

// rolledOut keeps what is said of the newest revisions.
func (g *ledger) rolledOut() {
	for at, r := range g.revisions {
		s := g.services[at.service]
		if s == nil || s.Metadata.UID != r.UID || s.Status.Revision != at.number {
			continue
		}
		if id := fmt.Sprint(r.UID, " ", at.number); g.bornAt[id].IsZero() {
			g.bornAt[id], g.bornAt[r.UID] = time.Now(), time.Now()
		}
		if r.Rollout.State == api.RolloutComplete {
			g.stable[r.UID] = r.Template.Containers[0].Image
		}
	}
}

func (g *ledger) service(key api.Key, op store.Op, deleted bool) change {
	old := g.services[key]
	if deleted {
		delete(g.services, key)
		return change{key, old, nil}
	}
	s := &api.Service{}
	g.open(op.Value, s)
	// How its rollout goes is written with it, and is no version of what users asked for.
	statusOnly := old != nil && reflect.DeepEqual(old.Metadata, s.Metadata) && reflect.DeepEqual(old.Spec, s.Spec)
	if old != nil && old.Metadata.UID == s.Metadata.UID && s.Metadata.ResourceVersion <= old.Metadata.ResourceVersion && !statusOnly {
		g.w.violate("I2", "service %s resourceVersion %d is written after %d", key, s.Metadata.ResourceVersion, old.Metadata.ResourceVersion)
	}
	g.services[key] = s
	return change{key, old, s}
}

func (g *ledger) node(name string, op store.Op, deleted bool) {
	old := g.nodes[name]
	delete(g.nodes, name)
	if deleted {
		return
	}
	n := &api.Node{}
	g.open(op.Value, n)
	g.nodes[name] = n
	if n.Status.Verdict == api.VerdictDead && (old == nil || old.Status.Verdict != api.VerdictDead) {
		g.deadAt[name] = time.Now()
		g.w.say("%s is dead: %s", name, n.Status.VerdictWhy)
		g.w.calledDead(name, n.Status.VerdictWhy)
	}
}

// placed: no epoch twice, no node above what it has (I3), no spare of an
// exclusive slot (I6).
func (g *ledger) placed(k api.ReplicaKey) {
	p := g.placements[k]
	if other, ok := g.epochs[k.Epoch]; ok {
		g.w.violate("epochs", "epoch %d was given twice: to %s and to %s", k.Epoch, other, k)
	}
	g.epochs[k.Epoch], g.boots[k] = k, p.boot
	t := g.template(k, p.revision)
	if t == nil || g.services[k.ServiceKey()] == nil {
		g.w.violate("I2", "placement %s is committed without its service or revision %d", k, p.revision)
		return
	}
	if s := g.services[k.ServiceKey()]; s.Spec.Mode == api.ModeGlobal {
		for _, o := range g.of(k.ServiceKey()) {
			if x := g.placements[o]; o != k && x.node == p.node && x.boot == p.boot && !x.stopping {
				g.w.violate("global", "%s is placed on %s beside %s", k, p.node, o)
			}
		}
		if p.spare {
			g.w.violate("global", "%s is a spare of a global service", k)
		}
	}
	if p.spare {
		g.spares++
		if t.Exclusive {
			g.w.violate("I6", "%s is a spare of an exclusive slot", k)
		}
	}
	n := g.w.node(p.node)
	sum := api.ResourceList{}
	for other, o := range g.placements {
		if t := g.template(other, o.revision); o.node == p.node && t != nil {
			for name, q := range t.Requests() {
				sum[name] += q
			}
		}
	}
	for _, name := range []string{api.CPU, api.Memory} {
		if sum[name] > n.capacity[name] {
			g.w.violate("I3", "%s is placed on %s, where %s of %s %s are requested then", k, p.node, sum[name], n.capacity[name], name)
		}
	}
}

// knownWithin is how long after a replica became ready its leader may not know it
// yet: a probe's interval, and a session that has to be dialled again.
const knownWithin = 5 * time.Second

// stopsRightly: I5. What is to stop has a reason in what is wanted, or in a
// filling beside it; slowness is none.
func (g *ledger) stopsRightly(before picture, k api.ReplicaKey) {
	p := g.placements[k]
	s := g.services[k.ServiceKey()]
	if s == nil || !s.Metadata.DeletedAt.IsZero() || s.Spec.Mode != api.ModeGlobal && k.Slot >= s.Spec.Want() || !g.isNewest(k, p) {
		return
	}
	n := g.w.node(p.node)
	isDrained := func(n *api.Node) bool { return n != nil && n.Spec.Drain != nil }
	troubled := !n.well(g.w.memory()) || isDrained(before.nodes[p.node]) || isDrained(g.nodes[p.node])
	beside := func(of map[api.ReplicaKey]placement) bool {
		for other, o := range of {
			if other != k && other.ServiceKey() == k.ServiceKey() && other.Slot == k.Slot && !o.stopping {
				return true
			}
		}
		return false
	}
	switch {
	case p.spare: // the incumbent is back
	case s.Spec.Mode == api.ModeGlobal:
		if n := g.nodes[p.node]; n != nil && !isDrained(before.nodes[p.node]) && !isDrained(n) {
			g.w.violate("I5", "%s is told to stop, though it is the one of a global service on %s", k, p.node)
		}
	case s.Spec.Exclusive: // its lease may have ended while no controller could renew it
		if !troubled && g.w.controllersWell(g.w.memory()) {
			g.w.violate("I5", "%s is told to stop, though it is wanted and nothing ails %s", k, p.node)
		}
	case s.Status.Rollout.State != api.RolloutComplete && g.stable[s.Metadata.UID] != "" && g.stable[s.Metadata.UID] != s.Spec.Containers[0].Image && !n.runtime.readyFor(k, knownWithin):
		// What was rolled out well takes its place again.
	case !beside(before.placements) && !beside(g.placements):
		g.w.violate("I5", "%s is told to stop, though it is the only one in a slot that is wanted and has the newest revision", k)
	case !troubled && n.runtime.readyFor(k, knownWithin):
		g.w.violate("I5", "%s gives way to a spare, though it is ready and nothing ailed %s for %s", k, p.node, g.w.memory())
	}
}

// released: a placement's record goes. Either nothing of it runs, or the life of
// its node is over.
func (g *ledger) released(before picture, k api.ReplicaKey) {
	p := before.placements[k]
	if _, ok := g.goneAt[k]; !ok {
		g.goneAt[k] = time.Now()
	}
	n := g.nodes[p.node]
	if n == nil || n.Status.BootID != p.boot || n.Status.Verdict == api.VerdictDead {
		g.voids++
		return
	}
	if !p.stopping {
		g.w.violate("I5", "the placement of %s goes, though %s lives on and it was not told to stop", k, p.node)
		return
	}
	h := g.w.node(p.node)
	for id, run := range h.runtime.running() {
		if run.spec.Replica == k && h.bootID() == p.boot {
			g.w.violate("I3", "the room of %s on %s is given away while %s still runs", k, p.node, id)
		}
	}
}
