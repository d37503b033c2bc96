package agent

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/orchctl/orch/agent/runtimetest"
)

// sickHost is what a node's checks meet.
type sickHost struct {
	*runtimetest.Runtime
	ping func(context.Context) error
}

func (s *sickHost) Ping(ctx context.Context) error { return s.ping(ctx) }

// fault is what a check meets at the moment.
type fault struct{ text atomic.Value }

func (f *fault) set(text string) { f.text.Store(text) }

func (f *fault) try(context.Context) error {
	if text, _ := f.text.Load().(string); text != "" {
		return errors.New(text)
	}
	return nil
}

func TestSelfCheckNamesWhatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var containerd, disk fault
		s := newSelfCheck(Config{Network: newNetwork(), Traffic: runtimetest.NewTraffic(), Runtime: &sickHost{newRuntime(), containerd.try}, Data: t.TempDir(), Logger: slog.New(slog.DiscardHandler)})
		s.disk.try = disk.try
		start := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- s.run(ctx) }()
		at := func(d time.Duration) string { return start.Add(d).UTC().Format("15:04:05 UTC") }
		want := func(age time.Duration, failing string) {
			t.Helper()
			synctest.Wait()
			if got := s.state(); got.Age != age || got.Failing != failing {
				t.Errorf("after %s: %+v, want age %s, failing %q", time.Since(start), got, age, failing)
			}
		}
		time.Sleep(time.Second)
		want(time.Second, "")
		containerd.set("ask containerd: connection refused")
		time.Sleep(9 * time.Second) // checks at 3, 6 and 9 s fail
		want(10*time.Second, "containerd: ask containerd: connection refused, since "+at(3*time.Second))
		disk.set("no space left on device")
		time.Sleep(3 * time.Second)
		want(13*time.Second, "containerd: ask containerd: connection refused, since "+at(3*time.Second)+"; disk: no space left on device, since "+at(12*time.Second))
		containerd.set("")
		time.Sleep(3 * time.Second)
		want(7*time.Second, "disk: no space left on device, since "+at(12*time.Second))
		disk.set("")
		time.Sleep(3 * time.Second)
		want(time.Second, "")
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// What is wrong with the network for long is the node's affair; what is put right
// soon is nobody's.
func TestSelfCheckNamesTheNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net, traffic := newNetwork(), runtimetest.NewTraffic()
		s := newSelfCheck(Config{Network: net, Traffic: traffic, Runtime: newRuntime(), Data: t.TempDir(), Logger: slog.New(slog.DiscardHandler)})
		start := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- s.run(ctx) }()
		want := func(failing string) {
			t.Helper()
			synctest.Wait()
			if got := s.state(); got.Failing != failing {
				t.Errorf("after %s: %+v, want failing %q", time.Since(start), got, failing)
			}
		}
		time.Sleep(500 * time.Millisecond)
		net.Ail("the route to 10.64.2.0/24 cannot be set")
		time.Sleep(9 * time.Second)
		want("")
		net.Ail("") // put right
		time.Sleep(time.Second)
		net.Ail("cluster range 10.64.0.0/10 overlaps a route of the host")
		since := start.Add(11 * time.Second)
		time.Sleep(5 * time.Second)
		traffic.Ail("nft is not there")
		time.Sleep(6 * time.Second)
		want("network: cluster range 10.64.0.0/10 overlaps a route of the host, since " + since.UTC().Format("15:04:05 UTC"))
		net.Ail("cluster range 10.64.0.0/10 overlaps two routes of the host") // other words, the same trouble
		time.Sleep(5 * time.Second)
		want("network: cluster range 10.64.0.0/10 overlaps two routes of the host, since " + since.UTC().Format("15:04:05 UTC") +
			"; traffic: nft is not there, since " + since.Add(5*time.Second).UTC().Format("15:04:05 UTC"))
		net.Ail("")
		traffic.Ail("")
		time.Sleep(time.Second)
		want("")
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestHangingCheckHoldsUpNothing: neither the other check nor the beat, and it is
// begun once only, deaf to its context as fsync is.
func TestHangingCheckHoldsUpNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var pings, hangs atomic.Int64
		release := make(chan struct{})
		s := newSelfCheck(Config{Network: newNetwork(), Traffic: runtimetest.NewTraffic(), Runtime: &sickHost{newRuntime(), func(context.Context) error { pings.Add(1); return nil }}, Data: t.TempDir(), Logger: slog.New(slog.DiscardHandler)})
		s.disk.try = func(context.Context) error { hangs.Add(1); <-release; return nil }
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		start := time.Now()
		go func() { done <- s.run(ctx) }()
		time.Sleep(9*time.Second + time.Millisecond)
		if got := s.state(); got.Failing != "" || got.Age != 9*time.Second+time.Millisecond {
			t.Errorf("within its limit: %+v", got)
		}
		before := runtime.NumGoroutine()
		time.Sleep(time.Hour)
		synctest.Wait()
		if hangs.Load() != 1 || pings.Load() < 1200 || runtime.NumGoroutine() > before {
			t.Errorf("the disk was tried %d times, containerd %d times, goroutines %d, were %d", hangs.Load(), pings.Load(), runtime.NumGoroutine(), before)
		}
		got := s.state()
		if want := "disk: no answer within 10s, since " + start.UTC().Format("15:04:05 UTC"); got.Failing != want || got.Age != time.Since(start) {
			t.Errorf("hangs for an hour: %+v, want %q", got, want)
		}
		// It comes back: the one that hung was no good one, the next is.
		close(release)
		synctest.Wait()
		if got := s.state(); !strings.Contains(got.Failing, "disk: no answer within 10s") {
			t.Errorf("after an hour it answers: %+v", got)
		}
		time.Sleep(checkEvery)
		synctest.Wait()
		if got := s.state(); got.Failing != "" || got.Age > checkEvery {
			t.Errorf("good again: %+v", got)
		}
		cancel()
		<-done
	})
}

// TestRuntimeTakesTooLong: containerd's limit is its own, and ends the call.
func TestRuntimeTakesTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSelfCheck(Config{Network: newNetwork(), Traffic: runtimetest.NewTraffic(), Runtime: &sickHost{newRuntime(), func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}, Data: t.TempDir(), Logger: slog.New(slog.DiscardHandler)})
		s.disk.try = func(context.Context) error { return nil }
		start := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- s.run(ctx) }()
		want := "containerd: no answer within 5s, since " + start.UTC().Format("15:04:05 UTC")
		for range 20 { // while one is under way, and between two
			time.Sleep(runtimeMax + time.Millisecond)
			synctest.Wait()
			if got := s.state(); got.Failing != want {
				t.Fatalf("after %s: %+v, want %q", time.Since(start), got, want)
			}
		}
		cancel()
		<-done
	})
}

func TestPressure(t *testing.T) {
	for _, x := range []struct {
		text string
		want uint64
	}{
		{"some avg10=99.00 avg60=0.11 avg300=0.74 total=154848613\nfull avg10=0.25 avg60=0.07 avg300=0.64 total=41473203\n", 25},
		{"full avg10=100.00 avg60=0.07 avg300=0.64 total=1\n", 10000},
		{"full avg10=250 total=1\n", 10000},
		{"full avg10=NaN total=1\n", 0},
		{"full avg10=-3 total=1\n", 0},
		{"full avg60=3\n", 0},
		{"full\n", 0},
		{"some avg10=3\n", 0},
		{"", 0},
	} {
		path := filepath.Join(t.TempDir(), "io")
		if err := os.WriteFile(path, []byte(x.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := readPressure(path); got != x.want {
			t.Errorf("%q: %d, want %d", x.text, got, x.want)
		}
	}
	if got := readPressure(filepath.Join(t.TempDir(), "none")); got != 0 {
		t.Errorf("no file: %d", got)
	}
	// It goes with the state.
	s := newSelfCheck(Config{Network: newNetwork(), Traffic: runtimetest.NewTraffic(), Data: t.TempDir()})
	s.io.Store(9050)
	s.memory.Store(25)
	if got := s.state(); got.IOPressure != 0.905 || got.MemoryPressure != 0.0025 {
		t.Errorf("state %+v", got)
	}
}

// TestDiskCheckWritesThrough: the check of the disk is a real one.
func TestDiskCheckWritesThrough(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	s := newSelfCheck(Config{Network: newNetwork(), Traffic: runtimetest.NewTraffic(), Data: dir})
	if err := s.disk.try(t.Context()); err == nil {
		t.Error("a folder that is not there is no error")
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := s.disk.try(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "self-check")); err != nil {
		t.Error(err)
	}
}
