package api

import (
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/controller/view"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

func job(name, uid string, state api.JobState) core.Entry {
	x := &api.Job{Metadata: api.Metadata{Name: name, UID: uid}}
	x.Spec.Containers = []api.Container{{Name: "c0", Image: "a:1"}}
	x.Default()
	x.Status.State = state
	return core.Entry{Key: core.ViewKey{Kind: api.KindJob, Namespace: "default", Name: name}, Object: x}
}

func outcome(uid string, index int, epoch uint64, node, output string) core.Entry {
	o := &api.Outcome{Metadata: api.Metadata{Name: api.OutcomeName("migrate", index), Namespace: "default"}, Job: "migrate", JobUID: uid, Index: index, Succeeded: true,
		Epoch: epoch, Node: node, Container: "c0", Exit: api.Exit{Output: output, FinishedAt: time.Now().Add(-time.Minute)}}
	return core.Entry{Key: core.ViewKey{Kind: api.KindOutcome, Namespace: "default", Name: o.Metadata.Name}, Object: o}
}

// jobWorld has a job whose index 0 runs, of whose index 1 the store knows the outcome,
// and of whose index 2 the leader remembers the end.
func jobWorld() *logWorld {
	w := newLogWorld()
	w.p.Put = append(w.p.Put, job("migrate", "j2", api.JobRunning), outcome("j2", 1, 20, "n2", "well done"), outcome("j1", 3, 4, "n2", "another job's"))
	w.replica("n1", "migrate", 0, 21, api.PhaseRunning)
	w.answers["n1 migrate-0@21"] = wrote("at work")
	w.answers["n2 migrate-1@20"], w.answers["n2 migrate-2@19"], w.answers["n2 migrate-2@18"] = nothing(), nothing(), wrote("a try before")
	for epoch, output := range map[uint64]string{18: "older", 19: "newer"} {
		x := told("n2", 2, epoch, output, time.Minute)
		x.Replica.Service, x.ServiceUID = "migrate", "j2"
		w.leader.words = append(w.leader.words, x)
	}
	return w
}

// TestJobLogs: what a job's replicas wrote is there when they have ended, unasked.
func TestJobLogs(t *testing.T) {
	const gone = "n2 has nothing of it any more: the last 1 KiB that it told the leader; "
	one := []string{"migrate-1@20: begun", "migrate-1@20: note: " + gone + "exit code 0, 1m0s ago", "migrate-1@20: well done"}
	two := []string{"migrate-2@19: begun", "migrate-2@19: note: " + gone + "exit code 137, killed for want of memory (limit 64Mi, peak 64Mi), 1m0s ago", "migrate-2@19: newer"}
	for _, c := range []struct {
		name  string
		ask   *orchv1.LogsRequest
		world func(*logWorld)
		want  []string
		code  codes.Code
		says  string
		takes time.Duration
	}{
		{name: "all", ask: &orchv1.LogsRequest{Service: "migrate", Tail: -1},
			want: slices.Concat([]string{"migrate-0@21: begun", "migrate-0@21: at work"}, one, two)},
		{name: "from a node that has it all", ask: &orchv1.LogsRequest{Service: "migrate", Tail: -1},
			world: func(w *logWorld) { w.answers["n2 migrate-1@20"] = wrote("all", "of it") },
			want:  slices.Concat([]string{"migrate-0@21: begun", "migrate-0@21: at work", "migrate-1@20: begun", "migrate-1@20: all", "migrate-1@20: of it"}, two)},
		{name: "a leader that does not answer", ask: &orchv1.LogsRequest{Service: "migrate", Tail: -1},
			world: func(w *logWorld) { w.leader.forgot = true },
			want:  slices.Concat([]string{"migrate-0@21: begun", "migrate-0@21: at work"}, one[:1], []string{strings.Replace(one[1], "1m0s", "1m6s", 1)}, one[2:]), takes: 2 * recallMax},
		{name: "one index", ask: &orchv1.LogsRequest{Replica: "migrate-1", Tail: -1}, want: one},
		{name: "the newest try of an index", ask: &orchv1.LogsRequest{Replica: "default/migrate-2", Tail: -1}, want: two},
		{name: "a try by its epoch", ask: &orchv1.LogsRequest{Replica: "migrate-2@18", Tail: -1}, want: []string{"migrate-2@18: begun", "migrate-2@18: a try before"}},
		{name: "an index that is not begun", ask: &orchv1.LogsRequest{Replica: "migrate-7", Tail: -1}, code: codes.NotFound, says: "migrate-7: not found"},
		{name: "no such job", ask: &orchv1.LogsRequest{Service: "migrat", Tail: -1}, code: codes.NotFound, says: "service default/migrat: not found, and there is no job of that name"},
		{name: "too many", ask: &orchv1.LogsRequest{Service: "migrate", Tail: -1}, world: func(w *logWorld) {
			for i := range logStreamsMax {
				w.p.Put = append(w.p.Put, outcome("j2", 10+i, uint64(100+i), "n2", ""))
			}
		}, code: codes.InvalidArgument, says: "job default/migrate has 203 replicas: the logs of at most 200 can be read at once; name a replica, such as migrate-0"},
		{name: "followed when it has ended", ask: &orchv1.LogsRequest{Service: "migrate", Follow: true, Tail: -1},
			world: func(w *logWorld) { w.p.Put = append(w.p.Put, job("migrate", "j2", api.JobComplete)) },
			want:  slices.Concat([]string{"migrate-0@21: begun", "migrate-0@21: at work"}, one, two)},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := jobWorld()
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

// TestAJobIsFollowedToItsEnd: whatever begins meanwhile is read, and when the job has
// ended and all is read, that is the end.
func TestAJobIsFollowedToItsEnd(t *testing.T) {
	for name, end := range map[string]func(*logWorld) core.Publish{
		"complete": func(w *logWorld) core.Publish {
			return core.Publish{Put: []core.Entry{job("migrate", "j2", api.JobComplete)}}
		},
		"failed": func(w *logWorld) core.Publish {
			return core.Publish{Put: []core.Entry{job("migrate", "j2", api.JobFailed)}}
		},
		"deleted": func(w *logWorld) core.Publish {
			return core.Publish{Gone: []core.ViewKey{{Kind: api.KindJob, Namespace: "default", Name: "migrate"}}}
		},
		"another of its name": func(w *logWorld) core.Publish {
			return core.Publish{Put: []core.Entry{job("migrate", "j3", api.JobRunning)}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := jobWorld()
				w.answers["n1 migrate-4@30"], w.answers["n1 migrate-5@31"] = wrote("later"), wrote("last")
				v := view.New()
				v.Publish(w.p)
				s := &Server{cfg: Config{Leader: &w.leader, View: v, Log: slog.New(slog.DiscardHandler)}, open: w.agents.open}
				p := newPipe[*orchv1.LogLine](t.Context())
				done := make(chan error, 1)
				go func() { done <- s.Logs(&orchv1.LogsRequest{Service: "migrate", Follow: true, Tail: -1}, p) }()
				add := func(slot int, epoch uint64) {
					w.p = core.Publish{}
					w.replica("n1", "migrate", slot, epoch, api.PhaseRunning)
					v.Publish(w.p)
				}
				time.Sleep(time.Minute)
				add(4, 30)
				time.Sleep(time.Minute)
				select {
				case err := <-done:
					t.Fatalf("ended before the job: %v", err)
				default:
				}
				add(5, 31)
				v.Publish(end(w))
				synctest.Wait()
				select {
				case err := <-done:
					if err != nil {
						t.Error(err)
					}
				default:
					t.Fatal("the job has ended, and it is still followed")
				}
				got := strings.Join(said(p.out), "\n")
				for _, line := range []string{"migrate-0@21: at work", "migrate-1@20: well done", "migrate-4@30: later", "migrate-5@31: last"} {
					if strings.Count(got, line) != 1 {
						t.Errorf("%q is not there once:\n%s", line, got)
					}
				}
			})
		})
	}
}
