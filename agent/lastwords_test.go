package agent

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/orchctl/orch/agent/logs"
	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// logs reads a container's output as the leader does: what was said before the lines,
// and the lines, in order.
func (r *rig) logs(l *leader, open *orchv1.LogsOpen) ([]string, *orchv1.End) {
	r.t.Helper()
	open.Tail = -1
	frames, end := r.relay(l, &orchv1.OpenRelay{Request: &orchv1.OpenRelay_Logs{Logs: open}})
	var got []string
	for _, f := range frames {
		switch x := f.GetLog(); {
		case x.GetBegun():
			got = append(got, "begun")
		case x.GetNote() != "":
			got = append(got, "note: "+x.GetNote())
		default:
			got = append(got, string(x.GetText()))
		}
	}
	return got, end
}

func TestPreviousLogs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		l := r.next(10)
		l.assign(t, wire.AssignmentSet{Complete: true, Put: []wire.Assignment{web(web0)}})
		l.hear(ready)
		want := func(previous bool, want ...string) {
			t.Helper()
			got, end := r.logs(l, &orchv1.LogsOpen{Replica: wire.KeyToPB(web0), Previous: previous})
			if !slices.Equal(got, want) || end.GetError() != "" {
				t.Errorf("previous %t: %q, %v; want %q", previous, got, end, want)
			}
		}
		wantNone := func() {
			t.Helper()
			got, end := r.logs(l, &orchv1.LogsOpen{Replica: wire.KeyToPB(web0), Previous: true})
			if got != nil || !end.GetNone() || end.GetError() != `previous run of container "main" in replica web-0 not found` {
				t.Errorf("got %q, %v", got, end)
			}
		}
		wantNone() // no log at all
		r.wrote("main", "default.web-0.1.main", "stdout F one")
		wantNone()
		want(false, "begun", "one")
		r.runtime.Exit("default.web-0.1.main", 1)
		time.Sleep(time.Second)
		r.wrote("main", "default.web-0.1.main_1", "stdout F two")
		want(true, "begun", "one")
		r.runtime.Exit("default.web-0.1.main_1", 1)
		time.Sleep(200 * time.Millisecond) // it waits to be started again
		want(true, "begun", "two")
		if _, end := r.logs(l, &orchv1.LogsOpen{Replica: wire.KeyToPB(web0), Container: "nope"}); !end.GetNone() || !strings.Contains(end.GetError(), `no container "nope": it has main`) {
			t.Errorf("a container that there is not: %v", end)
		}
		r.stop()
	})
}

// A log that is followed ends when its replica is gone, with what was written last.
func TestFollowedLogEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		l := r.next(10)
		l.assign(t, wire.AssignmentSet{Complete: true, Put: []wire.Assignment{web(web0)}})
		l.hear(ready)
		r.wrote("main", "default.web-0.1.main", "stdout F one")
		began := time.Now()
		time.AfterFunc(time.Minute, func() {
			r.wrote("main", "default.web-0.1.main", "stdout F two")
			stopping := web(web0)
			stopping.Stopping = true
			l.assign(t, wire.AssignmentSet{Put: []wire.Assignment{stopping}})
		})
		got, end := r.logs(l, &orchv1.LogsOpen{Replica: wire.KeyToPB(web0), Follow: true})
		if took := time.Since(began); !slices.Equal(got, []string{"begun", "one", "two"}) || end.GetError() != "" || took < time.Minute || took > time.Minute+5*time.Second {
			t.Errorf("after %s: %q, %v", took, got, end)
		}
		r.stop()
	})
}

// What a replica that is gone said last can be read as long as its log lies there, and
// of its last words after it, also in the next life of the agent.
func TestLastWordsOfAReplicaThatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		l := r.next(10)
		l.assign(t, wire.AssignmentSet{Complete: true, Put: []wire.Assignment{web(web0)}})
		l.hear(ready)
		r.wrote("main", "default.web-0.1.main", "stdout F one", "stderr F two")
		stopping := web(web0)
		stopping.Stopping = true
		l.assign(t, wire.AssignmentSet{Put: []wire.Assignment{stopping}})
		l.hear(func(s wire.StatusReport) bool { return len(s.Gone) > 0 })
		time.Sleep(time.Minute)
		const note = "note: web-0 is gone from n1: container main ended 1m0s ago: "
		got, end := r.logs(l, &orchv1.LogsOpen{Replica: wire.KeyToPB(web0)})
		if len(got) != 4 || got[0] != "begun" || !strings.HasPrefix(got[1], note) || !slices.Equal(got[2:], []string{"one", "two"}) || end.GetError() != "" {
			t.Errorf("its log: %q, %v", got, end)
		}
		if got, end := r.logs(l, &orchv1.LogsOpen{Replica: wire.KeyToPB(web0), Previous: true, Follow: true}); len(got) != 4 || end.GetError() != "" {
			t.Errorf("its log, as that of the run before: %q, %v", got, end)
		}
		if err := os.RemoveAll(logs.Dir(filepath.Join(r.dir, "logs"), web0)); err != nil { // as the sweep does
			t.Fatal(err)
		}
		r.restart()
		l = r.next(11)
		l.assign(t, wire.AssignmentSet{Complete: true})
		for _, previous := range []bool{false, true} {
			got, end = r.logs(l, &orchv1.LogsOpen{Replica: wire.KeyToPB(web0), Previous: previous})
			if len(got) != 4 || !strings.HasPrefix(got[1], note) || !strings.HasSuffix(got[1], "; the last 16 KiB that it wrote") || !slices.Equal(got[2:], []string{"one", "two"}) || end.GetError() != "" {
				t.Errorf("its last words: %q, %v", got, end)
			}
		}
		never := web0
		never.Epoch = 99
		if got, end := r.logs(l, &orchv1.LogsOpen{Replica: wire.KeyToPB(never)}); got != nil || !end.GetNone() {
			t.Errorf("one that never was: %q, %v", got, end)
		}
		r.stop()
	})
}

func TestWordsWithoutOutput(t *testing.T) {
	a := logs.NewArchive(t.TempDir())
	keepWords(t.TempDir(), a, web0, map[string]api.Exit{"main": {Code: 7, Reason: api.ExitError, Output: "x"}}, slog.New(slog.DiscardHandler))
	w, err := a.Find(web0, "")
	if err != nil || w.Container != "main" || w.Exit == nil || w.Exit.Code != 7 || len(w.Lines) != 0 {
		t.Errorf("%+v, %v", w, err)
	}
}
