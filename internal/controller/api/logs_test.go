package api

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller"
	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/controller/session"
	"github.com/orchctl/orch/internal/controller/view"
	"github.com/orchctl/orch/internal/wire"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// rememberer is a leader that remembers; one that forgot answers nothing, ever.
type rememberer struct {
	leader
	words  []core.LastWords
	forgot bool
}

func (l *rememberer) Ask(ctx context.Context, event func(uint64) core.Event) (controller.Answer, error) {
	ev := event(7).(core.Recall)
	if l.forgot {
		<-ctx.Done()
		return controller.Answer{}, ctx.Err()
	}
	r := core.Recalled{At: time.Now()}
	for _, w := range l.words {
		if w.Replica.ServiceKey() == ev.Key {
			r.Words = append(r.Words, w)
		}
	}
	return controller.Answer{Value: r}, nil
}

// logWorld has web-0@12 on n1 and web-1@11 on n2, and what a test adds.
type logWorld struct {
	p      core.Publish
	agents agents
	leader rememberer
	// answers of nodes, by "n1 web-0@12", with " previous" behind it where that is
	// asked for: frames, or nil for a node that says nothing.
	answers map[string][]*orchv1.Frame
}

func (w *logWorld) replica(node, service string, slot int, epoch uint64, phase api.Phase) {
	k := api.ReplicaKey{Namespace: "default", Service: service, Slot: slot, Epoch: epoch}
	r := replicaOf(k, node)
	r.Status = api.ReplicaStatus{Phase: phase, Ready: phase == api.PhaseRunning}
	w.p.Put = append(w.p.Put, core.Entry{Key: core.ViewKey{Kind: api.KindReplica, Namespace: "default", Name: fmt.Sprintf("%s@%d", k.Name(), epoch)}, Object: r})
}

func newLogWorld() *logWorld {
	w := &logWorld{answers: map[string][]*orchv1.Frame{}}
	web := plain("web", "a:1")
	web.Metadata.UID = "u2"
	w.p.Put = append(w.p.Put, core.Entry{Key: core.ViewKey{Kind: api.KindService, Namespace: "default", Name: "web"}, Object: web})
	w.replica("n1", "web", 0, 12, api.PhaseRunning)
	w.replica("n2", "web", 1, 11, api.PhaseRunning)
	w.agents = agents{away: map[string]bool{}, script: func(node string, open *orchv1.OpenRelay, a *agentStream) {
		q := open.GetLogs()
		k := wire.KeyFromPB(q.GetReplica())
		name := fmt.Sprintf("%s %s@%d", node, k.Name(), k.Epoch)
		if q.GetPrevious() {
			name += " previous"
		}
		for _, f := range w.answers[name] {
			if f == nil {
				close(a.from)
				return
			}
			a.from <- f
		}
	}}
	return w
}

func (w *logWorld) suspect(node string) {
	w.agents.away[node] = true
	w.p.Put = append(w.p.Put, core.Entry{Key: core.ViewKey{Kind: api.KindNode, Name: node}, Object: &api.Node{Metadata: api.Metadata{Name: node},
		Status: api.NodeStatus{Verdict: api.VerdictSuspect, VerdictSince: time.Now().Add(-12 * time.Second)}}})
}

// told is the end of a run of web's first container, ago.
func told(node string, slot int, epoch uint64, output string, ago time.Duration) core.LastWords {
	return core.LastWords{Replica: api.ReplicaKey{Namespace: "default", Service: "web", Slot: slot, Epoch: epoch}, ServiceUID: "u2", Container: "c0", Node: node,
		Exit: api.Exit{Code: 137, OOM: true, Message: "killed for want of memory (limit 64Mi, peak 64Mi)", Output: output, FinishedAt: time.Now().Add(-ago)}}
}

func untold(w core.LastWords) core.LastWords {
	w.Untold, w.Gone, w.Exit = true, true, api.Exit{Message: "its node " + w.Node + " died: silent", FinishedAt: w.Exit.FinishedAt}
	return w
}

func logFrame(l *orchv1.LogLine) *orchv1.Frame {
	return &orchv1.Frame{Frame: &orchv1.Frame_Log{Log: l}}
}

// wrote is what a node says that has lines.
func wrote(texts ...string) []*orchv1.Frame {
	out := []*orchv1.Frame{logFrame(&orchv1.LogLine{Begun: true})}
	for i, x := range texts {
		out = append(out, logFrame(&orchv1.LogLine{Time: wire.TimeToPB(time.Unix(int64(i+1), 0)), Text: []byte(x)}))
	}
	return append(out, endFrame(""))
}

func nothing() []*orchv1.Frame {
	return []*orchv1.Frame{{Frame: &orchv1.Frame_End{End: &orchv1.End{Error: "not here", None: true}}}}
}

// said is what a user gets, in words; the order among replicas does not count.
func said(lines []*orchv1.LogLine) []string {
	var out []string
	for _, l := range lines {
		name := fmt.Sprintf("%s-%d@%d: ", l.GetReplica().GetService(), l.GetReplica().GetSlot(), l.GetReplica().GetEpoch())
		switch {
		case l.GetBegun():
			name += "begun"
		case l.GetGap() != "":
			name += "gap: " + l.GetGap()
		case l.GetNote() != "":
			name += "note: " + l.GetNote()
		default:
			name += string(l.GetText())
		}
		out = append(out, name)
	}
	slices.SortStableFunc(out, func(a, b string) int { return strings.Compare(a[:strings.Index(a, ":")], b[:strings.Index(b, ":")]) })
	return out
}

func TestLogs(t *testing.T) {
	const oom = "exit code 137, killed for want of memory (limit 64Mi, peak 64Mi)"
	for _, c := range []struct {
		name  string
		ask   *orchv1.LogsRequest
		world func(*logWorld)
		want  []string
		code  codes.Code
		says  string
		takes time.Duration
	}{
		{name: "a service", ask: &orchv1.LogsRequest{Service: "web", Tail: -1}, world: func(w *logWorld) {
			w.answers["n1 web-0@12"], w.answers["n2 web-1@11"] = wrote("one"), wrote()
		}, want: []string{"web-0@12: begun", "web-0@12: one", "web-1@11: begun"}},
		{name: "a node is away", ask: &orchv1.LogsRequest{Service: "web", Tail: -1}, world: func(w *logWorld) {
			w.answers["n1 web-0@12"] = wrote("one")
			w.suspect("n2")
		}, want: []string{"web-0@12: begun", "web-0@12: one", "web-1@11: gap: n2 cannot be reached since 12s: logs of web-1 are missing"}},
		{name: "a node says nothing", ask: &orchv1.LogsRequest{Service: "web", Tail: -1}, world: func(w *logWorld) {
			w.answers["n1 web-0@12"] = wrote("one")
		}, want: []string{"web-0@12: begun", "web-0@12: one", "web-1@11: gap: n2 cannot be reached: logs of web-1 are missing"}, takes: logBeginMax},
		{name: "a node begins and goes", ask: &orchv1.LogsRequest{Replica: "web-0", Tail: -1}, world: func(w *logWorld) {
			w.answers["n1 web-0@12"] = []*orchv1.Frame{wrote("one")[0], wrote("one")[1], nil}
		}, want: []string{"web-0@12: begun", "web-0@12: one", "web-0@12: gap: n1 cannot be reached: logs of web-0 are missing from here on"}},
		{name: "a node begins and hangs", ask: &orchv1.LogsRequest{Replica: "web-0", Tail: -1}, world: func(w *logWorld) {
			w.answers["n1 web-0@12"] = wrote("one")[:2]
		}, want: []string{"web-0@12: begun", "web-0@12: one", "web-0@12: gap: n1 cannot be reached: logs of web-0 are missing from here on"}, takes: logSilenceMax},
		{name: "a node fails", ask: &orchv1.LogsRequest{Replica: "web-0", Tail: -1}, world: func(w *logWorld) {
			w.answers["n1 web-0@12"] = []*orchv1.Frame{endFrame("disk broken")}
		}, want: []string{"web-0@12: gap: disk broken"}},
		{name: "an agent that does not say that it begins", ask: &orchv1.LogsRequest{Replica: "web-0", Tail: -1}, world: func(w *logWorld) {
			w.answers["n1 web-0@12"] = wrote("one")[1:]
		}, want: []string{"web-0@12: one"}},

		{name: "previous, on its node", ask: &orchv1.LogsRequest{Replica: "web-0", Previous: true, Tail: -1}, world: func(w *logWorld) {
			w.answers["n1 web-0@12 previous"] = wrote("before")
		}, want: []string{"web-0@12: begun", "web-0@12: before"}},
		{name: "previous, its node is away", ask: &orchv1.LogsRequest{Replica: "web-0", Previous: true, Tail: -1}, world: func(w *logWorld) {
			w.suspect("n1")
			w.leader.words = []core.LastWords{told("n1", 0, 12, "one\ntwo", time.Minute), told("n1", 0, 12, "three\nfour", 12*time.Second), told("n2", 1, 11, "five", 0)}
		}, want: []string{"web-0@12: begun", "web-0@12: note: n1 cannot be reached: the last 1 KiB that it told the leader; " + oom + ", 12s ago", "web-0@12: three", "web-0@12: four"}},
		{name: "previous, of the one that died with its node", ask: &orchv1.LogsRequest{Replica: "web-0", Previous: true, Tail: 1}, world: func(w *logWorld) {
			w.answers["n1 web-0@12 previous"] = nothing()
			w.agents.away["n3"] = true
			w.leader.words = []core.LastWords{told("n3", 0, 9, "one\ntwo", time.Minute), untold(told("n3", 0, 9, "", 3*time.Second))}
		}, want: []string{"web-0@9: begun", "web-0@9: note: n3 cannot be reached: the last 1 KiB that it told the leader; " + oom + ", 1m0s ago; what it wrote since is missing: its node n3 died: silent, 3s ago", "web-0@9: two"}},
		{name: "previous, of one that told nothing", ask: &orchv1.LogsRequest{Replica: "web-0", Previous: true, Tail: -1}, world: func(w *logWorld) {
			w.answers["n1 web-0@12 previous"] = nothing()
			w.agents.away["n3"] = true
			w.leader.words = []core.LastWords{untold(told("n3", 0, 9, "", 3*time.Second))}
		}, want: []string{"web-0@9: gap: n3 cannot be reached: what web-0 wrote is missing; its node n3 died: silent, 3s ago"}},
		{name: "previous, of one that was stopped elsewhere", ask: &orchv1.LogsRequest{Replica: "web-0", Previous: true, Tail: -1}, world: func(w *logWorld) {
			w.answers["n1 web-0@12 previous"], w.answers["n3 web-0@9 previous"] = nothing(), wrote("all of it")
			w.leader.words = []core.LastWords{untold(told("n3", 0, 9, "", time.Hour))}
		}, want: []string{"web-0@9: begun", "web-0@9: all of it"}},
		{name: "previous, beside a spare", ask: &orchv1.LogsRequest{Replica: "web-1", Previous: true, Tail: -1}, world: func(w *logWorld) {
			w.suspect("n2")
			w.replica("n3", "web", 1, 20, api.PhaseRunning)
			w.answers["n3 web-1@20 previous"] = nothing()
			w.leader.words = []core.LastWords{told("n2", 1, 11, "", 12*time.Second)}
		}, want: []string{"web-1@11: begun", "web-1@11: note: n2 cannot be reached: it told the leader of no output; " + oom + ", 12s ago"}},
		{name: "no previous", ask: &orchv1.LogsRequest{Replica: "web-0", Previous: true, Tail: -1}, world: func(w *logWorld) {
			w.answers["n1 web-0@12 previous"] = nothing()
		}, code: codes.NotFound, says: `previous run of container "c0" in replica web-0 not found`},
		{name: "no previous: who had the name was deleted", ask: &orchv1.LogsRequest{Replica: "web-0", Previous: true, Tail: -1}, world: func(w *logWorld) {
			before := told("n3", 0, 9, "one", time.Minute)
			before.ServiceUID = "u1"
			w.leader.words = []core.LastWords{before}
			w.answers["n1 web-0@12 previous"] = nothing()
		}, code: codes.NotFound, says: `previous run of container "c0" in replica web-0 not found`},
		{name: "no previous, as far as is known", ask: &orchv1.LogsRequest{Replica: "web-0", Previous: true, Tail: -1}, world: func(w *logWorld) {
			w.suspect("n1")
		}, want: []string{"web-0@12: gap: n1 cannot be reached since 12s: logs of web-0 are missing"}},
		{name: "previous, and a leader that does not answer", ask: &orchv1.LogsRequest{Replica: "web-0", Previous: true, Tail: -1}, world: func(w *logWorld) {
			w.leader.forgot = true
			w.answers["n1 web-0@12 previous"] = wrote("before")
		}, want: []string{"web-0@12: begun", "web-0@12: before"}},
		{name: "previous, and neither answers", ask: &orchv1.LogsRequest{Replica: "web-0", Previous: true, Tail: -1}, world: func(w *logWorld) {
			w.leader.forgot = true
			w.suspect("n1")
		}, want: []string{"web-0@12: gap: n1 cannot be reached since 12s: logs of web-0 are missing"}, takes: recallMax},
		{name: "previous, of a service", ask: &orchv1.LogsRequest{Service: "web", Previous: true, Tail: -1}, world: func(w *logWorld) {
			w.answers["n1 web-0@12 previous"], w.answers["n2 web-1@11 previous"] = wrote("before"), nothing()
			w.replica("n3", "web", 0, 10, api.PhaseStopping)
		}, want: []string{"web-0@12: begun", "web-0@12: before", `web-1@11: gap: previous run of container "c0" in replica web-1 not found`}},

		{name: "one that is gone, on its node", ask: &orchv1.LogsRequest{Replica: "web-7@3", Tail: -1}, world: func(w *logWorld) {
			w.answers["n1 web-7@3"] = wrote("of old")
			w.leader.words = []core.LastWords{untold(told("n1", 7, 3, "", time.Hour))}
		}, want: []string{"web-7@3: begun", "web-7@3: of old"}},
		{name: "one that is gone, with its node", ask: &orchv1.LogsRequest{Replica: "web-7@3", Tail: -1}, world: func(w *logWorld) {
			w.agents.away["n1"] = true
			w.leader.words = []core.LastWords{told("n1", 7, 3, "one", time.Hour)}
		}, want: []string{"web-7@3: begun", "web-7@3: note: n1 cannot be reached: the last 1 KiB that it told the leader; " + oom + ", 1h0m0s ago", "web-7@3: one"}},
		{name: "one that is gone, and forgotten by its node", ask: &orchv1.LogsRequest{Replica: "web-7", Previous: true, Tail: -1}, world: func(w *logWorld) {
			w.answers["n1 web-7@3 previous"] = nothing()
			w.leader.words = []core.LastWords{told("n1", 7, 3, "one", time.Hour)}
		}, want: []string{"web-7@3: begun", "web-7@3: note: n1 has nothing of it any more: the last 1 KiB that it told the leader; " + oom + ", 1h0m0s ago", "web-7@3: one"}},
		{name: "one that never was", ask: &orchv1.LogsRequest{Replica: "web-7@4", Tail: -1}, code: codes.NotFound, says: "web-7@4: not found"},
		{name: "one that is gone, and not asked for by its epoch", ask: &orchv1.LogsRequest{Replica: "web-7", Tail: -1}, world: func(w *logWorld) {
			w.leader.words = []core.LastWords{told("n1", 7, 3, "one", time.Hour)}
		}, code: codes.NotFound, says: "web-7: not found"},
		{name: "previous, followed", ask: &orchv1.LogsRequest{Replica: "web-0", Previous: true, Follow: true}, code: codes.InvalidArgument, says: "exclude each other"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newLogWorld()
				if c.world != nil {
					c.world(w)
				}
				v := view.New()
				v.Publish(w.p)
				s := &Server{cfg: Config{Leader: &w.leader, View: v, Log: slog.New(slog.DiscardHandler)}, open: w.agents.open}
				p := newPipe[*orchv1.LogLine](t.Context())
				began := time.Now()
				err := s.Logs(c.ask, p)
				if took := time.Since(began); took != c.takes {
					t.Errorf("took %s, want %s", took, c.takes)
				}
				if status.Code(err) != c.code || err != nil && !strings.Contains(err.Error(), c.says) {
					t.Errorf("%v, want %s %q", err, c.code, c.says)
				}
				if got := said(p.out); !slices.Equal(got, c.want) {
					t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
				}
			})
		})
	}
}

// A service whose logs are followed goes on with those that answer, and takes up who
// returns.
func TestFollowedGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newLogWorld()
		w.answers["n1 web-0@12"], w.answers["n2 web-1@11"] = wrote("one")[:2], wrote("back")[:2]
		v := view.New()
		v.Publish(w.p)
		var away atomic.Bool
		away.Store(true)
		open := func(ctx context.Context, node string, what *orchv1.OpenRelay) (relay, error) {
			if node == "n2" && away.Load() {
				return nil, fmt.Errorf("reach node n2: %w", session.ErrAway)
			}
			return w.agents.open(ctx, node, what)
		}
		s := &Server{cfg: Config{Leader: &w.leader, View: v, Log: slog.New(slog.DiscardHandler)}, open: open}
		ctx, cancel := context.WithCancel(t.Context())
		p := newPipe[*orchv1.LogLine](ctx)
		done := make(chan error)
		go func() { done <- s.Logs(&orchv1.LogsRequest{Service: "web", Follow: true, Tail: -1}, p) }()
		time.Sleep(time.Hour) // nothing is written, and nobody takes it amiss
		lines := func() []string {
			synctest.Wait()
			p.mu.Lock()
			defer p.mu.Unlock()
			return said(p.out)
		}
		gap := "web-1@11: gap: n2 cannot be reached: logs of web-1 are missing"
		if got, want := lines(), []string{"web-0@12: begun", "web-0@12: one", gap}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		away.Store(false)
		time.Sleep(2 * logAgain)
		if got, want := lines(), []string{"web-0@12: begun", "web-0@12: one", gap, "web-1@11: begun", "web-1@11: back"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		cancel()
		if err := <-done; status.Code(err) != codes.Canceled && err != context.Canceled {
			t.Errorf("ended with %v", err)
		}
	})
}
