package agent

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/orchctl/orch/agent/disk"
	"github.com/orchctl/orch/internal/wire"
)

const (
	// checkEvery is the time between two self-checks of a kind: the beat carries
	// the age of the last good one, and one of the disk costs an fsync.
	checkEvery = 3 * time.Second
	// runtimeMax is how long containerd may take for a round trip, which is a
	// millisecond's work; on a machine whose cores burn it was seen to take one
	// second.
	runtimeMax = 5 * time.Second
	// diskMax is how long a small file may take to reach the disk. Behind a
	// large write-back seconds are usual.
	diskMax = 10 * time.Second
	// ailingMax is how long something of the network may be wrong before the node
	// says that it cannot work: what is put right sooner is nobody's business.
	ailingMax = 10 * time.Second
	// watchEvery is how often pressure is read, and how soon a check that hangs
	// is told in the log.
	watchEvery = time.Second
)

// selfCheck finds out whether the node can work, not only beat: a round trip to
// containerd, a write to the disk, and what the kernel says of waits. Each check
// has its own goroutine, so that one that hangs holds up no other and is never
// begun twice.
type selfCheck struct {
	runtime, disk check
	network       []*ailing
	pressureDir   string // the kernel's PSI; a folder that is not there says nothing
	logger        *slog.Logger
	io, memory    atomic.Uint64 // share in hundredths of a percent
}

// check is one thing tried again and again.
type check struct {
	name  string
	limit time.Duration // beyond it, it fails
	try   func(ctx context.Context) error

	mu     sync.Mutex
	good   time.Time // the last good one ended
	began  time.Time // the one under way did; zero: none is
	failed time.Time // the first of those began that failed in a row
	why    string    // what the last of these said
}

func newSelfCheck(cfg Config) *selfCheck {
	now, path := time.Now(), filepath.Join(cfg.Data, "self-check")
	return &selfCheck{
		runtime:     check{name: "containerd", limit: runtimeMax, good: now, try: func(ctx context.Context) error { return cfg.Runtime.Ping(ctx) }},
		disk:        check{name: "disk", limit: diskMax, good: now, try: func(context.Context) error { return disk.WriteFile(path, []byte("ok\n"), 0o600) }},
		network:     []*ailing{{name: "network", health: cfg.Network.Health}, {name: "traffic", health: cfg.Traffic.Health}},
		pressureDir: "/proc/pressure", logger: cfg.Logger,
	}
}

// state goes with beats. It touches no disk and waits for nothing.
func (s *selfCheck) state() wire.SelfCheck {
	now := time.Now()
	age, failing := s.runtime.state(now)
	diskAge, diskFailing := s.disk.state(now)
	failing = joinWords(failing, diskFailing)
	for _, a := range s.network {
		failing = joinWords(failing, a.state(now))
	}
	return wire.SelfCheck{Age: max(age, diskAge), Failing: failing, IOPressure: share(&s.io), MemoryPressure: share(&s.memory)}
}

// runtimeFailing says what is wrong with containerd; empty: it answers.
func (s *selfCheck) runtimeFailing() string {
	_, failing := s.runtime.state(time.Now())
	return failing
}

func joinWords(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "; " + b
}

// run checks until ctx ends.
func (s *selfCheck) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.runtime.run(ctx) })
	g.Go(func() error { return s.disk.run(ctx) })
	for _, a := range s.network {
		g.Go(func() error { every(ctx, watchEvery, a.look); return nil })
	}
	g.Go(func() error { return s.watch(ctx) })
	return g.Wait()
}

// watch reads the pressure, and tells the log what state tells the leader.
func (s *selfCheck) watch(ctx context.Context) error {
	failing := ""
	every(ctx, watchEvery, func() {
		s.io.Store(readPressure(filepath.Join(s.pressureDir, "io")))
		s.memory.Store(readPressure(filepath.Join(s.pressureDir, "memory")))
		now := s.state().Failing
		switch {
		case now == failing:
		case now != "":
			s.logger.Warn("this node cannot work: its self-check fails", "failing", now)
		default:
			s.logger.Info("the self-check is good again")
		}
		failing = now
	})
	return nil
}

func (c *check) run(ctx context.Context) error {
	every(ctx, checkEvery, func() { c.once(ctx) })
	return nil
}

// every does something now, and again that long after each time, until ctx ends.
func every(ctx context.Context, d time.Duration, do func()) {
	t := time.NewTimer(d)
	defer t.Stop()
	for {
		do()
		t.Reset(d)
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

func (c *check) once(ctx context.Context) {
	began := time.Now()
	c.mu.Lock()
	c.began = began
	c.mu.Unlock()
	limited, cancel := context.WithTimeout(ctx, c.limit)
	err := c.try(limited)
	cancel()
	if ctx.Err() != nil {
		return
	}
	now := time.Now()
	if took := now.Sub(began); err == nil && took > c.limit {
		err = fmt.Errorf("took %s, more than %s", took.Round(100*time.Millisecond), c.limit)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.began = time.Time{}
	if err == nil {
		c.good, c.failed, c.why = now, time.Time{}, ""
		return
	}
	c.why = err.Error()
	if now.Sub(began) >= c.limit {
		c.why = c.silence()
	}
	if c.failed.IsZero() {
		c.failed = began
	}
}

func (c *check) silence() string { return fmt.Sprintf("no answer within %s", c.limit) }

// state gives the time since the last good one, and what is wrong with the
// latest, the one under way among them, if it has taken too long already.
func (c *check) state(now time.Time) (age time.Duration, failing string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	since, why := c.failed, c.why
	if !c.began.IsZero() && now.Sub(c.began) > c.limit {
		why = c.silence()
		if since.IsZero() {
			since = c.began
		}
	}
	if why != "" {
		failing = fmt.Sprintf("%s: %s, since %s", c.name, why, since.UTC().Format("15:04:05 UTC"))
	}
	return now.Sub(c.good), failing
}

// ailing is something that says itself what is wrong with it.
type ailing struct {
	name   string
	health func() string

	mu    sync.Mutex
	words string
	since time.Time // zero: nothing is wrong
}

func (a *ailing) look() {
	words, now := a.health(), time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case words == "":
		a.since = time.Time{}
	case a.since.IsZero():
		a.since = now
	}
	a.words = words
}

// state says what has been wrong for long enough; empty: nothing.
func (a *ailing) state(now time.Time) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.since.IsZero() || now.Sub(a.since) < ailingMax {
		return ""
	}
	return fmt.Sprintf("%s: %s, since %s", a.name, a.words, a.since.UTC().Format("15:04:05 UTC"))
}

// readPressure reads the share of the last ten seconds in which every task
// waited; 0 where the kernel does not tell.
func readPressure(path string) uint64 {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "full" {
			continue
		}
		text, ok := strings.CutPrefix(f[1], "avg10=")
		percent, err := strconv.ParseFloat(text, 64)
		if !ok || err != nil || !(percent >= 0) {
			return 0
		}
		return uint64(min(percent, 100)*100 + 0.5)
	}
	return 0
}

func share(v *atomic.Uint64) float64 { return float64(v.Load()) / 10000 }
