package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/e2e/load"
	"github.com/orchctl/orch/e2e/rig"
	"github.com/orchctl/orch/internal/bench/report"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

const (
	reachRuns = 20
	// others are services that exist beside the one that changes.
	others = 1000
	// otherBatch of them are applied at once.
	otherBatch = 100

	lostRequests = 20_000
	lostRate     = 1000
	lostRounds   = 10
	lossRuns     = 10
	lossReplicas = 6
	lossPublish  = 18080
)

// netReachable takes the time from the moment at which a replica says that it is
// ready until its service's virtual IP leads to it on every node, alone and beside
// a thousand services.
func netReachable(ctx context.Context, b *bench) error {
	s := web("reach", 0, "", 0)
	return b.with(ctx, s, func() error {
		if err := b.reachable(ctx, "net.reachable", report.AtMost(0.1, "")); err != nil {
			return err
		}
		return b.beside(ctx, func() error {
			return b.reachable(ctx, "net.reachable.beside_1000", report.Aim{Beside: fmt.Sprintf("beside %d services", others)})
		})
	})
}

func (b *bench) reachable(ctx context.Context, figure string, aim report.Aim) error {
	at, err := report.Load()
	if err != nil {
		return err
	}
	var took []float64
	for i := range b.runs(reachRuns, 2) {
		d, err := b.reachOnce(ctx)
		if err != nil {
			return fmt.Errorf("run %d: %w", i+1, err)
		}
		b.note("%s %d: %s", figure, i+1, d.Round(100*time.Microsecond))
		took = append(took, d.Seconds())
	}
	return b.add(figure, "s", took, at, aim)
}

// reachOnce scales the service from none to one and back.
func (b *bench) reachOnce(ctx context.Context) (time.Duration, error) {
	s, err := b.Service(ctx, "reach")
	if err != nil {
		return 0, err
	}
	target := s.Status.VIP + ":8080"
	var polls []*rig.Load
	for _, n := range b.nodes {
		l, err := b.StartOn(ctx, n, load.Job{Kind: load.Reach, Targets: []string{target}, Timeout: time.Second, For: settleMax})
		if err != nil {
			return 0, err
		}
		polls = append(polls, l)
	}
	if err := b.Must(ctx, "scale", "service/reach", "--replicas", "1"); err != nil {
		return 0, err
	}
	var last, looking time.Time // looking: since when all nodes looked
	for i, l := range polls {
		r, err := l.Wait()
		if err != nil {
			return 0, err
		}
		if r.Failed > 0 {
			return 0, fmt.Errorf("it was never reachable from %s: %s", b.nodes[i], r)
		}
		if r.Began.After(looking) {
			looking = r.Began
		}
		if r.Ended.After(last) {
			last = r.Ended
		}
	}
	if err := b.WaitReady(ctx, "reach", 1, settleMax); err != nil {
		return 0, err
	}
	replicas, err := b.Replicas(ctx, "reach")
	if err != nil {
		return 0, err
	}
	i := slices.IndexFunc(replicas, func(r api.Replica) bool { return r.Status.Ready }) // the one before may still be ending
	if i < 0 {
		return 0, errors.New("no replica is ready any more")
	}
	body, err := b.Fetch(ctx, "http://"+replicas[i].Status.IP+":8080/whoami")
	if err != nil {
		return 0, err
	}
	var who load.Whoami
	if err := json.Unmarshal([]byte(body), &who); err != nil {
		return 0, err
	}
	if who.Well.IsZero() || last.Before(who.Well) || looking.After(who.Well) {
		return 0, fmt.Errorf("ready at %s, but all nodes looked from %s, and reached it at %s", who.Well, looking, last)
	}
	if err := b.Must(ctx, "scale", "service/reach", "--replicas", "0"); err != nil {
		return 0, err
	}
	if err := b.WaitReady(ctx, "reach", 0, settleMax); err != nil {
		return 0, err
	}
	for _, n := range b.nodes {
		err := rig.Until(ctx, settleMax, "the virtual IP to refuse on "+n, func() error {
			r, err := b.RunOn(ctx, n, load.Job{Kind: load.TCP, Targets: []string{target}, Count: 1})
			if err == nil && r.Failed == 0 {
				err = errors.New("it answers")
			}
			return err
		})
		if err != nil {
			return 0, err
		}
	}
	return last.Sub(who.Well), nil
}

// beside does something while many other services exist. They run nothing: what
// they cost is their place in the leader's sets, in the kernel's rules and in DNS.
func (b *bench) beside(ctx context.Context, act func() error) (err error) {
	refs := make([]*orchv1.Ref, others)
	defer func() {
		for from := 0; from < others; from += otherBatch {
			_, gone := b.Orch.Delete(context.WithoutCancel(ctx), &orchv1.DeleteRequest{IgnoreMissing: true, Refs: refs[from : from+otherBatch]})
			err = errors.Join(err, gone)
		}
	}()
	for i := range refs {
		refs[i] = &orchv1.Ref{Kind: api.KindService, Namespace: api.DefaultNamespace, Name: fmt.Sprintf("other-%d", i)}
	}
	for from := 0; from < others; from += otherBatch {
		var objects []*orchv1.Object
		for i := range otherBatch {
			text, err := json.Marshal(web(refs[from+i].Name, 0, "", 0))
			if err != nil {
				return err
			}
			objects = append(objects, &orchv1.Object{Kind: api.KindService, Json: text})
		}
		if _, err := b.Orch.Apply(ctx, &orchv1.ApplyRequest{Objects: objects}); err != nil {
			return err
		}
	}
	return act()
}

// netLost counts the requests that fail while a service is updated, drained and
// scaled down.
func netLost(ctx context.Context, b *bench) error {
	at, err := report.Load()
	if err != nil {
		return err
	}
	rounds, atLeast := b.runs(lostRounds, 2), lostRequests
	if b.quick {
		atLeast = 0
	}
	return b.with(ctx, web("client", 1, clientNode, 0), func() error {
		s := web("web", lossReplicas, "", lossPublish)
		text, err := json.Marshal(s)
		if err != nil {
			return err
		}
		if err := b.apply(ctx, s); err != nil {
			return err
		}
		defer func() { _ = b.remove(context.WithoutCancel(ctx), "web") }()
		if err := b.WaitReady(ctx, "web", lossReplicas, settleMax); err != nil {
			return err
		}
		client, err := b.Replicas(ctx, "client")
		if err != nil {
			return err
		}
		under := rig.Under{Service: "web", Client: client[0], Port: 8080, Publish: lossPublish, Rate: lostRate, AtLeast: atLeast}
		ways, err := under.Run(ctx, b.Fleet, func(ctx context.Context) error { return b.Churn(ctx, rounds, "web", string(text), clientNode) })
		for way, r := range ways {
			b.note("lost, %s: %s", way, r)
		}
		if err != nil {
			return err
		}
		failed, requests := ways.Failed()
		if !b.quick && requests < lostRequests {
			return fmt.Errorf("%d requests were made, want %d", requests, lostRequests)
		}
		return errors.Join(
			b.add("net.lost", "1", []float64{float64(failed)}, at, report.AtMost(0, fmt.Sprintf("in %d rolling updates, %d drains, %d scales from 6 to 2", rounds, rounds, rounds))),
			b.add("net.lost.of", "1", []float64{float64(requests)}, at, report.Aim{Beside: "virtual IP and published port, kept and fresh connections"}))
	})
}

// netNodeLoss cuts a node's power under load, again and again.
func netNodeLoss(ctx context.Context, b *bench) error {
	at, err := report.Load()
	if err != nil {
		return err
	}
	var fresh, kept, failed, hung []float64
	err = b.with(ctx, web("client", 1, clientNode, 0), func() error {
		return b.with(ctx, web("web", lossReplicas, "", lossPublish), func() error {
			client, err := b.Replicas(ctx, "client")
			if err != nil {
				return err
			}
			for i := range b.runs(lossRuns, 1) {
				l, err := b.LosePower(ctx, "web", lossReplicas, lossPublish, lostRate, client[0])
				if err != nil {
					return fmt.Errorf("run %d: %w", i+1, err)
				}
				n, requests := l.Ways.Failed()
				b.note("loss %d of %s: %d of %d failed, fresh for %s, kept for %s; %d of %d held connections ended", i+1, l.Victim, n, requests, l.Dull(true), l.Dull(false), l.Held.Failed, l.Doomed)
				for way, r := range l.Ways {
					b.note("  %s: %s", way, r)
				}
				if l.Held.Failed != l.Doomed {
					return fmt.Errorf("%d held connections ended, %d led to %s", l.Held.Failed, l.Doomed, l.Victim)
				}
				fresh, kept, failed = append(fresh, l.Dull(true).Seconds()), append(kept, l.Dull(false).Seconds()), append(failed, float64(n))
				if l.Doomed > 0 {
					hung = append(hung, l.Held.LastFailure().Sub(l.Cut).Seconds())
				}
				if err := b.RouteReplicas(ctx); err != nil {
					return err
				}
			}
			return nil
		})
	})
	if err != nil {
		return err
	}
	return errors.Join(
		b.add("net.nodeloss.errors_s", "s", fresh, at, report.AtMost(1, "until no fresh connection fails")),
		b.add("net.nodeloss.errors_s.kept", "s", kept, at, report.Aim{Beside: "until no kept connection fails"}),
		b.add("net.nodeloss.failed", "1", failed, at, report.Aim{Beside: fmt.Sprintf("of %d requests a second; one of 4 nodes, 6 replicas", lostRate)}),
		b.add("net.nodeloss.held_s", "s", hung, at, report.Aim{Beside: "until a client that waits is told that its connection is over"}))
}
