package core

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/store"
)

// apply takes all objects or none: everything is checked before anything is
// changed, and all writes go into one transaction.
func (c *Core) apply(ev Apply) {
	if !ev.DryRun {
		c.confirm()
	}
	if c.repeated(ev.Ticket, ev.RequestID) {
		return
	}
	d := &draft{configs: map[configID]*config{}, newer: map[configID]bool{}, seen: map[api.Ref]bool{}, record: &request{ID: ev.RequestID}}
	err := c.prepareAll(d, ev)
	if err == nil {
		err = c.portConflicts(d.services())
	}
	if err == nil {
		err = c.reserveVIPs(d.lackVIP, ev.DryRun)
	}
	if err != nil {
		c.answer(ev.Ticket, nil, err)
		return
	}
	ops := d.ops()
	if err := c.fits(d.words(), ops); err != nil {
		c.releaseVIPs(d.lackVIP)
		c.answer(ev.Ticket, nil, err)
		return
	}
	if !ev.DryRun {
		if len(ops) > 0 {
			c.write(append(ops, c.remember(d.record)...)...)
		}
		c.acceptAll(d, ev.By, ev.Trace)
	}
	c.answer(ev.Ticket, c.resultOf(d, ev.DryRun), nil)
}

// accept puts a changed service in the place of the one before.
func (c *Core) accept(s *service, outcome, by, trace string) {
	before := c.services[s.key]
	c.services[s.key] = s
	if before != nil && s.obj.Status.VIP == "" { // it is headless now
		c.returnVIP(before)
	}
	words := fmt.Sprintf("%s, by %s", s.shows(), orElse(by, "unknown"))
	if cause := s.newest().Cause; s.fresh && cause != "apply" {
		words += ": " + cause
	}
	c.event(s.key.Namespace, s.kind(), s.key.Name, api.EventNormal, map[string]string{"created": "Created", "configured": "Configured"}[outcome], words)
	c.trace(s, trace)
	c.revised(s)
}

// revised has everything know of a changed service that hangs on it.
func (c *Core) revised(s *service) {
	if s.fresh {
		c.view.touchRevision(s.key, s.obj.Status.Revision)
		_ = c.noteUser(s.key, s.newest(), true) // its pins were just looked up, or are those of a kept one
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
		return fmt.Errorf("%s: %w: %d writes are more than one transaction holds (%d); do it in parts%s", what, ErrInvalid, len(ops), l.MaxOps-opsRoom, remedy(l))
	}
	if room := l.MaxBytes * 3 / 4; size > room {
		return fmt.Errorf("%s: %w: %d bytes are more than one transaction holds (%d); do it in parts%s", what, ErrInvalid, size, room, remedy(l))
	}
	return nil
}

// remedy is for what cannot be parted, such as a Config and the new revisions of all
// that use it: an external etcd may be given larger limits.
func remedy(l store.Limits) string {
	if l.MaxOps >= store.EmbeddedLimits.MaxOps && l.MaxBytes >= store.EmbeddedLimits.MaxBytes {
		return ""
	}
	return ", or raise etcd's --max-txn-ops and --max-request-bytes, and with them the controller's --etcd-max-txn-ops and --etcd-max-request-bytes"
}

// sameJSON compares as the store and the wire do: an empty list and none are one.
func sameJSON(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}

// prepare makes what a service would be after the apply, in a copy.
func (c *Core) prepare(want *api.Service, d *draft, ev Apply) (*service, string, error) {
	key := want.Metadata.Key()
	have := c.services[key]
	if err := have.mayBe(api.KindService, want.Metadata); err != nil {
		return nil, "", err
	}
	next := newService(key)
	outcome := "created"
	if have == nil {
		next.obj.Metadata.UID, next.obj.Metadata.CreatedAt = c.newUID(ev.DryRun), c.now
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
	newer := newerOf(key.Namespace, &want.Spec.Template, d)
	if have != nil && !newTemplate && newer == "" && sameJSON(have.obj.Spec, want.Spec) && sameJSON(have.obj.Metadata, m) {
		return have, "unchanged", nil
	}
	if have == nil || !sameJSON(have.obj.Spec, want.Spec) {
		m.Generation++
	}
	m.ResourceVersion++
	next.obj = api.Service{TypeMeta: api.TypeMeta{APIVersion: api.Version, Kind: api.KindService}, Metadata: m, Spec: want.Spec, Status: next.obj.Status}
	switch {
	case newTemplate:
		pins, err := c.pins(api.Ref{Key: key}, &want.Spec.Template, d.configs)
		if err != nil {
			return nil, "", err
		}
		r := api.Revision{Template: want.Spec.Template, Images: imagesOf(&want.Spec.Template, ev.Images, nil), Configs: pins, By: ev.By, Cause: "apply"}
		next.revise(r, api.RolloutSuperseded, supersededBy(next.obj.Status.Revision+1), c.now)
	case newer != "":
		pins, err := c.newerPins(have, d)
		if err != nil {
			return nil, "", err
		}
		r := api.Revision{Template: want.Spec.Template, Images: rev.Images, Configs: pins, By: ev.By, Cause: newer}
		next.revise(r, api.RolloutSuperseded, supersededBy(next.obj.Status.Revision+1), c.now)
	}
	if want.Spec.Headless {
		next.obj.Status.VIP = ""
	}
	return next, outcome, nil
}

// mayBe checks what a manifest says about the service or job that it means; nil: there is
// neither.
func (s *service) mayBe(kind string, m api.Metadata) error {
	if s == nil {
		return precondition(kind, nil, m)
	}
	if s.kind() != kind {
		return say(ErrInvalid, "%s: there is a %s, and jobs and services of a namespace share their names", api.Ref{Kind: kind, Key: m.Key()}, s.title())
	}
	return precondition(kind, &s.obj.Metadata, m)
}

// precondition checks what a manifest says about the object that it means; have is nil
// where there is none.
func precondition(kind string, have *api.Metadata, m api.Metadata) error {
	ref := api.Ref{Kind: kind, Key: m.Key()}
	word, _, _ := strings.Cut(ref.String(), " ")
	switch {
	case have == nil && (m.ResourceVersion != 0 || m.UID != ""):
		return fmt.Errorf("%s: %w: the manifest carries metadata.resourceVersion or metadata.uid, but no such %s exists; leave them out to create it", ref, ErrChanged, word)
	case have != nil && m.UID != "" && m.UID != have.UID:
		return fmt.Errorf("%s: %w: metadata.uid is %s, the %s's is %s: it was deleted and made anew", ref, ErrChanged, m.UID, word, have.UID)
	case have != nil && m.ResourceVersion != 0 && m.ResourceVersion != have.ResourceVersion:
		return fmt.Errorf("%s: %w: metadata.resourceVersion is %d, the %s's is %d; get it again and repeat your change", ref, ErrChanged, m.ResourceVersion, word, have.ResourceVersion)
	}
	return nil
}

// ops writes the service, its newest revision if it is new, and how the one before went
// if that has ended by it.
func (s *service) ops() []store.Op {
	ops := []store.Op{s.record()}
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
	case s.job != nil:
		err = say(ErrInvalid, "job %s: a job is not scaled: apply it with another parallelism", ev.Key)
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
	c.apply(Apply{Ticket: ev.Ticket, Services: []*api.Service{&want}, RequestID: ev.RequestID, By: ev.By, Trace: ev.Trace})
}
