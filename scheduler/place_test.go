package scheduler_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/scheduler"
)

func TestSpreadGoesBeforeLoad(t *testing.T) {
	f := fleet(node("n1"), node("n2"))
	f.Bind(key("web", 0), "n1", shape())
	f.Bind(key("other", 0), "n2", shape(requests("cpu", "3900m")))
	g := group("web", 2, shape(requests("cpu", "100m")))
	equal(t, "web-1 on", place(t, f, scheduler.Group{Service: g.Service, Shape: g.Shape, Slots: g.Slots[1:]})[0].Node, "n2")
}

func TestLeastLoadGoesBeforeHash(t *testing.T) {
	f := fleet(node("n1"), node("n2"), node("n3"))
	f.Bind(key("a", 0), "n1", shape(requests("cpu", "1")))      // 25 %
	f.Bind(key("a", 1), "n2", shape(requests("memory", "6Gi"))) // 75 %: the dominant share
	f.Bind(key("a", 2), "n3", shape(requests("cpu", "2")))      // 50 %
	for i, want := range []string{"n1", "n3", "n2"} {
		p := place(t, f, group(fmt.Sprintf("web%d", i), 1, shape(requests("cpu", "2"))))
		equal(t, "placed on", p[0].Node, want)
		f.Unbind(p[0].Key)
		f.Bind(api.ReplicaKey{Service: "fill", Slot: i}, want, shape(requests("memory", "7Gi")))
	}
}

// Replicas that request nothing weigh nothing on resources, yet they are not to
// pile up where the hash says.
func TestReplicasWithoutRequestsSpread(t *testing.T) {
	f := fleet(node("n1"), node("n2"), node("n3"), node("n4"))
	for i := range 40 {
		place(t, f, group(fmt.Sprintf("web%d", i), 1, shape()))
	}
	for _, n := range []string{"n1", "n2", "n3", "n4"} {
		equal(t, n, len(f.Bound(n)), 10)
	}
}

// The epoch has no part in the choice: a slot tends to where its image is.
func TestSlotTendsToItsNode(t *testing.T) {
	g := group("web", 1, shape())
	var first string
	for epoch := range uint64(50) {
		f := scheduler.NewFleet()
		for i := range 20 {
			f.SetNode(node(fmt.Sprint("n", i)))
		}
		g.Slots[0].Key.Epoch = epoch
		p := place(t, f, g)
		if epoch == 0 {
			first = p[0].Node
		}
		equal(t, "node", p[0].Node, first)
	}
}

func TestTiesAreSharedOut(t *testing.T) {
	var nodes []scheduler.Node
	for i := range 10 {
		nodes = append(nodes, node(fmt.Sprint("n", i)))
	}
	seen := map[string]int{}
	for i := range 1000 {
		seen[place(t, fleet(nodes...), group(fmt.Sprint("web", i), 1, shape()))[0].Node]++
	}
	for _, n := range nodes {
		if c := seen[n.Name]; c < 60 || c > 140 {
			t.Errorf("%s was chosen %d times of 1000 among 10 equals", n.Name, c)
		}
	}
}

func TestSlotsMayAvoidDifferentNodes(t *testing.T) {
	f := fleet(node("n1"), node("n2"), node("n3"))
	g := group("web", 6, shape(publishes(80, api.TCP)))
	g.Slots[0].Avoid = []string{"n1", "n2"}
	g.Slots[1].Avoid = []string{"n1", "n3"}
	g.Slots[2].Avoid = []string{"n2"}
	g.Slots[3].Avoid = []string{"n2", "n3"}
	placed, refused := scheduler.Place(f, []scheduler.Group{g})
	var got []string
	for _, p := range placed {
		got = append(got, p.Key.Name()+" "+p.Node)
	}
	for _, r := range refused {
		got = append(got, r.Key.Name()+" "+r.Reason)
	}
	want := []string{"web-0 n3", "web-1 n2", "web-2 n1",
		"web-3 3 nodes: 2 avoided, 1 has port 80/TCP taken",
		"web-4 3 nodes: 3 have port 80/TCP taken", "web-5 3 nodes: 3 have port 80/TCP taken"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

// A slot of a global service has one node; who else has room is nothing to it.
func TestSlotOnOneNode(t *testing.T) {
	full := shape(requests("memory", "8Gi"))
	for _, c := range []struct {
		name  string
		node  scheduler.Node
		bound bool
		on    string
		slot  func(*scheduler.Slot)
		want  string
	}{
		{name: "room", node: node("n1"), on: "n1", want: "web-0 -> n1 (0 of web here, load 0.0%; 1000)"},
		{name: "full", node: node("n1"), bound: true, on: "n1", want: "web-0 pending: n1: lacks 512Mi memory (none free of 8Gi)"},
		{name: "label", node: node("n1", labelled("zone", "b")), on: "n1", want: "web-0 pending: n1: lacks label zone=a (has zone=b)"},
		{name: "cordoned", node: node("n1", unschedulable()), on: "n1", want: "web-0 pending: n1: unschedulable"},
		{name: "impaired", node: node("n1", impaired("no fsync for 12s")), on: "n1", want: "web-0 pending: n1: is impaired: no fsync for 12s"},
		{name: "suspect", node: node("n1", verdict(api.VerdictSuspect)), on: "n1", want: "web-0 pending: n1: suspect"},
		{name: "avoided", node: node("n1"), on: "n1", slot: func(s *scheduler.Slot) { s.Avoid = []string{"n1"} }, want: "web-0 pending: n1: avoided"},
		{name: "unknown", node: node("n1"), on: "n9", want: "web-0 pending: n9: there is no such node"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := fleet(c.node, node("n2"), node("n3"))
			if c.bound {
				f.Bind(key("full", 0), "n1", full)
			}
			g := group("web", 1, shape(requests("memory", "512Mi"), selects("zone", "a")))
			g.Slots[0].On = c.on
			if c.slot != nil {
				c.slot(&g.Slots[0])
			}
			if got := strings.Join(lines(scheduler.Place(f, []scheduler.Group{g})), "\n"); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

// What slots with a node of their own take there counts for those that follow.
func TestSlotsOnOneNodeAmongOthers(t *testing.T) {
	f := fleet(node("n1"), node("n2"), node("n3"))
	g := group("web", 6, shape())
	g.Slots[0].On, g.Slots[1].On = "n2", "n2"
	on := map[string]int{}
	for _, p := range place(t, f, g) {
		on[p.Node]++
	}
	if on["n1"] != 2 || on["n2"] != 2 || on["n3"] != 2 {
		t.Errorf("spread %v, want two on each", on)
	}
}

func TestUnmet(t *testing.T) {
	f := fleet(node("n1"), node("n2", labelled("disk", "ssd")))
	for _, c := range []struct {
		node  string
		shape *scheduler.Shape
		want  string
	}{
		{"n1", shape(), ""},
		{"n1", shape(selects("disk", "ssd")), "lacks label disk=ssd"},
		{"n2", shape(selects("disk", "ssd")), ""},
		{"n2", shape(where("disk", api.OpDoesNotExist)), "fails disk DoesNotExist (has disk=ssd)"},
		{"n1", shape(requests("cpu", "99")), ""}, // room is not what it asks
		{"n9", shape(selects("disk", "ssd")), ""},
	} {
		equal(t, c.node, scheduler.Unmet(f, c.shape, c.node), c.want)
	}
}

// Init containers run alone, before everything else: they ask for the largest of
// them, not for their sum, and only where that is more than all the rest together.
func TestShapeOfAReplicaThatBegins(t *testing.T) {
	of := func(name string, cpu, memory string, port int) api.Container {
		c := api.Container{Name: name, Resources: api.Resources{Requests: api.ResourceList{api.CPU: quantity(cpu)}, Limits: api.ResourceList{api.Memory: quantity(memory)}}}
		if port != 0 {
			c.Ports = []api.Port{{Port: port, Publish: port, Mode: api.PublishHost}}
		}
		return c
	}
	f := fleet(node("n1"))
	s := scheduler.NewShape(api.Template{
		InitContainers: []api.Container{of("migrate", "100m", "3Gi", 0), of("warm", "200m", "2Gi", 0)},
		Sidecars:       []api.Container{of("proxy", "1", "1Gi", 80)},
		Containers:     []api.Container{of("main", "500m", "1Gi", 81)},
	})
	place(t, f, group("web", 1, s))
	equal(t, "cpu", f.Requested("n1")[api.CPU], quantity("1500m"))
	equal(t, "memory", f.Requested("n1")[api.Memory], quantity("3Gi"))
	for _, port := range []int{80, 81} {
		_, refused := scheduler.Place(f, []scheduler.Group{group("b", 1, shape(publishes(port, api.TCP)))})
		equal(t, "refused", len(refused), 1)
	}
}

func TestBoundKeyStays(t *testing.T) {
	f := fleet(node("n1"), node("n2"))
	g := group("web", 2, shape(requests("cpu", "1")))
	first := place(t, f, g)
	for i, p := range place(t, f, g) {
		equal(t, "node", p.Node, first[i].Node)
		equal(t, "why", p.Why, "bound there already")
	}
	equal(t, "requested", f.Requested("n1")[api.CPU]+f.Requested("n2")[api.CPU], quantity("2"))
}

func TestBindBeforeTheNodeIsKnown(t *testing.T) {
	f := scheduler.NewFleet()
	s := shape(requests("cpu", "3"), publishes(80, api.TCP))
	f.Bind(key("web", 0), "n1", s)
	f.Bind(key("web", 0), "n1", s)
	equal(t, "requested", f.Requested("n1")[api.CPU], quantity("3"))
	_, refused := scheduler.Place(f, []scheduler.Group{group("b", 1, shape())})
	equal(t, "reason", refused[0].Reason, "no nodes")
	f.SetNode(node("n1"))
	_, refused = scheduler.Place(f, []scheduler.Group{group("b", 1, shape(requests("cpu", "2")))})
	equal(t, "reason", refused[0].Reason, "1 node: 1 lacks 2 cpu (largest free: 1 on n1)")
	f.RemoveNode("n1")
	equal(t, "bound after the node went", len(f.Bound("n1")), 1)
	f.SetNode(node("n1"))
	equal(t, "requested after it returned", f.Requested("n1")[api.CPU], quantity("3"))
	f.Bind(key("web", 0), "n2", s)
	equal(t, "moved away", len(f.Requested("n1")), 0)
	equal(t, "moved to", f.Requested("n2")[api.CPU], quantity("3"))
	f.Unbind(key("web", 0))
	f.Unbind(key("web", 0))
	equal(t, "unbound", len(f.Bound("n2")), 0)
}

// What the index remembers follows each kind of change to a node.
func TestFleetFollowsItsNodes(t *testing.T) {
	f := fleet(node("n1"), node("n2", unschedulable()))
	inB := shape(selects("zone", "b"))
	try := func(s *scheduler.Shape) string {
		placed, refused := scheduler.Place(f, []scheduler.Group{group("web", 1, s)})
		if len(refused) > 0 {
			return refused[0].Reason
		}
		f.Unbind(placed[0].Key)
		return placed[0].Node
	}
	equal(t, "at first", try(inB), "2 nodes: 1 unschedulable, 1 lacks label zone=b")
	f.SetNode(node("n1", labelled("zone", "b")))
	equal(t, "relabelled", try(inB), "n1")
	f.SetNode(node("n1", labelled("zone", "b"), verdict(api.VerdictSuspect)))
	equal(t, "suspect", try(inB), "2 nodes: 1 suspect, 1 unschedulable")
	f.SetNode(node("n2", labelled("zone", "b")))
	equal(t, "schedulable", try(inB), "n2")
	f.SetNode(node("n1", labelled("zone", "b"), has("gpus", "1")))
	equal(t, "capacity", try(shape(requests("gpus", "1"))), "n1")
	f.SetNode(node("n1", labelled("zone", "b")))
	equal(t, "capacity gone", try(shape(requests("gpus", "1"))), "2 nodes: 2 lack 1 gpus (none free)")
	f.RemoveNode("n2")
	f.RemoveNode("n2")
	equal(t, "removed", try(shape(selects("zone", "c"))), "1 node: 1 lacks label zone=c")
	f.SetNode(node("n3", labelled("zone", "c")))
	equal(t, "added", try(shape(selects("zone", "c"))), "n3")
}

func TestExplain(t *testing.T) {
	f := fleet(node("n3"), node("n1"), node("n2", verdict(api.VerdictDead)))
	f.Bind(key("web", 0), "n3", shape(requests("cpu", "500m")))
	got := scheduler.Explain(f, shape(requests("cpu", "1")), api.Key{Namespace: "default", Name: "web"})
	want := []scheduler.NodeExplanation{
		{Node: "n1", Fit: true, Score: 1000, Why: "0 of web here, load 0.0%"},
		{Node: "n2", Filter: "verdict", Reason: "dead"},
		{Node: "n3", Fit: true, Score: -126, Why: "1 of web here, load 12.5%"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}
