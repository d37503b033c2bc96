package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/orchctl/orch/agent/agenttest"
	"github.com/orchctl/orch/agent/ctrd"
	"github.com/orchctl/orch/agent/images"
	"github.com/orchctl/orch/agent/logs"
	"github.com/orchctl/orch/agent/runtimetest"
	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// rig is one node with its agent, and a leader.
type rig struct {
	t       *testing.T
	c       *agenttest.Controller
	runtime *runtimetest.Runtime
	network *runtimetest.Network
	traffic *runtimetest.Traffic
	dir     string
	boot    string
	marks   images.Marks
	log     logBook
	// bootTime is nil where nothing is leased.
	bootTime func() time.Duration
	cancel   context.CancelFunc
	stopped  chan error
}

func newRuntime() *runtimetest.Runtime { return runtimetest.New("web:1") }

// newNetwork gives all replicas one address, on which tests may listen.
func newNetwork() *runtimetest.Network {
	return runtimetest.NewNetwork(func() netip.Addr { return netip.MustParseAddr("127.0.0.1") })
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, c: agenttest.New(t), runtime: newRuntime(), network: newNetwork(), traffic: runtimetest.NewTraffic(), dir: t.TempDir(), boot: "boot-1"}
	r.c.Serve(nil)
	return r
}

func (r *rig) start() {
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel, r.stopped = cancel, make(chan error, 1)
	cfg := Config{Name: "n1", Data: r.dir, LogDir: filepath.Join(r.dir, "logs"), Address: netip.MustParseAddr("127.0.0.1"),
		Controllers: []string{"c1:7070"}, Runtime: r.runtime, Network: r.network, Traffic: r.traffic, Host: Host{BootID: r.boot},
		Credentials: func() (credentials.TransportCredentials, error) { return insecure.NewCredentials(), nil },
		Labels:      map[string]string{"orch/hostname": "n1"}, Capacity: api.ResourceList{api.CPU: api.Whole(2)}, Logger: slog.New(slog.NewTextHandler(&r.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		DialOptions: r.c.DialOptions(), BootTime: r.bootTime, ImageMarks: r.marks}
	go func() { r.stopped <- Run(ctx, cfg) }()
}

// restart ends the agent and begins a new life of it.
func (r *rig) restart() {
	r.t.Helper()
	r.end()
	r.start()
}

func (r *rig) end() {
	r.t.Helper()
	r.cancel()
	if err := <-r.stopped; err != nil {
		r.t.Errorf("run: %v", err)
	}
}

func (r *rig) stop() {
	r.t.Helper()
	r.end()
	r.c.Stop()
}

// leader is what a session's tests keep of it.
type leader struct {
	*agenttest.Session
	sequence uint64
	revision int64
}

func (r *rig) next(revision int64) *leader {
	r.t.Helper()
	return &leader{Session: r.c.NextSession(), revision: revision}
}

func (l *leader) assign(t *testing.T, set wire.AssignmentSet) {
	t.Helper()
	l.sequence++
	set.Sequence, set.StoreRevision = l.sequence, l.revision
	pb, err := set.ToPB()
	if err != nil {
		t.Fatal(err)
	}
	l.Say(&orchv1.ControllerMessage{Message: &orchv1.ControllerMessage_Assignments{Assignments: pb}})
}

// hear waits for a report that says so of web-0.
func (l *leader) hear(want func(wire.StatusReport) bool) wire.StatusReport {
	var got wire.StatusReport
	l.Hear(func(m *orchv1.AgentMessage) bool {
		if m.GetStatus() == nil {
			return false
		}
		got = wire.StatusReportFromPB(m.GetStatus())
		return want(got)
	})
	return got
}

func ready(r wire.StatusReport) bool {
	return slices.ContainsFunc(r.Replicas, func(x wire.Report) bool { return x.Status.Ready })
}

var web0 = api.ReplicaKey{Namespace: "default", Service: "web", Slot: 0, Epoch: 1}

func web(k api.ReplicaKey) wire.Assignment {
	return wire.Assignment{Key: k, Revision: 1, Template: &api.Template{Containers: []api.Container{{Name: "main", Image: "web:1"}}}}
}

func (r *rig) wantTook(want ...string) {
	r.t.Helper()
	synctest.Wait()
	if got := r.runtime.Took(); !slices.Equal(got, want) {
		r.t.Errorf("runtime was told %q, want %q", got, want)
	}
}

func TestRunsStopsAndClears(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		l := r.next(10)
		if h := wire.HelloFromPB(l.Hello); h.BootID != "boot-1" || h.Labels["orch/hostname"] != "n1" || h.Capacity[api.CPU] != api.Whole(2) {
			t.Errorf("hello %+v", h)
		}
		l.assign(t, wire.AssignmentSet{Complete: true, Put: []wire.Assignment{web(web0)}})
		rep := l.hear(ready)
		if x := rep.Replicas[0]; x.Key != web0 || x.Status.Phase != api.PhaseRunning || x.Status.IP != "127.0.0.1" {
			t.Errorf("report %+v", x)
		}
		r.wantTook("start default.web-0.1.main")

		// It ends, and is started again in place.
		r.runtime.Exit("default.web-0.1.main", 3)
		l.hear(func(s wire.StatusReport) bool { return ready(s) && s.Replicas[0].Status.Restarts == 1 })
		r.wantTook("remove default.web-0.1.main", "start default.web-0.1.main_1")

		stopping := web(web0)
		stopping.Stopping = true
		l.assign(t, wire.AssignmentSet{Put: []wire.Assignment{stopping}})
		l.hear(func(s wire.StatusReport) bool { return slices.Contains(s.Gone, web0) })
		r.wantTook("stop default.web-0.1.main_1", "remove default.web-0.1.main_1")
		if n := len(r.network.Keys()); n != 0 {
			t.Errorf("%d networks are left", n)
		}
		r.stop()
	})
}

func TestRestartOfTheAgentTouchesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		l := r.next(10)
		l.assign(t, wire.AssignmentSet{Complete: true, Put: []wire.Assignment{web(web0)}})
		l.hear(ready)
		r.runtime.Took()

		// With a leader, and then without one.
		r.restart()
		l = r.next(11)
		if l.Hello.GetStoreRevision() != 10 {
			t.Errorf("it says that it kept revision %d, want 10", l.Hello.GetStoreRevision())
		}
		l.assign(t, wire.AssignmentSet{Complete: true, Put: []wire.Assignment{web(web0)}})
		if rep := l.hear(func(s wire.StatusReport) bool { return s.Complete }); !ready(rep) {
			t.Errorf("first report after a restart: %+v, want it ready", rep)
		}
		r.c.Stop()
		r.restart()
		time.Sleep(time.Minute)
		r.wantTook()
		// It goes on without a leader: restarts in place.
		r.runtime.Exit("default.web-0.1.main", 1)
		synctest.Wait()
		time.Sleep(time.Second)
		r.wantTook("remove default.web-0.1.main", "start default.web-0.1.main_1")
		r.end()
		r.wantTook()
	})
}

func TestAfterAPowerCutASessionDecides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		l := r.next(10)
		web1 := api.ReplicaKey{Namespace: "default", Service: "web", Slot: 1, Epoch: 2}
		l.assign(t, wire.AssignmentSet{Complete: true, Put: []wire.Assignment{web(web0), web(web1)}})
		l.hear(func(s wire.StatusReport) bool { return ready(s) })
		synctest.Wait()
		r.end()
		r.c.Stop()
		for _, id := range r.runtime.IDs() {
			r.runtime.Exit(id, 255)
		}
		r.runtime.Took()
		r.boot = "boot-2"
		r.start()
		time.Sleep(time.Minute)
		r.wantTook()
		r.c.Serve(nil)
		l = r.next(12)
		l.assign(t, wire.AssignmentSet{Complete: true, Put: []wire.Assignment{web(web1)}})
		l.hear(func(s wire.StatusReport) bool { return slices.Contains(s.Gone, web0) })
		time.Sleep(time.Second)
		synctest.Wait()
		if ids := r.runtime.IDs(); !slices.Equal(ids, []string{"default.web-1.2.main_1"}) {
			t.Errorf("there are %v", ids)
		}
		r.stop()
	})
}

func TestDeposedLeaderChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.c.SetTerm(5)
		r.start()
		l := r.next(10)
		l.assign(t, wire.AssignmentSet{Complete: true, Put: []wire.Assignment{web(web0)}})
		l.hear(ready)
		r.runtime.Took()
		r.c.SetTerm(4)
		l.assign(t, wire.AssignmentSet{Put: nil, Drop: []api.ReplicaKey{web0}})
		time.Sleep(10 * time.Second)
		r.wantTook()
		r.c.SetTerm(6)
		// Sessions that the deposed one greeted meanwhile are dead.
		for {
			l = r.next(11)
			synctest.Wait()
			if len(l.Ended) == 0 {
				break
			}
		}
		// A complete set of the new term, though one set was missed: it is whole.
		l.assign(t, wire.AssignmentSet{Complete: true, Put: []wire.Assignment{web(web0)}})
		l.hear(ready)
		r.wantTook()
		// A gap in its sequence asks for a new session.
		l.sequence++
		l.assign(t, wire.AssignmentSet{Drop: []api.ReplicaKey{web0}})
		l = r.next(12)
		l.assign(t, wire.AssignmentSet{Complete: true})
		l.hear(func(s wire.StatusReport) bool { return slices.Contains(s.Gone, web0) })
		r.stop()
	})
}

func TestProbesAndMissingImage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		l := r.next(10)
		a := web(web0)
		a.Template.Containers[0].Image = "late:1"
		a.Template.Containers[0].ReadinessProbe = &api.Probe{Exec: &api.ExecProbe{Command: []string{"check"}}}
		l.assign(t, wire.AssignmentSet{Complete: true, Put: []wire.Assignment{a}})
		l.hear(func(s wire.StatusReport) bool {
			return len(s.Replicas) == 1 && s.Replicas[0].Status.Reason == api.ReasonImageMissing && strings.Contains(s.Replicas[0].Status.Message, "late:1 is not on this node")
		})
		// An image is brought over a relay: it starts at once.
		_, end := r.relay(l, &orchv1.OpenRelay{Request: &orchv1.OpenRelay_Image{Image: &orchv1.ImageOpen{}}},
			&orchv1.Frame{Frame: &orchv1.Frame_Data{Data: []byte("late")}}, &orchv1.Frame{Frame: &orchv1.Frame_Data{Data: []byte(":1")}}, &orchv1.Frame{Frame: &orchv1.Frame_DataEnd{DataEnd: true}})
		if end.GetError() != "" || !slices.Equal(end.GetRefs(), []string{"late:1"}) {
			t.Errorf("image ended with %v", end)
		}
		// The fake's commands end with 7: it runs and is not ready.
		l.hear(func(s wire.StatusReport) bool {
			return len(s.Replicas) == 1 && s.Replicas[0].Status.Phase == api.PhaseRunning && strings.Contains(s.Replicas[0].Status.Message, "readiness probe: check: exit code 7")
		})
		r.stop()
	})
}

// relay opens a relay as the leader does, says these frames and gives the answers.
func (r *rig) relay(l *leader, open *orchv1.OpenRelay, say ...*orchv1.Frame) (got []*orchv1.Frame, end *orchv1.End) {
	r.t.Helper()
	open.Id = "relay"
	l.Say(&orchv1.ControllerMessage{Message: &orchv1.ControllerMessage_OpenRelay{OpenRelay: open}})
	relay := <-r.c.Relays
	for _, f := range say {
		if err := relay.Stream.Send(f); err != nil {
			r.t.Fatal(err)
		}
	}
	end = endOf(r.t, relay, func(f *orchv1.Frame) { got = append(got, f) })
	return got, end
}

// exec runs a command, or attaches, and types.
func (r *rig) exec(l *leader, open *orchv1.ExecOpen, types string) (said string, end *orchv1.End) {
	r.t.Helper()
	var say []*orchv1.Frame
	if open.Stdin {
		say = []*orchv1.Frame{{Frame: &orchv1.Frame_Stdin{Stdin: []byte(types)}}, {Frame: &orchv1.Frame_StdinClosed{StdinClosed: true}}}
	}
	got, end := r.relay(l, &orchv1.OpenRelay{Request: &orchv1.OpenRelay_Exec{Exec: open}}, say...)
	for _, f := range got {
		said += string(f.GetStdout())
	}
	return said, end
}

// endOf reads a relay to its end; take gets the frames before.
func endOf(t *testing.T, r *agenttest.Relay, take func(*orchv1.Frame)) *orchv1.End {
	t.Helper()
	for {
		f, err := r.Stream.Recv()
		if err != nil {
			t.Fatalf("relay: %v", err)
		}
		if end := f.GetEnd(); end != nil {
			r.Close()
			return end
		}
		if take != nil {
			take(f)
		}
	}
}

func TestExecAndLogs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		l := r.next(10)
		l.assign(t, wire.AssignmentSet{Complete: true, Put: []wire.Assignment{web(web0)}})
		l.hear(ready)
		out, end := r.exec(l, &orchv1.ExecOpen{Replica: wire.KeyToPB(web0), Command: []string{"cat"}, Stdin: true}, "hello")
		if out != "cat in default.web-0.1.main: hello" || end.GetExitCode() != 7 {
			t.Errorf("exec said %q and ended with %v", out, end)
		}
		_, end = r.exec(l, &orchv1.ExecOpen{Replica: wire.KeyToPB(web0), Container: "nope"}, "")
		if !strings.Contains(end.GetError(), `no container "nope": it has main`) {
			t.Errorf("exec ended with %v", end)
		}
		_, end = r.logs(l, &orchv1.LogsOpen{Replica: wire.KeyToPB(web0)})
		if !strings.Contains(end.GetError(), "has not written anything") {
			t.Errorf("logs ended with %v", end)
		}
		bad := web0
		bad.Namespace = "../.."
		_, end = r.logs(l, &orchv1.LogsOpen{Replica: wire.KeyToPB(bad), Container: "main"})
		if !strings.Contains(end.GetError(), "this node has none") {
			t.Errorf("logs of a strange name ended with %v", end)
		}
		r.stop()
	})
}

// An agent that has just started and is asked at once looks first, for as long as it takes
// within reason.
func TestExecBeforeTheFirstLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		l := r.next(10)
		l.assign(t, wire.AssignmentSet{Complete: true, Put: []wire.Assignment{web(web0)}})
		l.hear(ready)
		r.runtime.SetDown(errors.New("it starts"))
		r.restart()
		l = r.next(11)
		cat := &orchv1.ExecOpen{Replica: wire.KeyToPB(web0), Command: []string{"cat"}, Stdin: true}
		if _, end := r.exec(l, cat, "hello"); !strings.Contains(end.GetError(), "what runs here") {
			t.Errorf("exec without a runtime ended with %v", end)
		}
		time.AfterFunc(2*time.Second, func() { r.runtime.SetDown(nil) })
		if out, end := r.exec(l, cat, "hello"); out != "cat in default.web-0.1.main: hello" || end.GetExitCode() != 7 {
			t.Errorf("exec said %q and ended with %v", out, end)
		}
		r.stop()
	})
}

func TestSecondAgentIsRefused(t *testing.T) {
	dir := t.TempDir()
	unlock, err := lockFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockFolder(dir); err == nil || !strings.Contains(err.Error(), "another agent uses it") {
		t.Errorf("a second agent: %v", err)
	}
	unlock()
	unlock, err = lockFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}

func TestSavedComesBack(t *testing.T) {
	dir := t.TempDir()
	s := newSaver(Config{Data: dir, Logger: slog.New(slog.DiscardHandler)})
	want, err := loadSaved(dir)
	if want != nil || err != nil {
		t.Fatalf("nothing saved: %v, %v", want, err)
	}
	s.saved.Incarnation, s.saved.StoreRevision, s.saved.BootID = "A", 7, "b"
	s.saved.Assignments = []wire.Assignment{web(web0)}
	if !s.write() {
		t.Fatal("not written")
	}
	got, err := loadSaved(dir)
	if err != nil {
		t.Fatal(err)
	}
	a, _ := json.Marshal(got)
	b, _ := json.Marshal(s.saved)
	if string(a) != string(b) {
		t.Errorf("got %s\nwant %s", a, b)
	}
}

func TestOldOutputGoes(t *testing.T) {
	dir := t.TempDir()
	kept := api.ReplicaKey{Namespace: "default", Service: "web", Slot: 1, Epoch: 2}
	for _, k := range []api.ReplicaKey{web0, kept} {
		if err := os.MkdirAll(logs.Dir(dir, k), 0o750); err != nil {
			t.Fatal(err)
		}
	}
	forgetLogs(dir, web0, slog.New(slog.DiscardHandler))
	forgetLogs(dir, api.ReplicaKey{Namespace: "never", Service: "was"}, slog.New(slog.DiscardHandler))
	for _, x := range []struct {
		after time.Duration
		gone  bool
	}{{logsKept / 2, false}, {logsKept + time.Minute, true}} {
		if err := sweepOnce(dir, time.Now().Add(x.after)); err != nil {
			t.Fatal(err)
		}
		_, err := os.Stat(logs.Dir(dir, web0))
		if errors.Is(err, fs.ErrNotExist) != x.gone {
			t.Errorf("after %s: %v", x.after, err)
		}
	}
	if _, err := os.Stat(logs.Dir(dir, kept)); err != nil {
		t.Error(err)
	}
}

func TestHostText(t *testing.T) {
	if got := osName("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"); got != "Debian GNU/Linux 12" {
		t.Errorf("os %q", got)
	}
	if n, err := memTotal("MemTotal:       2048 kB\nMemFree: 1 kB\n"); n != 2<<20 || err != nil {
		t.Errorf("memory %d, %v", n, err)
	}
	if _, err := memTotal("MemFree: 1 kB\n"); err == nil {
		t.Error("no MemTotal is no error")
	}
}

// A containerd that hangs must not get its containers restarted: what a liveness
// probe could not ask is no answer.
func TestRuntimeThatIsAwayFailsNoProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		var away atomic.Bool
		away.Store(true)
		r.runtime.OnExec(func(string, ctrd.ExecSpec) (int, error) {
			if away.Load() {
				return -1, ctrd.ErrAway
			}
			return 1, nil
		})
		r.start()
		l := r.next(10)
		a := web(web0)
		every := api.Duration(time.Second)
		a.Template.Containers[0].LivenessProbe = &api.Probe{Exec: &api.ExecProbe{Command: []string{"check"}}, Interval: &every}
		l.assign(t, wire.AssignmentSet{Complete: true, Put: []wire.Assignment{a}})
		l.hear(ready)
		r.wantTook("start default.web-0.1.main")
		time.Sleep(time.Minute)
		r.wantTook()
		away.Store(false)
		time.Sleep(3 * time.Second)
		r.wantTook("stop default.web-0.1.main", "remove default.web-0.1.main", "start default.web-0.1.main_1")
		r.stop()
	})
}

// logBook is a log that may be read while somebody writes.
type logBook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (l *logBook) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logBook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
