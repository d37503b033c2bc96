package orchctl

import (
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// said makes a record of a verdict that was given so long before the epoch.
func said(seq uint64, ago time.Duration, node string, from, to api.Verdict, why string, change ...func(*api.VerdictRecord)) *api.VerdictRecord {
	r := &api.VerdictRecord{Seq: seq, Time: epoch.Add(-ago), Node: node, From: from, To: to, Why: why}
	for _, c := range change {
		c(r)
	}
	return r
}

// beside makes it one of something else than the verdict.
func beside(what string) func(*api.VerdictRecord) {
	return func(r *api.VerdictRecord) { r.From, r.To, r.What = "", "", what }
}

func frozenFleet() *api.Fleet {
	return &api.Fleet{Metadata: api.Metadata{Name: api.FleetName}, Status: api.FleetStatus{
		Nodes:  map[api.Verdict]int{api.VerdictHealthy: 7, api.VerdictSuspect: 4, api.VerdictAgentLost: 1, "Melted": 1},
		Frozen: true, FrozenWhy: "5 of 13 nodes vanished within 5s, more than 2", FrozenSince: epoch.Add(-40 * time.Second),
		Impaired: 2, Damped: 1, Drained: 1,
		Spares: 12, SparesWaiting: 3, Reliefs: 1}}
}

// incident has a node with a history, one that cannot work, one that flaps, and
// services for which that matters.
func incident() *fake {
	lease := api.Duration(20 * time.Second)
	grace := api.Duration(5 * time.Second)
	ledger := service("ledger", 1, counts(1, 0, "ledger-0 waits until 2000-01-01T00:00:14Z: the lease of ledger-0@17 on n2 may last until then"), func(s *api.Service) {
		s.Spec.Exclusive, s.Spec.OnPartition, s.Spec.LeaseDuration, s.Spec.TerminationGracePeriod = true, api.PartitionStop, &lease, &grace
		s.Spec.Rollout = api.Rollout{MaxSurge: api.Count(0), MaxUnavailable: api.Count(1)}
		s.Spec.Priority = 100
	})
	web := service("web", 2, counts(2, 0, "2 spares wait: budget of 5 per service"), func(s *api.Service) { s.Spec.OnPartition = api.PartitionStop; s.Default() })
	lost := func(r *api.Replica) {
		r.Status.Reason, r.Status.Message, r.Status.Ready = api.ReasonLeaseLost, "its lease ended 3s ago and was not renewed", false
		r.Status.Containers[0].State, r.Status.Containers[0].Ready, r.Status.Containers[0].LastExit = api.ContainerExited, false, &api.Exit{Code: 143, Signal: 15, Reason: api.ExitSignaled}
	}
	degraded := func(r *api.Replica) { r.Status.Degraded = true }
	why := "silent for 0.35s; 3 of 3 witnesses get no answer"
	return newFake(ledger, web, frozenFleet(),
		replica("ledger", 0, 17, "n2", running(true), lastKnown),
		replica("web", 0, 18, "n2", running(true), lastKnown, degraded), replica("web", 1, 19, "n1", running(true), lost),
		node("n1", api.VerdictHealthy),
		node("n2", api.VerdictSuspect, func(n *api.Node) { n.Status.VerdictWhy = why }),
		node("n3", api.VerdictHealthy, func(n *api.Node) {
			n.Status.Impaired, n.Status.ImpairedSince = "containerd: no answer for 12s", epoch.Add(-12*time.Second)
		}),
		node("n4", api.VerdictBack, func(n *api.Node) {
			n.Status.DampedUntil, n.Status.Impaired, n.Status.VerdictWhy = epoch.Add(90*time.Second), "every task waited for the disk", "it beats again"
			n.Spec.Unschedulable = true
		}),
		said(7, 50*time.Hour, "n2", api.VerdictUnknown, api.VerdictHealthy, "its first session of this life", func(r *api.VerdictRecord) { r.By = []string{"agent"} }),
		said(21, 20*time.Minute, "n2", api.VerdictHealthy, api.VerdictAgentLost, "its agent is silent for 1.1s, its host answers", func(r *api.VerdictRecord) {
			r.By = []string{"n1", "leader"}
			r.Evidence = []string{"last beat 1.1s before", "n1: host answers, 0 of 2 ports", "leader: host answers, 0 of 2 ports"}
		}),
		said(22, 20*time.Minute-700*time.Millisecond, "n2", api.VerdictAgentLost, api.VerdictBack, "it beats again", func(r *api.VerdictRecord) { r.By = []string{"agent"} }),
		said(30, 3*time.Minute, "n3", "", "", "containerd: no answer for 12s", beside("Impaired"), func(r *api.VerdictRecord) { r.Done = api.Done{Relieved: 2} }),
		said(31, time.Minute, "n4", "", "", "3 returns within 2m", beside("Damped")),
		said(32, 12*time.Second+120*time.Millisecond, "n2", api.VerdictHealthy, api.VerdictSuspect, why, func(r *api.VerdictRecord) {
			r.By = []string{"n1", "n3", "leader"}
			r.Evidence = []string{"last beat 0.35s before", "n1: no answer within 150ms", "n3: no answer within 150ms", "leader: no answer\x1b[31m within 150ms"}
			r.Done = api.Done{EndpointsWithdrawn: 3, EndpointsDegraded: 1, SparesPlaced: 2, SparesWaiting: 1}
		}),
		event(3, 12*time.Second, api.KindNode, "n2", api.EventWarning, "Suspect", why))
}

func TestIncidentTables(t *testing.T) {
	in(t, incident(), func(t *testing.T, r *rig) {
		var b strings.Builder
		for _, line := range []string{"get nodes", "get nodes -o wide", "get fleet", "get fleet -o wide", "get verdicts", "get verdicts --node n2", "get verdicts --node node/n2 -o wide", "get verdicts --node n1", "get verdicts --node n99",
			"get verdict n2/32 -o yaml", "get verdicts --node n3 -o json", "get verdicts --node n4 -o name", "get verdict n2/99", "get replicas -o wide"} {
			b.WriteString("$ orchctl " + line + "\n" + r.run(strings.Fields(line)...).String() + "\n")
		}
		golden(t, "incident", b.String())
	})
}

func TestDescribeIncident(t *testing.T) {
	in(t, incident(), func(t *testing.T, r *rig) {
		for _, line := range []string{"describe node n2", "describe node n4", "describe fleet", "describe service ledger", "describe service web", "describe verdict n3/30"} {
			golden(t, "incident-"+strings.NewReplacer(" ", "-", "/", "-").Replace(line), r.run(strings.Fields(line)...).String())
		}
	})
}

// TestVerdictsShown: the latest ten unless told otherwise, and never none of
// what is there without a word.
func TestVerdictsShown(t *testing.T) {
	var all []any
	all = append(all, node("n2", api.VerdictHealthy))
	for i := range uint64(23) {
		all = append(all, said(i+1, time.Duration(60-i)*time.Second, "n2", api.VerdictHealthy, api.VerdictSuspect, "silent"))
	}
	in(t, newFake(all...), func(t *testing.T, r *rig) {
		for line, want := range map[string]struct {
			title, first string
			n            int
		}{
			"describe node n2":               {"Verdicts (the last 10 of 23; --verdicts 0 tells all):", "Suspect (14):", 10},
			"describe node n2 --verdicts 3":  {"Verdicts (the last 3 of 23; --verdicts 0 tells all):", "Suspect (21):", 3},
			"describe node n2 --verdicts 0":  {"Verdicts:", "Suspect (1):", 23},
			"describe node n2 --verdicts 99": {"Verdicts:", "Suspect (1):", 23},
		} {
			got := r.run(strings.Fields(line)...)
			_, story, _ := strings.Cut(got.out, want.title+"\n")
			if first, _, _ := strings.Cut(story, "\n"); got.code != 0 || !strings.HasSuffix(first, want.first) || strings.Count(story, "When:") != want.n {
				t.Errorf("%s: %s", line, got)
			}
		}
		r.fail["List"] = []error{nil, status.Error(codes.InvalidArgument, `unknown kind "Verdict"`)}
		if got := r.run("describe", "node", "n2"); got.code != 0 || !strings.Contains(got.out, "Verdicts:        this controller keeps none") || !strings.Contains(got.out, "Events:") {
			t.Errorf("an older controller: %s", got)
		}
	})
}

// TestDoneInWords: every count is told, one and many; nothing done is said too.
func TestDoneInWords(t *testing.T) {
	var d api.Done
	for name := range strings.FieldsSeq("endpointsWithdrawn endpointsDegraded sparesPlaced sparesWaiting relieved sparesRemoved incumbentsRemoved voided") {
		for _, n := range []string{"1", "2"} {
			d = api.Done{}
			if err := json.Unmarshal([]byte(`{"`+name+`":`+n+`}`), &d); err != nil || d == (api.Done{}) {
				t.Fatal(name, err)
			}
			if got := doneWords(d); len(got) != 1 || !strings.HasPrefix(got[0], n+" ") {
				t.Errorf("%s %s: %q", n, name, got)
			}
		}
	}
	all := api.Done{EndpointsWithdrawn: 1, EndpointsDegraded: 1, SparesPlaced: 1, SparesWaiting: 1, Relieved: 1, SparesRemoved: 1, IncumbentsRemoved: 1, Voided: 1}
	text, _ := json.Marshal(all)
	if fields := strings.Count(string(text), ":"); len(doneWords(all)) != fields {
		t.Errorf("%d of %d counts are told", len(doneWords(all)), fields)
	}
	if got := doneWords(api.Done{}); got != nil {
		t.Errorf("nothing: %q", got)
	}
}

func TestThaw(t *testing.T) {
	f := newFake(frozenFleet())
	in(t, f, func(t *testing.T, r *rig) {
		var said []*orchv1.NodeWordRequest
		r.onNode = func(q *orchv1.NodeWordRequest) error { said = append(said, q); return nil }
		want := "fleet thawed, it was frozen for 40s: a node that stays silent is taken for dead again (4 suspect nodes now)\n"
		if got := r.run("fleet", "thaw"); got.code != 0 || got.out != want || len(said) != 1 || said[0].Word != "thaw" || said[0].Node != "" || said[0].Force {
			t.Error(got, said)
		}
		calm := frozenFleet()
		calm.Status.Frozen = false
		f.put(calm)
		if got := r.run("fleet", "thaw"); got.code != 0 || got.out != "the fleet is not frozen: nothing to thaw\n" || len(said) != 1 {
			t.Error(got, said)
		}
	})
}

// TestWatchVerdicts: a record comes once, and again when more was done about it
// where that is shown.
func TestWatchVerdicts(t *testing.T) {
	first := said(1, time.Minute, "n2", api.VerdictHealthy, api.VerdictSuspect, "silent")
	f := newFake(first, said(2, time.Minute, "n1", api.VerdictHealthy, api.VerdictSuspect, "silent"))
	in(t, f, func(t *testing.T, r *rig) {
		for _, c := range []struct {
			line string
			rows int
		}{{"get verdicts --node n2 -w", 2}, {"get verdicts --node n2 -w -o wide", 3}} {
			f.put(said(1, time.Minute, "n2", api.VerdictHealthy, api.VerdictSuspect, "silent"))
			f.drop(said(3, 0, "n2", api.VerdictSuspect, api.VerdictBack, "it beats again"))
			ctx, cancel := contextOf(t)
			var got result
			done := make(chan struct{})
			go func() {
				defer close(done)
				got = r.runCtx(ctx, strings.Fields(c.line)...)
			}()
			synctest.Wait()
			more := said(1, time.Minute, "n2", api.VerdictHealthy, api.VerdictSuspect, "silent", func(r *api.VerdictRecord) { r.Done.SparesPlaced = 1 })
			f.put(more, said(4, time.Minute, "n1", api.VerdictSuspect, api.VerdictBack, "it beats again"), said(3, 0, "n2", api.VerdictSuspect, api.VerdictBack, "it beats again"))
			synctest.Wait()
			cancel()
			<-done
			if rows := strings.Count(got.out, "\n") - 1; got.code != 0 || rows != c.rows || strings.Contains(got.out, "n1/") {
				t.Errorf("%s: %d rows, want %d\n%s", c.line, rows, c.rows, got)
			}
		}
	})
}
