package daemon

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// serviceManager listens as systemd does, and gives what it is told.
func serviceManager(t *testing.T) func() string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return func() string {
		b := make([]byte, 1024)
		if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, err := conn.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
}

func TestReady(t *testing.T) {
	heard := serviceManager(t)
	if err := Ready("joined"); err != nil {
		t.Fatal(err)
	}
	if got := heard(); got != "READY=1\nSTATUS=joined" {
		t.Errorf("heard %q", got)
	}
}

// TestWaits: a start that waits longer than the service manager would is not taken for
// one that hangs.
func TestWaits(t *testing.T) {
	heard := serviceManager(t)
	if err := Waits(10*time.Minute, "waits for leases"); err != nil {
		t.Fatal(err)
	}
	if got := heard(); got != "EXTEND_TIMEOUT_USEC=900000000\nSTATUS=waits for leases" {
		t.Errorf("heard %q", got)
	}
}

// TestReadyToNobody: without a service manager nothing is said and nothing fails.
func TestReadyToNobody(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if err := Ready("joined"); err != nil {
		t.Error(err)
	}
}

func TestWatchdog(t *testing.T) {
	heard := serviceManager(t)
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	t.Setenv("WATCHDOG_USEC", "40000")
	ctx, cancel := context.WithCancel(t.Context())
	var asked atomic.Int32
	ended := make(chan error)
	go func() {
		ended <- Watchdog(ctx, func() bool { return asked.Add(1) > 2 }) // hangs at first
	}()
	if got := heard(); got != "WATCHDOG=1" || asked.Load() < 3 {
		t.Errorf("heard %q after %d looks", got, asked.Load())
	}
	if got := heard(); got != "WATCHDOG=1" {
		t.Errorf("then %q", got)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	for got := heard(); got != "STOPPING=1"; got = heard() {
		if got != "WATCHDOG=1" {
			t.Fatalf("at the end: %q", got)
		}
	}
}

// TestWatchdogUnwanted: it ends with the context all the same.
func TestWatchdogUnwanted(t *testing.T) {
	heard := serviceManager(t)
	t.Setenv("WATCHDOG_USEC", "")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Watchdog(ctx, func() bool { t.Error("asked"); return true }); err != nil {
		t.Error(err)
	}
	if got := heard(); !strings.HasPrefix(got, "STOPPING=1") {
		t.Errorf("heard %q", got)
	}
}
