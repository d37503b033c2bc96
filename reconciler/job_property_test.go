package reconciler

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
	"pgregory.net/rapid"
)

// jobModel is a job among nodes, to which plans are applied.
type jobModel struct {
	view    JobView
	now     time.Time
	verdict map[string]api.Verdict
	epoch   uint64
	ended   map[int]int // how often each index was completed
	// refused are the indexes that the last plan found no node for: it asks again.
	refused map[int]bool
}

var jobNodes = []string{"n1", "n2", "n3"}

// TestJobProperties lets nodes and tries do what they may, and checks every plan: no index
// is begun or completed that is, never are more active than may be, the lowest come first,
// and planning what was applied plans nothing (I10). Then all calms down, and the job is
// complete with each index completed once, or has failed for as many failures as it takes.
func TestJobProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &jobModel{now: jobNow, verdict: map[string]api.Verdict{}, ended: map[int]int{}}
		n := rapid.IntRange(1, 70).Draw(t, "completions")
		m.view = JobView{Job: api.Key{Namespace: "default", Name: "job"}, State: api.JobRunning, Completions: n, Parallelism: rapid.IntRange(1, min(5, n)).Draw(t, "parallelism"),
			MayFail: rapid.SampledFrom([]int{0, 3, 1000}).Draw(t, "backoffLimit"), BackOff: time.Second, MaxBackOff: 4 * time.Second}
		if rapid.IntRange(0, 3).Draw(t, "deadline") == 0 {
			m.view.Deadline = jobNow.Add(time.Minute)
		}
		for _, node := range jobNodes {
			m.verdict[node] = api.VerdictHealthy
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			m.disturb(t)
			m.step(t)
		}
		for _, node := range jobNodes {
			m.verdict[node] = api.VerdictHealthy
		}
		for range 20 * n {
			for i := range m.view.Fillings {
				f := &m.view.Fillings[i]
				f.Relieve, f.Overdue, f.Damped = "", false, false
				if !f.Stopping && !f.ended() {
					f.Phase, f.Succeeded = api.PhaseStopped, true
				}
			}
			m.view.Fillings = slices.DeleteFunc(m.view.Fillings, func(f Filling) bool { return f.Stopping })
			m.now = m.now.Add(time.Second)
			m.step(t)
			if m.view.State != api.JobRunning && len(m.view.Fillings) == 0 {
				break
			}
		}
		m.over(t)
	})
}

func (m *jobModel) over(t *rapid.T) {
	switch v := m.view; {
	case v.State == api.JobRunning || len(v.Fillings) > 0:
		t.Fatalf("it does not come to an end: %+v", v)
	case v.State == api.JobComplete && v.Done.Count() != v.Completions:
		t.Fatalf("complete with %d of %d", v.Done.Count(), v.Completions)
	case v.State == api.JobFailed && v.Failures <= v.MayFail && (v.Deadline.IsZero() || v.Deadline.After(m.now)):
		t.Fatalf("failed after %d tries, of which %d may fail", v.Failures, v.MayFail)
	}
	for index, times := range m.ended {
		if times != 1 {
			t.Fatalf("index %d was completed %d times", index, times)
		}
	}
}

func (m *jobModel) disturb(t *rapid.T) {
	some := func(do func(f *Filling)) {
		if len(m.view.Fillings) > 0 {
			do(&m.view.Fillings[rapid.IntRange(0, len(m.view.Fillings)-1).Draw(t, "filling")])
		}
	}
	switch rapid.IntRange(0, 9).Draw(t, "what") {
	case 0, 1, 2: // a try ends; more may before the next plan
		for range rapid.IntRange(1, 3).Draw(t, "ends") {
			some(func(f *Filling) {
				if f.heard() && !f.ended() {
					f.Phase, f.Succeeded = api.PhaseFailed, rapid.Bool().Draw(t, "succeeded")
				}
			})
		}
	case 3:
		some(func(f *Filling) {
			if f.heard() && f.Phase == api.PhaseAssigned {
				f.Phase = api.PhaseRunning
			}
		})
	case 4, 5: // a node changes; what was said of it before its return does not count
		node := rapid.SampledFrom(jobNodes).Draw(t, "node")
		v := rapid.SampledFrom([]api.Verdict{api.VerdictHealthy, api.VerdictSuspect, api.VerdictAgentLost, api.VerdictBack, api.VerdictDead, api.VerdictUnknown}).Draw(t, "verdict")
		m.verdict[node] = v
		for i := range m.view.Fillings {
			if f := &m.view.Fillings[i]; f.Node == node && !f.ended() {
				f.Relieve = ""
				if v == api.VerdictBack {
					f.Phase = api.PhaseAssigned
				}
			}
		}
	case 6:
		some(func(f *Filling) {
			if f.Verdict == api.VerdictAgentLost || f.heard() {
				f.Relieve = "it is to be"
			}
		})
	case 7:
		some(func(f *Filling) { f.Overdue = f.heard(); f.Damped = !f.Overdue })
	case 8:
		m.view.Fillings = slices.DeleteFunc(m.view.Fillings, func(f Filling) bool { return f.Stopping && f.heard() })
	case 9:
		m.now = m.now.Add(time.Duration(rapid.IntRange(100, 5000).Draw(t, "ms")) * time.Millisecond)
	}
	for i := range m.view.Fillings {
		m.view.Fillings[i].Verdict = m.verdict[m.view.Fillings[i].Node]
	}
}

func (m *jobModel) step(t *rapid.T) {
	before := m.view
	before.Fillings = slices.Clone(m.view.Fillings)
	d := PlanJob(m.view, m.now)
	if fmt.Sprint(m.view) != fmt.Sprint(before) {
		t.Fatalf("the view was changed")
	}
	m.apply(t, d)
	again := PlanJob(m.view, m.now)
	again.Actions = slices.DeleteFunc(again.Actions, func(a Action) bool { return a.Op == Create && m.refused[a.Key.Slot] })
	if len(again.Ends)+len(again.Actions) > 0 || again.State != m.view.State {
		t.Fatalf("planned again: %+v after %+v", again, d)
	}
}

func (m *jobModel) apply(t *rapid.T, d JobDecision) {
	v := &m.view
	at := func(k api.ReplicaKey) int {
		i := slices.IndexFunc(v.Fillings, func(f Filling) bool { return f.Key == k })
		if i < 0 {
			t.Fatalf("there is no %s", k)
		}
		return i
	}
	for _, e := range d.Ends {
		f := &v.Fillings[at(e.Key)]
		if f.Stopping || !f.ended() || f.Succeeded != e.Succeeded || v.Done.Has(f.Key.Slot) {
			t.Fatalf("%+v cannot end as %+v", f, e)
		}
		f.Stopping = true
		m.counted(f)
	}
	v.State = d.State
	for _, a := range d.Actions {
		switch a.Op {
		case Void:
			i := at(a.Key)
			v.Fillings = slices.Delete(v.Fillings, i, i+1)
		case Remove:
			v.Fillings[at(a.Key)].Stopping = true
		case Adopt:
			v.Fillings[at(a.Key)].Spare = false
		}
	}
	m.begin(t, d)
}

// counted keeps what the core writes of an end.
func (m *jobModel) counted(f *Filling) {
	v, index := &m.view, f.Key.Slot
	i, has := slices.BinarySearchFunc(v.Failed, index, func(x FailedIndex, n int) int { return x.Index - n })
	if f.Succeeded {
		v.Done = slices.Clone(v.Done)
		v.Done.Add(index)
		m.ended[index]++
		if has {
			v.Failed = slices.Delete(slices.Clone(v.Failed), i, i+1)
		}
		return
	}
	v.Failures++
	v.Failed = slices.Clone(v.Failed)
	if !has {
		v.Failed = slices.Insert(v.Failed, i, FailedIndex{Index: index})
	}
	v.Failed[i].Failures++
	v.Failed[i].At, v.Failed[i].Node = m.now, f.Node
}

// begin checks what is to be created, and places it.
func (m *jobModel) begin(t *rapid.T, d JobDecision) {
	v := &m.view
	filled := map[int]bool{} // by what may run
	for _, f := range v.Fillings {
		if !f.Stopping || !f.ended() && !v.Done.Has(f.Key.Slot) && !f.suspect() && (f.Relieve == "" || f.Overdue && f.heard()) {
			filled[f.Key.Slot] = true
		}
	}
	waits := func(index int) bool {
		i, has := slices.BinarySearchFunc(v.Failed, index, func(x FailedIndex, n int) int { return x.Index - n })
		delay := time.Second
		if has && v.Failed[i].Failures > 1 {
			delay = min(4*time.Second, time.Second<<min(v.Failed[i].Failures-1, 10))
		}
		return has && v.Failed[i].At.Add(delay).After(m.now)
	}
	begun := false
	m.refused = map[int]bool{}
	for _, a := range d.Actions {
		if a.Op != Create {
			continue
		}
		index := a.Key.Slot
		if v.State != api.JobRunning || v.Deleting || v.Done.Has(index) || index >= v.Completions || waits(index) || filled[index] != a.Spare {
			t.Fatalf("%s: may not be begun", a)
		}
		for _, f := range v.Fillings {
			if a.Spare && f.Key.Slot == index && !f.Stopping && (f.Verdict != api.VerdictSuspect && f.Relieve == "" || !slices.Contains(a.Avoid, f.Node)) {
				t.Fatalf("%s stands in for what needs none, or beside it: %+v", a, f)
			}
		}
		for lower := 0; lower < index && !a.Spare; lower++ {
			if !v.Done.Has(lower) && !filled[lower] && !waits(lower) {
				t.Fatalf("%s: index %d comes first", a, lower)
			}
		}
		begun = begun || !a.Spare
		filled[index] = true
		m.epoch++
		a.Key.Epoch = m.epoch
		node := jobNodes[(index+int(m.epoch))%len(jobNodes)]
		for _, x := range jobNodes {
			if m.verdict[x] == api.VerdictHealthy && !slices.Contains(a.Avoid, x) {
				node = x
			}
		}
		if m.verdict[node] != api.VerdictHealthy {
			m.refused[index] = true
			continue
		}
		v.Fillings = append(v.Fillings, Filling{Key: a.Key, Revision: 1, Node: node, Verdict: m.verdict[node], Phase: api.PhaseAssigned, Spare: a.Spare})
	}
	if begun && len(filled) > v.Parallelism {
		t.Fatalf("%d indexes are active, and one was begun: at most %d may be", len(filled), v.Parallelism)
	}
}
