package core

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
)

// publishing gives a service that publishes a port; mode "hostNetwork" is one that
// listens on its node's.
func publishing(name string, number int, mode string) *api.Service {
	s := named(name, 1, "a:1")
	c := &s.Spec.Containers[0]
	switch p := (api.Port{Port: number, Protocol: api.TCP}); mode {
	case "":
	case "hostNetwork":
		s.Spec.HostNetwork = true
		c.Ports = []api.Port{p}
	case "hostNetwork, published":
		s.Spec.HostNetwork = true
		p.Publish = number
		c.Ports = []api.Port{p}
	case "udp":
		c.Ports = []api.Port{{Port: 80, Protocol: api.UDP, Publish: number}}
	case "host":
		c.Ports = []api.Port{{Port: 80, Protocol: api.TCP, Publish: number, Mode: api.PublishHost}}
	case "every":
		c.Ports = []api.Port{{Port: 79, Protocol: api.TCP}, {Port: 80, Publish: number}}
	default:
		panic(mode)
	}
	return s
}

// Each row: what stands, and what is said of another service beside it.
func TestPortConflicts(t *testing.T) {
	taken := "port 8080/TCP is published by service default/web: choose another, or use mode: host for both"
	everywhere := "port 8080/TCP is published on every node by service default/web: choose another"
	used := "port 8080/TCP is used on the nodes of service default/web: choose another, or use mode: host"
	for _, c := range []struct{ stands, applied, at, want string }{
		{"every", "every", "ports[1].publish", taken},
		{"every", "host", "ports[0].publish", everywhere},
		{"every", "hostNetwork", "ports[0].port", everywhere},
		{"every", "hostNetwork, published", "ports[0].publish", taken},
		{"every", "udp", "", ""},
		{"host", "every", "ports[1].publish", used},
		{"hostNetwork", "every", "ports[1].publish", used},
		{"hostNetwork, published", "every", "ports[1].publish", taken},
		// What is on single nodes is the scheduler's.
		{"host", "host", "", ""},
		{"hostNetwork", "host", "", ""},
		{"hostNetwork", "hostNetwork", "", ""},
		{"udp", "every", "", ""},
		{"", "every", "", ""},
	} {
		t.Run(c.stands+" and "+c.applied, func(t *testing.T) {
			f := threeNodes(t)
			must := func(err error, object int) {
				t.Helper()
				var wrong api.Violations
				if c.want == "" {
					if err != nil {
						t.Errorf("refused: %v", err)
					}
					return
				}
				if !errors.As(err, &wrong) || !errors.Is(err, ErrInvalid) {
					t.Fatalf("got %v", err)
				}
				want := api.Violation{Path: fmt.Sprintf("objects[%d].spec.containers[0].%s", object, c.at), Message: c.want}
				for _, w := range wrong {
					if w == want {
						return
					}
				}
				t.Errorf("got %v, want %v", wrong, want)
			}
			web, api2 := publishing("web", 8080, c.stands), publishing("api", 8080, c.applied)
			must(f.apply("both", web, named("other", 1, "a:1"), api2).Err, 2)
			if c.want == "" {
				return
			}
			if len(f.core.services) != 0 {
				t.Fatalf("%d services are there", len(f.core.services))
			}
			f.apply("web", web)
			must(f.apply("api", api2).Err, 0)
			f.elect() // nor does another leader take it
			f.dial("n1", "n2", "n3")
			must(f.apply("api2", api2).Err, 0)
			f.ticket++
			f.step(Apply{Ticket: f.ticket, Services: []*api.Service{api2}, DryRun: true})
			f.turn()
			must(f.replies[f.ticket].Err, 0)
			web.Metadata.Labels = map[string]string{"a": "b"} // its own is no other's
			if err := f.apply("label", web).Err; err != nil {
				t.Error(err)
			}
			web = publishing("web", 8080, c.stands)
			web.Spec.Containers[0].Image = "a:2"
			if err := f.apply("image", web).Err; err != nil {
				t.Error(err)
			}
			f.delete("web")
			f.pass(5 * time.Second)
			if err := f.apply("free", api2).Err; err != nil {
				t.Errorf("it is gone and still has the port: %v", err)
			}
		})
	}
}

// A port is another's until nothing runs that has it.
func TestAPortIsFreeWhenNothingHasIt(t *testing.T) {
	f := threeNodes(t)
	f.apply("1", publishing("web", 8080, "every"))
	home := f.home("web", 0)
	refused := func(want string) {
		t.Helper()
		if err := f.apply(fmt.Sprint("try", f.ticket), publishing("api", 8080, "every")).Err; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	f.silence(home) // it cannot stop what it has
	f.apply("2", publishing("web", 9090, "every"))
	refused("port 8080/TCP is still used by service default/web, by revision 1 on " + home + ": apply again when that is gone, or choose another")
	f.delete("web")
	refused("port 8080/TCP is still used by service default/web")
	if err := f.apply("9090", publishing("api", 9090, "every")).Err; err == nil || !strings.Contains(err.Error(), "port 9090/TCP is published by service default/web, which is being deleted: apply again when it is gone") {
		t.Errorf("got %v", err)
	}
	f.word(home, "dead")
	f.pass(time.Second)
	if r := f.apply("3", publishing("api", 8080, "every"), publishing("db", 9090, "every")); r.Err != nil {
		t.Errorf("refused though nothing has it: %v", r.Err)
	}
	// Within one apply, one can give its port to another only once it runs no more.
	f.pass(time.Second)
	r := f.apply("swap", publishing("api", 9090, "every"), publishing("db", 8080, "every"))
	if r.Err == nil || !strings.Contains(r.Err.Error(), "objects[0].spec.containers[0].ports[1].publish: port 9090/TCP is still used by service default/db, by revision 1 on ") {
		t.Errorf("got %v", r.Err)
	}
	f.delete("db")
	f.pass(time.Second)
	if r := f.apply("move", publishing("api", 9090, "every")); r.Err != nil {
		t.Error(r.Err)
	}
	f.pass(time.Second)
	if r := f.apply("back", publishing("new", 8080, "every")); r.Err != nil {
		t.Errorf("a former revision keeps its port: %v", r.Err)
	}
	if n := len(f.core.claims.of); n != 2 {
		t.Errorf("%d ports are claimed: %v", n, f.core.claims.of)
	}
	f.delete("api")
	f.delete("new")
	f.pass(time.Second)
	if n := len(f.core.claims.of) + len(f.core.claims.claimed); n != 0 {
		t.Errorf("%d claims are left", n)
	}
}

// What leads to a node itself is no service's: published, it would cut it off.
func TestKeptPorts(t *testing.T) {
	f := &fleet{t: t, now: start, kv: map[string][]byte{}, commits: true, agents: map[string]*agent{}, replies: map[uint64]Reply{}, seen: map[ViewKey]any{}}
	f.conf.KeptPorts = map[api.HostPort]string{{Port: 22, Protocol: api.TCP}: "the node itself"}
	f.elect()
	for _, mode := range []string{"every", "host", "hostNetwork"} {
		err := f.apply("1"+mode, publishing("web", 22, mode)).Err
		if err == nil || !strings.Contains(err.Error(), "port 22/TCP of the nodes is kept for the node itself: choose another") {
			t.Errorf("%s: %v", mode, err)
		}
	}
	if err := f.apply("2", publishing("web", 22, "udp")).Err; err != nil {
		t.Error(err)
	}
	if err := f.apply("3", publishing("ssh", 2222, "every")).Err; err != nil {
		t.Error(err)
	}
}

// A sidecar's port is the service's as any other, and told by its own path.
func TestPortsOfSidecars(t *testing.T) {
	f := threeNodes(t)
	f.apply("1", publishing("a", 80, "every"))
	b := publishing("b", 81, "every")
	b.Spec.Sidecars = []api.Container{{Name: "proxy", Image: "p:1", Ports: []api.Port{{Port: 8080, Publish: 80}}}}
	err := f.apply("2", b).Err
	if err == nil || !strings.Contains(err.Error(), "objects[0].spec.sidecars[0].ports[0].publish: port 80/TCP is published by service default/a") {
		t.Errorf("%v", err)
	}
	b.Spec.Sidecars[0].Ports[0].Publish = 82
	if err := f.apply("3", b).Err; err != nil {
		t.Fatal(err)
	}
	err = f.apply("4", publishing("c", 82, "every")).Err
	if err == nil || !strings.Contains(err.Error(), "objects[0].spec.containers[0].ports[1].publish: port 82/TCP is published by service default/b") {
		t.Errorf("%v", err)
	}
	for _, e := range f.agents["n1"].ends {
		if e.Replica.Service == "b" && len(e.Ports) != 3 {
			t.Errorf("endpoint %s has %d ports", e.Replica, len(e.Ports))
		}
	}
}
