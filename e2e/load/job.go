package load

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Kind of a job.
type Kind string

// The kinds.
const (
	HTTP   Kind = "http"   // GETs of Targets (URLs)
	UDP    Kind = "udp"    // a datagram to the echo of Targets (host:port), and its answer
	TCP    Kind = "tcp"    // a connection to the echo of Targets, and Size bytes forth and back
	Hold   Kind = "hold"   // Workers connections to the echo, until they end; Requests are connections
	Reach  Kind = "reach"  // connects to Targets until it succeeds once; Report.Began is when it did
	Lookup Kind = "lookup" // names in Targets, by this place's /etc/resolv.conf; see lookup.go
	DNS    Kind = "dns"    // questions for Targets (names) to the server Server, on one socket per worker
	Stream Kind = "stream" // bytes to the sink of Targets, as fast as they go; Report.Bytes arrived
)

// Job says what to ask for. Zero values mean what is written beside each.
type Job struct {
	Kind Kind
	// Targets are asked in turn. At least one.
	Targets []string
	Server  string `json:",omitempty"` // host:port of a DNS server
	// Count of requests in all; 0: until the job is ended.
	Count int `json:",omitempty"`
	// AtLeast so many requests are made even if the job is ended before.
	AtLeast int `json:",omitempty"`
	// For is how long at most; 0: without limit.
	For time.Duration `json:",omitempty"`
	// Rate is requests per second of all workers together; 0: as fast as they go.
	Rate int `json:",omitempty"`
	// Workers ask at the same time; 0 means 1.
	Workers int `json:",omitempty"`
	// Fresh: each HTTP request has a connection of its own.
	Fresh bool `json:",omitempty"`
	// Timeout of one request, from before it connects; 0 means 2 s.
	Timeout time.Duration `json:",omitempty"`
	// Size of an echo's payload in bytes; 0 means 64.
	Size int `json:",omitempty"`
}

const (
	defaultTimeout = 2 * time.Second
	defaultSize    = 64
	// WorkersMax is far above what two cores can use.
	WorkersMax = 1024
	// latenciesMax samples are kept of a job: 4 bytes each.
	latenciesMax = 4 << 20
)

func (j *Job) check() error {
	if len(j.Targets) == 0 {
		return errors.New("job: no targets")
	}
	if j.Workers < 0 || j.Workers > WorkersMax {
		return fmt.Errorf("job: %d workers: want 1 to %d", j.Workers, WorkersMax)
	}
	if j.Count < 0 || j.AtLeast < 0 || j.Rate < 0 || j.For < 0 || j.Timeout < 0 || j.Size < 0 || j.Size > 1<<20 {
		return errors.New("job: a number is negative, or the size above 1 MiB")
	}
	j.Workers = max(j.Workers, 1)
	if j.Timeout == 0 {
		j.Timeout = defaultTimeout
	}
	if j.Size == 0 {
		j.Size = defaultSize
	}
	return nil
}

// Failure counts the failures of one kind.
type Failure struct {
	Kind  string
	Count int
	// First and Last are when the first and the last that failed so had begun.
	First, Last time.Time
	// Example is the first one's whole error.
	Example string
}

// Report is what came of a job.
type Report struct {
	Requests, Failed int
	Failures         []Failure `json:",omitempty"`
	Began, Ended     time.Time
	// P50, P99 and Max of what did not fail.
	P50, P99, Max time.Duration
	// By counts answers by who gave them: replicas, or addresses for a lookup.
	By map[string]int `json:",omitempty"`
	// Answers are what a lookup found, by target.
	Answers map[string][]string `json:",omitempty"`
	// Seen is as what address the client came, as the last who answered saw it.
	Seen string `json:",omitempty"`
	// Bytes that a stream's other end has taken.
	Bytes int64 `json:",omitempty"`
}

// PerSecond is how many requests succeeded per second.
func (r Report) PerSecond() float64 {
	return float64(r.Requests-r.Failed) / r.Ended.Sub(r.Began).Seconds()
}

// LastFailure is when the last request that failed had begun; zero: none failed.
func (r Report) LastFailure() time.Time {
	var last time.Time
	for _, f := range r.Failures {
		if f.Last.After(last) {
			last = f.Last
		}
	}
	return last
}

// String says it in a line.
func (r Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d requests in %.1f s, %d failed, p50 %s, p99 %s, max %s", r.Requests, r.Ended.Sub(r.Began).Seconds(), r.Failed,
		r.P50.Round(time.Microsecond), r.P99.Round(time.Microsecond), r.Max.Round(time.Microsecond))
	for _, f := range r.Failures {
		fmt.Fprintf(&b, "; %d %s from %s to %s (%s)", f.Count, f.Kind, f.First.Format("15:04:05.000"), f.Last.Format("15:04:05.000"), f.Example)
	}
	return b.String()
}

// Run does a job until it is done or ctx ends, whichever is first; the end of ctx
// is no error. Errors are of the job's form only: what fails is in the report.
func Run(ctx context.Context, j Job) (Report, error) {
	if err := j.check(); err != nil {
		return Report{}, err
	}
	if j.For > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, j.For)
		defer cancel()
	}
	switch j.Kind {
	case HTTP:
		return runHTTP(ctx, j), nil
	case UDP, TCP:
		return repeat(ctx, j, echo(j)), nil
	case Hold:
		return hold(ctx, j), nil
	case Reach:
		return reach(ctx, j), nil
	case Lookup:
		return repeatLookup(ctx, j), nil
	case DNS:
		return runDNS(ctx, j)
	case Stream:
		return runStream(ctx, j), nil
	}
	return Report{}, fmt.Errorf("job: unknown kind %q", j.Kind)
}

// RunFrom reads a job from r, in one line of JSON, runs it until r ends, and writes
// the report to w: how a job is run as a program of its own.
func RunFrom(ctx context.Context, r io.Reader, w io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	in := json.NewDecoder(r)
	var j Job
	if err := in.Decode(&j); err != nil {
		return fmt.Errorf("read the job: %w", err)
	}
	go func() {
		defer cancel()
		_, _ = io.Copy(io.Discard, io.MultiReader(in.Buffered(), r))
	}()
	report, err := Run(ctx, j)
	if err != nil {
		return err
	}
	return json.NewEncoder(w).Encode(report)
}

// kindOf names an error so that equal ones are counted together.
func kindOf(err error) string {
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return "no such name"
	case errors.As(err, &dns):
		return "resolving"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused"
	case errors.Is(err, syscall.ECONNRESET):
		return "reset"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "unreachable"
	case errors.Is(err, syscall.ECONNABORTED):
		return "aborted"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), timedOut(err):
		return "timeout"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "closed"
	}
	var status statusError
	if errors.As(err, &status) {
		return status.Error()
	}
	return "other"
}

func timedOut(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// statusError is an HTTP status that is none of success.
type statusError int

func (e statusError) Error() string { return fmt.Sprintf("status %d", int(e)) }

// sorted makes a report's failures come in a fixed order.
func sorted(fs map[string]*Failure) []Failure {
	out := make([]Failure, 0, len(fs))
	for _, f := range fs {
		out = append(out, *f)
	}
	slices.SortFunc(out, func(a, b Failure) int {
		if a.Count != b.Count {
			return b.Count - a.Count
		}
		return strings.Compare(a.Kind, b.Kind)
	})
	return out
}
