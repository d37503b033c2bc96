package core

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/store"
)

// foldWithin: the same thing happening again within this time is counted on the
// event that told it first; later it is news.
const foldWithin = 10 * time.Minute

// A storm may neither push everything else out of the history nor become a load on the
// store: a service of 1,000 replicas that all crash, a fleet whose nodes all come back.
// What exceeds an allowance is told in sum, of the service or the fleet; what exceeds that
// of the namespace too is only counted. An allowance is a number of events at once, and one
// more after each interval.
const (
	eventsOfOneBurst = 100 // of a service's replicas: more nobody reads one by one
	eventsOfOneEvery = time.Second
	eventsInAllBurst = 400 // of all replicas of a namespace, or all nodes: under half of the history
	eventsInAllEvery = 200 * time.Millisecond
)

// history is the bounded past of each namespace ("" for nodes), oldest first.
type history struct {
	limit  int
	of     map[string][]*api.Event
	last   map[eventID]*api.Event
	ofOne  map[api.Key]*allowance // by service
	in     map[string]*allowance  // by namespace
	untold map[string]int         // events that were only counted, by namespace
}

// allowance is how many events may still be told one by one.
type allowance struct {
	spent int
	at    time.Time // up to when spent was paid back
}

func (a *allowance) take(now time.Time, burst int, every time.Duration) bool {
	if back := int(now.Sub(a.at) / every); a.spent == 0 || back >= a.spent {
		a.spent, a.at = 0, now
	} else if back > 0 {
		a.spent, a.at = a.spent-back, a.at.Add(time.Duration(back)*every)
	}
	if a.spent >= burst {
		return false
	}
	a.spent++
	return true
}

// eventID is the same for events that tell the same of the same object.
type eventID struct{ namespace, kind, name, uid, reason, message string }

func newHistory(limit int) *history {
	return &history{limit: limit, of: map[string][]*api.Event{}, last: map[eventID]*api.Event{}, ofOne: map[api.Key]*allowance{}, in: map[string]*allowance{}, untold: map[string]int{}}
}

// passing is what differs in what is the same: how long it waits, or took.
var passing = regexp.MustCompile(`[0-9]+(\.[0-9]+)?(ms|µs|[smh])\b`)

// inSum is how messages begin that tell of many.
const inSum = "many, among them "

func idOf(e *api.Event) eventID {
	message := e.Message
	if strings.HasPrefix(message, inSum) {
		message = inSum
	} else if strings.ContainsAny(message, "0123456789") {
		message = passing.ReplaceAllString(message, "#")
	}
	return eventID{e.Namespace, e.Kind, e.Name, e.UID, e.Reason, message}
}

func (h *history) load(e *api.Event) {
	h.of[e.Namespace] = append(h.of[e.Namespace], e)
	h.last[idOf(e)] = e
}

func allowanceOf[K comparable](of map[K]*allowance, key K) *allowance {
	a := of[key]
	if a == nil {
		a = &allowance{}
		of[key] = a
	}
	return a
}

// event records that something happened.
func (c *Core) event(namespace, kind, name, typ, reason, message string) {
	e := &api.Event{Time: c.now, Namespace: namespace, Kind: kind, Name: name, UID: c.uidOf(namespace, kind, name), Type: typ, Reason: reason, Message: message, Count: 1}
	if c.fold(e) || kind != api.KindReplica && kind != api.KindNode {
		if e.Count == 1 {
			c.tell(e)
		}
		return
	}
	h := c.history
	whose, all := api.Key{Namespace: namespace, Name: name}, kind == api.KindNode
	if kind == api.KindReplica {
		whose.Name = serviceIn(name)
		all = allowanceOf(h.ofOne, whose).take(c.now, eventsOfOneBurst, eventsOfOneEvery)
	}
	if all && allowanceOf(h.in, namespace).take(c.now, eventsInAllBurst, eventsInAllEvery) {
		c.tell(e)
		return
	}
	sum := *e
	sum.Message = fmt.Sprintf("%s%s: %s", inSum, name, message)
	sum.Kind, sum.Name = api.KindFleet, api.FleetName
	if kind == api.KindReplica {
		sum.Kind, sum.Name = api.KindService, whose.Name
		if s := c.services[whose]; s != nil {
			sum.Kind = s.kind()
		}
	}
	switch {
	case c.fold(&sum):
	case allowanceOf(h.in, namespace).take(c.now, 2*eventsInAllBurst, eventsInAllEvery): // room for sums where single ones have none
		c.tell(&sum)
	default:
		h.untold[namespace]++
	}
}

// serviceIn gives web of web-0.
func serviceIn(replica string) string {
	if i := strings.LastIndexByte(replica, '-'); i > 0 {
		return replica[:i]
	}
	return replica
}

// uidOf tells an object from one of its name that is deleted; empty where it has none.
func (c *Core) uidOf(namespace, kind, name string) string {
	switch kind {
	case api.KindReplica:
		name = serviceIn(name)
		fallthrough
	case api.KindService, api.KindJob:
		if s := c.services[api.Key{Namespace: namespace, Name: name}]; s != nil {
			return s.obj.Metadata.UID
		}
	case api.KindConfig, api.KindSecret:
		if x := c.configs[idOfConfig(kind, api.Key{Namespace: namespace, Name: name})]; x.there() {
			return x.Metadata.UID
		}
	}
	return ""
}

// fold counts an event on the one that told it first, if that is not long ago.
func (c *Core) fold(e *api.Event) bool {
	h, id := c.history, idOf(e)
	old := h.last[id]
	if old == nil || c.now.Sub(old.Time) >= foldWithin {
		return false
	}
	again := *old // the published one is never changed
	again.Count++
	again.Time, again.Message = c.now, e.Message
	e.Count = again.Count
	list := h.of[e.Namespace]
	for i := len(list) - 1; i >= 0; i-- {
		if list[i] == old {
			list[i] = &again
			break
		}
	}
	h.last[id] = &again
	c.publishEvent(&again)
	// What repeats costs a write for each doubling only: a crash loop may not
	// become a load on the store. After a takeover the count may be too low.
	if again.Count&(again.Count-1) == 0 {
		c.write(store.Put(eventKey(&again), object(api.KindEvent, &again)))
	}
	return true
}

// tell keeps an event, and lets the oldest go that have no room any more.
func (c *Core) tell(e *api.Event) {
	h, namespace := c.history, e.Namespace
	c.counters.event++
	e.Seq = c.counters.event
	h.of[namespace] = append(h.of[namespace], e)
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
