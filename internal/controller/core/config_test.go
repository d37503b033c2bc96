package core

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/store"
	"github.com/orchctl/orch/internal/wire"
	"pgregory.net/rapid"
)

// values makes the change that an apply of a Config or Secret is to the core.
func values(kind, name string, pairs ...string) ConfigChange {
	x := api.Config{}
	ch := ConfigChange{Kind: kind, Metadata: api.Metadata{Name: name, Namespace: "default"}, Keys: map[string]int{}}
	for i := 0; i+1 < len(pairs); i += 2 {
		if x.Data == nil {
			x.Data = map[string]string{}
		}
		x.Data[pairs[i]] = pairs[i+1]
		ch.Keys[pairs[i]] = len(pairs[i+1])
	}
	ch.Payload, _ = json.Marshal(x)
	ch.Digest = fmt.Sprintf("%x", sha256.Sum256(ch.Payload))
	if kind == api.KindSecret {
		ch.SealedBy, ch.Payload = "k1", append([]byte("sealed by k1:"), ch.Payload...)
	}
	return ch
}

// applyAll applies Configs and services together.
func (f *fleet) applyAll(configs []ConfigChange, services ...*api.Service) ([]Applied, error) {
	f.t.Helper()
	f.ticket++
	f.step(Apply{Ticket: f.ticket, Configs: configs, Services: services, By: "tester"})
	f.turn()
	r := f.replies[f.ticket]
	if r.Err != nil {
		return nil, r.Err
	}
	return r.Value.(ApplyResult).Applied, nil
}

func (f *fleet) mustAll(configs []ConfigChange, services ...*api.Service) []Applied {
	f.t.Helper()
	a, err := f.applyAll(configs, services...)
	if err != nil {
		f.t.Fatal(err)
	}
	return a
}

// config gives what is published of a Config or Secret; nil: nothing.
func (f *fleet) config(kind, name string) *api.Config {
	x, _ := f.seen[ViewKey{kind, "default", name}].(*api.Config)
	return x
}

// takes has the service's container take values: "config app URL" of one key, "secret db"
// of all, as variables.
func takes(s *api.Service, uses ...string) *api.Service {
	ct := &s.Spec.Template.Containers[0]
	for _, u := range uses {
		part := strings.Fields(u)
		switch {
		case len(part) == 2 && part[0] == "config":
			ct.EnvFrom = append(ct.EnvFrom, api.EnvFrom{Config: part[1]})
		case len(part) == 2:
			ct.EnvFrom = append(ct.EnvFrom, api.EnvFrom{Secret: part[1]})
		case part[0] == "config":
			ct.Env = append(ct.Env, api.EnvVar{Name: part[2], ValueFrom: &api.EnvSource{Config: &api.KeyRef{Name: part[1], Key: part[2]}}})
		default:
			ct.Env = append(ct.Env, api.EnvVar{Name: part[2], ValueFrom: &api.EnvSource{Secret: &api.KeyRef{Name: part[1], Key: part[2]}}})
		}
	}
	return s
}

// held gives what agents hold of a service, by replica.
func (f *fleet) held(service string) map[string]wire.Assignment {
	out := map[string]wire.Assignment{}
	for _, a := range f.agents {
		for k, x := range a.holds {
			if k.Service == service {
				out[k.Name()] = x
			}
		}
	}
	return out
}

func versionsOf(x *api.Config) string {
	var out []string
	for _, v := range x.Status.Versions {
		out = append(out, fmt.Sprintf("%d %v", v.Number, v.Users))
	}
	return strings.Join(out, "; ")
}

func TestConfigIsAppliedWithWhatUsesIt(t *testing.T) {
	f := threeNodes(t)
	got := f.mustAll([]ConfigChange{values(api.KindConfig, "app", "URL", "a"), values(api.KindSecret, "db", "PASSWORD", "geheim")},
		takes(web(2, "a:1"), "config app", "secret db PASSWORD"))
	if len(got) != 3 || got[0].Config == nil || got[1].Config == nil || got[2].Service == nil || got[0].Outcome != "created" {
		t.Fatalf("applied %+v", got)
	}
	if got[0].Config.Data["URL"] != "a" || len(got[1].Config.Data) > 0 || got[1].Config.Status.Keys["PASSWORD"] != 6 {
		t.Errorf("config %+v, secret %+v", got[0].Config, got[1].Config)
	}
	f.mustReady("web", 2)
	want := map[api.ConfigRef]int64{"config/app": 1, "secret/db": 1}
	for name, x := range f.held("web") {
		if !maps.Equal(x.Configs, want) {
			t.Errorf("%s takes %v, want %v", name, x.Configs, want)
		}
	}
	if got := versionsOf(f.config(api.KindSecret, "db")); got != "1 [web@1]" {
		t.Errorf("versions of the secret: %s", got)
	}
	for _, x := range f.mustAll([]ConfigChange{values(api.KindConfig, "app", "URL", "a")}, takes(web(2, "a:1"), "config app", "secret db PASSWORD")) {
		if x.Outcome != "unchanged" {
			t.Errorf("the same again: %+v", x)
		}
	}
	f.elect()
	if f.config(api.KindConfig, "app").Data["URL"] != "a" {
		t.Errorf("the next leader shows %+v", f.config(api.KindConfig, "app"))
	}
}

// Every set is enough by itself to start what it puts.
func TestSetsCarryTheVersionsThatTheyNeed(t *testing.T) {
	f := newFleet(t)
	f.node("n1", "b")
	f.applyAll([]ConfigChange{values(api.KindConfig, "app", "URL", "a"), values(api.KindSecret, "db", "PASSWORD", "geheim")},
		takes(web(2, "a:1"), "config app", "secret db PASSWORD"))
	look := func(e SendAssignments) {
		t.Helper()
		var got []string
		for _, v := range e.Set.Configs {
			got = append(got, fmt.Sprintf("%s/%s@%d %s", v.Namespace, string(v.Ref), v.Version, v.Payload))
		}
		if len(got) != 2 || !strings.HasPrefix(got[0], "default/config/app@1 {") || !strings.HasPrefix(got[1], "default/secret/db@1 sealed by k1:") {
			t.Errorf("%d assignments with %q", len(e.Set.Put), got)
		}
	}
	for _, e := range f.core.Step(SessionOpened{Node: "n1", Session: 99, Hello: wire.Hello{BootID: "b", Address: "10.0.0.1",
		Capacity: api.ResourceList{api.CPU: api.Whole(4), api.Memory: api.Whole(8 << 30)}}}, f.now) {
		if a, ok := e.(SendAssignments); ok {
			look(a)
			return
		}
	}
	t.Fatal("no complete set was sent")
}

func TestChangedConfigIsRolledOut(t *testing.T) {
	f := threeNodes(t)
	f.mustAll([]ConfigChange{values(api.KindConfig, "app", "URL", "a")}, takes(web(2, "a:1"), "config app"), takes(named("api", 1, "b:1"), "config app URL"), named("other", 1, "c:1"))
	f.mustAll([]ConfigChange{values(api.KindConfig, "app", "URL", "b")})
	f.pass(time.Second)
	for name, want := range map[string]int64{"web": 2, "api": 2, "other": 1} {
		if got := f.service(name).Status.Revision; got != want {
			t.Errorf("%s has revision %d, want %d", name, got, want)
		}
	}
	r := f.seen[ViewKey{api.KindRevision, "default", "web@2"}].(*api.Revision)
	if r.Cause != "config app version 2" || r.Configs["config/app"] != 2 || r.By != "tester" {
		t.Errorf("revision %+v", r)
	}
	for name, x := range f.held("web") {
		if x.Configs["config/app"] != 2 {
			t.Errorf("%s runs with version %d", name, x.Configs["config/app"])
		}
	}
	if got := versionsOf(f.config(api.KindConfig, "app")); got != "1 [api@1 web@1]; 2 [api@2 web@2]" {
		t.Errorf("versions: %s", got)
	}
	// In one apply with the service, with and without another template.
	f.mustAll([]ConfigChange{values(api.KindConfig, "app", "URL", "c")}, takes(web(2, "a:1"), "config app"))
	if s := f.service("web"); s.Status.Revision != 3 || f.core.services[s.Metadata.Key()].newest().Cause != "config app version 3" {
		t.Errorf("web has revision %d", s.Status.Revision)
	}
	f.mustAll([]ConfigChange{values(api.KindConfig, "app", "URL", "d")}, takes(web(2, "a:2"), "config app"))
	if s := f.service("web"); s.Status.Revision != 4 || f.core.services[s.Metadata.Key()].newest().Cause != "apply" {
		t.Errorf("web has revision %d", s.Status.Revision)
	}
	if got := f.service("api").Status.Revision; got != 4 {
		t.Errorf("api has revision %d, want 4", got)
	}
}

func TestUndoTakesTheOldVersionsAndRestartTheNewest(t *testing.T) {
	f := threeNodes(t)
	pin := func() int64 {
		return f.core.services[api.Key{Namespace: "default", Name: "web"}].newest().Configs["config/app"]
	}
	f.mustAll([]ConfigChange{values(api.KindConfig, "app", "URL", "a")}, takes(web(1, "a:1"), "config app"))
	f.pass(time.Second)
	f.mustAll([]ConfigChange{values(api.KindConfig, "app", "URL", "b")})
	f.pass(time.Second)
	if err := f.order("undo", 1).Err; err != nil {
		t.Fatal(err)
	}
	f.pass(time.Second)
	if pin() != 1 {
		t.Errorf("after undo it takes version %d", pin())
	}
	f.mustAll(nil, takes(web(1, "a:1"), "config app"))
	if pin() != 1 {
		t.Errorf("the same template changes nothing, and it takes version %d", pin())
	}
	if err := f.order("restart", 0).Err; err != nil {
		t.Fatal(err)
	}
	if pin() != 2 {
		t.Errorf("after restart it takes version %d", pin())
	}
	if got := f.mustAll([]ConfigChange{values(api.KindConfig, "app", "URL", "a")})[0]; got.Config.Status.Version != 3 {
		t.Errorf("the values of version 1 again: %+v", got)
	}
}

func TestConfigRefusals(t *testing.T) {
	for _, tt := range []struct {
		name    string
		change  []ConfigChange
		service *api.Service
		want    string
	}{
		{"missing", nil, takes(web(1, "a:2"), "secret db"), "service default/web (container main, envFrom) takes secret default/db, which is not there: apply it first, or together with it"},
		{"missing key", nil, takes(web(1, "a:2"), "config app OTHER"), "service default/web (container main, env OTHER) takes key OTHER of config default/app, and its version 1 does not have that: it has URL"},
		{"key dropped", []ConfigChange{values(api.KindConfig, "app", "X", "1")}, nil, "service default/web (container main, env URL) takes key URL of config default/app, and its version 2 does not have that: it has X"},
		{"no variable", []ConfigChange{values(api.KindConfig, "app", "URL", "a", "1x", "b")}, takes(web(1, "a:2"), "config app"), `service default/web (container main, envFrom) takes all of config default/app as variables, and "1x" of its version 2 is no variable's name`},
		{"twice", []ConfigChange{values(api.KindConfig, "x"), values(api.KindConfig, "x")}, nil, "config default/x stands twice in one apply: invalid"},
	} {
		f := threeNodes(t)
		f.mustAll([]ConfigChange{values(api.KindConfig, "app", "URL", "a")}, takes(web(1, "a:1"), "config app URL"))
		before := maps.Clone(f.kv)
		var services []*api.Service
		if tt.service != nil {
			services = append(services, tt.service)
		}
		_, err := f.applyAll(tt.change, services...)
		if err == nil || err.Error() != tt.want || !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: got %v, want %s", tt.name, err, tt.want)
		}
		before[countersKey] = f.kv[countersKey] // numbers may be spent for nothing
		if !maps.EqualFunc(before, f.kv, func(a, b []byte) bool { return slices.Equal(a, b) }) {
			t.Errorf("%s: half of it was done", tt.name)
		}
	}
}

func (f *fleet) remove(kind string, names ...string) error {
	f.t.Helper()
	f.ticket++
	var refs []api.Ref
	for _, name := range names {
		refs = append(refs, api.Ref{Kind: kind, Key: api.Key{Namespace: "default", Name: name}})
	}
	f.step(Delete{Ticket: f.ticket, Refs: refs, By: "tester"})
	f.turn()
	return f.replies[f.ticket].Err
}

func TestDeleteOfAConfig(t *testing.T) {
	f := threeNodes(t)
	f.mustAll([]ConfigChange{values(api.KindConfig, "app", "URL", "a"), values(api.KindSecret, "db", "P", "x"), values(api.KindConfig, "free", "A", "1")}, takes(web(1, "a:1"), "config app", "config app URL"))
	f.pass(time.Second)
	const want = "config default/app is used by service web (container main, envFrom; container main, env URL): change or delete what uses it first"
	if err := f.remove(api.KindConfig, "free", "app"); err == nil || err.Error() != want || !errors.Is(err, ErrBusy) {
		t.Errorf("got %v, want %s", err, want)
	}
	if f.config(api.KindConfig, "free") == nil {
		t.Error("half of a refused delete was done")
	}
	if err := f.remove(api.KindConfig, "free", "none"); !errors.Is(err, ErrNotFound) || err.Error() != "config default/none: not found; nothing was deleted" {
		t.Errorf("got %v", err)
	}
	if err := f.remove(api.KindSecret, "db"); err != nil || f.config(api.KindSecret, "db") != nil || len(f.core.configs) != 2 {
		t.Errorf("an unused secret: %v, %d are kept", err, len(f.core.configs))
	}

	f.mustAll(nil, web(1, "a:2"))
	f.pass(time.Second)
	if err := f.remove(api.KindConfig, "app"); err != nil || f.config(api.KindConfig, "app") != nil {
		t.Fatalf("only an old revision uses it: %v", err)
	}
	if f.core.configs[configID{"default", "config/app"}] == nil {
		t.Fatal("the version of a kept revision is gone")
	}
	f.elect()
	for _, n := range []string{"n1", "n2", "n3"} {
		f.node(n, "boot1")
	}
	if got := f.mustAll([]ConfigChange{values(api.KindConfig, "app", "URL", "a")})[0]; got.Outcome != "created" || got.Config.Status.Version != 2 {
		t.Errorf("made anew: %s, %+v", got.Outcome, got.Config.Status)
	}
	if r := f.order("undo", 1); r.Err != nil {
		t.Fatal(r.Err)
	}
	f.pass(time.Second)
	if got := f.held("web")["web-0"].Configs["config/app"]; got != 1 {
		t.Errorf("after the undo it runs with version %d, want that of revision 1", got)
	}
	if got := versionsOf(f.config(api.KindConfig, "app")); got != "1 [web@1 web@3]; 2 []" {
		t.Errorf("versions: %s", got)
	}
}

// A whole manifest is deleted at once: what uses a Config goes with it.
func TestDeleteOfAConfigWithItsUser(t *testing.T) {
	f := threeNodes(t)
	f.mustAll([]ConfigChange{values(api.KindConfig, "app", "URL", "a")}, takes(web(2, "a:1"), "config app"))
	f.ticket++
	f.step(Delete{Ticket: f.ticket, Refs: []api.Ref{{Kind: api.KindConfig, Key: api.Key{Namespace: "default", Name: "app"}}, {Key: api.Key{Namespace: "default", Name: "web"}}}})
	f.turn()
	if err := f.replies[f.ticket].Err; err != nil {
		t.Fatal(err)
	}
	f.pass(2 * time.Second)
	if len(f.core.configs) > 0 || f.config(api.KindConfig, "app") != nil {
		t.Errorf("%d are kept", len(f.core.configs))
	}
	for k := range f.kv {
		if strings.Contains(k, "/config") {
			t.Errorf("%s is left in the store", k)
		}
	}
}

func TestVersionsGoWithTheirLastUser(t *testing.T) {
	f := newFleet(t)
	f.conf.RevisionHistory = 2
	f.elect()
	f.node("n1", "b")
	for i := range 6 {
		f.mustAll([]ConfigChange{values(api.KindConfig, "app", "URL", fmt.Sprint(i))}, takes(web(1, "a:1"), "config app"))
		f.pass(2 * time.Second)
	}
	if got := versionsOf(f.config(api.KindConfig, "app")); got != "5 [web@5]; 6 [web@6]" {
		t.Errorf("versions: %s", got)
	}
	f.mustAll([]ConfigChange{values(api.KindConfig, "lone", "A", "1")})
	f.mustAll([]ConfigChange{values(api.KindConfig, "lone", "A", "2")})
	if got := versionsOf(f.config(api.KindConfig, "lone")); got != "2 []" {
		t.Errorf("versions of what nobody uses: %s", got)
	}
}

func TestDryRunSaysWhoGetsARevision(t *testing.T) {
	f := threeNodes(t)
	f.mustAll([]ConfigChange{values(api.KindConfig, "app", "URL", "a")}, takes(web(1, "a:1"), "config app"))
	f.ticket++
	f.step(Apply{Ticket: f.ticket, Configs: []ConfigChange{values(api.KindConfig, "app", "URL", "b")}, DryRun: true})
	f.turn()
	got := f.replies[f.ticket].Value.(ApplyResult).Applied[0]
	if want := []string{"service default/web gets revision 2: config app version 2"}; got.Outcome != "configured" || !slices.Equal(got.Plan, want) {
		t.Errorf("%s, plan %q, want %q", got.Outcome, got.Plan, want)
	}
	if f.config(api.KindConfig, "app").Status.Version != 1 || f.service("web").Status.Revision != 1 {
		t.Error("the dry run changed something")
	}
}

func TestRetryOfAConfigIsDoneOnce(t *testing.T) {
	f := threeNodes(t)
	for range 2 {
		f.ticket++
		f.step(Apply{Ticket: f.ticket, Configs: []ConfigChange{values(api.KindSecret, "db", "P", "a")}, RequestID: "same"})
		f.turn()
		got := f.replies[f.ticket].Value.(ApplyResult).Applied
		if len(got) != 1 || got[0].Outcome != "created" || got[0].Config == nil || got[0].Config.Kind != api.KindSecret || got[0].Config.Metadata.ResourceVersion != 1 {
			t.Errorf("got %+v", got)
		}
	}
}

func TestConfigPreconditions(t *testing.T) {
	f := threeNodes(t)
	stale := values(api.KindConfig, "app", "URL", "b")
	stale.Metadata.ResourceVersion = 7
	if _, err := f.applyAll([]ConfigChange{stale}); !errors.Is(err, ErrChanged) || !strings.Contains(err.Error(), "no such config exists") {
		t.Errorf("got %v", err)
	}
	f.mustAll([]ConfigChange{values(api.KindConfig, "app", "URL", "a")})
	if _, err := f.applyAll([]ConfigChange{stale}); !errors.Is(err, ErrChanged) || !strings.Contains(err.Error(), "metadata.resourceVersion is 7, the config's is 1") {
		t.Errorf("got %v", err)
	}
	labels := values(api.KindConfig, "app", "URL", "a")
	labels.Metadata.Labels = map[string]string{"team": "x"}
	if got := f.mustAll([]ConfigChange{labels})[0]; got.Outcome != "configured" || got.Config.Status.Version != 1 || got.Config.Metadata.ResourceVersion != 2 {
		t.Errorf("labels alone: %+v", got)
	}
}

func TestSecretsAreSealedAnew(t *testing.T) {
	f := threeNodes(t)
	f.mustAll([]ConfigChange{values(api.KindSecret, "a", "P", "1"), values(api.KindSecret, "b", "P", "2"), values(api.KindConfig, "c", "P", "3")})
	f.ticket++
	f.step(ListSealed{Ticket: f.ticket, Of: api.Key{Namespace: "default", Name: "b"}})
	f.turn()
	if of := f.replies[f.ticket].Value.([]Sealed); len(of) != 1 || of[0].Version.Ref != "secret/b" || of[0].SealedBy != "k1" {
		t.Errorf("of one secret: %+v", of)
	}
	list := func(limit int) []Sealed {
		f.ticket++
		f.step(ListSealed{Ticket: f.ticket, Except: "k2", Max: limit})
		f.turn()
		return f.replies[f.ticket].Value.([]Sealed)
	}
	reseal := func(of []Sealed) {
		for i := range of {
			of[i].Payload, of[i].SealedBy, of[i].Digest = []byte("sealed by k2"), "k2", "new"
		}
		f.ticket++
		f.step(Reseal{Ticket: f.ticket, Secrets: of})
		f.turn()
		if err := f.replies[f.ticket].Err; err != nil {
			t.Fatal(err)
		}
	}
	first := list(1)
	if len(first) != 1 || first[0].Version.Ref != "secret/a" || first[0].SealedBy != "k1" {
		t.Fatalf("listed %+v", first)
	}
	// Meanwhile somebody deletes it and makes another of its name: its number is the same.
	f.remove(api.KindSecret, "a")
	f.mustAll([]ConfigChange{values(api.KindSecret, "a", "P", "other")})
	reseal(first)
	if v := f.core.configs[configID{"default", "secret/a"}].newest(); v.SealedBy != "k1" || !strings.Contains(string(v.payload), "other") {
		t.Errorf("another secret's values were overwritten: %s", v.payload)
	}
	reseal(list(0))
	if left := list(10); len(left) != 0 {
		t.Errorf("left %+v", left)
	}
	f.elect()
	if left := list(10); len(left) != 0 {
		t.Errorf("the next leader finds %+v", left)
	}
	if got := string(f.core.configs[configID{"default", "secret/b"}].newest().payload); got != "sealed by k2" {
		t.Errorf("payload %q", got)
	}
}

// More services than one transaction holds cannot change at once, and nothing does.
func TestConfigOfTooManyServices(t *testing.T) {
	f := threeNodes(t)
	f.conf.Limits = store.ExternalLimits
	f.elect()
	f.mustAll([]ConfigChange{values(api.KindConfig, "app", "URL", "a")})
	for i := range 60 {
		f.mustAll(nil, takes(named(fmt.Sprint("s", i), 0, "a:1"), "config app"))
	}
	_, err := f.applyAll([]ConfigChange{values(api.KindConfig, "app", "URL", "b")})
	const want = "apply 1 objects at once, with new revisions of 60 services that use what changes: invalid"
	if err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
	if got := f.config(api.KindConfig, "app").Status.Version; got != 1 {
		t.Errorf("version %d", got)
	}
}

// pinsHold checks that what kept revisions pin is in the store, and nothing else.
func (f *fleet) pinsHold(r *rapid.T) {
	pinned := map[string]bool{}
	for k, b := range f.kv {
		if strings.HasPrefix(k, revisionPrefix) {
			var rev api.Revision
			if err := openEnvelope(b, &rev); err != nil {
				r.Fatal(err)
			}
			for ref, n := range rev.Configs {
				pinned[configVersionKey(configID{"default", ref}, n)] = true
			}
		}
		if strings.HasPrefix(k, configPrefix) {
			var rec configRecord
			if err := openEnvelope(b, &rec); err != nil {
				r.Fatal(err)
			}
			pinned[configVersionKey(configID{"default", api.ConfigRef(strings.TrimPrefix(k, configPrefix+"default/"))}, rec.Version)] = true
		}
	}
	for k := range pinned {
		if f.kv[k] == nil || f.kv[strings.Replace(k, versionPrefix, payloadPrefix, 1)] == nil {
			r.Fatalf("%s is pinned, or the newest, and not in the store", k)
		}
	}
	for k := range f.kv {
		if (strings.HasPrefix(k, versionPrefix) || strings.HasPrefix(k, payloadPrefix)) && !pinned[strings.Replace(k, payloadPrefix, versionPrefix, 1)] {
			r.Fatalf("%s has no user", k)
		}
	}
}

// TestPinsHold: whatever users do, each pin of each kept revision has its version, and
// each version that is not the newest has a user.
func TestPinsHold(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		f := newFleet(t)
		f.conf.RevisionHistory = rapid.IntRange(1, 4).Draw(r, "history")
		f.elect()
		f.node("n1", "b")
		f.says = func(_ *agent, x wire.Assignment) *api.ReplicaStatus {
			if s := crashed(3); x.Template.Containers[0].Image == "crash" {
				return &s
			}
			return nil
		}
		configs := []string{"app", "db"}
		for range rapid.IntRange(1, 30).Draw(r, "steps") {
			name := rapid.SampledFrom([]string{"web", "api"}).Draw(r, "service")
			config := rapid.SampledFrom(configs).Draw(r, "config")
			kind := map[string]string{"app": api.KindConfig, "db": api.KindSecret}[config]
			change := values(kind, config, "URL", rapid.SampledFrom([]string{"a", "b", "c"}).Draw(r, "value"))
			image := rapid.SampledFrom([]string{"a", "b", "crash"}).Draw(r, "image")
			s := within(5 * time.Second)
			want := named(name, 1, image)
			s(&want.Spec)
			for _, x := range configs {
				if rapid.Bool().Draw(r, "takes "+x) {
					takes(want, map[string]string{"app": "config app", "db": "secret db URL"}[x])
				}
			}
			switch rapid.SampledFrom([]string{"config", "service", "both", "undo", "restart", "delete config", "delete service", "pass", "leader"}).Draw(r, "step") {
			case "config":
				f.applyAll([]ConfigChange{change})
			case "service":
				f.applyAll(nil, want)
			case "both":
				f.applyAll([]ConfigChange{change}, want)
			case "undo":
				f.order("undo", int64(rapid.IntRange(0, 4).Draw(r, "to")))
			case "restart":
				f.order("restart", 0)
			case "delete config":
				f.remove(kind, config)
			case "delete service":
				f.delete(name)
			case "pass":
				f.pass(6 * time.Second)
			case "leader":
				f.elect()
				f.node("n1", "b")
			}
			f.pinsHold(r)
			for _, x := range f.held("web") {
				for ref, n := range x.Configs {
					if f.kv[configVersionKey(configID{"default", ref}, n)] == nil {
						r.Fatalf("%s runs with %s version %d, which is gone", x.Key, ref, n)
					}
				}
			}
		}
	})
}

// A job keeps the versions that it began with, and needs them until it has ended.
func TestJobKeepsItsVersions(t *testing.T) {
	w := newWorks(t, "n1")
	w.mustAll([]ConfigChange{values(api.KindConfig, "app", "URL", "a")})
	j := migrate(1, 1, 0)
	j.Spec.Template.Containers[0].EnvFrom = []api.EnvFrom{{Config: "app"}}
	if r := w.applyJob(j); r.Err != nil {
		t.Fatal(r.Err)
	}
	w.mustAll([]ConfigChange{values(api.KindConfig, "app", "OTHER", "b")})
	if got := versionsOf(w.config(api.KindConfig, "app")); got != "1 [migrate@1]; 2 []" {
		t.Errorf("versions: %s", got)
	}
	if got := w.held("migrate")["migrate-0"].Configs["config/app"]; got != 1 {
		t.Errorf("it runs with version %d", got)
	}
	if err := w.remove(api.KindConfig, "app"); err == nil || err.Error() != "config default/app is used by job migrate (container main, envFrom): change or delete what uses it first" {
		t.Errorf("got %v", err)
	}
	w.end(0, "n1", 0)
	w.pass(time.Second)
	if err := w.remove(api.KindConfig, "app"); err != nil {
		t.Errorf("the job has ended: %v", err)
	}
	if len(w.core.configs) != 1 {
		t.Error("the version that the job names is gone")
	}
}

// Values that break a service are no reason to stay with them: it goes back to the
// revision before, which has its own.
func TestBadValuesAreRolledBack(t *testing.T) {
	f := threeNodes(t)
	f.says = func(_ *agent, x wire.Assignment) *api.ReplicaStatus {
		if s := crashed(5); x.Configs["config/app"] == 2 {
			return &s
		}
		return nil
	}
	s := takes(web(2, "a:1"), "config app")
	within(10 * time.Second)(&s.Spec)
	f.mustAll([]ConfigChange{values(api.KindConfig, "app", "URL", "a")}, s)
	f.pass(2 * time.Second)
	f.mustRollout(1, api.RolloutComplete)
	f.mustAll([]ConfigChange{values(api.KindConfig, "app", "URL", "bad")})
	f.pass(20 * time.Second)
	f.mustRollout(3, api.RolloutComplete)
	for name, x := range f.held("web") {
		if x.Configs["config/app"] != 1 {
			t.Errorf("%s runs with version %d", name, x.Configs["config/app"])
		}
	}
	if r := f.seen[ViewKey{api.KindRevision, "default", "web@2"}].(*api.Revision); r.Rollout.State != api.RolloutRolledBack {
		t.Errorf("revision 2: %+v", r.Rollout)
	}
	f.mustReady("web", 2)
	f.mustAll([]ConfigChange{values(api.KindConfig, "app", "URL", "good")})
	f.pass(5 * time.Second)
	f.mustRollout(4, api.RolloutComplete)
}

// A service that is paused takes the new version as it takes any new revision: later.
func TestPausedServiceFollowsLater(t *testing.T) {
	f := threeNodes(t)
	f.mustAll([]ConfigChange{values(api.KindConfig, "app", "URL", "a")}, takes(web(2, "a:1"), "config app"))
	f.pass(2 * time.Second)
	f.mustOrder("pause")
	f.mustAll([]ConfigChange{values(api.KindConfig, "app", "URL", "b")})
	f.pass(5 * time.Second)
	for name, x := range f.held("web") {
		if x.Configs["config/app"] != 1 {
			t.Errorf("%s runs with version %d though the rollout is paused", name, x.Configs["config/app"])
		}
	}
	f.mustOrder("resume")
	f.pass(5 * time.Second)
	f.mustRollout(2, api.RolloutComplete)
}
