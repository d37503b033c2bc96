package probes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/orchctl/orch/api"
)

const (
	// bodyMax is how much of an HTTP answer is read: its status is what counts,
	// the rest only lets the server end in peace.
	bodyMax = 10 << 10
	// messageMax bounds a command's output in a message.
	messageMax = 200
)

// ErrUnasked is wrapped by an Exec that could not ask: that says nothing of the
// container. A runtime that hangs must not get healthy ones restarted.
var ErrUnasked = errors.New("the command was not run")

// Exec runs a command in the container and gives its exit code and the
// beginning of what it printed. It ends with ctx.
type Exec func(ctx context.Context, command []string) (code int, output string, err error)

// Target is what is asked, and how often.
type Target struct {
	Probe api.Probe
	// IP is the replica's, Port the number for HTTP, TCP and GRPC.
	IP   string
	Port int
	// Exec is needed for a command only.
	Exec Exec
	// Turn waits until a command may be run, as far as it is set, which counts neither
	// as a part of the try nor against its Timeout: many commands at once only make each
	// other late. done is called after the try; ok is false if ctx ended before.
	Turn func(ctx context.Context) (done func(), ok bool)
	// Tried is told, as far as it is set, of each try that was made, and how long it took.
	Tried func(took time.Duration, ok bool)
	// First is the delay before the first try. Soon is the interval after it,
	// which doubles up to Until until the first success (0: it is Until at once);
	// Interval is the one afterwards. Each is from the begin of a try to the begin
	// of the next.
	First, Soon, Until, Interval time.Duration
	// Timeout of one try.
	Timeout time.Duration
}

// Run tries until ctx ends and tells every answer; message says in words what
// failed, and is empty on success. A try that ctx cut short is not told, nor one
// that could not be made.
func Run(ctx context.Context, t Target, tell func(ok bool, message string)) {
	timer := time.NewTimer(t.First)
	defer timer.Stop()
	interval, succeeded := t.Until, false
	if t.Soon > 0 {
		interval = min(t.Soon, t.Until)
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		done, ok := t.turn(ctx)
		if !ok {
			return
		}
		began := time.Now()
		ok, asked, message := Try(ctx, t)
		done()
		if ctx.Err() != nil {
			return
		}
		if ok {
			interval, succeeded = t.Interval, true
		}
		if asked && t.Tried != nil {
			t.Tried(time.Since(began), ok)
		}
		if asked {
			tell(ok, message)
		}
		timer.Reset(max(0, interval-time.Since(began)))
		if !succeeded {
			interval = min(2*interval, t.Until)
		}
	}
}

func (t Target) turn(ctx context.Context) (done func(), ok bool) {
	if t.Turn == nil || t.Probe.Exec == nil {
		return func() {}, true
	}
	return t.Turn(ctx)
}

// Try asks once; asked is false if it could not.
func Try(ctx context.Context, t Target) (ok, asked bool, message string) {
	ctx, cancel := context.WithTimeout(ctx, t.Timeout)
	defer cancel()
	var err error
	switch {
	case t.Probe.HTTP != nil:
		err = tryHTTP(ctx, t)
	case t.Probe.TCP != nil:
		err = tryTCP(ctx, t)
	case t.Probe.GRPC != nil:
		err = tryGRPC(ctx, t)
	case t.Probe.Exec != nil:
		err = tryExec(ctx, t)
	default:
		err = errors.New("the probe asks nothing")
	}
	if err == nil {
		return true, true, ""
	}
	return false, !errors.Is(err, ErrUnasked), inWords(err, ctx, t)
}

// client keeps no connections: a probe is to find out whether a new one works.
// Redirects are answers, not places to go.
var client = &http.Client{
	Transport:     &http.Transport{DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

func (t Target) address() string { return net.JoinHostPort(t.IP, strconv.Itoa(t.Port)) }

func tryHTTP(ctx context.Context, t Target) error {
	path := t.Probe.HTTP.Path
	if path == "" {
		path = "/"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+t.address()+path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "orch-probe")
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, bodyMax)) // the status has come already
	if res.StatusCode < 200 || res.StatusCode > 399 {
		return fmt.Errorf("GET %s on port %d: HTTP %s", path, t.Port, res.Status)
	}
	return nil
}

func tryTCP(ctx context.Context, t Target) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", t.address())
	if err != nil {
		return err
	}
	return conn.Close()
}

func tryExec(ctx context.Context, t Target) error {
	if t.Exec == nil {
		return errors.New("no way to run a command")
	}
	code, output, err := t.Exec(ctx, t.Probe.Exec.Command)
	if err != nil {
		return err
	}
	if code != 0 {
		if output = strings.TrimSpace(short(output)); output != "" {
			output = ": " + output
		}
		return fmt.Errorf("%s: exit code %d%s", t.Probe.Exec.Command[0], code, output)
	}
	return nil
}

// inWords says what failed without ports and addresses that differ from try to
// try, so that equal failures have equal words.
func inWords(err error, ctx context.Context, t Target) string {
	var timeout net.Error
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) || (errors.As(err, &timeout) && timeout.Timeout()):
		if t.Probe.Exec != nil {
			return fmt.Sprintf("%s: no end within %s", t.Probe.Exec.Command[0], t.Timeout)
		}
		return fmt.Sprintf("port %d: no answer within %s", t.Port, t.Timeout)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Sprintf("port %d: connection refused", t.Port)
	case errors.Is(err, syscall.ECONNRESET):
		return fmt.Sprintf("port %d: connection reset", t.Port)
	case errors.Is(err, syscall.EHOSTUNREACH):
		return fmt.Sprintf("port %d: no route to %s", t.Port, t.IP)
	case errors.Is(err, io.EOF):
		return fmt.Sprintf("port %d: connection closed without an answer", t.Port)
	}
	return err.Error()
}
