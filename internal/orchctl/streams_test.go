package orchctl

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

func frames(s orchv1.Orch_ExecServer, list ...*orchv1.Frame) error {
	for _, f := range list {
		if err := s.Send(f); err != nil {
			return err
		}
	}
	return nil
}

func stdout(text string) *orchv1.Frame {
	return &orchv1.Frame{Frame: &orchv1.Frame_Stdout{Stdout: []byte(text)}}
}

func stderr(text string) *orchv1.Frame {
	return &orchv1.Frame{Frame: &orchv1.Frame_Stderr{Stderr: []byte(text)}}
}

func end(code int32, why string) *orchv1.Frame {
	return &orchv1.Frame{Frame: &orchv1.Frame_End{End: &orchv1.End{ExitCode: code, Error: why}}}
}

func TestExec(t *testing.T) {
	in(t, newFake(), func(t *testing.T, r *rig) {
		var first *orchv1.ExecRequest
		var send []*orchv1.Frame
		r.onExec = func(s orchv1.Orch_ExecServer) error {
			f, err := s.Recv()
			if err != nil {
				return err
			}
			first = f.GetExec()
			return frames(s, send...)
		}
		send = []*orchv1.Frame{stdout("out\n"), stderr("err\n"), end(7, "")}
		got := r.run("exec", "web-0", "-c", "main", "--", "sh", "-c", "exit 7")
		if want := (result{"out\n", "err\n", 7}); got != want {
			t.Errorf("got %v\nwant %v", got, want)
		}
		if first.Replica != "web-0" || first.Namespace != "default" || first.Container != "main" || strings.Join(first.Command, "|") != "sh|-c|exit 7" || first.Tty || first.Stdin {
			t.Errorf("asked for %v", first)
		}
		send = []*orchv1.Frame{end(0, "")}
		if got := r.run("exec", "replica/web-0", "--", "true"); got != (result{}) {
			t.Error(got)
		}
		send = []*orchv1.Frame{end(127, "no such file /no/such")}
		if got := r.run("exec", "web-0", "--", "/no/such"); got.code != 127 || got.err != "orchctl: exec in web-0: no such file /no/such\n" {
			t.Error(got)
		}
		send = []*orchv1.Frame{end(0, "the container does not run")}
		if got := r.run("exec", "web-0", "--", "ls"); got.code != 1 {
			t.Error(got)
		}
		send = nil
		if got := r.run("exec", "web-0", "--", "ls"); got.code != 1 || !strings.Contains(got.err, "the stream ended before the command did") {
			t.Error(got)
		}
		if got := r.run("exec", "-it", "web-0", "--", "sh"); got.code != 2 || !strings.Contains(got.err, "-t needs a terminal") {
			t.Error(got)
		}
	})
}

func TestExecPassesStdin(t *testing.T) {
	in(t, newFake(), func(t *testing.T, r *rig) {
		r.onExec = func(s orchv1.Orch_ExecServer) error {
			for {
				f, err := s.Recv()
				if err != nil {
					return err
				}
				switch x := f.GetFrame().(type) {
				case *orchv1.Frame_Stdin:
					if err := s.Send(stdout(strings.ToUpper(string(x.Stdin)))); err != nil {
						return err
					}
				case *orchv1.Frame_StdinClosed:
					return s.Send(end(0, ""))
				}
			}
		}
		text := strings.Repeat("all of it, ", 10_000)
		r.env.In = strings.NewReader(text)
		if got := r.run("exec", "-i", "web-0", "--", "cat"); got.code != 0 || got.out != strings.ToUpper(text) {
			t.Errorf("exit %d, %d of %d bytes", got.code, len(got.out), len(text))
		}
	})
}

func line(slot int32, at time.Duration, text string) *orchv1.LogLine {
	return &orchv1.LogLine{Time: timestamppb.New(epoch.Add(at)), Stream: "stdout", Text: []byte(text), Container: "main",
		Replica: &orchv1.ReplicaKey{Namespace: "default", Service: "web", Slot: slot, Epoch: uint64(slot) + 1}}
}

func TestLogs(t *testing.T) {
	in(t, newFake(service("web", 2, all(2)), service("one", 1, all(1))), func(t *testing.T, r *rig) {
		var asked *orchv1.LogsRequest
		r.onLogs = func(q *orchv1.LogsRequest, s orchv1.Orch_LogsServer) error {
			asked = q
			return errors.Join(s.Send(line(0, time.Second, "one")), s.Send(line(1, 2*time.Second, "two\n")), s.Send(&orchv1.LogLine{Gap: "node n3 is away", Replica: line(1, 0, "").Replica}))
		}
		if got := r.run("logs", "service/web", "--tail", "5", "--since", "10m"); got.out != "[web-0] one\n[web-1] two\n" || got.err != "-- web-1: node n3 is away --\n" || got.code != 0 {
			t.Error(got)
		}
		if asked.Service != "web" || asked.Replica != "" || asked.Tail != 5 || asked.Follow || !asked.Since.AsTime().Equal(time.Now().Add(-10*time.Minute)) {
			t.Errorf("asked for %v", asked)
		}
		if got := r.run("logs", "web-0", "--timestamps", "-c", "main"); !strings.HasPrefix(got.out, "2000-01-01T00:00:01.000000Z one\n") || asked.Replica != "web-0" || asked.Tail != -1 || asked.Container != "main" {
			t.Error(got, asked)
		}
		r.onLogs = func(_ *orchv1.LogsRequest, s orchv1.Orch_LogsServer) error {
			return s.Send(&orchv1.LogLine{Gap: "node n3 is away", Replica: line(1, 0, "").Replica})
		}
		if got := r.run("logs", "web-1"); got.code != 1 || got.err != "-- web-1: node n3 is away --\n" {
			t.Errorf("nothing but a gap: %s", got)
		}
		r.onLogs = func(q *orchv1.LogsRequest, s orchv1.Orch_LogsServer) error {
			asked = q
			gap := &orchv1.LogLine{Gap: "n3 cannot be reached since 12s: logs of web-1 are missing", Replica: line(1, 0, "").Replica}
			return errors.Join(s.Send(gap), s.Send(&orchv1.LogLine{Begun: true, Replica: line(0, 0, "").Replica}))
		}
		if got := r.run("logs", "service/web"); got.code != 0 || got.out != "" || got.err != "-- n3 cannot be reached since 12s: logs of web-1 are missing --\n" {
			t.Errorf("a gap beside a replica that wrote nothing: %s", got)
		}
		if asked.Previous {
			t.Error("the run before was asked for")
		}
		r.onLogs = func(q *orchv1.LogsRequest, s orchv1.Orch_LogsServer) error {
			asked = q
			note := &orchv1.LogLine{Note: "n2 cannot be reached: the last 1 KiB that it told the leader; exit code 1, 12s ago", Replica: line(0, 0, "").Replica}
			return errors.Join(s.Send(&orchv1.LogLine{Begun: true, Replica: line(0, 0, "").Replica}), s.Send(note), s.Send(line(0, time.Second, "cannot open database")))
		}
		if got := r.run("logs", "web-0", "-p"); got.code != 0 || got.out != "cannot open database\n" || got.err != "-- web-0: n2 cannot be reached: the last 1 KiB that it told the leader; exit code 1, 12s ago --\n" || !asked.Previous {
			t.Errorf("of the run before: %s, asked for %v", got, asked)
		}
		r.onLogs = func(*orchv1.LogsRequest, orchv1.Orch_LogsServer) error {
			return status.Error(codes.NotFound, `previous run of container "main" in replica web-0 not found`)
		}
		if got := r.run("logs", "web-0", "--previous"); got.code != 1 || !strings.Contains(got.err, `previous run of container "main" in replica web-0 not found`) {
			t.Errorf("no run before: %s", got)
		}
		if got := r.run("logs", "-f", "-p", "web-0"); got.code != 2 {
			t.Errorf("the run before, followed: %s", got)
		}
		r.onLogs = func(_ *orchv1.LogsRequest, s orchv1.Orch_LogsServer) error {
			return s.Send(line(0, time.Second, "one"))
		}
		if got := r.run("logs", "service/one"); strings.Contains(got.out, "[") {
			t.Errorf("a prefix where one replica speaks: %s", got)
		}
		if got := r.run("logs", "web-0", "--since", "yesterday"); got.code != 2 {
			t.Error(got)
		}
		if got := r.run("logs", "node/n1"); got.code != 2 {
			t.Error(got)
		}
	})
}

// TestLogsGoOn: a broken stream goes on where it was, without a line twice.
func TestLogsGoOn(t *testing.T) {
	in(t, newFake(), func(t *testing.T, r *rig) {
		var asked []*orchv1.LogsRequest
		ctx, cancel := contextOf(t)
		r.onLogs = func(q *orchv1.LogsRequest, s orchv1.Orch_LogsServer) error {
			asked = append(asked, q)
			if len(asked) == 1 {
				return errors.Join(s.Send(line(0, time.Second, "one")), s.Send(line(0, 2*time.Second, "two")), unavailable("leader gone"))
			}
			err := errors.Join(s.Send(line(0, 2*time.Second, "two")), s.Send(line(0, 3*time.Second, "three")))
			time.AfterFunc(time.Second, cancel)
			<-s.Context().Done()
			return err
		}
		got := r.runCtx(ctx, "logs", "-f", "web-0", "--tail", "2")
		if want := (result{"one\ntwo\nthree\n", "", 0}); got != want {
			t.Errorf("got %v", got)
		}
		if len(asked) != 2 || !asked[1].Since.AsTime().Equal(epoch.Add(2*time.Second)) || asked[1].Tail != -1 {
			t.Errorf("asked again for %v", asked)
		}
	})
}

func TestImageLoad(t *testing.T) {
	in(t, newFake(), func(t *testing.T, r *rig) {
		size, states := 0, [][3]string{{"n1", "sending", ""}, {"n2", "sending", ""}, {"n1", "sending", ""}, {"n1", "loaded", ""}, {"n2", "loaded", ""}}
		r.onImage = func(s orchv1.Orch_LoadImageServer) error {
			size = 0
			for {
				m, err := s.Recv()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					return err
				}
				size += len(m.Data)
			}
			for _, x := range states {
				p := &orchv1.LoadImageProgress{Node: x[0], State: x[1], Message: x[2]}
				if x[1] == "loaded" {
					p.Refs = []string{"orch.local/web:1.0"}
				}
				if err := s.Send(p); err != nil {
					return err
				}
			}
			return nil
		}
		path := filepath.Join(t.TempDir(), "web.tar")
		if err := os.WriteFile(path, make([]byte, imageChunk*2+17), 0o644); err != nil {
			t.Fatal(err)
		}
		got := r.run("image", "load", path)
		if want := (result{"n1: sending\nn2: sending\nn1: loaded orch.local/web:1.0\nn2: loaded orch.local/web:1.0\n", "", 0}); got != want || size != imageChunk*2+17 {
			t.Errorf("%d bytes: %v", size, got)
		}
		states = [][3]string{{"n1", "loaded", ""}, {"n2", "failed", "away"}}
		if got := r.run("image", "load", path); got.code != 1 || !strings.Contains(got.err, "1 node without it: n2") || !strings.Contains(got.out, "n2: failed: away\n") {
			t.Error(got)
		}
		states = nil
		if got := r.run("image", "load", path); got.code != 1 || !strings.Contains(got.err, "no node") {
			t.Error(got)
		}
		var packed bytes.Buffer
		z := gzip.NewWriter(&packed)
		if _, err := z.Write(make([]byte, 2048)); err != nil || z.Close() != nil {
			t.Fatal(err)
		}
		states, size, r.env.In = [][3]string{{"n1", "loaded", ""}}, 0, &packed
		if got := r.run("image", "load", "-"); got.code != 0 || size != 2048 {
			t.Errorf("%d bytes of a gzipped archive: %v", size, got)
		}
		for text, want := range map[string]string{"": "is empty", "no archive": "is no tar", strings.Repeat("x", 4096): "is no tar", "\x1f\x8bno": "cannot be unpacked"} {
			r.env.In, size = strings.NewReader(text), 0
			if got := r.run("image", "load", "-"); got.code != 2 || !strings.Contains(got.err, want) || size > 0 {
				t.Errorf("%.9q: %v", text, got)
			}
		}
		r.env.In = io.MultiReader(strings.NewReader("half"), brokenReader{})
		if got := r.run("image", "load", "-"); got.code != 1 || !strings.Contains(got.err, "the disk is broken") {
			t.Error(got)
		}
		if got := r.run("image", "load", filepath.Dir(path)); got.code != 2 || !strings.Contains(got.err, "is a folder") {
			t.Error(got)
		}
		if got := r.run("image", "load", "/no/such.tar"); got.code != 2 || !strings.Contains(got.err, "no such file") {
			t.Error(got)
		}
	})
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errors.New("the disk is broken") }

// gate lets a test wait for something that another goroutine does.
type gate struct {
	once sync.Once
	ch   chan struct{}
}

func newGate() *gate  { return &gate{ch: make(chan struct{})} }
func (g *gate) open() { g.once.Do(func() { close(g.ch) }) }
func (g *gate) await(t *testing.T, what string) {
	t.Helper()
	select {
	case <-g.ch:
	case <-time.After(10 * time.Second):
		t.Fatalf("%s did not happen", what)
	}
}
