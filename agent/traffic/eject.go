package traffic

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

const (
	// aloneMin is how long there is no session before the node looks after endpoints
	// itself: a leader that is replaced is back within it.
	aloneMin = 3 * time.Second
	// lookEvery is the least time between two rounds.
	lookEvery = time.Second
	// looksMax bounds the endpoints that are asked in a round. All nodes may be cut
	// off at once, and each asks the others' replicas.
	looksMax = 200
)

// ejector looks, while there is no leader who would, which endpoints on other nodes
// answer this one.
type ejector struct {
	*Balancer
	from int // where the next round begins
}

func (e *ejector) run(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if e.alone() < aloneMin {
			continue
		}
		found := e.round(ctx)
		if ctx.Err() != nil || len(found) == 0 || e.alone() < aloneMin {
			continue
		}
		e.mu.Lock()
		e.verdicts = append(e.verdicts, found...)
		e.mu.Unlock()
		e.again()
	}
}

// round asks some endpoints, and tells which of them changed.
func (e *ejector) round(ctx context.Context) []verdict {
	e.drawing.Lock()
	all := e.picture.All()
	out := map[api.ReplicaKey]bool{}
	for _, k := range e.picture.Ejected() {
		out[k] = true
	}
	e.drawing.Unlock()
	e.mu.Lock()
	self := e.standing.Address.String()
	e.mu.Unlock()
	var mu sync.Mutex
	var found []verdict
	silentNodes := map[string]bool{}
	ask := func(endpoints []wire.Endpoint) {
		var g errgroup.Group
		g.SetLimit(asksAtOnceMax)
		for _, one := range endpoints {
			g.Go(func() error {
				at, _ := asked(one)
				said, _ := answers(ctx, e.cfg.Dial, at, answerMax)
				if (said == refuses || said == silent) && !out[one.Replica] {
					said, _ = answers(ctx, e.cfg.Dial, at, answerMax)
				}
				if said == unknown || ctx.Err() != nil {
					return nil
				}
				mu.Lock()
				defer mu.Unlock()
				if said == silent {
					silentNodes[one.Node] = true
				}
				if bad := said != accepts; bad != out[one.Replica] {
					found = append(found, verdict{one.Replica, bad})
				}
				return nil
			})
		}
		_ = g.Wait()
	}
	var others []wire.Endpoint
	for _, one := range all.Put {
		if _, ok := asked(one); ok && one.NodeIP != self {
			others = append(others, one)
		}
	}
	picked := e.pick(others, out)
	ask(picked)
	if len(silentNodes) == 0 {
		return found
	}
	// A node that is silent is so with all that runs there.
	done := map[api.ReplicaKey]bool{}
	for _, one := range picked {
		done[one.Replica] = true
	}
	var same []wire.Endpoint
	for _, one := range others {
		if silentNodes[one.Node] && !done[one.Replica] && len(same) < looksMax {
			same = append(same, one)
		}
	}
	ask(same)
	return found
}

// pick gives those that are to be asked in this round: those that are out, that they
// come back soon, and the next of the others.
func (e *ejector) pick(others []wire.Endpoint, out map[api.ReplicaKey]bool) []wire.Endpoint {
	var picked []wire.Endpoint
	for _, one := range others {
		if out[one.Replica] && len(picked) < looksMax/2 {
			picked = append(picked, one)
		}
	}
	for i := 0; i < len(others) && len(picked) < looksMax; i++ {
		one := others[e.from%len(others)]
		e.from++
		if !out[one.Replica] {
			picked = append(picked, one)
		}
	}
	return picked
}

// asked is where an endpoint is asked: at its first port of TCP. One that has none
// cannot be.
func asked(e wire.Endpoint) (netip.AddrPort, bool) {
	ip, err := netip.ParseAddr(e.IP)
	if err != nil {
		return netip.AddrPort{}, false
	}
	for _, p := range e.Ports {
		if p.Protocol != api.UDP {
			return netip.AddrPortFrom(ip, uint16(p.Port)), true
		}
	}
	return netip.AddrPort{}, false
}
