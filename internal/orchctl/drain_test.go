package orchctl

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// drainWorld has n1 with three replicas; its NodeWord begins and ends drains.
func drainWorld() *fake {
	f := newFake(replica("web", 0, 17, "n1", running(true)), replica("web", 1, 18, "n2", running(true)), replica("api", 0, 19, "n1", running(true)),
		replica("ledger", 0, 20, "n1", running(true), func(r *api.Replica) { r.Metadata.Namespace = "shop" }), draining1(nil), node("n2", api.VerdictHealthy))
	f.onNode = func(q *orchv1.NodeWordRequest) error {
		switch {
		case q.Node != "n1":
			return status.Errorf(codes.NotFound, "node %s: not found", q.Node)
		case q.Word == "cordon":
		case q.Word == "drain":
			f.put(draining1(&api.Drain{By: "user alice", Since: epoch}, left(3)))
		default:
			f.put(draining1(nil))
		}
		return nil
	}
	return f
}

// draining1 is n1 with its drain, or none.
func draining1(d *api.Drain, change ...func(*api.Node)) *api.Node {
	return node("n1", api.VerdictHealthy, append(change, func(n *api.Node) { n.Spec.Drain, n.Spec.Unschedulable = d, d != nil })...)
}

// left is how many replicas it has still.
func left(n int) func(*api.Node) { return func(x *api.Node) { x.Status.Replicas = n } }

// start runs a command line beside the test; the first result waits until it does
// nothing more by itself, the second until it has ended.
func (r *rig) start(ctx context.Context, line string) (settle func(), end func() result) {
	var got result
	done := make(chan struct{})
	go func() {
		defer close(done)
		got = r.runCtx(ctx, strings.Fields(line)...)
	}()
	settle = func() { time.Sleep(time.Second); synctest.Wait() }
	settle()
	return settle, func() result { <-done; return got }
}

// TestDrain: what is told from the word until the node is empty.
func TestDrain(t *testing.T) {
	f := drainWorld()
	in(t, f, func(t *testing.T, r *rig) {
		var said []string
		on := r.onNode
		r.onNode = func(q *orchv1.NodeWordRequest) error { said = append(said, q.Word+" "+q.Node); return on(q) }
		settle, end := r.start(t.Context(), "drain n1 n9")
		if got := strings.Join(said, ", "); got != "cordon n1, cordon n9, drain n1, drain n9" {
			t.Errorf("said %s", got)
		}
		f.put(replica("web", 1, 40, "n1", running(true)), draining1(&api.Drain{By: "user alice", Since: epoch}, left(4))) // its slot is filled elsewhere, and was before
		settle()
		f.drop(replica("web", 1, 40, "n1", running(true)))
		drain := &api.Drain{By: "user alice", Since: epoch}
		f.put(replica("web", 0, 30, "n2"))
		settle()
		f.put(replica("web", 0, 30, "n2", running(true)), draining1(drain, left(3), func(n *api.Node) {
			n.Status.DrainWaits = []string{"api-0 waits: 2 nodes: 1 unschedulable, 1 lacks 64Mi memory"}
		}))
		settle()
		f.drop(replica("web", 0, 17, "n1", running(true)))
		settle()
		settle()
		settle()                                                                                       // nothing has moved for long enough
		f.put(replica("api", 0, 19, "n1", func(r *api.Replica) { r.Status.Phase = api.PhaseStopped })) // it was scaled down
		f.drop(replica("ledger", 0, 20, "n1", running(true), func(r *api.Replica) { r.Metadata.Namespace = "shop" }))
		f.put(replica("ledger", 0, 31, "n2", func(r *api.Replica) { r.Metadata.Namespace = "shop" }))
		settle()
		drain.Done = time.Now()
		f.put(draining1(drain, left(0)))
		golden(t, "drain", end().String())
	})
}

// TestDrainDeadline: what had nothing in its place is a failure.
func TestDrainDeadline(t *testing.T) {
	f := drainWorld()
	in(t, f, func(t *testing.T, r *rig) {
		var asked time.Duration
		on := r.onNode
		r.onNode = func(q *orchv1.NodeWordRequest) error { asked = q.Deadline.AsDuration(); return on(q) }
		settle, end := r.start(t.Context(), "drain n1 --deadline 10m")
		f.put(replica("web", 0, 30, "n2", running(true)))
		f.drop(replica("web", 0, 17, "n1", running(true)))
		settle()
		f.put(draining1(&api.Drain{Since: epoch, Overdue: true}, left(2)))
		settle()
		f.drop(replica("api", 0, 19, "n1", running(true)))
		f.drop(replica("ledger", 0, 20, "n1", running(true), func(r *api.Replica) { r.Metadata.Namespace = "shop" }))
		f.put(draining1(&api.Drain{Since: epoch, Overdue: true, Done: time.Now()}, left(0)))
		golden(t, "drain-deadline", end().String())
		if asked != 10*time.Minute {
			t.Errorf("deadline %s", asked)
		}
	})
}

// TestDrainAfterRollout: what a rollout has replaced on the node itself has not been
// lost.
// Whoever set a deadline does not wait for an agent that may never be back.
func TestDrainDeadlineOfALostAgent(t *testing.T) {
	f := drainWorld()
	in(t, f, func(t *testing.T, r *rig) {
		settle, end := r.start(t.Context(), "drain n1 --deadline 3s")
		f.put(draining1(&api.Drain{By: "user alice", Since: epoch, Overdue: true}, left(3), func(n *api.Node) { n.Status.Verdict = api.VerdictAgentLost }))
		settle()
		got := end()
		if want := "node/n1 is AgentLost at its deadline: 3 replicas there, stopped when its agent is back, or gone when it is dead"; got.code != 1 || !strings.Contains(got.err, want) {
			t.Errorf("code %d, %q; want 1 and %q", got.code, got.err, want)
		}
	})
}

func TestDrainAfterRollout(t *testing.T) {
	f := drainWorld()
	in(t, f, func(t *testing.T, r *rig) {
		f.put(replica("web", 0, 30, "n1", running(true)))
		settle, end := r.start(t.Context(), "drain n1")
		f.drop(replica("web", 0, 17, "n1", running(true)))
		settle()
		f.drop(draining1(nil))
		if got := end(); !strings.Contains(got.out, "node/n1: web-0@17 was stopped: a newer one has taken its place here, 3 left\n") {
			t.Error(got)
		}
	})
}

// TestDrainEndsOtherwise: by an interrupt, by somebody else, by the node's removal;
// none of them is success, and each says what is.
func TestDrainEndsOtherwise(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(*fake, func())
		want string
	}{
		"interrupt": {func(_ *fake, cancel func()) { cancel() }, "orchctl: interrupted\nthe drain goes on:\n  node/n1 has 3 replicas left\n`orchctl drain n1` watches it, `orchctl drain n1 --abort` ends it\n"},
		"uncordon":  {func(f *fake, _ func()) { f.put(draining1(nil)) }, "orchctl: the drain of node/n1 was ended by somebody: it is uncordoned\n"},
		"removal":   {func(f *fake, _ func()) { f.drop(draining1(nil)) }, "orchctl: node/n1 was removed meanwhile\n"},
	} {
		t.Run(name, func(t *testing.T) {
			f := drainWorld()
			in(t, f, func(t *testing.T, r *rig) {
				ctx, cancel := contextOf(t)
				_, end := r.start(ctx, "drain n1")
				c.do(f, cancel)
				if got := end(); got.code != 1 || got.err != c.want || got.out != "node/n1 is being drained: 3 replicas to move\n" {
					t.Error(got)
				}
			})
		})
	}
	in(t, drainWorld(), func(t *testing.T, r *rig) {
		if got := r.run("drain", "n1", "--wait=false"); got.code != 0 || got.out != "node/n1 is being drained; `orchctl drain n1` watches it\n" {
			t.Error(got)
		}
		if got := r.run("drain", "n9"); got.code != 1 || got.out != "" || got.err != "orchctl: drain node/n9: node n9: not found\n" {
			t.Error(got)
		}
	})
	// A node that is empty, or was drained before, needs no waiting.
	f := newFake(draining1(nil, left(0)))
	f.onNode = func(*orchv1.NodeWordRequest) error {
		f.put(draining1(&api.Drain{Since: epoch, Done: epoch}, left(0)))
		return nil
	}
	in(t, f, func(t *testing.T, r *rig) {
		if got := r.run("drain", "n1"); got.code != 0 || got.out != "node/n1 is being drained: 0 replicas to move\nnode/n1 drained in 1ms\n" {
			t.Error(got)
		}
	})
}

func TestRebalance(t *testing.T) {
	f := drainWorld()
	in(t, f, func(t *testing.T, r *rig) {
		var asked []*orchv1.RebalanceRequest
		answer := &orchv1.RebalanceResponse{Before: 0.052, After: 0.052}
		r.onRebalance = func(q *orchv1.RebalanceRequest) *orchv1.RebalanceResponse { asked = append(asked, q); return answer }
		var b strings.Builder
		say := func(line string, got result) { b.WriteString("$ orchctl " + line + "\n" + got.String() + "\n") }
		say("rebalance", r.run("rebalance"))
		answer = &orchv1.RebalanceResponse{Before: 0.424, After: 0.1, Moves: []*orchv1.Move{
			{Namespace: "default", Replica: "web-0", From: "n1", To: "n2", Why: "n2 has more room"}, {Namespace: "default", Replica: "api-0", From: "n1", To: "n3", Why: "n3 is empty"}}}
		say("rebalance --dry-run", r.run("rebalance", "--dry-run"))
		if len(asked) != 2 || asked[0].DryRun || !asked[1].DryRun {
			t.Errorf("asked %v", asked)
		}
		settle, end := r.start(t.Context(), "rebalance --wait")
		f.put(replica("web", 0, 30, "n2"), replica("api", 0, 31, "n3"))
		settle()
		f.put(replica("web", 0, 30, "n2", running(true)))
		f.drop(replica("web", 0, 17, "n1", running(true)))
		settle()
		f.drop(replica("api", 0, 31, "n3")) // its image does not come
		say("rebalance --wait", end())

		answer.Moves = append(answer.Moves[1:], &orchv1.Move{Namespace: "shop", Replica: "ledger-0", From: "n1", To: "n2"}, &orchv1.Move{Namespace: "shop", Replica: "ledger-1", From: "n1", To: "n2"})
		settle, end = r.start(t.Context(), "rebalance --wait")
		f.put(replica("api", 0, 32, "n3", running(true)))
		f.drop(replica("api", 0, 19, "n1", running(true)))
		settle()
		f.put(replica("ledger", 0, 33, "n2", running(true), func(r *api.Replica) { r.Metadata.Namespace = "shop" }))
		f.drop(replica("ledger", 0, 20, "n1", running(true), func(r *api.Replica) { r.Metadata.Namespace = "shop" }))
		say("rebalance --wait", end())
		f.put(replica("api", 0, 25, "n1", running(true)))
		f.put(&api.Fleet{Metadata: api.Metadata{Name: api.FleetName}, Status: api.FleetStatus{Reliefs: 1}})
		say("rebalance --wait --timeout 20s", r.run("rebalance", "--wait", "--timeout", "20s"))
		f.drop(replica("api", 0, 32, "n3", running(true)))
		f.put(&api.Fleet{Metadata: api.Metadata{Name: api.FleetName}})
		say("rebalance --wait", r.run("rebalance", "--wait"))
		golden(t, "rebalance", b.String())

		r.fail["Rebalance"] = []error{unavailable("no leader")}
		if got := r.run("rebalance"); got.code != 1 || len(asked) != 6 {
			t.Errorf("a second try would plan anew: %s", got)
		}
	})
}
