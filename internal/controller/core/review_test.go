package core

import (
	"fmt"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

// A change of one Config brings a service nothing else: what it was rolled back from, or
// went back behind, stays away until somebody asks for it.
func TestChangedConfigBringsNoOther(t *testing.T) {
	f := threeNodes(t)
	f.says = func(_ *agent, x wire.Assignment) *api.ReplicaStatus {
		if s := crashed(5); x.Configs["config/app"] == 2 {
			return &s
		}
		return nil
	}
	pins := func() string {
		r := f.core.services[api.Key{Namespace: "default", Name: "web"}].newest()
		return fmt.Sprintf("%v %s", r.Configs, r.Cause)
	}
	s := func() *api.Service {
		s := takes(web(2, "a:1"), "config app", "config other")
		within(10 * time.Second)(&s.Spec)
		return s
	}
	f.mustAll([]ConfigChange{values(api.KindConfig, "app", "URL", "a"), values(api.KindConfig, "other", "A", "1")}, s())
	f.pass(2 * time.Second)
	f.mustAll([]ConfigChange{values(api.KindConfig, "app", "URL", "bad")})
	f.pass(20 * time.Second)
	f.mustRollout(3, api.RolloutComplete)
	f.mustAll([]ConfigChange{values(api.KindConfig, "other", "A", "2")})
	if got, want := pins(), "map[config app:1 config other:2] config other version 2"; got != want {
		t.Errorf("followed: %s, want %s", got, want)
	}
	f.pass(2 * time.Second)
	f.mustAll([]ConfigChange{values(api.KindConfig, "other", "A", "3")}, s())
	if got, want := pins(), "map[config app:1 config other:3] config other version 3"; got != want {
		t.Errorf("applied with the same template: %s, want %s", got, want)
	}
	f.pass(2 * time.Second)
	f.mustRollout(5, api.RolloutComplete)
}

// What was deleted and is still pinned stands in nobody's way.
func TestDeletedConfigLetsOthersChange(t *testing.T) {
	f := threeNodes(t)
	f.mustAll([]ConfigChange{values(api.KindConfig, "app", "URL", "a"), values(api.KindConfig, "other", "A", "1")}, takes(web(1, "a:1"), "config app", "config other"))
	f.pass(2 * time.Second)
	f.mustAll(nil, takes(web(1, "a:2"), "config other"))
	f.pass(2 * time.Second)
	if err := f.remove(api.KindConfig, "app"); err != nil {
		t.Fatal(err)
	}
	if err := f.order("undo", 1).Err; err != nil {
		t.Fatal(err)
	}
	f.pass(2 * time.Second)
	f.mustAll([]ConfigChange{values(api.KindConfig, "other", "A", "2")})
	f.pass(2 * time.Second)
	f.mustReady("web", 1)
	if got := fmt.Sprint(f.held("web")["web-0"].Configs); got != "map[config app:1 config other:2]" {
		t.Errorf("it takes %s", got)
	}
}

// Two ways to write one volume are no two volumes: a transaction that deletes a key twice
// would topple the leader.
func TestVolumeHasOneName(t *testing.T) {
	f := newFleet(t)
	f.node("n1", "b")
	f.apply("", keeps(web(2, "a:1"), "data"))
	f.pass(time.Second)
	f.apply("", keeps(web(1, "a:1"), "data"))
	f.pass(2 * time.Second)
	for _, name := range []string{"data.web-01", "data.web-+1"} {
		if err := f.remove(api.KindVolume, "data.web-1", name); err == nil || err.Error() != "volume default/"+name+": not found; nothing was deleted" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if x := f.volume("data.web-1"); x == nil || x.Status.Removing {
		t.Errorf("volume %+v", x)
	}
}

// Agents know a job's tries from services' replicas, whatever their templates say.
func TestAgentsAreToldWhatIsAJob(t *testing.T) {
	w := newWorks(t, "n1")
	w.applyJob(migrate(1, 1, 0))
	w.apply("", web(1, "a:1"))
	w.pass(time.Second)
	for service, want := range map[string]bool{"migrate": true, "web": false} {
		held := w.held(service)
		if x, ok := held[service+"-0"]; !ok || x.Job != want {
			t.Errorf("%s: %+v", service, held)
		}
	}
}

// On a node that is still to remove a slot's volume, a global service begins nothing in
// that slot either: it would get what is about to go.
func TestGlobalWaitsForARemoval(t *testing.T) {
	f := threeNodes(t)
	s := keeps(web(1, "a:1"), "data")
	s.Spec.Mode, s.Spec.Replicas = api.ModeGlobal, nil
	f.apply("", s)
	f.pass(2 * time.Second)
	var slot int
	for name, node := range f.homes("web") {
		if node == "n2" {
			fmt.Sscanf(name, "web-%d", &slot)
		}
	}
	name := fmt.Sprintf("data.web-%d", slot)
	f.dies("n2")
	if err := f.remove(api.KindVolume, name); err != nil {
		t.Fatal(err)
	}
	f.node("n2", "boot1")
	f.pass(10 * time.Second)
	for at, node := range f.homes("web") {
		if node == "n2" && at == fmt.Sprintf("web-%d", slot) {
			t.Errorf("%s is on n2 again, and %+v", at, f.volume(name).Status)
		}
	}
	key := api.VolumeKey{Namespace: "default", Service: "web", Slot: slot, Volume: "data"}
	f.step(Status{Node: "n2", Session: f.agents["n2"].session, Report: wire.StatusReport{VolumesGone: []api.VolumeKey{key}}})
	f.turn()
	f.pass(5 * time.Second)
	found := false
	for _, node := range f.homes("web") {
		found = found || node == "n2"
	}
	if !found || len(f.core.volumes.removals) > 0 {
		t.Errorf("then it is on %v", f.homes("web"))
	}
}
