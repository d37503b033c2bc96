package e2e

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/e2e/load"
)

const (
	// trafficReplicas of the service that is tried, on four nodes.
	trafficReplicas = 6
	spreadRequests  = 3000
	// spreadMax is the value of chi-square with five degrees of freedom that fair
	// chance exceeds once in 100,000 runs.
	spreadMax = 30.86
)

// traffic: a virtual IP and published ports lead to all replicas alike, from
// everywhere, over TCP and UDP, and also a replica to itself.
func (n *netFleet) traffic(t *testing.T) {
	n.apply(t, "web", service("web", trafficReplicas, "", netPortsAt(18200)))
	vip := n.vip(t, "web")
	url := "http://" + vip + ":8080/whoami"
	for _, node := range n.nodes {
		n.comesToAll(t, node, url, trafficReplicas)
	}

	t.Run("spread", func(t *testing.T) {
		r := all(t, "through the virtual IP", n.in(t, n.clients["n1"], load.Job{Kind: load.HTTP, Targets: []string{url}, Count: spreadRequests, Workers: 8, Fresh: true}))
		want, chi := float64(spreadRequests)/trafficReplicas, 0.0
		for _, got := range r.By {
			chi += (float64(got) - want) * (float64(got) - want) / want
		}
		t.Logf("%d requests to %v: chi-square %.2f; %s", r.Requests, r.By, chi, r)
		if len(r.By) != trafficReplicas || chi > spreadMax {
			t.Errorf("%d requests went to %v: chi-square %.1f, want at most %.1f", r.Requests, r.By, chi, spreadMax)
		}
	})
	t.Run("everywhere", func(t *testing.T) {
		for _, node := range n.nodes {
			r := all(t, "a replica on "+node, n.in(t, n.clients[node], load.Job{Kind: load.HTTP, Targets: []string{url}, Count: 100, Fresh: true}))
			if len(r.By) != trafficReplicas || host(r.Seen) != n.clients[node].Status.IP {
				t.Errorf("from a replica on %s: %v, seen as %s, want %s", node, r.By, r.Seen, n.clients[node].Status.IP)
			}
			r = all(t, "the node "+node, n.outside(t, node, load.Job{Kind: load.HTTP, Targets: []string{url}, Count: 100, Fresh: true}))
			if len(r.By) != trafficReplicas {
				t.Errorf("from the node %s: %v", node, r.By)
			}
		}
	})
	t.Run("published", func(t *testing.T) {
		for _, node := range n.nodes {
			addr := n.address(t, node)
			from := map[string]string{"": addr, node: addr, "n1": addr, "n1 ": "127.0.0.1"}
			if node != "n1" {
				delete(from, "n1 ")
			}
			for place, to := range from {
				r := all(t, fmt.Sprintf("from %q to %s:18200", place, to),
					n.outside(t, strings.TrimSpace(place), load.Job{Kind: load.HTTP, Targets: []string{"http://" + to + ":18200/whoami"}, Count: 100, Fresh: true}))
				if len(r.By) != trafficReplicas {
					t.Errorf("from %q to %s: only %v answered", place, to, r.By)
				}
			}
			r := all(t, "from a replica to "+node, n.in(t, n.clients["n2"], load.Job{Kind: load.HTTP, Targets: []string{"http://" + addr + ":18200/whoami"}, Count: 100, Fresh: true}))
			if len(r.By) != trafficReplicas {
				t.Errorf("from a replica to %s: only %v answered", node, r.By)
			}
		}
	})
	t.Run("source", func(t *testing.T) {
		kept, other := 0, 0
		gateway := n.gateway(t, "n1")
		for range 60 {
			w, err := n.who(t, "http://"+n.address(t, "n1")+":18200/whoami")
			must(t, err)
			// docs/networking.md: a client from outside is seen as itself by replicas
			// on the node that it asked, and as that node by others.
			want := []string{n.address(t, "n1"), gateway} // as which it goes out, directly or wrapped
			if w.Node == "n1" {
				want = []string{"10.200.0.1"}
				kept++
			} else {
				other++
			}
			if !slices.Contains(want, host(w.Client)) {
				t.Fatalf("%s on %s saw the client as %s, want one of %s", w.Replica, w.Node, w.Client, want)
			}
		}
		if kept == 0 || other == 0 {
			t.Errorf("of 60 requests %d stayed on the node and %d left it: nothing is shown", kept, other)
		}
	})
	t.Run("hairpin", func(t *testing.T) {
		for _, r := range n.replicas(t, "web")[:2] {
			got := all(t, r.Metadata.Name+" to its own service", n.in(t, r, load.Job{Kind: load.HTTP, Targets: []string{url}, Count: 100, Fresh: true}))
			self := got.By[fmt.Sprintf("web-%d", r.Spec.Slot)]
			if self == 0 || len(got.By) != trafficReplicas {
				t.Errorf("%s reached itself %d times, and %v", r.Metadata.Name, self, got.By)
			}
		}
	})
	t.Run("udp", func(t *testing.T) {
		for what, ask := range map[string]func() load.Report{
			"virtual IP from a replica": func() load.Report {
				return n.in(t, n.clients["n1"], load.Job{Kind: load.UDP, Targets: []string{vip + ":7000"}, Count: 200})
			},
			"virtual IP from a node": func() load.Report {
				return n.outside(t, "n2", load.Job{Kind: load.UDP, Targets: []string{vip + ":7000"}, Count: 200})
			},
			"published port from outside": func() load.Report {
				return n.outside(t, "", load.Job{Kind: load.UDP, Targets: []string{n.address(t, "n1") + ":18201", n.address(t, "n3") + ":18201"}, Count: 200})
			},
		} {
			if r := all(t, what, ask()); len(r.By) != trafficReplicas {
				t.Errorf("%s: only %v answered", what, r.By)
			}
		}
	})
	t.Run("tcp", func(t *testing.T) {
		r := all(t, "1 MiB through the virtual IP", n.in(t, n.clients["n3"], load.Job{Kind: load.TCP, Targets: []string{vip + ":7000"}, Count: 30, Size: 1 << 20}))
		if len(r.By) < 2 {
			t.Errorf("only %v answered", r.By)
		}
		all(t, "1 MiB through a published port", n.outside(t, "", load.Job{Kind: load.TCP, Targets: []string{n.address(t, "n2") + ":18201"}, Count: 30, Size: 1 << 20}))
	})
	t.Run("seen", func(t *testing.T) {
		for _, args := range [][]string{{"get", "endpoints", "web"}, {"describe", "service", "web"}} {
			out, errs, code := n.Orchctl(t.Context(), args...)
			if code != 0 {
				t.Fatalf("orchctl %s: exit %d: %s", strings.Join(args, " "), code, errs)
			}
			for _, r := range n.replicas(t, "web") {
				if !strings.Contains(out, r.Status.IP) || !strings.Contains(out, r.Spec.Node) {
					t.Errorf("orchctl %s does not show %s at %s on %s:\n%s", strings.Join(args, " "), r.Metadata.Name, r.Status.IP, r.Spec.Node, out)
				}
			}
			if args[0] == "describe" && (!strings.Contains(out, vip) || !strings.Contains(out, "18200")) {
				t.Errorf("describe service shows neither %s nor where it is published:\n%s", vip, out)
			}
		}
	})
	t.Run("refused", func(t *testing.T) {
		range10 := vip[:strings.LastIndex(vip, ".")] + ".251" // nobody's yet
		for _, target := range []string{vip + ":81", range10 + ":80"} {
			r := n.in(t, n.clients["n1"], load.Job{Kind: load.TCP, Targets: []string{target}, Count: 3})
			if r.Failed != 3 || r.Failures[0].Kind != "refused" || r.Ended.Sub(r.Began) > time.Second {
				t.Errorf("%s: %s, want refused at once", target, r)
			}
		}
		must(t, n.Must(t.Context(), "scale", "service/web", "--replicas", "0"))
		soon(t, "a service without endpoints to refuse at once", func() error {
			r := n.in(t, n.clients["n1"], load.Job{Kind: load.TCP, Targets: []string{vip + ":8080"}, Count: 1})
			if r.Failed != 1 || r.Failures[0].Kind != "refused" {
				return errors.New(r.String())
			}
			return nil
		})
	})
}

// services: what a manifest may ask for beside the usual.
func (n *netFleet) services(t *testing.T) {
	t.Run("affinity", func(t *testing.T) {
		n.apply(t, "sticky", service("sticky", 3, "  sessionAffinity: clientIP", netPortsAt(18300)))
		url := "http://" + n.vip(t, "sticky") + ":8080/whoami"
		chosen := map[string]string{}
		for _, node := range n.nodes {
			for range 2 { // the second time must find the first's choice
				r := all(t, "from "+node, n.in(t, n.clients[node], load.Job{Kind: load.HTTP, Targets: []string{url}, Count: 40, Fresh: true}))
				for by := range r.By {
					if chosen[node] != "" && by != chosen[node] {
						t.Errorf("client on %s came to %s and to %s", node, chosen[node], by)
					}
					chosen[node] = by
				}
			}
		}
		r := all(t, "a published port", n.outside(t, "", load.Job{Kind: load.HTTP, Targets: []string{"http://" + n.address(t, "n1") + ":18300/whoami"}, Count: 40, Fresh: true}))
		if len(r.By) != 1 {
			t.Errorf("one client outside came to %v", r.By)
		}
		t.Logf("clients came to %v", chosen)
		// A replica that goes is replaced for the clients that it had.
		must(t, n.Must(t.Context(), "scale", "service/sticky", "--replicas", "1"))
		must(t, n.WaitReady(t.Context(), "sticky", 1, 30*time.Second))
		for _, node := range n.nodes {
			n.comesTo(t, node, url, "sticky-0")
		}
	})
	t.Run("same-node", func(t *testing.T) {
		n.apply(t, "near", service("near", netNodes, "  trafficDistribution: preferSameNode", `      args: [-quiet]
      ports: [{name: http, port: 8080}, {name: spread, port: 8081, publish: 18310, mode: host}]
      readinessProbe: {http: {path: /healthz, port: http}}`))
		url := "http://" + n.vip(t, "near") + ":8080/whoami"
		for node, r := range n.on(t, "near") {
			n.comesTo(t, node, url, r.Metadata.Name)
		}
		must(t, n.Must(t.Context(), "scale", "service/near", "--replicas", "1"))
		must(t, n.WaitReady(t.Context(), "near", 1, 30*time.Second))
		for _, node := range n.nodes {
			all(t, "from "+node+" without one near", n.in(t, n.clients[node], load.Job{Kind: load.HTTP, Targets: []string{url}, Count: 20, Fresh: true}))
		}
	})
	t.Run("host-mode", func(t *testing.T) {
		n.apply(t, "own", service("own", 2, "", hostPort(18320)))
		on := n.on(t, "own")
		for _, node := range n.nodes {
			r, local := on[node]
			got := n.outside(t, "", load.Job{Kind: load.HTTP, Targets: []string{"http://" + n.address(t, node) + ":18320/whoami"}, Count: 10, Fresh: true})
			switch {
			case local && got.By[fmt.Sprintf("own-%d", r.Spec.Slot)] != 10:
				t.Errorf("%s runs %s, but: %s, %v", node, r.Metadata.Name, got, got.By)
			case local && host(got.Seen) != "10.200.0.1":
				t.Errorf("%s saw the client as %s", r.Metadata.Name, got.Seen)
			case !local && got.Failed != 10:
				t.Errorf("%s runs none, but: %v answered", node, got.By)
			}
		}
	})
	t.Run("host-network", func(t *testing.T) {
		n.apply(t, "bare", service("bare", 2, "  hostNetwork: true", `      args: [-port, "18330", -quiet]
      ports: [{name: http, port: 18330}]
      readinessProbe: {http: {path: /healthz, port: http}}`))
		for node, r := range n.on(t, "bare") {
			if want := n.address(t, node); r.Status.IP != want {
				t.Errorf("%s has the address %s, want its node's, %s", r.Metadata.Name, r.Status.IP, want)
			}
			all(t, "a node's own port", n.outside(t, "", load.Job{Kind: load.HTTP, Targets: []string{"http://" + n.address(t, node) + ":18330/whoami"}, Count: 10, Fresh: true}))
		}
		for _, node := range n.nodes {
			n.comesToAll(t, node, "http://"+n.vip(t, "bare")+":18330/whoami", 2)
			all(t, "through the virtual IP from the node", n.outside(t, node, load.Job{Kind: load.HTTP, Targets: []string{"http://" + n.vip(t, "bare") + ":18330/whoami"}, Count: 60, Fresh: true}))
		}
	})
	t.Run("conflict", func(t *testing.T) {
		n.apply(t, "first", service("first", 1, "", netPortsAt(18340)))
		_, errs, code := n.OrchctlIn(t.Context(), strings.NewReader(service("second", 1, "", netPortsAt(18340))), "apply", "-f", "-", "--wait=false")
		if code == 0 || !strings.Contains(errs, "18340") || !strings.Contains(errs, "first") {
			t.Errorf("two services publish one port: exit %d: %s", code, errs)
			n.delete(t, "second")
		}
		n.delete(t, "first") // the port is free again
		n.apply(t, "second", service("second", 1, "", netPortsAt(18340)))
	})
	t.Run("port-forward", func(t *testing.T) { n.portForward(t) })
}

// comesTo: a client on the node comes to one replica alone.
func (n *netFleet) comesTo(t *testing.T, node, url, replica string) {
	t.Helper()
	n.led(t, node, url, func(by map[string]int) bool { return len(by) == 1 && by[replica] > 0 })
}

// comesToAll: a client on the node comes to so many replicas.
func (n *netFleet) comesToAll(t *testing.T, node, url string, replicas int) {
	t.Helper()
	n.led(t, node, url, func(by map[string]int) bool { return len(by) == replicas })
}

// led: traffic from the node is led as it is to be, soon: apply ends when replicas are
// ready, and nodes hear of it then. No request may fail before that either.
func (n *netFleet) led(t *testing.T, node, url string, well func(by map[string]int) bool) {
	t.Helper()
	soon(t, "traffic from "+node+" to be led as it is to be", func() error {
		r := all(t, "from "+node, n.in(t, n.clients[node], load.Job{Kind: load.HTTP, Targets: []string{url}, Count: 60, Fresh: true}))
		if !well(r.By) {
			return fmt.Errorf("it came to %v", r.By)
		}
		return nil
	})
}

// cleanKernel: after a delete nothing of a service is left on any node.
func (n *netFleet) cleanKernel(t *testing.T) {
	const look = "nft list table ip orch 2>/dev/null | grep -F -e %s -e %s -e 'default/gone' -e ' 18400'; ip route show | grep -F -e %s; true"
	n.apply(t, "gone", service("gone", netNodes, "  terminationGracePeriod: 1s", netPortsAt(18400)))
	vip := n.vip(t, "gone")
	var ips []string
	for _, r := range n.replicas(t, "gone") {
		ips = append(ips, r.Status.IP)
	}
	left := func(node, ip string) string {
		out, err := n.Shell(t.Context(), node, fmt.Sprintf(look, vip, "'"+ip+" '", "'"+ip+" '"))
		must(t, err)
		return out
	}
	for i, node := range n.nodes {
		if left(node, ips[i]) == "" {
			t.Errorf("%s holds nothing of a service that runs: the check is blind", node)
		}
	}
	n.delete(t, "gone")
	for _, node := range n.nodes {
		for _, ip := range ips {
			soon(t, node+"'s kernel to be clean", func() error {
				if out := left(node, ip); out != "" {
					return fmt.Errorf("left:\n%s", out)
				}
				return nil
			})
		}
	}
	soon(t, "the services to be gone", func() error {
		ends, err := n.Endpoints(t.Context(), "gone")
		if err != nil || len(ends) > 0 {
			return fmt.Errorf("endpoints %v, %w", ends, err)
		}
		return nil
	})
}
