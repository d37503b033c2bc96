package core

import (
	"fmt"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/store"
)

// foldWithin: the same thing happening again within this time is counted on the
// event that told it first; later it is news.
const foldWithin = 10 * time.Minute

// history is the bounded past of each namespace ("" for nodes), oldest first.
type history struct {
	limit int
	of    map[string][]*api.Event
	last  map[eventID]*api.Event
}

type eventID struct{ namespace, kind, name, reason, message string }

func newHistory(limit int) *history {
	return &history{limit: limit, of: map[string][]*api.Event{}, last: map[eventID]*api.Event{}}
}

func idOf(e *api.Event) eventID { return eventID{e.Namespace, e.Kind, e.Name, e.Reason, e.Message} }

func (h *history) load(e *api.Event) {
	h.of[e.Namespace] = append(h.of[e.Namespace], e)
	h.last[idOf(e)] = e
}

// event records that something happened.
func (c *Core) event(namespace, kind, name, typ, reason, message string) {
	e := &api.Event{Time: c.now, Namespace: namespace, Kind: kind, Name: name, Type: typ, Reason: reason, Message: message, Count: 1}
	h := c.history
	list := h.of[namespace]
	if old := h.last[idOf(e)]; old != nil && c.now.Sub(old.Time) < foldWithin {
		again := *old // the published one is never changed
		again.Count++
		again.Time = c.now
		for i := len(list) - 1; i >= 0; i-- {
			if list[i] == old {
				list[i] = &again
				break
			}
		}
		h.last[idOf(e)] = &again
		c.publishEvent(&again)
		// What repeats costs a write for each doubling only: a crash loop may not
		// become a load on the store. After a takeover the count may be too low.
		if again.Count&(again.Count-1) == 0 {
			c.write(store.Put(eventKey(&again), object(api.KindEvent, &again)))
		}
		return
	}
	c.counters.event++
	e.Seq = c.counters.event
	h.of[namespace] = append(list, e)
	h.last[idOf(e)] = e
	c.write(store.Put(eventKey(e), object(api.KindEvent, e)))
	c.publishEvent(e)
	for len(h.of[namespace]) > h.limit {
		gone := h.of[namespace][0]
		h.of[namespace] = h.of[namespace][1:]
		if h.last[idOf(gone)] == gone {
			delete(h.last, idOf(gone))
		}
		c.write(store.Delete(eventKey(gone)))
		c.view.forgetEvent(gone)
	}
}

// tellChange makes events of what an agent's report says for the first time.
func (c *Core) tellChange(f *filling, was, is api.ReplicaStatus) {
	ns, name := f.key.Namespace, f.key.Name()
	tell := func(typ, reason, format string, args ...any) {
		c.event(ns, api.KindReplica, name, typ, reason, fmt.Sprintf(format, args...))
	}
	before := map[string]api.ContainerStatus{}
	for _, ct := range was.Containers {
		before[ct.Name] = ct
	}
	for _, ct := range is.Containers {
		old := before[ct.Name]
		if x := ct.LastExit; x != nil && (old.LastExit == nil || !old.LastExit.FinishedAt.Equal(x.FinishedAt)) && !f.stopping {
			typ := api.EventWarning
			if x.Reason == api.ExitCompleted {
				typ = api.EventNormal
			}
			tell(typ, x.Reason, "container %s on %s: %s", ct.Name, f.node, orElse(x.Message, "it ended by itself"))
			if ct.Reason == x.Reason {
				continue // the wait is for that end
			}
		}
		if ct.State == api.ContainerWaiting && ct.Reason != old.Reason && ct.Reason != api.ReasonPulling && ct.Reason != api.ReasonInitializing && ct.Reason != "" {
			tell(api.EventWarning, ct.Reason, "container %s on %s: %s", ct.Name, f.node, ct.Message)
		}
	}
	switch {
	case is.Ready && !was.Ready:
		tell(api.EventNormal, "Ready", "on %s at %s", f.node, is.IP)
	case !is.Ready && was.Ready && is.Phase.Ended(): // its end is told above
	case !is.Ready && was.Ready && !f.stopping:
		tell(api.EventWarning, "NotReady", "on %s: %s", f.node, orElse(is.Message, "it does not answer as ready any more"))
	}
	if own := is.OwnReason(); own != "" && own != api.ReasonInitializing && own != was.OwnReason() {
		tell(api.EventWarning, own, "on %s: %s", f.node, is.Message)
	}
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}
