package core

import (
	"strings"
	"testing"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/scheduler"
)

func (f *fleet) explain(key api.ReplicaKey) []scheduler.NodeExplanation {
	f.t.Helper()
	f.ticket++
	f.step(Explain{Ticket: f.ticket, Key: key.ServiceKey(), Replica: &key})
	f.turn()
	if err := f.replies[f.ticket].Err; err != nil {
		f.t.Fatal(err)
	}
	return f.replies[f.ticket].Value.([]scheduler.NodeExplanation)
}

// TestPlacementsSayWhy: a placement keeps by what its node was chosen, over elections.
func TestPlacementsSayWhy(t *testing.T) {
	f := threeNodes(t)
	f.mustAll(nil, web(2, "a:1"))
	f.mustReady("web", 2)
	for range 2 {
		for slot := range 2 {
			key := f.key("web", slot)
			r := f.replica("web", slot, f.core.fillings[key].node)
			if !strings.HasPrefix(r.Spec.Chosen, "0 of web here, load ") || len(r.Spec.Chosen) > chosenMax || r.Spec.Why == "" {
				t.Errorf("%s on %s: %q, %q", r.Metadata.Name, r.Spec.Node, r.Spec.Why, r.Spec.Chosen)
			}
			nodes := f.explain(key)
			for _, n := range nodes {
				if n.Node == r.Spec.Node && (!n.Fit || !strings.HasPrefix(n.Why, "0 of web")) {
					t.Errorf("%s stands in its own way: %+v", key, n)
				}
			}
			if len(nodes) != 3 {
				t.Errorf("%d nodes", len(nodes))
			}
		}
		f.elect()
		f.dial("n1", "n2", "n3")
	}
}

// TestExplainPending tells of one that has no node what would help.
func TestExplainPending(t *testing.T) {
	f := threeNodes(t)
	f.step(NodeWord{Ticket: 99, Node: "n2", Word: "cordon", By: "tester"})
	f.turn()
	x := web(1, "a:1")
	x.Spec.Template.NodeSelector = map[string]string{"disk": "ssd"}
	f.mustAll(nil, x)
	nodes := f.explain(api.ReplicaKey{Namespace: "default", Service: "web"})
	for _, n := range nodes {
		want := "give " + n.Node + " the label disk=ssd"
		if n.Node == "n2" {
			want = "uncordon n2 and " + want
		}
		if n.Fit || n.Remedy != want {
			t.Errorf("%+v, want %q", n, want)
		}
	}
}
