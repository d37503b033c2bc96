package core

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/store"
	"github.com/orchctl/orch/internal/wire"
)

var start = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// fleet drives a core with a store that is a map and agents that do what they
// are told, at once. commits = false holds every transaction back.
type fleet struct {
	t       *testing.T
	core    *Core
	now     time.Time
	kv      map[string][]byte
	rev     int64
	commits bool
	out     []Commit
	agents  map[string]*agent
	session uint64
	ticket  uint64
	replies map[uint64]Reply
	seen    map[ViewKey]any
	asks    []AskWitness
	log     []string // effects in words, since the last drain
	sets    []SendAssignments
	// finds are the digests that agents find of an assignment's references; nil: none.
	finds  func(a *agent, x wire.Assignment) map[string]string
	untold bool // nobody tells what images mean when they are applied
	conf   Config
	began  time.Time // the term did
	// says is what agents report of a replica instead of that it is well; nil, or nil of
	// one: nothing else.
	says func(a *agent, x wire.Assignment) *api.ReplicaStatus
	// committed is called after each transaction; nil: nothing is.
	committed func()
	lastOps   []store.Op // of the newest transaction
	// leasedOnly: what was given up before its service was exclusive is nobody's.
	leasedOnly bool
	// The most reliefs at once, and spares of one service, ever seen.
	mostReliefs, mostSpares int
}

type agent struct {
	name, boot string
	session    uint64
	taken      uint64 // sequence of the last assignment set
	seq        uint64
	silent     bool // does not report nor beat
	hostUp     bool // though silent, its host answers
	holds      map[api.ReplicaKey]wire.Assignment
	unready    map[string]bool // by slot name
	ended      map[string]int  // how often what is there ended so far, by slot name; it is about to start again
	ends       map[api.ReplicaKey]wire.Endpoint

	net      agentNetwork
	services map[api.Key]wire.Service

	mute    bool   // never says which endpoints are in force
	routed  uint64 // the session in which it had a complete set of them
	cut     bool   // silent, and nothing reaches it; its containers run on
	check   wire.SelfCheck
	leases  map[api.ReplicaKey]time.Time // when they end
	renewed time.Time                    // the last renewal was sent
	grants  int
}

func newFleet(t *testing.T) *fleet {
	f := &fleet{t: t, now: start, kv: map[string][]byte{}, commits: true, agents: map[string]*agent{}, replies: map[uint64]Reply{}, seen: map[ViewKey]any{}}
	f.elect()
	return f
}

// elect begins a new term on what the store holds.
func (f *fleet) elect() {
	f.t.Helper()
	f.conf.Incarnation, f.conf.Term = "incarnation", f.conf.Term+1
	f.core, f.began = New(f.conf), f.now
	f.seen, f.out = map[ViewKey]any{}, nil
	var kvs []store.KV
	for _, k := range slices.Sorted(maps.Keys(f.kv)) {
		kvs = append(kvs, store.KV{Key: k, Value: f.kv[k]})
	}
	if err := f.core.Load(kvs, f.rev); err != nil {
		f.t.Fatal(err)
	}
	for _, a := range f.agents {
		a.session = 0
	}
	f.do(f.core.Begin(f.now))
	f.turn()
}

func (f *fleet) step(ev Event) {
	f.t.Helper()
	if a, ok := ev.(Apply); ok && a.Images == nil && !f.untold {
		a.Images = told(a.Services, a.Jobs)
		ev = a
	}
	f.do(f.core.Step(ev, f.now))
}

// turn runs until nothing moves any more.
func (f *fleet) turn() {
	f.t.Helper()
	for range 100 {
		effects := f.core.Turn(f.now)
		f.do(effects)
		if len(effects) == 0 {
			return
		}
	}
	f.t.Fatalf("the core does not come to rest; last: %v", f.log)
}

func (f *fleet) do(effects []Effect) {
	f.t.Helper()
	for _, e := range effects {
		switch e := e.(type) {
		case Commit:
			if f.commits {
				f.commit(e)
			} else {
				f.out = append(f.out, e)
			}
		case Reply:
			f.replies[e.Ticket] = e
		case SendAssignments:
			f.assign(e)
		case SendEndpoints:
			f.endpoints(e)
		case SendNetwork:
			f.network(e)
		case SendGrant:
			f.granted(e)
		case AskWitness:
			f.asks = append(f.asks, e)
		case CloseSession:
			f.log = append(f.log, fmt.Sprintf("close session of %s", e.Node))
		case Publish:
			for _, x := range e.Put {
				f.seen[x.Key] = x.Object
				f.count(x.Object)
				if ev, ok := x.Object.(*api.Event); ok {
					f.knownReason(ev)
				}
			}
			for _, k := range e.Gone {
				if _, ok := f.seen[k]; !ok && k.Kind != api.KindEvent { // an event may come and go in one turn
					f.t.Errorf("%v is said to be gone but was never published", k)
				}
				delete(f.seen, k)
			}
		}
	}
}

func (f *fleet) commit(e Commit) {
	f.t.Helper()
	if err := (store.Txn{Then: e.Ops}).Check(store.EmbeddedLimits); err != nil {
		f.t.Fatalf("transaction %d: %v", e.Seq, err)
	}
	for _, op := range e.Ops {
		switch op.Kind {
		case store.OpPut:
			f.kv[op.Key] = op.Value
		case store.OpDelete:
			delete(f.kv, op.Key)
		case store.OpDeletePrefix:
			maps.DeleteFunc(f.kv, func(k string, _ []byte) bool { return strings.HasPrefix(k, op.Key) })
		}
	}
	f.rev++
	f.lastOps = e.Ops
	if f.committed != nil {
		f.committed()
	}
	f.step(Committed{Seq: e.Seq, Rev: f.rev})
}

// node powers a node on, or makes its agent dial again.
func (f *fleet) node(name, boot string) *agent {
	f.t.Helper()
	a := f.agents[name]
	if a == nil {
		a = &agent{name: name, unready: map[string]bool{}}
		f.agents[name] = a
	}
	if a.boot != boot {
		a.boot, a.holds, a.ends = boot, map[api.ReplicaKey]wire.Assignment{}, map[api.ReplicaKey]wire.Endpoint{}
		a.leases = map[api.ReplicaKey]time.Time{}
	}
	f.session++
	a.session, a.seq, a.silent, a.cut = f.session, 0, false, false
	f.step(SessionOpened{Node: name, Session: a.session, Hello: wire.Hello{BootID: boot, Address: "10.0.0." + name[1:],
		Capacity: api.ResourceList{api.CPU: api.Whole(4), api.Memory: api.Whole(8 << 30)}}})
	f.turn()
	f.renew(a)
	f.reportAll(a)
	return a
}

func (f *fleet) assign(e SendAssignments) {
	f.t.Helper()
	f.sets = append(f.sets, e)
	a := f.agents[e.Node]
	if a == nil || a.session != e.Session || a.cut {
		return
	}
	if a.net.session != e.Session {
		f.t.Errorf("%s was given replicas before it was told where it stands in the network", e.Node)
	}
	if e.Set.StoreRevision > f.rev {
		f.t.Errorf("assignment set of %s claims revision %d, the store is at %d", e.Node, e.Set.StoreRevision, f.rev)
	}
	a.taken = e.Set.Sequence
	if e.Set.Complete {
		for k := range a.holds {
			if !slices.ContainsFunc(e.Set.Put, func(x wire.Assignment) bool { return x.Key == k }) {
				f.log = append(f.log, fmt.Sprintf("%s prunes %s", a.name, k))
				delete(a.holds, k)
			}
		}
	}
	var gone []api.ReplicaKey
	for _, x := range e.Set.Put {
		if _, ok := f.kv[placementKey(x.Key)]; !ok {
			f.t.Errorf("%s was told of %s before it was committed", e.Node, x.Key)
		}
		f.log = append(f.log, fmt.Sprintf("%s runs %s revision %d%s", a.name, x.Key, x.Revision, map[bool]string{true: " stopping"}[x.Stopping]))
		a.holds[x.Key] = x
		if x.Stopping {
			f.handedOver(x.Key)
		}
		if x.Stopping && !a.silent {
			delete(a.holds, x.Key)
			gone = append(gone, x.Key)
		}
	}
	for _, k := range e.Set.Drop {
		delete(a.holds, k)
	}
	if a.silent {
		return
	}
	f.step(Status{Node: a.name, Session: a.session, Report: wire.StatusReport{Replicas: f.reports(a), Gone: gone}})
	f.renew(a)
}

func (f *fleet) reports(a *agent) []wire.Report {
	var out []wire.Report
	for _, k := range slices.SortedFunc(maps.Keys(a.holds), compareReplicas) {
		if f.says != nil {
			if s := f.says(a, a.holds[k]); s != nil {
				out = append(out, wire.Report{Key: k, Revision: a.holds[k].Revision, Status: *s})
				continue
			}
		}
		if !f.runs(a, k) {
			out = append(out, wire.Report{Key: k, Revision: a.holds[k].Revision, Status: api.ReplicaStatus{Phase: api.PhasePreparing}})
			continue
		}
		if n, ends := a.ended[k.Name()]; ends {
			out = append(out, wire.Report{Key: k, Revision: a.holds[k].Revision, Status: api.ReplicaStatus{Phase: api.PhaseRunning, IP: "10.64.0.9", Restarts: n, Containers: []api.ContainerStatus{
				{Name: "main", State: api.ContainerWaiting, Reason: api.ReasonBackOff, Restarts: n, LastExit: &api.Exit{Code: 1, Reason: api.ExitError, Message: "exit code 1", FinishedAt: start.Add(time.Duration(n) * time.Second)}}}}})
			continue
		}
		out = append(out, wire.Report{Key: k, Revision: a.holds[k].Revision, Status: api.ReplicaStatus{Phase: api.PhaseRunning, Ready: !a.unready[k.Name()], IP: "10.64.0.9"}})
	}
	for i := range out {
		if f.finds != nil {
			out[i].Images = f.finds(a, a.holds[out[i].Key])
		}
	}
	return out
}

func (f *fleet) reportAll(a *agent) {
	f.t.Helper()
	f.step(Status{Node: a.name, Session: a.session, Report: wire.StatusReport{Complete: true, Taken: a.taken, Replicas: f.reports(a)}})
	f.turn()
}

func (f *fleet) endpoints(e SendEndpoints) {
	a := f.agents[e.Node]
	if a == nil || a.session != e.Session || a.cut {
		return
	}
	if e.Set.Complete {
		before := a.ends
		a.routed = e.Session
		a.ends, a.services = map[api.ReplicaKey]wire.Endpoint{}, map[api.Key]wire.Service{}
		for _, k := range e.Set.Keep {
			if x, ok := before[k]; ok {
				a.ends[k] = x
			}
		}
	}
	for _, x := range e.Set.Put {
		a.ends[x.Replica] = x
	}
	for _, k := range e.Set.Drop {
		delete(a.ends, k)
	}
	for _, s := range e.Set.Services {
		a.services[s.Key] = s
	}
	for _, k := range e.Set.DropServices {
		delete(a.services, k)
	}
	if !a.silent && !a.mute {
		f.step(Acked{Node: a.name, Session: a.session, EndpointVersion: e.Set.Version})
	}
}

// pass lets time go by in beats; dead nodes do not answer witnesses.
func (f *fleet) pass(d time.Duration) {
	f.t.Helper()
	for end := f.now.Add(d); f.now.Before(end); {
		f.now = f.now.Add(50 * time.Millisecond)
		for _, name := range slices.Sorted(maps.Keys(f.agents)) {
			if a := f.agents[name]; !a.silent && a.session != 0 {
				a.seq++
				f.step(Beat{Node: name, Session: a.session, Seq: a.seq, Check: a.check})
				if f.now.Sub(a.renewed) >= time.Second {
					f.renew(a)
				}
			}
		}
		f.answerAsks()
		if at, ok := f.core.NextWake(); ok && !at.After(f.now) {
			f.step(Tick{})
		}
		f.answerAsks()
		f.turn()
		f.alone()
	}
}

// answerAsks answers the core's questions about nodes by what is true.
func (f *fleet) answerAsks() {
	for len(f.asks) > 0 {
		a := f.asks[0]
		f.asks = f.asks[1:]
		if o := f.agents[a.Observer]; o != nil && o.silent {
			continue
		}
		target := f.agents[a.Ask.Target]
		f.step(Witnessed{Observer: a.Observer, Target: a.Ask.Target, AskID: a.Ask.ID, HostAnswers: !target.silent || target.hostUp,
			PortsAsked: len(a.Ask.Ports), PortsAnswered: len(a.Ask.Ports)})
	}
}

func (f *fleet) apply(text string, services ...*api.Service) Reply {
	f.t.Helper()
	f.ticket++
	f.step(Apply{Ticket: f.ticket, Services: services, By: "tester", RequestID: text})
	f.turn()
	return f.replies[f.ticket]
}

func web(replicas int, image string) *api.Service {
	atOnce := api.Duration(0) // most tests are not about how long one has to be ready
	s := &api.Service{TypeMeta: api.TypeMeta{APIVersion: api.Version, Kind: api.KindService}, Metadata: api.Metadata{Name: "web", Namespace: "default"},
		Spec: api.ServiceSpec{Replicas: &replicas, Template: api.Template{Containers: []api.Container{{Name: "main", Image: image}}}, Rollout: api.Rollout{MinReady: &atOnce}}}
	s.Default()
	return s
}

func (f *fleet) service(name string) *api.Service {
	f.t.Helper()
	s, _ := f.seen[ViewKey{api.KindService, "default", name}].(*api.Service)
	if s == nil {
		f.t.Fatalf("service %s is not published", name)
	}
	return s
}

func (f *fleet) mustReady(name string, want int) {
	f.t.Helper()
	if s := f.service(name); s.Status.Ready != want {
		f.t.Fatalf("%s: %d ready, want %d; status %+v", name, s.Status.Ready, want, s.Status)
	}
}

// running counts what agents that are alive hold of a service.
func (f *fleet) running() int {
	n := 0
	for _, a := range f.agents {
		if !a.silent {
			n += len(a.holds)
		}
	}
	return n
}

var errLost = errors.New("lost")

// record gives the newest record of a node's verdict to something.
func (f *fleet) record(node, to string) *api.VerdictRecord {
	f.t.Helper()
	var newest *api.VerdictRecord
	for k, x := range f.seen {
		if r, ok := x.(*api.VerdictRecord); ok && r.Node == node && (string(r.To) == to || r.What == to) && (newest == nil || r.Seq > newest.Seq) {
			if k.Name != fmt.Sprintf("%s/%d", node, r.Seq) {
				f.t.Errorf("record %d of %s is published as %s", r.Seq, node, k.Name)
			}
			newest = r
		}
	}
	if newest == nil {
		f.t.Fatalf("no record of %s says %s", node, to)
	}
	return newest
}

func (f *fleet) status() api.FleetStatus {
	f.t.Helper()
	x, _ := f.seen[ViewKey{Kind: api.KindFleet, Name: api.FleetName}].(*api.Fleet)
	if x == nil {
		f.t.Fatal("the fleet is not published")
	}
	return x.Status
}

// home is where the only live replica of a slot is.
func (f *fleet) home(service string, slot int) string {
	f.t.Helper()
	name := ""
	for _, x := range f.core.services[api.Key{Namespace: "default", Name: service}].inSlot(slot) {
		if !x.stopping && !x.spare {
			name = x.node
		}
	}
	return name
}

func (f *fleet) word(node, word string) error {
	f.t.Helper()
	f.ticket++
	f.step(NodeWord{Ticket: f.ticket, Node: node, Word: word, Force: word != "remove", By: "user root"})
	f.turn()
	return f.replies[f.ticket].Err
}

func (f *fleet) delete(service string) {
	f.t.Helper()
	f.ticket++
	f.step(Delete{Ticket: f.ticket, Refs: []api.Ref{{Key: api.Key{Namespace: "default", Name: service}}}})
	f.turn()
}

// count notes peaks.
func (f *fleet) count(published any) {
	if x, ok := published.(*api.Fleet); ok {
		f.mostReliefs = max(f.mostReliefs, x.Status.Reliefs)
		for key := range f.core.services {
			f.mostSpares = max(f.mostSpares, f.spares(key.Name))
		}
	}
}

// told are digests of all references, as somebody tells them who is asked.
func told(services []*api.Service, jobs []*api.Job) map[string]string {
	out := map[string]string{}
	for _, s := range services {
		for _, ct := range s.Spec.Template.AllContainers() {
			out[ct.Image] = digestOf(ct.Image)
		}
	}
	for _, j := range jobs {
		for _, ct := range j.Spec.Template.AllContainers() {
			out[ct.Image] = digestOf(ct.Image)
		}
	}
	return out
}

func digestOf(text string) string { return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(text))) }
