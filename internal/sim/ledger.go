package sim

import (
	"cmp"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/network"
	"github.com/orchctl/orch/internal/store"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// picture is what the store holds, decoded.
type picture struct {
	services   map[api.Key]*api.Service
	placements map[api.ReplicaKey]placement
	nodes      map[string]*api.Node
	revisions  map[revisionKey]*revision
	// Configs and Secrets that are there, and all versions that are kept.
	configs  map[refKey]*configRecord
	versions map[versionKey]configVersion
	jobs     map[api.Key]*api.Job
	outcomes map[outcomeKey]*api.Outcome
	volumes  map[api.VolumeKey]*volumeRecord
	removals map[volumeAt]*volumeRecord
}

func newPicture() picture {
	return picture{map[api.Key]*api.Service{}, map[api.ReplicaKey]placement{}, map[string]*api.Node{}, map[revisionKey]*revision{},
		map[refKey]*configRecord{}, map[versionKey]configVersion{}, map[api.Key]*api.Job{}, map[outcomeKey]*api.Outcome{}, map[api.VolumeKey]*volumeRecord{}, map[volumeAt]*volumeRecord{}}
}

type placement struct {
	node, boot      string
	revision        int64
	spare, stopping bool
}

type revisionKey struct {
	service api.Key
	number  int64
}

type revision struct {
	obj      api.Revision
	template *api.Template
	requests api.ResourceList
	ports    []api.HostPort
	// addresses is how many of a subnet's a replica takes.
	addresses int
}

// change is what one op of a transaction does to the picture; what it puts is
// nil if the key goes.
type change struct {
	replica   api.ReplicaKey
	placement *placement
	key       api.Key
	service   *api.Service
	node      string // or a request's id
	object    *api.Node
	number    int64
	revision  *revision
	cluster   *network.Cluster
	config    *configRecord
	version   versionKey
	values    *configVersion
	job       *api.Job
	index     int
	outcome   *api.Outcome
	volume    api.VolumeKey
	where     *volumeRecord
	kind      kind
}

func (c change) outcomeKey() outcomeKey { return outcomeKey{c.key, c.index} }

type kind uint8

const (
	kindPlacement kind = iota
	kindService
	kindRevision
	kindNode
	kindRequest
	kindNetwork
	kindConfig
	kindVersion
	kindPayload
	kindJob
	kindOutcome
	kindVolume
	kindRemoval
)

// ledger knows everything that was ever committed, independently of the core.
type ledger struct {
	w *world
	values
	work
	// pinnedAt are the digests that each replica's revision had when it was placed.
	pinnedAt map[api.ReplicaKey]map[string]string
	// removed are volumes that somebody wants gone from a node.
	removed map[volumeAt]bool

	pic  picture
	term uint64 // whose commits may be written

	epochs map[uint64]api.ReplicaKey // ever committed
	placed map[api.ReplicaKey]string // the node of every placement ever committed
	boots  map[api.ReplicaKey]string // likewise the node's life
	// templates of every placement ever committed.
	templates map[api.ReplicaKey]*api.Template
	highest   map[string]uint64 // epoch of each slot
	// versions of a service's object by UID and resourceVersion.
	versions map[string]map[int64]version
	newest   map[string]int64
	// done are the requests that were done, by id.
	done map[string]bool
	// relief are spares that were placed to relieve; committedAt is when each
	// placement was.
	relief map[api.ReplicaKey]bool
	// left is when what was leased stopped for want of a lease.
	left        map[api.ReplicaKey]int64
	committedAt map[api.ReplicaKey]int64
	// cluster is the network as it was first decided; heldAt when each service had
	// each port last.
	cluster network.Cluster
	heldAt  map[portOf]int64
	// moved counts changes of placements.
	moved int
	// rolls are by UID; revisions of every placement that was ever decided; global are
	// those that were for a global service.
	rolls     map[string]*rolled
	revisions map[api.ReplicaKey]ofRevision
	global    map[api.ReplicaKey]bool
	tried     map[api.ReplicaKey]bool // placed because another failed again and again
	ends      map[failures]int
	// initialized are init containers that have ended well; sidecars counts starts of
	// the others.
	initialized map[failures]bool
	sidecars    map[failures]int
}

type version struct {
	generation int64
	replicas   int
	image      string
	deleted    bool
}

func newLedger(w *world) *ledger {
	return &ledger{w: w, values: newValues(), work: newWork(), removed: map[volumeAt]bool{}, pinnedAt: map[api.ReplicaKey]map[string]string{}, epochs: map[uint64]api.ReplicaKey{}, placed: map[api.ReplicaKey]string{}, boots: map[api.ReplicaKey]string{}, templates: map[api.ReplicaKey]*api.Template{}, highest: map[string]uint64{},
		versions: map[string]map[int64]version{}, newest: map[string]int64{}, done: map[string]bool{}, relief: map[api.ReplicaKey]bool{}, left: map[api.ReplicaKey]int64{}, committedAt: map[api.ReplicaKey]int64{}, heldAt: map[portOf]int64{},
		rolls: map[string]*rolled{}, revisions: map[api.ReplicaKey]ofRevision{}, global: map[api.ReplicaKey]bool{}, tried: map[api.ReplicaKey]bool{}, ends: map[failures]int{}, initialized: map[failures]bool{}, sidecars: map[failures]int{},
		pic: newPicture()}
}

// read decodes a transaction; history is nobody's business here.
func (g *ledger) read(ops []store.Op) []change {
	var out []change
	for _, op := range ops {
		rest := strings.TrimPrefix(op.Key, core.Prefix)
		what, path, _ := strings.Cut(rest, "/")
		parts := strings.Split(path, "/")
		gone := op.Kind == store.OpDelete
		var c change
		switch what {
		case "placements":
			slot, _ := strconv.Atoi(parts[2])
			epoch, _ := strconv.ParseUint(parts[3], 10, 64)
			c = change{kind: kindPlacement, replica: api.ReplicaKey{Namespace: parts[0], Service: parts[1], Slot: slot, Epoch: epoch}}
			if !gone {
				var p orchv1.Placement
				g.must(proto.Unmarshal(op.Value, &p))
				c.placement = &placement{node: p.Node, boot: p.BootId, revision: p.Revision, spare: p.Spare, stopping: p.Stopping}
			}
		case "services":
			c = change{kind: kindService, key: api.Key{Namespace: parts[0], Name: parts[1]}}
			if !gone {
				c.service = &api.Service{}
				g.open(op.Value, c.service)
			}
		case "revisions":
			c = change{kind: kindRevision, key: api.Key{Namespace: parts[0], Name: parts[1]}}
			c.number, _ = strconv.ParseInt(parts[2], 10, 64)
			if !gone {
				var r api.Revision
				g.open(op.Value, &r)
				c.revision = &revision{r, &r.Template, requestsOf(&r.Template), r.Template.HostPorts(), 1}
				if r.Template.HostNetwork {
					c.revision.addresses = 0
				}
			}
		case "nodes":
			c = change{kind: kindNode, node: parts[0]}
			if !gone {
				c.object = &api.Node{}
				g.open(op.Value, c.object)
			}
		case "network":
			c = change{kind: kindNetwork}
			if !gone {
				c.cluster = &network.Cluster{}
				g.open(op.Value, c.cluster)
			}
		case "configs", "configversions", "configpayloads", "jobs", "outcomes", "volumes", "volumeremovals":
			c = g.readOwned(what, parts, op)
		case "requests":
			if gone {
				continue
			}
			var r struct{ ID string }
			g.open(op.Value, &r)
			c = change{kind: kindRequest, node: r.ID}
		default:
			continue
		}
		out = append(out, c)
	}
	return out
}

func (g *ledger) must(err error) {
	if err != nil {
		g.w.violate("I2", "what is committed cannot be read: %v", err)
	}
}

func (g *ledger) open(b []byte, v any) {
	var e orchv1.Envelope
	g.must(proto.Unmarshal(b, &e))
	g.must(json.Unmarshal(e.Json, v))
}

// requestsOf is what a replica takes of a node: of what runs at once the sum, or what
// an init container needs before, if that is more.
func requestsOf(t *api.Template) api.ResourceList {
	sum := api.ResourceList{}
	for _, c := range t.LongRunning() {
		for name, q := range c.Resources.Requests {
			sum[name] += q
		}
	}
	for _, c := range t.InitContainers {
		for name, q := range c.Resources.Requests {
			sum[name] = max(sum[name], q)
		}
	}
	return sum
}

// with gives the picture after the changes; the receiver stays as it is.
func (p picture) with(changes []change) picture {
	out := picture{maps.Clone(p.services), maps.Clone(p.placements), maps.Clone(p.nodes), maps.Clone(p.revisions),
		maps.Clone(p.configs), maps.Clone(p.versions), maps.Clone(p.jobs), maps.Clone(p.outcomes), maps.Clone(p.volumes), maps.Clone(p.removals)}
	out.take(changes)
	return out
}

func (p picture) take(changes []change) {
	for _, c := range changes {
		switch c.kind {
		case kindPlacement:
			setOrDelete(p.placements, c.replica, c.placement)
		case kindService:
			p.services[c.key] = c.service
			if c.service == nil {
				delete(p.services, c.key)
			}
		case kindRevision:
			p.revisions[revisionKey{c.key, c.number}] = c.revision
			if c.revision == nil {
				delete(p.revisions, revisionKey{c.key, c.number})
			}
		case kindNode:
			p.nodes[c.node] = c.object
			if c.object == nil {
				delete(p.nodes, c.node)
			}
		default:
			p.takeOwned(c)
		}
	}
}

func setOrDelete[K comparable, V any](m map[K]V, k K, v *V) {
	if v == nil {
		delete(m, k)
		return
	}
	m[k] = *v
}

func (p picture) of(s api.Key) []api.ReplicaKey {
	var out []api.ReplicaKey
	for k := range p.placements {
		if k.ServiceKey() == s {
			out = append(out, k)
		}
	}
	slices.SortFunc(out, compareReplicas)
	return out
}

func (p picture) sortedServices() []api.Key {
	return slices.SortedFunc(maps.Keys(p.services), func(a, b api.Key) int { return cmp.Compare(a.Name, b.Name) })
}

func (p picture) sortedPlacements() []api.ReplicaKey {
	return slices.SortedFunc(maps.Keys(p.placements), compareReplicas)
}

func compareReplicas(a, b api.ReplicaKey) int {
	return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Slot, b.Slot), cmp.Compare(a.Epoch, b.Epoch))
}

// apply takes up what was written, and checks that nothing acknowledged is lost
// and no epoch is given twice.
func (g *ledger) apply(changes []change) {
	for _, c := range changes {
		switch c.kind {
		case kindPlacement:
			g.applyPlacement(c)
		case kindService:
			g.applyService(c)
		case kindRevision:
			g.rolledOut(c, changes)
		case kindRequest:
			if g.done[c.node] {
				g.w.violate("I2", "request %s was done twice", c.node)
			}
			g.done[c.node] = true
		case kindJob, kindOutcome:
			g.jobsWritten(c)
		case kindRemoval:
			setOrDelete(g.removed, volumeAt{c.volume, c.node}, wanted(c.where))
		}
	}
	before := g.pic.with(nil)
	g.pic.take(changes)
	g.addressed(before, changes)
	g.valued(before, changes)
	for _, c := range changes {
		if c.kind != kindPlacement || c.placement == nil {
			continue
		}
		r := g.pic.revisions[revisionKey{c.replica.ServiceKey(), c.placement.revision}]
		if r == nil || g.pic.services[c.replica.ServiceKey()] == nil && g.pic.jobs[c.replica.ServiceKey()] == nil {
			g.w.violate("I2", "placement %s is committed without its service or revision %d", c.replica, c.placement.revision)
			continue
		}
		g.templates[c.replica] = r.template
		if _, known := g.pinnedAt[c.replica]; !known {
			g.tagged(c.replica, *c.placement)
		}
	}
}

func (g *ledger) applyPlacement(c change) {
	g.moved++
	old, known := g.pic.placements[c.replica]
	switch {
	case c.placement == nil:
		return
	case known:
		if old.stopping && !c.placement.stopping || old.node != c.placement.node || !old.spare && c.placement.spare {
			g.w.violate("epochs", "placement %s went back: %+v, then %+v", c.replica, old, *c.placement)
		}
		return
	}
	if c.placement.spare {
		g.w.res.Spares++
	}
	k := c.replica
	if other, ok := g.epochs[k.Epoch]; ok {
		g.w.violate("epochs", "epoch %d was given twice: to %s and to %s", k.Epoch, other, k)
	}
	slot := k.Namespace + "/" + k.Name()
	if k.Epoch <= g.highest[slot] {
		g.w.violate("epochs", "%s is not above epoch %d of the same slot", k, g.highest[slot])
	}
	g.committedAt[k] = max(g.w.clock, 1)
	g.epochs[k.Epoch], g.placed[k], g.boots[k], g.highest[slot] = k, c.placement.node, c.placement.boot, k.Epoch
}

func (g *ledger) applyService(c change) {
	old := g.pic.services[c.key]
	if c.service == nil {
		// Mark and removal may share a transaction where nothing was placed.
		if old != nil && old.Metadata.DeletedAt.IsZero() && !g.w.asksToDelete(c.key) {
			g.w.violate("I2", "service %s is gone though nobody deleted it", c.key)
		}
		return
	}
	m := c.service.Metadata
	if old != nil && old.Metadata.UID != m.UID && old.Metadata.DeletedAt.IsZero() {
		g.w.violate("I2", "service %s became another one (%s, was %s) though nobody deleted it", c.key, m.UID, old.Metadata.UID)
	}
	// How its rollout goes is written with it, and is no version of what users asked for.
	statusOnly := old != nil && reflect.DeepEqual(old.Metadata, m) && reflect.DeepEqual(old.Spec, c.service.Spec) && old.Status.Revision == c.service.Status.Revision
	if m.ResourceVersion <= g.newest[m.UID] && !statusOnly {
		g.w.violate("I2", "service %s resourceVersion %d is written after %d: a write is lost", c.key, m.ResourceVersion, g.newest[m.UID])
	}
	g.newest[m.UID] = m.ResourceVersion
	if g.versions[m.UID] == nil {
		g.versions[m.UID] = map[int64]version{}
	}
	g.versions[m.UID][m.ResourceVersion] = versionOf(c.service)
}

func versionOf(s *api.Service) version {
	return version{s.Metadata.Generation, s.Spec.Want(), s.Spec.Containers[0].Image, !s.Metadata.DeletedAt.IsZero()}
}

// acknowledged checks that what a user is told is in the store, or that a later
// change of the same transaction has taken its place.
func (g *ledger) acknowledged(r *request, a core.Applied) {
	if a.Outcome != "unchanged" && !g.done[r.id] {
		g.w.violate("I2", "%s was acknowledged before it was committed", r.words)
	}
	if a.Service == nil {
		return
	}
	m := a.Service.Metadata
	have, ok := g.versions[m.UID][m.ResourceVersion]
	if want := versionOf(a.Service); ok && have != want || !ok && g.newest[m.UID] < m.ResourceVersion {
		g.w.violate("I2", "service %s resourceVersion %d was acknowledged as %+v, the store has %+v", m.Key(), m.ResourceVersion, want, have)
	}
}
