package scheduler

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/orchctl/orch/api"
)

// Explain asks every node, in the order of names, about one more replica of the
// service. It changes nothing in what Place would do.
func Explain(f *Fleet, s *Shape, service api.Key) []NodeExplanation {
	f.settle()
	if s == nil {
		s = &Shape{}
	}
	a := &ask{shape: s, needs: f.needs(nil, s)}
	on := f.serviceOf(service).on
	out := make([]NodeExplanation, 0, len(f.index.ring))
	for _, n := range f.index.ring {
		e := NodeExplanation{Node: n.name}
		if filter, item := refusedBy(a, n); filter >= 0 {
			e.Filter, e.Reason, e.Remedy = filters[filter].name, filters[filter].one(a, n, item), remedy(a, n)
		} else {
			e.Fit, e.Score, e.Why = true, score(on[n], n.load), why(service, on[n], n.load)
		}
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b NodeExplanation) int { return cmp.Compare(a.Node, b.Node) })
	return out
}

// ExplainMove asks every node about a replica that is bound, as if it were placed anew.
// One that is not bound is one more.
func ExplainMove(f *Fleet, s *Shape, key api.ReplicaKey) []NodeExplanation {
	b := f.bindings[key]
	if b == nil {
		return Explain(f, s, key.ServiceKey())
	}
	shape, node := b.shape, b.node.name
	f.Unbind(key)
	out := Explain(f, s, key.ServiceKey())
	f.Bind(key, node, shape)
	return out
}

// remedy says what would make a node fit. Each filter that refuses it has its own, and
// all of them are needed; "" where one of them is not an operator's to mend.
func remedy(a *ask, n *node) string {
	var all []string
	for i := range filters {
		item := filters[i].refuse(a, n)
		if item < 0 {
			continue
		}
		text := ""
		switch filters[i].name {
		case "schedulable":
			text = "uncordon " + n.name
		case "selector":
			l := a.shape.selector[item]
			text = fmt.Sprintf("give %s the label %s=%s", n.name, l.key, l.value)
		case "constraints":
			text = fmt.Sprintf("give %s labels that meet %s", n.name, constraintText(a.shape.constraints[item]))
		case "capacity":
			text = capacityRemedy(a, n)
		case "ports":
			p := a.shape.ports[item]
			text = fmt.Sprintf("free port %s on %s (%s has it)", p, n.name, holderOf(n, p))
		}
		if text == "" {
			return ""
		}
		all = append(all, text)
	}
	return strings.Join(all, " and ")
}

// capacityRemedy says what is to be requested less or freed: all that lacks.
func capacityRemedy(a *ask, n *node) string {
	var less, free []string
	for _, r := range a.needs {
		have := max(0, n.free(r.id))
		if r.amount <= have {
			continue
		}
		if have > 0 {
			less = append(less, amountText(r.name, have)+" "+r.name)
		}
		free = append(free, amountUp(r.name, r.amount-have)+" "+r.name)
		if r.amount > at(n.capacity, r.id) { // it never will
			free = nil
			if have == 0 {
				return ""
			}
			break
		}
	}
	switch {
	case len(less) > 0 && len(free) > 0:
		return fmt.Sprintf("request at most %s, or free %s on %s", strings.Join(less, " and "), strings.Join(free, " and "), n.name)
	case len(less) > 0:
		return fmt.Sprintf("request at most %s, which fits on %s", strings.Join(less, " and "), n.name)
	}
	return fmt.Sprintf("free %s on %s", strings.Join(free, " and "), n.name)
}

// amountUp rounds as amountText does, but up: so much is enough.
func amountUp(name string, amount int64) string {
	if name == api.Memory {
		for _, unit := range []int64{1000 << 20, 1000 << 10, 1000} {
			if amount >= unit {
				amount += (unit - amount%unit) % unit
				break
			}
		}
	}
	return api.Quantity(amount).String()
}
