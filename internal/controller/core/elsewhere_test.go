package core

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

// failAt has a slot's replica end so often on a node, all the time from now on.
func (f *fleet) failAt(node, slot string, ends int) {
	f.t.Helper()
	f.agents[node].end(slot, ends)
	f.hear(node)
}

func (a *agent) end(slot string, ends int) {
	if a.ended == nil {
		a.ended = map[string]int{}
	}
	a.ended[slot] = ends
}

// others are all nodes but one.
func (f *fleet) others(name string) []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(f.agents)), func(n string) bool { return n == name })
}

// hear has an agent report what it holds.
func (f *fleet) hear(node string) {
	f.t.Helper()
	a := f.agents[node]
	f.step(Status{Node: node, Session: a.session, Report: wire.StatusReport{Replicas: f.reports(a)}})
	f.turn()
}

// tried gives the messages of a replica's events TriedElsewhere.
func (f *fleet) tried(name string) []string {
	var out []string
	for _, e := range f.core.history.of["default"] {
		if e.Reason == "TriedElsewhere" && e.Name == name {
			out = append(out, e.Message)
		}
	}
	return out
}

// wellFor has a service of three replicas be ready for so long, and gives the home of
// its slot 1.
func wellFor(t *testing.T, s *api.Service, d time.Duration) (f *fleet, home string) {
	f = nodes(t, 5, Config{})
	if r := f.apply("1", s); r.Err != nil {
		t.Fatal(r.Err)
	}
	f.pass(d)
	f.mustReady(s.Metadata.Name, 3)
	return f, f.home(s.Metadata.Name, 1)
}

// What ends five times in a row where others of its revision are well elsewhere is
// tried on another node, start-first, and away from where it was; twice, not more.
func TestTriedElsewhere(t *testing.T) {
	f, home := wellFor(t, web(3, "a:1"), time.Second)
	f.failAt(home, "web-1", 4)
	if f.status().Reliefs != 0 {
		t.Fatal("four ends are taken for five")
	}
	others := f.others(home)
	for _, n := range others { // what comes there is not ready for now
		f.agents[n].unready["web-1"] = true
	}
	f.failAt(home, "web-1", 5)
	if f.home("web", 1) == home {
		t.Fatalf("fleet %+v, at home on %s", f.status(), f.home("web", 1))
	}
	second := f.home("web", 1) // it runs there, and so what served nobody went
	if said := f.tried("web-1"); len(said) != 1 || !strings.Contains(said[0], fmt.Sprintf("on %s: it ended 5 times in a row on %s, and web-", second, home)) || !strings.Contains(said[0], "(1 of 2 tries)") {
		t.Fatalf("events %q", said)
	}
	f.pass(time.Second)
	if f.status().Reliefs != 0 || f.on(home, "web") != 0 {
		t.Fatalf("fleet %+v, %d on %s", f.status(), f.on(home, "web"), home)
	}
	f.failAt(second, "web-1", 5)
	f.pass(time.Second)
	third := f.home("web", 1)
	if third == home || third == second || len(f.tried("web-1")) != 2 {
		t.Fatalf("from %s to %s to %s; %q", home, second, third, f.tried("web-1"))
	}
	f.failAt(third, "web-1", 9)
	f.pass(10 * time.Minute)
	if f.home("web", 1) != third || len(f.tried("web-1")) != 2 || f.status().Reliefs != 0 {
		t.Fatalf("it went on to %s", f.home("web", 1))
	}
	if m, want := f.replica("web", 1, third).Status.Message, fmt.Sprintf("it ended 9 times in a row on %s, and as often on %s and %s, where it was before", third, home, second); m != want {
		t.Errorf("message %q, want %q", m, want)
	}
	// A new revision may be tried anew.
	for _, a := range f.agents {
		delete(a.ended, "web-1")
		delete(a.unready, "web-1")
	}
	f.apply("2", web(3, "a:2"))
	f.pass(5 * time.Second)
	f.mustReady("web", 3)
	home = f.home("web", 1)
	f.failAt(home, "web-1", 5)
	f.pass(time.Second)
	if f.home("web", 1) == home || len(f.tried("web-1")) != 3 {
		t.Errorf("revision 2 is not tried elsewhere: %q", f.tried("web-1"))
	}
}

// When nothing says that the node is at fault, or something else is to be done about
// the replica, it stays.
func TestNotTriedElsewhere(t *testing.T) {
	for _, c := range []struct {
		name   string
		s      *api.Service
		before func(f *fleet, home string)
	}{
		{name: "all fail", s: web(3, "a:1"), before: func(f *fleet, home string) {
			for _, n := range f.others("") {
				for i := range 3 {
					f.agents[n].end(fmt.Sprintf("web-%d", i), 1)
				}
				f.hear(n)
			}
		}},
		{name: "no other is ready", s: web(3, "a:1"), before: func(f *fleet, home string) {
			for _, n := range f.others(home) {
				for i := range 3 {
					f.agents[n].unready[fmt.Sprintf("web-%d", i)] = true
				}
				f.hear(n)
			}
		}},
		{name: "exclusive", s: only("web", 3, "a:1")},
		{name: "drained", s: web(3, "a:1"), before: func(f *fleet, home string) {
			for _, n := range f.others(home) {
				f.word(n, "cordon")
			}
			f.drainBy(home, 0)
		}},
		{name: "no other node", s: web(3, "a:1"), before: func(f *fleet, home string) {
			for _, n := range f.others(home) {
				f.word(n, "cordon")
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, home := wellFor(t, c.s, time.Second)
			if c.before != nil {
				c.before(f, home)
			}
			f.failAt(home, "web-1", 5)
			f.pass(10 * time.Second)
			if f.home("web", 1) != home || len(f.tried("web-1")) > 0 {
				t.Errorf("it went from %s to %s: %q", home, f.home("web", 1), f.tried("web-1"))
			}
			if c.name != "drained" && f.status().Reliefs > 0 {
				t.Errorf("fleet %+v", f.status())
			}
		})
	}
}

// Ends before a long good run do not count, nor those before this leader.
func TestEndsInARow(t *testing.T) {
	f, home := wellFor(t, web(3, "a:1"), time.Second)
	f.failAt(home, "web-1", 4)
	delete(f.agents[home].ended, "web-1")
	a := f.agents[home]
	good := func(restarts int) {
		var out []wire.Report
		for _, r := range f.reports(a) {
			if r.Key.Name() == "web-1" {
				r.Status = api.ReplicaStatus{Phase: api.PhaseRunning, Ready: true, IP: "10.64.0.9", Restarts: restarts, Containers: []api.ContainerStatus{{Name: "main", State: api.ContainerRunning, Ready: true, Restarts: restarts}}}
			}
			out = append(out, r)
		}
		f.step(Status{Node: home, Session: a.session, Report: wire.StatusReport{Replicas: out}})
		f.turn()
	}
	good(4)
	f.pass(61 * time.Second) // its resetAfter
	f.failAt(home, "web-1", 8)
	if f.status().Reliefs != 0 {
		t.Fatal("the four before count")
	}
	f.elect()
	f.dial(f.others("")...)
	f.pass(time.Second)
	f.failAt(home, "web-1", 12)
	if f.status().Reliefs != 0 || f.home("web", 1) != home {
		t.Fatal("ends before this leader count")
	}
	f.failAt(home, "web-1", 13)
	f.pass(time.Second)
	if f.home("web", 1) == home {
		t.Error("five under this leader do not count")
	}
}

// One of a service at a time; one that runs well again stays.
func TestTriesAreFewAndCalledOff(t *testing.T) {
	f, _ := wellFor(t, web(3, "a:1"), time.Second)
	homes := []string{f.home("web", 0), f.home("web", 1)}
	for i := range 2 { // spares are still being prepared
		for _, n := range f.others("") {
			if n != homes[i] {
				f.agents[n].silent = true
			}
		}
	}
	for _, n := range homes {
		f.agents[n].silent = false
	}
	for i, n := range homes {
		f.failAt(n, fmt.Sprintf("web-%d", i), 5)
	}
	if f.status().Reliefs != 1 || f.mostReliefs != 1 {
		t.Fatalf("fleet %+v, at most %d", f.status(), f.mostReliefs)
	}
	if m := f.replica("web", 0, homes[0]).Status.Message; !strings.Contains(m, "it ended 5 times in a row on "+homes[0]) || !strings.Contains(m, "it is tried on another node") {
		t.Errorf("message %q", m)
	}
	f.mustSay("web", "web-0 on "+homes[0])
	for _, n := range f.others("") {
		f.agents[n].silent = false
	}
	delete(f.agents[homes[0]].ended, "web-0")
	f.hear(homes[0])
	if f.home("web", 0) != homes[0] {
		t.Fatalf("web-0 is on %s", f.home("web", 0))
	}
	f.pass(3 * time.Second)
	if f.home("web", 0) != homes[0] || f.status().Reliefs != 0 || f.spares("web") != 0 {
		t.Errorf("web-0 is on %s, fleet %+v", f.home("web", 0), f.status())
	}
}

// What finds no place is tried again later, when there may be one.
func TestTriedElsewhereLater(t *testing.T) {
	f, home := wellFor(t, web(3, "a:1"), time.Second)
	for _, n := range f.others(home) {
		f.word(n, "cordon")
	}
	f.failAt(home, "web-1", 6)
	f.pass(time.Minute)
	for _, n := range f.others(home) {
		f.word(n, "uncordon")
	}
	f.pass(DefaultBudgets().ReliefPatience - 2*time.Minute)
	if f.home("web", 1) != home || f.status().Reliefs != 0 {
		t.Fatalf("it is on %s, fleet %+v", f.home("web", 1), f.status())
	}
	f.pass(2 * time.Minute)
	if f.home("web", 1) == home || len(f.tried("web-1")) != 1 {
		t.Errorf("it is still on %s: %q", home, f.tried("web-1"))
	}
}

// A try under way when its service becomes exclusive is called off: nothing that runs is
// stopped for it.
func TestTryEndsWhenTheServiceBecomesExclusive(t *testing.T) {
	f, home := wellFor(t, web(3, "a:1"), time.Second)
	for _, n := range f.others(home) {
		f.agents[n].silent = n != f.home("web", 0) && n != f.home("web", 2) // its spare is not started yet
	}
	f.failAt(home, "web-1", 5)
	if f.status().Reliefs != 1 || f.spares("web") != 1 {
		t.Fatalf("fleet %+v, %d spares", f.status(), f.spares("web"))
	}
	s := only("web", 3, "a:1")
	s.Spec.Rollout = web(3, "a:1").Spec.Rollout
	f.apply("2", s)
	if f.status().Reliefs != 0 || len(f.core.relieved) > 0 {
		t.Errorf("fleet %+v", f.status())
	}
	for _, x := range f.core.services[s.Metadata.Key()].inSlot(1) {
		if strings.Contains(x.why, "relieved") && x.stopping {
			t.Errorf("%s on %s: %s", x.key, x.node, x.why)
		}
	}
}
