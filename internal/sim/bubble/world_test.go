package bubble

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/orchctl/orch/agent/ctrd"
	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/pki"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

const (
	nodesCount, controllersCount, usersCount = 5, 2, 5
	// deadAfter is the design's promise.
	deadAfter = time.Minute
	// reachedAfter is how long after a node can be reached again everybody knows.
	reachedAfter = 5 * time.Second
	// storyLines is how much of the past a failure tells.
	storyLines = 400
)

// config says what to run.
type config struct {
	seed uint64
	// lasting is virtual time, rounds beyond it are not begun; budget likewise in
	// real time; 0: none.
	lasting, budget time.Duration
	tell            bool
}

// violation is a broken invariant.
type violation struct {
	invariant, what string
	at              time.Duration
}

func (v *violation) String() string {
	return fmt.Sprintf("%s at %s: %s", v.invariant, v.at.Round(time.Millisecond), v.what)
}

// result is what a run came to.
type result struct {
	virtual, real                        time.Duration
	rounds, requests, asked, lost        int
	rolledBack                           int
	faults                               map[string]int
	commits, terms, starts, stops, spare int
	settled                              []float64 // seconds, per round
}

// world is everything inside one bubble.
type world struct {
	t           *testing.T
	cfg         config
	began       time.Time
	random      *chance // the network and what runs
	disk        *chance // containerd and etcd
	net         *network
	etcd        *etcd
	nodes       []*node
	controllers []*ctlMachine
	users       []*user
	dir         string
	sharedDir   string // the seal key of all controllers
	token       string
	ca          *pki.CA
	admins      []orchv1.OrchClient
	conns       []*grpc.ClientConn

	ctx      context.Context // ends when the run does
	cancel   context.CancelFunc
	running  sync.WaitGroup
	calm     atomic.Bool // no faults now
	broken   chan struct{}
	progress *atomic.Int64 // virtual time, for the watch outside of the bubble

	mu      sync.Mutex
	story   []string
	first   *violation
	counts  map[string]int // faults
	starts  int
	settled []float64
	bits    map[string]int // asked of users, answered
}

func newWorld(t *testing.T, cfg config, progress *atomic.Int64) *world {
	w := &world{t: t, cfg: cfg, began: time.Now(), random: newChance(cfg.seed, 1), disk: newChance(cfg.seed, 2), broken: make(chan struct{}),
		counts: map[string]int{}, bits: map[string]int{}, progress: progress}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	w.net = newNetwork(newChance(cfg.seed, 3))
	w.etcd = newEtcd(w)
	w.dir = tempDir(t)
	w.sharedDir = filepath.Join(w.dir, "shared")
	if err := os.MkdirAll(w.sharedDir, 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range controllersCount {
		w.controllers = append(w.controllers, &ctlMachine{w: w, i: i,
			machine: w.net.machine(fmt.Sprintf("c%d", i+1), netip.AddrFrom4([4]byte{10, 0, 1, byte(i + 1)}))})
	}
	for i := range nodesCount {
		w.nodes = append(w.nodes, newNode(w, i))
	}
	return w
}

// tempDir is in memory where it can be: agents sync their disks every few
// virtual seconds.
func tempDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "orch-bubble-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// now is the time since the world began.
func (w *world) now() time.Duration { return time.Since(w.began) }

func (w *world) say(format string, args ...any) {
	line := fmt.Sprintf("%12.3f  %s", w.now().Seconds(), fmt.Sprintf(format, args...))
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cfg.tell {
		fmt.Println(line)
	}
	if w.story = append(w.story, line); len(w.story) > 2*storyLines {
		w.story = append([]string(nil), w.story[len(w.story)-storyLines:]...)
	}
}

// violate keeps the first violation; the run ends soon after.
func (w *world) violate(invariant, format string, args ...any) {
	what := fmt.Sprintf(format, args...)
	w.say("VIOLATION of %s: %s", invariant, what)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.first == nil {
		w.first = &violation{invariant, what, w.now()}
		close(w.broken)
	}
}

func (w *world) isBroken() bool {
	select {
	case <-w.broken:
		return true
	default:
		return false
	}
}

// pause lets time pass; false when something broke meanwhile.
func (w *world) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-w.broken:
		return false
	}
}

// ended waits for a process that was told to end.
func (w *world) ended(what string, done <-chan struct{}) {
	t := time.NewTimer(endsWithin)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
		w.violate("ends", "%s has goroutines %s after its end", what, endsWithin)
	}
}

func (w *world) node(name string) *node {
	for _, n := range w.nodes {
		if n.name == name {
			return n
		}
	}
	w.violate("sim", "there is no node %q", name)
	return w.nodes[0]
}

func (w *world) controllerAddresses() []string {
	var out []string
	for _, c := range w.controllers {
		out = append(out, netip.AddrPortFrom(c.addr, controllerPort).String())
	}
	return out
}

// listens tells whether a port is answered, of a machine's own address or of a
// replica's on it.
func (w *world) listens(m *machine, at netip.AddrPort) bool {
	for _, n := range w.nodes {
		if n.machine == m {
			if at.Addr() == m.addr {
				return n.runtime.publishes(at.Port())
			}
			return n.runtime.listensAt(at)
		}
	}
	return false
}

// memory is for how long a fault may excuse what is done to a node's replicas:
// the grace of relief, and what a spare needs to become ready.
func (w *world) memory() time.Duration { return 2 * time.Minute }

// starting holds a container's start against what is committed.
func (w *world) starting(n *node, s ctrd.ContainerSpec) {
	if s.Lease != nil && n.sinceBoot() >= s.Lease.Term {
		return // it will be refused
	}
	k, boot := s.Replica, n.bootID()
	w.mu.Lock()
	w.starts++
	w.mu.Unlock()
	w.etcd.look(func(g *ledger) {
		if was, ok := g.boots[k]; !ok || was != boot {
			w.violate("epochs", "%s starts %s, which was committed to %q", boot, k, was)
		}
	})
	for _, other := range w.nodes {
		for id, p := range other.runtime.running() {
			switch o := p.spec; {
			case o.Replica == k && o.Container.Name == s.Container.Name:
				w.violate("I5", "%s starts %s beside %s on %s", n.name, s.ID(), id, other.name)
			case o.Replica.ServiceKey() == k.ServiceKey() && o.Replica.Slot == k.Slot && (w.exclusive(o) || w.exclusive(s)) && w.net.see(func() bool { return other.frozen == 0 }):
				w.violate("I6", "%s starts %s while %s of the same slot runs on %s", n.name, s.ID(), id, other.name)
			}
		}
	}
}

func (w *world) exclusive(s ctrd.ContainerSpec) (yes bool) {
	w.etcd.look(func(g *ledger) {
		t := g.template(s.Replica, s.Revision)
		yes = t != nil && t.Exclusive
	})
	return yes
}

// stopping: I5. A container that runs is stopped only if its record says so, if
// its own liveness probe failed, or if its lease is over.
func (w *world) stopping(n *node, id string, p *process, why string) {
	w.say("%s stops %s: %s", n.name, id, why)
	n.runtime.mu.Lock()
	lease, tries := n.runtime.LeaseOf(id), p.sickTries
	n.runtime.mu.Unlock()
	k := p.spec.Replica
	ordered := false
	defer func() {
		if ordered {
			w.stillLed(n, k)
		}
	}()
	w.etcd.look(func(g *ledger) {
		q, ok := g.placements[k]
		ordered = ok && q.stopping && time.Since(g.ledSince) > newLease
		probe := p.spec.Container.LivenessProbe
		switch {
		case !ok || q.stopping || q.node != n.name || q.revision != p.spec.Revision:
		case why == api.ExitLivenessFailed && probe != nil && tries >= max(1, probe.FailureThreshold):
		case lease != (ctrd.Lease{}) && n.sinceBoot() >= lease.Term:
		default:
			w.violate("I5", "%s stops %s, which is assigned there and well: %s", n.name, id, why)
		}
	})
}

// calledDead: nobody is taken for dead who was there, or was away for a while
// only. A machine that booted anew was.
func (w *world) calledDead(name, why string) {
	n := w.node(name)
	w.net.mu.Lock()
	said, booted, ill, well := n.calledDead > 0, time.Since(n.bootedAt), time.Since(n.illSince), n.troubles == 0 && time.Since(n.wellSince) > lull
	reached := time.Since(n.reachedFrom) > reachedAfter && !slices.ContainsFunc(w.machines(), func(m *machine) bool {
		return m != n.machine && m.runs() && (!w.net.reaches(m, n.machine) || !w.net.reaches(n.machine, m))
	})
	w.net.mu.Unlock()
	switch {
	case said || booted < ill:
	case reached:
		w.violate("I5", "%s is taken for dead, though it runs and everybody reaches it: %s", name, why)
	case well, ill < deadAfter && w.controllersWell(deadAfter): // who cannot hear is no better than who cannot speak
		w.violate("I5", "%s is taken for dead, though only for %s something ailed it: %s", name, ill, why)
	}
}

// logger tells the story what a process logs.
func (w *world) logger(name string) *slog.Logger { return slog.New(&teller{w: w, name: name}) }

type teller struct {
	w     *world
	name  string
	attrs []slog.Attr
}

// Enabled implements slog.Handler, as do the methods below.
func (h *teller) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }

// Handle says the record in a line.
func (h *teller) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	fmt.Fprintf(&b, "  [%s] %s", h.name, r.Message)
	add := func(a slog.Attr) bool { fmt.Fprintf(&b, " %s=%v", a.Key, a.Value); return true }
	for _, a := range h.attrs {
		add(a)
	}
	r.Attrs(add)
	h.w.say("%s", b.String())
	return nil
}

// WithAttrs keeps them.
func (h *teller) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &teller{h.w, h.name, append(append([]slog.Attr(nil), h.attrs...), attrs...)}
}

// WithGroup has no use here.
func (h *teller) WithGroup(string) slog.Handler { return h }
