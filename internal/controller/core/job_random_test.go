package core

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/store"
	"github.com/orchctl/orch/internal/wire"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// ledger looks at the store after each transaction: an index that is completed stays so,
// as it was written, and gets no filling any more; and what has an outcome is stopping.
type ledger struct {
	w         *works
	succeeded map[string][]byte // outcomes by key, as first written
	epochs    map[int]uint64    // by index: no filling beyond that one
}

func (l *ledger) look() {
	l.w.t.Helper()
	highest := uint64(0)
	runs := map[uint64]bool{} // epochs that are not stopping
	fillings := map[int][]uint64{}
	for k := range l.w.kv {
		if rest, ok := strings.CutPrefix(k, placementPrefix+"default/migrate/"); ok {
			var index int
			var epoch uint64
			if _, err := fmt.Sscanf(rest, "%d/%d", &index, &epoch); err != nil {
				l.w.t.Fatal(err)
			}
			fillings[index] = append(fillings[index], epoch)
			highest = max(highest, epoch)
			var p orchv1.Placement
			if err := proto.Unmarshal(l.w.kv[k], &p); err != nil {
				l.w.t.Fatal(err)
			}
			runs[epoch] = !p.Stopping
		}
	}
	for k, v := range l.w.kv {
		if !strings.HasPrefix(k, outcomePrefix) {
			continue
		}
		var o api.Outcome
		if err := openEnvelope(v, &o); err != nil {
			l.w.t.Fatal(err)
		}
		if runs[o.Epoch] {
			l.w.t.Fatalf("index %d has an outcome of epoch %d, which is not stopping", o.Index, o.Epoch)
		}
		if was := l.succeeded[k]; was != nil && !bytes.Equal(was, v) {
			l.w.t.Fatalf("index %d was completed, and its outcome is written again: %+v", o.Index, o)
		}
		if o.Succeeded && l.succeeded[k] == nil {
			l.succeeded[k], l.epochs[o.Index] = v, highest
			if !slices.Contains(fillings[o.Index], o.Epoch) {
				l.w.t.Fatalf("index %d is completed by epoch %d, which the store does not hold", o.Index, o.Epoch)
			}
		}
	}
	for index, last := range l.epochs {
		for _, epoch := range fillings[index] {
			if epoch > last {
				l.w.t.Fatalf("index %d is completed and was given a filling with epoch %d", index, epoch)
			}
		}
	}
	for k := range l.succeeded {
		if _, there := l.w.kv[k]; !there {
			l.w.t.Fatalf("%s is gone", k)
		}
	}
}

// TestJobExactly does at random to a job and its fleet what may happen to them: whatever
// that was, each index is completed once, and the job with the last.
func TestJobExactly(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			w := newWorks(t, "n1", "n2", "n3", "n4")
			w.conf.Limits = store.Limits{MaxOps: 16, MaxBytes: 1 << 20} // so that writes part where they can
			w.elect()
			l := &ledger{w: w, succeeded: map[string][]byte{}, epochs: map[int]uint64{}}
			w.committed = l.look
			completions := 1 + r.IntN(12)
			job := migrate(completions, 1+r.IntN(5), api.MaxBackoffLimit)
			backOff := api.Duration(100 * time.Millisecond)
			job.Spec.RestartPolicy.BackOff = &backOff
			w.applyJob(job)
			boots := 0
			for range 60 {
				w.happens(r, &boots)
				if n := w.active(); n > job.Spec.AtOnce() {
					t.Fatalf("%d indexes are active, at most %d may be: %v", n, job.Spec.AtOnce(), w.tries())
				}
			}
			w.calm()
			for range 200 {
				if w.job().Status.Ended() {
					break
				}
				for _, name := range slices.Sorted(maps.Keys(w.agents)) {
					for k := range w.agents[name].holds {
						w.ends[k] = 0
					}
					w.reportAll(w.agents[name])
				}
				w.pass(500 * time.Millisecond)
			}
			if st := w.job().Status; st.State != api.JobComplete || st.Succeeded != completions || len(l.succeeded) != completions || st.Active != 0 {
				t.Fatalf("%d outcomes of %d; status %+v; %v", len(l.succeeded), completions, st, w.tries())
			}
			w.pass(time.Second)
			if w.running() != 0 || len(w.core.fillings) != 0 {
				t.Fatalf("something runs on: %v", w.core.fillings)
			}
		})
	}
}

// active counts indexes that something fills which may run, spares apart.
func (w *works) active() int {
	at := map[int]bool{}
	for _, f := range w.core.fillings {
		if !f.spare && !f.stopping && !f.void {
			at[f.key.Slot] = true
		}
	}
	return len(at)
}

// happens lets one thing happen.
func (w *works) happens(r *rand.Rand, boots *int) {
	w.t.Helper()
	name := fmt.Sprintf("n%d", 1+r.IntN(4))
	a := w.agents[name]
	some := func() (api.ReplicaKey, bool) {
		keys := slices.SortedFunc(maps.Keys(a.holds), compareReplicas)
		if len(keys) == 0 {
			return api.ReplicaKey{}, false
		}
		return keys[r.IntN(len(keys))], true
	}
	tell := func() {
		if !a.silent && a.session != 0 {
			w.step(Status{Node: name, Session: a.session, Report: wire.StatusReport{Replicas: w.reports(a)}})
		}
	}
	switch r.IntN(13) {
	case 0, 1, 2: // a try ends well
		if k, ok := some(); ok {
			if _, ended := w.ends[k]; !ended {
				w.ends[k] = 0
			}
			tell()
		}
	case 3: // or not
		if k, ok := some(); ok {
			if _, ended := w.ends[k]; !ended {
				w.ends[k] = 1
			}
			tell()
		}
	case 4: // it is said again
		tell()
		tell()
	case 5: // a node falls silent
		a.silent, a.hostUp = true, false
		w.pass(2 * time.Second)
	case 6: // its agent does
		a.silent, a.hostUp = true, true
		w.step(SessionClosed{Node: name, Session: a.session})
		w.pass(2 * time.Second)
	case 7: // the session ends, and another begins
		w.step(SessionClosed{Node: name, Session: a.session})
		w.node(name, a.boot)
	case 8: // the machine boots
		*boots++
		w.node(name, fmt.Sprintf("boot-%s-%d", name, *boots))
	case 9: // the leader ends, with or without what it was about to commit
		w.commits = false
		if k, ok := some(); ok && w.ends[k] == 0 {
			w.ends[k] = 0
		}
		tell()
		w.do(w.core.Turn(w.now))
		out := w.out
		w.commits = true
		if r.IntN(2) == 0 {
			for _, e := range out {
				w.commit(e)
			}
		}
		w.elect()
		w.turn()
		for _, i := range r.Perm(4)[:r.IntN(5)] {
			if x := w.agents[fmt.Sprintf("n%d", i+1)]; !x.silent {
				w.node(x.name, x.boot)
			}
		}
	case 10:
		if err := w.word(name, "dead"); err != nil {
			w.t.Fatal(err)
		}
	case 11:
		w.pass(time.Duration(r.IntN(40)) * time.Second)
	case 12:
		w.returns(a)
	}
	w.turn()
}

// returns has an agent that is silent, or has no session, dial.
func (w *works) returns(a *agent) {
	if a.silent || a.session == 0 {
		w.node(a.name, a.boot)
	}
}

// calm ends all faults.
func (w *works) calm() {
	for _, name := range slices.Sorted(maps.Keys(w.agents)) {
		w.node(name, w.agents[name].boot)
	}
	w.pass(2 * time.Second)
}
