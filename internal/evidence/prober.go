package evidence

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// DefaultHostPort is tried on every host beside ICMP: gossip's port, which a
	// firewall between nodes lets pass in any case.
	DefaultHostPort = 7946
	// portsMax is the number of replicas' ports tried in one probe; a node's
	// first sixteen tell as much as all, and a hundred probes a second stay cheap.
	portsMax = 16
	// oversleep is how much longer than asked for a probe may take before it
	// distrusts itself: this process did not run, so answers may have come in
	// time and been thrown away at the deadline.
	oversleep = 50 * time.Millisecond
)

// Target is a host to look at. Ports are the TCP ports of its replicas on Addr,
// Replicas those on addresses of their own; beyond the first sixteen of both
// together they are not tried.
type Target struct {
	Addr     netip.Addr
	Ports    []uint16
	Replicas []netip.AddrPort
}

// ports gives those that are tried. What answers at a replica's own address may be
// whoever the way there leads to: it tells of the port alone, not of the host.
func (t Target) ports() []netip.AddrPort {
	var out []netip.AddrPort
	for _, p := range t.Ports {
		out = append(out, netip.AddrPortFrom(t.Addr.Unmap(), p))
	}
	out = append(out, t.Replicas...)
	return out[:min(len(out), portsMax)]
}

// Result is what answered. The zero value: nothing, and nothing was tried.
type Result struct {
	// HostAnswers: an ICMP echo reply, or any TCP answer, a refusal too.
	HostAnswers bool
	// How says for people what each way gave: "icmp 0.3ms, tcp:7946 refused".
	How string
	// PortsAsked counts the replicas' ports that were tried, PortsAnswered those
	// of them that accepted a connection.
	PortsAsked, PortsAnswered int
}

// Prober looks at hosts. The zero value is ready; its methods may be called by
// any goroutine.
type Prober struct {
	// HostPort is the TCP port tried on every host. Zero: DefaultHostPort. It
	// need not be open.
	HostPort uint16
}

// Probe looks at the target for at most timeout and returns as soon as more could
// change nothing. Its goroutines have ended when it returns. A probe that was
// itself kept from running, and lacks an answer, is made once more.
func (p *Prober) Probe(ctx context.Context, t Target, timeout time.Duration) Result {
	started := time.Now()
	result := p.once(ctx, t, timeout)
	if lacking := !result.HostAnswers || result.PortsAnswered < result.PortsAsked; lacking &&
		time.Since(started) > timeout+oversleep && ctx.Err() == nil {
		return p.once(ctx, t, timeout)
	}
	return result
}

// finding is what one way of looking gave.
type finding struct {
	order    int // in How
	way      string
	what     string
	answers  bool // the host sent something
	isPort   bool // a replica's port was tried
	accepted bool
}

func (p *Prober) once(ctx context.Context, t Target, timeout time.Duration) Result {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	ports := t.ports()
	addr := t.Addr.Unmap()

	found := make(chan finding, 2+len(ports))
	var running sync.WaitGroup
	look := func(order int, isPort bool, way string, f func() (what string, answers, accepted bool)) {
		running.Go(func() {
			what, answers, accepted := f()
			found <- finding{order, way, what, answers, isPort, accepted}
		})
	}
	tcp := func(order int, isPort bool, to netip.AddrPort) {
		way := "tcp:" + strconv.Itoa(int(to.Port()))
		if to.Addr() != addr {
			way = "tcp:" + to.String()
		}
		look(order, isPort, way, func() (string, bool, bool) {
			what, answers, accepted := connect(ctx, to)
			return what, answers && to.Addr() == addr, accepted
		})
	}
	look(0, false, "icmp", func() (string, bool, bool) {
		rtt, err := echo(ctx, addr, timeout)
		if err != nil {
			return reason(err), false, false
		}
		return rtt.Round(10 * time.Microsecond).String(), true, false
	})
	hostPort := p.HostPort
	if hostPort == 0 {
		hostPort = DefaultHostPort
	}
	tcp(1, false, netip.AddrPortFrom(addr, hostPort))
	for i, to := range ports {
		tcp(2+i, true, to)
	}

	result := Result{PortsAsked: len(ports)}
	findings := make([]finding, cap(found))
	portsOpen := len(ports)
	for range cap(found) {
		f := <-found
		findings[f.order] = f
		result.HostAnswers = result.HostAnswers || f.answers
		if f.isPort {
			portsOpen--
			if f.accepted {
				result.PortsAnswered++
			}
		}
		if result.HostAnswers && portsOpen == 0 {
			break
		}
	}
	cancel()
	running.Wait()
	var how []string
	for _, f := range findings {
		if f.way != "" { // what was still under way when enough was known is left out
			how = append(how, f.way+" "+f.what)
		}
	}
	result.How = strings.Join(how, ", ")
	return result
}

// connect tries one TCP port. A refusal is an answer, though nobody accepted.
func connect(ctx context.Context, to netip.AddrPort) (what string, answers, accepted bool) {
	dialer := net.Dialer{KeepAlive: -1}
	conn, err := dialer.DialContext(ctx, "tcp", to.String())
	switch {
	case err == nil:
		conn.Close()
		return "accepted", true, true
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused", true, false
	case errors.Is(err, syscall.ECONNRESET):
		return "reset", true, false
	}
	return reason(err), false, false
}

// reason gives a word or two for an error that is no answer.
func reason(err error) string {
	var errno syscall.Errno
	var timeout net.Error
	switch {
	case errors.Is(err, context.Canceled):
		return "cancelled"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	case errors.Is(err, syscall.EHOSTUNREACH):
		return "host unreachable"
	case errors.Is(err, syscall.ENETUNREACH):
		return "no route"
	case errors.As(err, &errno):
		return errno.Error()
	}
	return fmt.Sprint(err)
}
