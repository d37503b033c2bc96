package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/e2e/load"
	"github.com/orchctl/orch/e2e/rig"
	"github.com/orchctl/orch/internal/lab"
	"github.com/orchctl/orch/internal/network"
)

// netFleet is a fleet of four nodes whose network is tried. On each node runs a
// replica of `client`, which sends what it is asked to send.
type netFleet struct {
	*rig.Fleet
	nodes   []string
	clients map[string]api.Replica // by node
	plugins string                 // the folder of CNI plugins, the lab's own
	dumped  bool                   // what is needed to understand a failure was printed
}

const (
	netNodes = 4
	// netClient has one replica on each node, as their port on it is the node's.
	netClient = `apiVersion: orch/v1
kind: Service
metadata: {name: client}
spec:
  replicas: 4
  containers:
    - name: main
      image: orch.local/web:1.0
      args: [-load, -quiet]
      ports: [{name: http, port: 8080, publish: 9000, mode: host}]
      readinessProbe: {http: {path: /healthz, port: http}}
`
	// netPorts are those of a web server that echoes, too; the published ones
	// begin at the number that is filled in.
	netPorts = `      args: [-echo, ":7000", -sink, ":7001", -load, -quiet]
      ports:
        - {name: http, port: 8080, publish: %d}
        - {name: echo, port: 7000, publish: %d}
        - {name: echo-udp, port: 7000, publish: %d, protocol: UDP}
        - {name: sink, port: 7001}
      readinessProbe: {http: {path: /healthz, port: http}}`
)

func netPortsAt(publish int) string { return fmt.Sprintf(netPorts, publish, publish+1, publish+1) }

// upNet makes a fleet of its own for a test and takes it down after it.
func upNet(t *testing.T, name string, args ...string) *netFleet {
	t.Helper()
	n := &netFleet{clients: map[string]api.Replica{}, plugins: ownPlugins(t)}
	ctx := t.Context()
	// The tests end nodes again and again, which is no flapping here.
	c := lab.Config{Name: name, Nodes: netNodes, Capacity: "cpu=64,memory=32Gi", CNIBin: n.plugins, ControllerArgs: args, Limits: []string{"flap-half-life=1s"}}
	var err error
	n.Fleet, err = rig.Up(ctx, c)
	must(t, err)
	t.Cleanup(func() {
		n.dump(t)
		if err := n.Down(context.Background()); err != nil {
			t.Error(err)
		}
	})
	for i := range netNodes {
		n.nodes = append(n.nodes, fmt.Sprintf("n%d", i+1))
	}
	for _, image := range []string{"web.tar", "web2.tar"} {
		must(t, n.LoadImage(ctx, image))
	}
	must(t, n.RouteReplicas(ctx))
	must(t, n.ApplyText(ctx, netClient, true))
	for _, r := range n.replicas(t, "client") {
		n.clients[r.Spec.Node] = r
	}
	if len(n.clients) != netNodes {
		t.Fatalf("clients run on %v only", slices.Sorted(maps.Keys(n.clients)))
	}
	return n
}

// ownPlugins is a folder with the machine's CNI plugins, in which a test may break
// one without breaking other labs.
func ownPlugins(t *testing.T) string {
	t.Helper()
	for _, from := range []string{"/usr/lib/cni", "/opt/cni/bin"} {
		all, err := os.ReadDir(from)
		if err != nil {
			continue
		}
		dir := t.TempDir()
		for _, p := range all {
			must(t, os.Symlink(filepath.Join(from, p.Name()), filepath.Join(dir, p.Name())))
		}
		return dir
	}
	t.Fatal("no CNI plugins on this machine: make deps")
	return ""
}

func (n *netFleet) replicas(t *testing.T, service string) []api.Replica {
	t.Helper()
	all, err := n.Replicas(t.Context(), service)
	must(t, err)
	return all
}

// on gives a service's replicas by node, one of each.
func (n *netFleet) on(t *testing.T, service string) map[string]api.Replica {
	out := map[string]api.Replica{}
	for _, r := range n.replicas(t, service) {
		out[r.Spec.Node] = r
	}
	return out
}

// apply is the shared fleet's, for this one.
func (n *netFleet) apply(t *testing.T, name, yaml string) {
	t.Helper()
	t.Cleanup(func() {
		n.dump(t)
		n.delete(t, name)
	})
	must(t, n.ApplyText(t.Context(), yaml, true))
}

// dump prints what is needed to understand a failure, once: the first is what matters.
func (n *netFleet) dump(t *testing.T) {
	if t.Failed() && !n.dumped {
		n.dumped = true
		var dump bytes.Buffer
		n.Dump(context.Background(), &dump)
		t.Log(dump.String())
	}
}

func (n *netFleet) delete(t *testing.T, name string) {
	if err := n.Must(context.Background(), "delete", "service", name, "--ignore-not-found"); err != nil {
		t.Error(err)
	}
}

func (n *netFleet) vip(t *testing.T, service string) string {
	t.Helper()
	s, err := n.Service(t.Context(), service)
	must(t, err)
	if s.Status.VIP == "" {
		t.Fatalf("service %s has no virtual IP", service)
	}
	return s.Status.VIP
}

func (n *netFleet) address(t *testing.T, node string) string {
	t.Helper()
	a, err := n.Address(t.Context(), node)
	must(t, err)
	return a
}

// gateway is a node's own address in its subnet: as which it is seen where packets
// for replicas leave it wrapped.
func (n *netFleet) gateway(t *testing.T, node string) string {
	t.Helper()
	all, err := rig.List[api.Node](t.Context(), n.Fleet, api.KindNode, "")
	must(t, err)
	for _, x := range all {
		if x.Metadata.Name == node {
			subnet, err := netip.ParsePrefix(x.Status.Subnet)
			must(t, err)
			return network.Gateway(subnet).String()
		}
	}
	t.Fatalf("there is no node %s", node)
	return ""
}

// in runs a job in a replica; where is a client's node, or a replica.
func (n *netFleet) in(t *testing.T, r api.Replica, j load.Job) load.Report {
	t.Helper()
	report, err := n.RunIn(t.Context(), r, j)
	must(t, err)
	return report
}

func (n *netFleet) outside(t *testing.T, node string, j load.Job) load.Report {
	t.Helper()
	report, err := n.RunOn(t.Context(), node, j)
	must(t, err)
	return report
}

// all fails unless every request of a report was answered.
func all(t *testing.T, what string, r load.Report) load.Report {
	t.Helper()
	if r.Failed > 0 || r.Requests == 0 {
		t.Errorf("%s: %s", what, r)
	}
	return r
}

// soon tries until a condition holds: what is applied on one node may be a moment
// later on another.
func soon(t *testing.T, what string, cond func() error) {
	t.Helper()
	must(t, rig.Until(t.Context(), 10*time.Second, what, cond))
}

func host(addrPort string) string {
	a, err := netip.ParseAddrPort(addrPort)
	if err != nil {
		return addrPort
	}
	return a.Addr().Unmap().String()
}

// TestNetDirect tries everything on a fleet whose nodes share a segment.
func TestNetDirect(t *testing.T) {
	before := machine(t)
	t.Run("fleet", func(t *testing.T) {
		n := upNet(t, "e2e-net")
		n.modeIs(t, false)
		t.Run("cross-node", n.crossNode)
		t.Run("names", n.names)
		t.Run("traffic", n.traffic)
		t.Run("services", n.services)
		t.Run("clean", n.cleanKernel)
		t.Run("restarts", n.restarts)
		t.Run("lost", n.lost)
		t.Run("power", n.power)
		t.Run("faults", n.faults)
	})
	if after := machine(t); after != before {
		t.Errorf("the machine's own network changed\nbefore:\n%s\nafter:\n%s", before, after)
	}
}

// TestNetVXLAN tries what the way between nodes matters to.
func TestNetVXLAN(t *testing.T) {
	n := upNet(t, "e2e-vxlan", "--routes", "vxlan")
	n.modeIs(t, true)
	t.Run("cross-node", n.crossNode)
	t.Run("traffic", n.traffic)
	t.Run("routes", n.routesComeBack)
}

// machine is what a lab must leave as it was: named namespaces, links, routes and
// rules of the machine itself.
func machine(t *testing.T) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "sh", "-c",
		"ls /run/netns 2>/dev/null | grep e2e-net; ip -o link show | sed 's/^[0-9]*: //' | grep -v -e lo: -e eth; ip route show table all proto 79; nft list tables 2>/dev/null | grep orch; find /sys/fs/cgroup -type d -path '*orchlab/e2e-net*'; true").CombinedOutput()
	must(t, err)
	return string(out)
}

// modeIs checks in the kernel that routes go the way that they should.
func (n *netFleet) modeIs(t *testing.T, vxlan bool) {
	t.Helper()
	for _, node := range n.nodes {
		soon(t, "routes of "+node, func() error {
			out, err := n.Shell(t.Context(), node, "ip route show proto 79")
			if err != nil {
				return err
			}
			if got := strings.Count(out, "dev orch-vxlan"); vxlan && got != netNodes-1 || !vxlan && got != 0 {
				return fmt.Errorf("%d routes through VXLAN:\n%s", got, out)
			}
			if got := strings.Count(out, " via "); got != netNodes-1 {
				return fmt.Errorf("%d routes to other nodes:\n%s", got, out)
			}
			return nil
		})
	}
}

// crossNode: every replica reaches every other by its address, with large packets,
// and is seen there as itself; so do nodes; and replicas reach the outside.
func (n *netFleet) crossNode(t *testing.T) {
	n.apply(t, "far", service("far", netNodes, "  rollout: {maxSurge: 0, maxUnavailable: 1}", netPortsAt(18100)+"\n"))
	far := n.replicas(t, "far")
	var urls, echoes []string
	for _, r := range far {
		urls = append(urls, "http://"+r.Status.IP+":8080/whoami")
		echoes = append(echoes, r.Status.IP+":7000")
	}
	for _, node := range n.nodes {
		c := n.clients[node]
		r := all(t, "GETs from "+c.Metadata.Name+" on "+node, n.in(t, c, load.Job{Kind: load.HTTP, Targets: urls, Count: 4 * len(urls), Fresh: true}))
		if len(r.By) != len(far) || host(r.Seen) != c.Status.IP {
			t.Errorf("from %s: %v answered, and saw it as %s, want itself: %s", node, r.By, r.Seen, c.Status.IP)
		}
		// 1 MiB forth and back: full frames both ways, so that a wrong MTU shows.
		all(t, "1 MiB over TCP from "+node, n.in(t, c, load.Job{Kind: load.TCP, Targets: echoes, Count: 2 * len(echoes), Size: 1 << 20}))
		for _, size := range []int{64, 1372, 1472, 8000} { // below, at and above the MTUs: UDP is cut into fragments
			all(t, fmt.Sprintf("%d bytes over UDP from %s", size, node), n.in(t, c, load.Job{Kind: load.UDP, Targets: echoes, Count: 2 * len(echoes), Size: size}))
		}
		all(t, "GETs from the node "+node+" itself", n.outside(t, node, load.Job{Kind: load.HTTP, Targets: urls, Count: 2 * len(urls), Fresh: true}))
	}
	// What orch says of it itself.
	must(t, n.Must(t.Context(), "net", "check"))
	stop, err := n.Server(t.Context(), "", "-port", "18900")
	must(t, err)
	defer stop()
	outer := []string{"http://10.200.0.1:18900/whoami"}
	all(t, "the outside server", n.outside(t, "", load.Job{Kind: load.Reach, Targets: []string{"10.200.0.1:18900"}, For: 5 * time.Second}))
	for _, node := range n.nodes {
		r := all(t, "the outside from "+node, n.in(t, n.clients[node], load.Job{Kind: load.HTTP, Targets: outer, Count: 3, Fresh: true}))
		if want := n.address(t, node); host(r.Seen) != want {
			t.Errorf("the outside saw the replica on %s as %s, want its node's address %s", node, r.Seen, want)
		}
	}
}

// who asks /whoami once.
func (n *netFleet) who(t *testing.T, url string) (load.Whoami, error) {
	t.Helper()
	var w load.Whoami
	body, err := n.Fetch(t.Context(), url)
	if err == nil {
		err = json.Unmarshal([]byte(body), &w)
	}
	return w, err
}
