package scheduler_test

import (
	"reflect"
	"testing"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/scheduler"
)

// TestRemedies: what is told to do makes the node fit, all of it and nothing less.
func TestRemedies(t *testing.T) {
	want := shape(requests("cpu", "1"), requests("memory", "2Gi"), publishes(80, api.TCP), selects("disk", "ssd"))
	ssd := labelled("disk", "ssd")
	for name, c := range map[string]struct {
		node   scheduler.Node
		bound  *scheduler.Shape
		remedy string
	}{
		"cordoned":               {node("n1", ssd, unschedulable()), nil, "uncordon n1"},
		"label":                  {node("n1"), nil, "give n1 the label disk=ssd"},
		"two":                    {node("n1", unschedulable()), nil, "uncordon n1 and give n1 the label disk=ssd"},
		"port":                   {node("n1", ssd), shape(publishes(80, api.TCP)), "free port 80/TCP on n1 (default/other-0 has it)"},
		"memory":                 {node("n1", ssd), shape(requests("memory", "7Gi")), "request at most 1Gi memory, or free 1Gi memory on n1"},
		"no memory":              {node("n1", ssd), shape(requests("memory", "8Gi")), "free 2Gi memory on n1"},
		"too small for ever":     {node("n1", ssd, has("memory", "1Gi")), nil, "request at most 1Gi memory, which fits on n1"},
		"memory and cpu":         {node("n1", ssd), shape(requests("memory", "7Gi"), requests("cpu", "3500m")), "request at most 500m cpu and 1Gi memory, or free 500m cpu and 1Gi memory on n1"},
		"only time helps":        {node("n1", ssd, verdict(api.VerdictSuspect)), nil, ""},
		"it helps no more alone": {node("n1", verdict(api.VerdictSuspect), unschedulable()), nil, ""},
		"fit":                    {node("n1", ssd), nil, ""},
	} {
		f := fleet(c.node)
		if c.bound != nil {
			f.Bind(key("other", 0), "n1", c.bound)
		}
		if got := scheduler.Explain(f, want, api.Key{Namespace: "default", Name: "web"})[0]; got.Remedy != c.remedy {
			t.Errorf("%s: %q, want %q (%s)", name, got.Remedy, c.remedy, got.Reason)
		}
	}
}

// TestExplainMove: a replica does not stand in its own way, and nothing is moved.
func TestExplainMove(t *testing.T) {
	f := fleet(node("n1"), node("n2"))
	s := shape(requests("memory", "6Gi"), publishes(80, api.TCP))
	web := key("web", 0)
	f.Bind(web, "n1", s)
	before := scheduler.Explain(f, s, web.ServiceKey())
	if before[0].Fit {
		t.Fatalf("one more fits: %+v", before[0])
	}
	got := scheduler.ExplainMove(f, s, web)
	want := []scheduler.NodeExplanation{
		{Node: "n1", Fit: true, Score: 1000, Why: "0 of web here, load 0.0%"},
		{Node: "n2", Fit: true, Score: 1000, Why: "0 of web here, load 0.0%"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
	if after := scheduler.Explain(f, s, web.ServiceKey()); !reflect.DeepEqual(before, after) {
		t.Errorf("it is elsewhere: %+v", after)
	}
	if got := scheduler.ExplainMove(f, s, key("web", 1)); !reflect.DeepEqual(got, before) {
		t.Errorf("of one that is nowhere: %+v", got)
	}
}
