package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/e2e/load"
	"github.com/orchctl/orch/e2e/rig"
	"github.com/orchctl/orch/internal/bench/report"
	"github.com/orchctl/orch/internal/lab"
	"github.com/orchctl/orch/internal/network"
)

const (
	// netWorkers ask at the same time where a rate is measured: more only queue on
	// the two cores that these machines have.
	netWorkers = 4
	// netRuns of each of two things that are compared, in turns, each netRun long.
	netRuns = 10
	netRun  = 2 * time.Second
	// vipRuns of vipRun each compare a virtual IP with the replica: many and short
	// ones, as what else runs on the machine changes by the second.
	vipRuns = 20
	vipRun  = time.Second
	// freshMax connections are made in such a run: the kernel remembers each for two
	// minutes after its end.
	freshMax = 2000
	// clientNode and serverNode are where the two ends of a measurement are.
	clientNode, serverNode = "n1", "n2"
)

// web makes a service of the web program as the network's measurements want it:
// it serves HTTP, echoes, takes streams and runs jobs, all on one node if that is
// named, published if publish is not 0.
func web(name string, replicas int, node string, publish int) *api.Service {
	s := service(name, replicas, true)
	c := &s.Spec.Template.Containers[0]
	c.Args = []string{"-quiet", "-load", "-echo", ":7000", "-sink", ":7001"}
	c.Ports[0].Publish = publish
	c.Ports = append(c.Ports, api.Port{Name: "echo", Port: 7000}, api.Port{Name: "sink", Port: 7001})
	if node != "" {
		s.Spec.Template.NodeSelector = map[string]string{nodeLabel: node}
	}
	return s
}

// pair runs measure with a client and a server, one replica each, on two nodes.
func (b *bench) pair(ctx context.Context, f *rig.Fleet, measure func(client, server api.Replica, vip string) error) error {
	on := *b
	on.Fleet = f
	return on.with(ctx, web("client", 1, clientNode, 0), func() error {
		return on.with(ctx, web("server", 1, serverNode, 0), func() error {
			client, err := f.Replicas(ctx, "client")
			if err != nil {
				return err
			}
			server, err := f.Replicas(ctx, "server")
			if err != nil {
				return err
			}
			s, err := f.Service(ctx, "server")
			if err != nil {
				return err
			}
			return measure(client[0], server[0], s.Status.VIP)
		})
	})
}

// whole turns a report with any failure into an error: a figure from requests that
// failed would mean nothing.
func whole(r load.Report, err error) (load.Report, error) {
	if err == nil && (r.Failed > 0 || r.Requests == 0) {
		err = errors.New(r.String())
	}
	return r, err
}

// netVIP compares requests through a virtual IP with those to a replica itself: the
// same client, in turns. Fresh connections go to a replica of another service beside
// the server: a kernel's TCP timestamps begin elsewhere for each address that it
// talks to, so that a server which sees one client under two of them takes some of
// its connections for old ones that come late, and drops them.
func netVIP(ctx context.Context, b *bench) error {
	return b.pair(ctx, b.Fleet, func(client, server api.Replica, vip string) error {
		return b.with(ctx, web("other", 1, serverNode, 0), func() error {
			other, err := b.Replicas(ctx, "other")
			if err != nil {
				return err
			}
			return b.compare(ctx, client, server.Status.IP, other[0].Status.IP, vip)
		})
	})
}

// compare asks through vip and, on kept and on fresh connections, of kept and fresh.
func (b *bench) compare(ctx context.Context, client api.Replica, kept, fresh, vip string) error {
	at, err := report.Load()
	if err != nil {
		return err
	}
	through := load.Job{Kind: load.HTTP, Targets: []string{"http://" + vip + ":8080/whoami"}, For: vipRun}
	for _, kind := range []struct {
		suffix string
		fresh  bool
		count  int // of requests in a run; 0: as many as there is time for
		direct string
		aim    report.Aim
	}{{"", false, 0, kept, report.AtLeast(0.95, "of requests to the replica itself")}, {".fresh", true, freshMax, fresh, report.Aim{Beside: "a connection for each request"}}} {
		var ratio, rate, p50, p99 []float64
		for i := range b.runs(vipRuns, 2) {
			jobs := []load.Job{{Kind: load.HTTP, Targets: []string{"http://" + kind.direct + ":8080/whoami"}, For: vipRun}, through}
			reports := make([]load.Report, 2)
			slow := make([]load.Report, 2)
			// Latency is taken at a rate that nobody queues at.
			for _, run := range []struct {
				into    []load.Report
				workers int
				rate    int
				count   int
			}{{reports, netWorkers, 0, kind.count}, {slow, 1, 300, 0}} {
				for turn := range jobs {
					which := (turn + i) % 2 // who is first changes, so that neither gains by it
					j := jobs[which]
					j.Fresh, j.Workers, j.Rate, j.Count = kind.fresh, run.workers, run.rate, run.count
					if run.into[which], err = whole(b.RunIn(ctx, client, j)); err != nil {
						return err
					}
				}
			}
			ratio = append(ratio, reports[1].PerSecond()/reports[0].PerSecond())
			rate = append(rate, reports[1].PerSecond())
			p50 = append(p50, ms(slow[1].P50-slow[0].P50))
			p99 = append(p99, ms(slow[1].P99-slow[0].P99))
			b.note("vip%s %d: %.0f/s through it, %.0f/s directly; p50 %s and %s", kind.suffix, i+1, reports[1].PerSecond(), reports[0].PerSecond(), slow[1].P50, slow[0].P50)
		}
		err := errors.Join(
			b.add("net.vip.ratio"+kind.suffix, "1", ratio, at, kind.aim),
			b.add("net.vip.rate"+kind.suffix, "1/s", rate, at, report.Aim{Beside: "client, server and kernel on two cores"}),
			b.add("net.vip.added_p50"+kind.suffix, "ms", p50, at, report.Aim{Beside: "against the replica itself"}),
			b.add("net.vip.added_p99"+kind.suffix, "ms", p99, at, report.Aim{Beside: "against the replica itself"}))
		if err != nil {
			return err
		}
	}
	return nil
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// netThroughput compares a stream from replica to replica with one between the
// nodes' own addresses, with direct routes and, in a lab of its own, with VXLAN.
func netThroughput(ctx context.Context, b *bench) (err error) {
	if err := b.streams(ctx, b.Fleet, "direct"); err != nil {
		return err
	}
	labels := map[string]map[string]string{clientNode: {nodeLabel: clientNode}, serverNode: {nodeLabel: serverNode}}
	f, err := rig.Up(ctx, lab.Config{Name: labName + "-vxlan", Nodes: 2, Capacity: capacity, Labels: labels, ControllerArgs: []string{"--routes", "vxlan"}})
	if err != nil {
		return err
	}
	defer func() {
		down, cancel := context.WithTimeout(context.WithoutCancel(ctx), downMax)
		defer cancel()
		err = errors.Join(err, f.Down(down))
	}()
	if err := errors.Join(f.LoadImage(ctx, "web.tar"), f.RouteReplicas(ctx)); err != nil {
		return err
	}
	other := *b
	other.nodes = []string{clientNode, serverNode}
	return other.streams(ctx, f, "vxlan")
}

// sinkPort is where a sink on a node itself listens.
const sinkPort = 7101

func (b *bench) streams(ctx context.Context, f *rig.Fleet, mode string) error {
	at, err := report.Load()
	if err != nil {
		return err
	}
	var bare, routed, share []float64
	err = b.pair(ctx, f, func(client, server api.Replica, _ string) error {
		addr, err := f.Address(ctx, serverNode)
		if err != nil {
			return err
		}
		stop, err := f.Server(ctx, serverNode, "-port", "18999", "-sink", fmt.Sprintf("%s:%d", addr, sinkPort))
		if err != nil {
			return err
		}
		defer stop()
		link := load.Job{Kind: load.Stream, Targets: []string{fmt.Sprintf("%s:%d", addr, sinkPort)}, For: netRun}
		replica := load.Job{Kind: load.Stream, Targets: []string{server.Status.IP + ":7001"}, For: netRun}
		if _, err := whole(f.RunOn(ctx, clientNode, load.Job{Kind: load.Reach, Targets: link.Targets, For: settleMax})); err != nil {
			return fmt.Errorf("wait for the sink on %s: %w", serverNode, err)
		}
		for i := range b.runs(netRuns, 2) {
			var r [2]load.Report
			for turn := range r {
				which := (turn + i) % 2
				if which == 0 {
					r[0], err = whole(f.RunOn(ctx, clientNode, link))
				} else {
					r[1], err = whole(f.RunIn(ctx, client, replica))
				}
				if err != nil {
					return err
				}
			}
			x, y := throughput(r[0]), throughput(r[1])
			b.note("throughput %s %d: nodes %.0f MB/s, replicas %.0f MB/s", mode, i+1, x, y)
			bare, routed, share = append(bare, x), append(routed, y), append(share, y/x)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return errors.Join(
		b.add("net.throughput."+mode, "MB/s", routed, at, report.Aim{Beside: "one stream from replica to replica on another node"}),
		b.add("net.throughput."+mode+".bare", "MB/s", bare, at, report.Aim{Beside: "between the nodes' own addresses"}),
		b.add("net.throughput."+mode+".ratio", "1", share, at, report.Aim{Beside: "of the bare link"}))
}

// throughput in MB/s.
func throughput(r load.Report) float64 {
	return float64(r.Bytes) / 1e6 / r.Ended.Sub(r.Began).Seconds()
}

// dnsRate is what p99 is taken at: far below what one core answers, so that no
// question waits for others.
const dnsRate = 2000

// netDNS asks an agent for a service's address, from a replica on its node.
func netDNS(ctx context.Context, b *bench) error {
	at, err := report.Load()
	if err != nil {
		return err
	}
	var rate, p99 []float64
	err = b.pair(ctx, b.Fleet, func(client, _ api.Replica, vip string) error {
		nodes, err := rig.List[api.Node](ctx, b.Fleet, api.KindNode, "")
		if err != nil {
			return err
		}
		i := slices.IndexFunc(nodes, func(n api.Node) bool { return n.Metadata.Name == clientNode })
		subnet, err := netip.ParsePrefix(nodes[i].Status.Subnet)
		if err != nil {
			return fmt.Errorf("subnet of %s: %w", clientNode, err)
		}
		j := load.Job{Kind: load.DNS, Server: netip.AddrPortFrom(network.Gateway(subnet), 53).String(), Targets: []string{"server.default." + network.Domain}, For: netRun}
		for range b.runs(netRuns, 2) {
			j.Workers, j.Rate = netWorkers*2, 0
			fast, err := whole(b.RunIn(ctx, client, j))
			if err != nil {
				return err
			}
			j.Workers, j.Rate = 1, dnsRate
			slow, err := whole(b.RunIn(ctx, client, j))
			if err != nil {
				return err
			}
			if fast.By[vip] != fast.Requests {
				return fmt.Errorf("%d questions were answered with %v, want %s", fast.Requests, fast.By, vip)
			}
			b.note("dns: %.0f/s; at %d/s %s", fast.PerSecond(), dnsRate, slow)
			rate, p99 = append(rate, fast.PerSecond()), append(p99, ms(slow.P99))
		}
		return nil
	})
	if err != nil {
		return err
	}
	return errors.Join(
		b.add("net.dns.rate", "1/s", rate, at, report.Aim{Beside: "answers of one agent; the client is on the same two cores"}),
		b.add("net.dns.p99", "ms", p99, at, report.Aim{Beside: fmt.Sprintf("at %d questions a second", dnsRate)}))
}
