package core

import (
	"errors"
	"maps"
	"testing"

	"github.com/orchctl/orch/api"
)

// TestMustNotExist: what is to be made anew is refused where it is there, and a retry of
// the apply that made it is not.
func TestMustNotExist(t *testing.T) {
	f := threeNodes(t)
	apply := func(ev Apply) error {
		f.ticket++
		ev.Ticket, ev.By, ev.MustNotExist = f.ticket, "tester", true
		f.step(ev)
		f.turn()
		return f.replies[f.ticket].Err
	}
	first := Apply{Configs: []ConfigChange{values(api.KindConfig, "app", "A", "1")}, Services: []*api.Service{web(1, "a:1")}, RequestID: "r1"}
	if err := apply(first); err != nil {
		t.Fatal(err)
	}
	if err := apply(first); err != nil {
		t.Errorf("the same request again: %v", err)
	}
	for name, ev := range map[string]Apply{
		"config":  {Configs: []ConfigChange{values(api.KindConfig, "app", "A", "2")}},
		"service": {Services: []*api.Service{web(2, "a:1")}},
		"job":     {Jobs: []*api.Job{{Metadata: api.Metadata{Name: "web", Namespace: "default"}}}}, // they share names
	} {
		if err := apply(ev); !errors.Is(err, ErrChanged) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := f.config(api.KindConfig, "app").Data["A"]; got != "1" {
		t.Errorf("the config was changed: %q", got)
	}
}

// TestDeleteDryRun answers as the delete would and changes nothing.
func TestDeleteDryRun(t *testing.T) {
	f := threeNodes(t)
	f.mustAll([]ConfigChange{values(api.KindConfig, "app", "A", "1"), values(api.KindConfig, "idle", "A", "1")}, takes(web(1, "a:1"), "config app"))
	f.mustReady("web", 1)
	ref := func(kind, name string) api.Ref {
		return api.Ref{Kind: kind, Key: api.Key{Namespace: "default", Name: name}}
	}
	ask := func(refs ...api.Ref) (any, error) {
		f.ticket++
		f.step(Delete{Ticket: f.ticket, Refs: refs, DryRun: true, RequestID: "r", By: "tester"})
		f.turn()
		return f.replies[f.ticket].Value, f.replies[f.ticket].Err
	}
	before := maps.Clone(f.kv)
	got, err := ask(ref(api.KindConfig, "idle"), ref(api.KindService, "web"))
	if x, ok := got.(DeleteResult); err != nil || !ok || len(x.Deleted) != 2 {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := ask(ref(api.KindConfig, "app")); !errors.Is(err, ErrBusy) {
		t.Errorf("what is used: %v", err)
	}
	if _, err := ask(ref(api.KindConfig, "nothing")); !errors.Is(err, ErrNotFound) {
		t.Errorf("what is missing: %v", err)
	}
	if !maps.EqualFunc(before, f.kv, func(a, b []byte) bool { return string(a) == string(b) }) || f.config(api.KindConfig, "idle") == nil {
		t.Error("something was changed")
	}
}
