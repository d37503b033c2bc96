package orchctl

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// stallAfter is how long nothing must have moved until it is told what waits for
// what: most waits are for a turn, and pass.
const stallAfter = 3 * time.Second

type draining struct {
	deadline    time.Duration
	abort, wait bool
}

func (t *tool) drainCmd() *cobra.Command {
	var d draining
	cmd := &cobra.Command{
		Use:   "drain NODE...",
		Short: "Empty nodes: start what runs there elsewhere, then stop it there",
		Long: `Empty nodes before they are updated, moved or switched off. Each replica is
started elsewhere first, gets its traffic when it is ready, and only then stops on
the node that is drained; no service goes below its floor (replicas less
maxUnavailable). Replicas of exclusive services are stopped first. What finds no
room stays, and orchctl says why.

A drained node gets nothing new until it is uncordoned.

After --deadline what is left is stopped although nothing has taken its place, but
no service goes below its floor for that either. Without it the drain waits for as
long as it takes. An interrupt ends the waiting
alone: the drain goes on, and the same command watches it again. --abort ends the
drain: what has moved stays where it is.

What has ended by its restart policy is left as it is: nothing of it runs.

Exit codes: 0 the nodes are empty; 1 not, or at their deadline replicas were stopped
with nothing in their place.`,
		Example: `  orchctl drain n1
  orchctl drain n1 n2 --deadline 10m
  orchctl drain n1 --abort             # what is left stays
  orchctl uncordon n1                  # after the work is done`,
		Args:              usageArgs(cobra.MinimumNArgs(1)),
		ValidArgsFunction: beginning(t.completeNames(api.KindNode)),
		RunE: func(cmd *cobra.Command, args []string) error {
			names, err := nodeNames(args)
			if err != nil {
				return err
			}
			switch {
			case d.abort && d.deadline != 0:
				return usagef("--abort ends the drain: leave out --deadline")
			case d.deadline < 0 || cmd.Flags().Changed("deadline") && d.deadline == 0:
				return usagef("--deadline %s: want a time from now, such as 10m", d.deadline)
			case d.abort:
				return t.abortDrains(cmd.Context(), names)
			}
			return t.drain(cmd.Context(), d, names)
		},
	}
	f := cmd.Flags()
	f.DurationVar(&d.deadline, "deadline", 0, "stop what is left after this time (default: never)")
	f.BoolVar(&d.abort, "abort", false, "end the drain")
	f.BoolVar(&d.wait, "wait", true, "wait until nothing runs there")
	return cmd
}

// abortDrains ends drains. A node that is not drained stays as it is: its cordon,
// if it has one, is somebody's wish.
func (t *tool) abortDrains(ctx context.Context, names []string) error {
	client, err := t.connect(ctx, "end drains", true)
	if err != nil {
		return err
	}
	return each(ctx, t, names, func(name string) error {
		found, missing, err := t.fetch(ctx, client, listing{}, []target{{kind: api.KindNode, name: name}})
		if err = errors.Join(err, missing); err != nil {
			return err
		}
		if n, ok := found[0].value.(*api.Node); ok && n.Spec.Drain == nil {
			return fmt.Errorf("node/%s is not being drained", name)
		}
		_, err = change(ctx, t, "uncordon node/"+name, operator, func(ctx context.Context) (*orchv1.NodeWordResponse, error) {
			return client.NodeWord(ctx, &orchv1.NodeWordRequest{Node: name, Word: "uncordon"})
		})
		return err
	}, func(name string) error {
		return t.printf("node/%s drain ended: it gets new replicas again, and keeps what is left\n", name)
	})
}

func (t *tool) drain(ctx context.Context, d draining, names []string) error {
	client, err := t.connect(ctx, "drain nodes", true)
	if err != nil {
		return err
	}
	if len(names) > 1 { // so that nothing moves from one of them to another
		if err := t.cordonAll(ctx, client, names); err != nil {
			return err
		}
	}
	word := func(name string) error {
		request := &orchv1.NodeWordRequest{Node: name, Word: "drain"}
		if d.deadline > 0 {
			request.Deadline = durationpb.New(d.deadline)
		}
		_, err := change(ctx, t, "drain node/"+name, operator, func(ctx context.Context) (*orchv1.NodeWordResponse, error) {
			return client.NodeWord(ctx, request)
		})
		return err
	}
	if !d.wait {
		return each(ctx, t, names, word, func(name string) error {
			return t.printf("node/%s is being drained; `orchctl drain %s` watches it\n", name, name)
		})
	}
	watching, stop := context.WithCancel(ctx)
	feed := t.feed(watching, client, []*orchv1.ListRequest{{Kind: api.KindNode}, {Kind: api.KindReplica}})
	defer feed.wait()
	defer stop()
	w := &drainWait{t: t, began: t.Now(), last: t.Now(), leaving: newLeaving(t)}
	if err := w.look(ctx, feed); err != nil {
		return err
	}
	failed := each(ctx, t, names, word, w.begin)
	if len(w.nodes) == 0 || ctx.Err() != nil {
		return failed
	}
	return errors.Join(w.run(ctx, feed), failed)
}

// cordonAll keeps new replicas away from nodes that are drained together. What is
// wrong with a name is told by its drain.
func (t *tool) cordonAll(ctx context.Context, client orchv1.OrchClient, names []string) error {
	for _, name := range names {
		_, err := change(ctx, t, "drain node/"+name, operator, func(ctx context.Context) (*orchv1.NodeWordResponse, error) {
			return client.NodeWord(ctx, &orchv1.NodeWordRequest{Node: name, Word: "cordon"})
		})
		if err != nil && !notFound(err) {
			return err
		}
	}
	return nil
}

// each does something to every name; one that fails does not keep the others from
// it. It gives the last failure, and has told those before it.
func each(ctx context.Context, t *tool, names []string, do, then func(name string) error) error {
	var failed error
	for _, name := range names {
		err := do(name)
		switch {
		case err != nil && ctx.Err() != nil:
			return err
		case err != nil:
			failed = t.alsoMissing(failed, err)
		default:
			if err := then(name); err != nil {
				return errors.Join(failed, err)
			}
		}
	}
	return failed
}

// drainWait follows nodes from the word until they are empty.
type drainWait struct {
	t       *tool
	began   time.Time
	last    time.Time // something moved
	leaving *leaving
	nodes   []*drainNode
	known   map[string]*api.Node
}

// drainNode is one of them.
type drainNode struct {
	name    string
	seen    bool // the drain, in the node's record
	over    bool
	overdue bool            // was told
	told    map[string]bool // of what keeps replicas there
	badly   []string        // stopped with nothing in their place
	unheard string          // how much its agent has yet to stop, beyond the deadline
}

// look takes in what is there before the word.
func (w *drainWait) look(ctx context.Context, f *feed) error {
	w.known = map[string]*api.Node{}
	return f.all(ctx, nil, func(s sighting) { w.see(s) })
}

// see takes in one sighting, and gives a replica that is gone.
func (w *drainWait) see(s sighting) (went *api.Replica) {
	if n, ok := s.o.value.(*api.Node); ok {
		if s.news == gone {
			delete(w.known, n.Metadata.Name)
		} else {
			w.known[n.Metadata.Name] = n
		}
		return nil
	}
	before := w.leaving.see(s)
	if before == nil || before.Status.Phase.Ended() {
		return nil
	}
	if r := s.o.value.(*api.Replica); s.news == gone || r.Status.Phase.Ended() {
		return before
	}
	return nil
}

// begin takes up a node that is being drained now.
func (w *drainWait) begin(name string) error {
	w.nodes = append(w.nodes, &drainNode{name: name, told: map[string]bool{}})
	if err := w.t.printf("node/%s is being drained: %s to move\n", name, count(len(w.leaving.on(name)), "replica")); err != nil {
		return err
	}
	if n := w.known[name]; n != nil && !heardOf(n) {
		return w.t.printf("node/%s is %s: what it ran gets spares without a drain, which waits until it is back or dead\n", name, n.Status.Verdict)
	}
	return nil
}

// run shows progress until every node is empty.
func (w *drainWait) run(ctx context.Context, f *feed) error {
	tick := time.NewTicker(showEvery)
	defer tick.Stop()
	for {
		left, err := w.step()
		if err != nil || left == 0 {
			return errors.Join(err, w.conclusion())
		}
		select {
		case s := <-f.ch:
			if s.err != nil {
				return fmt.Errorf("the progress cannot be followed any more: %w\n%s", s.err, w.goesOn())
			}
			if s.news == synced {
				break
			}
			if went := w.see(s); went != nil {
				if err := w.went(went); err != nil {
					return err
				}
			}
		case <-tick.C:
		case <-ctx.Done():
			return errors.New("interrupted\n" + w.goesOn())
		}
	}
}

// step tells what is new of each node, and counts those that are not empty yet.
func (w *drainWait) step() (left int, err error) {
	for _, x := range w.nodes {
		if x.over {
			continue
		}
		n := w.known[x.name]
		switch {
		case n == nil:
			return 0, fmt.Errorf("node/%s was removed meanwhile", x.name)
		case x.seen && n.Spec.Drain == nil:
			return 0, fmt.Errorf("the drain of node/%s was ended by somebody: it is uncordoned", x.name)
		}
		x.seen = x.seen || n.Spec.Drain != nil
		if err := w.progress(x, n); err != nil {
			return 0, err
		}
		// Nodes and replicas are two watches: one may be behind the other.
		if d := n.Spec.Drain; d != nil && !d.Done.IsZero() && len(w.leaving.on(x.name)) == 0 {
			x.over = true
			if err := w.t.printf("node/%s drained in %s\n", x.name, short(max(w.t.Now().Sub(w.began), time.Millisecond))); err != nil {
				return 0, err
			}
			continue
		}
		if d := n.Spec.Drain; d != nil && d.Overdue && !heardOf(n) {
			// Nobody can say when it is: whoever set a deadline is not to wait for that.
			x.over = true
			x.unheard = fmt.Sprintf("is %s at its deadline: %s there, stopped when its agent is back, or gone when it is dead", n.Status.Verdict, count(len(w.leaving.on(x.name)), "replica"))
			continue
		}
		left++
	}
	return left, nil
}

// heardOf tells whether a node's agent can be told anything.
func heardOf(n *api.Node) bool {
	return n.Status.Verdict == api.VerdictHealthy || n.Status.Verdict == api.VerdictBack
}

// progress tells where replicas start anew, and what keeps others.
func (w *drainWait) progress(x *drainNode, n *api.Node) error {
	for _, r := range w.leaving.on(x.name) {
		if text := w.leaving.starts(r); text != "" {
			w.last = w.t.Now()
			if err := w.t.printf("node/%s: %s\n", x.name, text); err != nil {
				return err
			}
		}
	}
	if d := n.Spec.Drain; d != nil && d.Overdue && !x.overdue {
		x.overdue = true
		if err := w.t.printf("node/%s: its deadline has passed: what is left is stopped, as far as each service's floor allows\n", x.name); err != nil {
			return err
		}
	}
	if w.t.Now().Sub(w.last) < stallAfter {
		return nil
	}
	told := 0
	for _, why := range n.Status.DrainWaits {
		if x.told[why] || told == reasonsShownMax {
			continue
		}
		told++
		x.told[why] = true
		if err := w.t.printf("node/%s: %s\n", x.name, cleanText(why)); err != nil {
			return err
		}
	}
	return nil
}

// went tells of a replica that has left its node.
func (w *drainWait) went(r *api.Replica) error {
	for _, x := range w.nodes {
		if x.name != r.Spec.Node || x.over {
			continue
		}
		w.last = w.t.Now()
		text, well := w.leaving.left(r)
		if n := w.known[x.name]; !well && n != nil && n.Spec.Drain != nil && n.Spec.Drain.Overdue {
			x.badly = append(x.badly, w.leaving.label(r))
		}
		return w.t.printf("node/%s: %s, %d left\n", x.name, text, len(w.leaving.on(x.name)))
	}
	return nil
}

// conclusion is a failure where a deadline cost replicas, or was not kept.
func (w *drainWait) conclusion() error {
	var lines []string
	for _, x := range w.nodes {
		if len(x.badly) > 0 {
			lines = append(lines, fmt.Sprintf("node/%s: stopped at its deadline with nothing in their place: %s", x.name, strings.Join(x.badly, ", ")))
		}
		if x.unheard != "" {
			lines = append(lines, fmt.Sprintf("node/%s %s", x.name, x.unheard))
		}
	}
	if len(lines) == 0 {
		return nil
	}
	return errors.New(strings.Join(lines, "\n"))
}

// goesOn says what the end of the waiting leaves.
func (w *drainWait) goesOn() string {
	var lines, names []string
	for _, x := range w.nodes {
		if x.over {
			continue
		}
		names = append(names, x.name)
		lines = append(lines, fmt.Sprintf("  node/%s has %s left", x.name, count(len(w.leaving.on(x.name)), "replica")))
		if n := w.known[x.name]; n != nil {
			for _, why := range n.Status.DrainWaits {
				lines = append(lines, "    "+cleanText(why))
			}
		}
	}
	all := strings.Join(names, " ")
	return fmt.Sprintf("the drain goes on:\n%s\n`orchctl drain %s` watches it, `orchctl drain %s --abort` ends it", strings.Join(lines, "\n"), all, all)
}
