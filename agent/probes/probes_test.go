package probes

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/orchctl/orch/api"
)

func at(t *testing.T, addr string, p api.Probe) Target {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return Target{Probe: p, IP: host, Port: n, Timeout: 5 * time.Second}
}

func TestHTTP(t *testing.T) {
	connections := make(chan string, 100)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		connections <- r.RemoteAddr
		switch r.URL.Path {
		case "/moved":
			http.Redirect(w, r, "/broken", http.StatusFound)
		case "/hangs":
			<-r.Context().Done()
		case "/cut":
			panic(http.ErrAbortHandler)
		default:
			code, err := strconv.Atoi(r.URL.Path[1:])
			if err != nil {
				code = http.StatusInternalServerError
			}
			w.WriteHeader(code)
		}
	}))
	defer s.Close()
	for path, want := range map[string]string{
		"/200": "", "/204": "", "/399": "", "/moved": "", "/404": "HTTP 404 Not Found", "/503": "HTTP 503", "/broken": "HTTP 500",
		"/hangs": "no answer within 200ms", "/cut": "connection closed without an answer",
	} {
		target := at(t, s.Listener.Addr().String(), api.Probe{HTTP: &api.HTTPProbe{Path: path}})
		if path == "/hangs" {
			target.Timeout = 200 * time.Millisecond
		}
		ok, _, message := Try(t.Context(), target)
		if ok != (want == "") || !strings.Contains(message, want) {
			t.Errorf("%s: %v, %q, want %q", path, ok, message, want)
		}
	}
	// Each try has a connection of its own, and a redirect is not followed.
	s.Close()
	close(connections)
	seen := map[string]bool{}
	for c := range connections {
		if seen[c] {
			t.Errorf("connection %s was used again", c)
		}
		seen[c] = true
	}
	if len(seen) != 9 {
		t.Errorf("%d requests, want 9", len(seen))
	}
}

func TestTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	target := at(t, l.Addr().String(), api.Probe{TCP: &api.TCPProbe{}})
	if ok, _, message := Try(t.Context(), target); !ok || message != "" {
		t.Errorf("open port: %v, %q", ok, message)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if ok, _, message := Try(t.Context(), target); ok || !strings.HasSuffix(message, "connection refused") {
		t.Errorf("closed port: %v, %q", ok, message)
	}
}

func TestExec(t *testing.T) {
	for name, x := range map[string]struct {
		code   int
		output string
		err    error
		want   string
	}{
		"well":   {0, "fine", nil, ""},
		"sick":   {3, " not yet\n", nil, "check: exit code 3: not yet"},
		"silent": {1, "", nil, "check: exit code 1"},
		"absent": {-1, "", errors.New("no such file"), "no such file"},
		"wordy":  {1, strings.Repeat("x", 500), nil, strings.Repeat("x", 200) + "..."},
	} {
		target := Target{Probe: api.Probe{Exec: &api.ExecProbe{Command: []string{"check"}}}, Timeout: time.Second,
			Exec: func(context.Context, []string) (int, string, error) { return x.code, x.output, x.err }}
		if ok, _, message := Try(t.Context(), target); ok != (x.want == "") || !strings.HasSuffix(message, x.want) {
			t.Errorf("%s: %v, %q, want %q", name, ok, message, x.want)
		}
	}
}

// TestWhen: after First, every Until to the first success, then every Interval;
// a slow try delays the next one and never meets it.
func TestWhen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var tries []time.Duration
		running := false
		ctx, cancel := context.WithCancel(t.Context())
		target := Target{Probe: api.Probe{Exec: &api.ExecProbe{Command: []string{"check"}}}, First: time.Second, Until: 100 * time.Millisecond,
			Interval: 5 * time.Second, Timeout: 2 * time.Second,
			Exec: func(ctx context.Context, _ []string) (int, string, error) {
				if running {
					t.Error("two tries at once")
				}
				running = true
				defer func() { running = false }()
				tries = append(tries, time.Since(began))
				if len(tries) == 2 {
					<-ctx.Done()
					return 0, "", ctx.Err()
				}
				return map[bool]int{true: 1, false: 0}[len(tries) < 4], "", nil
			}}
		var told []string
		Run(ctx, target, func(ok bool, message string) {
			told = append(told, strconv.FormatBool(ok)+" "+message)
			if len(told) == 6 {
				cancel()
			}
		})
		ms := time.Millisecond
		want := []time.Duration{1000 * ms, 1100 * ms, 3100 * ms, 3200 * ms, 8200 * ms, 13200 * ms}
		for i, w := range want {
			if i >= len(tries) || tries[i] != w {
				t.Fatalf("tries at %v, want %v", tries, want)
			}
		}
		if told[1] != "false check: no end within 2s" || told[3] != "true " {
			t.Errorf("told %q", told)
		}
	})
}

// TestSoon: the first tries come quickly after each other, then at most every Until.
func TestSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var tries []time.Duration
		ctx, cancel := context.WithCancel(t.Context())
		target := Target{Probe: api.Probe{Exec: &api.ExecProbe{Command: []string{"check"}}}, Soon: 10 * time.Millisecond, Until: 100 * time.Millisecond,
			Interval: 5 * time.Second, Timeout: time.Second,
			Exec: func(context.Context, []string) (int, string, error) {
				tries = append(tries, time.Since(began))
				return map[bool]int{true: 1, false: 0}[len(tries) < 7], "", nil
			}}
		Run(ctx, target, func(bool, string) {
			if len(tries) == 8 {
				cancel()
			}
		})
		ms := time.Millisecond
		want := []time.Duration{0, 10 * ms, 30 * ms, 70 * ms, 150 * ms, 250 * ms, 350 * ms, 5350 * ms}
		if !slices.Equal(tries, want) {
			t.Errorf("tries at %v, want %v", tries, want)
		}
	})
}

// A runtime that cannot ask says nothing of the container: one that hangs would
// else have every container with a liveness probe restarted.
func TestWhatWasNotAskedIsNotTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		tries := 0
		target := Target{Probe: api.Probe{Exec: &api.ExecProbe{Command: []string{"check"}}}, Until: time.Second, Interval: time.Second, Timeout: time.Second,
			Exec: func(ctx context.Context, _ []string) (int, string, error) {
				if tries++; tries <= 10 {
					<-ctx.Done()
					return -1, "", fmt.Errorf("%w: %w", ErrUnasked, ctx.Err())
				}
				return 1, "", nil
			}}
		began := time.Now()
		Run(ctx, target, func(ok bool, message string) {
			if took := time.Since(began); ok || took < 10*time.Second {
				t.Errorf("told %v %q after %s", ok, message, took)
			}
			cancel()
		})
	})
}
