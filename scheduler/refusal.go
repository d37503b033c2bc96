package scheduler

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/orchctl/orch/api"
)

// Refusal says why a replica has no node. Replicas of a group may share Counts:
// read only.
type Refusal struct {
	Key api.ReplicaKey
	// Reason: "5 nodes: 3 lack 512Mi memory (largest free: 300Mi on n2), 2 unschedulable";
	// of a slot with Slot.On "n3: lacks 512Mi memory (300Mi free of 8Gi)".
	Reason string
	// Counts add up to all nodes that were asked, the largest first; each node
	// counts for the first filter that refuses it.
	Counts []Count
}

// Count is how many nodes a filter refused for one cause.
type Count struct {
	Filter string
	Nodes  int
	// Detail is the cause without the number: "lack 512Mi memory (none free)".
	Detail string
}

// NodeExplanation is what one node has to say to one more replica of a service.
type NodeExplanation struct {
	Node string
	Fit  bool
	// Filter and Reason are who refuses and why; empty if the node is fit.
	Filter string
	Reason string
	// Remedy is what would make it fit, as far as an operator can: "uncordon n2 and free
	// port 80 there (default/web-0 has it)"; empty if it is fit, or only time helps.
	Remedy string
	// Score is by what fit nodes are compared, more is better; Why words it.
	Score int64
	Why   string
}

// refusal counts who refuses; it is called only when all nodes do.
func (f *Fleet) refusal(a *ask) *Refusal {
	var tallies []tally
	for _, n := range f.index.ring {
		filter, item := refusedBy(a, n)
		i := slices.IndexFunc(tallies, func(t tally) bool { return t.filter == filter && t.item == item })
		if i < 0 {
			i = len(tallies)
			tallies = append(tallies, tally{filter: filter, item: item})
		}
		t := &tallies[i]
		t.nodes++
		if t.first == nil || n.name < t.first.name {
			t.first = n
		}
		if filters[filter].name == "capacity" {
			if free := n.free(a.needs[item].id); t.mostOn == "" || free > t.most || free == t.most && n.name < t.mostOn {
				t.most, t.mostOn = free, n.name
			}
		}
	}
	slices.SortFunc(tallies, func(x, y tally) int {
		return cmp.Or(cmp.Compare(y.nodes, x.nodes), cmp.Compare(x.filter, y.filter), cmp.Compare(x.item, y.item))
	})
	r := &Refusal{Reason: "no nodes"}
	var parts []string
	for _, t := range tallies {
		c := Count{filters[t.filter].name, t.nodes, filters[t.filter].many(a, t)}
		r.Counts = append(r.Counts, c)
		parts = append(parts, fmt.Sprintf("%d %s", c.Nodes, c.Detail))
	}
	switch n := len(f.index.ring); n {
	case 0:
	case 1:
		r.Reason = "1 node: " + parts[0]
	default:
		r.Reason = fmt.Sprintf("%d nodes: %s", n, strings.Join(parts, ", "))
	}
	return r
}

// refusedBy gives the first filter that refuses the node and its cause, or -1.
func refusedBy(a *ask, n *node) (filter, item int) {
	for i := range filters {
		if item := filters[i].refuse(a, n); item >= 0 {
			return i, item
		}
	}
	return -1, -1
}

// Fits tells whether any node would take one more replica of the shape. It asks
// only nodes that take replicas at all and meet its rule, and no more than it needs.
func Fits(f *Fleet, s *Shape) bool {
	f.settle()
	if s == nil {
		s = &Shape{}
	}
	a := &ask{shape: s, needs: f.needs(nil, s)}
	may := f.index.meeting(s)
	for pos := f.index.open.next(0); pos >= 0; pos = f.index.open.next(pos + 1) {
		if (may == nil || may.has(pos)) && fits(a, f.index.ring[pos]) {
			return true
		}
	}
	return false
}

// Unmet says which label or constraint of the shape a node does not meet, as "lacks
// label disk=ssd"; empty: it meets all of them, or is not known.
func Unmet(f *Fleet, s *Shape, node string) string {
	n := f.nodes[node]
	if n == nil || !n.known || s == nil {
		return ""
	}
	a := ask{shape: s}
	if item := refuseSelector(&a, n); item >= 0 {
		return oneSelector(&a, n, item)
	}
	if item := refuseConstraints(&a, n); item >= 0 {
		return oneConstraints(&a, n, item)
	}
	return ""
}
