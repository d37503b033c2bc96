package reconciler

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
)

var jobNow = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// try is a filling of a job; its words change what is usual of one that runs.
func try(index int, epoch uint64, node string, words ...string) Filling {
	f := Filling{Key: api.ReplicaKey{Namespace: "default", Service: "job", Slot: index, Epoch: epoch}, Revision: 1, Node: node,
		Verdict: api.VerdictHealthy, Phase: api.PhaseRunning}
	for _, w := range words {
		switch w {
		case "ok":
			f.Phase, f.Succeeded = api.PhaseStopped, true
		case "failed":
			f.Phase = api.PhaseFailed
		case "assigned":
			f.Phase = api.PhaseAssigned
		case "stopping":
			f.Stopping = true
		case "spare":
			f.Spare = true
		case "suspect":
			f.Verdict = api.VerdictSuspect
		case "dead":
			f.Verdict = api.VerdictDead
		case "lost":
			f.Verdict = api.VerdictAgentLost
		case "relieve":
			f.Verdict, f.Relieve = api.VerdictAgentLost, "its agent is lost for long"
		case "back":
			f.Verdict = api.VerdictBack
		case "damped":
			f.Damped = true
		case "overdue":
			f.Overdue = true
		default:
			panic(w)
		}
	}
	return f
}

func TestPlanJob(t *testing.T) {
	base := func(change func(v *JobView)) JobView {
		v := JobView{Job: api.Key{Namespace: "default", Name: "job"}, State: api.JobRunning, Completions: 4, Parallelism: 2, MayFail: 2,
			BackOff: time.Second, MaxBackOff: 10 * time.Second}
		change(&v)
		return v
	}
	done := func(of ...int) (x Indexes) {
		for _, i := range of {
			x.Add(i)
		}
		return x
	}
	failed := func(index, failures int, ago time.Duration) FailedIndex {
		return FailedIndex{Index: index, Failures: failures, At: jobNow.Add(-ago), Node: "n1"}
	}
	for _, x := range []struct {
		name string
		view JobView
		want []string // ends, actions, then a state that is not Running
		wake time.Duration
	}{
		{"begins with the lowest", base(func(v *JobView) {}),
			[]string{"Create default/job-0 revision 1: index 0 of 4", "Create default/job-1 revision 1: index 1 of 4"}, 0},
		{"passes over what is completed and what runs", base(func(v *JobView) { v.Done, v.Fillings = done(0, 2), []Filling{try(1, 1, "n1")} }),
			[]string{"Create default/job-3 revision 1: index 3 of 4"}, 0},
		{"a success is counted and the next begins", base(func(v *JobView) { v.Fillings = []Filling{try(0, 1, "n1", "ok"), try(1, 2, "n2")} }),
			[]string{"job-0@1 succeeded", "Create default/job-2 revision 1: index 2 of 4"}, 0},
		{"a failure is counted and waits for its back-off", base(func(v *JobView) { v.Fillings = []Filling{try(0, 1, "n1", "failed"), try(1, 2, "n2")} }),
			[]string{"job-0@1 failed", "Create default/job-2 revision 1: index 2 of 4"}, time.Second},
		{"what failed is tried again, rather elsewhere", base(func(v *JobView) {
			v.Failed, v.Failures = []FailedIndex{failed(0, 2, 2*time.Second)}, 2
			v.Parallelism = 1
		}),
			[]string{"Create default/job-0 revision 1, rather not on n1: index 0 of 4, after 2 tries that failed"}, 0},
		{"the back-off doubles", base(func(v *JobView) {
			v.Failed, v.Failures, v.Completions = []FailedIndex{failed(0, 2, 1500*time.Millisecond)}, 2, 1
		}), nil, 500 * time.Millisecond},
		{"up to its most", base(func(v *JobView) {
			v.Failed, v.Failures, v.MayFail, v.Completions = []FailedIndex{failed(0, 900, 4*time.Second)}, 900, 1000, 1
		}), nil, 6 * time.Second},
		{"one more failure than may be", base(func(v *JobView) {
			v.Failures, v.Fillings = 2, []Filling{try(0, 1, "n1", "failed"), try(1, 2, "n2"), try(2, 3, "n3", "suspect")}
		}), []string{"job-0@1 failed", "Remove default/job-1@2 revision 1: the job has failed", "Remove default/job-2@3 revision 1: the job has failed",
			"Failed: 3 tries failed, backoffLimit is 2"}, 0},
		{"what completes the last is not undone by what failed beside it", base(func(v *JobView) {
			v.Done, v.MayFail = done(0, 1, 2), 0
			v.Fillings = []Filling{try(3, 1, "n1", "failed"), try(3, 2, "n2", "ok", "spare")}
		}), []string{"job-3@2 succeeded", "Remove default/job-3@1 revision 1: the job is complete", "Complete"}, 0},
		{"two that end at once are one completion", base(func(v *JobView) {
			v.Completions, v.Fillings = 1, []Filling{try(0, 1, "n1", "ok"), try(0, 2, "n2", "ok", "spare")}
		}), []string{"job-0@1 succeeded", "Remove default/job-0@2 revision 1: the job is complete", "Complete"}, 0},
		{"the first that ends stops the other", base(func(v *JobView) {
			v.Completions, v.Done, v.Fillings = 2, done(1), []Filling{try(0, 1, "n1", "suspect"), try(0, 2, "n2", "ok", "spare")}
		}), []string{"job-0@2 succeeded", "Remove default/job-0@1 revision 1: the job is complete", "Complete"}, 0},
		{"what was told to stop did neither", base(func(v *JobView) {
			v.Parallelism, v.Fillings = 1, []Filling{try(0, 1, "n1", "ok", "stopping"), try(1, 2, "n1", "failed", "stopping"), try(2, 3, "n1")}
		}), nil, 0},
		{"the deadline", base(func(v *JobView) {
			v.Deadline, v.Done, v.Fillings = jobNow, done(0), []Filling{try(1, 2, "n1")}
		}), []string{"Remove default/job-1@2 revision 1: the job has failed", "Failed: its deadline has passed: 1 of 4 indexes are completed"}, 0},
		{"a deadline to come", base(func(v *JobView) {
			v.Deadline, v.Parallelism, v.Fillings = jobNow.Add(time.Minute), 1, []Filling{try(0, 2, "n1")}
		}), nil, time.Minute},
		{"deleted", base(func(v *JobView) {
			v.Deleting, v.Fillings = true, []Filling{try(0, 1, "n1", "lost"), try(1, 2, "n1", "stopping")}
		}),
			[]string{"Remove default/job-0@1 revision 1: the job is deleted"}, 0},
		{"an ended job begins nothing", base(func(v *JobView) { v.State = api.JobFailed }), []string{"Failed"}, 0},
		{"a dead node's is begun anew, and has not failed", base(func(v *JobView) { v.Parallelism, v.Fillings = 1, []Filling{try(0, 1, "n1", "dead")} }),
			[]string{"Void default/job-0@1 revision 1: n1 is dead", "Create default/job-0 revision 1: index 0 of 4"}, 0},
		{"a suspect node's has a spare, which is not counted", base(func(v *JobView) {
			v.Parallelism, v.Fillings = 1, []Filling{try(0, 1, "n1", "suspect")}
		}),
			[]string{"Create default/job-0 revision 1 spare, not on n1: n1 suspect: job-0@1 cannot be reached"}, 0},
		{"which waits for the back-off of one before", base(func(v *JobView) {
			v.Completions, v.Failed, v.Fillings = 1, []FailedIndex{failed(0, 1, 400*time.Millisecond)}, []Filling{try(0, 1, "n1", "suspect")}
		}), nil, 600 * time.Millisecond},
		{"a relieved one runs on beside its spare", base(func(v *JobView) {
			v.Parallelism, v.Fillings = 1, []Filling{try(0, 1, "n1", "relieve"), try(0, 2, "n2", "spare")}
		}), nil, 0},
		{"what is back and runs stays", base(func(v *JobView) {
			v.Parallelism, v.Fillings = 1, []Filling{try(0, 1, "n1", "back"), try(0, 2, "n2", "spare")}
		}), []string{"Remove default/job-0@2 revision 1: incumbent on n1 is back and runs"}, 0},
		{"but not before it has said so", base(func(v *JobView) {
			v.Parallelism, v.Fillings = 1, []Filling{try(0, 1, "n1", "back", "assigned"), try(0, 2, "n2", "spare")}
		}), nil, 0},
		{"and both do where its node comes and goes", base(func(v *JobView) {
			v.Parallelism, v.Fillings = 1, []Filling{try(0, 1, "n1", "back", "damped"), try(0, 2, "n2", "spare")}
		}), nil, 0},
		{"a spare is what is left", base(func(v *JobView) {
			v.Parallelism, v.Fillings = 1, []Filling{try(0, 1, "n1", "dead"), try(0, 2, "n2", "spare")}
		}), []string{"Void default/job-0@1 revision 1: n1 is dead", "Adopt default/job-0@2 revision 1: job-0@1 is void: n1 is dead"}, 0},
		{"what was to be gone by now begins anew when it is", base(func(v *JobView) {
			v.Parallelism, v.Fillings = 1, []Filling{try(0, 1, "n1", "overdue")}
		}), []string{"Remove default/job-0@1 revision 1: n1 was to be empty by now: it begins anew elsewhere"}, 0},
	} {
		t.Run(x.name, func(t *testing.T) {
			d := PlanJob(x.view, jobNow)
			var got []string
			for _, e := range d.Ends {
				got = append(got, fmt.Sprintf("%s@%d %s", e.Key.Name(), e.Key.Epoch, map[bool]string{true: "succeeded", false: "failed"}[e.Succeeded]))
			}
			for _, a := range d.Actions {
				got = append(got, a.String())
			}
			switch {
			case d.Why != "":
				got = append(got, fmt.Sprintf("%s: %s", d.State, d.Why))
			case d.State != api.JobRunning:
				got = append(got, string(d.State))
			}
			if !slices.Equal(got, x.want) {
				t.Errorf("got\n%q\nwant\n%q", got, x.want)
			}
			wake := time.Duration(0)
			if !d.Wake.IsZero() {
				wake = d.Wake.Sub(jobNow)
			}
			if wake != x.wake {
				t.Errorf("wakes in %s, want %s", wake, x.wake)
			}
		})
	}
}

func TestIndexes(t *testing.T) {
	var x Indexes
	for _, i := range []int{0, 1, 63, 64, 130} {
		x.Add(i)
	}
	for from, want := range map[int]int{0: 2, 2: 2, 62: 62, 63: 65, 64: 65, 130: 131, 131: 131, 500: 500} {
		if got := x.Without(from); got != want {
			t.Errorf("without from %d: %d, want %d", from, got, want)
		}
	}
	if x.Count() != 5 || !x.Has(130) || x.Has(129) || x.Has(9999) {
		t.Errorf("%v counts %d", x, x.Count())
	}
	full := Indexes{^uint64(0), ^uint64(0)}
	if got := full.Without(5); got != 128 {
		t.Errorf("a full one gives %d, want 128", got)
	}
}

// BenchmarkPlanJob: one completion of a large job.
func BenchmarkPlanJob(b *testing.B) {
	v := JobView{Job: api.Key{Namespace: "default", Name: "job"}, State: api.JobRunning, Completions: 10_000, Parallelism: 100, MayFail: 6,
		BackOff: time.Second, MaxBackOff: time.Minute}
	for i := 1; i < 9_000; i++ { // the first is the slowest
		v.Done.Add(i)
	}
	v.Fillings = append(v.Fillings, try(0, 1, "n1"))
	for i := range 99 {
		v.Fillings = append(v.Fillings, try(9_000+i, uint64(9_000+i), "n1"))
	}
	v.Fillings[50].Phase, v.Fillings[50].Succeeded = api.PhaseStopped, true
	for b.Loop() {
		PlanJob(v, jobNow)
	}
}
