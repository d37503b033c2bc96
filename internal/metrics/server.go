package metrics

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const (
	// Off is the address of a server that there is to be none of.
	Off = "off"
	// headerTimeout, readTimeout and idleTimeout end connections of those who dawdle,
	// writeTimeout an answer that nobody takes.
	headerTimeout, readTimeout, idleTimeout = 5 * time.Second, 10 * time.Second, 2 * time.Minute
	writeTimeout                            = 30 * time.Second
	// scrapeTimeout is how long a scrape may take: Prometheus waits 10 s by default.
	scrapeTimeout = 9 * time.Second
	// scrapesMax is how many may go on at once: one or two Prometheus, and a person.
	scrapesMax = 4
	// headerMax is the size of a request's headers, in bytes.
	headerMax = 16 << 10
	// listenAgain is the pace at which a port that another holds is tried again.
	listenAgain = 10 * time.Second
	// closeTimeout is what answers under way get when the program ends.
	closeTimeout = time.Second
)

// CheckAddress refuses what cannot be listened at: it wants host:port or Off.
func CheckAddress(flag, address string) error {
	if address == Off {
		return nil
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil || port == "" {
		return fmt.Errorf("%s %q: want host:port, such as 127.0.0.1:7073, or %q", flag, address, Off)
	}
	if _, err := net.LookupPort("tcp", port); err != nil {
		return fmt.Errorf("%s %q: %q is no port", flag, address, port)
	}
	if host != "" && strings.ContainsAny(host, " /") {
		return fmt.Errorf("%s %q: %q is no host", flag, address, host)
	}
	return nil
}

// Server answers /metrics, /healthz and /readyz in plain HTTP. All fields are required.
type Server struct {
	// Address is host:port; with Off, Run does nothing.
	Address  string
	Gatherer prometheus.Gatherer
	// Live and Ready are what /healthz and /readyz ask.
	Live, Ready []Check
	Logger      *slog.Logger
}

// Run serves until ctx ends. A port that is in use is told and tried again: that
// nobody can look is no reason to let go of what runs.
func (s *Server) Run(ctx context.Context) error {
	if s.Address == Off {
		return nil
	}
	l, err := s.listen(ctx)
	if err != nil {
		return nil // ctx ended
	}
	if !loopback(l.Addr()) {
		s.Logger.Warn("metrics and health are served to whoever reaches this address: there is no authentication; firewall it, or use a loopback address", "address", l.Addr())
	}
	server := &http.Server{Handler: s.Handler(), ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout,
		IdleTimeout: idleTimeout, MaxHeaderBytes: headerMax, ErrorLog: slog.NewLogLogger(s.Logger.Handler(), slog.LevelDebug)}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		if server.Shutdown(limited) != nil {
			_ = server.Close() // whoever still reads has had their time
		}
	})
	err = server.Serve(l)
	if !stop() {
		<-ended
	}
	if !errors.Is(err, http.ErrServerClosed) {
		s.Logger.Error("metrics and health are not served any more", "address", s.Address, "err", err)
	}
	return nil
}

func (s *Server) listen(ctx context.Context) (net.Listener, error) {
	for told := false; ; told = true {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", s.Address)
		if err == nil {
			s.Logger.Info("serving metrics and health", "address", l.Addr())
			return l, nil
		}
		if !told {
			s.Logger.Error("cannot serve metrics and health; trying again: choose another address with --metrics-addr, or \"off\"", "address", s.Address, "err", err)
		}
		t := time.NewTimer(listenAgain)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil, ctx.Err()
		}
	}
}

func loopback(a net.Addr) bool {
	at, err := netip.ParseAddrPort(a.String())
	return err == nil && at.Addr().Unmap().IsLoopback()
}

// Handler serves the three paths.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.Gatherer, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: scrapesMax,
		Timeout: scrapeTimeout, ErrorLog: slog.NewLogLogger(s.Logger.Handler(), slog.LevelWarn), EnableOpenMetrics: true}))
	mux.Handle("GET /healthz", newPanel(s.Live))
	mux.Handle("GET /readyz", newPanel(s.Ready))
	return mux
}

const (
	// checkTimeout is how long one check may take.
	checkTimeout = 2 * time.Second
	// checkAgain is how long the result of a round holds: whoever asks more often
	// hears it again, so that nobody can keep the store busy from here.
	checkAgain = 250 * time.Millisecond
)

// Check is one thing that must be so. Try says how it is, in words, or what is wrong
// and what to do; it ends with ctx.
type Check struct {
	Name string
	Try  func(ctx context.Context) (detail string, err error)
}

// panel answers with the results of checks.
type panel struct {
	checks []Check

	mu      sync.Mutex // held while a round is made: others wait for it and get the same
	results []result
	made    time.Time
}

type result struct {
	name, detail string
	err          error
}

func newPanel(checks []Check) *panel { return &panel{checks: checks} }

// round gives the results in the order of the checks.
func (p *panel) round() []result {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.made.IsZero() && time.Since(p.made) < checkAgain {
		return p.results
	}
	// Not the context of who asked: the others who wait get the same answer.
	ctx, cancel := context.WithTimeout(context.Background(), checkTimeout)
	defer cancel()
	done := make(chan int, len(p.checks))
	results := make([]result, len(p.checks))
	answers := make([]result, len(p.checks)) // each written by its own check, and read after done
	for i, c := range p.checks {
		results[i] = result{name: c.Name, err: fmt.Errorf("no answer within %s", checkTimeout)}
		go func() {
			detail, err := c.Try(ctx)
			answers[i] = result{c.Name, detail, err}
			done <- i
		}()
	}
	for range p.checks {
		select {
		case i := <-done:
			results[i] = answers[i]
			continue
		case <-ctx.Done():
		}
		break // a check that hangs is not waited for
	}
	p.results, p.made = results, time.Now()
	return results
}

// ServeHTTP answers 200 with "ok", or 503 with a line for each check that fails;
// ?verbose lists all.
func (p *panel) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	results := p.round()
	verbose := r.URL.Query().Has("verbose")
	var out bytes.Buffer
	good := true
	for _, x := range results {
		switch {
		case x.err != nil:
			good = false
			fmt.Fprintf(&out, "FAIL %s: %s\n", x.name, oneLine(x.err.Error()))
		case verbose:
			fmt.Fprintf(&out, "ok   %s: %s\n", x.name, oneLine(x.detail))
		}
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if !good {
		w.WriteHeader(http.StatusServiceUnavailable)
	} else if !verbose {
		out.WriteString("ok\n")
	}
	_, _ = w.Write(out.Bytes()) // whoever asked may be gone
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
