package lab

import (
	"context"
	"fmt"
	"slices"
)

// Cut drops all frames between a node and a peer, or everybody where peer is
// empty; with oneWay only those that the node sends. Either may be
// "controller", whose network is also the one that Dial speaks from. Nothing
// is told to the ends: established connections fall silent.
func (l *Lab) Cut(ctx context.Context, node, peer string, oneWay bool) error {
	if node == peer {
		return fmt.Errorf("cut %s off from itself: not a fault that a network has", node)
	}
	names := []string{node}
	if peer != "" {
		names = append(names, peer)
	}
	cut := Fault{Node: node, Peer: peer, OneWay: oneWay}
	return l.change(ctx, names, func(faults []Fault) []Fault {
		if slices.Contains(faults, cut) {
			return faults
		}
		return append(faults, cut)
	})
}

// Loss makes a node lose percent of the frames that it sends and as many of
// those that it would receive, in place of its earlier loss; 0 ends it.
func (l *Lab) Loss(ctx context.Context, node string, percent int) error {
	if percent < 0 || percent > 100 {
		return fmt.Errorf("lose %d %% of the frames of %s: want 0 to 100", percent, node)
	}
	return l.change(ctx, []string{node}, func(faults []Fault) []Fault {
		faults = slices.DeleteFunc(faults, func(f Fault) bool { return f.Node == node && f.Percent > 0 })
		if percent == 0 {
			return faults
		}
		return append(faults, Fault{Node: node, Percent: percent})
	})
}

// Heal ends all cuts and losses that concern the named nodes, or every one
// where none is named.
func (l *Lab) Heal(ctx context.Context, nodes ...string) error {
	return l.change(ctx, nodes, func(faults []Fault) []Fault {
		return slices.DeleteFunc(faults, func(f Fault) bool {
			return len(nodes) == 0 || slices.ContainsFunc(nodes, f.concerns)
		})
	})
}

// change puts other faults in force, and keeps them only if that works.
func (l *Lab) change(ctx context.Context, names []string, f func([]Fault) []Fault) error {
	return l.update(func(s *state) error {
		for _, name := range names {
			if name == controllerName {
				continue
			}
			if _, err := s.node(name); err != nil {
				return err
			}
		}
		s.Faults = f(s.Faults)
		return enforce(ctx, l.name, s.Faults)
	})
}
