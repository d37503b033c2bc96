package e2e

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/e2e/load"
	"github.com/orchctl/orch/e2e/rig"
)

const (
	// nxMax is how long a name that does not exist may take to be refused: there is
	// nobody to be asked for it.
	nxMax = 100 * time.Millisecond
	// ttlMax is how old an answer about what moves may get.
	ttlMax = 5 * time.Second
)

// names: every form of a name leads where it should, in a replica, by the
// resolv.conf that it got.
func (n *netFleet) names(t *testing.T) {
	n.apply(t, "named", service("named", 2, "", netPortsAt(18600)))
	n.apply(t, "heads", service("heads", 3, "  headless: true", httpProbe))
	vip := n.vip(t, "named")
	ips := func(service string) (out []string) {
		for _, r := range n.replicas(t, service) {
			out = append(out, r.Status.IP)
		}
		slices.Sort(out)
		return out
	}
	named := n.replicas(t, "named")
	heads := n.replicas(t, "heads")
	me := n.clients["n2"]
	const domain = "default.orch.internal"
	want := map[string][]string{
		"named":                                {vip},
		"named.default":                        {vip},
		"named." + domain:                      {vip},
		"named." + domain + ".":                {vip},
		"named-0.named":                        {named[0].Status.IP},
		"named-1.named.default":                {named[1].Status.IP},
		"named-1.named." + domain:              {named[1].Status.IP},
		"heads":                                ips("heads"),
		"heads." + domain:                      ips("heads"),
		"heads-2.heads." + domain:              {heads[2].Status.IP},
		"srv:_http._tcp.named." + domain:       {"named." + domain + ".:8080"},
		"srv:_echo-udp._udp.named." + domain:   {"named." + domain + ".:7000"},
		"srv:_http._tcp.heads." + domain:       {"heads-0.heads." + domain + ".:8080", "heads-1.heads." + domain + ".:8080", "heads-2.heads." + domain + ".:8080"},
		"ptr:" + vip:                           {"named." + domain + "."},
		"ptr:" + named[1].Status.IP:            {"named-1.named." + domain + "."},
		me.Metadata.Name:                       {me.Status.IP}, // its own name, by /etc/hosts
		me.Metadata.Name + ".client." + domain: {me.Status.IP},
	}
	for _, node := range []string{"n2", "n4"} {
		c := n.clients[node]
		for target, found := range want {
			if node != "n2" && target == me.Metadata.Name {
				continue // /etc/hosts is each replica's own
			}
			r := n.in(t, c, load.Job{Kind: load.Lookup, Targets: []string{target}, Count: 1})
			if !slices.Equal(r.Answers[target], found) {
				t.Errorf("on %s, %s: %v, want %v: %s", node, target, r.Answers[target], found, r)
			}
		}
		for _, name := range []string{"nobody." + domain, "named-7.named." + domain, "nobody.nowhere.orch.internal.", "srv:_none._tcp.named." + domain} {
			r := n.in(t, c, load.Job{Kind: load.Lookup, Targets: []string{name}, Count: 3})
			if r.Failed != 3 || r.Failures[0].Kind != "no such name" || r.Ended.Sub(r.Began) > 3*nxMax {
				t.Errorf("on %s, %s: %s, want no such name, each within %s", node, name, r, nxMax)
			}
		}
		all(t, "a GET by name", n.in(t, c, load.Job{Kind: load.HTTP, Targets: []string{"http://named:8080/whoami", "http://heads:8080/", "http://named-1.named:8080/"}, Count: 30, Fresh: true}))
	}
	// What goes leaves the names, within their time to live.
	must(t, n.Must(t.Context(), "scale", "service/heads", "--replicas", "1"))
	began := time.Now()
	soon(t, "the names to follow a scale", func() error {
		r := n.in(t, n.clients["n4"], load.Job{Kind: load.Lookup, Targets: []string{"heads"}, Count: 1})
		if got := r.Answers["heads"]; !slices.Equal(got, []string{heads[0].Status.IP}) {
			return fmt.Errorf("heads: %v", got)
		}
		return nil
	})
	if took := time.Since(began); took > ttlMax {
		t.Errorf("the name followed after %s, want %s", took, ttlMax)
	}
}

var forwarding = regexp.MustCompile(`Forwarding from (127\.0\.0\.1:\d+) -> 8080`)

// portForward: a user's machine reaches a service through the controller, also
// after the replica that it was led to has gone.
func (n *netFleet) portForward(t *testing.T) {
	n.apply(t, "fwd", service("fwd", 2, "", httpProbe))
	ctx, cancel := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, filepath.Join(rig.Root(), "bin", "orchctl"), "port-forward", "service/fwd", ":8080")
	cmd.Env = append(os.Environ(), "ORCH_CONFIG="+n.Lab.AdminContext())
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait()
	})
	var addr string
	for lines := bufio.NewScanner(out); addr == "" && lines.Scan(); {
		if m := forwarding.FindStringSubmatch(lines.Text()); m != nil {
			addr = m[1]
		}
	}
	if addr == "" {
		t.Fatal("port-forward does not say where it listens")
	}
	get := func() (string, error) {
		c := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := c.Get("http://" + addr + "/")
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		return resp.Header.Get(load.HeaderReplica), nil
	}
	by, err := get()
	must(t, err)
	if by != "fwd-0" && by != "fwd-1" {
		t.Errorf("%q answered", by)
	}
	must(t, n.Must(t.Context(), "scale", "service/fwd", "--replicas", "1"))
	soon(t, "the forward to lead to what is left", func() error {
		if by, err := get(); err != nil || by != "fwd-0" {
			return fmt.Errorf("%q answered, %w", by, err)
		}
		return nil
	})
}

// oneClient leaves one client alone, so that all nodes but its own can be drained
// or lose their power; afterwards there is one on each again.
func (n *netFleet) oneClient(t *testing.T) api.Replica {
	t.Helper()
	must(t, n.Must(t.Context(), "scale", "service/client", "--replicas", "1"))
	must(t, n.WaitReady(t.Context(), "client", 1, 30*time.Second))
	t.Cleanup(func() {
		ctx := context.Background()
		err := n.Must(ctx, "scale", "service/client", "--replicas", fmt.Sprint(netNodes))
		if err == nil {
			err = n.WaitReady(ctx, "client", netNodes, 30*time.Second)
		}
		if err != nil {
			t.Error(err)
			return
		}
		clear(n.clients)
		all, err := n.Replicas(ctx, "client")
		if err != nil {
			t.Error(err)
		}
		for _, r := range all {
			n.clients[r.Spec.Node] = r
		}
		if len(n.clients) != netNodes {
			t.Errorf("clients run on %v only", slices.Sorted(maps.Keys(n.clients)))
		}
	})
	return n.replicas(t, "client")[0]
}
