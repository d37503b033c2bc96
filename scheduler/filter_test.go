package scheduler_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/scheduler"
)

// Each row is a fleet that refuses the shape: in what words, and what n1 says of
// itself in describe. An empty reason means that it is placed, on the node given.
func TestFilters(t *testing.T) {
	three := func(opts ...nodeOption) []scheduler.Node {
		return []scheduler.Node{node("n1", opts...), node("n2", opts...), node("n3", opts...)}
	}
	rows := []struct {
		name   string
		nodes  []scheduler.Node
		bound  []bound
		avoid  []string
		shape  *scheduler.Shape
		reason string
		filter string // of the first count
		n1     string
		on     string
	}{
		{name: "no nodes", shape: shape(), reason: "no nodes"},
		{name: "verdict suspect", nodes: []scheduler.Node{node("n1", verdict(api.VerdictSuspect))}, shape: shape(),
			reason: "1 node: 1 suspect", filter: "verdict", n1: "suspect"},
		{name: "verdict, all of them",
			nodes: []scheduler.Node{node("n1", verdict(api.VerdictUnknown)), node("n2", verdict(api.VerdictAgentLost)), node("n3", verdict(api.VerdictSuspect)),
				node("n4", verdict(api.VerdictDead)), node("n5", verdict(api.VerdictBack)), node("n6", verdict(""))},
			shape:  shape(),
			reason: "6 nodes: 2 not heard of yet, 1 agent lost, 1 suspect, 1 dead, 1 coming back", filter: "verdict", n1: "not heard of yet"},
		{name: "unschedulable", nodes: three(unschedulable()), shape: shape(),
			reason: "3 nodes: 3 unschedulable", filter: "schedulable", n1: "unschedulable"},
		{name: "verdict goes before unschedulable", nodes: []scheduler.Node{node("n1", unschedulable(), verdict(api.VerdictDead))}, shape: shape(),
			reason: "1 node: 1 dead", filter: "verdict", n1: "dead"},

		{name: "selector: label missing", nodes: three(), shape: shape(selects("disk", "ssd")),
			reason: "3 nodes: 3 lack label disk=ssd", filter: "selector", n1: "lacks label disk=ssd"},
		{name: "selector: other value, one node", nodes: []scheduler.Node{node("n1")}, shape: shape(selects("zone", "b")),
			reason: "1 node: 1 lacks label zone=b", filter: "selector", n1: "lacks label zone=b (has zone=a)"},
		{name: "selector: an empty value is not a missing label", nodes: []scheduler.Node{node("n1")}, shape: shape(selects("disk", "")),
			reason: "1 node: 1 lacks label disk=", filter: "selector", n1: "lacks label disk="},
		{name: "selector: met", nodes: []scheduler.Node{node("n1"), node("n2", labelled("zone", "b"))}, shape: shape(selects("zone", "b")), on: "n2"},
		{name: "selector: each label has its count", nodes: []scheduler.Node{node("n1"), node("n2", labelled("disk", "ssd")), node("n3", labelled("disk", "ssd"))},
			shape: shape(selects("disk", "ssd"), selects("zone", "b")), reason: "3 nodes: 2 lack label zone=b, 1 lacks label disk=ssd", filter: "selector", n1: "lacks label disk=ssd"},

		{name: "In: other value", nodes: three(), shape: shape(where("zone", api.OpIn, "b", "c")),
			reason: "3 nodes: 3 fail zone In [b c]", filter: "constraints", n1: "fails zone In [b c] (has zone=a)"},
		{name: "In: label missing", nodes: []scheduler.Node{node("n1")}, shape: shape(where("disk", api.OpIn, "ssd")),
			reason: "1 node: 1 fails disk In [ssd]", filter: "constraints", n1: "fails disk In [ssd]"},
		{name: "In: met", nodes: []scheduler.Node{node("n1"), node("n2", labelled("zone", "c"))}, shape: shape(where("zone", api.OpIn, "b", "c")), on: "n2"},
		{name: "NotIn: in", nodes: three(), shape: shape(where("zone", api.OpNotIn, "a")),
			reason: "3 nodes: 3 fail zone NotIn [a]", filter: "constraints", n1: "fails zone NotIn [a] (has zone=a)"},
		{name: "NotIn: label missing is met", nodes: []scheduler.Node{node("n1")}, shape: shape(where("disk", api.OpNotIn, "hdd")), on: "n1"},
		{name: "Exists: missing", nodes: three(), shape: shape(where("disk", api.OpExists)),
			reason: "3 nodes: 3 fail disk Exists", filter: "constraints", n1: "fails disk Exists"},
		{name: "Exists: met", nodes: []scheduler.Node{node("n1"), node("n2", labelled("disk", ""))}, shape: shape(where("disk", api.OpExists)), on: "n2"},
		{name: "DoesNotExist: there", nodes: three(), shape: shape(where("zone", api.OpDoesNotExist)),
			reason: "3 nodes: 3 fail zone DoesNotExist", filter: "constraints", n1: "fails zone DoesNotExist (has zone=a)"},
		{name: "DoesNotExist: met", nodes: []scheduler.Node{node("n1")}, shape: shape(where("disk", api.OpDoesNotExist)), on: "n1"},
		{name: "unknown operator is never met", nodes: []scheduler.Node{node("n1")}, shape: shape(where("zone", "Near", "a")),
			reason: "1 node: 1 fails zone Near [a]", filter: "constraints", n1: "fails zone Near [a] (has zone=a)"},
		{name: "all constraints have to be met", nodes: three(labelled("disk", "ssd")), shape: shape(where("disk", api.OpExists), where("zone", api.OpIn, "b")),
			reason: "3 nodes: 3 fail zone In [b]", filter: "constraints", n1: "fails zone In [b] (has zone=a)"},

		{name: "avoid", nodes: []scheduler.Node{node("n1"), node("n2", verdict(api.VerdictSuspect))}, avoid: []string{"n1", "gone"}, shape: shape(),
			reason: "2 nodes: 1 suspect, 1 avoided", filter: "verdict"},
		{name: "avoid: the other", nodes: []scheduler.Node{node("n1"), node("n2")}, avoid: []string{"n1"}, shape: shape(), on: "n2"},

		{name: "the sample of the issue",
			nodes: []scheduler.Node{node("n1", has("memory", "256Mi")), node("n2", has("memory", "300Mi")), node("n3", has("memory", "100Mi")), node("n4", unschedulable()), node("n5", unschedulable())},
			shape: shape(requests("memory", "512Mi")), reason: "5 nodes: 3 lack 512Mi memory (largest free: 300Mi on n2), 2 unschedulable", filter: "capacity",
			n1: "lacks 512Mi memory (256Mi free of 256Mi)"},
		{name: "cpu", nodes: three(), bound: []bound{{"n1", requests("cpu", "3500m")}, {"n2", requests("cpu", "3")}, {"n3", requests("cpu", "3")}}, shape: shape(requests("cpu", "1500m")),
			reason: "3 nodes: 3 lack 1500m cpu (largest free: 1 on n2)", filter: "capacity", n1: "lacks 1500m cpu (500m free of 4)"},
		{name: "cpu: exactly what is left", nodes: three(), bound: []bound{{"n1", requests("cpu", "4")}, {"n2", requests("cpu", "2500m")}, {"n3", requests("cpu", "4")}}, shape: shape(requests("cpu", "1500m")), on: "n2"},
		{name: "memory is told in round figures", nodes: []scheduler.Node{node("n1")}, bound: []bound{{"n1", requests("memory", "5000000001")}}, shape: shape(requests("memory", "4Gi")),
			reason: "1 node: 1 lacks 4Gi memory (largest free: 3423Mi on n1)", filter: "capacity", n1: "lacks 4Gi memory (3423Mi free of 8Gi)"},
		{name: "bound past capacity", nodes: []scheduler.Node{node("n1")}, bound: []bound{{"n1", requests("cpu", "5")}}, shape: shape(requests("cpu", "1m")),
			reason: "1 node: 1 lacks 1m cpu (none free)", filter: "capacity", n1: "lacks 1m cpu (none free of 4)"},
		{name: "extended: not named is zero", nodes: three(), shape: shape(requests("gpus", "1")),
			reason: "3 nodes: 3 lack 1 gpus (none free)", filter: "capacity", n1: "lacks 1 gpus (none free of 0)"},
		{name: "extended: too few", nodes: []scheduler.Node{node("n1", has("gpus", "1")), node("n2", has("gpus", "2")), node("n3")}, shape: shape(requests("gpus", "3")),
			reason: "3 nodes: 3 lack 3 gpus (largest free: 2 on n2)", filter: "capacity", n1: "lacks 3 gpus (1 free of 1)"},
		{name: "extended: met", nodes: []scheduler.Node{node("n1"), node("n2", has("gpus", "2"))}, shape: shape(requests("gpus", "2")), on: "n2"},
		{name: "extended: counted like any", nodes: []scheduler.Node{node("n1", has("gpus", "2"))}, bound: []bound{{"n1", requests("gpus", "1")}}, shape: shape(requests("gpus", "2")),
			reason: "1 node: 1 lacks 2 gpus (largest free: 1 on n1)", filter: "capacity", n1: "lacks 2 gpus (1 free of 2)"},
		{name: "each resource has its count, cpu before memory", nodes: []scheduler.Node{node("n1", has("cpu", "1"), has("memory", "1Gi")), node("n2", has("memory", "1Gi")), node("n3", has("memory", "2Gi"))},
			shape: shape(requests("cpu", "2"), requests("memory", "4Gi")), reason: "3 nodes: 2 lack 4Gi memory (largest free: 2Gi on n3), 1 lacks 2 cpu (largest free: 1 on n1)", filter: "capacity", n1: "lacks 2 cpu (1 free of 1)"},
		{name: "pids are not scheduled", nodes: []scheduler.Node{node("n1", has("pids", "10"))}, shape: shape(requests("pids", "1000000")), on: "n1"},
		{name: "zero is not asked for", nodes: []scheduler.Node{node("n1")}, shape: shape(requests("gpus", "0")), on: "n1"},

		{name: "impaired", nodes: []scheduler.Node{node("n1", impaired("containerd does not answer"))}, shape: shape(),
			reason: "1 node: 1 impaired (n1: containerd does not answer)", filter: "impaired", n1: "is impaired: containerd does not answer"},
		{name: "impaired, several: the first by name is named", nodes: []scheduler.Node{node("n2", impaired("the disk is full")), node("n1", impaired("containerd does not answer"))}, shape: shape(),
			reason: "2 nodes: 2 impaired (among them n1: containerd does not answer)", filter: "impaired", n1: "is impaired: containerd does not answer"},
		{name: "impaired: another is there", nodes: []scheduler.Node{node("n1", impaired("no fsync for 12s")), node("n2")}, shape: shape(), on: "n2"},
		{name: "damped", nodes: []scheduler.Node{node("n1", damped)}, shape: shape(),
			reason: "1 node: 1 damped", filter: "damped", n1: "is damped: it went and came back too often"},
		{name: "damped: another is there", nodes: []scheduler.Node{node("n1", damped), node("n2")}, shape: shape(), on: "n2"},
		{name: "a verdict is told before what is beside it", nodes: []scheduler.Node{node("n1", damped, impaired("x"), verdict(api.VerdictSuspect))}, shape: shape(),
			reason: "1 node: 1 suspect", filter: "verdict", n1: "suspect"},

		{name: "no subnet", nodes: []scheduler.Node{node("n1", noNetwork("no subnet is free"))}, shape: shape(),
			reason: "1 node: 1 has no subnet (n1: no subnet is free)", filter: "network", n1: "has no subnet: no subnet is free"},
		{name: "no subnet: another has one", nodes: []scheduler.Node{node("n1", noNetwork("no subnet is free")), node("n2")}, shape: shape(), on: "n2"},
		{name: "no subnet is needed", nodes: []scheduler.Node{node("n1", noNetwork("no subnet is free"), addresses(1))}, shape: shape(hostNetwork), on: "n1"},
		{name: "addresses: used up", nodes: three(addresses(1)), bound: []bound{{"n1", listens(80)}, {"n2", listens(80)}, {"n3", listens(80)}}, shape: shape(),
			reason: "3 nodes: 3 have no address left (on n1 all 1 are taken)", filter: "network", n1: "has no address left: all 1 are taken"},
		{name: "addresses: one is left", nodes: []scheduler.Node{node("n1", addresses(2))}, bound: []bound{{"n1", listens(80)}}, shape: shape(), on: "n1"},
		{name: "addresses: those in the node's network need none", nodes: []scheduler.Node{node("n1", addresses(1))}, bound: []bound{{"n1", hostNetwork}}, shape: shape(), on: "n1"},
		{name: "addresses: no limit is known", nodes: []scheduler.Node{node("n1")}, bound: []bound{{"n1", listens(80)}}, shape: shape(), on: "n1"},

		{name: "port of the node's network", nodes: []scheduler.Node{node("n1")}, bound: []bound{{"n1", publishes(80, api.TCP)}}, shape: shape(hostNetwork, listens(80)),
			reason: "1 node: 1 has port 80/TCP taken", filter: "ports", n1: "has port 80/TCP taken by default/old-0"},
		{name: "port published on every node is shared", nodes: []scheduler.Node{node("n1")}, bound: []bound{{"n1", everywhere(80)}}, shape: shape(everywhere(80)), on: "n1"},

		{name: "port taken", nodes: []scheduler.Node{node("n1")}, bound: []bound{{"n1", publishes(80, api.TCP)}}, shape: shape(publishes(80, "")),
			reason: "1 node: 1 has port 80/TCP taken", filter: "ports", n1: "has port 80/TCP taken by default/old-0"},
		{name: "port taken on several", nodes: []scheduler.Node{node("n1"), node("n2")}, bound: []bound{{"n1", publishes(53, api.UDP)}, {"n2", publishes(53, api.UDP)}}, shape: shape(publishes(53, api.UDP)),
			reason: "2 nodes: 2 have port 53/UDP taken", filter: "ports", n1: "has port 53/UDP taken by default/old-0"},
		{name: "port of the other protocol", nodes: []scheduler.Node{node("n1")}, bound: []bound{{"n1", publishes(53, api.UDP)}}, shape: shape(publishes(53, api.TCP)), on: "n1"},
		{name: "port on an unreachable node counts there only", nodes: []scheduler.Node{node("n1", verdict(api.VerdictSuspect)), node("n2")}, bound: []bound{{"n1", publishes(80, api.TCP)}}, shape: shape(publishes(80, api.TCP)), on: "n2"},
		{name: "port not published", nodes: []scheduler.Node{node("n1")}, bound: []bound{{"n1", publishes(80, api.TCP)}},
			shape: shape(func(t *api.Template) { t.Containers[0].Ports = []api.Port{{Port: 80}} }), on: "n1"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			f := fleet(r.nodes...)
			for i, b := range r.bound {
				f.Bind(key("old", i), b.node, shape(b.option))
			}
			g := group("web", 1, r.shape)
			g.Slots[0].Avoid = r.avoid
			explained := scheduler.Explain(f, r.shape, g.Service)
			equal(t, "fits", scheduler.Fits(f, r.shape), slices.ContainsFunc(explained, func(e scheduler.NodeExplanation) bool { return e.Fit }))
			placed, refused := scheduler.Place(f, []scheduler.Group{g})
			if r.reason == "" {
				if len(placed) != 1 || placed[0].Node != r.on {
					t.Fatalf("want it on %s, got %q", r.on, lines(placed, refused))
				}
				return
			}
			if len(refused) != 1 {
				t.Fatalf("want a refusal, got %q", lines(placed, refused))
			}
			equal(t, "reason", refused[0].Reason, r.reason)
			if len(r.nodes) > 0 {
				equal(t, "filter of the first count", refused[0].Counts[0].Filter, r.filter)
			}
			sum := 0
			for _, c := range refused[0].Counts {
				sum += c.Nodes
			}
			equal(t, "nodes counted", sum, len(r.nodes))
			if r.n1 != "" {
				equal(t, "n1 explains", explained[0].Reason, r.n1)
			}
		})
	}
}

type bound struct {
	node   string
	option shapeOption
}

func TestShapeSums(t *testing.T) {
	limits := func(cpu string) api.ResourceList { return api.ResourceList{api.CPU: quantity(cpu)} }
	template := api.Template{Containers: []api.Container{
		{Resources: api.Resources{Requests: api.ResourceList{api.Memory: quantity("1Gi")}, Limits: limits("500m")}},
		{Resources: api.Resources{Requests: api.ResourceList{api.CPU: quantity("1"), "gpus": quantity("1")}, Limits: limits("3")}},
		{Resources: api.Resources{Requests: api.ResourceList{api.CPU: 0}, Limits: limits("3")}},
	}}
	f := fleet(node("n1"))
	f.Bind(key("web", 0), "n1", scheduler.NewShape(template))
	got := f.Requested("n1")
	// 500m from a limit, 1 asked for, 0 asked for although the limit is 3.
	equal(t, "cpu", got[api.CPU], quantity("1500m"))
	equal(t, "memory", got[api.Memory], quantity("1Gi"))
	equal(t, "gpus", got["gpus"], quantity("1"))
	equal(t, "resources", len(got), 3)
}

// A sum past the largest amount is refused everywhere, and what was cut off does
// not stay on the node.
func TestHugeAmounts(t *testing.T) {
	huge := shape(requests("cpu", "9000000000000000"))
	f := fleet(node("n1", has("cpu", "9000000000000000")))
	place(t, f, group("a", 1, huge))
	_, refused := scheduler.Place(f, []scheduler.Group{group("b", 1, huge)})
	if len(refused) != 1 || !strings.Contains(refused[0].Reason, "(none free)") {
		t.Fatalf("want it refused, got %v", refused)
	}
	f.Bind(key("b", 0), "n1", huge)
	equal(t, "two", f.Requested("n1")[api.CPU], api.MaxQuantity)
	f.Unbind(key("a", 0))
	equal(t, "one", f.Requested("n1")[api.CPU], quantity("9000000000000000"))
}
