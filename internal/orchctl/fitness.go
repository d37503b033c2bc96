package orchctl

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

const (
	// fitsShownMax is how many nodes that are fit a description lists.
	fitsShownMax = 10
	// refusersNamedMax is how many nodes are named of those that refuse for one cause.
	refusersNamedMax = 5
	// remediesShownMax is how many ways out of a refusal are told: the easiest.
	remediesShownMax = 3
)

// fitness asks how each node takes a service's next replica or, if one is named, that.
func (t *tool) fitness(ctx context.Context, client orchv1.OrchClient, namespace, service, replica string) ([]*orchv1.NodeFit, error) {
	answer, err := read(ctx, t, "explain service/"+service, viewer, func(ctx context.Context) (*orchv1.ExplainResponse, error) {
		return client.Explain(ctx, &orchv1.ExplainRequest{Namespace: namespace, Service: service, Replica: replica})
	})
	return answer.GetNodes(), err
}

// fitNodes are those that would take it, the best first.
func fitNodes(nodes []*orchv1.NodeFit) []*orchv1.NodeFit {
	fit := slices.DeleteFunc(slices.Clone(nodes), func(n *orchv1.NodeFit) bool { return !n.GetFit() })
	slices.SortStableFunc(fit, func(a, b *orchv1.NodeFit) int { return cmp.Compare(b.GetScore(), a.GetScore()) })
	return fit
}

// fits lists the nodes that would take it, and why the others refuse; here is the node
// that has it.
func (p *page) fits(title string, nodes []*orchv1.NodeFit, here string) {
	fit := fitNodes(nodes)
	var rows [][]string
	for _, n := range fit[:min(len(fit), fitsShownMax)] {
		name := n.GetNode()
		if name == here {
			name += " (here)"
		}
		rows = append(rows, []string{name, strconv.FormatInt(n.GetScore(), 10), n.GetWhy()})
	}
	title = fmt.Sprintf("%s (%d of %d)", title, len(fit), len(nodes))
	p.table(title, rows, "NODE", "SCORE", "WHY")
	p.more(len(fit)-len(rows), "")
	p.list(0, "Refused by", refusals(nodes))
}

// pending tells what keeps a replica from having a node, and what would help. A node that
// would take it shows that it is about to be placed, or waits for something else.
func (p *page) pending(nodes []*orchv1.NodeFit) {
	p.list(0, "Refused by", refusals(nodes))
	if fit := fitNodes(nodes); len(fit) > 0 {
		p.field(0, "Fit now", "%s: it is placed as soon as its turn comes", named(fit))
		return
	}
	p.list(0, "Would help", remedies(nodes))
}

// refusals say why nodes refuse, a line for each cause, the most frequent first.
func refusals(nodes []*orchv1.NodeFit) []string {
	var causes []string
	by := map[string][]*orchv1.NodeFit{}
	for _, n := range nodes {
		if n.GetFit() {
			continue
		}
		c := causeOf(n.GetWhy())
		if by[c] == nil {
			causes = append(causes, c)
		}
		by[c] = append(by[c], n)
	}
	slices.SortStableFunc(causes, func(a, b string) int { return cmp.Compare(len(by[b]), len(by[a])) })
	var out []string
	for _, c := range causes {
		if of := by[c]; len(of) == 1 {
			out = append(out, of[0].GetNode()+" "+predicate(of[0].GetWhy(), 1))
		} else {
			out = append(out, fmt.Sprintf("%d nodes %s: %s", len(of), predicate(c, len(of)), detailed(of, c)))
		}
	}
	return out
}

// causeOf leaves out what differs between nodes that refuse for the same: how much is
// free, who has the port, which label it has instead.
func causeOf(why string) string {
	for _, from := range []string{" (", ": ", " by "} {
		why, _, _ = strings.Cut(why, from)
	}
	return why
}

// predicate makes a cause the rest of a sentence about one node or several.
func predicate(why string, nodes int) string {
	verb, rest, _ := strings.Cut(why, " ")
	plural, ok := map[string]string{"lacks": "lack", "fails": "fail", "has": "have", "is": "are"}[verb]
	switch {
	case !ok && nodes == 1:
		return "is " + why
	case !ok:
		return "are " + why
	case nodes == 1:
		return why
	}
	return plural + " " + rest
}

// detailed names the first nodes that refuse for a cause, each with its own circumstances.
func detailed(of []*orchv1.NodeFit, cause string) string {
	var out []string
	for _, n := range of[:min(len(of), refusersNamedMax)] {
		own := strings.TrimPrefix(strings.TrimPrefix(strings.TrimPrefix(n.GetWhy(), cause), ": "), " ")
		switch {
		case strings.HasPrefix(own, "("):
			own = n.GetNode() + " " + own
		case own != "":
			own = fmt.Sprintf("%s (%s)", n.GetNode(), own)
		default:
			own = n.GetNode()
		}
		out = append(out, own)
	}
	text := strings.Join(out, ", ")
	if more := len(of) - len(out); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

func named(of []*orchv1.NodeFit) string {
	var out []string
	for _, n := range of[:min(len(of), refusersNamedMax)] {
		out = append(out, n.GetNode())
	}
	text := strings.Join(out, ", ")
	if more := len(of) - len(out); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// easiest orders remedies by what they cost an operator: the filters that they are for.
var easiest = []string{"schedulable", "ports", "capacity", "selector", "constraints"}

// remedies say what would help where no node is fit, the easiest first.
func remedies(nodes []*orchv1.NodeFit) []string {
	if len(nodes) == 0 {
		return []string{"join a node: `orchctl token create` prints the token to give to install.sh, or to the agent, on it"}
	}
	var able []*orchv1.NodeFit
	wait := false
	for _, n := range nodes {
		if n.GetRemedy() != "" {
			able = append(able, n)
		}
		wait = wait || n.GetFilter() == "verdict" || n.GetFilter() == "damped"
	}
	slices.SortStableFunc(able, func(a, b *orchv1.NodeFit) int {
		return cmp.Or(cmp.Compare(strings.Count(a.GetRemedy(), " and "), strings.Count(b.GetRemedy(), " and ")),
			cmp.Compare(slices.Index(easiest, a.GetFilter()), slices.Index(easiest, b.GetFilter())), cmp.Compare(freeOf(b), freeOf(a)))
	})
	var out []string
	for _, n := range able[:min(len(able), remediesShownMax)] {
		line := n.GetRemedy()
		if name, ok := strings.CutPrefix(line, "uncordon "); ok && !strings.Contains(name, " ") {
			line += fmt.Sprintf(" (`orchctl uncordon %s`)", name)
		}
		out = append(out, line)
	}
	if len(out) == 0 && wait {
		return []string{"wait for nodes to be well again (`orchctl describe node` tells why they are not), or join another"}
	}
	if len(out) == 0 {
		return []string{"join a node that is fit (`orchctl token create`), or ask for less"}
	}
	return out
}

// freeOf reads what a node that lacks something has free of it: the more, the less is
// missing.
func freeOf(n *orchv1.NodeFit) api.Quantity {
	_, rest, ok := strings.Cut(n.GetWhy(), "(")
	free, _, _ := strings.Cut(rest, " free")
	if q, err := api.ParseQuantity(free); ok && err == nil {
		return q
	}
	return 0
}
