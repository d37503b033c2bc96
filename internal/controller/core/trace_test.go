package core

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
)

// applyTraced is apply with a trace; it may be empty.
func (f *fleet) applyTraced(trace string, s *api.Service) {
	f.t.Helper()
	f.ticket++
	f.step(Apply{Ticket: f.ticket, Services: []*api.Service{s}, By: "tester", Trace: trace})
	f.turn()
	if err := f.replies[f.ticket].Err; err != nil {
		f.t.Fatal(err)
	}
}

// traces gives the traces of what was assigned since it was last asked, by slot, each with
// how many assignments have it; those without are not counted.
func (f *fleet) traces() string {
	var out []string
	for _, e := range f.sets {
		for _, a := range e.Set.Put {
			if a.Trace != "" && !a.Stopping {
				out = append(out, fmt.Sprintf("%s %s", a.Key.Name(), a.Trace))
			}
		}
	}
	f.sets = nil
	slices.Sort(out)
	return strings.Join(slices.Compact(out), ", ")
}

// TestTraceGoesWithItsChange: what a change places has its trace, once for each slot; what
// comes for other reasons has none.
func TestTraceGoesWithItsChange(t *testing.T) {
	f := newFleet(t)
	for i := range 4 {
		f.node(fmt.Sprintf("n%d", i+1), fmt.Sprintf("boot-%d", i+1))
	}
	want := func(what, want string) {
		t.Helper()
		if got := f.traces(); got != want {
			t.Errorf("%s: got %q, want %q", what, got, want)
		}
	}
	f.applyTraced("A", web(2, "web:1"))
	f.pass(time.Second)
	want("created", "web-0 A, web-1 A")

	f.applyTraced("B", web(3, "web:1"))
	f.pass(time.Second)
	want("scaled", "web-2 B")

	f.node(f.home("web", 0), "another boot")
	f.pass(5 * time.Second)
	f.mustReady("web", 3)
	want("a node has rebooted", "")

	f.applyTraced("C", web(3, "web:2"))
	f.pass(10 * time.Second)
	f.mustReady("web", 3)
	want("rolled out", "web-0 C, web-1 C, web-2 C")

	home := f.home("web", 2)
	f.node(home, "yet another boot")
	f.pass(5 * time.Second)
	want("rebooted after the rollout", "")

	// A session that begins again hears of it still, for a while; the next change ends it.
	f.applyTraced("D", web(4, "web:2"))
	f.pass(time.Second)
	want("scaled again", "web-3 D")
	f.node(f.home("web", 3), f.agents[f.home("web", 3)].boot)
	want("its agent dials again", "web-3 D")
	f.applyTraced("", web(5, "web:2"))
	f.pass(time.Second)
	want("a change without", "")

	// Nobody has room: after ten minutes it is an old story.
	big := web(1, "big:1")
	big.Metadata.Name = "big"
	big.Spec.Template.Containers[0].Resources.Requests = api.ResourceList{api.CPU: api.Whole(3)}
	big.Spec.Template.NodeSelector = map[string]string{"size": "large"}
	f.applyTraced("E", big)
	f.pass(traceFor + time.Minute)
	if s := f.core.services[api.Key{Namespace: "default", Name: "big"}]; s.traced.text != "E" || len(s.fillings) > 0 {
		t.Fatalf("it was placed: %+v", s.traced)
	}
	if got := f.core.traceOf(f.core.services[api.Key{Namespace: "default", Name: "big"}], &filling{revision: 1}); got != "" {
		t.Errorf("placed after %s it has the trace %q", traceFor, got)
	}

	// It is not kept: another leader knows of none.
	f.elect()
	f.node("n1", f.agents["n1"].boot)
	want("another leader", "")
}

// TestTraceDecidesNothing: whether a change is traced changes no effect but the text in
// assignments.
func TestTraceDecidesNothing(t *testing.T) {
	story := func(trace string) (string, map[string][]byte) {
		f := newFleet(t)
		for i := range 3 {
			f.node(fmt.Sprintf("n%d", i+1), fmt.Sprintf("boot-%d", i+1))
		}
		f.applyTraced(trace, web(3, "web:1"))
		f.pass(time.Second)
		f.applyTraced(trace, web(5, "web:2"))
		f.pass(3 * time.Second)
		f.agents["n2"].silent = true
		f.pass(20 * time.Second)
		f.node("n2", "boot-2")
		f.pass(5 * time.Second)
		f.ticket++
		f.step(Rollout{Ticket: f.ticket, Key: api.Key{Namespace: "default", Name: "web"}, Word: "restart", Trace: trace})
		f.pass(10 * time.Second)
		f.ticket++
		f.step(Scale{Ticket: f.ticket, Key: api.Key{Namespace: "default", Name: "web"}, Replicas: 2, Current: -1, Trace: trace})
		f.pass(5 * time.Second)
		var b strings.Builder
		traced := 0
		for _, e := range f.sets {
			for i := range e.Set.Put {
				if e.Set.Put[i].Trace != "" {
					traced++
					e.Set.Put[i].Trace = ""
				}
			}
			fmt.Fprintf(&b, "%s %d", e.Node, e.Session)
			for _, a := range e.Set.Put {
				fmt.Fprintf(&b, " %s r%d stopping %v spare %v", a.Key, a.Revision, a.Stopping, a.Spare)
			}
			fmt.Fprintf(&b, " drop %v seq %d\n", e.Set.Drop, e.Set.Sequence)
		}
		if (traced > 0) != (trace != "") {
			t.Errorf("%d assignments are traced, of %q", traced, trace)
		}
		b.WriteString(strings.Join(f.log, "\n"))
		return b.String(), f.kv
	}
	with, kvWith := story("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	without, kvWithout := story("")
	if with != without {
		t.Errorf("with a trace\n%s\nwithout\n%s", with, without)
	}
	for k, v := range kvWith {
		if string(kvWithout[k]) != string(v) || strings.Contains(string(v), "0af7651916cd43dd8448eb211c80319c") {
			t.Errorf("%s: %s, without a trace %s", k, v, kvWithout[k])
		}
	}
	if len(kvWith) != len(kvWithout) || len(kvWith) == 0 {
		t.Errorf("%d keys, %d without", len(kvWith), len(kvWithout))
	}
}
