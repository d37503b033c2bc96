package api

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller"
	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/controller/view"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// applier is a leader that takes everything.
type applier struct{ leader }

func (l *applier) Ask(_ context.Context, event func(uint64) core.Event) (controller.Answer, error) {
	ev := event(7)
	l.told = append(l.told, ev)
	result := core.ApplyResult{}
	switch ev := ev.(type) {
	case core.Apply:
		for _, s := range ev.Services {
			result.Applied = append(result.Applied, core.Applied{Service: s, Outcome: "configured"})
		}
	case core.Rollout:
		result.Applied = append(result.Applied, core.Applied{Service: plain("web", "a:1"), Outcome: "configured"})
	}
	return controller.Answer{Value: result}, nil
}

func plain(name string, images ...string) *api.Service {
	s := &api.Service{Metadata: api.Metadata{Name: name}}
	for i, x := range images {
		s.Spec.Containers = append(s.Spec.Containers, api.Container{Name: fmt.Sprintf("c%d", i), Image: x})
	}
	s.Default()
	return s
}

func applyOf(services ...*api.Service) *orchv1.ApplyRequest {
	r := &orchv1.ApplyRequest{}
	for _, s := range services {
		js, err := json.Marshal(s)
		if err != nil {
			panic(err)
		}
		r.Objects = append(r.Objects, &orchv1.Object{Kind: api.KindService, Json: js})
	}
	return r
}

func sha(c string) string { return "sha256:" + strings.Repeat(c, 64) }

// digestWorld has nodes n1 (cordoned), n2 (suspect), n3, n4 and n5 (well; n4 and n5 have
// disks), and the services that a test adds.
func digestWorld(services ...*api.Service) *view.View {
	v := view.New()
	var p core.Publish
	for i := range 5 {
		n := &api.Node{Metadata: api.Metadata{Name: fmt.Sprintf("n%d", i+1)}, Status: api.NodeStatus{Verdict: api.VerdictHealthy}}
		n.Spec.Unschedulable = i == 0
		if i == 1 {
			n.Status.Verdict = api.VerdictSuspect
		}
		if i >= 3 {
			n.Metadata.Labels = map[string]string{"disk": "ssd"}
		}
		p.Put = append(p.Put, core.Entry{Key: core.ViewKey{Kind: api.KindNode, Name: n.Metadata.Name}, Object: n})
	}
	for _, s := range services {
		p.Put = append(p.Put, core.Entry{Key: core.ViewKey{Kind: api.KindService, Namespace: s.Metadata.Namespace, Name: s.Metadata.Name}, Object: s})
	}
	v.Publish(p)
	return v
}

// digestsBy answers by reference: a digest, or words. A reference that is not there is
// never answered.
func digestsBy(of map[string]string) func(string, *orchv1.OpenRelay, *agentStream) {
	return func(_ string, open *orchv1.OpenRelay, a *agentStream) {
		for _, ref := range open.GetResolve().GetRefs() {
			says, ok := of[ref]
			if !ok {
				return
			}
			r := &orchv1.ResolvedImage{Ref: ref, Digest: says}
			if !strings.HasPrefix(says, "sha256:") {
				r.Digest, r.Error = "", says
			}
			a.from <- &orchv1.Frame{Frame: &orchv1.Frame_Resolved{Resolved: r}}
		}
		a.from <- endFrame("")
	}
}

// TestApplyAsksForDigests: of what makes a new revision and is not pinned already, on
// nodes that can answer, within three seconds and beside each other.
func TestApplyAsksForDigests(t *testing.T) {
	ssd := plain("db", "db:1")
	ssd.Spec.NodeSelector = map[string]string{"disk": "ssd"}
	sidecar := plain("web", "web:2")
	sidecar.Spec.Sidecars = []api.Container{{Name: "log", Image: "log:1"}}
	sidecar.Default()
	for _, c := range []struct {
		name    string
		live    []*api.Service
		apply   []*api.Service
		dry     bool
		away    map[string]bool
		answers map[string]string
		want    map[string]string
		opened  string // nodes
		warns   string // in the first service's plan
		takes   time.Duration
	}{
		{name: "new", apply: []*api.Service{plain("web", "web:1")}, answers: map[string]string{"web:1": sha("a")}, want: map[string]string{"web:1": sha("a")}, opened: "n3"},
		{name: "the same template", live: []*api.Service{plain("web", "web:1")}, apply: []*api.Service{plain("web", "web:1")}},
		{name: "another one", live: []*api.Service{plain("web", "web:1")}, apply: []*api.Service{plain("web", "web:2")}, answers: map[string]string{"web:2": sha("b")}, want: map[string]string{"web:2": sha("b")}, opened: "n3"},
		{name: "a digest needs no answer", apply: []*api.Service{plain("web", "web@"+sha("a"))}},
		{name: "each reference once", apply: []*api.Service{plain("web", "web:1", "web:1")}, answers: map[string]string{"web:1": sha("a")}, want: map[string]string{"web:1": sha("a")}, opened: "n3"},
		{name: "a dry run asks nobody", apply: []*api.Service{plain("web", "web:1")}, dry: true},
		{name: "a node that fits comes first", apply: []*api.Service{ssd}, answers: map[string]string{"db:1": sha("d")}, want: map[string]string{"db:1": sha("d")}, opened: "n4"},
		{name: "one that is away is passed over", apply: []*api.Service{plain("web", "web:1")}, away: map[string]bool{"n3": true}, answers: map[string]string{"web:1": sha("a")}, want: map[string]string{"web:1": sha("a")}, opened: "n3 n4"},
		{name: "three are asked", apply: []*api.Service{plain("web", "web:9")}, answers: map[string]string{"web:9": "no such image"}, want: map[string]string{}, opened: "n3 n4 n5",
			warns: "image web:9: it is not pinned to a digest, and what the first replica finds holds for all: node n3: no such image"},
		{name: "what is no digest is not taken", apply: []*api.Service{plain("web", "web:1")}, answers: map[string]string{"web:1": "sha256:short"}, want: map[string]string{}, opened: "n3 n4 n5",
			warns: "image web:1: it is not pinned to a digest, and what the first replica finds holds for all: node n3: its agent answers without a digest"},
		{name: "silence", apply: []*api.Service{sidecar}, answers: map[string]string{"web:2": sha("b")}, want: map[string]string{"web:2": sha("b")}, opened: "n3 n3", takes: digestTimeout,
			warns: "image log:1: its digest could not be told within 3s (asked n3): what the first replica finds holds for all"},
	} {
		synctest.Test(t, func(t *testing.T) {
			x := &agents{away: c.away, script: digestsBy(c.answers)}
			l := &applier{}
			s := New(Config{Leader: l, View: digestWorld(c.live...)})
			s.open = x.open
			began := time.Now()
			r := applyOf(c.apply...)
			r.DryRun = c.dry
			answer, err := s.Apply(as(t.Context(), "user/bob?role=operator"), r)
			if err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			if got := l.told[0].(core.Apply).Images; !maps.Equal(got, c.want) {
				t.Errorf("%s: images %v, want %v", c.name, got, c.want)
			}
			if got := strings.Join(x.opened, " "); got != c.opened {
				t.Errorf("%s: asked %s, want %s", c.name, got, c.opened)
			}
			if got := strings.Join(answer.Applied[0].Plan, "\n"); got != c.warns {
				t.Errorf("%s: warns %q, want %q", c.name, got, c.warns)
			}
			if took := time.Since(began); took != c.takes {
				t.Errorf("%s: took %s, want %s", c.name, took, c.takes)
			}
		})
	}
}

// TestDigestsOfMany: more references than are asked about at once.
func TestDigestsOfMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var images []string
		of := map[string]string{}
		for i := range 3 * digestsAtOnce {
			ref := fmt.Sprintf("img:%d", i)
			images, of[ref] = append(images, ref), sha("c")
		}
		x := &agents{script: func(node string, open *orchv1.OpenRelay, a *agentStream) {
			time.Sleep(500 * time.Millisecond)
			digestsBy(of)(node, open, a)
		}}
		s := New(Config{View: digestWorld()})
		s.open = x.open
		began := time.Now()
		if got := s.digestsOf(t.Context(), []templated{{Template: plain("web", images...).Spec.Template}}, nil); len(got.known) != len(images) || len(got.unknown) != 0 {
			t.Errorf("%d known, %v", len(got.known), got.unknown)
		}
		if took := time.Since(began); took != 1500*time.Millisecond {
			t.Errorf("took %s, want three rounds", took)
		}
	})
}

// TestRolloutWords: what is said, by whom, and what reaches the leader.
func TestRolloutWords(t *testing.T) {
	for _, c := range []struct {
		r    *orchv1.RolloutRequest
		want string // the event, or the error after "!"
	}{
		{&orchv1.RolloutRequest{Name: "web", Word: "pause", RequestId: "r1"}, "default/web pause 0 r1 user bob map[]"},
		{&orchv1.RolloutRequest{Name: "web", Namespace: "shop", Word: "resume"}, "shop/web resume 0  user bob map[]"},
		{&orchv1.RolloutRequest{Name: "web", Word: "undo", Revision: 3}, "default/web undo 3  user bob map[]"},
		{&orchv1.RolloutRequest{Name: "web", Word: "restart"}, "default/web restart 0  user bob map[a:1:" + sha("e") + "]"},
		{&orchv1.RolloutRequest{Name: "gone", Word: "restart"}, "default/gone restart 0  user bob map[]"}, // the leader says what is wrong
		{&orchv1.RolloutRequest{Name: "web", Word: "stop"}, `!unknown word "stop": want one of pause, resume, undo, restart`},
		{&orchv1.RolloutRequest{Word: "pause"}, "!no service is named"},
		{&orchv1.RolloutRequest{Name: "web", Word: "restart", Revision: 2}, "!only an undo goes to a revision"},
		{&orchv1.RolloutRequest{Name: "web", Word: "undo", Revision: -2}, "!they count from 1"},
		{&orchv1.RolloutRequest{Name: "web", Word: "undo", RequestId: strings.Repeat("x", 129)}, "!request id"},
		{&orchv1.RolloutRequest{Name: strings.Repeat("x", 200), Word: "undo"}, "!so long a name"},
	} {
		l := &applier{}
		s := New(Config{Leader: l, View: digestWorld(plain("web", "a:1"))})
		s.open = (&agents{script: digestsBy(map[string]string{"a:1": sha("e")})}).open
		_, err := s.Rollout(as(t.Context(), "user/bob?role=operator"), c.r)
		if want, bad := strings.CutPrefix(c.want, "!"); bad {
			if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), want) || len(l.told) > 0 {
				t.Errorf("%v: %v (told %v), want %s", c.r, err, l.told, want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%v: %v", c.r, err)
			continue
		}
		ev := l.told[0].(core.Rollout)
		if got := fmt.Sprintf("%s %s %d %s %s %v", ev.Key, ev.Word, ev.Revision, ev.RequestID, ev.By, ev.Images); got != c.want {
			t.Errorf("%v: told %s, want %s", c.r, got, c.want)
		}
	}
}

// TestRevisions: they are listed about their service, newest first, and read by name.
func TestRevisions(t *testing.T) {
	v := view.New()
	var p core.Publish
	add := func(ns, service string, n int64) {
		p.Put = append(p.Put, core.Entry{Key: core.ViewKey{Kind: api.KindRevision, Namespace: ns, Name: fmt.Sprintf("%s@%d", service, n)},
			Object: &api.Revision{Service: api.Key{Namespace: ns, Name: service}, Number: n}})
	}
	for _, n := range []int64{2, 9, 10, 11} {
		add("default", "web", n)
	}
	add("default", "web-2", 1)
	add("default", "web2", 4)
	add("default", "we", 5)
	add("shop", "web", 7)
	v.Publish(p)
	s := New(Config{View: v})
	service := func(ns, name string) *orchv1.Ref {
		return &orchv1.Ref{Kind: api.KindService, Namespace: ns, Name: name}
	}
	for _, c := range []struct {
		r    *orchv1.ListRequest
		want string
	}{
		{&orchv1.ListRequest{Kind: api.KindRevision, About: service("", "web")}, "11 10 9 2"},
		{&orchv1.ListRequest{Kind: api.KindRevision, About: service("shop", "web")}, "7"},
		{&orchv1.ListRequest{Kind: api.KindRevision, Namespace: "shop", About: service("", "web")}, "7"},
		{&orchv1.ListRequest{Kind: api.KindRevision, About: service("", "nothing")}, ""},
		{&orchv1.ListRequest{Kind: api.KindRevision}, "!about one service"},
		{&orchv1.ListRequest{Kind: api.KindRevision, About: service("", "")}, "!are a service's"},
		{&orchv1.ListRequest{Kind: api.KindRevision, About: &orchv1.Ref{Kind: api.KindNode, Name: "n1"}}, "!are a service's"},
		{&orchv1.ListRequest{Kind: api.KindRevision, Selector: "a=b", About: service("", "web")}, "!no labels"},
	} {
		answer, err := s.List(t.Context(), c.r)
		if want, bad := strings.CutPrefix(c.want, "!"); bad {
			if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), want) {
				t.Errorf("%v: error %v, want %s", c.r, err, want)
			}
			continue
		}
		var got []string
		for _, o := range answer.GetObjects() {
			var r api.Revision
			if err := json.Unmarshal(o.Json, &r); err != nil || o.Kind != api.KindRevision {
				t.Fatal(o, err)
			}
			got = append(got, fmt.Sprint(r.Number))
		}
		if err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("%v: got %v, %v; want %s", c.r, got, err, c.want)
		}
	}
	if o, err := s.Get(t.Context(), &orchv1.GetRequest{Ref: &orchv1.Ref{Kind: api.KindRevision, Name: "web@10"}}); err != nil || !strings.Contains(string(o.Json), `"number":10`) {
		t.Errorf("web@10: %v, %v", o, err)
	}
	if _, err := s.Get(t.Context(), &orchv1.GetRequest{Ref: &orchv1.Ref{Kind: api.KindRevision, Name: "web@3"}}); status.Code(err) != codes.NotFound || !strings.Contains(err.Error(), "revision default/web@3: not found") {
		t.Errorf("web@3: %v", err)
	}
}
