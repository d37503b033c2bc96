package core

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
)

// knownReason refuses an event whose reason is not told to users, or not of that kind.
func (f *fleet) knownReason(e *api.Event) {
	i := slices.IndexFunc(api.EventReasons, func(r api.EventReason) bool { return r.Reason == e.Reason })
	summed := strings.HasPrefix(e.Message, inSum)
	if i < 0 || !summed && !slices.Contains(api.EventReasons[i].Of, e.Kind) {
		f.t.Errorf("event %s of a %s: its reason is not in api.EventReasons with that kind", e.Reason, e.Kind)
	}
}

// TestReasonsOfTheSource: also of what no test has happen.
func TestReasonsOfTheSource(t *testing.T) {
	said := regexp.MustCompile(`(?:c\.event\([^"]*?(?:"", )?|c\.tellRollout\(s, [a-zA-Z.]+, |c\.(?:volume|config)Event\([^"]*)"([A-Z][A-Za-z]+)"`)
	known := map[string]bool{}
	for _, r := range api.EventReasons {
		known[r.Reason] = true
	}
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, file := range files {
		if strings.HasSuffix(file.Name(), "_test.go") || !strings.HasSuffix(file.Name(), ".go") {
			continue
		}
		text, err := os.ReadFile(file.Name())
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range said.FindAllStringSubmatch(string(text), -1) {
			found++
			if !known[m[1]] {
				t.Errorf("%s: the reason %s is not in api.EventReasons", file.Name(), m[1])
			}
		}
	}
	if found < 20 {
		t.Errorf("%d reasons are found in the source: the pattern has gone blind", found)
	}
}

// TestStormOfEvents: a service of 1,000 replicas that all crash again and again pushes
// nothing out that somebody may look for, and costs the store little.
func TestStormOfEvents(t *testing.T) {
	f := newFleet(t)
	f.core.history.limit = 1000
	f.core.event("default", api.KindService, "other", api.EventNormal, "Created", "by somebody")
	f.turn()
	writes := 0
	f.committed = func() {
		for _, op := range f.lastOps {
			if strings.HasPrefix(op.Key, eventPrefix) {
				writes++
			}
		}
	}
	const replicas, rounds = 1000, 60
	for round := range rounds {
		for i := range replicas {
			name := fmt.Sprintf("web-%d", i)
			f.core.event("default", api.KindReplica, name, api.EventWarning, api.ExitError, "container main on n1: exit code 1")
			f.core.event("default", api.KindReplica, name, api.EventWarning, api.ReasonBackOff, fmt.Sprintf("container main on n1: again in %ds", round+1))
		}
		f.now = f.now.Add(10 * time.Second)
		f.step(Tick{})
		f.turn()
	}
	t.Logf("%d events came to %d writes, %d are kept", 2*replicas*rounds, writes, len(f.core.history.of["default"]))
	if seconds := rounds * 10; writes > 10*seconds {
		t.Errorf("%d writes in %d s, of %d events", writes, seconds, 2*replicas*rounds)
	}
	kinds := map[string]int{}
	for _, e := range f.core.history.of["default"] {
		kinds[e.Kind+" "+e.Name]++
	}
	if kinds["Service other"] != 1 {
		t.Error("what happened to another service was pushed out")
	}
	if sums := kinds["Service web"]; sums == 0 || sums > 4 {
		t.Errorf("%d sums: %v", sums, slices.Sorted(maps.Keys(kinds))[:5])
	}
}

// TestManyServicesThatCrash: each within its allowance, and together too many.
func TestManyServicesThatCrash(t *testing.T) {
	f := newFleet(t)
	for i := range 3000 {
		f.core.event("default", api.KindReplica, fmt.Sprintf("s%d-0", i), api.EventWarning, api.ExitError, "exit code 1")
	}
	f.turn()
	if n := len(f.core.history.of["default"]); n > 2*eventsInAllBurst || f.core.history.untold["default"] == 0 {
		t.Errorf("%d events are kept, %d are not", n, f.core.history.untold["default"])
	}
}

// TestEventsOfADeletedService tell themselves apart from those of the next of its name.
func TestEventsOfADeletedService(t *testing.T) {
	f := threeNodes(t)
	f.mustAll(nil, web(1, "a:1"))
	f.mustReady("web", 1)
	first := f.service("web").Metadata.UID
	f.delete("web")
	f.pass(time.Second)
	f.mustAll(nil, web(1, "a:1"))
	f.mustReady("web", 1)
	second := f.service("web").Metadata.UID
	of := map[string]map[string]int{}
	for _, e := range f.core.history.of["default"] {
		if of[e.UID] == nil {
			of[e.UID] = map[string]int{}
		}
		of[e.UID][e.Reason]++
	}
	if first == second || of[""] != nil || of[first]["Deleted"] != 1 || of[second]["Deleted"] != 0 || of[first]["Placed"] != 1 || of[second]["Placed"] != 1 || of[second]["Created"] != 1 {
		t.Errorf("first %s, second %s: %v", first, second, of)
	}
}
