package gossip_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/orchctl/orch/internal/gossip"
	"github.com/orchctl/orch/internal/gossip/gossiptest"
)

var key = bytes.Repeat([]byte{7}, 32)

// member is a running one; alive is what its hints said last.
type member struct {
	*gossip.Gossip
	transport *gossiptest.Transport
	stop      func() // and wait for Run to return
	mu        sync.Mutex
	alive     map[string]bool
}

func start(t *testing.T, network *gossiptest.Network, name string, key []byte) *member {
	t.Helper()
	m := &member{transport: network.Transport(), alive: map[string]bool{}}
	g, err := gossip.New(gossip.Config{Name: name, SecretKey: key, Quick: true, Meta: []byte("meta of " + name),
		Transport: m.transport, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	m.Gossip = g
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := g.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	go func() {
		for {
			select {
			case h := <-g.Hints():
				m.mu.Lock()
				m.alive[h.Node] = h.Alive
				m.mu.Unlock()
			case <-ctx.Done():
				return
			}
		}
	}()
	m.stop = func() { cancel(); <-done }
	return m
}

func (m *member) heard() map[string]bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.alive)
}

func names(ms []gossip.Member) string {
	var out []string
	for _, m := range ms {
		out = append(out, m.Name)
	}
	return strings.Join(out, " ")
}

// until waits for what gossip brings, a minute at most: mostly it comes to everybody
// within a second, and where chance has it otherwise with an exchange of whole states.
func until(cond func() bool) {
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline) && !cond(); {
		time.Sleep(100 * time.Millisecond)
	}
}

// fleet starts n1 to n5, joined, inside a bubble.
func fleet(t *testing.T, network *gossiptest.Network) []*member {
	t.Helper()
	var ms []*member
	for i := range 5 {
		m := start(t, network, fmt.Sprintf("n%d", i+1), key)
		if i > 0 {
			if n, err := m.Join(t.Context(), []string{ms[0].transport.Addr()}); n != 1 || err != nil {
				t.Fatalf("join: %d, %v", n, err)
			}
		}
		ms = append(ms, m)
	}
	until(func() bool { return all(ms, func(m *member) bool { return len(m.heard()) == 4 }) })
	for _, m := range ms {
		if got := names(m.Members()); got != "n1 n2 n3 n4 n5" {
			t.Fatalf("members: %s", got)
		}
		if got := m.heard(); len(got) != 4 || slices.Contains(slices.Collect(maps.Values(got)), false) {
			t.Fatalf("hints: %v", got)
		}
	}
	return ms
}

// endBubble stops all members; what memberlist left behind must end by itself.
func endBubble(ms []*member) {
	for _, m := range ms {
		m.stop()
	}
	time.Sleep(time.Minute) // dials and stream deadlines run out
}

func TestPowerCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ms := fleet(t, &gossiptest.Network{})
		defer endBubble(ms)
		if got := string(ms[0].Members()[1].Meta); got != "meta of n2" {
			t.Errorf("meta: %q", got)
		}
		ms[2].transport.Cut(true)
		// A probe round over five, the suspicion timeout and the spreading.
		const bound = 4 * time.Second
		cutAt := time.Now()
		others := slices.Concat(ms[:2], ms[3:])
		for !all(others, func(m *member) bool { alive, ok := m.heard()["n3"]; return ok && !alive }) {
			if time.Since(cutAt) > bound {
				t.Fatalf("not all know after %s", bound)
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Logf("all know after %s", time.Since(cutAt))
		for _, m := range others {
			if got := names(m.Members()); got != "n1 n2 n4 n5" {
				t.Errorf("members: %s", got)
			}
			for n, alive := range m.heard() {
				if alive == (n == "n3") {
					t.Errorf("hint about %s: alive %v", n, alive)
				}
			}
		}
		// Plugged in again it is alive for everybody, by itself or through a join.
		ms[2].transport.Cut(false)
		if _, err := ms[2].Join(t.Context(), []string{ms[0].transport.Addr()}); err != nil {
			t.Fatal(err)
		}
		until(func() bool { return all(others, func(m *member) bool { return m.heard()["n3"] }) })
		for _, m := range others {
			if !m.heard()["n3"] {
				t.Error("n3 is not alive again")
			}
		}
	})
}

func all(ms []*member, f func(*member) bool) bool {
	return !slices.ContainsFunc(ms, func(m *member) bool { return !f(m) })
}

func TestFarewell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ms := fleet(t, &gossiptest.Network{})
		defer endBubble(ms)
		ms[4].stop()
		time.Sleep(500 * time.Millisecond) // sooner than any probe could tell
		for _, m := range ms[:4] {
			if alive, ok := m.heard()["n5"]; !ok || alive {
				t.Errorf("n5 is alive: %v, %v", alive, ok)
			}
		}
	})
}

func TestWrongKeyIsKeptOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := &gossiptest.Network{}
		ms := fleet(t, network)
		stranger := start(t, network, "stranger", bytes.Repeat([]byte{8}, 32))
		defer endBubble(append(ms, stranger))
		if n, err := stranger.Join(t.Context(), []string{ms[0].transport.Addr()}); n != 0 || err == nil {
			t.Errorf("joined: %d, %v", n, err)
		}
		time.Sleep(10 * time.Second)
		for _, m := range ms {
			if got := names(m.Members()); got != "n1 n2 n3 n4 n5" {
				t.Errorf("members: %s", got)
			}
		}
		if got := names(stranger.Members()); got != "stranger" || len(stranger.heard()) != 0 {
			t.Errorf("the stranger knows %s", got)
		}
	})
}

func TestSlowReaderGetsTheLatest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := &gossiptest.Network{}
		a := start(t, network, "a", key)
		transport := network.Transport()
		g, err := gossip.New(gossip.Config{Name: "b", SecretKey: key, Transport: transport, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		b := &member{Gossip: g, transport: transport}
		done := make(chan error, 1)
		go func() { done <- g.Run(ctx) }()
		b.stop = func() { cancel(); <-done }
		if _, err := b.Join(ctx, []string{a.transport.Addr()}); err != nil {
			t.Fatal(err)
		}
		c := start(t, network, "c", key)
		if _, err := c.Join(ctx, []string{a.transport.Addr()}); err != nil {
			t.Fatal(err)
		}
		defer endBubble([]*member{a, b, c})
		time.Sleep(time.Second)
		c.transport.Cut(true) // nobody has read b's hints so far
		time.Sleep(10 * time.Second)
		got := map[string]int{}
		for range 2 {
			h := <-g.Hints()
			got[fmt.Sprint(h)]++
		}
		// c was alive and is not: the first is not told any more.
		if got["{a true}"] != 1 || got["{c false}"] != 1 {
			t.Errorf("hints: %v", got)
		}
	})
}

func TestRealNetwork(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer func() { cancel(); wg.Wait() }()
	var gs []*gossip.Gossip
	for _, name := range []string{"a", "b"} {
		g, err := gossip.New(gossip.Config{Name: name, BindAddr: "127.0.0.1", SecretKey: key, Quick: true, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		if g.Addr().IsValid() || g.Members() != nil {
			t.Error("a member before Run")
		}
		wg.Go(func() {
			if err := g.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		gs = append(gs, g)
	}
	if _, err := gs[0].Join(ctx, nil); err != nil { // waits until it listens
		t.Fatal(err)
	}
	if n, err := gs[1].Join(ctx, []string{gs[0].Addr().String()}); n != 1 || err != nil {
		t.Fatalf("join: %d, %v", n, err)
	}
	select {
	case h := <-gs[0].Hints():
		if h != (gossip.Hint{Node: "b", Alive: true}) {
			t.Errorf("hint: %v", h)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("no hint")
	}
	if got := gs[1].Addr().Addr(); got != netip.MustParseAddr("127.0.0.1") {
		t.Errorf("address: %s", got)
	}
}

func TestRefusals(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	for name, test := range map[string]struct {
		cfg  gossip.Config
		want string
	}{
		"no name":   {gossip.Config{SecretKey: key, Logger: log}, "no name"},
		"no key":    {gossip.Config{Name: "a", Logger: log}, "secret key of 0 bytes, want 32"},
		"short key": {gossip.Config{Name: "a", SecretKey: key[:16], Logger: log}, "secret key of 16 bytes, want 32"},
		"no logger": {gossip.Config{Name: "a", SecretKey: key}, "no logger"},
		"long meta": {gossip.Config{Name: "a", SecretKey: key, Logger: log, Meta: make([]byte, 513)}, "meta of 513 bytes, at most 512"},
	} {
		if _, err := gossip.New(test.cfg); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
	// A port that is taken fails Run, and a Join without Run ends with its context.
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	g, err := gossip.New(gossip.Config{Name: "a", SecretKey: key, Logger: log, BindAddr: "127.0.0.1", Port: taken.Addr().(*net.TCPAddr).Port})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "listen for gossip on 127.0.0.1 port") {
		t.Errorf("run on a taken port: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := g.Join(ctx, []string{"127.0.0.1:1"}); err == nil || !strings.Contains(err.Error(), "not running") {
		t.Errorf("join without run: %v", err)
	}
}

// TestLogsAtDebug: memberlist's lines reach slog, none above debug.
func TestLogsAtDebug(t *testing.T) {
	for level, wantLines := range map[slog.Level]bool{slog.LevelDebug: true, slog.LevelInfo: false} {
		synctest.Test(t, func(t *testing.T) {
			var buf syncBuffer
			log := slog.New(slog.NewTextHandler(&buf, &slog.HandlerOptions{Level: level}))
			network := &gossiptest.Network{}
			transport := network.Transport()
			g, err := gossip.New(gossip.Config{Name: "a", SecretKey: key, Transport: transport, Logger: log})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			m := &member{Gossip: g, transport: transport}
			done := make(chan error, 1)
			go func() { done <- g.Run(ctx) }()
			m.stop = func() { cancel(); <-done }
			defer endBubble([]*member{m})
			if _, err := g.Join(ctx, []string{"10.99.200.1:7946"}); err == nil {
				t.Error("joined nobody")
			}
			if got := buf.String(); strings.Contains(got, "memberlist") != wantLines {
				t.Errorf("at %s: %q", level, got)
			}
		})
	}
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

var _ io.Writer = (*syncBuffer)(nil)

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
