package core

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

// tags is a fleet of which nobody tells what tags mean when they are applied. Agents pull
// until an image is there.
type tags struct {
	*fleet
	there map[string]string // digests by reference
}

func newTags(t *testing.T) *tags {
	x := &tags{threeNodes(t), map[string]string{}}
	x.untold = true
	lacking := func(a wire.Assignment) (ref string) {
		for _, ct := range a.Template.AllContainers() {
			if a.Images[ct.Image] == "" && x.there[ct.Image] == "" {
				return ct.Image
			}
		}
		return ""
	}
	x.says = func(_ *agent, a wire.Assignment) *api.ReplicaStatus {
		if ref := lacking(a); ref != "" {
			return &api.ReplicaStatus{Phase: api.PhasePreparing, Containers: []api.ContainerStatus{{Name: "main", State: api.ContainerWaiting, Reason: api.ReasonPulling, Message: "pulling " + ref}}}
		}
		return nil
	}
	x.finds = func(_ *agent, a wire.Assignment) map[string]string {
		out := map[string]string{}
		for _, ct := range a.Template.AllContainers() {
			if d := x.there[ct.Image]; d != "" && a.Images[ct.Image] == "" {
				out[ct.Image] = d
			}
		}
		return out
	}
	return x
}

// with gives how many replicas agents hold of a revision.
func (x *tags) with(revision int64) int {
	n := 0
	for _, a := range x.held("web") {
		if a.Revision == revision {
			n++
		}
	}
	return n
}

func (x *tags) mustHave(revision int64, n int) {
	x.t.Helper()
	if got := x.with(revision); got != n {
		x.t.Fatalf("%d replicas have revision %d, want %d: %q", got, revision, n, x.service("web").Status.Reasons)
	}
}

// TestTheFirstTellsWhatATagMeans: one replica begins, and what it finds holds for all.
func TestTheFirstTellsWhatATagMeans(t *testing.T) {
	x := newTags(t)
	x.apply("1", web(3, "a:1"))
	x.pass(5 * time.Second)
	x.mustHave(1, 1)
	reasons := strings.Join(x.service("web").Status.Reasons, "\n")
	for _, want := range []string{"revision 1 begins with one replica: nobody could tell what image a:1 means, and web-0 on n", "pulling a:1"} {
		if !strings.Contains(reasons, want) {
			t.Errorf("reasons lack %q:\n%s", want, reasons)
		}
	}
	x.elect() // the next leader knows as much
	x.dial("n1", "n2", "n3")
	x.pass(5 * time.Second)
	x.mustHave(1, 1)
	first := x.held("web")["web-0"]
	x.there["a:1"] = digestOf("one")
	x.reportEach()
	x.there["a:1"] = digestOf("two") // the tag moves on
	x.pass(time.Second)
	x.mustHave(1, 3)
	for name, a := range x.held("web") {
		if a.Images["a:1"] != digestOf("one") {
			t.Errorf("%s runs %v", name, a.Images)
		}
	}
	if now := x.held("web")["web-0"]; now.Key != first.Key {
		t.Errorf("the first was made anew: %v, was %v", now.Key, first.Key)
	}
	if r := x.revisionNo(1); r.Images["a:1"] != digestOf("one") {
		t.Errorf("revision %+v", r)
	}
	if got := x.told("ImagePinned"); len(got) != 1 || !strings.HasPrefix(got[0], fmt.Sprintf("revision 1: image a:1 is %s, as web-0 on n", digestOf("one"))) {
		t.Errorf("events %q", got)
	}
	x.mustReady("web", 3)
	x.elect() // it was written
	x.dial("n1", "n2", "n3")
	if r := x.revisionNo(1); r.Images["a:1"] != digestOf("one") || x.with(1) != 3 {
		t.Errorf("after a restart: revision %+v", r)
	}
}

// TestARolloutBeginsAlone: a tag that nobody knows costs one slot until it is known.
func TestARolloutBeginsAlone(t *testing.T) {
	for name, change := range map[string]func(*api.ServiceSpec){
		"rolling": func(*api.ServiceSpec) {},
		"stop first": func(s *api.ServiceSpec) {
			s.Rollout.Order = api.OrderStopFirst
			s.Rollout.MaxUnavailable = api.Count(3)
		},
		"surge": func(s *api.ServiceSpec) { s.Rollout.MaxSurge = api.Count(4) },
		"canary": func(s *api.ServiceSpec) {
			s.Rollout.Canary = []api.CanaryStep{{Replicas: *api.Count(3), Pause: new(api.Duration)}}
		},
		"global": func(s *api.ServiceSpec) { s.Mode, s.Replicas = api.ModeGlobal, nil },
	} {
		t.Run(name, func(t *testing.T) {
			x := newTags(t)
			service := func(image string) *api.Service {
				s := web(4, image)
				change(&s.Spec)
				s.Default()
				return s
			}
			x.there["a:1"] = digestOf("one")
			x.apply("1", service("a:1"))
			x.pass(10 * time.Second)
			n := x.with(1)
			if n < 3 {
				t.Fatalf("%d of revision 1", n)
			}
			x.apply("2", service("a:2"))
			x.pass(20 * time.Second)
			x.mustHave(2, 1)
			if old := x.with(1); old < n-1 {
				t.Errorf("%d of %d are left of revision 1", old, n)
			}
			x.there["a:2"] = digestOf("two")
			x.reportEach()
			x.pass(20 * time.Second)
			x.mustHave(2, n)
			for name, a := range x.held("web") {
				if a.Images["a:2"] != digestOf("two") {
					t.Errorf("%s runs %v", name, a.Images)
				}
			}
			// Who goes back goes back to what was found.
			x.there = map[string]string{"a:1": digestOf("other"), "a:2": digestOf("other")}
			x.order("undo", 1)
			x.pass(20 * time.Second)
			x.mustHave(3, n)
			if r := x.revisionNo(3); r.Images["a:1"] != digestOf("one") {
				t.Errorf("revision 3 has %v", r.Images)
			}
		})
	}
}

// TestWhatCannotBePinned: an image that the node has by no digest of ours, or says nothing
// of, holds nothing up.
func TestWhatCannotBePinned(t *testing.T) {
	for name, digest := range map[string]string{"another hash": "sha512:" + strings.Repeat("ab", 64), "no digest": "a:1", "short": "sha256:abc"} {
		x := newTags(t)
		x.there["a:1"] = digest
		x.apply("1", web(3, "a:1"))
		x.pass(time.Second)
		if x.mustHave(1, 3); len(x.revisionNo(1).Images) != 0 {
			t.Errorf("%s: pinned to %v", name, x.revisionNo(1).Images)
		}
	}
	x := newTags(t)
	x.says, x.finds = nil, nil // it runs, and tells nothing
	x.apply("1", web(3, "a:1"))
	x.pass(time.Second)
	x.mustHave(1, 3)
}

// TestAgentsOfBefore tell with the container which image it has.
func TestAgentsOfBefore(t *testing.T) {
	x := newTags(t)
	x.finds = nil
	x.says = func(_ *agent, a wire.Assignment) *api.ReplicaStatus {
		return &api.ReplicaStatus{Phase: api.PhaseRunning, Ready: true, IP: "10.64.0.9", Containers: []api.ContainerStatus{{Name: "main", State: api.ContainerRunning, ImageID: digestOf("one")}}}
	}
	x.apply("1", web(3, "a:1"))
	x.pass(time.Second)
	if x.mustHave(1, 3); x.revisionNo(1).Images["a:1"] != digestOf("one") {
		t.Errorf("pinned to %v", x.revisionNo(1).Images)
	}
}

// TestOnlyWhoIsWellTells: a node that cannot work, or that is not heard, says nothing about
// an image.
func TestOnlyWhoIsWellTells(t *testing.T) {
	x := newTags(t)
	x.apply("1", web(3, "a:1"))
	var first *agent
	for _, a := range x.agents {
		if len(a.holds) > 0 {
			first = a
		}
	}
	first.check = wire.SelfCheck{Age: time.Minute, Failing: "the disk is full"}
	x.pass(5 * time.Second)
	x.there["a:1"] = digestOf("one")
	x.reportEach()
	if got := x.revisionNo(1).Images; len(got) != 0 {
		t.Fatalf("pinned to %v by %s, which cannot work", got, first.name)
	}
	first.check = wire.SelfCheck{}
	x.pass(20 * time.Second)
	if got := x.revisionNo(1).Images["a:1"]; got != digestOf("one") || x.with(1) != 3 {
		t.Errorf("when it is well again: %s, %d replicas", got, x.with(1))
	}
}

// TestAJobBeginsAlone: one index at a time until the tag is known.
func TestAJobBeginsAlone(t *testing.T) {
	x := newTags(t)
	j := migrate(6, 3, 0)
	x.ticket++
	x.step(Apply{Ticket: x.ticket, Jobs: []*api.Job{j}, By: "tester"})
	x.turn()
	x.pass(5 * time.Second)
	if n := len(x.held("migrate")); n != 1 {
		t.Fatalf("%d indexes begin", n)
	}
	if got := x.seen[ViewKey{api.KindJob, "default", "migrate"}].(*api.Job).Status.Reasons; !slices.ContainsFunc(got, func(s string) bool { return strings.Contains(s, "begins with one replica") }) {
		t.Errorf("reasons %q", got)
	}
	x.there["db:1"] = digestOf("one")
	x.reportEach()
	x.pass(time.Second)
	if n := len(x.held("migrate")); n != 3 {
		t.Fatalf("%d indexes are under way", n)
	}
	for name, a := range x.held("migrate") {
		if a.Images["db:1"] != digestOf("one") {
			t.Errorf("%s runs %v", name, a.Images)
		}
	}
}

// TestADryRunTellsAll: what comes, not how it begins.
func TestADryRunTellsAll(t *testing.T) {
	x := newTags(t)
	x.ticket++
	x.step(Apply{Ticket: x.ticket, Services: []*api.Service{web(3, "a:1")}, DryRun: true})
	x.turn()
	if plan := x.replies[x.ticket].Value.(ApplyResult).Applied[0].Plan; len(plan) != 3 {
		t.Errorf("plan %q", plan)
	}
}

// TestTheNextBeginsWhereTheFirstHasNoRoom: slots that belong to nodes do not wait for the
// one among them whose node is full.
func TestTheNextBeginsWhereTheFirstHasNoRoom(t *testing.T) {
	x := newTags(t)
	x.there["a:1"] = digestOf("one")
	x.apply("1", keeps(web(3, "a:1"), "data"))
	x.pass(5 * time.Second)
	x.mustReady("web", 3)
	home := x.homes("web")["web-0"]
	x.delete("web")
	x.pass(5 * time.Second)
	x.tag(home, "disk", "ssd")
	full := web(1, "b:1")
	full.Metadata.Name = "full"
	full.Spec.Template.NodeSelector = map[string]string{"disk": "ssd"}
	full.Spec.Template.Containers[0].Resources.Requests = api.ResourceList{api.CPU: api.Whole(4)}
	x.there["b:1"] = digestOf("two")
	x.apply("full", full)
	x.pass(5 * time.Second)
	x.mustReady("full", 1)

	delete(x.there, "a:1")
	again := keeps(web(3, "a:1"), "data")
	again.Spec.Template.Containers[0].Resources.Requests = api.ResourceList{api.CPU: api.Whole(1)}
	x.apply("2", again)
	x.pass(5 * time.Second)
	x.mustHave(1, 1)
	if got := x.homes("web"); got["web-0"] != "" || got["web-1"] == "" {
		t.Errorf("homes %v: %q", got, x.service("web").Status.Reasons)
	}
	x.there["a:1"] = digestOf("one")
	x.reportEach()
	x.pass(5 * time.Second)
	x.mustHave(1, 2)
}

// TestWhoHasNoNodeDoesNotGoFirst: the slot that would go first is bound to a node that is
// full, or that takes nothing: another one goes.
func TestWhoHasNoNodeDoesNotGoFirst(t *testing.T) {
	x := newTags(t)
	x.there["a:1"] = digestOf("one")
	service := func(image string, cpu int64) *api.Service {
		s := keeps(web(3, image), "data")
		s.Spec.Template.Containers[0].Resources.Requests = api.ResourceList{api.CPU: api.Whole(cpu)}
		s.Spec.Rollout.MaxUnavailable = api.Count(3)
		s.Default()
		return s
	}
	x.apply("1", service("a:1", 1))
	x.pass(5 * time.Second)
	x.mustReady("web", 3)
	home := x.homes("web")["web-0"]
	other := web(1, "b:1") // fills the node of slot 0
	other.Metadata.Name = "full"
	other.Spec.Template.Containers[0].Resources.Requests = api.ResourceList{api.CPU: api.Whole(3)}
	for _, n := range []string{"n1", "n2", "n3"} {
		if n != home {
			x.word(n, "cordon")
		}
	}
	x.there["b:1"] = digestOf("b")
	x.apply("full", other)
	x.pass(5 * time.Second)
	if got := x.homes("full")["full-0"]; got != home {
		t.Fatalf("full-0 is on %s, want %s", got, home)
	}
	for _, n := range []string{"n1", "n2", "n3"} {
		if n != home {
			x.word(n, "uncordon")
		}
	}
	x.apply("2", service("a:2", 2)) // 3 of the 4 are taken where slot 0 belongs
	x.pass(20 * time.Second)
	x.mustHave(2, 1)
	if _, ok := x.held("web")["web-0"]; ok && x.held("web")["web-0"].Revision == 2 {
		t.Errorf("web-0 found room: the test shows nothing")
	}
	x.there["a:2"] = digestOf("two")
	x.reportEach()
	x.pass(20 * time.Second)
	x.mustHave(2, 2)
}

// TestASlotWithoutANodeAtFirst: volumes are there, and all replicas are gone; the first
// slot's node is full when they come back, and its retries end.
func TestASlotWithoutANodeAtFirst(t *testing.T) {
	x := newTags(t)
	x.there["a:1"] = digestOf("one")
	s := keeps(web(2, "a:1"), "data")
	x.apply("1", s)
	x.pass(5 * time.Second)
	x.mustReady("web", 2)
	home := x.homes("web")["web-0"]
	x.apply("2", keeps(web(0, "a:1"), "data"))
	x.pass(5 * time.Second)
	x.word(home, "cordon")
	x.there = map[string]string{}
	x.apply("3", keeps(web(0, "a:3"), "data"))
	x.apply("4", keeps(web(2, "a:3"), "data"))
	x.pass(5 * time.Second)
	x.mustHave(2, 1)
	if x.homes("web")["web-1"] == "" {
		t.Errorf("web-1 is not there: %v", x.homes("web"))
	}
	x.there["a:3"] = digestOf("three")
	x.reportEach()
	x.word(home, "uncordon")
	x.pass(5 * time.Second)
	x.mustHave(2, 2)
}

// TestWhatStraysIsReplaced: a spare of the first one found another image first. What the
// incumbent has is not the revision's: it is replaced, and not below the floor.
func TestWhatStraysIsReplaced(t *testing.T) {
	x := newTags(t)
	x.there["a:1"] = digestOf("one")
	x.apply("1", web(2, "a:0")) // is not known to anybody
	x.apply("2", web(2, "a:1"))
	x.pass(20 * time.Second)
	x.mustHave(2, 2)
	if x.revisionNo(2).Images["a:1"] != digestOf("one") {
		t.Fatalf("revision %+v", x.revisionNo(2))
	}
	first := x.held("web")["web-0"]
	had := x.finds
	x.finds = func(a *agent, y wire.Assignment) map[string]string {
		if y.Key == first.Key {
			return map[string]string{"a:1": digestOf("two")}
		}
		return had(a, y)
	}
	least := 2
	x.committed = func() {
		if got := x.service("web").Status.Ready; got < least {
			least = got
		}
	}
	x.reportEach()
	x.pass(20 * time.Second)
	x.mustReady("web", 2)
	if now := x.held("web")["web-0"]; now.Key == first.Key || now.Images["a:1"] != digestOf("one") {
		t.Errorf("web-0 is still %v with %v", now.Key, now.Images)
	}
	if least < 1 {
		t.Errorf("%d were ready at one time", least)
	}
	if !slices.ContainsFunc(x.core.history.of["default"], func(e *api.Event) bool {
		return e.Reason == "Stopping" && e.Name == "web-0" && strings.Contains(e.Message, "it has image a:1 as "+digestOf("two"))
	}) {
		t.Error("no event says why web-0 stopped")
	}
	x.finds = func(*agent, wire.Assignment) map[string]string { return map[string]string{"a:1": "a:1"} }
	x.reportEach() // no digest: nothing that could be compared
	before := x.held("web")
	x.pass(5 * time.Second)
	if now := x.held("web"); now["web-0"].Key != before["web-0"].Key || now["web-1"].Key != before["web-1"].Key {
		t.Errorf("replicas moved on")
	}
}

// TestInitImagesHoldNobody: an init container that has gone tells nothing; once all runs
// nobody waits, and who tells it later is believed.
func TestInitImagesHoldNobody(t *testing.T) {
	x := newTags(t)
	x.there["a:1"], x.there["init:1"] = digestOf("one"), digestOf("init")
	had, tells := x.finds, false
	x.finds = func(a *agent, y wire.Assignment) map[string]string {
		out := had(a, y)
		if !tells {
			delete(out, "init:1")
		}
		return out
	}
	s := web(3, "a:1")
	s.Spec.Template.InitContainers = []api.Container{{Name: "init", Image: "init:1"}}
	x.apply("1", s)
	x.pass(time.Second)
	x.mustHave(1, 3)
	if got := x.revisionNo(1).Images; len(got) != 1 || got["a:1"] != digestOf("one") {
		t.Fatalf("pinned to %v", got)
	}
	tells = true
	x.reportEach()
	x.pass(time.Second)
	if got := x.revisionNo(1).Images["init:1"]; got != digestOf("init") {
		t.Errorf("told later: pinned to %v", x.revisionNo(1).Images)
	}
}
