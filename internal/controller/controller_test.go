package controller_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	orchapi "github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/store"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

func TestApplyUntilReady(t *testing.T) {
	r := newRig(t)
	a, b := r.agent("n1"), r.agent("n2")
	resp := r.apply(&orchv1.ApplyRequest{Objects: []*orchv1.Object{service("web", 4)}, RequestId: "one"})
	if len(resp.Applied) != 1 || resp.Applied[0].Outcome != "created" || resp.StoreRevision == 0 {
		t.Errorf("answer: %v", resp)
	}
	r.ready("web", 4)
	if a.count()+b.count() != 4 || a.count() == 0 || b.count() == 0 {
		t.Errorf("n1 runs %d, n2 runs %d, want 4 over both", a.count(), b.count())
	}
	// A retry of what was done changes nothing.
	version := r.get("web").Metadata.ResourceVersion
	if resp := r.apply(&orchv1.ApplyRequest{Objects: []*orchv1.Object{service("web", 4)}, RequestId: "one"}); resp.Applied[0].Outcome == "configured" {
		t.Errorf("retry: %v", resp.Applied[0].Outcome)
	}
	if got := r.get("web").Metadata.ResourceVersion; got != version {
		t.Errorf("a retry brought version %d to %d", version, got)
	}
	if _, err := r.admin.Scale(r.ctx, &orchv1.ScaleRequest{Name: "web", Replicas: 2, CurrentReplicas: 4, RequestId: "two"}); err != nil {
		t.Error(err)
	}
	r.eventually("two replicas run", func() bool { return a.count()+b.count() == 2 })
	_, err := r.admin.Scale(r.ctx, &orchv1.ScaleRequest{Name: "web", Replicas: 3, CurrentReplicas: 4, RequestId: "three"})
	want(t, err, codes.FailedPrecondition, "not 4")
	if _, err := r.admin.Delete(r.ctx, &orchv1.DeleteRequest{Refs: []*orchv1.Ref{{Kind: "Service", Name: "web"}}}); err != nil {
		t.Error(err)
	}
	r.eventually("nothing runs", func() bool { return a.count()+b.count() == 0 })
	r.eventually("the service is gone", func() bool {
		_, err := r.admin.Get(r.ctx, &orchv1.GetRequest{Ref: &orchv1.Ref{Kind: "Service", Name: "web"}})
		return err != nil
	})
	_, err = r.admin.Delete(r.ctx, &orchv1.DeleteRequest{Refs: []*orchv1.Ref{{Kind: "Service", Name: "web"}}})
	want(t, err, codes.NotFound, "default/web")
}

// A commit whose outcome is unknown, written or not, ends the term. The next
// reads what is true; nothing acknowledged is lost, no container is touched, and
// a retry with its request id is not done twice.
func TestUnknownCommits(t *testing.T) {
	r := newRig(t)
	a := r.agent("n1")
	r.apply(&orchv1.ApplyRequest{Objects: []*orchv1.Object{service("kept", 2)}})
	r.ready("kept", 2)
	for i, name := range []string{"lost", "written", "failed"} {
		term := r.ctl.Status().Term
		switch name {
		case "lost":
			r.store.UnknownNext(false)
		case "written":
			r.store.UnknownNext(true)
		case "failed":
			r.store.FailNext(store.ErrNoSpace)
		}
		_, err := r.admin.Apply(r.ctx, &orchv1.ApplyRequest{Objects: []*orchv1.Object{service(name, 1)}, RequestId: name})
		want(t, err, codes.Unavailable, "try again")
		r.apply(&orchv1.ApplyRequest{Objects: []*orchv1.Object{service(name, 1)}, RequestId: name})
		r.ready(name, 1)
		if got := r.get(name).Metadata.Generation; got != 1 {
			t.Errorf("%s: generation %d, want 1: it was done twice", name, got)
		}
		if got := r.ctl.Status().Term; got <= term {
			t.Errorf("%s: term %d did not end (now %d)", name, term, got)
		}
		r.ready("kept", 2)
		r.eventually("the agent runs what it should", func() bool { return a.count() == 3+i })
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for k, n := range a.started {
		if n != 1 {
			t.Errorf("%s was started %d times, want once", k, n)
		}
	}
	if a.sessions < 4 {
		t.Errorf("%d sessions: terms ended without closing them", a.sessions)
	}
}

func TestADeadNodeIsReplaced(t *testing.T) {
	r := newRig(t)
	a, b := r.agent("n1"), r.agent("n2")
	r.apply(&orchv1.ApplyRequest{Objects: []*orchv1.Object{service("web", 2)}})
	r.ready("web", 2)
	a.cancel() // no probe is answered: its host is gone
	r.eventually("n2 runs both", func() bool { return b.count() == 2 })
	r.ready("web", 2)
}

func TestWatchAndList(t *testing.T) {
	r := newRig(t)
	r.agent("n1")
	labelled := func(app string) func(*orchapi.Service) {
		return func(s *orchapi.Service) { s.Metadata.Labels = map[string]string{"app": app} }
	}
	r.apply(&orchv1.ApplyRequest{Objects: []*orchv1.Object{service("web", 1, labelled("web")), service("db", 1, labelled("db"))}})
	ctx, cancel := context.WithCancel(r.ctx)
	defer cancel()
	w, err := r.admin.Watch(ctx, &orchv1.WatchRequest{List: &orchv1.ListRequest{Kind: "Service", Selector: "app=web"}})
	if err != nil {
		t.Fatal(err)
	}
	var seen []string
	next := func(until orchv1.WatchEvent_Type) {
		t.Helper()
		for {
			e, err := w.Recv()
			if err != nil {
				t.Fatal(err)
			}
			seen = append(seen, e.Type.String())
			if e.Type == until {
				return
			}
		}
	}
	next(orchv1.WatchEvent_SYNCED)
	if len(seen) != 2 {
		t.Errorf("before SYNCED: %v, want one PUT", seen)
	}
	// A label that does not match any more is gone for this watcher.
	r.apply(&orchv1.ApplyRequest{Objects: []*orchv1.Object{service("web", 1, labelled("other"))}})
	next(orchv1.WatchEvent_GONE)

	list := func(req *orchv1.ListRequest) int {
		t.Helper()
		resp, err := r.admin.List(r.ctx, req)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StaleSince != nil {
			t.Error("stale while leading")
		}
		return len(resp.Objects)
	}
	r.ready("db", 1)
	for _, c := range []struct {
		req  *orchv1.ListRequest
		want int
	}{
		{&orchv1.ListRequest{Kind: "Service"}, 2},
		{&orchv1.ListRequest{Kind: "Service", Namespace: "other"}, 0},
		{&orchv1.ListRequest{Kind: "Service", Selector: "app in (db,other)"}, 2},
		{&orchv1.ListRequest{Kind: "Replica", Selector: "app=db"}, 1},
		{&orchv1.ListRequest{Kind: "Node", Namespace: "default"}, 1},
	} {
		if got := list(c.req); got != c.want {
			t.Errorf("list %v: got %d, want %d", c.req, got, c.want)
		}
	}
	if about := list(&orchv1.ListRequest{Kind: "Event", About: &orchv1.Ref{Kind: "Node", Name: "n1"}}); about == 0 || about >= list(&orchv1.ListRequest{Kind: "Event"}) {
		t.Errorf("%d events are about n1", about)
	}
}

func TestLogsExecImages(t *testing.T) {
	r := newRig(t)
	a := r.agent("n1")
	b := r.agent("n2")
	r.apply(&orchv1.ApplyRequest{Objects: []*orchv1.Object{service("web", 2)}})
	r.ready("web", 2)
	read := func(req *orchv1.LogsRequest) (texts, gaps []string) {
		t.Helper()
		st, err := r.admin.Logs(r.ctx, req)
		for err == nil {
			var line *orchv1.LogLine
			if line, err = st.Recv(); err == nil {
				if line.Gap != "" {
					gaps = append(gaps, line.Gap)
				} else {
					texts = append(texts, string(line.Text))
				}
			}
		}
		if err != io.EOF {
			t.Errorf("logs: %v", err)
		}
		return texts, gaps
	}
	merged := []string{"web-0 line 0", "web-1 line 0", "web-0 line 1", "web-1 line 1"}
	if got, gaps := read(&orchv1.LogsRequest{Service: "web", Tail: -1}); !slices.Equal(got, merged) || len(gaps) > 0 {
		t.Errorf("merged logs: %v, gaps %v; want %v", got, gaps, merged)
	}
	if got, _ := read(&orchv1.LogsRequest{Replica: "web-1", Follow: true}); !slices.Equal(got, []string{"web-1 line 0", "web-1 line 1"}) {
		t.Errorf("logs of web-1: %v", got)
	}

	st, err := r.admin.Exec(r.ctx)
	if err != nil {
		t.Fatal(err)
	}
	st.Send(&orchv1.Frame{Frame: &orchv1.Frame_Exec{Exec: &orchv1.ExecRequest{Replica: "web-0", Command: []string{"cat"}, Stdin: true}}})
	st.Send(&orchv1.Frame{Frame: &orchv1.Frame_Stdin{Stdin: []byte("hello")}})
	if f, err := st.Recv(); err != nil || string(f.GetStdout()) != "hello" {
		t.Errorf("exec: %v, %v", f, err)
	}
	st.CloseSend()
	if f, err := st.Recv(); err != nil || f.GetEnd().GetExitCode() != 7 {
		t.Errorf("end of exec: %v, %v", f, err)
	}

	load := func(data string) (states []string) {
		t.Helper()
		st, err := r.admin.LoadImage(r.ctx)
		if err != nil {
			t.Fatal(err)
		}
		st.Send(&orchv1.LoadImageRequest{Data: []byte(data[:3])})
		st.Send(&orchv1.LoadImageRequest{Data: []byte(data[3:])})
		st.CloseSend()
		for {
			p, err := st.Recv()
			if err == io.EOF {
				slices.Sort(states)
				return states
			}
			if err != nil {
				t.Fatal(err)
			}
			states = append(states, p.Node+" "+p.State)
		}
	}
	if got := load("archive"); !slices.Equal(got, []string{"n1 loaded", "n1 sending", "n2 loaded", "n2 sending"}) {
		t.Errorf("load: %v", got)
	}
	if got := load("frail archive"); !slices.Equal(got, []string{"n1 loaded", "n1 sending", "n2 loaded", "n2 sending"}) {
		t.Errorf("load with a connection that breaks off: %v", got)
	}
	if got := load("brittle archive"); !slices.Equal(got, []string{"n1 failed", "n1 sending", "n2 loaded", "n2 sending"}) || a.breaks.Load() != 3 {
		t.Errorf("load with a connection that breaks off again and again: %v, sent %d times", got, a.breaks.Load())
	}
	if got := load("bad archive"); !slices.Contains(got, "n1 failed") {
		t.Errorf("load of garbage: %v", got)
	}
	if got := string(<-a.image); got != "archive" {
		t.Errorf("n1 got %q", got)
	}
	// A node that comes later gets what is kept, and only that.
	c := r.agent("n3")
	if got := string(<-c.image) + ", " + string(<-c.image) + ", " + string(<-c.image); got != "archive, frail archive, brittle archive" {
		t.Errorf("n3 got %q", got)
	}
	b.cancel()
	r.eventually("n2 has no session", func() bool { return !r.ctl.Sessions().Has("n2") })
	if _, gaps := read(&orchv1.LogsRequest{Service: "web"}); len(gaps) == 0 {
		t.Error("no gap is told though n2 is away")
	}
	select {
	case got := <-c.image:
		t.Errorf("n3 got %q too", got)
	default:
	}
}

func TestConflicts(t *testing.T) {
	r := newRig(t)
	r.apply(&orchv1.ApplyRequest{Objects: []*orchv1.Object{service("web", 0)}})
	at := func(v int64) func(*orchapi.Service) {
		return func(s *orchapi.Service) { s.Metadata.ResourceVersion = v }
	}
	v := r.get("web").Metadata.ResourceVersion
	r.apply(&orchv1.ApplyRequest{Objects: []*orchv1.Object{service("web", 1, at(v))}})
	_, err := r.admin.Apply(r.ctx, &orchv1.ApplyRequest{Objects: []*orchv1.Object{service("web", 2, at(v))}})
	want(t, err, codes.FailedPrecondition, "resourceVersion")
	// All or none: the good one is not created beside the bad one.
	_, err = r.admin.Apply(r.ctx, &orchv1.ApplyRequest{Objects: []*orchv1.Object{service("new", 1), service("web", 2, at(v))}})
	want(t, err, codes.FailedPrecondition)
	if got := r.get("new"); got.Metadata.Name != "" {
		t.Error("half of an apply was done")
	}
	resp, err := r.admin.Apply(r.ctx, &orchv1.ApplyRequest{DryRun: true, Objects: []*orchv1.Object{service("dry", 2)}})
	if err != nil || len(resp.Applied) != 1 || len(resp.Applied[0].Plan) == 0 {
		t.Errorf("dry run: %v, %v", resp, err)
	}
	if got := r.get("dry"); got.Metadata.Name != "" {
		t.Error("a dry run changed something")
	}
}

// A client that never reads, one that talks garbage and one that is silent must
// not be felt by the others.
func TestBadClientsHarmNobody(t *testing.T) {
	r := newRig(t)
	good := r.agent("n1")
	bad := r.agent("n2")
	bad.cancel()
	ctx, cancel := context.WithTimeout(r.ctx, patience)
	defer cancel()

	raw, err := r.listener.DialContext(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	raw.Write([]byte("GET / HTTP/1.1\r\n\r\n garbage garbage"))
	silent, err := r.listener.DialContext(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()

	r.eventually("n2 has no session", func() bool { return !r.ctl.Sessions().Has("n2") })
	for name, m := range map[string]*orchv1.AgentMessage{
		"no hello":   {Message: &orchv1.AgentMessage_Beat{Beat: &orchv1.Beat{}}},
		"empty":      {},
		"no address": {Message: &orchv1.AgentMessage_Hello{Hello: &orchv1.Hello{BootId: "b"}}},
	} {
		st, err := orchv1.NewAgentsClient(bad.conn).Session(ctx)
		if err != nil {
			t.Fatal(err)
		}
		st.Send(m)
		_, err = st.Recv()
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
		want(t, err, codes.InvalidArgument)
	}

	// One that beats and never reads is cut when its queue is full; meanwhile the
	// others are served.
	st, err := orchv1.NewAgentsClient(bad.conn).Session(ctx)
	if err != nil {
		t.Fatal(err)
	}
	st.Send(&orchv1.AgentMessage{Message: &orchv1.AgentMessage_Hello{Hello: &orchv1.Hello{BootId: "b", Address: "10.0.0.2"}}})
	w, err := r.admin.Watch(ctx, &orchv1.WatchRequest{List: &orchv1.ListRequest{Kind: "Replica"}}) // never read
	if err != nil {
		t.Fatal(err)
	}
	defer w.CloseSend()
	for i := range 3 {
		r.apply(&orchv1.ApplyRequest{Objects: []*orchv1.Object{service("web", 2*i+2, func(s *orchapi.Service) {
			s.Spec.Constraints = []orchapi.Constraint{{Key: "never", Operator: orchapi.OpDoesNotExist}}
		})}})
		began := time.Now()
		r.eventually("the good node runs something", func() bool { return good.count() > 0 })
		if d := time.Since(began); d > 5*time.Second {
			t.Errorf("apply %d took %s", i, d)
		}
	}
	if _, err := r.admin.Version(ctx, &orchv1.VersionRequest{}); err != nil {
		t.Error(err)
	}
	if good.r.ctl.Status().Term != 1 {
		t.Error("a bad client ended the term")
	}
}

// An agent that has seen a higher term makes the leader look into the store; one
// that errs changes nothing.
func TestAHigherTerm(t *testing.T) {
	r := newRig(t)
	a := r.agent("n1")
	a.cancel()
	r.eventually("n1 has no session", func() bool { return !r.ctl.Sessions().Has("n1") })
	st, err := orchv1.NewAgentsClient(a.conn).Session(r.ctx)
	if err != nil {
		t.Fatal(err)
	}
	st.Send(&orchv1.AgentMessage{Incarnation: r.ctl.Status().Incarnation, Term: 9, Message: &orchv1.AgentMessage_Hello{Hello: &orchv1.Hello{BootId: "b", Address: "10.0.0.1"}}})
	_, err = st.Recv()
	want(t, err, codes.Unavailable, "term 9")
	if s := r.ctl.Status(); !s.Leading || s.Term != 1 {
		t.Errorf("the leader fell for it: %+v", s)
	}
}

func TestASecondSessionClosesTheFirst(t *testing.T) {
	r := newRig(t)
	a := r.agent("n1")
	r.eventually("n1 has a session", func() bool { return r.ctl.Sessions().Has("n1") })
	a.cancel()
	open := func() orchv1.Agents_SessionClient {
		st, err := orchv1.NewAgentsClient(a.conn).Session(r.ctx)
		if err != nil {
			t.Fatal(err)
		}
		st.Send(&orchv1.AgentMessage{Message: &orchv1.AgentMessage_Hello{Hello: &orchv1.Hello{BootId: "b", Address: "10.0.0.1"}}})
		if m, err := st.Recv(); err != nil || m.GetWelcome() == nil || m.Term != 1 || m.Incarnation == "" {
			t.Fatalf("first message: %v, %v", m, err)
		}
		return st
	}
	first := open()
	second := open()
	for {
		if _, err := first.Recv(); err != nil {
			want(t, err, codes.Aborted, "another session")
			break
		}
	}
	second.CloseSend()
	for {
		if _, err := second.Recv(); err != nil {
			if !errors.Is(err, io.EOF) {
				t.Errorf("a graceful end: %v", err)
			}
			break
		}
	}
}
