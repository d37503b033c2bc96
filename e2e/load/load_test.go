package load

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

func run(t *testing.T, j Job) Report {
	t.Helper()
	r, err := Run(t.Context(), j)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(r)
	return r
}

func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// during runs a server until the test is over.
func during(t *testing.T, addr string, serve func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	if r, err := Run(t.Context(), Job{Kind: Reach, Targets: []string{addr}, For: 5 * time.Second}); err != nil || r.Failed > 0 {
		t.Fatalf("server does not listen: %v %v", r, err)
	}
}

func TestHTTPCountsWhatFails(t *testing.T) {
	var asked, conns atomic.Int64
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(HeaderReplica, "web-1")
		w.Header().Set(HeaderClient, r.RemoteAddr)
		if n := asked.Add(1); n%10 == 0 {
			w.WriteHeader(503)
		}
	}))
	s.Config.ConnState = func(_ net.Conn, c http.ConnState) {
		if c == http.StateNew {
			conns.Add(1)
		}
	}
	s.Start()
	defer s.Close()
	kept := run(t, Job{Kind: HTTP, Targets: []string{s.URL}, Count: 200, Workers: 4})
	if kept.Requests != 200 || kept.Failed != 20 || len(kept.Failures) != 1 || kept.Failures[0].Kind != "status 503" || kept.By["web-1"] != 180 || kept.Seen == "" {
		t.Errorf("%+v", kept)
	}
	// net/http may dial once more while another connection becomes free.
	if n := conns.Swap(0); n > 4*4 {
		t.Errorf("4 workers made %d connections for 200 requests that keep them", n)
	}
	if r := run(t, Job{Kind: HTTP, Targets: []string{s.URL}, Count: 50, Workers: 4, Fresh: true}); r.Requests != 50 || conns.Load() != 50 {
		t.Errorf("%d connections for %d fresh requests", conns.Load(), r.Requests)
	}
	refused := run(t, Job{Kind: HTTP, Targets: []string{"http://" + free(t)}, Count: 3})
	if refused.Failed != 3 || refused.Failures[0].Kind != "refused" || refused.LastFailure().Before(refused.Began) {
		t.Errorf("%+v", refused)
	}
}

func TestBodiesMustBeWhole(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "half")
	}))
	defer s.Close()
	if r := run(t, Job{Kind: HTTP, Targets: []string{s.URL}, Count: 2}); r.Failed != 2 || r.Failures[0].Kind != "closed" {
		t.Errorf("%+v", r)
	}
}

func TestRateAndEnd(t *testing.T) {
	var asked atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer s.Close()
	r := run(t, Job{Kind: HTTP, Targets: []string{s.URL}, Rate: 100, Workers: 8, For: 500 * time.Millisecond})
	if r.Requests > 60 || r.Failed > 0 || int64(r.Requests) != asked.Load() {
		t.Errorf("asked %d times in half a second at 100/s: %+v", asked.Load(), r)
	}
	if r := run(t, Job{Kind: HTTP, Targets: []string{s.URL}, AtLeast: 100, Workers: 8, For: time.Millisecond}); r.Requests < 100 || r.Requests > 108 || r.Failed > 0 {
		t.Errorf("asked for at least 100: %+v", r)
	}
}

func TestEcho(t *testing.T) {
	addr := free(t)
	during(t, addr, func(ctx context.Context) error { return ServeEcho(ctx, addr, "web-7") })
	for _, j := range []Job{
		{Kind: UDP, Targets: []string{addr}, Count: 20, Size: 1400},
		{Kind: TCP, Targets: []string{addr}, Count: 20, Size: 1 << 20, Workers: 2},
	} {
		if r := run(t, j); r.Failed > 0 || r.By["web-7"] != 20 || !strings.HasPrefix(r.Seen, "127.0.0.1:") {
			t.Errorf("%+v", r)
		}
	}
}

func TestHoldSeesTheEnd(t *testing.T) {
	addr := free(t)
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- ServeEcho(ctx, addr, "web-7") }()
	if r := run(t, Job{Kind: Reach, Targets: []string{addr}, For: 5 * time.Second}); r.Failed > 0 {
		t.Fatal(r)
	}
	if r := run(t, Job{Kind: Hold, Targets: []string{addr}, Workers: 3, For: 50 * time.Millisecond}); r.Failed > 0 || r.By["web-7"] != 3 {
		t.Errorf("held until the job's end: %+v", r)
	}
	held := make(chan Report, 1)
	go func() {
		r, err := Run(t.Context(), Job{Kind: Hold, Targets: []string{addr}, Workers: 3, For: 10 * time.Second})
		if err != nil {
			t.Error(err)
		}
		held <- r
	}()
	// By the time that others have been served the holders are connected; were they
	// late, they would be refused, which fails them as well.
	if r := run(t, Job{Kind: TCP, Targets: []string{addr}, Count: 5}); r.Failed > 0 {
		t.Fatal(r)
	}
	cancel()
	if r := <-held; r.Failed != 3 {
		t.Errorf("ended by the server: %+v", r)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestStream(t *testing.T) {
	addr := free(t)
	during(t, addr, func(ctx context.Context) error { return ServeSink(ctx, addr) })
	if r := run(t, Job{Kind: Stream, Targets: []string{addr}, Workers: 2, For: 100 * time.Millisecond}); r.Failed > 0 || r.Bytes < streamBlock {
		t.Errorf("%+v", r)
	}
}

func TestDNS(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buf[:n]) != nil {
				continue
			}
			m.Response = true
			if m.Questions[0].Name.String() == "web." {
				m.Answers = []dnsmessage.Resource{{
					Header: dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Class: dnsmessage.ClassINET},
					Body:   &dnsmessage.AResource{A: [4]byte{10, 1, 2, 3}},
				}}
			} else {
				m.RCode = dnsmessage.RCodeNameError
			}
			out, _ := m.Pack()
			_, _ = conn.WriteTo(out, from)
		}
	}()
	r := run(t, Job{Kind: DNS, Targets: []string{"web", "nobody"}, Server: conn.LocalAddr().String(), Count: 100, Workers: 4})
	if r.Requests != 100 || r.Failed != 50 || r.By["10.1.2.3"] != 50 {
		t.Errorf("%+v", r)
	}
}

func TestJobsOfAProgram(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer s.Close()
	text, err := json.Marshal(Job{Kind: HTTP, Targets: []string{s.URL}, Rate: 50})
	if err != nil {
		t.Fatal(err)
	}
	in, end := io.Pipe()
	go func() {
		fmt.Fprintf(end, "%s\n", text)
		for range 3 { // its end ends the job, not its begin
			fmt.Fprintln(end)
		}
		end.Close()
	}()
	var out bytes.Buffer
	if err := RunFrom(t.Context(), in, &out); err != nil {
		t.Fatal(err)
	}
	var r Report
	if err := json.Unmarshal(out.Bytes(), &r); err != nil || r.Failed > 0 {
		t.Errorf("%v %+v", err, r)
	}
}

func TestServer(t *testing.T) {
	mux := http.NewServeMux()
	new(Server).Handle(mux)
	mux.HandleFunc("GET /", func(http.ResponseWriter, *http.Request) {})
	s := httptest.NewServer(mux)
	defer s.Close()
	got := make(chan Report, 1)
	go func() {
		r, err := Ask(t.Context(), s.Client(), s.URL, "a", Job{Kind: HTTP, Targets: []string{s.URL}, Rate: 100})
		if err != nil {
			t.Error(err)
		}
		got <- r
	}()
	for Stop(t.Context(), s.Client(), s.URL, "a") != nil {
		if t.Context().Err() != nil {
			t.Fatal("the job never began")
		}
	}
	if r := <-got; r.Failed > 0 {
		t.Errorf("%+v", r)
	}
	for _, bad := range []Job{{}, {Kind: "nothing", Targets: []string{"x"}}, {Kind: HTTP, Targets: []string{"x"}, Workers: WorkersMax + 1}} {
		if _, err := Ask(t.Context(), s.Client(), s.URL, "b", bad); err == nil {
			t.Errorf("%+v was accepted", bad)
		}
	}
}

func TestPacerLeavesOutWhatIsLate(t *testing.T) {
	p := &pacer{step: time.Millisecond, next: time.Now().Add(-time.Hour)}
	began := time.Now()
	var at []time.Duration
	for range 20 {
		if _, ok := p.turn(t.Context()); !ok {
			t.Fatal("no turn")
		}
		at = append(at, time.Since(began))
	}
	if last := slices.Max(at); last < 15*time.Millisecond {
		t.Errorf("20 turns after a stall took %s: a burst", last)
	}
}
