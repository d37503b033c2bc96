package core

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/store"
	"github.com/orchctl/orch/internal/wire"
)

// A volume is what a slot keeps on a node. Its record is written with the placement that
// first needs it, and from then on what needs it goes to that node alone: see seats of
// global services, which these slots share. The record outlives the replica and the
// service. Only an operator's word ends it; then it becomes a removal, which its node is
// told until it says that nothing is left. Until then the same slot gets no volume of
// that name there, for it would be taken away, too.

// volume is one volume: durable as it is.
type volume struct {
	key api.VolumeKey
	volumeRecord
}

type volumeRecord struct {
	UID       string    `json:"uid"`
	Node      string    `json:"node"`
	CreatedAt time.Time `json:"createdAt"`
	// RemovedBy is set in a removal.
	RemovedBy string `json:"removedBy,omitempty"`
}

// volumes are all that there are.
type volumes struct {
	of map[api.VolumeKey]*volume
	// removals are told to nodes, by node.
	removals map[string]map[api.VolumeKey]*volume
	changed  map[api.VolumeKey]bool // to be shown
}

func newVolumes() volumes {
	return volumes{of: map[api.VolumeKey]*volume{}, removals: map[string]map[api.VolumeKey]*volume{}, changed: map[api.VolumeKey]bool{}}
}

func (v *volumes) remove(x *volume) {
	if v.removals[x.Node] == nil {
		v.removals[x.Node] = map[api.VolumeKey]*volume{}
	}
	v.removals[x.Node][x.key] = x
	v.changed[x.key] = true
}

func compareVolumes(a, b api.VolumeKey) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Service, b.Service), cmp.Compare(a.Slot, b.Slot), cmp.Compare(a.Volume, b.Volume))
}

// loadVolume reads a volume, or with the name of its node a removal.
func (c *Core) loadVolume(node string, parts []string, value []byte) error {
	slot, err := strconv.Atoi(parts[2])
	if err != nil {
		return err
	}
	x := &volume{key: api.VolumeKey{Namespace: parts[0], Service: parts[1], Slot: slot, Volume: parts[3]}}
	if err := openEnvelope(value, &x.volumeRecord); err != nil {
		return err
	}
	c.volumes.changed[x.key] = true
	if node != "" {
		c.volumes.remove(x)
	} else {
		c.volumes.of[x.key] = x
	}
	return nil
}

// keyOf gives the slot's volume of a name.
func (s *service) keyOf(slot int, name string) api.VolumeKey {
	return api.VolumeKey{Namespace: s.key.Namespace, Service: s.key.Name, Slot: slot, Volume: name}
}

// withVolumes tells whether slots of the service are bound to nodes: they are to be, or
// something runs in them that is.
func (s *service) withVolumes() bool {
	newest := s.newest()
	return !s.global() && newest != nil && (len(newest.volumes) > 0 || s.binding > 0)
}

// seated tells whether slots of the service belong to nodes, so that nothing stands in
// for them elsewhere.
func (s *service) seated() bool { return s.global() || s.withVolumes() }

// needed are the names of the volumes that a slot may need now: of the newest revision,
// and of the one that the rollout may fill slots with.
func (s *service) needed() []string {
	names := s.newest().volumes
	if r := s.revisions[s.stable()]; r != nil && len(names) > 0 && s.obj.Status.Rollout.State != api.RolloutComplete {
		names = slices.Concat(names, r.volumes)
		slices.Sort(names)
		names = slices.Compact(names)
	}
	return names
}

// bind writes the volumes of a filling that is placed, those that its slot does not have
// yet. They go with its placement.
func (c *Core) bind(s *service, f *filling) []store.Op {
	var ops []store.Op
	for _, name := range f.volumes {
		key := s.keyOf(f.key.Slot, name)
		if c.volumes.of[key] != nil {
			continue
		}
		x := &volume{key: key, volumeRecord: volumeRecord{UID: c.newUID(false), Node: f.node, CreatedAt: c.now}}
		c.volumes.of[key] = x
		c.volumes.changed[key] = true
		s.seats.settled = false
		ops = append(ops, store.Put(volumeKey(key), object(api.KindVolume, x.volumeRecord)))
		c.event(key.Namespace, api.KindVolume, key.Name(), api.EventNormal, "Created", fmt.Sprintf("on %s for %s", f.node, f.key.Name()))
	}
	return ops
}

// touchVolumes has the volumes of a filling shown anew: who uses them has changed.
func (c *Core) touchVolumes(f *filling) {
	for _, name := range f.volumes {
		c.volumes.changed[c.services[f.key.ServiceKey()].keyOf(f.key.Slot, name)] = true
	}
}

// volumeNamed finds what is shown by a name: a volume, else a removal.
func (c *Core) volumeNamed(ref api.Key) (x *volume, removing bool) {
	key, ok := volumeKeyFrom(ref)
	if !ok {
		return nil, false
	}
	return c.volumeAt(key)
}

func (c *Core) volumeAt(key api.VolumeKey) (x *volume, removing bool) {
	if x := c.volumes.of[key]; x != nil {
		return x, false
	}
	for _, node := range slices.Sorted(maps.Keys(c.volumes.removals)) {
		if x := c.volumes.removals[node][key]; x != nil {
			return x, true
		}
	}
	return nil, false
}

// volumeKeyFrom reads "data.web-0".
func volumeKeyFrom(ref api.Key) (api.VolumeKey, bool) {
	name, replica, dot := strings.Cut(ref.Name, ".")
	dash := strings.LastIndexByte(replica, '-')
	if !dot || dash < 0 {
		return api.VolumeKey{}, false
	}
	slot, err := strconv.Atoi(replica[dash+1:])
	if err != nil || slot < 0 {
		return api.VolumeKey{}, false
	}
	key := api.VolumeKey{Namespace: ref.Namespace, Service: replica[:dash], Slot: slot, Volume: name}
	return key, key.Name() == ref.Name // "data.web-01" is no other name of it
}

// without words how many replicas a service may have that has not this slot.
func without(slot int) string {
	if slot == 0 {
		return "0"
	}
	return fmt.Sprintf("%d or less", slot)
}

// volumeRemoval has a volume go, which its node does. What may have it mounted, or will
// have on a node that is there, keeps it.
func (c *Core) volumeRemoval(ref api.Ref, ev Delete) (*removal, error) {
	x, removing := c.volumeNamed(ref.Key)
	switch {
	case x == nil:
		return nil, nil
	case removing:
		return &removal{do: func() {}}, nil
	}
	s := c.services[api.Key{Namespace: x.key.Namespace, Name: x.key.Service}]
	suspect := c.nodes[x.Node] != nil && c.nodes[x.Node].verdict == api.VerdictSuspect
	toDo := fmt.Sprintf("wait for its return, or, where it runs no more, say `orchctl node dead %s` first", x.Node)
	if users := c.usingVolume(x); len(users) > 0 && suspect {
		return nil, say(ErrBusy, "%s is used by %s on %s, which is Suspect: %s", ref, strings.Join(users, ", "), x.Node, toDo)
	} else if len(users) > 0 {
		return nil, say(ErrBusy, "%s is used by %s on %s: stop that first: scale service %s to %s, or delete it", ref, strings.Join(users, ", "), x.Node, s.key, without(x.key.Slot))
	}
	if s != nil && !s.deleting() && s.job == nil && s.wants(x.key.Slot) && slices.Contains(s.newest().volumes, x.key.Volume) {
		if why, pass := c.takesNothing(s, x.Node); (why == "" || pass) && !strings.HasPrefix(c.homeOf(s, x.key.Slot, s.needed()).why, "its volumes are") {
			at := "is there"
			if suspect {
				return nil, say(ErrBusy, "%s is wanted by service %s, and %s is Suspect: %s", ref, s.key, x.Node, toDo)
			}
			if why != "" {
				at = "may come back: " + why
			}
			return nil, say(ErrBusy, "%s is wanted by service %s, and %s %s: scale the service to %s, or delete it, first", ref, s.key, x.Node, at, without(x.key.Slot))
		}
	}
	gone := *x
	gone.RemovedBy = orElse(ev.By, "unknown")
	ops := []store.Op{store.Delete(volumeKey(x.key))}
	if c.nodes[x.Node] != nil {
		ops = append(ops, store.Put(volumeRemovalKey(&gone), object(api.KindVolume, gone.volumeRecord)))
	}
	return &removal{ops: ops, do: func() { c.beginRemoval(&gone) }}, nil
}

func (c *Core) beginRemoval(x *volume) {
	delete(c.volumes.of, x.key)
	c.volumes.changed[x.key] = true
	if c.nodes[x.Node] == nil {
		c.volumeEvent(x, "Removed", fmt.Sprintf("by %s; %s is no node of the fleet any more: what is on it is left as it is", x.RemovedBy, x.Node))
	} else {
		c.volumes.remove(x)
		c.volumeEvent(x, "Removing", fmt.Sprintf("on %s, by %s", x.Node, x.RemovedBy))
		c.sendToNode(x.Node, wire.AssignmentSet{RemoveVolumes: []api.VolumeKey{x.key}})
	}
	c.volumesChanged(x.key)
}

func (c *Core) volumeEvent(x *volume, reason, message string) {
	c.event(x.key.Namespace, api.KindVolume, x.key.Name(), api.EventNormal, reason, message)
}

// volumesChanged has the slot's service planned anew.
func (c *Core) volumesChanged(key api.VolumeKey) {
	if s := c.services[api.Key{Namespace: key.Namespace, Name: key.Service}]; s != nil {
		s.seats.settled = false
		c.markDirty(s)
	}
}

// volumeGone ends a removal: its node has said that nothing is left, or is no more.
func (c *Core) volumeGone(node string, key api.VolumeKey, how string) {
	x := c.volumes.removals[node][key]
	if x == nil {
		return
	}
	if delete(c.volumes.removals[node], key); len(c.volumes.removals[node]) == 0 {
		delete(c.volumes.removals, node)
	}
	c.volumes.changed[key] = true
	c.write(store.Delete(volumeRemovalKey(x)))
	c.volumeEvent(x, "Removed", how)
	c.volumesChanged(key)
}

// removedSlots are the slots of a service of which a node is still to remove a volume that
// the service has.
func (c *Core) removedSlots(s *service, node string) map[int]bool {
	out := map[int]bool{}
	for key := range c.volumes.removals[node] {
		if key.Namespace == s.key.Namespace && key.Service == s.key.Name && slices.Contains(s.needed(), key.Volume) {
			out[key.Slot] = true
		}
	}
	return out
}

// removalsOn are what a node is to remove, sorted.
func (c *Core) removalsOn(node string) []api.VolumeKey {
	return slices.SortedFunc(maps.Keys(c.volumes.removals[node]), compareVolumes)
}

// usingVolume are the fillings that may have a volume mounted: "web-0@17".
func (c *Core) usingVolume(x *volume) []string {
	s := c.services[api.Key{Namespace: x.key.Namespace, Name: x.key.Service}]
	if s == nil {
		return nil
	}
	var out []string
	for _, f := range s.inSlot(x.key.Slot) {
		if !f.void && f.node == x.Node && slices.Contains(f.volumes, x.key.Volume) {
			out = append(out, fmt.Sprintf("%s@%d", f.key.Name(), f.key.Epoch))
		}
	}
	return out
}

// publishVolumes shows what changed of volumes, and of who uses them.
func (c *Core) publishVolumes() {
	for _, key := range slices.SortedFunc(maps.Keys(c.volumes.changed), compareVolumes) {
		at := ViewKey{api.KindVolume, key.Namespace, key.Name()}
		x, removing := c.volumeAt(key)
		if x == nil {
			c.view.gone(at)
			continue
		}
		c.view.put(at, &api.Volume{TypeMeta: api.TypeMeta{APIVersion: api.Version, Kind: api.KindVolume},
			Metadata: api.Metadata{Name: key.Name(), Namespace: key.Namespace, UID: x.UID, CreatedAt: x.CreatedAt},
			Spec:     api.VolumeSpec{Volume: key.Volume, Service: key.Service, Slot: key.Slot, Node: x.Node},
			Status:   api.VolumeStatus{UsedBy: c.usingVolume(x), Removing: removing, RemovedBy: x.RemovedBy}})
	}
	clear(c.volumes.changed)
}

// volumesOf are the volumes of a name that slots of a service have, by slot.
func (c *Core) volumesOf(s *service, name string) []*volume {
	var out []*volume
	for key, x := range c.volumes.of {
		if key.Namespace == s.key.Namespace && key.Service == s.key.Name && key.Volume == name {
			out = append(out, x)
		}
	}
	slices.SortFunc(out, func(a, b *volume) int { return a.key.Slot - b.key.Slot })
	return out
}
