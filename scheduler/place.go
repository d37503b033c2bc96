package scheduler

import (
	"fmt"
	"slices"

	"github.com/orchctl/orch/api"
)

// Group is replicas of one service and shape, which are placed as a batch.
type Group struct {
	Service api.Key
	Shape   *Shape
	Slots   []Slot
}

// Slot is a replica to be placed.
type Slot struct {
	Key api.ReplicaKey
	// Avoid names nodes not to use, such as where the unreachable incumbent is.
	Avoid []string
	// On is the only node to use; empty: any. A refusal then speaks of it alone.
	On string
}

// Placement is the node chosen for a replica.
type Placement struct {
	Key  api.ReplicaKey
	Node string
	// Score is what the choice was made by; more is better. See the package's text.
	Score int64
	// Why words the score: "0 of web here, load 12.3%".
	Why string
}

// Place finds a node for every slot and binds it there; the caller may Unbind.
// Groups and slots are served in the order given, which is the order of both
// results: where room is short, who comes first is served. A key that is bound
// already stays where it is.
func Place(f *Fleet, groups []Group) ([]Placement, []Refusal) {
	f.settle()
	total := 0
	for i := range groups {
		total += len(groups[i].Slots)
	}
	placed := make([]Placement, 0, total)
	var refused []Refusal
	for i := range groups {
		placed, refused = f.placeGroup(&groups[i], placed, refused)
	}
	return placed, refused
}

func (f *Fleet) placeGroup(g *Group, placed []Placement, refused []Refusal) ([]Placement, []Refusal) {
	w := &f.index.walk
	w.enter(f, g)
	hash := hashService(g.Service)
	var ended *Refusal // what all slots of this walk get from now on
	var told struct {
		count, load int
		why         string
	}
	for _, slot := range g.Slots {
		if b := f.bindings[slot.Key]; b != nil {
			count, load := b.service.on[b.node]-1, b.node.load
			placed = append(placed, Placement{slot.Key, b.node.name, score(count, load), "bound there already"})
			continue
		}
		if slot.On != "" {
			placed, refused = f.placeOn(w, slot, placed, refused)
			continue
		}
		if w.begin(slot.Avoid) {
			ended = nil
		}
		var n *node
		if ended == nil {
			if n = w.next(startOf(hash, slot.Key.Slot, len(f.index.ring))); n == nil {
				ended = f.refusal(&w.ask)
			}
		}
		if n == nil {
			ended.Key = slot.Key
			refused = append(refused, *ended)
			continue
		}
		if told.why == "" || told.count != w.level || told.load != n.load {
			told.count, told.load, told.why = w.level, n.load, why(g.Service, w.level, n.load)
		}
		placed = append(placed, Placement{slot.Key, n.name, score(told.count, told.load), told.why})
		f.bind(slot.Key, w.service, n, w.ask.shape, w.ask.needs)
	}
	return placed, refused
}

// placeOn places a slot on its one node, or says why that refuses it.
func (f *Fleet) placeOn(w *walk, slot Slot, placed []Placement, refused []Refusal) ([]Placement, []Refusal) {
	n := f.nodes[slot.On]
	if n == nil || !n.known {
		return placed, append(refused, Refusal{Key: slot.Key, Reason: fmt.Sprintf("%s: there is no such node", slot.On)})
	}
	a := ask{shape: w.ask.shape, needs: w.ask.needs}
	if slices.Contains(slot.Avoid, slot.On) {
		a.avoid = []*node{n}
	}
	if filter, item := refusedBy(&a, n); filter >= 0 {
		words := filters[filter].one(&a, n, item)
		return placed, append(refused, Refusal{Key: slot.Key, Reason: slot.On + ": " + words, Counts: []Count{{filters[filter].name, 1, words}}})
	}
	count, load := w.service.on[n], n.load
	placed = append(placed, Placement{slot.Key, n.name, score(count, load), why(w.service.key, count, load)})
	f.bind(slot.Key, w.service, n, w.ask.shape, w.ask.needs)
	w.begun = false // it has passed by the node with another count and load
	return placed, refused
}

// walk goes over the nodes that may take a group's replicas, best first. It only
// goes forward, for during a batch nodes only become fuller; a slot with another
// list of nodes to avoid begins it again.
type walk struct {
	fleet   *Fleet
	service *service
	ask     ask
	begun   bool
	avoid   []*node // scratch of begin
	// fit holds the nodes that were not found unfit in this group, whatever is
	// to be avoided.
	fit bitset
	// level is the count of the service's replicas on the nodes now tried, at
	// holds those not tried yet, loads what loads they have, and load is the one
	// now tried, -1 when none is left.
	level int
	at    bitset
	loads bitset
	load  int
}

// enter takes up a group. The walk has yet to begin.
func (w *walk) enter(f *Fleet, g *Group) {
	shape := g.Shape
	if shape == nil {
		shape = &Shape{}
	}
	w.fleet, w.service, w.begun = f, f.serviceOf(g.Service), false
	w.ask = ask{shape: shape, needs: f.needs(w.ask.needs[:0], shape), avoid: w.ask.avoid[:0]}
	w.fit = append(w.fit[:0], f.index.open...)
	for i, word := range f.index.meeting(shape) {
		w.fit[i] &= word
	}
}

// begin starts with the nodes that have no replica of the service, unless the
// walk is on its way with the same nodes to avoid. It tells whether it did.
func (w *walk) begin(avoid []string) bool {
	w.avoid = w.avoid[:0]
	for _, name := range avoid {
		if n := w.fleet.nodes[name]; n != nil && n.known && takesReplicas(n) && meetsRule(n, w.ask.shape) {
			w.avoid = append(w.avoid, n)
		}
	}
	if w.begun && slices.Equal(w.avoid, w.ask.avoid) {
		return false
	}
	w.begun, w.level = true, 0
	w.avoid, w.ask.avoid = w.ask.avoid, w.avoid
	w.at = append(w.at[:0], w.fit...)
	for _, n := range w.ask.avoid {
		w.at.clear(n.pos)
	}
	for n := range w.service.on {
		if n.pos >= 0 {
			w.at.clear(n.pos)
		}
	}
	w.loads = append(w.loads[:0], w.fleet.index.filled...)
	w.load = w.loads.next(0)
	return true
}

// next gives the best node that fits for a slot whose point on the ring is start,
// or nil. The caller binds the replica there before asking again.
func (w *walk) next(start int) *node {
	x := &w.fleet.index
	for {
		for from := start; w.load >= 0; {
			pos := nextOfBoth(x.byLoad[w.load], w.at, from)
			if pos < 0 {
				w.load, from = w.loads.next(w.load+1), start
				continue
			}
			w.at.clear(pos)
			if n := x.ring[pos]; fits(&w.ask, n) {
				return n
			}
			w.fit.clear(pos)
			from = pos
		}
		if !w.rise() {
			return nil
		}
	}
}

// rise goes on to the nodes that have the next larger count of the service's
// replicas, and tells whether there are any. It costs the nodes of the service.
func (w *walk) rise() bool {
	level := 0
	for n, count := range w.service.on {
		if count > w.level && (level == 0 || count < level) && w.may(n) {
			level = count
		}
	}
	if level == 0 {
		return false
	}
	w.level = level
	clear(w.at)
	clear(w.loads)
	for n, count := range w.service.on {
		if count == level && w.may(n) {
			w.at.set(n.pos)
			w.loads.set(n.load)
		}
	}
	w.load = w.loads.next(0)
	return true
}

func (w *walk) may(n *node) bool {
	return n.pos >= 0 && w.fit.has(n.pos) && !slices.Contains(w.ask.avoid, n)
}
