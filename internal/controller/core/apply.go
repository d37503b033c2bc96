package core

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/store"
	"github.com/orchctl/orch/scheduler"
)

// apply takes all services or none: everything is checked before anything is
// changed, and all writes go into one transaction.
func (c *Core) apply(ev Apply) {
	if !ev.DryRun {
		c.confirm()
	}
	if c.repeated(ev.Ticket, ev.RequestID) {
		return
	}
	results := make([]Applied, len(ev.Services))
	changed := make([]*service, len(ev.Services))
	record := &request{ID: ev.RequestID}
	var lackVIP []*service
	seen := map[api.Key]bool{}
	for i, want := range ev.Services {
		s, outcome, err := c.prepare(want, ev)
		if key := want.Metadata.Key(); err == nil && seen[key] {
			err = fmt.Errorf("service %s stands twice in one apply: %w", key, ErrInvalid)
		}
		seen[want.Metadata.Key()] = true
		if err != nil {
			c.answer(ev.Ticket, nil, err)
			return
		}
		results[i].Outcome, changed[i] = outcome, s
		record.Applied = append(record.Applied, requestedOne{s.key, outcome})
		if outcome != "unchanged" && s.lacksVIP() {
			lackVIP = append(lackVIP, s)
		}
	}
	err := c.portConflicts(changed)
	if err == nil {
		err = c.reserveVIPs(lackVIP, ev.DryRun)
	}
	if err != nil {
		c.answer(ev.Ticket, nil, err)
		return
	}
	var ops []store.Op
	for i, s := range changed {
		if results[i].Outcome != "unchanged" {
			ops = append(ops, s.ops()...)
		}
	}
	if err := c.fits(fmt.Sprintf("apply %d services at once", len(ev.Services)), ops); err != nil {
		c.releaseVIPs(lackVIP)
		c.answer(ev.Ticket, nil, err)
		return
	}
	if ev.DryRun {
		for i, s := range changed {
			results[i].Service = c.publicService(s)
			results[i].Plan = c.dryRun(s)
		}
		c.answer(ev.Ticket, ApplyResult{results}, nil)
		return
	}
	if len(ops) > 0 {
		c.write(append(ops, c.remember(record)...)...)
	}
	for i, s := range changed {
		if results[i].Outcome != "unchanged" {
			c.accept(s, results[i].Outcome, ev.By)
		}
		results[i].Service = c.publicService(s)
	}
	c.answer(ev.Ticket, ApplyResult{results}, nil)
}

// accept puts a changed service in the place of the one before.
func (c *Core) accept(s *service, outcome, by string) {
	before := c.services[s.key]
	c.services[s.key] = s
	if before != nil && s.obj.Status.VIP == "" { // it is headless now
		c.returnVIP(before)
	}
	c.event(s.key.Namespace, api.KindService, s.key.Name, api.EventNormal, map[string]string{"created": "Created", "configured": "Configured"}[outcome],
		fmt.Sprintf("revision %d, %s, by %s", s.obj.Status.Revision, s.size(), orElse(by, "unknown")))
	c.revised(s)
}

// revised has everything know of a changed service that hangs on it.
func (c *Core) revised(s *service) {
	if s.fresh {
		c.view.touchRevision(s.key, s.obj.Status.Revision)
	}
	if s.ended != 0 {
		c.view.touchRevision(s.key, s.ended)
	}
	s.fresh, s.ended = false, 0
	c.noteGlobal(s)
	c.pruneRevisions(s)
	c.claimPorts(s)
	c.tellService(s)
	c.markDirty(s)
	for _, f := range s.fillings {
		c.view.touchFilling(f) // replicas show their service's labels
	}
}

// opsRoom is kept free in a transaction beside what one change writes: counters,
// the memory of requests, the fence.
const opsRoom = 8

// fits refuses a change that no transaction can hold. Sent all the same it would
// topple the leader, and again with every retry.
func (c *Core) fits(what string, ops []store.Op) error {
	size := 0
	for _, op := range ops {
		size += op.Size()
	}
	l := c.cfg.Limits
	if len(ops) > l.MaxOps-opsRoom {
		return fmt.Errorf("%s: %w: %d writes are more than one transaction holds (%d); do it in parts", what, ErrInvalid, len(ops), l.MaxOps-opsRoom)
	}
	if room := l.MaxBytes * 3 / 4; size > room {
		return fmt.Errorf("%s: %w: %d bytes are more than one transaction holds (%d); do it in parts", what, ErrInvalid, size, room)
	}
	return nil
}

// sameJSON compares as the store and the wire do: an empty list and none are one.
func sameJSON(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}

// prepare makes what a service would be after the apply, in a copy.
func (c *Core) prepare(want *api.Service, ev Apply) (*service, string, error) {
	key := want.Metadata.Key()
	have := c.services[key]
	if err := precondition(have, want); err != nil {
		return nil, "", err
	}
	next := newService(key)
	outcome := "created"
	if have == nil {
		if !ev.DryRun {
			c.counters.event++ // the UID's number is spent like an event's
			next.obj.Metadata.UID = fmt.Sprintf("%.8s-%d", c.cfg.Incarnation, c.counters.event)
		}
		next.obj.Metadata.CreatedAt = c.now
	} else {
		if have.deleting() {
			return nil, "", fmt.Errorf("service %s is being deleted: %w: apply again when it is gone", key, ErrBusy)
		}
		next = have.copy()
		outcome = "configured"
	}
	m := next.obj.Metadata
	m.Name, m.Namespace, m.Labels, m.Annotations = key.Name, key.Namespace, want.Metadata.Labels, want.Metadata.Annotations
	rev := next.newest()
	newTemplate := rev == nil || !sameJSON(rev.Template, want.Spec.Template)
	if have != nil && !newTemplate && sameJSON(have.obj.Spec, want.Spec) && sameJSON(have.obj.Metadata, m) {
		return have, "unchanged", nil
	}
	if have == nil || !sameJSON(have.obj.Spec, want.Spec) {
		m.Generation++
	}
	m.ResourceVersion++
	next.obj = api.Service{TypeMeta: api.TypeMeta{APIVersion: api.Version, Kind: api.KindService}, Metadata: m, Spec: want.Spec, Status: next.obj.Status}
	if newTemplate {
		next.revise(api.Revision{Template: want.Spec.Template, Images: imagesOf(&want.Spec.Template, ev.Images, nil), By: ev.By, Cause: "apply"},
			api.RolloutSuperseded, supersededBy(next.obj.Status.Revision+1), c.now)
	}
	if want.Spec.Headless {
		next.obj.Status.VIP = ""
	}
	return next, outcome, nil
}

// precondition checks what a manifest says about the object that it means.
func precondition(have *service, want *api.Service) error {
	m, key := want.Metadata, want.Metadata.Key()
	switch {
	case have == nil && (m.ResourceVersion != 0 || m.UID != ""):
		return fmt.Errorf("service %s: %w: the manifest carries metadata.resourceVersion or metadata.uid, but no such service exists; leave them out to create it", key, ErrChanged)
	case have != nil && m.UID != "" && m.UID != have.obj.Metadata.UID:
		return fmt.Errorf("service %s: %w: metadata.uid is %s, the service's is %s: it was deleted and made anew", key, ErrChanged, m.UID, have.obj.Metadata.UID)
	case have != nil && m.ResourceVersion != 0 && m.ResourceVersion != have.obj.Metadata.ResourceVersion:
		return fmt.Errorf("service %s: %w: metadata.resourceVersion is %d, the service's is %d; get it again and repeat your change", key, ErrChanged, m.ResourceVersion, have.obj.Metadata.ResourceVersion)
	}
	return nil
}

// ops writes the service, its newest revision if it is new, and how the one before went
// if that has ended by it.
func (s *service) ops() []store.Op {
	ops := []store.Op{store.Put(serviceKey(s.key), object(api.KindService, &s.obj))}
	if s.fresh {
		ops = append(ops, store.Put(revisionKey(s.key, s.obj.Status.Revision), object(api.KindRevision, &s.newest().Revision)))
	}
	if s.ended != 0 {
		ops = append(ops, store.Put(revisionKey(s.key, s.ended), object(api.KindRevision, &s.revisions[s.ended].Revision)))
	}
	return ops
}

func (c *Core) scale(ev Scale) {
	c.confirm()
	if c.repeated(ev.Ticket, ev.RequestID) {
		return
	}
	s := c.services[ev.Key]
	var err error
	switch {
	case s == nil:
		err = fmt.Errorf("service %s: %w", ev.Key, ErrNotFound)
	case s.deleting():
		err = fmt.Errorf("service %s is being deleted: %w", ev.Key, ErrBusy)
	case s.global():
		err = fmt.Errorf("scale service %s to %d: %w: it is global and has %s", ev.Key, ev.Replicas, ErrInvalid, s.size())
	case ev.Replicas < 0:
		err = fmt.Errorf("scale service %s to %d: %w: want 0 or more", ev.Key, ev.Replicas, ErrInvalid)
	case ev.Current >= 0 && s.obj.Spec.Want() != ev.Current:
		err = fmt.Errorf("service %s: %w: it has %d replicas, not %d", ev.Key, ErrChanged, s.obj.Spec.Want(), ev.Current)
	}
	if err != nil {
		c.answer(ev.Ticket, nil, err)
		return
	}
	want := s.obj
	want.Metadata.ResourceVersion, want.Metadata.UID = 0, ""
	want.Spec.Replicas = &ev.Replicas
	c.apply(Apply{Ticket: ev.Ticket, Services: []*api.Service{&want}, RequestID: ev.RequestID, By: ev.By})
}

func (c *Core) deleteServices(ev Delete) {
	c.confirm()
	if c.repeated(ev.Ticket, ev.RequestID) {
		return
	}
	record := &request{ID: ev.RequestID, IsDelete: true}
	var ops []store.Op
	for _, ref := range ev.Refs {
		key := ref.Key
		s := c.services[key]
		switch {
		case s == nil:
			record.Missing = append(record.Missing, ref)
		case slices.Contains(record.Deleted, ref):
		default:
			record.Deleted = append(record.Deleted, ref)
			if gone := s.obj; !s.deleting() {
				gone.Metadata.DeletedAt = c.now
				gone.Metadata.ResourceVersion++
				ops = append(ops, store.Put(serviceKey(key), object(api.KindService, &gone)))
			}
		}
	}
	err := c.fits(fmt.Sprintf("delete %d objects at once", len(ev.Refs)), ops)
	if len(record.Missing) > 0 && !ev.IgnoreMissing {
		err = fmt.Errorf("%s: %w; nothing was deleted", record.Missing[0], ErrNotFound)
	}
	if err != nil {
		c.answer(ev.Ticket, nil, err)
		return
	}
	for _, ref := range record.Deleted {
		key := ref.Key
		if s := c.services[key]; !s.deleting() {
			s.obj.Metadata.DeletedAt = c.now
			s.obj.Metadata.ResourceVersion++
			c.event(key.Namespace, api.KindService, key.Name, api.EventNormal, "Deleting", "by "+orElse(ev.By, "unknown"))
			c.markDirty(s)
		}
	}
	if len(ops) > 0 {
		c.write(append(ops, c.remember(record)...)...)
	}
	c.answer(ev.Ticket, DeleteResult{Deleted: record.Deleted, Missing: record.Missing}, nil)
}

func (c *Core) explain(ev Explain) {
	s := c.services[ev.Key]
	if s == nil {
		c.answer(ev.Ticket, nil, fmt.Errorf("service %s: %w", ev.Key, ErrNotFound))
		return
	}
	c.answer(ev.Ticket, scheduler.Explain(c.fleet, s.newest().shape, s.key), nil)
}
