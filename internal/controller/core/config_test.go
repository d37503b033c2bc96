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
	"github.com/orchctl/orch/internal/wire"
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
