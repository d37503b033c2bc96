package agent

import (
	"context"
	"net/netip"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/orchctl/orch/agent/netcheck"
	"github.com/orchctl/orch/agent/netdev"
	"github.com/orchctl/orch/agent/session"
	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/evidence"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

const (
	// lookMax is how long a host that may be down is looked at.
	lookMax = time.Second
	// resolvers lists the host's own name servers.
	resolvers = "/etc/resolv.conf"
)

// relayNetCheck tries the network towards other nodes.
func (d *driver) relayNetCheck(ctx context.Context, req *orchv1.NetCheckOpen, r session.Relay) *orchv1.End {
	at, _ := d.cfg.Network.Standing()
	c := netcheck.Checker{Node: d.cfg.Name, Standing: at, Address: d.cfg.Address, Peers: d.standing.peers(), Resolvers: resolvers,
		Ailing: func() string { return joinWords(d.cfg.Network.Health(), d.cfg.Traffic.Health()) },
		Look: func(ctx context.Context, addr netip.Addr) (bool, string) {
			got := d.cfg.Prober.Probe(ctx, evidence.Target{Addr: addr}, lookMax)
			return got.HostAnswers, got.How
		}, AsReplica: d.asReplica}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c.Run(ctx, req.GetTargets(), func(x netcheck.Result) {
		f := &orchv1.NetCheckResult{Node: d.cfg.Name, Target: x.Target, Check: x.Check, Ok: x.OK, Detail: x.Detail, Took: durationpb.New(x.Took)}
		if r.Send(&orchv1.Frame{Frame: &orchv1.Frame_NetCheck{NetCheck: f}}) != nil {
			cancel() // nobody hears the rest
		}
	})
	return &orchv1.End{}
}

// checkNamespace is none that a service can be in.
const checkNamespace = "orch-"

// asReplica runs f in a network that is made, and taken back, as a replica's is.
func (d *driver) asReplica(ctx context.Context, f func()) error {
	key := api.ReplicaKey{Namespace: checkNamespace, Service: "check", Epoch: uint64(time.Now().UnixNano())}
	a, err := d.cfg.Network.Setup(ctx, key, false)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), networkMax)
		defer cancel()
		if err := d.cfg.Network.Teardown(ctx, key); err != nil { // the agent's next start clears it away
			d.cfg.Logger.Warn("a check of the network left something behind", "err", err)
		}
	}()
	return netdev.Within(a.NetNS, f)
}
