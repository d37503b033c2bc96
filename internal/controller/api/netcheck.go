package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/controller/session"
	"github.com/orchctl/orch/internal/controller/view"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

const (
	// netTargetsMax is how many others each node tries where there are more: the
	// ring that they make has every node tried ten times, and the whole costs as
	// much as there are nodes, not as there are pairs.
	netTargetsMax = 10
	// netChecksAtOnce is how many nodes try at once: each has a stream of its own, and
	// 10,000 of them are through in a minute or two.
	netChecksAtOnce = 128
	// netCheckTimeout is how long one node may take: it tries its targets side by
	// side, and each attempt waits for a second or two at most.
	netCheckTimeout = 30 * time.Second
	// netResultsMax bounds what one node may tell.
	netResultsMax = 256
	// checkAgent names the result that says that a node could not be asked.
	checkAgent = "agent"
)

// netRound is one node's share of a check.
type netRound struct {
	node    string
	targets []string
}

// NetCheck implements orch.v1.Orch: nodes with a session try the network towards
// each other; that one cannot be asked is a result, too.
func (s *Server) NetCheck(r *orchv1.NetCheckRequest, st orchv1.Orch_NetCheckServer) error {
	snap, err := s.snapshot()
	if err != nil {
		return err
	}
	rounds, err := netRounds(snap, r.GetNodes())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(st.Context())
	defer cancel()
	results := make(chan *orchv1.NetCheckResult)
	go func() {
		defer close(results)
		s.netRun(ctx, rounds, results)
	}()
	for x := range results {
		if err == nil {
			if err = st.Send(x); err != nil {
				cancel() // and read on, until all rounds have ended
			}
		}
	}
	return cmp.Or(err, statusOf(st.Context().Err()))
}

// netRun has the rounds made, some at once, and returns when the last has ended.
func (s *Server) netRun(ctx context.Context, rounds []netRound, results chan<- *orchv1.NetCheckResult) {
	free := make(chan struct{}, netChecksAtOnce)
	for _, x := range rounds {
		free <- struct{}{}
		go func() {
			defer func() { <-free }()
			if err := s.netRound(ctx, x, results); err != nil && ctx.Err() == nil {
				results <- &orchv1.NetCheckResult{Node: x.node, Check: checkAgent, Detail: err.Error()}
			}
		}()
	}
	for range netChecksAtOnce {
		free <- struct{}{}
	}
}

// netRound has one node try its targets.
func (s *Server) netRound(ctx context.Context, x netRound, results chan<- *orchv1.NetCheckResult) error {
	limited, cancel := context.WithTimeout(ctx, netCheckTimeout)
	defer cancel() // ends the relay
	r, err := s.open(limited, x.node, &orchv1.OpenRelay{Request: &orchv1.OpenRelay_NetCheck{NetCheck: &orchv1.NetCheckOpen{Targets: x.targets}}})
	switch {
	case errors.Is(err, session.ErrAway):
		return fmt.Errorf("not reachable: %s", awayWhy(s.cfg.View.Snapshot(), x.node, err))
	case err != nil:
		return err
	}
	defer r.Close()
	for n := 0; ; n++ {
		f, err := r.Recv()
		switch {
		case limited.Err() != nil && ctx.Err() == nil:
			return fmt.Errorf("its checks did not end within %s: its agent may be stuck, its log tells more", netCheckTimeout)
		case errors.Is(err, io.EOF), err != nil:
			return errors.New("not reachable any more: its session ended in the middle of the check")
		case n >= netResultsMax:
			return fmt.Errorf("its agent tells more than %d results", netResultsMax)
		case f.GetEnd() != nil && f.GetEnd().GetError() != "":
			return errors.New(f.GetEnd().GetError())
		case f.GetEnd() != nil:
			return nil
		case f.GetNetCheck() != nil:
			y := f.GetNetCheck()
			y.Node = x.node // an agent speaks for itself alone
			results <- y
		}
	}
}

// awayWhy says what is held of a node that has no session.
func awayWhy(snap *view.Snapshot, node string, err error) string {
	if snap != nil {
		if x, ok := snap.Get(core.ViewKey{Kind: api.KindNode, Name: node}); ok {
			if n := x.(*api.Node); n.Status.Verdict != api.VerdictHealthy && n.Status.VerdictWhy != "" {
				return fmt.Sprintf("it is %s: %s", n.Status.Verdict, n.Status.VerdictWhy)
			}
		}
	}
	return err.Error()
}

// netRounds says which node tries which others. Who cannot be asked is no target:
// that it is away is told once, not by each of the others.
func netRounds(snap *view.Snapshot, named []string) ([]netRound, error) {
	var all, live []string
	snap.All(api.KindNode, "", func(e core.Entry) bool {
		n := e.Object.(*api.Node)
		all = append(all, n.Metadata.Name)
		if v := n.Status.Verdict; v == api.VerdictHealthy || v == api.VerdictBack {
			live = append(live, n.Metadata.Name)
		}
		return true
	})
	if len(all) == 0 {
		return nil, status.Error(codes.FailedPrecondition, "there are no nodes yet")
	}
	for _, name := range named {
		if !slices.Contains(all, name) {
			return nil, notFound("node %.80s: not found", name)
		}
	}
	if len(named) == 1 { // it and its neighbours, both ways
		name := named[0]
		at := slices.Index(live, name)
		if at < 0 {
			return []netRound{{node: name}}, nil
		}
		next := ring(live, at)
		rounds := []netRound{{name, next}}
		for _, x := range next {
			rounds = append(rounds, netRound{x, []string{name}})
		}
		return rounds, nil
	}
	if len(named) > 0 {
		among := func(list []string) []string {
			return slices.DeleteFunc(list, func(x string) bool { return !slices.Contains(named, x) })
		}
		all, live = among(all), among(live)
	}
	var rounds []netRound
	i := 0 // of live, which has the order of all
	for _, x := range all {
		round := netRound{node: x}
		if i < len(live) && live[i] == x {
			round.targets = ring(live, i)
			i++
		}
		rounds = append(rounds, round)
	}
	return rounds, nil
}

// ring gives up to netTargetsMax of a list that follow the one at i.
func ring(list []string, i int) []string {
	var out []string
	for k := 1; k <= min(len(list)-1, netTargetsMax); k++ {
		out = append(out, list[(i+k)%len(list)])
	}
	return out
}
