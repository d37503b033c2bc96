package scheduler

import (
	"fmt"
	"slices"
	"strings"

	"github.com/orchctl/orch/api"
)

// ask is what a group, or a slot of it, asks of a node.
type ask struct {
	shape *Shape
	needs []need
	// avoid are the nodes not to use, those left out which no replica of the
	// shape may use anyway: mostly such a node is suspect, and then slots that
	// avoid different nodes ask the same.
	avoid []*node
}

// tally is how many nodes one filter refused for one cause.
type tally struct {
	filter int // in filters
	item   int
	nodes  int
	// most is the largest free amount among them, on the node of that name.
	// Only capacity has it.
	most   int64
	mostOn string
	// first is the first by name of the nodes refused.
	first *node
}

// filter is a rule that may refuse a node. Causes are numbered (item) so that
// thousands of nodes are counted without wording each; -1 is no refusal.
type filter struct {
	name string
	// refuse gives the cause for which the node is refused, or -1.
	refuse func(*ask, *node) int
	// many words a count of nodes: "3 lack 512Mi memory" without the 3.
	many func(*ask, tally) string
	// one words the refusal of this node, for describe.
	one func(a *ask, n *node, item int) string
}

// filters are asked in this order; a node counts for the first that refuses it.
// What holds for all replicas comes before what holds for a service, and what
// holds for long before what changes with each placement.
var filters = []filter{
	{"verdict", refuseVerdict, manyVerdict, oneVerdict},
	{"schedulable", refuseUnschedulable, manyUnschedulable, oneUnschedulable},
	{"impaired", refuseImpaired, manyImpaired, oneImpaired},
	{"damped", refuseDamped, manyDamped, oneDamped},
	{"selector", refuseSelector, manySelector, oneSelector},
	{"constraints", refuseConstraints, manyConstraints, oneConstraints},
	{"avoid", refuseAvoid, manyAvoid, oneAvoid},
	{"network", refuseNetwork, manyNetwork, oneNetwork},
	{"capacity", refuseCapacity, manyCapacity, oneCapacity},
	{"ports", refusePorts, manyPorts, onePorts},
}

// takesReplicas, meetsRule and fits are the same filters by how long their answer
// holds; the index keeps the first two as sets.
func takesReplicas(n *node) bool {
	return refuseVerdict(nil, n) < 0 && refuseUnschedulable(nil, n) < 0 && refuseImpaired(nil, n) < 0 && refuseDamped(nil, n) < 0
}

func meetsRule(n *node, s *Shape) bool {
	a := ask{shape: s}
	return refuseSelector(&a, n) < 0 && refuseConstraints(&a, n) < 0
}

func fits(a *ask, n *node) bool {
	return refuseNetwork(a, n) < 0 && refuseCapacity(a, n) < 0 && refusePorts(a, n) < 0
}

// verdict: only a healthy node takes new replicas. A suspect one may be gone, one
// whose agent is lost would not start them, one that is back is being compared.

var verdictWords = []struct {
	verdict api.Verdict
	words   string
}{
	{api.VerdictUnknown, "not heard of yet"},
	{api.VerdictAgentLost, "agent lost"},
	{api.VerdictSuspect, "suspect"},
	{api.VerdictDead, "dead"},
	{api.VerdictBack, "coming back"},
}

func refuseVerdict(_ *ask, n *node) int {
	if n.verdict == api.VerdictHealthy {
		return -1
	}
	for i, w := range verdictWords {
		if n.verdict == w.verdict {
			return i
		}
	}
	return 0 // a verdict not known here, or none yet
}

func manyVerdict(_ *ask, t tally) string          { return verdictWords[t.item].words }
func oneVerdict(_ *ask, _ *node, item int) string { return verdictWords[item].words }
func manyUnschedulable(*ask, tally) string        { return "unschedulable" }
func oneUnschedulable(*ask, *node, int) string    { return "unschedulable" }
func refuseUnschedulable(_ *ask, n *node) int     { return refusedIf(n.unschedulable) }
func refuseAvoid(a *ask, n *node) int             { return refusedIf(slices.Contains(a.avoid, n)) }
func manyAvoid(_ *ask, t tally) string            { return "avoided" }
func oneAvoid(*ask, *node, int) string            { return "avoided" }

// impaired: a node that beats but cannot work would take replicas and never start
// them. damped: one that comes and goes would take them along when it goes next.

func refuseImpaired(_ *ask, n *node) int        { return refusedIf(n.impaired != "") }
func oneImpaired(_ *ask, n *node, _ int) string { return "is impaired: " + n.impaired }
func refuseDamped(_ *ask, n *node) int          { return refusedIf(n.damped) }
func manyDamped(*ask, tally) string             { return "damped" }
func oneDamped(*ask, *node, int) string         { return "is damped: it went and came back too often" }

// manyImpaired names one of the nodes, so that the refusal says where to look.
func manyImpaired(_ *ask, t tally) string {
	if t.nodes == 1 {
		return fmt.Sprintf("impaired (%s: %s)", t.first.name, t.first.impaired)
	}
	return fmt.Sprintf("impaired (among them %s: %s)", t.first.name, t.first.impaired)
}

func refusedIf(refused bool) int {
	if refused {
		return 0
	}
	return -1
}

// selector: the node has all these labels.

func refuseSelector(a *ask, n *node) int {
	for i, l := range a.shape.selector {
		if v, ok := n.labels[l.key]; !ok || v != l.value {
			return i
		}
	}
	return -1
}

func manySelector(a *ask, t tally) string {
	l := a.shape.selector[t.item]
	return verb(t.nodes, "lack") + " label " + l.key + "=" + l.value
}

func oneSelector(a *ask, n *node, item int) string {
	l := a.shape.selector[item]
	return "lacks label " + l.key + "=" + l.value + hasLabel(n, l.key)
}

// constraints: the node meets all of them. As in Kubernetes NotIn is met by a
// node without the label.

func refuseConstraints(a *ask, n *node) int {
	for i := range a.shape.constraints {
		if !meets(n, &a.shape.constraints[i]) {
			return i
		}
	}
	return -1
}

func meets(n *node, c *api.Constraint) bool {
	v, ok := n.labels[c.Key]
	switch c.Operator {
	case api.OpIn:
		return ok && slices.Contains(c.Values, v)
	case api.OpNotIn:
		return !ok || !slices.Contains(c.Values, v)
	case api.OpExists:
		return ok
	case api.OpDoesNotExist:
		return !ok
	}
	return false // better pending than where it must not be
}

func manyConstraints(a *ask, t tally) string {
	return verb(t.nodes, "fail") + " " + constraintText(a.shape.constraints[t.item])
}

func oneConstraints(a *ask, n *node, item int) string {
	c := a.shape.constraints[item]
	return "fails " + constraintText(c) + hasLabel(n, c.Key)
}

// constraintText gives "zone In [a b]" or "gpu Exists".
func constraintText(c api.Constraint) string {
	text := c.Key + " " + string(c.Operator)
	if len(c.Values) > 0 {
		text += " [" + strings.Join(c.Values, " ") + "]"
	}
	return text
}

func hasLabel(n *node, key string) string {
	if v, ok := n.labels[key]; ok {
		return " (has " + key + "=" + v + ")"
	}
	return ""
}

// network: the replica can have an address there, unless it needs none.

// The causes.
const (
	networkNone = iota // the node has no subnet
	networkFull        // all addresses of its subnet are taken
)

func refuseNetwork(a *ask, n *node) int {
	switch {
	case a.shape.hostNetwork:
	case n.noNetwork != "":
		return networkNone
	case n.addresses > 0 && n.addressed >= n.addresses:
		return networkFull
	}
	return -1
}

// manyNetwork names one of the nodes, for the causes may differ.
func manyNetwork(_ *ask, t tally) string {
	if t.item == networkFull {
		return fmt.Sprintf("%s no address left (on %s all %d are taken)", verb(t.nodes, "have"), t.first.name, t.first.addresses)
	}
	return fmt.Sprintf("%s no subnet (%s: %s)", verb(t.nodes, "have"), t.first.name, t.first.noNetwork)
}

func oneNetwork(_ *ask, n *node, item int) string {
	if item == networkFull {
		return fmt.Sprintf("has no address left: all %d are taken", n.addresses)
	}
	return "has no subnet: " + n.noNetwork
}

// capacity: what is requested there and what this replica requests fit together,
// for each resource.

func refuseCapacity(a *ask, n *node) int {
	for i := range a.needs {
		if a.needs[i].amount > n.free(a.needs[i].id) {
			return i
		}
	}
	return -1
}

func manyCapacity(a *ask, t tally) string {
	r := a.needs[t.item].request
	most := "none free"
	if t.most > 0 {
		most = "largest free: " + amountText(r.name, t.most) + " on " + t.mostOn
	}
	return fmt.Sprintf("%s %s %s (%s)", verb(t.nodes, "lack"), api.Quantity(r.amount), r.name, most)
}

func oneCapacity(a *ask, n *node, item int) string {
	r := a.needs[item]
	free := "none"
	if x := n.free(r.id); x > 0 {
		free = amountText(r.name, x)
	}
	return fmt.Sprintf("lacks %s %s (%s free of %s)", api.Quantity(r.amount), r.name, free, amountText(r.name, at(n.capacity, r.id)))
}

// amountText rounds memory down to whole Mi or Ki: what is free is rarely round,
// and nobody reads ten digits of bytes.
func amountText(name string, amount int64) string {
	if name == api.Memory {
		for _, unit := range []int64{1000 << 20, 1000 << 10, 1000} {
			if amount >= unit {
				amount -= amount % unit
				break
			}
		}
	}
	return api.Quantity(amount).String()
}

// ports: no other replica there has published the same port.

func refusePorts(a *ask, n *node) int {
	for i, p := range a.shape.ports {
		if n.ports[p] > 0 {
			return i
		}
	}
	return -1
}

func manyPorts(a *ask, t tally) string {
	return fmt.Sprintf("%s port %s taken", verb(t.nodes, "have"), a.shape.ports[t.item])
}

func onePorts(a *ask, n *node, item int) string {
	p := a.shape.ports[item]
	return fmt.Sprintf("has port %s taken by %s", p, holderOf(n, p))
}

// holderOf names the replica that has a port of the node.
func holderOf(n *node, p hostPort) string {
	var holder *binding
	for _, b := range n.bound {
		if slices.Contains(b.shape.ports, p) && (holder == nil || compareKeys(b.key, holder.key) < 0) {
			holder = b
		}
	}
	return holder.key.Namespace + "/" + holder.key.Name()
}

// verb gives the form for one node or several.
func verb(nodes int, plural string) string {
	switch {
	case nodes != 1:
		return plural
	case plural == "have":
		return "has"
	}
	return plural + "s"
}
