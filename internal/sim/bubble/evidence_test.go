package bubble

import (
	"context"
	"net/netip"
	"time"

	"github.com/orchctl/orch/internal/evidence"
	"github.com/orchctl/orch/internal/gossip/gossiptest"
)

// packet is gossip's way: see gossiptest.Network.
func (n *network) packet(from, to netip.AddrPort) (time.Duration, bool) {
	n.mu.Lock()
	a, b := n.machines[from.Addr()], n.machines[to.Addr()]
	ok := a != nil && b != nil && n.reaches(a, b) && a.held == 0 && b.held == 0
	lossy := n.lossy
	n.mu.Unlock()
	if !ok || lossy > 0 && n.random.hits(lossy) {
		return 0, false
	}
	return n.delay(a, b), true
}

// transport is gossip's for a process; nothing passes once that is gone.
func (n *network) transport(p *proc) *gossiptest.Transport {
	t := n.gossip.TransportAt(netip.AddrPortFrom(p.m.addr, gossipPort))
	go func() {
		select {
		case <-p.gone:
			t.Cut(true)
		case <-n.closed:
		}
	}()
	return t
}

// prober looks at machines from a process.
type prober struct {
	p *proc
	// listens tells whether a port on a machine is answered.
	listens func(m *machine, at netip.AddrPort) bool
}

// Probe implements controller.Prober and agent.Prober.
func (x prober) Probe(ctx context.Context, t evidence.Target, timeout time.Duration) evidence.Result {
	n := x.p.m.net
	result := evidence.Result{PortsAsked: len(t.Ports) + len(t.Replicas), How: "icmp timeout, tcp:7946 timeout"}
	n.mu.Lock()
	to := n.machines[t.Addr]
	reached := to != nil && x.p.m.held == 0 && n.reaches(x.p.m, to) && n.reaches(to, x.p.m)
	n.mu.Unlock()
	took := timeout
	if reached {
		took = n.delay(x.p.m, to) + n.delay(to, x.p.m)
	}
	if took >= timeout {
		sleep(ctx, timeout)
		return result
	}
	sleep(ctx, took)
	result.HostAnswers, result.How = true, "icmp "+took.Round(10*time.Microsecond).String()
	ports := t.Replicas
	for _, p := range t.Ports {
		ports = append(ports, netip.AddrPortFrom(t.Addr, p))
	}
	for _, at := range ports {
		if x.listens(to, at) {
			result.PortsAnswered++
		}
	}
	return result
}
