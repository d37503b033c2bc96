package core

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

// view knows what is published, so that only changes are.
type view struct {
	services map[api.Key]*service
	fillings map[api.ReplicaKey]*filling
	nodes    map[string]*node
	known    map[ViewKey]any
	beside   beside                       // of the nodes in known
	pending  map[api.Key]map[ViewKey]bool // published replicas without a node
	// revisions that changed, by number.
	revisions map[api.Key]map[int64]bool
	outcomes  map[api.Key]map[int]bool // likewise, by index
	configs   map[configID]bool        // that changed, or their users
	out       changes
}

// changes gathers what is to be published: each key once, its last word.
type changes struct {
	order []ViewKey
	of    map[ViewKey]any // nil: gone
}

func (x *changes) set(k ViewKey, object any) {
	if x.of == nil {
		x.of = map[ViewKey]any{}
	}
	if _, ok := x.of[k]; !ok {
		x.order = append(x.order, k)
	}
	x.of[k] = object
}

func (x *changes) take() Publish {
	var p Publish
	for _, k := range x.order {
		if object := x.of[k]; object != nil {
			p.Put = append(p.Put, Entry{k, object})
		} else {
			p.Gone = append(p.Gone, k)
		}
	}
	*x = changes{}
	return p
}

func newView() view {
	return view{services: map[api.Key]*service{}, fillings: map[api.ReplicaKey]*filling{}, nodes: map[string]*node{},
		known: map[ViewKey]any{}, pending: map[api.Key]map[ViewKey]bool{}, revisions: map[api.Key]map[int64]bool{}, outcomes: map[api.Key]map[int]bool{}, configs: map[configID]bool{}}
}

func (v *view) touch(s *service)        { v.services[s.key] = s }
func (v *view) touchFilling(f *filling) { v.fillings[f.key] = f }
func (v *view) touchNode(n *node)       { v.nodes[n.name] = n }

func (v *view) touchRevision(key api.Key, n int64) {
	if v.revisions[key] == nil {
		v.revisions[key] = map[int64]bool{}
	}
	v.revisions[key][n] = true
}

func (v *view) touchOutcome(key api.Key, index int) {
	if v.outcomes[key] == nil {
		v.outcomes[key] = map[int]bool{}
	}
	v.outcomes[key][index] = true
}

func (v *view) put(k ViewKey, object any) {
	if old, ok := v.known[k]; ok && reflect.DeepEqual(old, object) {
		return
	}
	v.beside.count(v.known[k], -1)
	v.beside.count(object, 1)
	v.known[k] = object
	v.out.set(k, object)
}

func (v *view) gone(k ViewKey) {
	if old, ok := v.known[k]; ok {
		v.beside.count(old, -1)
		delete(v.known, k)
		v.out.set(k, nil)
	}
}

// forget is for a service whose fillings are gone already.
func (v *view) forget(s *service) {
	delete(v.services, s.key)
	for _, k := range slices.SortedFunc(maps.Keys(v.pending[s.key]), compareViewKeys) {
		v.gone(k)
	}
	delete(v.pending, s.key)
	v.gone(ViewKey{s.kind(), s.key.Namespace, s.key.Name})
}

func (v *view) forgetFilling(f *filling) {
	delete(v.fillings, f.key)
	v.gone(fillingKey(f))
	v.gone(endpointKey(f))
}

func endpointKey(f *filling) ViewKey {
	k := fillingKey(f)
	k.Kind = api.KindEndpoint
	return k
}

func fillingKey(f *filling) ViewKey {
	return ViewKey{api.KindReplica, f.key.Namespace, fmt.Sprintf("%s@%d", f.key.Name(), f.key.Epoch)}
}

func (v *view) forgetNode(n *node) {
	delete(v.nodes, n.name)
	v.gone(ViewKey{Kind: api.KindNode, Name: n.name})
}

func eventViewKey(e *api.Event) ViewKey {
	return ViewKey{api.KindEvent, e.Namespace, strconv.FormatUint(e.Seq, 10)}
}

// Events are published without being kept here: the history has them.
func (v *view) forgetEvent(e *api.Event) { v.out.set(eventViewKey(e), nil) }

func (c *Core) publishEvent(e *api.Event) {
	c.view.out.set(eventViewKey(e), e)
}

// publish emits what changed since the last time.
func (c *Core) publish() {
	for _, key := range slices.SortedFunc(maps.Keys(c.view.fillings), compareReplicas) {
		f := c.view.fillings[key]
		c.view.put(fillingKey(f), c.publicReplica(c.services[key.ServiceKey()], f))
		if e := c.publicEndpoint(f); e != nil {
			c.view.put(endpointKey(f), e)
		} else {
			c.view.gone(endpointKey(f))
		}
	}
	clear(c.view.fillings)
	for _, key := range slices.SortedFunc(maps.Keys(c.view.services), compareKeys) {
		if s := c.services[key]; s != nil {
			c.publishPending(s)
			c.view.put(ViewKey{s.kind(), key.Namespace, key.Name}, c.public(s))
		}
	}
	clear(c.view.services)
	c.publishRevisions()
	c.publishOutcomes()
	c.publishConfigs()
	c.publishVolumes()
	for _, name := range slices.Sorted(maps.Keys(c.view.nodes)) {
		if n := c.nodes[name]; n != nil {
			c.view.put(ViewKey{Kind: api.KindNode, Name: name}, c.publicNode(n))
		}
	}
	clear(c.view.nodes)
	c.publishFleet()
	if len(c.view.out.order) > 0 {
		c.emit(c.view.out.take())
	}
}

// publishPending shows the replicas that want a node and have none.
func (c *Core) publishPending(s *service) {
	now := map[ViewKey]bool{}
	for _, slot := range slices.Sorted(maps.Keys(s.refused)) {
		r := s.refused[slot]
		key := api.ReplicaKey{Namespace: s.key.Namespace, Service: s.key.Name, Slot: slot}
		k := ViewKey{api.KindReplica, s.key.Namespace, key.Name()}
		now[k] = true
		c.view.put(k, &api.Replica{TypeMeta: api.TypeMeta{APIVersion: api.Version, Kind: api.KindReplica},
			Metadata: api.Metadata{Name: key.Name(), Namespace: s.key.Namespace, Labels: s.obj.Metadata.Labels, CreatedAt: r.since},
			Spec:     api.ReplicaSpec{Service: s.key.Name, Slot: slot, Revision: r.revision, Spare: r.spare, Job: s.job != nil},
			Status:   api.ReplicaStatus{Phase: api.PhasePending, Reason: api.ReasonNoNode, Message: r.reason}})
	}
	for _, k := range slices.SortedFunc(maps.Keys(c.view.pending[s.key]), compareViewKeys) {
		if !now[k] {
			c.view.gone(k)
		}
	}
	c.view.pending[s.key] = now
}

func compareViewKeys(a, b ViewKey) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

func (c *Core) publicReplica(s *service, f *filling) *api.Replica {
	r := &api.Replica{TypeMeta: api.TypeMeta{APIVersion: api.Version, Kind: api.KindReplica},
		Metadata: api.Metadata{Name: f.key.Name(), Namespace: f.key.Namespace, Labels: s.obj.Metadata.Labels, CreatedAt: f.placedAt},
		Spec:     api.ReplicaSpec{Service: s.key.Name, Slot: f.key.Slot, Epoch: f.key.Epoch, Revision: s.runs(f), Node: f.node, Spare: f.spare, Job: f.job, Why: f.why, Chosen: f.chosen},
		Status:   f.status}
	switch v := c.verdictOf(f); v {
	case api.VerdictHealthy:
		r.Status.LastKnown = !f.reported
		if words := c.failingWords(s, f); words != "" {
			r.Status.Message = joinWith(words, f.status.Message)
		}
	case api.VerdictSuspect, api.VerdictDead:
		r.Status.Ready, r.Status.LastKnown = false, true
		r.Status.Reason, r.Status.Message = "Node"+string(v), c.verdictWords(f, v)
		r.Status.Degraded = c.ends.live[f.key].Degraded
	default:
		r.Status.LastKnown = true
		r.Status.Message = fmt.Sprintf("node %s is %s: this is what it last said", f.node, v)
		if c.unsure(f) {
			r.Status.Ready, r.Status.Degraded = false, c.ends.live[f.key].Degraded
			r.Status.Message = silentWords(f)
		}
		if c.spent(f) {
			r.Status.Ready, r.Status.Reason = false, api.ReasonLeaseLost
			r.Status.Message = fmt.Sprintf("node %s is %s, and its last lease has ended", f.node, v)
		}
	}
	if f.stopping {
		r.Status.Ready = false   // it gets no traffic any more, whatever its agent said last
		r.Status.Message = f.why // the agent knows only that the leader wants it
		if f.handing {
			r.Status.Reason = api.ReasonHandingOver
		}
		if r.Status.Phase.Before(api.PhaseStopping) {
			r.Status.Phase = api.PhaseStopping
		}
	}
	return r
}

// publicEndpoint gives what agents are told of a filling, nil where that is that it
// gets no traffic. Of one that they keep, its address may not be known here.
func (c *Core) publicEndpoint(f *filling) *api.Endpoint {
	e, live := c.ends.live[f.key]
	if !live {
		if !c.keeps(f) {
			return nil
		}
		e = wire.Endpoint{IP: f.status.IP, Ports: f.ports}
	}
	return &api.Endpoint{TypeMeta: api.TypeMeta{APIVersion: api.Version, Kind: api.KindEndpoint},
		Metadata: api.Metadata{Name: endpointKey(f).Name, Namespace: f.key.Namespace, Labels: c.services[f.key.ServiceKey()].obj.Metadata.Labels, CreatedAt: f.placedAt},
		Status: api.EndpointStatus{Service: f.key.Service, Replica: f.key.Name(), Epoch: f.key.Epoch, Node: f.node, IP: e.IP, Ports: e.Ports,
			Verdict: c.verdictOf(f), Degraded: e.Degraded, Kept: !live}}
}

func (c *Core) verdictWords(f *filling, v api.Verdict) string {
	if n := c.nodes[f.node]; n != nil {
		return fmt.Sprintf("node %s is %s: %s%s", f.node, v, n.why, boundWords(f, v))
	}
	return fmt.Sprintf("node %s was removed", f.node)
}

// public is the service or job as it is published.
func (c *Core) public(s *service) any {
	if s.job != nil {
		return c.publicJob(s)
	}
	return c.publicService(s)
}

func (c *Core) publicService(s *service) *api.Service {
	out := s.obj
	c.seat(s)
	st := api.ServiceStatus{Revision: s.obj.Status.Revision, VIP: s.obj.Status.VIP}
	ready, updatedReady := map[int]bool{}, map[int]bool{}
	for _, f := range s.fillings {
		if f.stopping || f.void {
			continue
		}
		st.Replicas++
		updated := s.runs(f) == st.Revision
		if updated {
			st.Updated++
		}
		if e, ok := c.ends.live[f.key]; ok && !e.Degraded && s.wants(f.key.Slot) {
			ready[f.key.Slot] = true
			updatedReady[f.key.Slot] = updatedReady[f.key.Slot] || updated
		}
	}
	st.Ready = len(ready)
	if s.global() {
		st.Replicas = s.want() // those that are to be: the manifest does not say how many
	}
	for _, ok := range updatedReady {
		if ok {
			st.UpdatedReady++
		}
	}
	st.Reasons = c.reasons(s)
	st.Rollout = c.publicRollout(s, st.Reasons)
	out.Status = st
	return &out
}

// reasonsMax is as much as a person reads.
const reasonsMax = 20

// reasons say in words what a service still lacks.
func (c *Core) reasons(s *service) []string {
	var out, explained []string
	if s.deleting() {
		for _, f := range s.fillings {
			out = append(out, fmt.Sprintf("being deleted: %s is left on %s (%s)", f.key.Name(), f.node, c.verdictOf(f)))
			if len(out) == reasonsMax {
				break
			}
		}
		return out
	}
	if c.addresses.starvedServices[s.key] && s.lacksVIP() { // in a dry run it is not asked for
		out = append(out, c.noVIP())
	}
	var last []string
	for _, f := range s.fillings {
		if c.ends.live[f.key].Degraded && len(last) < reasonsMax {
			last = append(last, fmt.Sprintf("%s on %s", f.key.Name(), f.node))
		}
	}
	if len(last) > 0 {
		out = append(out, "no replica can be reached: traffic still goes to "+strings.Join(last, ", "))
	}
	out = append(out, s.budgeted...)
	for _, slot := range slices.Sorted(maps.Keys(s.refused)) {
		out = append(out, pendingLine(fmt.Sprintf("%s-%d", s.key.Name, slot), "pending", s.refused[slot].reason))
	}
	for _, f := range s.fillings {
		silent := s.seated() && c.unsure(f) // nothing stands in for it, and so nothing else tells of it
		if f.stopping || f.status.Ready && !silent {
			continue
		}
		if len(out) >= reasonsMax {
			return append(out, "and more; see the replicas")
		}
		if silent && c.verdictOf(f) == api.VerdictAgentLost {
			out = append(out, f.key.Name()+": "+silentWords(f))
			continue
		}
		told := len(out)
		for _, ct := range f.status.Containers {
			if ct.Reason != "" {
				out = append(out, fmt.Sprintf("%s on %s: %s", f.key.Name(), f.node, joinWords(ct.Reason, ct.Message)))
			}
		}
		if own := f.status.OwnReason(); own != "" {
			out = append(out, fmt.Sprintf("%s on %s: %s", f.key.Name(), f.node, joinWords(own, f.status.Message)))
		}
		if len(out) > told {
			explained = append(explained, fmt.Sprintf("%s@%d is ", f.key.Name(), f.key.Epoch))
		}
	}
	for _, w := range s.waiting { // what was told with its cause is not told again without
		if !slices.ContainsFunc(explained, func(beginning string) bool { return strings.HasPrefix(w, beginning) }) {
			out = append(out, w+c.boundTo(s, w))
		}
	}
	return out
}

// pendingLine says why a slot is pending, with its name once: why a slot that is bound to
// a node is pending begins with it.
func pendingLine(name, pending, reason string) string {
	if rest, ok := strings.CutPrefix(reason, name+" "); ok {
		reason = strings.TrimPrefix(rest, "is ")
	}
	return fmt.Sprintf("%s %s: %s", name, pending, reason)
}

// silentWords say why nobody knows whether a replica runs.
func silentWords(f *filling) string {
	return fmt.Sprintf("node %s was silent, and its agent is not back to say whether this runs", f.node)
}

// joinWith gives "one; other", or the one alone.
func joinWith(one, other string) string {
	if other == "" {
		return one
	}
	return one + "; " + other
}

// joinWords gives "Reason: message", or the reason alone.
func joinWords(reason, message string) string {
	if message == "" {
		return reason
	}
	return reason + ": " + message
}

func (c *Core) publicNode(n *node) *api.Node {
	out := n.obj
	out.Status.Verdict, out.Status.VerdictWhy, out.Status.VerdictSince = n.verdict, n.why, n.since
	if n.verdict == api.VerdictHealthy {
		out.Status.VerdictWhy = "" // how it came to be well is history
	}
	out.Status.Impaired, out.Status.ImpairedSince, out.Status.DampedUntil = n.impaired, n.impairedSince, n.dampedUntil
	out.Status.Requested = c.fleet.Requested(n.name)
	out.Status.Replicas = len(n.fillings)
	out.Status.Orphans = n.orphans
	out.Status.DrainWaits = c.drainWaits(n)
	return &out
}
