package core

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
)

// TestJobSuspect: a spare runs the index elsewhere; the first that ends well counts, and
// what the other says of itself later is not counted again.
func TestJobSuspect(t *testing.T) {
	for _, first := range []string{"spare", "incumbent"} {
		t.Run(first, func(t *testing.T) {
			w := newWorks(t, "n1", "n2", "n3")
			w.applyJob(migrate(2, 1, 0))
			home := w.home("migrate", 0)
			w.agents[home].silent = true
			w.pass(time.Second)
			got := w.tries()
			if len(got) != 2 || !strings.HasSuffix(got[1], "(spare)") {
				t.Fatalf("tries %v", got)
			}
			spareOn := w.core.services[api.Key{Namespace: "default", Name: "migrate"}].inSlot(0)[1].node
			if first == "incumbent" { // it says so when it is back
				w.end(0, home, 0)
				w.node(home, "boot-"+home)
			} else {
				w.end(0, spareOn, 0)
				w.end(0, home, 1)
				w.node(home, "boot-"+home)
			}
			w.pass(time.Second)
			o, st := w.outcome(0), w.job().Status
			if o == nil || !o.Succeeded || st.Succeeded != 1 || st.Failed != 0 || o.Node != map[string]string{"spare": spareOn, "incumbent": home}[first] {
				t.Fatalf("outcome %+v, status %+v", o, st)
			}
			if got := w.tries(); len(got) != 1 || !strings.HasPrefix(got[0], "migrate-1") {
				t.Fatalf("then run %v", got)
			}
		})
	}
}

// TestJobNodeDies: its tries are void, which is no failure, and begin elsewhere.
func TestJobNodeDies(t *testing.T) {
	w := newWorks(t, "n1", "n2")
	w.applyJob(migrate(1, 1, 0))
	home := w.home("migrate", 0)
	w.agents[home].silent = true
	if err := w.word(home, "dead"); err != nil {
		t.Fatal(err)
	}
	w.pass(time.Second)
	if got := w.tries(); len(got) != 1 || strings.Contains(got[0], home) {
		t.Fatalf("tries %v", got)
	}
	w.end(0, w.home("migrate", 0), 0)
	if st := w.job().Status; st.State != api.JobComplete || st.Failed != 0 {
		t.Fatalf("status %+v", st)
	}
}

// TestJobAgentLost: both run on, and the one whose agent is back and still runs it stays.
func TestJobAgentLost(t *testing.T) {
	w := newWorks(t, "n1", "n2", "n3")
	w.applyJob(migrate(1, 1, 0))
	home := w.home("migrate", 0)
	a := w.agents[home]
	a.silent, a.hostUp = true, true
	w.step(SessionClosed{Node: home, Session: a.session})
	w.pass(20 * time.Second)
	if got := w.tries(); len(got) != 1 {
		t.Fatalf("within the grace run %v", got)
	}
	w.pass(20 * time.Second)
	if got := w.tries(); len(got) != 2 || got[0] != "migrate-0 on "+home {
		t.Fatalf("after the grace run %v", got)
	}
	w.node(home, "boot-"+home)
	w.pass(2 * time.Second)
	if got := w.tries(); !slices.Equal(got, []string{"migrate-0 on " + home}) {
		t.Fatalf("then run %v", got)
	}
	if n := w.status().Reliefs; n != 0 {
		t.Fatalf("%d reliefs are under way", n)
	}
}

// TestJobDrain: what runs there runs on, which the drain says; at its deadline it is
// stopped and begun elsewhere, and has not failed.
func TestJobDrain(t *testing.T) {
	w := newWorks(t, "n1", "n2")
	w.applyJob(migrate(1, 1, 0))
	home := w.home("migrate", 0)
	w.ticket++
	w.step(NodeWord{Ticket: w.ticket, Node: home, Word: "drain", Deadline: time.Minute, By: "user root"})
	w.turn()
	w.pass(50 * time.Second)
	n := w.seen[ViewKey{Kind: api.KindNode, Name: home}].(*api.Node)
	if want := []string{"migrate-0 runs on to its end: it is a job's"}; !slices.Equal(n.Status.DrainWaits, want) || !slices.Equal(w.tries(), []string{"migrate-0 on " + home}) {
		t.Fatalf("the drain waits for %q; tries %v", n.Status.DrainWaits, w.tries())
	}
	w.pass(15 * time.Second)
	if got := w.tries(); len(got) != 1 || strings.Contains(got[0], home) {
		t.Fatalf("after the deadline run %v", got)
	}
	n = w.seen[ViewKey{Kind: api.KindNode, Name: home}].(*api.Node)
	if n.Spec.Drain.Done.IsZero() || w.job().Status.Failed != 0 {
		t.Fatalf("drain %+v, status %+v", n.Spec.Drain, w.job().Status)
	}
}

func TestJobDeadlineAndTTL(t *testing.T) {
	w := newWorks(t, "n1", "n2")
	j := migrate(3, 1, 0)
	deadline, ttl := api.Duration(10*time.Second), api.Duration(time.Minute)
	j.Spec.Deadline, j.Spec.TTLAfterFinished = &deadline, &ttl
	w.applyJob(j)
	w.end(0, "", 0)
	w.pass(9 * time.Second)
	w.elect() // the deadline is the job's, whoever leads
	for _, n := range []string{"n1", "n2"} {
		w.node(n, "boot-"+n)
	}
	w.pass(500 * time.Millisecond)
	if st := w.job().Status; st.State != api.JobRunning {
		t.Fatalf("before its deadline: %+v", st)
	}
	w.pass(time.Second)
	if st := w.job().Status; st.State != api.JobFailed || st.Why != "its deadline has passed: 1 of 3 indexes are completed" || w.running() != 0 {
		t.Fatalf("after its deadline: %+v, tries %v", st, w.tries())
	}
	w.pass(58 * time.Second)
	w.job()
	w.pass(3 * time.Second)
	for k := range w.kv {
		if strings.Contains(k, "/migrate") {
			t.Errorf("%s is left in the store", k)
		}
	}
	if _, there := w.seen[ViewKey{api.KindJob, "default", "migrate"}]; there {
		t.Error("the job is still published")
	}
}

// TestJobLeaderReadsOutcomes: a leader that follows counts on, and tries what failed after
// its back-off.
func TestJobLeaderReadsOutcomes(t *testing.T) {
	w := newWorks(t, "n1", "n2", "n3")
	w.applyJob(migrate(3, 2, 1))
	w.end(0, "", 0)
	w.end(1, "", 1)
	w.elect()
	if st := w.job().Status; st.Succeeded != 1 || st.Failed != 1 || w.outcome(0) == nil || w.outcome(1) == nil {
		t.Fatalf("status %+v", st)
	}
	for _, n := range []string{"n1", "n2", "n3"} {
		w.node(n, "boot-"+n)
	}
	w.pass(2 * time.Second)
	if got := w.tries(); len(got) != 2 || !strings.HasPrefix(got[0], "migrate-1") || !strings.HasPrefix(got[1], "migrate-2") {
		t.Fatalf("tries %v", got)
	}
	w.end(1, "", 1)
	if st := w.job().Status; st.State != api.JobFailed || !strings.HasPrefix(st.Why, "2 tries failed, backoffLimit is 1: migrate-1 on ") {
		t.Fatalf("status %+v", st)
	}
}

// TestJobEnds: which container decides how a try ended.
func TestJobEnds(t *testing.T) {
	exit := func(name string, code int, at int) api.ContainerStatus {
		x := &api.Exit{Code: code, Reason: api.ExitCompleted, FinishedAt: start.Add(time.Duration(at) * time.Second)}
		if code != 0 {
			x.Reason = api.ExitError
		}
		return api.ContainerStatus{Name: name, State: api.ContainerExited, LastExit: x}
	}
	r := &revision{Revision: api.Revision{Template: api.Template{InitContainers: []api.Container{{Name: "init"}}, Sidecars: []api.Container{{Name: "proxy"}},
		Containers: []api.Container{{Name: "one"}, {Name: "two"}}}}}
	killed := exit("two", 137, 2)
	killed.LastExit.OOM = true
	for _, x := range []struct {
		name   string
		of     []api.ContainerStatus
		who    string
		reason string
	}{
		{"all well", []api.ContainerStatus{exit("one", 0, 1), exit("two", 0, 2)}, "one", api.ExitCompleted},
		{"a sidecar that was stopped afterwards", []api.ContainerStatus{exit("proxy", 143, 3), exit("one", 0, 1), exit("two", 0, 2)}, "one", api.ExitCompleted},
		{"one of them not", []api.ContainerStatus{exit("one", 0, 1), exit("two", 2, 2)}, "two", api.ExitError},
		{"the first of two", []api.ContainerStatus{exit("one", 1, 3), exit("two", 2, 2)}, "two", api.ExitError},
		{"want of memory", []api.ContainerStatus{exit("one", 0, 1), killed}, "two", api.ExitError},
		{"an init container", []api.ContainerStatus{exit("init", 1, 1)}, "init", api.ExitError},
		{"a sidecar that they waited for", []api.ContainerStatus{exit("proxy", 1, 1), {Name: "one", State: api.ContainerWaiting}, {Name: "two", State: api.ContainerWaiting}}, "proxy", api.ExitError},
		{"nobody told of one", []api.ContainerStatus{exit("one", 0, 1), {Name: "two", State: api.ContainerExited}}, "one", api.ExitError},
		{"nor of any", nil, "one", api.ExitError},
	} {
		who, how, well := r.howEnded(api.ReplicaStatus{Phase: api.PhaseFailed, Containers: x.of})
		if who != x.who || how.Reason != x.reason || well != (x.reason == api.ExitCompleted) {
			t.Errorf("%s: %s %+v, well %t, want %s %s", x.name, who, how, well, x.who, x.reason)
		}
	}
}

// TestJobDryRun says what would begin, and what would find no node.
func TestJobDryRun(t *testing.T) {
	w := newWorks(t, "n1")
	j := migrate(3, 2, 0)
	j.Spec.Containers[0].Resources.Requests = api.ResourceList{api.CPU: api.Whole(3)}
	before := len(w.kv)
	w.ticket++
	w.step(Apply{Ticket: w.ticket, Jobs: []*api.Job{j}, DryRun: true})
	w.turn()
	got := w.replies[w.ticket].Value.(ApplyResult).Applied[0]
	if len(got.Plan) != 3 || got.Plan[0] != "Create default/migrate-0 revision 1: index 0 of 3" || !strings.HasPrefix(got.Plan[2], "migrate-1 would be pending: ") {
		t.Errorf("plan %q", got.Plan)
	}
	if len(w.core.services) != 0 || len(w.kv) != before {
		t.Errorf("something is left of it: %d keys, %d before", len(w.kv), before)
	}
}

// TestJobLarge: what a large job leaves is deleted in parts, and a leader that comes in
// between goes on with it.
func TestJobLarge(t *testing.T) {
	w := newWorks(t, "n1", "n2", "n3")
	w.applyJob(migrate(180, 60, 0))
	for range 200 {
		if w.job().Status.Ended() {
			break
		}
		for i := range 180 {
			if w.outcome(i) == nil && slices.ContainsFunc(w.tries(), func(s string) bool { return strings.HasPrefix(s, fmt.Sprintf("migrate-%d on", i)) }) {
				w.end(i, "", 0)
			}
		}
	}
	if st := w.job().Status; st.State != api.JobComplete || st.Succeeded != 180 {
		t.Fatalf("status %+v", st)
	}
	w.conf.Limits.MaxOps, w.conf.Limits.MaxBytes = 64, 1<<20
	w.elect()
	w.node("n1", "boot-n1")
	w.commits = false
	w.ticket++
	w.step(Delete{Ticket: w.ticket, Refs: []api.Ref{{Kind: api.KindJob, Key: api.Key{Namespace: "default", Name: "migrate"}}}})
	for range 3 { // some of it
		w.do(w.core.Turn(w.now))
		for out := w.out; len(out) > 0; out = out[1:] {
			w.out = w.out[1:]
			w.commit(out[0])
		}
	}
	left := 0
	for k := range w.kv {
		if strings.HasPrefix(k, outcomePrefix) {
			left++
		}
	}
	if left == 0 || left == 180 {
		t.Fatalf("%d outcomes are left when the leader ends: the test wants some", left)
	}
	w.commits = true
	w.elect()
	w.node("n1", "boot-n1")
	w.pass(time.Second)
	for k := range w.kv {
		if strings.Contains(k, "/migrate") && !strings.HasPrefix(k, eventPrefix) {
			t.Fatalf("%s is left in the store", k)
		}
	}
}
