package api

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller"
	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/controller/session"
	"github.com/orchctl/orch/internal/controller/view"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// pipe is a stream of frames, or of T, with both ends in this process.
type pipe[T any] struct {
	grpc.ServerStream
	ctx context.Context
	in  chan *orchv1.Frame // closed: the user has sent all
	mu  sync.Mutex
	out []T
}

func newPipe[T any](ctx context.Context, in ...*orchv1.Frame) *pipe[T] {
	p := &pipe[T]{ctx: ctx, in: make(chan *orchv1.Frame, 100)}
	for _, f := range in {
		p.in <- f
	}
	return p
}

func (p *pipe[T]) Context() context.Context { return p.ctx }

func (p *pipe[T]) Send(x T) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.out = append(p.out, x)
	return nil
}

func (p *pipe[T]) Recv() (*orchv1.Frame, error) {
	select {
	case f, ok := <-p.in:
		if !ok {
			return nil, io.EOF
		}
		return f, nil
	case <-p.ctx.Done():
		return nil, p.ctx.Err()
	}
}

// agentStream is a relay to an agent that does what a test scripts.
type agentStream struct {
	ctx      context.Context
	once     sync.Once
	done     chan struct{}
	to, from chan *orchv1.Frame // closed by the agent's script: it went away
}

func (a *agentStream) Send(f *orchv1.Frame) error {
	select {
	case a.to <- f:
		return nil
	case <-a.done:
		return io.EOF
	}
}

func (a *agentStream) Recv() (*orchv1.Frame, error) {
	select {
	case f, ok := <-a.from:
		if !ok {
			return nil, io.EOF
		}
		return f, nil
	case <-a.done:
	case <-a.ctx.Done():
	}
	return nil, context.Canceled
}

func (a *agentStream) Close() { a.once.Do(func() { close(a.done) }) }

// agents answers for all nodes; those that are away give ErrAway.
type agents struct {
	mu     sync.Mutex
	opened []string
	away   map[string]bool
	script func(node string, open *orchv1.OpenRelay, a *agentStream)
}

func (x *agents) open(ctx context.Context, node string, what *orchv1.OpenRelay) (relay, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.opened = append(x.opened, node)
	if x.away[node] {
		return nil, fmt.Errorf("reach node %s: %w", node, session.ErrAway)
	}
	a := &agentStream{ctx: ctx, done: make(chan struct{}), to: make(chan *orchv1.Frame, 100), from: make(chan *orchv1.Frame, 1000)}
	go x.script(node, what, a)
	return a, nil
}

func endFrame(why string) *orchv1.Frame {
	return &orchv1.Frame{Frame: &orchv1.Frame_End{End: &orchv1.End{Error: why}}}
}

func forwardFrame(r *orchv1.PortForwardRequest) *orchv1.Frame {
	return &orchv1.Frame{Frame: &orchv1.Frame_PortForward{PortForward: r}}
}

func stdin(text string) *orchv1.Frame {
	return &orchv1.Frame{Frame: &orchv1.Frame_Stdin{Stdin: []byte(text)}}
}

// netWorld has a service with three replicas, the second not ready, and endpoints.
func netWorld() *view.View {
	v := view.New()
	s := &api.Service{Metadata: api.Metadata{Name: "web", Namespace: "default"}, Spec: api.ServiceSpec{Template: api.Template{Containers: []api.Container{{Name: "main",
		Ports: []api.Port{{Name: "http", Port: 8080}, {Name: "dns", Port: 53, Protocol: api.UDP}}}}}}}
	p := core.Publish{Put: []core.Entry{{Key: core.ViewKey{Kind: api.KindService, Namespace: "default", Name: "web"}, Object: s},
		{Key: core.ViewKey{Kind: api.KindService, Namespace: "default", Name: "idle"}, Object: &api.Service{Metadata: api.Metadata{Name: "idle", Namespace: "default"}}}}}
	for i := range 3 {
		k := api.ReplicaKey{Namespace: "default", Service: "web", Slot: i, Epoch: uint64(10 + i)}
		x := &api.Replica{Metadata: api.Metadata{Name: k.Name(), Namespace: "default"}, Spec: api.ReplicaSpec{Service: "web", Slot: i, Epoch: k.Epoch, Node: fmt.Sprintf("n%d", i+1)},
			Status: api.ReplicaStatus{Phase: api.PhaseRunning, Ready: i != 1}}
		p.Put = append(p.Put, core.Entry{Key: core.ViewKey{Kind: api.KindReplica, Namespace: "default", Name: nameOfReplica(k)}, Object: x})
		if i == 1 {
			continue
		}
		e := &api.Endpoint{Metadata: api.Metadata{Name: nameOfReplica(k), Namespace: "default"}, Status: api.EndpointStatus{Service: "web", Replica: k.Name(), Epoch: k.Epoch, Node: x.Spec.Node,
			Ports: []api.Port{{Name: "http", Port: 8081}, {Name: "dns", Port: 53, Protocol: api.UDP}}}}
		p.Put = append(p.Put, core.Entry{Key: core.ViewKey{Kind: api.KindEndpoint, Namespace: "default", Name: e.Metadata.Name}, Object: e})
	}
	v.Publish(p)
	return v
}

// TestPortForward: a connection meets a ready replica of the service at the port of
// its own revision, the next one if a node is away; data goes both ways until the
// agent says how it ended.
func TestPortForward(t *testing.T) {
	echo := func(_ string, open *orchv1.OpenRelay, a *agentStream) {
		pf := open.GetPortForward()
		head := fmt.Sprintf("%d:%d ", pf.GetReplica().GetEpoch(), pf.GetPort())
		for {
			select {
			case f := <-a.to:
				if f.GetStdinClosed() {
					a.from <- endFrame("")
					return
				}
				a.from <- &orchv1.Frame{Frame: &orchv1.Frame_Stdout{Stdout: append([]byte(head), f.GetStdin()...)}}
			case <-a.done:
				return
			}
		}
	}
	refuse := func(_ string, _ *orchv1.OpenRelay, a *agentStream) { a.from <- endFrame("connect: connection refused") }
	vanish := func(_ string, _ *orchv1.OpenRelay, a *agentStream) { close(a.from) }
	for _, c := range []struct {
		name   string
		first  *orchv1.Frame
		away   []string
		script func(string, *orchv1.OpenRelay, *agentStream)
		want   string // what the user gets: data, then the end's error
		code   codes.Code
		says   string
		opened string
	}{
		{"service, by number", forwardFrame(&orchv1.PortForwardRequest{Service: "web", Port: "9000"}), nil, echo, "10:9000 hi|", codes.OK, "", "n1"},
		{"service, by name", forwardFrame(&orchv1.PortForwardRequest{Service: "web", Port: "http"}), nil, echo, "10:8081 hi|", codes.OK, "", "n1"},
		{"a node is away", forwardFrame(&orchv1.PortForwardRequest{Service: "web", Port: "http"}), []string{"n1"}, echo, "12:8081 hi|", codes.OK, "", "n1 n3"},
		{"all are away", forwardFrame(&orchv1.PortForwardRequest{Service: "web", Port: "http"}), []string{"n1", "n3"}, echo, "", codes.Unavailable, "reach node n3", "n1 n3"},
		{"a replica that is not ready", forwardFrame(&orchv1.PortForwardRequest{Replica: "web-1", Port: "http"}), nil, echo, "11:8080 hi|", codes.OK, "", "n2"},
		{"refused", forwardFrame(&orchv1.PortForwardRequest{Replica: "web-0", Port: "1"}), nil, refuse, "|connect: connection refused", codes.OK, "", "n1"},
		{"the node goes", forwardFrame(&orchv1.PortForwardRequest{Replica: "web-0", Port: "1"}), nil, vanish, "", codes.Unavailable, "node n1 went away in the middle of the port-forward", "n1"},
		{"UDP by name", forwardFrame(&orchv1.PortForwardRequest{Service: "web", Port: "dns"}), nil, echo, "", codes.InvalidArgument, "is UDP", ""},
		{"UDP by number", forwardFrame(&orchv1.PortForwardRequest{Service: "web", Port: "53"}), nil, echo, "", codes.InvalidArgument, "is UDP", ""},
		{"no such name", forwardFrame(&orchv1.PortForwardRequest{Service: "web", Port: "metrics"}), nil, echo, "", codes.InvalidArgument, "(http, dns)", ""},
		{"no port", forwardFrame(&orchv1.PortForwardRequest{Service: "web"}), nil, echo, "", codes.InvalidArgument, "want a number or a name", ""},
		{"out of range", forwardFrame(&orchv1.PortForwardRequest{Service: "web", Port: "70000"}), nil, echo, "", codes.InvalidArgument, "1 to 65535", ""},
		{"none ready", forwardFrame(&orchv1.PortForwardRequest{Service: "idle", Port: "80"}), nil, echo, "", codes.FailedPrecondition, "no ready replica", ""},
		{"no such service", forwardFrame(&orchv1.PortForwardRequest{Service: "api", Port: "80"}), nil, echo, "", codes.NotFound, "service default/api", ""},
		{"both", forwardFrame(&orchv1.PortForwardRequest{Service: "web", Replica: "web-0", Port: "80"}), nil, echo, "", codes.InvalidArgument, "one of them", ""},
		{"no request", stdin("x"), nil, echo, "", codes.InvalidArgument, "first frame", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := &agents{away: map[string]bool{}, script: c.script}
				for _, n := range c.away {
					x.away[n] = true
				}
				s := New(Config{View: netWorld(), Log: slog.New(slog.DiscardHandler)})
				s.open = x.open
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel() // as gRPC does when the handler has returned
				p := newPipe[*orchv1.Frame](ctx, c.first, stdin("hi"))
				close(p.in)
				err := s.PortForward(p)
				if status.Code(err) != c.code || err != nil && !strings.Contains(err.Error(), c.says) {
					t.Errorf("error %v, want %s %q", err, c.code, c.says)
				}
				var got string
				for _, f := range p.out {
					got += string(f.GetStdout())
					if f.GetEnd() != nil {
						got += "|" + f.GetEnd().GetError()
					}
				}
				if opened := strings.Join(x.opened, " "); got != c.want || opened != c.opened {
					t.Errorf("got %q by %q, want %q by %q", got, opened, c.want, c.opened)
				}
			})
		})
	}
}

// nodesView has nodes n1 to n<n>; those named are suspect.
func nodesView(n int, suspect ...string) *view.View {
	v := view.New()
	var p core.Publish
	for i := range n {
		x := &api.Node{Metadata: api.Metadata{Name: fmt.Sprintf("n%d", i+1)}, Status: api.NodeStatus{Verdict: api.VerdictHealthy}}
		if slices.Contains(suspect, x.Metadata.Name) {
			x.Status.Verdict, x.Status.VerdictWhy = api.VerdictSuspect, "silent for 1s"
		}
		p.Put = append(p.Put, core.Entry{Key: core.ViewKey{Kind: api.KindNode, Name: x.Metadata.Name}, Object: x})
	}
	v.Publish(p)
	return v
}

func TestNetRounds(t *testing.T) {
	for _, c := range []struct {
		n       int
		suspect []string
		named   []string
		want    string
	}{
		{3, nil, nil, "n1>n2,n3 n2>n3,n1 n3>n1,n2"},
		{3, []string{"n2"}, nil, "n1>n3 n2> n3>n1"},
		{1, nil, nil, "n1>"},
		{4, nil, []string{"n4", "n2"}, "n2>n4 n4>n2"},
		{3, nil, []string{"n2"}, "n2>n3,n1 n3>n2 n1>n2"},
		{3, []string{"n2"}, []string{"n2"}, "n2>"},
	} {
		rounds, err := netRounds(nodesView(c.n, c.suspect...).Snapshot(), c.named)
		var got []string
		for _, r := range rounds {
			got = append(got, r.node+">"+strings.Join(r.targets, ","))
		}
		if text := strings.Join(got, " "); err != nil || text != c.want {
			t.Errorf("%d nodes, %v suspect, %v named: %s, %v; want %s", c.n, c.suspect, c.named, text, err, c.want)
		}
	}
	if _, err := netRounds(nodesView(2).Snapshot(), []string{"n1", "n9"}); status.Code(err) != codes.NotFound {
		t.Errorf("an unknown node: %v", err)
	}
	// In a larger fleet every node tries ten others, and is tried by ten.
	tried := map[string]int{}
	rounds, err := netRounds(nodesView(50).Snapshot(), nil)
	for _, r := range rounds {
		if len(r.targets) != netTargetsMax || slices.Contains(r.targets, r.node) {
			t.Errorf("%s tries %v", r.node, r.targets)
		}
		for _, x := range r.targets {
			tried[x]++
		}
	}
	if err != nil || len(rounds) != 50 || len(tried) != 50 {
		t.Errorf("%d rounds, %d nodes are tried, %v", len(rounds), len(tried), err)
	}
	for x, n := range tried {
		if n != netTargetsMax {
			t.Errorf("%s is tried by %d", x, n)
		}
	}
}

// TestNetCheck: results come as they are told; what cannot be asked is one, too.
func TestNetCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := &agents{away: map[string]bool{"n2": true}, script: func(node string, open *orchv1.OpenRelay, a *agentStream) {
			for _, target := range open.GetNetCheck().GetTargets() {
				a.from <- &orchv1.Frame{Frame: &orchv1.Frame_NetCheck{NetCheck: &orchv1.NetCheckResult{Node: "somebody", Target: target, Check: "route", Ok: true}}}
			}
			switch node {
			case "n3":
				close(a.from) // goes away
			case "n4":
				a.from <- endFrame("this node's agent does not know what was asked")
			case "n5": // never ends
			default:
				a.from <- endFrame("")
			}
		}}
		s := New(Config{View: nodesView(6, "n2"), Log: slog.New(slog.DiscardHandler)})
		s.open = x.open
		p := newPipe[*orchv1.NetCheckResult](t.Context())
		began := time.Now()
		if err := s.NetCheck(&orchv1.NetCheckRequest{}, p); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != netCheckTimeout {
			t.Errorf("took %s", took)
		}
		good, bad := map[string]int{}, map[string]string{}
		for _, r := range p.out {
			if r.GetOk() {
				good[r.GetNode()]++
			} else {
				bad[r.GetNode()] = r.GetCheck() + " " + r.GetDetail()
			}
		}
		wantBad := map[string]string{"n2": "agent not reachable: it is Suspect: silent for 1s", "n3": "agent not reachable any more: its session ended in the middle of the check",
			"n4": "agent this node's agent does not know what was asked", "n5": "agent its checks did not end within 30s: its agent may be stuck, its log tells more"}
		if fmt.Sprint(bad) != fmt.Sprint(wantBad) || fmt.Sprint(good) != "map[n1:4 n3:4 n4:4 n5:4 n6:4]" {
			t.Errorf("good %v, bad %v", good, bad)
		}

		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if err := s.NetCheck(&orchv1.NetCheckRequest{Nodes: []string{"n5"}}, newPipe[*orchv1.NetCheckResult](ctx)); status.Code(err) != codes.Canceled {
			t.Errorf("a user who goes: %v", err)
		}
	})
}

// TestEndpointsAreRead: by name, by service, by slot, by node.
func TestEndpointsAreRead(t *testing.T) {
	s := New(Config{View: netWorld()})
	for _, c := range []struct {
		about *orchv1.Ref
		want  string
	}{
		{nil, "web-0@10 web-2@12"},
		{&orchv1.Ref{Kind: api.KindService, Name: "web"}, "web-0@10 web-2@12"},
		{&orchv1.Ref{Kind: api.KindService, Namespace: "shop", Name: "web"}, ""},
		{&orchv1.Ref{Kind: api.KindService, Name: "idle"}, ""},
		{&orchv1.Ref{Kind: api.KindReplica, Name: "web-2"}, "web-2@12"},
		{&orchv1.Ref{Kind: api.KindReplica, Name: "web-2@12"}, "web-2@12"},
		{&orchv1.Ref{Kind: api.KindReplica, Name: "web-2@9"}, ""},
		{&orchv1.Ref{Kind: api.KindNode, Name: "n1"}, "web-0@10"},
	} {
		answer, err := s.List(t.Context(), &orchv1.ListRequest{Kind: api.KindEndpoint, About: c.about})
		var got []string
		for _, o := range answer.GetObjects() {
			var e api.Endpoint
			if err := json.Unmarshal(o.Json, &e); err != nil {
				t.Fatal(err)
			}
			got = append(got, e.Metadata.Name)
		}
		if text := strings.Join(got, " "); err != nil || text != c.want {
			t.Errorf("%v: %s, %v; want %s", c.about, text, err, c.want)
		}
	}
	if o, err := s.Get(t.Context(), &orchv1.GetRequest{Ref: &orchv1.Ref{Kind: api.KindEndpoint, Name: "web-2@12"}}); err != nil || o.Kind != api.KindEndpoint {
		t.Errorf("get: %v, %v", o, err)
	}
	for _, r := range []*orchv1.ListRequest{{Kind: api.KindEndpoint, About: &orchv1.Ref{Kind: api.KindEvent, Name: "7"}}, {Kind: api.KindEndpoint, About: &orchv1.Ref{Kind: api.KindService}}} {
		if _, err := s.List(t.Context(), r); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%v: %v", r, err)
		}
	}
}

// answering answers every event with one value.
type answering struct {
	leader
	value any
}

func (l *answering) Ask(_ context.Context, event func(uint64) core.Event) (controller.Answer, error) {
	l.told = append(l.told, event(7))
	return controller.Answer{Value: l.value}, nil
}

func TestDrainAndRebalance(t *testing.T) {
	l := &answering{}
	s := New(Config{Leader: l})
	ctx := as(t.Context(), "user/bob?role=operator")
	for _, c := range []struct {
		r    *orchv1.NodeWordRequest
		code codes.Code
	}{
		{&orchv1.NodeWordRequest{Node: "n1", Word: "drain", Deadline: durationpb.New(10 * time.Minute)}, codes.OK},
		{&orchv1.NodeWordRequest{Node: "n1", Word: "drain"}, codes.OK},
		{&orchv1.NodeWordRequest{Node: "n1", Word: "drain", Deadline: durationpb.New(-time.Second)}, codes.InvalidArgument},
		{&orchv1.NodeWordRequest{Node: "n1", Word: "drain", Deadline: durationpb.New(deadlineMax + 1)}, codes.InvalidArgument},
		{&orchv1.NodeWordRequest{Node: "n1", Word: "cordon", Deadline: durationpb.New(time.Minute)}, codes.InvalidArgument},
	} {
		if _, err := s.NodeWord(ctx, c.r); status.Code(err) != c.code {
			t.Errorf("%v: %v, want %s", c.r, err, c.code)
		}
	}
	l.value = core.RebalanceResult{Before: 0.5, After: 0.25, Moves: []core.Move{{Replica: api.ReplicaKey{Namespace: "default", Service: "web", Slot: 3, Epoch: 9}, From: "n1", To: "n4", Why: "n4 is empty"}}}
	got, err := s.Rebalance(ctx, &orchv1.RebalanceRequest{DryRun: true})
	if err != nil || got.Before != 0.5 || got.After != 0.25 || len(got.Moves) != 1 || got.Moves[0].String() != (&orchv1.Move{Namespace: "default", Replica: "web-3", From: "n1", To: "n4", Why: "n4 is empty"}).String() {
		t.Errorf("%v, %v", got, err)
	}
	want := []core.Event{core.NodeWord{Ticket: 7, Node: "n1", Word: "drain", Deadline: 10 * time.Minute, By: "user bob"}, core.NodeWord{Ticket: 7, Node: "n1", Word: "drain", By: "user bob"},
		core.Rebalance{Ticket: 7, DryRun: true, By: "user bob"}}
	if !slices.Equal(l.told, want) {
		t.Errorf("told %v, want %v", l.told, want)
	}
}
