package core

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/settings"
	"github.com/orchctl/orch/scheduler"
)

// nodes powers on n1 to n<count>.
func nodes(t *testing.T, count int, conf Config) *fleet {
	f := newFleet(t)
	f.conf = conf
	f.elect()
	for i := range count {
		f.node(fmt.Sprintf("n%d", i+1), "boot1")
	}
	return f
}

// on pins a service to nodes that have the label of its name; see label.
func sized(s *api.Service, priority int, memory int64) *api.Service {
	s.Spec.Priority = priority
	s.Spec.Containers[0].Resources.Requests = api.ResourceList{api.Memory: api.Whole(memory)}
	return s
}

func (f *fleet) spares(service string) int {
	n := 0
	for _, x := range f.core.fillings {
		if x.spare && !x.stopping && x.key.Service == service {
			n++
		}
	}
	return n
}

func (f *fleet) mustSay(service, want string) {
	f.t.Helper()
	if r := strings.Join(f.service(service).Status.Reasons, "; "); !strings.Contains(r, want) {
		f.t.Errorf("%s says %q, want %q", service, r, want)
	}
}

// lost counts what a silent node has of a service.
func (f *fleet) on(node, service string) int {
	n := 0
	for k := range f.agents[node].holds {
		if k.Service == service {
			n++
		}
	}
	return n
}

// A service has so many spares at once; the rest waits and says so, and when the
// node is dead it is replaced outside of the budget.
func TestSparesOfAService(t *testing.T) {
	f := nodes(t, 3, Config{Budgets: Budgets{SparesMin: 2, SparesShare: 0.1}})
	f.apply("1", web(12, "a:1"))
	f.silence("n2")
	f.pass(time.Second)
	if n := f.spares("web"); n != 2 {
		t.Fatalf("%d spares, want 2", n)
	}
	f.mustSay("web", "2 spares wait: budget of 2 per service")
	if st := f.status(); st.Spares != 2 || st.SparesWaiting != 2 || st.Nodes[api.VerdictSuspect] != 1 || st.Nodes[api.VerdictHealthy] != 2 {
		t.Errorf("fleet %+v", st)
	}
	if d := f.record("n2", "Suspect").Done; d.SparesPlaced != 2 || d.SparesWaiting != 2 || d.EndpointsWithdrawn != 4 {
		t.Errorf("done %+v", d)
	}
	epoch := f.core.counters.epoch
	f.pass(5 * time.Second)
	if f.core.counters.epoch != epoch {
		t.Error("what waits spends epochs")
	}
	f.pass(60 * time.Second)
	f.mustReady("web", 12)
	if st := f.status(); st.Spares != 0 || st.SparesWaiting != 0 {
		t.Errorf("fleet after the death %+v", st)
	}
	if d := f.record("n2", "Dead").Done; d.SparesWaiting != 0 || d.Voided != 4 {
		t.Errorf("done %+v", d)
	}
	if d := f.record("n2", "Suspect").Done; d.SparesWaiting != 0 || d.SparesPlaced != 2 {
		t.Errorf("done at last %+v", d)
	}
}

// A spare whose own node falls silent stands in for nobody: its slot gets another,
// also where the budget is just as large as what was lost.
func TestALostSpareFreesTheBudget(t *testing.T) {
	f := nodes(t, 6, Config{Budgets: Budgets{SparesMin: 6, SparesShare: 0.1}})
	f.apply("1", web(12, "a:1"))
	f.silence("n1")
	f.pass(time.Second) // two spares, on whatever nodes
	f.mustReady("web", 12)
	for _, x := range f.core.sortedNodes() {
		if slices.ContainsFunc(x.sortedFillings(), func(f *filling) bool { return f.spare }) {
			f.silence(x.name)
		}
	}
	f.pass(3 * time.Second)
	f.mustReady("web", 12)
}

// A share of the replicas counts where it is more than the minimum.
func TestSparesShare(t *testing.T) {
	f := nodes(t, 3, Config{Budgets: Budgets{SparesMin: 1, SparesShare: 0.25}})
	f.apply("1", web(12, "a:1"))
	f.silence("n2")
	f.pass(time.Second)
	if n := f.spares("web"); n != 3 {
		t.Errorf("%d spares, want 3", n)
	}
}

// A service may be gone before it is planned once more: deleted in the turn in which its
// node comes back from a reboot. A spare of it that found no room is then neither waited for nor told.
func TestAServiceGoesWithASpareThatFoundNoRoom(t *testing.T) {
	f := nodes(t, 2, Config{})
	f.apply("1", named("web", 1, "a:1"))
	f.pass(time.Second)
	gone := f.home("web", 0)
	for n := range f.agents {
		if n != gone {
			if err := f.word(n, "cordon"); err != nil {
				t.Fatal(err)
			}
		}
	}
	f.silence(gone)
	f.pass(time.Second)
	if d := f.record(gone, "Suspect").Done; d.SparesWaiting != 1 {
		t.Fatalf("the spare does not wait: %+v", d)
	}
	f.step(Delete{Refs: []api.Ref{{Key: api.Key{Namespace: "default", Name: "web"}}}})
	f.node(gone, "boot2")
	f.pass(time.Second)
	if _, there := f.core.services[api.Key{Namespace: "default", Name: "web"}]; there {
		t.Error("the service is there still")
	}
	if d := f.record(gone, "Suspect").Done; d.SparesWaiting != 0 {
		t.Errorf("its spare is still told to wait: %+v", d)
	}
}

// The fleet's budget goes to the most important: by priority, then to who has the
// least left, then by name; and as soon as some of it is free again the next has it.
func TestSparesOfTheFleetGoToTheMostImportant(t *testing.T) {
	f := nodes(t, 3, Config{Budgets: Budgets{SparesFleetMin: 2, SparesFleetShare: 0.01}})
	f.apply("1", named("a", 3, "a:1"), named("b", 1, "a:1"), named("c", 3, "a:1"), sized(named("z", 3, "a:1"), 5, 0))
	f.pass(time.Second)
	gone := f.home("b", 0)
	f.silence(gone)
	f.pass(time.Second)
	placed := func() string {
		var out []string
		for _, s := range []string{"a", "b", "c", "z"} {
			if n := f.spares(s); n > 0 {
				out = append(out, fmt.Sprintf("%s %d", s, n))
			}
		}
		return strings.Join(out, ", ")
	}
	if got := placed(); got != "b 1, z 1" {
		t.Fatalf("spares: %s", got)
	}
	f.mustSay("a", "1 spare waits: budget of 2 in the fleet")
	if st := f.status(); st.Spares != 2 || st.SparesWaiting != 2 {
		t.Errorf("fleet %+v", st)
	}
	// Both services with a spare are not wanted any more.
	f.apply("2", sized(named("z", 0, "a:1"), 5, 0))
	f.pass(100 * time.Millisecond)
	if got := placed(); got != "a 1, b 1" {
		t.Errorf("spares after z is gone: %s", got)
	}
	f.delete("b")
	f.pass(100 * time.Millisecond)
	if got := placed(); got != "a 1, c 1" {
		t.Errorf("spares after b is gone: %s", got)
	}
	if st := f.status(); st.Spares != 2 || st.SparesWaiting != 0 {
		t.Errorf("fleet at last %+v", st)
	}
	if d := f.record(gone, "Suspect").Done; d.SparesPlaced != 4 || d.SparesWaiting != 0 {
		t.Errorf("done %+v", d)
	}
}

// A spare that is on its way out is none any more: nobody waits for its grace.
func TestStoppingSparesFreeTheBudget(t *testing.T) {
	f := nodes(t, 3, Config{Budgets: Budgets{SparesFleetMin: 1, SparesFleetShare: 0.01}})
	f.apply("1", named("a", 3, "a:1"), named("b", 3, "a:1"))
	f.silence("n2")
	f.pass(time.Second)
	if f.spares("a") != 1 || f.spares("b") != 0 {
		t.Fatalf("spares: a %d, b %d", f.spares("a"), f.spares("b"))
	}
	f.agents["n1"].cut, f.agents["n3"].cut = true, true // they take their time to stop it
	f.apply("2", named("a", 0, "a:1"))
	if f.spares("b") != 1 {
		t.Error("b's spare waits until a's is gone")
	}
}

// All spares together leave some of what is free.
func TestSparesLeaveRoom(t *testing.T) {
	f := nodes(t, 3, Config{Budgets: Budgets{SparesFree: 0.5}})
	// 8 GiB per node: 4 of 1 GiB each, so that 8 GiB are free on the two others.
	f.apply("1", sized(web(12, "a:1"), 0, 1<<30))
	f.silence("n2")
	f.pass(time.Second)
	if n := f.spares("web"); n != 4 {
		t.Errorf("%d spares, want 4 (half of 8)", n)
	}
	f.apply("2", sized(named("big", 2, "a:1"), 0, 1<<30)) // the rest is for this
	f.mustReady("big", 2)

	f = nodes(t, 3, Config{Budgets: Budgets{SparesFree: 0.3}})
	f.apply("1", sized(web(12, "a:1"), 0, 1<<30))
	f.silence("n2")
	f.pass(time.Second)
	if n := f.spares("web"); n != 2 {
		t.Errorf("%d spares, want 2 (0.3 of 8)", n)
	}
	f.mustSay("web", "2 spares wait: all spares together may take 30% of what is free")
	f.node("n4", "boot1") // 8 GiB more
	f.pass(time.Second)
	if n := f.spares("web"); n != 4 {
		t.Errorf("%d spares with another node, want 4", n)
	}
}

// A spare that is adopted is none any more.
func TestAdoptedSparesFreeTheBudget(t *testing.T) {
	f := nodes(t, 3, Config{Budgets: Budgets{SparesFleetMin: 1, SparesFleetShare: 0.01}})
	f.apply("1", named("a", 3, "a:1"), named("b", 3, "a:1"))
	f.pass(time.Second)
	f.silence("n2")
	f.pass(time.Second)
	if f.spares("a") != 1 || f.spares("b") != 0 {
		t.Fatalf("spares: a %d, b %d", f.spares("a"), f.spares("b"))
	}
	// It comes back without what it had: a's spare is adopted.
	a := f.agents["n2"]
	unready := a.holds
	for k := range unready {
		if k.Service == "a" {
			a.unready[k.Name()] = true
		}
	}
	f.node("n2", "boot1")
	f.pass(200 * time.Millisecond)
	if st := f.status(); st.Spares != 0 || st.SparesWaiting != 0 || f.record("n2", "Back").Done.IncumbentsRemoved != 1 {
		t.Errorf("fleet %+v, done %+v", st, f.record("n2", "Back").Done)
	}
}

// Two thirds of a fleet are gone: what is left is not buried under spares.
func TestSparesWhereManyAreGone(t *testing.T) {
	f := nodes(t, 9, Config{Budgets: Budgets{SparesFleetMin: 5, SparesFleetShare: 0.01}})
	var all []*api.Service
	for i := range 9 {
		all = append(all, named(fmt.Sprintf("s%d", i), 4, "a:1"))
	}
	f.apply("1", all...)
	f.pass(time.Second)
	for i := 4; i <= 9; i++ {
		f.silence(fmt.Sprintf("n%d", i))
	}
	f.pass(2 * time.Second)
	if st := f.status(); st.Spares != 5 || !st.Frozen || st.SparesWaiting == 0 {
		t.Errorf("fleet %+v", st)
	}
	for i := 4; i <= 9; i++ {
		f.node(fmt.Sprintf("n%d", i), "boot1")
	}
	f.pass(2 * time.Second)
	if st := f.status(); st.Spares != 0 || st.Frozen || st.SparesWaiting != 0 || st.Nodes[api.VerdictHealthy] != 9 {
		t.Errorf("fleet after all is back %+v", st)
	}
	if len(f.core.spending.short) != 0 || f.core.spending.used != (usage{}) {
		t.Errorf("left: %+v", f.core.spending)
	}
}

func TestBudgetsAreSetByName(t *testing.T) {
	var b Budgets
	for name, value := range map[string]string{"spares-min": "7", "spares-share": "30%", "spares-fleet-min": "9", "spares-fleet-share": "0.1",
		"spares-free": "50%", "reliefs-min": "2", "reliefs-share": "1%", "relief-patience": "1m", "rebalance-moves": "4", "handover-max": "3s", "failing-ends": "7", "failing-moves": "3", "rollout-ends": "5", "rollout-image": "20s"} {
		if err := b.Set(name, value); err != nil {
			t.Error(err)
		}
	}
	want := Budgets{SparesMin: 7, SparesShare: 0.3, SparesFleetMin: 9, SparesFleetShare: 0.1, SparesFree: 0.5, ReliefsMin: 2, ReliefsShare: 0.01, ReliefPatience: time.Minute,
		RebalanceMoves: 4, HandoverMax: 3 * time.Second, FailingEnds: 7, FailingMoves: 3, RolloutEnds: 5, RolloutImage: 20 * time.Second}
	if b != want || b.withDefaults() != want {
		t.Errorf("got %+v, want %+v", b, want)
	}
	if (Budgets{}).withDefaults() != DefaultBudgets() || (Budgets{}).Validate() != nil {
		t.Error("the zero value has the defaults")
	}
	for _, row := range b.Table() {
		if row.What == "" {
			t.Errorf("%s has no why", row.Name)
		}
	}
	if err := b.Set("spares", "1"); !errors.Is(err, settings.ErrUnknown) {
		t.Errorf("an unknown name: %v", err)
	}
	if err := b.Set("spares-min", "-1"); err == nil || b != want {
		t.Errorf("a negative number: %v, %+v", err, b)
	}
	if err := (Budgets{SparesFree: 1.5}).Validate(); err == nil {
		t.Error("a share above 1 is taken")
	}
	if names := len(b.Table()); names != 14 || !slices.ContainsFunc(b.Table(), func(s settings.Setting) bool { return s.Name == "spares-share" && s.Value() == "30%" }) {
		t.Errorf("%d names", names)
	}
}

// What budgets count of a replica is what the scheduler sets aside for it.
func TestBudgetsCountWhatTheSchedulerDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := func(what string, n int) []api.Container {
			return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) api.Container {
				amounts := func(what string) api.ResourceList {
					out := api.ResourceList{}
					for _, name := range []string{api.CPU, api.Memory} {
						if rapid.Bool().Draw(t, what+name) {
							out[name] = api.Whole(rapid.Int64Range(0, 9).Draw(t, "amount"))
						}
					}
					return out
				}
				return api.Container{Resources: api.Resources{Requests: amounts("requests "), Limits: amounts("limits ")}}
			}), 0, n).Draw(t, what)
		}
		tmpl := api.Template{InitContainers: list("init containers", 3), Sidecars: list("sidecars", 2), Containers: list("containers", 3)}
		fleet := scheduler.NewFleet()
		fleet.Bind(api.ReplicaKey{Service: "web"}, "n1", scheduler.NewShape(tmpl))
		if got, want := requested(&tmpl), amountsOf(fleet.Requested("n1")); got != want {
			t.Fatalf("%+v, want %+v", got, want)
		}
	})
}
