package counts

import (
	"context"
	"errors"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/controller/view"
)

// The phases of a failover.
const (
	phaseDetect  = "detect"
	phaseReplace = "replace"
	phaseTotal   = "total"
)

// waitedMax is how long a replica's replacement is waited for: one that comes later
// waited for an operator, and its time tells nothing of orch.
const waitedMax = time.Hour

// slot is a place that one replica at a time is to fill.
type slot struct {
	api.Key
	number int
}

// seen is what the view says of a filling of a slot.
type seen struct {
	slot  slot
	node  string
	ready bool
}

// loss is a slot whose replica was ready on a node that was lost.
type loss struct {
	node     string
	heard    time.Time // the node's last beat; zero: not known
	judged   time.Time
	observed time.Time // when it was noted here, for waitedMax
}

// failovers follow what is published, and measure. They belong to one goroutine.
type failovers struct {
	set     *Set
	began   time.Time
	seq     uint64 // of the latest verdict that was counted
	event   uint64 // of the latest event
	known   map[core.ViewKey]seen
	on      map[string]map[core.ViewKey]bool // the keys of known, by node
	waiting map[slot]loss
}

func newFailovers(s *Set, now time.Time) *failovers {
	f := &failovers{set: s, began: now, waiting: map[slot]loss{}}
	f.reset()
	return f
}

func (f *failovers) reset() {
	f.known, f.on = map[core.ViewKey]seen{}, map[string]map[core.ViewKey]bool{}
}

// Run follows the view until ctx ends. Verdicts and events from before are not
// counted: another life of this controller did, or another controller.
func (s *Set) Run(ctx context.Context) error {
	if s == nil {
		return nil
	}
	f := newFailovers(s, time.Now())
	for ctx.Err() == nil {
		f.follow(ctx, s.sources.Load().View)
	}
	return nil
}

// follow watches until ctx ends or the watch is cut, because this did not keep up.
func (f *failovers) follow(ctx context.Context, v *view.View) {
	snapshot, w := v.Watch("", "")
	defer w.Close()
	f.reset()
	if snapshot != nil {
		snapshot.All(api.KindReplica, "", func(e core.Entry) bool {
			f.take(view.Change{Key: e.Key, Object: e.Object}, time.Now())
			return true
		})
	}
	for {
		changes, err := w.Next(ctx)
		if errors.Is(err, view.ErrTooSlow) || ctx.Err() != nil {
			return
		}
		now := time.Now()
		// What is told together begins with the verdict: its replicas are no longer
		// shown as ready in the same publication.
		for _, c := range changes {
			if r, ok := c.Object.(*api.VerdictRecord); ok && !c.Gone {
				f.judged(r, now)
			}
		}
		for _, c := range changes {
			f.take(c, now)
		}
	}
}

// judged counts a verdict once, and has what was ready on a lost node waited for.
func (f *failovers) judged(r *api.VerdictRecord, now time.Time) {
	if r.Seq <= f.seq || r.Time.Before(f.began) || r.From == "" && r.To == "" {
		return
	}
	f.seq = r.Seq
	f.set.verdicts.WithLabelValues(string(r.From), string(r.To)).Inc()
	if r.To != api.VerdictSuspect && r.To != api.VerdictDead {
		return
	}
	heard := f.set.beats.at(r.Node)
	if r.From == api.VerdictHealthy && !heard.IsZero() && heard.Before(r.Time) {
		f.set.failovers.WithLabelValues(phaseDetect).Observe(r.Time.Sub(heard).Seconds())
	}
	for s, l := range f.waiting {
		if now.Sub(l.observed) > waitedMax {
			delete(f.waiting, s)
		}
	}
	for key := range f.on[r.Node] {
		x := f.known[key]
		if _, already := f.waiting[x.slot]; x.ready && !already {
			f.waiting[x.slot] = loss{node: r.Node, heard: heard, judged: r.Time, observed: now}
		}
	}
}

// take keeps what is known of replicas, and ends the wait for those that are ready.
func (f *failovers) take(c view.Change, now time.Time) {
	switch x := c.Object.(type) {
	case *api.Replica:
		f.replica(c.Key, x, c.Gone, now)
	case *api.Event:
		if count := f.set.told[string(x.Type)]; count != nil && !c.Gone && x.Seq > f.event && !x.Time.Before(f.began) {
			f.event = x.Seq
			count.Inc()
		}
	case *api.Service:
		if c.Gone {
			for s := range f.waiting {
				if s.Key == x.Metadata.Key() {
					delete(f.waiting, s)
				}
			}
		}
	case *api.Node:
		if c.Gone {
			f.set.beats.forget(x.Metadata.Name)
		}
	}
}

func (f *failovers) replica(key core.ViewKey, r *api.Replica, gone bool, now time.Time) {
	if old, ok := f.known[key]; ok {
		delete(f.known, key)
		if delete(f.on[old.node], key); len(f.on[old.node]) == 0 {
			delete(f.on, old.node)
		}
	}
	if gone || r.Spec.Node == "" || r.Spec.Job {
		return
	}
	x := seen{slot{api.Key{Namespace: r.Metadata.Namespace, Name: r.Spec.Service}, r.Spec.Slot}, r.Spec.Node, r.Status.Ready}
	f.known[key] = x
	if f.on[x.node] == nil {
		f.on[x.node] = map[core.ViewKey]bool{}
	}
	f.on[x.node][key] = true
	l, lost := f.waiting[x.slot]
	if !lost || !x.ready {
		return
	}
	delete(f.waiting, x.slot)
	if x.node == l.node {
		return // its node came back sooner
	}
	f.set.failovers.WithLabelValues(phaseReplace).Observe(max(0, now.Sub(l.judged).Seconds()))
	if !l.heard.IsZero() {
		f.set.failovers.WithLabelValues(phaseTotal).Observe(max(0, now.Sub(l.heard).Seconds()))
	}
}
