// Command web is the demo's web server, and the one that tests break: it says
// who it is, and fails on request.
//
//	/         who answers: hostname, replica, slot, epoch, node, version
//	/whoami   the same as JSON, with the client's address and when it was first well
//	/healthz  200, or 503 after /fail and until /recover
//	/headers  what the client sent
//	/crash    exits with code 3
//	/oom      takes memory until it is killed
//
// It logs each request on standard output, but with -quiet. At SIGTERM, SIGINT or
// SIGQUIT it fails /healthz, answers what is under way, and ends with code 0.
//
// It speaks beside HTTP: -echo ADDRESS answers TCP and UDP with what they sent,
// -sink ADDRESS takes streams, -grpc ADDRESS answers grpc.health.v1. And it is the
// client of the network's tests: -load takes jobs by POST /run, -run does the one that
// it reads from standard input; see e2e/load.
//
// It misbehaves when told: -slow-start, -never-ready, -crash-after. And it does one
// thing instead of serving, as images without a shell need it for init containers,
// hooks and health checks: -exit, -cat, -try-write, -check; see act.go.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/orchctl/orch/e2e/load"
)

const (
	// drainMax is how long requests under way may take after SIGTERM; it is
	// below the usual termination grace of 10 s.
	drainMax = 8 * time.Second
	// oomStep is taken at a time, in bytes: small enough that a limit of a
	// few MiB is met, not jumped over.
	oomStep = 1 << 20
)

// options are the flags.
type options struct {
	port, echo, sink, grpc string
	load, run, quiet       bool
	faults                 faults
	act                    act
}

func main() {
	o := options{port: os.Getenv("PORT")}
	if o.port == "" {
		o.port = "8080"
	}
	flag.StringVar(&o.port, "port", o.port, "port to listen on, default $PORT or 8080")
	flag.StringVar(&o.echo, "echo", "", "address such as :7000 that echoes TCP and UDP; empty for none")
	flag.StringVar(&o.sink, "sink", "", "address such as :7001 that takes streams of bytes; empty for none")
	flag.StringVar(&o.grpc, "grpc", "", "address such as :9000 that answers grpc.health.v1.Health/Check as /healthz is answered; empty for none")
	flag.BoolVar(&o.load, "load", false, "take jobs by POST /run: anybody who reaches the port can have requests sent")
	flag.BoolVar(&o.run, "run", false, "serve nothing: read a job from standard input, do it until that ends, print its report")
	flag.BoolVar(&o.quiet, "quiet", false, "do not log requests")
	o.faults.flags(flag.CommandLine)
	o.act.flags(flag.CommandLine)
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGQUIT, os.Interrupt)
	defer stop()
	code, err := o.act.instead(ctx, os.Stdout)
	if code < 0 && err == nil {
		code, err = 0, start(ctx, o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "web:", err)
		os.Exit(max(1, code))
	}
	os.Exit(code)
}

func start(ctx context.Context, o options) error {
	if o.run {
		return load.RunFrom(ctx, os.Stdin, os.Stdout)
	}
	w := newWeb()
	w.quiet, w.load = o.quiet, o.load
	w.neverReady, w.wellFrom = o.faults.neverReady, time.Now().Add(o.faults.slowStart)
	if o.faults.crashAfter >= 0 {
		defer time.AfterFunc(o.faults.crashAfter, func() { crash(os.Stdout, w.exit) }).Stop()
	}
	l, err := net.Listen("tcp", net.JoinHostPort("", o.port))
	if err != nil {
		return err
	}
	// These go on while HTTP drains: who has a connection may finish. The process's
	// end ends them.
	beside := make(chan error, 3)
	if o.echo != "" {
		go func() { beside <- load.ServeEcho(context.WithoutCancel(ctx), o.echo, w.replica) }()
	}
	if o.sink != "" {
		go func() { beside <- load.ServeSink(context.WithoutCancel(ctx), o.sink) }()
	}
	if o.grpc != "" {
		health, err := net.Listen("tcp", o.grpc)
		if err != nil {
			return err
		}
		go func() { beside <- w.serveGRPC(health) }()
	}
	served := make(chan error, 1)
	go func() { served <- run(ctx, l, w) }()
	select {
	case err := <-beside:
		return err
	case err := <-served:
		return errors.Join(err, o.act.ended(ctx))
	}
}

// run serves until ctx ends, then drains. It closes the listener.
func run(ctx context.Context, l net.Listener, w *web) error {
	server := &http.Server{Handler: w.handler(), ReadHeaderTimeout: 10 * time.Second, ConnState: w.unread.note}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	fmt.Printf("listening on %s, version %s\n", l.Addr(), w.version)
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	fmt.Printf("terminating: draining: %v\n", context.Cause(ctx))
	w.failing.Store(true)
	drain, cancel := context.WithTimeout(context.Background(), drainMax)
	defer cancel()
	server.SetKeepAlivesEnabled(false)
	w.unread.wait(drain)
	err := server.Shutdown(drain)
	if end := <-served; !errors.Is(end, http.ErrServerClosed) {
		err = errors.Join(err, end)
	}
	fmt.Println("drained")
	return err
}

type web struct {
	hostname, version string
	replica           string // empty outside the fleet
	quiet, load       bool
	neverReady        bool
	wellFrom          time.Time // it is not well before
	failing           atomic.Bool
	unread            unread
	well              atomic.Pointer[time.Time] // when /healthz was first answered with 200
	exit              func(code int)
}

func newWeb() *web {
	hostname, err := os.Hostname()
	if err != nil {
		hostname = "unknown"
	}
	version := os.Getenv("VERSION")
	if version == "" {
		version = "unknown"
	}
	return &web{hostname: hostname, version: version, replica: os.Getenv("ORCH_REPLICA"), exit: os.Exit}
}

func (w *web) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/{$}", w.who)
	mux.HandleFunc("/healthz", w.healthz)
	mux.HandleFunc("/fail", func(rw http.ResponseWriter, _ *http.Request) {
		w.failing.Store(true)
		fmt.Fprintln(rw, "failing")
	})
	mux.HandleFunc("/recover", func(rw http.ResponseWriter, _ *http.Request) {
		w.failing.Store(false)
		fmt.Fprintln(rw, "healthy")
	})
	mux.HandleFunc("/whoami", w.whoami)
	mux.HandleFunc("/headers", headers)
	mux.HandleFunc("/crash", func(http.ResponseWriter, *http.Request) {
		fmt.Println("crashing as asked")
		w.exit(crashCode)
	})
	mux.HandleFunc("/oom", func(http.ResponseWriter, *http.Request) { exhaust() })
	if w.load {
		new(load.Server).Handle(mux)
	}
	named := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set(load.HeaderReplica, w.replica)
		rw.Header().Set(load.HeaderClient, r.RemoteAddr)
		mux.ServeHTTP(rw, r)
	})
	if w.quiet {
		return named
	}
	return logged(named)
}

// identity are the variables that say which replica this is.
var identity = []struct{ word, variable string }{
	{"service", "ORCH_SERVICE"},
	{"replica", "ORCH_REPLICA"},
	{"slot", "ORCH_SLOT"},
	{"epoch", "ORCH_EPOCH"},
	{"node", "ORCH_NODE"},
}

func (w *web) who(rw http.ResponseWriter, _ *http.Request) {
	fmt.Fprintf(rw, "hostname: %s\nversion: %s\n", w.hostname, w.version)
	for _, i := range identity {
		if value, ok := os.LookupEnv(i.variable); ok {
			fmt.Fprintf(rw, "%s: %s\n", i.word, value)
		}
	}
}

func (w *web) whoami(rw http.ResponseWriter, r *http.Request) {
	who := load.Whoami{Hostname: w.hostname, Version: w.version, Replica: w.replica, Slot: os.Getenv("ORCH_SLOT"), Epoch: os.Getenv("ORCH_EPOCH"),
		Node: os.Getenv("ORCH_NODE"), Client: r.RemoteAddr}
	if at := w.well.Load(); at != nil {
		who.Well = *at
	}
	rw.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(rw).Encode(who) // a client that has gone does not want it
}

func (w *web) healthz(rw http.ResponseWriter, _ *http.Request) {
	if why := w.unwell(); why != "" {
		http.Error(rw, why, http.StatusServiceUnavailable)
		return
	}
	now := time.Now()
	w.well.CompareAndSwap(nil, &now)
	fmt.Fprintln(rw, "ok")
}

func headers(rw http.ResponseWriter, r *http.Request) {
	names := make([]string, 0, len(r.Header))
	for name := range r.Header {
		names = append(names, name)
	}
	slices.Sort(names)
	fmt.Fprintf(rw, "remote: %s\nhost: %s\n", r.RemoteAddr, r.Host)
	for _, name := range names {
		for _, value := range r.Header[name] {
			fmt.Fprintf(rw, "%s: %s\n", name, value)
		}
	}
}

// hoard keeps what exhaust took from the garbage collector.
var hoard [][]byte

// exhaust takes memory and touches each page, since untouched ones cost
// nothing.
func exhaust() {
	fmt.Println("taking all memory as asked")
	for {
		block := make([]byte, oomStep)
		for i := 0; i < len(block); i += 4096 {
			block[i] = 1
		}
		hoard = append(hoard, block)
	}
}

// logged writes a line for each request when it is answered.
func logged(next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		began := time.Now()
		s := &statusWriter{ResponseWriter: rw, status: http.StatusOK}
		next.ServeHTTP(s, r)
		fmt.Printf("%s %s from %s: %d in %s\n", r.Method, r.URL.Path, r.RemoteAddr, s.status, time.Since(began).Round(time.Microsecond))
	})
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (s *statusWriter) WriteHeader(status int) {
	s.status = status
	s.ResponseWriter.WriteHeader(status)
}
