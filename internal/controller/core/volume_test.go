package core

import (
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

// keeps has the service's container mount volumes.
func keeps(s *api.Service, names ...string) *api.Service {
	ct := &s.Spec.Template.Containers[0]
	for _, name := range names {
		ct.Mounts = append(ct.Mounts, api.Mount{Path: "/" + name, Volume: name})
	}
	return s
}

func (f *fleet) volume(name string) *api.Volume {
	x, _ := f.seen[ViewKey{api.KindVolume, "default", name}].(*api.Volume)
	return x
}

// homes gives where the live replicas of a service are, by name.
func (f *fleet) homes(service string) map[string]string {
	out := map[string]string{}
	if s := f.core.services[api.Key{Namespace: "default", Name: service}]; s != nil {
		for _, x := range s.fillings {
			if !x.stopping && !x.void {
				out[x.key.Name()] += x.node
			}
		}
	}
	return out
}

func (f *fleet) mustReasons(want ...string) {
	f.t.Helper()
	if got := f.service("web").Status.Reasons; !slices.Equal(got, want) {
		f.t.Fatalf("reasons %q, want %q", got, want)
	}
}

// silence has a node die, and waits for the verdict.
func (f *fleet) dies(node string) {
	f.t.Helper()
	f.agents[node].silent = true
	f.pass(time.Second)
	if err := f.word(node, "dead"); err != nil {
		f.t.Fatal(err)
	}
	f.pass(time.Second)
}

func TestVolumesArePlacedWithTheirSlots(t *testing.T) {
	f := threeNodes(t)
	f.commits = false
	f.ticket++
	f.step(Apply{Ticket: f.ticket, Services: []*api.Service{keeps(web(3, "a:1"), "data", "cache")}})
	f.turn()
	var volumes, placements int
	for len(f.out) > 0 {
		e := f.out[0]
		f.out = f.out[1:]
		v, p := 0, 0
		for _, op := range e.Ops {
			if strings.HasPrefix(op.Key, volumePrefix) {
				v++
			}
			if strings.HasPrefix(op.Key, placementPrefix) && op.Kind == store.OpPut {
				p++
			}
		}
		if v != 2*p {
			t.Errorf("transaction %d has %d placements and %d volumes", e.Seq, p, v)
		}
		volumes, placements = volumes+v, placements+p
		f.commit(e)
		f.turn()
	}
	f.commits = true
	if volumes != 6 || placements != 3 {
		t.Fatalf("%d volumes, %d placements", volumes, placements)
	}
	f.pass(time.Second)
	f.mustReady("web", 3)
	for name, node := range f.homes("web") {
		x := f.volume("data." + name)
		if x == nil || x.Spec.Node != node || x.Spec.Volume != "data" || len(x.Status.UsedBy) != 1 || !strings.HasPrefix(x.Status.UsedBy[0], name+"@") {
			t.Errorf("%s on %s: volume %+v", name, node, x)
		}
	}
	// A rollout goes from slot to slot, each where it was, and one at a time.
	before := f.homes("web")
	f.apply("", keeps(web(3, "a:2"), "data", "cache"))
	for range 20 {
		f.pass(500 * time.Millisecond)
		if s := f.service("web").Status; s.Ready < 2 {
			t.Fatalf("I4: %+v", s)
		}
	}
	if s := f.service("web").Status; s.UpdatedReady != 3 || !maps.Equal(before, f.homes("web")) {
		t.Errorf("%+v, homes %v, before %v", s, f.homes("web"), before)
	}
	// Scaled down and up, deleted and made anew: each slot comes back to what it kept.
	f.apply("", keeps(web(1, "a:2"), "data", "cache"))
	f.pass(2 * time.Second)
	if x := f.volume("data.web-2"); x == nil || len(x.Status.UsedBy) > 0 {
		t.Errorf("after the scaling: %+v", x)
	}
	f.delete("web")
	f.pass(2 * time.Second)
	if x := f.volume("cache.web-0"); x == nil || len(x.Status.UsedBy) > 0 {
		t.Errorf("after the delete: %+v", x)
	}
	f.elect()
	for _, n := range []string{"n1", "n2", "n3"} {
		f.node(n, "boot1")
	}
	f.apply("", keeps(web(3, "b:1"), "data"))
	f.pass(2 * time.Second)
	if !maps.Equal(before, f.homes("web")) {
		t.Errorf("homes %v, before %v", f.homes("web"), before)
	}
	f.mustReasons()
}

func TestBoundSlotWaitsForItsNode(t *testing.T) {
	f := threeNodes(t)
	f.apply("", keeps(web(1, "a:1"), "data"))
	f.pass(time.Second)
	home := f.home("web", 0)
	f.agents[home].silent = true
	f.pass(10 * time.Second)
	if got := f.homes("web")["web-0"]; got != home {
		t.Fatalf("while its node is suspect it is on %q", got)
	}
	const nobody = "by its volume data: nothing stands in for it"
	f.mustReasons("no replica can be reached: traffic still goes to web-0 on "+home, fmt.Sprintf("web-0@1 cannot be reached: %[1]s is suspect; bound to %[1]s %[2]s", home, nobody))
	if r := f.seen[ViewKey{api.KindReplica, "default", "web-0@1"}].(*api.Replica); !strings.HasPrefix(r.Status.Message, "node "+home+" is Suspect: ") || !strings.HasSuffix(r.Status.Message, fmt.Sprintf("; bound to %s %s", home, nobody)) {
		t.Errorf("published as %+v", r.Status)
	}
	suspect := fmt.Sprintf("%[1]s, which is Suspect: wait for its return, or, where it runs no more, say `orchctl node dead %[1]s` first", home)
	if err := f.remove(api.KindVolume, "data.web-0"); err == nil || err.Error() != "volume default/data.web-0 is used by web-0@1 on "+suspect {
		t.Errorf("got %v", err)
	}
	f.dies(home)
	words := fmt.Sprintf("web-0 is bound to %s by its volume data, and %s is Dead: wait for it, or say `orchctl volume rm data.web-0` to begin anew elsewhere without what is in it", home, home)
	f.mustReasons("web-0 pending: " + strings.TrimPrefix(words, "web-0 is "))
	r, _ := f.seen[ViewKey{api.KindReplica, "default", "web-0"}].(*api.Replica)
	if r == nil || r.Status.Message != words {
		t.Errorf("published as %+v", r)
	}
	f.elect() // the next leader says the same
	for n := range f.agents {
		if n != home {
			f.node(n, "boot1")
		}
	}
	f.pass(time.Second)
	f.mustReasons("web-0 pending: " + strings.TrimPrefix(words, "web-0 is "))
	f.node(home, "boot2")
	f.pass(2 * time.Second)
	if got := f.homes("web")["web-0"]; got != home {
		t.Errorf("its node is back, and it is on %q", got)
	}
	f.mustReady("web", 1)
}

func TestVolumeOfADeadNodeIsRemoved(t *testing.T) {
	f := threeNodes(t)
	f.apply("", keeps(web(1, "a:1"), "data"))
	f.pass(time.Second)
	home := f.home("web", 0)
	f.dies(home)
	if err := f.remove(api.KindVolume, "data.web-0"); err != nil {
		t.Fatal(err)
	}
	f.pass(2 * time.Second)
	now := f.homes("web")["web-0"]
	if now == "" || now == home {
		t.Fatalf("it is on %q", now)
	}
	f.mustReady("web", 1)
	if x := f.volume("data.web-0"); x.Spec.Node != now || x.Status.Removing {
		t.Errorf("volume %+v", x)
	}
	f.elect()
	for _, n := range []string{"n1", "n2", "n3"} {
		if n != home {
			f.node(n, "boot1")
		}
	}
	// Back again, the node is told to remove it until it says that it is gone, and the
	// slot is not placed there before.
	told := func() (out []api.VolumeKey) {
		f.session++
		a := f.agents[home]
		a.session, a.silent = f.session, false
		for _, e := range f.core.Step(SessionOpened{Node: home, Session: a.session, Hello: wire.Hello{BootID: "boot3", Address: "10.0.0." + home[1:],
			Capacity: api.ResourceList{api.CPU: api.Whole(4), api.Memory: api.Whole(8 << 30)}}}, f.now) {
			if c, ok := e.(Commit); ok {
				f.commit(c)
			}
			if x, ok := e.(SendAssignments); ok {
				out = append(out, x.Set.RemoveVolumes...)
			}
		}
		for _, e := range f.core.Turn(f.now) {
			if c, ok := e.(Commit); ok {
				for _, e := range f.core.Step(Committed{Seq: c.Seq, Rev: f.rev}, f.now) {
					if x, ok := e.(SendAssignments); ok {
						out = append(out, x.Set.RemoveVolumes...)
					}
				}
			}
		}
		return out
	}
	key := api.VolumeKey{Namespace: "default", Service: "web", Slot: 0, Volume: "data"}
	for range 2 {
		if got := told(); !slices.Equal(got, []api.VolumeKey{key}) {
			t.Fatalf("told to remove %v", got)
		}
	}
	f.step(Status{Node: home, Session: f.agents[home].session, Report: wire.StatusReport{VolumesGone: []api.VolumeKey{key}}})
	f.turn()
	if got := told(); len(got) > 0 || len(f.core.volumes.removals) > 0 {
		t.Errorf("gone, and still told to remove %v", got)
	}
}

func TestVolumeRemoval(t *testing.T) {
	f := newFleet(t)
	f.node("n1", "b")
	f.apply("", keeps(web(2, "a:1"), "data"))
	f.pass(time.Second)
	for _, tt := range []struct{ name, want string }{
		{"data.web-1", "volume default/data.web-1 is used by web-1@2 on n1: stop that first: scale service default/web to 1 or less, or delete it"},
		{"data.web-0", "volume default/data.web-0 is used by web-0@1 on n1: stop that first: scale service default/web to 0, or delete it"},
		{"data.web-7", "volume default/data.web-7: not found; nothing was deleted"},
		{"nonsense", "volume default/nonsense: not found; nothing was deleted"},
	} {
		if err := f.remove(api.KindVolume, tt.name); err == nil || err.Error() != tt.want {
			t.Errorf("%s: got %v, want %s", tt.name, err, tt.want)
		}
	}
	f.agents["n1"].ended = nil
	f.apply("", keeps(web(1, "a:1"), "data"))
	f.pass(time.Second)
	if err := f.remove(api.KindVolume, "data.web-1"); err != nil {
		t.Fatal(err)
	}
	if x := f.volume("data.web-1"); x == nil || !x.Status.Removing || x.Status.RemovedBy != "tester" {
		t.Errorf("volume %+v", x)
	}
	// The name is not given anew there before it is gone.
	f.apply("", keeps(web(2, "a:1"), "data"))
	f.pass(time.Second)
	if got := f.homes("web")["web-1"]; got != "" {
		t.Fatalf("web-1 is on %s", got)
	}
	f.node("n2", "b")
	f.pass(time.Second)
	if got := f.homes("web")["web-1"]; got != "n2" {
		t.Fatalf("web-1 is on %q", got)
	}
	key := api.VolumeKey{Namespace: "default", Service: "web", Slot: 1, Volume: "data"}
	f.step(Status{Node: "n1", Session: f.agents["n1"].session, Report: wire.StatusReport{VolumesGone: []api.VolumeKey{key}}})
	f.turn()
	if x := f.volume("data.web-1"); x == nil || x.Status.Removing || x.Spec.Node != "n2" {
		t.Errorf("volume %+v", x)
	}
}

func TestVolumeOfARemovedNode(t *testing.T) {
	f := threeNodes(t)
	f.apply("", keeps(web(1, "a:1"), "data"))
	f.pass(time.Second)
	home := f.home("web", 0)
	f.dies(home)
	if err := f.word(home, "remove"); err != nil {
		t.Fatal(err)
	}
	f.pass(time.Second)
	f.mustReasons(fmt.Sprintf("web-0 pending: bound to %s by its volume data, and %s was removed: wait for it, or say `orchctl volume rm data.web-0` to begin anew elsewhere without what is in it", home, home))
	if err := f.remove(api.KindVolume, "data.web-0"); err != nil {
		t.Fatal(err)
	}
	f.pass(2 * time.Second)
	f.mustReady("web", 1)
	if len(f.core.volumes.removals) > 0 || f.volume("data.web-0").Spec.Node == home {
		t.Errorf("volume %+v", f.volume("data.web-0"))
	}
}

func TestDrainWaitsForBoundSlots(t *testing.T) {
	f := threeNodes(t)
	f.apply("", keeps(web(1, "a:1"), "data"))
	f.pass(time.Second)
	home := f.home("web", 0)
	f.word(home, "drain")
	f.pass(5 * time.Second)
	if got := f.homes("web")["web-0"]; got != home {
		t.Fatalf("it is on %q", got)
	}
	n := f.seen[ViewKey{Kind: api.KindNode, Name: home}].(*api.Node)
	if want := []string{fmt.Sprintf("web-0 stays: it is bound to %s by its volumes, which do not move: scale or delete the service, or say how long to wait (--deadline)", home)}; !slices.Equal(n.Status.DrainWaits, want) {
		t.Errorf("the drain waits for %q, want %q", n.Status.DrainWaits, want)
	}
	f.ticket++
	f.step(NodeWord{Ticket: f.ticket, Node: home, Word: "drain", Deadline: time.Second, By: "user root"})
	f.pass(5 * time.Second)
	if got := f.homes("web")["web-0"]; got != "" {
		t.Fatalf("the deadline has passed, and it is on %q", got)
	}
	f.mustReasons(fmt.Sprintf("web-0 pending: bound to %s by its volume data, and %s is being drained by user root: wait for it, or say `orchctl volume rm data.web-0` to begin anew elsewhere without what is in it", home, home))
	f.word(home, "uncordon")
	f.pass(2 * time.Second)
	if got := f.homes("web")["web-0"]; got != home {
		t.Errorf("the drain is over, and it is on %q", got)
	}
}

// A service that gains volumes keeps its slots where they run; one that loses them is free.
func TestVolumesGainedAndLost(t *testing.T) {
	f := threeNodes(t)
	f.apply("", web(3, "a:1"))
	f.pass(time.Second)
	before := f.homes("web")
	f.apply("", keeps(web(3, "a:1"), "data"))
	f.pass(5 * time.Second)
	if s := f.service("web").Status; s.UpdatedReady != 3 || !maps.Equal(before, f.homes("web")) {
		t.Fatalf("%+v, homes %v, before %v", s, f.homes("web"), before)
	}
	if f.volume("data.web-2") == nil {
		t.Fatal("no volume")
	}
	f.apply("", web(3, "a:2"))
	f.pass(5 * time.Second)
	if s := f.service("web").Status; s.UpdatedReady != 3 || f.core.services[api.Key{Namespace: "default", Name: "web"}].withVolumes() {
		t.Fatalf("%+v", s)
	}
	home := f.home("web", 0)
	f.dies(home)
	f.pass(5 * time.Second)
	f.mustReady("web", 3)
	if f.volume("data.web-0") == nil {
		t.Error("the volume went with the last revision that has it")
	}
	// And back to what it kept: what runs elsewhere goes within the floor.
	f.node(home, "boot2")
	f.pass(5 * time.Second)
	f.order("undo", 2)
	for range 20 {
		f.pass(500 * time.Millisecond)
		if s := f.service("web").Status; s.Ready < 2 {
			t.Fatalf("I4: %+v", s)
		}
	}
	if s := f.service("web").Status; s.UpdatedReady != 3 || !maps.Equal(before, f.homes("web")) {
		t.Errorf("%+v, homes %v, before %v", s, f.homes("web"), before)
	}
}

// TestGlobalWithVolumes: a node has the slot whose volume it has, whoever leads.
func TestGlobalWithVolumes(t *testing.T) {
	f := threeNodes(t)
	s := keeps(web(1, "a:1"), "data")
	s.Spec.Mode, s.Spec.Replicas = api.ModeGlobal, nil
	f.apply("", s)
	f.pass(time.Second)
	before := f.homes("web")
	f.delete("web")
	f.pass(2 * time.Second)
	f.elect()
	for _, n := range []string{"n3", "n2", "n1"} {
		f.node(n, "boot1")
	}
	f.apply("", s)
	f.pass(2 * time.Second)
	if len(before) != 3 || !maps.Equal(before, f.homes("web")) {
		t.Errorf("homes %v, before %v", f.homes("web"), before)
	}
}

// TestVolumesBind: whatever users and nodes do, what needs a volume is started on no node
// but the volume's, a slot has no two live replicas, and no rollout goes below the floor.
func TestVolumesBind(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		f := newFleet(t)
		names := []string{"n1", "n2", "n3"}
		for _, n := range names {
			f.node(n, "b")
		}
		replicas := rapid.IntRange(1, 4).Draw(r, "replicas")
		f.mustAll(nil, keeps(web(replicas, "good:0"), "data"))
		f.pass(3 * time.Second)
		placed := map[api.ReplicaKey]bool{}
		sound := func() {
			s := f.core.services[api.Key{Namespace: "default", Name: "web"}]
			live := map[int]int{}
			for _, x := range s.fillings {
				if !x.void && len(x.volumes) > 0 {
					live[x.key.Slot]++
				}
				for _, name := range x.volumes {
					v := f.core.volumes.of[s.keyOf(x.key.Slot, name)]
					if !placed[x.key] && !x.void && (v == nil || v.Node != x.node) {
						r.Fatalf("%s was started on %s, its volume is %+v", x.key, x.node, v)
					}
				}
				placed[x.key] = true
			}
			for slot, n := range live {
				if n > 1 {
					r.Fatalf("slot %d has %d replicas that may have its volume", slot, n)
				}
			}
		}
		boots := 0
		for i := range rapid.IntRange(1, 10).Draw(r, "steps") {
			n := rapid.SampledFrom(names).Draw(r, "node")
			quiet := true // nothing but a rollout takes replicas
			ready := f.service("web").Status.Ready
			switch rapid.SampledFrom([]string{"apply", "apply", "none", "more", "undo", "silence", "back", "boot", "dead", "leader", "rm", "drain", "uncordon", "rebalance"}).Draw(r, "step") {
			case "apply":
				f.applyAll(nil, keeps(web(replicas, fmt.Sprint("good:", i+1)), "data"))
			case "none":
				f.applyAll(nil, web(replicas, fmt.Sprint("good:", i+1)))
			case "more":
				f.applyAll(nil, keeps(web(replicas, fmt.Sprint("good:", i+1)), "data", "cache"))
			case "undo":
				f.order("undo", 0)
			case "silence":
				f.agents[n].silent, quiet = true, false
			case "back":
				if f.agents[n].silent {
					f.node(n, f.agents[n].boot)
				}
			case "boot":
				boots++
				f.node(n, fmt.Sprint("boot ", boots))
				quiet = false
			case "dead":
				f.agents[n].silent, quiet = true, false
				f.word(n, "dead")
			case "leader":
				f.elect()
				for _, n := range names {
					if !f.agents[n].silent {
						f.node(n, f.agents[n].boot)
					}
				}
				quiet = false // who is ready is not known at once
			case "rm":
				f.remove(api.KindVolume, fmt.Sprintf("data.web-%d", rapid.IntRange(0, 3).Draw(r, "slot")))
			case "drain":
				f.word(n, "drain")
			case "uncordon":
				f.word(n, "uncordon")
			case "rebalance":
				f.ticket++
				f.step(Rebalance{Ticket: f.ticket})
			}
			sound()
			for range rapid.IntRange(0, 12).Draw(r, "passes") {
				f.pass(500 * time.Millisecond)
				sound()
				floor := min(ready, replicas-1)
				if s := f.service("web").Status; quiet && s.Ready < floor && allHeard(f) {
					r.Fatalf("I4: %d ready, floor %d: %+v", s.Ready, floor, s)
				}
			}
		}
		for _, n := range names {
			if f.agents[n].silent {
				f.node(n, f.agents[n].boot)
			}
			f.word(n, "uncordon")
		}
		f.mustAll(nil, keeps(web(replicas, "good:last"), "data"))
		for range 40 {
			f.pass(time.Second)
			for _, n := range names { // agents remove what they are told
				f.step(Status{Node: n, Session: f.agents[n].session, Report: wire.StatusReport{VolumesGone: f.core.removalsOn(n)}})
			}
			sound()
		}
		if s := f.service("web").Status; s.UpdatedReady != replicas || len(s.Reasons) > 0 {
			r.Fatalf("it does not come to an end: %+v, volumes %v", s, slices.Collect(maps.Keys(f.core.volumes.of)))
		}
	})
}

func allHeard(f *fleet) bool {
	for _, a := range f.agents {
		if a.silent {
			return false
		}
	}
	return true
}

// TestFailedStaysFailedWithoutItsNodes: a rollout that failed has not come to its end
// because nothing of it can be placed while its nodes are away.
func TestFailedStaysFailedWithoutItsNodes(t *testing.T) {
	f := newFleet(t)
	f.node("n1", "boot1")
	s := keeps(web(1, "a:1"), "data")
	f.trouble(1, imageless(api.ReasonImageMissing, "no such image"))
	f.apply("1", s)
	f.reportEach()
	f.pass(11 * time.Minute)
	if st := f.service("web").Status.Rollout; st.State != api.RolloutFailed {
		t.Fatalf("before: %+v", st)
	}
	f.node("n2", "boot1")
	f.dies("n1")
	f.pass(time.Minute)
	if st := f.service("web").Status.Rollout; st.State != api.RolloutFailed || st.Why == "" {
		t.Errorf("without its node: %+v", st)
	}
}
