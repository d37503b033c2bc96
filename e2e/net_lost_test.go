package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/e2e/load"
	"github.com/orchctl/orch/e2e/rig"
)

const (
	// lostRequests are made at least while a service is updated, drained, scaled.
	lostRequests = 20_000
	lostRate     = 1000
	// lostRounds of an update, a drain and a scale fill the time that they take.
	lostRounds = 6
	// dullMax is how long after a power cut new connections may still fail. The aim
	// is 1 s (make bench-net); here the machine also runs other things.
	dullMax = 3 * time.Second
)

// noneLost fails on any request that failed.
func noneLost(t *testing.T, ways rig.Ways, atLeast int) {
	t.Helper()
	for way, r := range ways {
		t.Logf("%s: %s", way, r)
		if r.Failed > 0 {
			t.Errorf("%s: %d of %d requests were lost", way, r.Failed, r.Requests)
		}
	}
	if _, requests := ways.Failed(); requests < atLeast {
		t.Errorf("only %d requests were made, want %d", requests, atLeast)
	}
}

// webAt is a service whose port 8080 is published.
func webAt(name string, replicas, publish int, spec string) string {
	return service(name, replicas, spec, netPortsAt(publish))
}

// lost: rolling updates of all replicas, drains of nodes and scaling from six to two
// lose no request.
func (n *netFleet) lost(t *testing.T) {
	client := n.oneClient(t)
	yaml := webAt("web", 6, 18500, "")
	n.apply(t, "web", yaml)
	under := rig.Under{Service: "web", Client: client, Port: 8080, Publish: 18500, Rate: lostRate, AtLeast: lostRequests}
	ways, err := under.Run(t.Context(), n.Fleet, func(ctx context.Context) error { return n.Churn(ctx, lostRounds, "web", yaml, client.Spec.Node) })
	noneLost(t, ways, lostRequests)
	must(t, err)
	if t.Failed() {
		for _, node := range n.nodes {
			// By state and server: who is connected to what.
			out, err := n.Shell(t.Context(), node, "grep tcp /proc/net/nf_conntrack | awk '{print $6, $13}' | sort | uniq -c | sort -rn | head -40; ip route show | grep /32 ; ip route show | grep -v via")
			must(t, err)
			t.Logf("connections that %s keeps track of:\n%s", node, out)
		}
	}
}

// restarts: agents and the controller are killed and come back while traffic flows.
func (n *netFleet) restarts(t *testing.T) {
	n.apply(t, "web", webAt("web", 6, 18510, ""))
	under := rig.Under{Service: "web", Client: n.clients["n1"], Port: 8080, Publish: 18510, Rate: lostRate}
	before, err := n.AllContainers(t.Context(), n.nodes...)
	must(t, err)
	ways, err := under.Run(t.Context(), n.Fleet, func(ctx context.Context) error {
		for _, node := range n.nodes {
			if err := n.Lab.KillProcess(ctx, node, "agent", sigkill); err != nil {
				return err
			}
		}
		if err := n.Lab.StopController(ctx, sigkill); err != nil {
			return err
		}
		// Everybody is dead for a while; then agents come back before there is a
		// leader, and it last.
		if err := n.asks(ctx, 2*time.Second); err != nil {
			return err
		}
		for _, node := range n.nodes {
			if err := n.Lab.StartProcess(ctx, node, "agent"); err != nil {
				return err
			}
		}
		if err := n.asks(ctx, 7*time.Second); err != nil { // beyond the 5 s without a session
			return err
		}
		if err := n.Lab.StartController(ctx); err != nil {
			return err
		}
		if err := n.WaitNodes(ctx, netNodes); err != nil {
			return err
		}
		return n.WaitReady(ctx, "web", 6, 30*time.Second)
	})
	noneLost(t, ways, lostRate*9)
	must(t, err)
	after, err := n.AllContainers(t.Context(), n.nodes...)
	must(t, err)
	for id, b := range before {
		if after[id].Pid != b.Pid {
			t.Errorf("container %s: was pid %d, is %d", id, b.Pid, after[id].Pid)
		}
	}
}

// asks lets the load go on for a while.
func (n *netFleet) asks(ctx context.Context, d time.Duration) error {
	_, err := n.RunOn(ctx, "", load.Job{Kind: load.Reach, Targets: []string{"10.200.0.1:1"}, For: d}) // nobody listens there
	return err
}

// power: a node is cut off under load. Some requests fail; soon none does, nobody
// hangs, and who held a connection to the node is told that it has ended.
func (n *netFleet) power(t *testing.T) {
	client := n.oneClient(t)
	n.apply(t, "web", webAt("web", 6, 18520, ""))
	l, err := n.LosePower(t.Context(), "web", 6, 18520, lostRate, client)
	must(t, err)
	for way, r := range l.Ways {
		t.Logf("%s: %s", way, r)
	}
	for _, fresh := range []bool{true, false} {
		dull := l.Dull(fresh)
		t.Logf("the last request that failed (fresh connection: %v) began %s after the cut of %s", fresh, dull.Round(time.Millisecond), l.Victim)
		if dull > dullMax {
			t.Errorf("requests (fresh connections: %v) failed for %s after the cut, want at most %s", fresh, dull, dullMax)
		}
	}
	t.Logf("held connections: %v, of which %d to %s; %s", l.Held.By, l.Doomed, l.Victim, l.Held)
	if l.Held.Failed != l.Doomed || l.Doomed == 0 {
		t.Errorf("%d connections ended, want the %d that led to %s", l.Held.Failed, l.Doomed, l.Victim)
	}
	if hung := l.Held.LastFailure().Sub(l.Cut); hung > dullMax {
		t.Errorf("a connection to %s hung for %s", l.Victim, hung)
	}
	must(t, n.RouteReplicas(t.Context()))
	soon(t, "the node that is back to lead traffic", func() error {
		r := n.outside(t, "", load.Job{Kind: load.HTTP, Targets: []string{"http://" + n.address(t, l.Victim) + ":18520/whoami"}, Count: 20, Fresh: true})
		if r.Failed > 0 {
			return fmt.Errorf("%s", r)
		}
		return nil
	})
}

// faults: what somebody breaks by hand is put right, and what cannot be is told.
func (n *netFleet) faults(t *testing.T) {
	n.apply(t, "web", webAt("web", 4, 18530, ""))
	url := []string{"http://" + n.vip(t, "web") + ":8080/whoami"}
	mended := func(t *testing.T, what string, break1 string) {
		t.Helper()
		out, err := n.Shell(t.Context(), "n1", break1)
		must(t, err)
		broken := time.Now()
		soon(t, what+" to be put right", func() error {
			// The job itself comes from outside: made while there are no rules, and so not
			// tracked, its connection may hang or end when they are back.
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			r, err := n.RunIn(ctx, n.clients["n1"], load.Job{Kind: load.HTTP, Targets: url, Count: 32, Workers: 32, Fresh: true, Timeout: 300 * time.Millisecond})
			if err == nil && (r.Failed > 0 || len(r.By) < 3) {
				err = fmt.Errorf("%s, %v", r, r.By)
			}
			return err
		})
		t.Logf("%s: put right %s after it was broken %s", what, time.Since(broken).Round(10*time.Millisecond), out)
		if took := time.Since(broken); took > 5*time.Second {
			t.Errorf("%s: put right after %s", what, took)
		}
	}
	t.Run("rules", func(t *testing.T) {
		mended(t, "the table that was deleted", "nft delete table ip orch")
		mended(t, "all rules that were flushed", "nft flush ruleset")
		mended(t, "the table whose chains were flushed", "nft flush table ip orch")
	})
	t.Run("routes", n.routesComeBack)
	t.Run("plugin", func(t *testing.T) {
		n.badPlugin(t, "fails", "#!/bin/sh\ncat >/dev/null\necho '{\"code\": 11, \"msg\": \"no more wire\"}'\nexit 1\n", "no more wire")
	})
	t.Run("plugin that hangs", func(t *testing.T) {
		n.badPlugin(t, "hangs", "#!/bin/sh\nexec sleep 3600\n", "ptp")
	})
}

// routesComeBack: routes and devices that are deleted come back.
func (n *netFleet) routesComeBack(t *testing.T) {
	n.apply(t, "far", service("far", netNodes, "", httpProbe))
	var urls []string
	for _, r := range n.replicas(t, "far") {
		urls = append(urls, "http://"+r.Status.IP+":8080/")
	}
	breaks := []string{
		"ip route show proto 79 | grep via | while read p rest; do ip route del $p; done; ip route show proto 79",
		"ip link show orch-vxlan >/dev/null 2>&1 && ip link del orch-vxlan; true",
	}
	for _, script := range breaks {
		_, err := n.Shell(t.Context(), "n1", script)
		must(t, err)
		broken := time.Now()
		soon(t, "what was deleted to come back", func() error {
			r, err := n.RunIn(t.Context(), n.clients["n1"], load.Job{Kind: load.HTTP, Targets: urls, Count: 8, Workers: 8, Fresh: true, Timeout: 300 * time.Millisecond})
			if err == nil && r.Failed > 0 {
				err = fmt.Errorf("%s", r)
			}
			return err
		})
		t.Logf("came back %s after %q", time.Since(broken).Round(10*time.Millisecond), script)
	}
}

// badPlugin replaces a CNI plugin: a replica that needs it does not start, says so
// with the word, and starts when the plugin is good again.
func (n *netFleet) badPlugin(t *testing.T, name, script, word string) {
	restore, err := n.replacePlugin("ptp", script)
	must(t, err)
	defer restore()
	t.Cleanup(func() { n.delete(t, name) })
	must(t, n.ApplyText(t.Context(), service(name, 1, "", httpProbe), false))
	must(t, rig.Until(t.Context(), 60*time.Second, "the reason to be told", func() error {
		out, errs, code := n.Orchctl(t.Context(), "describe", "replica", name+"-0")
		if code != 0 || !strings.Contains(out, word) || !strings.Contains(out, "ptp") {
			return fmt.Errorf("describe: exit %d: %s%s", code, out, errs)
		}
		return nil
	}))
	r := n.replicas(t, name)[0]
	if r.Status.Phase == api.PhaseRunning {
		t.Errorf("%s runs without a network", r.Metadata.Name)
	}
	t.Logf("%s: %s", r.Status.Reason, r.Status.Message)
	restore()
	must(t, n.WaitReady(t.Context(), name, 1, 60*time.Second))
	if out, err := n.Shell(t.Context(), n.replicas(t, name)[0].Spec.Node, "ps ax -o args | grep -c '[s]leep 3600' || true"); err != nil || out != "0" {
		t.Errorf("%s plugins are left running, %v", out, err)
	}
}
