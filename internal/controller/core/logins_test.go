package core

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
)

// login is a Secret of type registry.
func login(name, password string) ConfigChange {
	ch := values(api.KindSecret, name, "server", "registry.example", "username", "me", "password", password)
	ch.Type = api.SecretRegistry
	return ch
}

func pullsWith(s *api.Service, names ...string) *api.Service {
	s.Spec.Template.PullSecrets = names
	return s
}

// TestLoginsFollow: assignments carry the newest login, a new one is sent at once to who
// needs it, restarts nothing and makes no revision.
func TestLoginsFollow(t *testing.T) {
	f := threeNodes(t)
	f.mustAll([]ConfigChange{login("hub", "old"), login("other", "x")}, pullsWith(web(2, "a:1"), "hub"))
	f.mustReady("web", 2)
	before := f.held("web")
	for name, a := range before {
		if len(a.Logins) != 1 || a.Logins["secret/hub"] != 1 || len(a.Configs) != 0 {
			t.Errorf("%s has logins %v, values %v", name, a.Logins, a.Configs)
		}
	}
	f.sets = nil
	f.mustAll([]ConfigChange{login("hub", "new")})
	if s := f.service("web"); s.Status.Revision != 1 {
		t.Errorf("revision %d", s.Status.Revision)
	}
	told := 0
	for _, e := range f.sets {
		for _, a := range e.Set.Put {
			told++
			if a.Logins["secret/hub"] != 2 || a.Key != before[a.Key.Name()].Key {
				t.Errorf("%s is sent %+v", e.Node, a)
			}
		}
		if len(e.Set.Configs) != 1 || e.Set.Configs[0].String() != "secret default/hub version 2" || !strings.Contains(string(e.Set.Configs[0].Payload), "new") {
			t.Errorf("%s is sent values %v", e.Node, e.Set.Configs)
		}
	}
	if told != 2 {
		t.Errorf("%d replicas are told of", told)
	}
	if got := versionsOf(f.config(api.KindSecret, "hub")); got != "2 [web@1]" {
		t.Errorf("versions %s", got)
	}
	// What is not a new password is sent to nobody.
	f.sets = nil
	f.mustAll([]ConfigChange{login("hub", "new"), login("other", "y")})
	if len(f.sets) != 0 {
		t.Errorf("sent %v", f.sets)
	}
	// A new leader knows as much.
	f.elect()
	f.dial("n1", "n2", "n3")
	f.mustAll([]ConfigChange{login("hub", "newer")})
	for name, a := range f.held("web") {
		if a.Logins["secret/hub"] != 3 || a.Key != before[name].Key {
			t.Errorf("%s has %+v", name, a)
		}
	}
}

// TestLoginsAreRequired: what is named has to be there and to be a login, and stays as
// long as it is used; so does its type.
func TestLoginsAreRequired(t *testing.T) {
	f := threeNodes(t)
	refused := func(err error, want string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	_, err := f.applyAll(nil, pullsWith(web(1, "a:1"), "hub"))
	refused(err, "service default/web (pullSecrets) takes secret default/hub, which is not there")
	_, err = f.applyAll([]ConfigChange{values(api.KindSecret, "hub", "a", "b")}, pullsWith(web(1, "a:1"), "hub"))
	refused(err, "names secret default/hub, which is of no type: a login has type: registry")
	f.mustAll([]ConfigChange{values(api.KindSecret, "hub", "a", "b")})
	f.mustAll([]ConfigChange{login("hub", "x")}, pullsWith(web(1, "a:1"), "hub")) // nobody used it
	if x := f.config(api.KindSecret, "hub"); x.Type != api.SecretRegistry {
		t.Errorf("shown as %q", x.Type)
	}
	_, err = f.applyAll([]ConfigChange{values(api.KindSecret, "hub", "a", "b")})
	refused(err, "secret default/hub is of type registry and is used by service web (pullSecrets), so that its type cannot change")
	err = f.remove(api.KindSecret, "hub")
	refused(err, "is used by service web (pullSecrets)")
	if !errors.Is(err, ErrBusy) {
		t.Errorf("%v", err)
	}
	f.elect()
	f.dial("n1", "n2", "n3")
	err = f.remove(api.KindSecret, "hub")
	refused(err, "is used by service web (pullSecrets)")
	// Without it the service is another revision; then it may go, though the old one names it.
	f.mustAll(nil, web(1, "a:1"))
	f.mustReady("web", 1)
	f.pass(20 * time.Second)
	if err := f.remove(api.KindSecret, "hub"); err != nil {
		t.Fatal(err)
	}
	if f.config(api.KindSecret, "hub") != nil {
		t.Error("it is shown still")
	}
	// Whoever goes back runs without a login.
	f.order("undo", 1)
	for name, a := range f.held("web") {
		if a.Revision == 3 && (len(a.Logins) != 0 || !slices.Equal(a.Template.PullSecrets, []string{"hub"})) {
			t.Errorf("%s has %+v", name, a)
		}
	}
	f.elect() // and a leader that reads this is not surprised
}
