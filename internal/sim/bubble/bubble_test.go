package bubble

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orchctl/orch/internal/bench/report"
	"github.com/orchctl/orch/internal/pki"
)

var (
	flagSeed   = flag.Uint64("bubble.seed", 0, "run one world with this seed; 0: a few fixed ones, or with -bubble.for ones that nobody has tried yet")
	flagHours  = flag.Float64("bubble.hours", 0, "virtual hours of each world; 0: a few minutes")
	flagFor    = flag.Duration("bubble.for", 0, "real time: begin no further round or world after it")
	flagReport = flag.String("bubble.report", "", "folder that gets the figures, as bubble.jsonl")
	flagTell   = flag.Bool("bubble.tell", false, "print the story as it happens")
)

const (
	// shortSeeds and shortWorld are the run beside the unit tests.
	shortSeeds = 3
	shortWorld = 90 * time.Second
	// longWorld is a world's life where only the real time is bounded.
	longWorld = 2 * time.Hour
	// roundMin and roundMax bound how long faults last before all must settle.
	roundMin, roundMax = 20 * time.Second, 4 * time.Minute
	// stuckAfter is how long in real time virtual time may stand still: a mutex
	// that is never unlocked stops the bubble without a word.
	stuckAfter = 2 * time.Minute
)

// TestBubble runs worlds. In short: go test ./internal/sim/bubble. A seed again,
// for longer: -run TestBubble -bubble.seed 7 -bubble.hours 2. For half an hour of
// real time: -bubble.for 30m -timeout 40m.
func TestBubble(t *testing.T) {
	lasting := time.Duration(*flagHours * float64(time.Hour))
	seeds := func(i uint64) (seed uint64, ok bool) { return 1 + i, i < shortSeeds }
	switch {
	case *flagSeed != 0:
		seeds = func(i uint64) (uint64, bool) { return *flagSeed, i == 0 }
	case *flagFor != 0:
		first := uint64(time.Now().Unix())
		seeds = func(i uint64) (uint64, bool) { return first + i, realTime() < *flagFor }
	}
	switch {
	case lasting != 0:
	case *flagFor != 0:
		lasting = longWorld
	default:
		lasting = shortWorld
	}
	var sum []result
	for i := uint64(0); ; i++ {
		seed, ok := seeds(i)
		if !ok {
			break
		}
		t.Run(fmt.Sprint("seed-", seed), func(t *testing.T) {
			sum = append(sum, runWorld(t, config{seed: seed, lasting: lasting, budget: *flagFor, tell: *flagTell}))
		})
		if t.Failed() {
			break
		}
	}
	tell(t, sum)
}

// processBegan is when the program began, in real time.
var processBegan = monotonic()

// realTime is how long the program runs; package time's clock is virtual in a
// bubble.
func realTime() time.Duration { return monotonic() - processBegan }

func monotonic() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err)
	}
	return time.Duration(ts.Nano())
}

// runWorld is one world from its first controller to its last goroutine.
func runWorld(t *testing.T, cfg config) result {
	var r result
	var progress atomic.Int64
	over := make(chan struct{})
	defer close(over)
	go watchdog(t, cfg.seed, &progress, over)
	began := realTime()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, cfg, &progress)
		w.live()
		w.end()
		r = w.result()
		if w.first != nil {
			t.Errorf("%s\n%s\nreplay: go test ./internal/sim/bubble -run TestBubble -bubble.seed %d -bubble.hours %.1f (the order of goroutines differs from run to run)",
				w.first, strings.Join(w.story[max(0, len(w.story)-storyLines):], "\n"), cfg.seed, cfg.lasting.Hours())
		}
	})
	r.real = realTime() - began
	return r
}

// watchdog ends the program with all stacks when virtual time stands still.
func watchdog(t *testing.T, seed uint64, progress *atomic.Int64, over <-chan struct{}) {
	last, since := int64(-1), time.Now()
	for {
		select {
		case <-over:
			return
		case <-time.After(time.Second):
		}
		if now := progress.Load(); now != last {
			last, since = now, time.Now()
		}
		if time.Since(since) > stuckAfter {
			buf := make([]byte, 4<<20)
			panic(fmt.Sprintf("seed %d: virtual time stands still at %s: a lock is held for ever, or somebody loops\n%s",
				seed, time.Duration(last), buf[:goruntime.Stack(buf, true)]))
		}
	}
}

// live begins the world and lets rounds of faults pass over it.
func (w *world) live() {
	w.controllers[0].start()
	lead, cancel := context.WithTimeout(w.ctx, time.Minute)
	err := w.join(lead)
	cancel()
	if err != nil {
		w.violate("sim", "the first controller: %v", err)
		return
	}
	for _, c := range w.controllers {
		c.start()
	}
	for i := range usersCount {
		w.users = append(w.users, newUser(w, i))
	}
	for _, n := range w.nodes {
		n.start()
	}
	for _, u := range w.users {
		w.running.Go(func() { u.run(w.ctx) })
	}
	w.running.Go(func() { w.etcd.elect(w.ctx) })
	w.running.Go(func() { w.etcd.upkeep(w.ctx) })
	w.running.Go(func() { w.watch(w.ctx) })
	w.running.Go(func() { w.request(w.ctx) })
	rounds := newChance(w.cfg.seed, 4)
	if !w.pause(5 * time.Second) {
		return
	}
	for i := 0; w.now() < w.cfg.lasting && (w.cfg.budget == 0 || realTime() < w.cfg.budget); i++ {
		lasts := min(rounds.between(roundMin, roundMax), w.cfg.lasting-w.now())
		w.say("round %d: faults for %s", i+1, lasts)
		f := &faults{w: w, r: newChance(w.cfg.seed, uint64(100+i)), turn: make(chan struct{}, 1)}
		ctx, cancel := context.WithTimeout(w.ctx, lasts)
		stop := make(chan struct{})
		go func() {
			select {
			case <-w.broken:
				cancel()
			case <-stop:
			}
		}()
		f.run(ctx)
		cancel()
		close(stop)
		if w.isBroken() {
			return
		}
		w.settle()
		if w.isBroken() {
			return
		}
		w.bit("rounds")
	}
}

// join waits for the first controller, and takes from it what nodes and users
// come in with.
func (w *world) join(ctx context.Context) error {
	for {
		if ctl := w.controllers[0].leads(); ctl != nil {
			l := w.controllers[0].current()
			if err := ctl.Lead(ctx); err != nil {
				return err
			}
			w.ca = l.authority.CA()
			var err error
			if w.token, err = l.authority.CreateToken(ctx, pki.JoinNode, time.Now().Add(300*24*time.Hour), 0); err != nil {
				return err
			}
			return w.newAdmins(ctx, l.authority)
		}
		if !sleep(ctx, 10*time.Millisecond) {
			return ctx.Err()
		}
	}
}

// end tells everybody to end and waits; synctest finds who did not.
func (w *world) end() {
	w.say("the end")
	w.cancel()
	w.running.Wait()
	for _, n := range w.nodes {
		n.stop(false)
		n.runtime.powerLost()
	}
	for _, c := range w.conns {
		c.Close()
	}
	for _, c := range w.controllers {
		c.stop(false)
	}
	if err := w.etcd.mem.Close(); err != nil {
		w.violate("sim", "close the store: %v", err)
	}
	close(w.net.closed)
	time.Sleep(endsWithin) // gossip's last dials and deadlines
}

func (w *world) result() result {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := result{virtual: w.now(), rounds: w.bits["rounds"], requests: w.bits["requests"], asked: w.bits["asked"], lost: w.bits["lost"], rolledBack: w.bits["rolled back"], faults: w.counts, starts: w.starts, settled: w.settled}
	w.etcd.look(func(g *ledger) {
		r.commits, r.terms, r.stops, r.spare = w.etcd.commits, int(g.holder.Term), g.stops, g.spares
	})
	return r
}

// tell prints what the worlds came to, and writes it down where asked.
func tell(t *testing.T, all []result) {
	sum := result{faults: map[string]int{}}
	for _, r := range all {
		sum.virtual, sum.real = sum.virtual+r.virtual, sum.real+r.real
		sum.rounds, sum.requests, sum.commits, sum.terms = sum.rounds+r.rounds, sum.requests+r.requests, sum.commits+r.commits, sum.terms+r.terms
		sum.starts, sum.stops, sum.spare = sum.starts+r.starts, sum.stops+r.stops, sum.spare+r.spare
		sum.settled = append(sum.settled, r.settled...)
		sum.rolledBack += r.rolledBack
		sum.asked, sum.lost = sum.asked+r.asked, sum.lost+r.lost
		for k, n := range r.faults {
			sum.faults[k] += n
		}
	}
	faults := 0
	var names []string
	for _, k := range slices.Sorted(maps.Keys(sum.faults)) {
		faults += sum.faults[k]
		names = append(names, fmt.Sprintf("%s %d", k, sum.faults[k]))
	}
	minutes := max(sum.real.Minutes(), 1e-9)
	t.Logf("bubble: %d worlds, %.2f virtual hours in %s (%.2f per real minute), %d rounds, %d faults, %d requests, %d commits, %d terms, %d containers started, %d replicas told to stop, %d spares",
		len(all), sum.virtual.Hours(), sum.real.Round(time.Second), sum.virtual.Hours()/minutes, sum.rounds, faults, sum.requests, sum.commits, sum.terms, sum.starts, sum.stops, sum.spare)
	t.Logf("%d services were rolled back", sum.rolledBack)
	t.Logf("%d requests to replicas, %d of them lost by faults", sum.asked, sum.lost)
	t.Logf("faults: %s", strings.Join(names, ", "))
	if *flagReport == "" || len(sum.settled) == 0 {
		return
	}
	if err := write(*flagReport, []figure{
		{"bubble.virtual", "s", []float64{sum.virtual.Seconds()}}, {"bubble.speed", "1", []float64{sum.virtual.Minutes() / minutes}},
		{"bubble.worlds", "1", []float64{float64(len(all))}}, {"bubble.faults", "1", []float64{float64(faults)}}, {"bubble.settled", "s", sum.settled},
	}); err != nil {
		t.Error(err)
	}
}

type figure struct {
	name, unit string
	samples    []float64
}

// write appends the figures to those of earlier runs.
func write(dir string, figures []figure) error {
	load, err := report.Load()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, "bubble.jsonl"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, x := range figures {
		fig, err := report.Of(x.name, x.unit, x.samples, load)
		if err != nil {
			return err
		}
		if err := json.NewEncoder(f).Encode(fig); err != nil {
			return err
		}
	}
	return nil
}
