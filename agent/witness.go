package agent

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/orchctl/orch/internal/evidence"
	"github.com/orchctl/orch/internal/wire"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// witnessMax is how long a witness waits for answers of its target: a LAN
// answers within a millisecond, the rest is room for a lost packet. The leader
// waits a little longer for the witness.
const witnessMax = 150 * time.Millisecond

// Witness implements session.Handler: it looks at another node.
func (d *driver) Witness(ctx context.Context, ask wire.Ask) *orchv1.WitnessAnswer {
	answer := &orchv1.WitnessAnswer{AskId: ask.ID, Target: ask.Target}
	addr, err := netip.ParseAddr(ask.Address)
	if err != nil {
		answer.How = "the target's address cannot be read"
		return answer
	}
	wait := witnessMax
	if ask.Timeout > 0 {
		wait = ask.Timeout
	}
	target := evidence.Target{Addr: addr}
	for _, text := range ask.Ports {
		at, err := netip.ParseAddrPort(text)
		switch {
		case err != nil:
		case at.Addr() != addr:
			target.Replicas = append(target.Replicas, at)
		case !slices.Contains(target.Ports, at.Port()):
			target.Ports = append(target.Ports, at.Port())
		}
	}
	r := d.cfg.Prober.Probe(ctx, target, wait)
	answer.HostAnswers, answer.How = r.HostAnswers, r.How
	answer.PortsAsked, answer.PortsAnswered = int32(r.PortsAsked), int32(r.PortsAnswered)
	return answer
}
