package plan

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

// volumes are those that the leader wants removed. What it wants is asked for again by
// each complete set until it has heard that they are gone.
type volumes struct {
	asked map[api.VolumeKey]*removal
	under map[uint64]api.VolumeKey // RemoveVolume is out, by its id
	gone  map[api.VolumeKey]bool   // to be told
	// waits are replicas that do not start since something of their slot, which the leader
	// has given up, may have their volumes mounted.
	waits map[api.ReplicaKey]bool
	wake  time.Time // the next try of one that failed; zero: none
}

// removal is one that is wanted.
type removal struct{ retry retry }

// slot is where a volume belongs.
type slot struct {
	namespace, service string
	slot               int
}

func newVolumes() volumes {
	return volumes{asked: map[api.VolumeKey]*removal{}, under: map[uint64]api.VolumeKey{}, gone: map[api.VolumeKey]bool{}, waits: map[api.ReplicaKey]bool{}}
}

func slotOf(k api.VolumeKey) slot         { return slot{k.Namespace, k.Service, k.Slot} }
func slotOfReplica(k api.ReplicaKey) slot { return slot{k.Namespace, k.Service, k.Slot} }

// askVolumes takes up which volumes a set wants removed, if the set may say so. What a
// replica has that is still to run is removed after that: it was void when its volume was
// given up, and is told to stop in a moment. A leader gives no name anew before it has
// heard that the old volume is gone.
func (c *Core) askVolumes(set wire.AssignmentSet) {
	if !c.mayPrune {
		return
	}
	v := &c.volumes
	if set.Complete {
		clear(v.asked)
	}
	maps.DeleteFunc(v.gone, func(k api.VolumeKey, _ bool) bool { return c.wantsVolume(k) }) // it was made anew
	for _, k := range set.RemoveVolumes {
		if v.asked[k] == nil && !v.gone[k] { // else the leader does not know yet, and is about to hear
			v.asked[k] = &removal{}
		}
	}
}

// volumesAnew: a leader that places a replica has heard that what it wanted removed of its
// slot is gone. A removal that was asked for once more, and did not come to its end, would
// take what the replica has.
func (c *Core) volumesAnew(a wire.Assignment) {
	if len(c.volumes.asked) == 0 || c.replicas[a.Key] != nil || a.Stopping || a.Template == nil {
		return
	}
	for _, name := range a.Template.Volumes() {
		delete(c.volumes.asked, api.VolumeKey{Namespace: a.Key.Namespace, Service: a.Key.Service, Slot: a.Key.Slot, Volume: name})
	}
}

// wantsVolume tells whether a replica that is to run here has the volume.
func (c *Core) wantsVolume(k api.VolumeKey) bool {
	for key, r := range c.replicas {
		if slotOfReplica(key) == slotOf(k) && r.assigned && !r.stopOrdered && !r.gone && slices.Contains(r.template.Volumes(), k.Volume) {
			return true
		}
	}
	return false
}

// forgetVolumes: another store speaks. What is being deleted still is.
func (c *Core) forgetVolumes() {
	clear(c.volumes.asked)
	clear(c.volumes.gone)
}

// removeVolumes has those removed that nothing on this node can have mounted.
func (c *Core) removeVolumes() {
	v := &c.volumes
	v.wake = time.Time{}
	if len(v.asked) == 0 || !c.observed {
		return
	}
	busy := map[slot]bool{} // one at a time within a slot: they share a folder
	for _, k := range v.under {
		busy[slotOf(k)] = true
	}
	for _, k := range slices.SortedFunc(maps.Keys(v.asked), compareVolumes) {
		x := v.asked[k]
		switch {
		case busy[slotOf(k)] || len(v.under) >= removalsAtOnceMax || c.usesVolume(k): // the end of what is in the way is an event
		case x.retry.waiting(c.now):
			v.wake = earliest(v.wake, x.retry.at)
		default:
			id := c.id()
			v.under[id] = k
			busy[slotOf(k)] = true
			c.emit(RemoveVolume{ID: id, Volume: k, Why: "somebody wanted it gone"})
		}
	}
}

// usesVolume tells whether something on this node may have the volume mounted. Of what
// no manifest is known, that is so.
func (c *Core) usesVolume(k api.VolumeKey) bool {
	for key, r := range c.replicas {
		if slotOfReplica(key) == slotOf(k) && !r.gone && (len(r.runs) == 0 || len(r.leftovers) > 0 || slices.Contains(r.template.Volumes(), k.Volume)) {
			return true
		}
	}
	for _, o := range c.strays { // those of another incarnation have it at the same place
		if slotOfReplica(o.Replica) == slotOf(k) {
			return true
		}
	}
	return false
}

// removesVolume tells whether a volume of the replica's slot is being deleted.
func (c *Core) removesVolume(r *replica) bool {
	for _, k := range c.volumes.under {
		if slotOf(k) == slotOfReplica(r.key) {
			return true
		}
	}
	return false
}

// sharesVolume tells whether something else of the replica's slot may run here and have a
// volume of it mounted: the leader took the end of this node for the end of that. Of what
// no manifest is known, that is so.
func (c *Core) sharesVolume(r *replica) bool {
	mine := r.template.Volumes()
	if len(mine) == 0 {
		return false
	}
	takes := func(o *replica) bool {
		return slices.ContainsFunc(mine, func(v string) bool { return slices.Contains(o.template.Volumes(), v) })
	}
	for key, o := range c.replicas {
		switch {
		case !o.going || o.gone || slotOfReplica(key) != slotOfReplica(r.key): // two that a leader wants are its own affair
		case slices.ContainsFunc(o.leftovers, func(l *leftover) bool { return l.Running }), o.anyRun((*run).mayLive) && takes(o):
			return true
		}
	}
	return slices.ContainsFunc(r.leftovers, func(l *leftover) bool { return l.Running })
}

// strayWithVolume gives a container of the replica's slot that nobody assigned, runs, and
// may have a volume of it mounted; empty: there is none. Such ones are left alone, so this
// may last until somebody ends them.
func (c *Core) strayWithVolume(r *replica) string {
	if len(r.template.Volumes()) == 0 {
		return ""
	}
	for _, id := range slices.Sorted(maps.Keys(c.strays)) {
		if o := c.strays[id]; o.Running && slotOfReplica(o.Replica) == slotOfReplica(r.key) {
			return id
		}
	}
	return ""
}

// markUnshared has those tried again that nothing is in the way of any more.
func (c *Core) markUnshared() {
	for _, key := range slices.SortedFunc(maps.Keys(c.volumes.waits), compareKeys) {
		if r := c.replicas[key]; r == nil || !c.sharesVolume(r) {
			delete(c.volumes.waits, key)
			c.markKey(key)
		}
	}
}

// volumeDone takes the answer to RemoveVolume; false: it is none.
func (c *Core) volumeDone(ev Done) bool {
	v := &c.volumes
	k, ok := v.under[ev.ID]
	if !ok {
		return false
	}
	delete(v.under, ev.ID)
	for _, key := range c.sortedKeys() {
		if slotOfReplica(key) == slotOf(k) {
			c.markKey(key)
		}
	}
	x := v.asked[k]
	switch {
	case x == nil: // nobody asks any more
	case ev.Failure != nil:
		x.retry.failed(ev.Failure, c.now)
	default:
		delete(v.asked, k)
		v.gone[k] = true
	}
	return true
}

// volumesGone gives what is to be told, once.
func (c *Core) volumesGone() []api.VolumeKey {
	gone := slices.SortedFunc(maps.Keys(c.volumes.gone), compareVolumes)
	clear(c.volumes.gone)
	return gone
}

func compareVolumes(a, b api.VolumeKey) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Service, b.Service), cmp.Compare(a.Slot, b.Slot), cmp.Compare(a.Volume, b.Volume))
}
