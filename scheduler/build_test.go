package scheduler_test

import (
	"fmt"
	"testing"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/scheduler"
)

const mi, gi = int64(1) << 20, int64(1) << 30

// A nodeOption or shapeOption changes one thing of an ordinary node or template.
type (
	nodeOption  func(*scheduler.Node)
	shapeOption func(*api.Template)
)

// node is healthy and schedulable and has 4 cores, 8 Gi and zone=a.
func node(name string, opts ...nodeOption) scheduler.Node {
	n := scheduler.Node{
		Name: name, Verdict: api.VerdictHealthy, Labels: map[string]string{"zone": "a"},
		Capacity: api.ResourceList{api.CPU: api.Whole(4), api.Memory: api.Whole(8 * gi)},
	}
	for _, o := range opts {
		o(&n)
	}
	return n
}

func has(resource, amount string) nodeOption {
	return func(n *scheduler.Node) { n.Capacity[resource] = quantity(amount) }
}

func labelled(k, v string) nodeOption {
	return func(n *scheduler.Node) { n.Labels[k] = v }
}

func verdict(v api.Verdict) nodeOption { return func(n *scheduler.Node) { n.Verdict = v } }

func impaired(why string) nodeOption { return func(n *scheduler.Node) { n.Impaired = why } }

func damped(n *scheduler.Node) { n.Damped = true }

func noNetwork(why string) nodeOption { return func(n *scheduler.Node) { n.NoNetwork = why } }

func addresses(count int) nodeOption { return func(n *scheduler.Node) { n.Addresses = count } }

func unschedulable() nodeOption { return func(n *scheduler.Node) { n.Unschedulable = true } }

// shape has one container, which asks for nothing.
func shape(opts ...shapeOption) *scheduler.Shape {
	t := api.Template{Containers: []api.Container{{Name: "main", Image: "web:1"}}}
	for _, o := range opts {
		o(&t)
	}
	return scheduler.NewShape(t)
}

func requests(resource, amount string) shapeOption {
	return func(t *api.Template) {
		r := &t.Containers[0].Resources.Requests
		if *r == nil {
			*r = api.ResourceList{}
		}
		(*r)[resource] = quantity(amount)
	}
}

func publishes(port int, p api.Protocol) shapeOption {
	return func(t *api.Template) {
		c := &t.Containers[0]
		c.Ports = append(c.Ports, api.Port{Port: port, Protocol: p, Publish: port, Mode: api.PublishHost})
	}
}

func everywhere(port int) shapeOption {
	return func(t *api.Template) {
		c := &t.Containers[0]
		c.Ports = append(c.Ports, api.Port{Port: port, Publish: port})
	}
}

// listens is a port that is not published.
func listens(port int) shapeOption {
	return func(t *api.Template) {
		c := &t.Containers[0]
		c.Ports = append(c.Ports, api.Port{Port: port})
	}
}

func hostNetwork(t *api.Template) { t.HostNetwork = true }

func selects(k, v string) shapeOption {
	return func(t *api.Template) {
		if t.NodeSelector == nil {
			t.NodeSelector = map[string]string{}
		}
		t.NodeSelector[k] = v
	}
}

func where(key string, op api.Operator, values ...string) shapeOption {
	return func(t *api.Template) {
		t.Constraints = append(t.Constraints, api.Constraint{Key: key, Operator: op, Values: values})
	}
}

func quantity(s string) api.Quantity {
	q, err := api.ParseQuantity(s)
	if err != nil {
		panic(err)
	}
	return q
}

func fleet(nodes ...scheduler.Node) *scheduler.Fleet {
	f := scheduler.NewFleet()
	for _, n := range nodes {
		f.SetNode(n)
	}
	return f
}

func key(service string, slot int) api.ReplicaKey {
	return api.ReplicaKey{Namespace: "default", Service: service, Slot: slot, Epoch: uint64(slot) + 1}
}

// group asks for the slots 0 to n-1 of a service.
func group(service string, n int, s *scheduler.Shape) scheduler.Group {
	g := scheduler.Group{Service: api.Key{Namespace: "default", Name: service}, Shape: s}
	for i := range n {
		g.Slots = append(g.Slots, scheduler.Slot{Key: key(service, i)})
	}
	return g
}

// place places all or fails.
func place(t testing.TB, f *scheduler.Fleet, groups ...scheduler.Group) []scheduler.Placement {
	t.Helper()
	placed, refused := scheduler.Place(f, groups)
	for _, r := range refused {
		t.Fatalf("%s refused: %s", r.Key, r.Reason)
	}
	return placed
}

// lines prints results as users of golden scripts read them.
func lines(placed []scheduler.Placement, refused []scheduler.Refusal) []string {
	var out []string
	for _, p := range placed {
		out = append(out, fmt.Sprintf("%s -> %s (%s; %d)", p.Key.Name(), p.Node, p.Why, p.Score))
	}
	for _, r := range refused {
		out = append(out, fmt.Sprintf("%s pending: %s", r.Key.Name(), r.Reason))
	}
	return out
}

func equal[T comparable](t testing.TB, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s:\n got %v\nwant %v", what, got, want)
	}
}
