package api

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	gcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/controller/images"
	"github.com/orchctl/orch/internal/registry"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// asked is a registry that knows some references, and keeps who asks.
type asked struct {
	mu     sync.Mutex
	of     map[string]registry.Resolved
	err    error
	refs   []string
	logins []registry.Login
}

func (x *asked) Resolve(_ context.Context, ref string, logins []registry.Login) (registry.Resolved, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.refs, x.logins = append(x.refs, ref), logins
	if x.err != nil {
		return registry.Resolved{}, x.err
	}
	if r, ok := x.of[ref]; ok {
		return r, nil
	}
	return registry.Resolved{}, fmt.Errorf("registry hub does not have %s: %w", ref, registry.ErrMissing)
}

// pulls sets the service's policy.
func pulls(s *api.Service, p api.PullPolicy) *api.Service {
	for i := range s.Spec.Containers {
		s.Spec.Containers[i].PullPolicy = p
	}
	s.Default()
	return s
}

// TestWhoTellsWhatATagMeans: the registry, or nodes, as the policy says and as they can.
func TestWhoTellsWhatATagMeans(t *testing.T) {
	away := fmt.Errorf("registry hub cannot be asked: %w", registry.ErrUnreachable)
	denied := fmt.Errorf("registry hub wants a login: %w", registry.ErrDenied)
	here := map[string]registry.Resolved{"web:1": {Digest: sha("a")}}
	for _, c := range []struct {
		name   string
		policy api.PullPolicy
		of     map[string]registry.Resolved
		err    error
		nodes  map[string]string
		want   string // digest
		opened string
		flags  string // of the question to a node
		warns  string
		refuse string
	}{
		{name: "the registry", of: here, nodes: map[string]string{"web:1": sha("b")}, want: sha("a")},
		{name: "it cannot be asked", err: away, nodes: map[string]string{"web:1": sha("b")}, want: sha("b"), opened: "n3"},
		{name: "it does not have it, a node does", nodes: map[string]string{"web:1": sha("b")}, want: sha("b"), opened: "n3"},
		{name: "nobody has it", nodes: map[string]string{"web:1": "no such image"}, opened: "n3 n4 n5",
			warns: "image web:1: it is not pinned to a digest, and what the first replica finds holds for all: registry hub does not have web:1: image is missing"},
		{name: "no login", err: denied, nodes: map[string]string{"web:1": "no such image"}, opened: "n3 n4 n5", warns: "registry hub wants a login"},
		{name: "nobody can ask", err: away, nodes: map[string]string{"web:1": "no such image"}, opened: "n3 n4 n5", warns: "node n3: no such image"},
		{name: "never", policy: api.PullNever, of: here, nodes: map[string]string{"web:1": sha("b")}, want: sha("b"), opened: "n3", flags: "never"},
		{name: "always", policy: api.PullAlways, of: here, nodes: map[string]string{"web:1": sha("b")}, want: sha("a")},
		{name: "always, by a node", policy: api.PullAlways, err: away, nodes: map[string]string{"web:1": sha("b")}, want: sha("b"), opened: "n3", flags: "registry"},
		{name: "always, and it is missing", policy: api.PullAlways, nodes: map[string]string{"web:1": sha("b")}, refuse: "service default/web: image web:1 has pullPolicy: always, and its registry cannot tell what it means now: registry hub does not have web:1"},
		{name: "always, and no login", policy: api.PullAlways, err: denied, refuse: "registry hub wants a login"},
		{name: "always, and nobody can ask", policy: api.PullAlways, err: away, nodes: map[string]string{"web:1": "no route"}, opened: "n3 n4 n5", flags: "registry", refuse: "node n3: no route; nothing was applied"},
		{name: "another hash", of: map[string]registry.Resolved{"web:1": {Digest: "sha512:abc"}}, nodes: map[string]string{"web:1": "no"}, opened: "n3 n4 n5", warns: "which is not pinned to"},
		{name: "another platform", of: map[string]registry.Resolved{"web:1": {Digest: sha("a"), Platforms: []string{"linux/arm64"}}}, want: sha("a"),
			warns: "image web:1: it is built for linux/arm64, and the nodes that its replicas may be on are linux/amd64: none can run it"},
		{name: "one of its platforms", of: map[string]registry.Resolved{"web:1": {Digest: sha("a"), Platforms: []string{"linux/amd64", "linux/arm64"}}}, want: sha("a")},
	} {
		t.Run(c.name, func(t *testing.T) {
			var flags []string
			x := &agents{script: func(node string, open *orchv1.OpenRelay, a *agentStream) {
				flags = append(flags, strings.TrimSpace(map[bool]string{true: "registry"}[open.GetResolve().GetRegistry()]+" "+map[bool]string{true: "never"}[open.GetResolve().GetNever()]))
				digestsBy(c.nodes)(node, open, a)
			}}
			l := &applier{}
			v := digestWorld()
			var p core.Publish
			for i := range 5 {
				n := &api.Node{Metadata: api.Metadata{Name: fmt.Sprintf("n%d", i+1), Labels: map[string]string{labelArch: "amd64"}}, Status: api.NodeStatus{Verdict: api.VerdictHealthy}}
				n.Spec.Unschedulable = i == 0
				if i == 1 {
					n.Status.Verdict = api.VerdictSuspect
				}
				p.Put = append(p.Put, core.Entry{Key: core.ViewKey{Kind: api.KindNode, Name: n.Metadata.Name}, Object: n})
			}
			v.Publish(p)
			s := New(Config{Leader: l, View: v, Registry: &asked{of: c.of, err: c.err}, Log: slog.New(slog.DiscardHandler)})
			s.open = x.open
			out, err := s.Apply(as(t.Context(), "user/bob?role=operator"), applyOf(pulls(plain("web", "web:1"), c.policy)))
			if c.refuse != "" {
				if err == nil || !strings.Contains(err.Error(), c.refuse) || len(l.told) != 0 {
					t.Fatalf("got %v, want %q; the leader was told %d times", err, c.refuse, len(l.told))
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := l.told[0].(core.Apply).Images["web:1"]; got != c.want {
				t.Errorf("digest %s, want %s", got, c.want)
			}
			if got := strings.Join(x.opened, " "); got != c.opened {
				t.Errorf("asked %s, want %s", got, c.opened)
			}
			for _, f := range flags {
				if f != c.flags {
					t.Errorf("a node is asked with %q, want %q", f, c.flags)
				}
			}
			if plan := strings.Join(out.Applied[0].Plan, "\n"); (c.warns == "") != (plan == "") || !strings.Contains(plan, c.warns) {
				t.Errorf("told %q, want %q", plan, c.warns)
			}
		})
	}
}

// TestASilentRegistry is not asked again for a minute; another one is.
func TestASilentRegistry(t *testing.T) {
	r := &asked{err: fmt.Errorf("no route: %w", registry.ErrUnreachable)}
	s := New(Config{Leader: &applier{}, View: digestWorld(), Registry: r, Log: slog.New(slog.DiscardHandler)})
	s.open = (&agents{script: digestsBy(map[string]string{"hub.example/a:1": sha("a"), "hub.example/b:1": sha("b"), "other.example/c:1": sha("c")})}).open
	for _, ref := range []string{"hub.example/a:1", "hub.example/b:1", "other.example/c:1"} {
		if _, err := s.Apply(as(t.Context(), "user/bob?role=operator"), applyOf(plain("web", ref))); err != nil {
			t.Fatal(err)
		}
	}
	if got := strings.Join(r.refs, " "); got != "hub.example/a:1 other.example/c:1" {
		t.Errorf("asked for %s", got)
	}
	now := time.Now()
	if !s.silent.is("hub.example", now.Add(silentFor-time.Second)) || s.silent.is("hub.example", now.Add(silentFor+time.Second)) {
		t.Error("it is silent for another time than a minute")
	}
}

// TestLoadedCounts: what an operator loaded is not asked of a registry, but where always
// says so.
func TestLoadedCounts(t *testing.T) {
	shelf, err := images.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	img, err := shelf.Add(strings.NewReader("archive"), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := shelf.Note(img, "key", []string{"orch.local/web:1"}); err != nil {
		t.Fatal(err)
	}
	r := &asked{of: map[string]registry.Resolved{"orch.local/web:1": {Digest: sha("a")}}}
	l := &applier{}
	s := New(Config{Leader: l, View: digestWorld(), Registry: r, Images: &images.Sender{Shelf: shelf}, Log: slog.New(slog.DiscardHandler)})
	finds := digestsBy(map[string]string{"orch.local/web:1": sha("b")})
	s.open = (&agents{script: func(node string, open *orchv1.OpenRelay, a *agentStream) {
		if !open.GetResolve().GetNever() { // a node without it would tell what the registry has by that name
			t.Errorf("%s may ask the registry", node)
		}
		finds(node, open, a)
	}}).open
	for _, c := range []struct {
		policy api.PullPolicy
		want   string
	}{{"", sha("b")}, {api.PullAlways, sha("a")}} {
		if _, err := s.Apply(as(t.Context(), "user/bob?role=operator"), applyOf(pulls(plain("web", "orch.local/web:1"), c.policy))); err != nil {
			t.Fatal(err)
		}
		if got := l.told[len(l.told)-1].(core.Apply).Images["orch.local/web:1"]; got != c.want {
			t.Errorf("policy %q: %s, want %s", c.policy, got, c.want)
		}
	}
}

// TestARealRegistry is asked with the login of a Secret that is applied together with the
// service, and with no other's.
func TestARealRegistry(t *testing.T) {
	server := httptest.NewServer(gcr.New(gcr.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	ref, err := name.NewTag(host+"/shop/web:1", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	img, err := random.Image(100, 1)
	if err != nil {
		t.Fatal(err)
	}
	cf, _ := img.ConfigFile()
	cf = cf.DeepCopy()
	cf.OS, cf.Architecture = "linux", "arm64"
	if img, err = mutate.ConfigFile(img, cf); err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img); err != nil {
		t.Fatal(err)
	}
	digest := must(t)(img.Digest())
	client := registry.New(registry.Config{Insecure: []string{host}})
	s := New(Config{Leader: &applier{}, View: digestWorld(), Registry: client, Log: slog.New(slog.DiscardHandler)})
	s.open = (&agents{script: digestsBy(nil)}).open
	web := plain("web", host+"/shop/web:1", host+"/shop/none:1")
	web.Spec.PullSecrets = []string{"hub"}
	secret := &api.Config{TypeMeta: api.TypeMeta{Kind: api.KindSecret}, Metadata: api.Metadata{Name: "hub", Namespace: "default"}, Type: api.SecretRegistry,
		Data: map[string]string{"config.json": fmt.Sprintf(`{"auths": {%q: {"auth": "bWU6cHc="}, "elsewhere.example": {"auth": "bWU6cHc="}}}`, host)}}
	questions := s.questions(t.Context(), []templated{{web.Spec.Template, refTo(web)}}, []*api.Config{secret})
	if len(questions) != 2 || len(questions[0].logins) != 1 || questions[0].logins[0].Username != "me" || questions[0].logins[0].Server != host {
		t.Fatalf("questions %v", questions[0])
	}
	a := s.answer(t.Context(), questions[0], s.cfg.View.Snapshot())
	if a.digest != digest.String() {
		t.Errorf("answer %+v, want %s", a, digest)
	}
	if _, err := s.askRegistry(t.Context(), questions[1]); err == nil || !strings.Contains(err.Error(), "does not have") {
		t.Errorf("what is not there: %v", err)
	}
}

func must(t *testing.T) func(v1.Hash, error) v1.Hash {
	return func(h v1.Hash, err error) v1.Hash {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
}
