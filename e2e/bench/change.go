package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/vishvananda/netns"

	"github.com/orchctl/orch/agent/netdev/netfilter"
	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/bench/report"
	"github.com/orchctl/orch/internal/network"
	"github.com/orchctl/orch/internal/wire"
)

const (
	changeServices  = 1000
	changeEndpoints = 3 // of each
	changePerNode   = 200
	changeRuns      = 50
)

// netChange takes what one node needs to bring one change into its kernel beside a
// thousand services of three endpoints: an endpoint goes, and comes back. It is the
// agent's own code on the kernel's own rules, in a network namespace without anything
// else.
func netChange(ctx context.Context, b *bench) error {
	at, err := report.Load()
	if err != nil {
		return err
	}
	var whole, one []float64
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with its namespace.
		runtime.LockOSThread()
		ns, err := netns.New()
		if err == nil {
			whole, one, err = changes(ctx, b.runs(changeRuns, 3))
			err = errors.Join(err, ns.Close())
		}
		done <- err
	}()
	if err := <-done; err != nil {
		return err
	}
	return errors.Join(
		b.add("net.change", "s", one, at, report.AtMost(0.05, fmt.Sprintf("one endpoint beside %d services", changeServices))),
		b.add("net.change.whole", "s", whole, at, report.Aim{Beside: fmt.Sprintf("%d services of %d endpoints, from nothing", changeServices, changeEndpoints)}))
}

// address is the ith that a subnet has for replicas.
func address(subnet netip.Prefix, i int) string {
	a := subnet.Addr().As4()
	a[3] += byte(i + 2)
	return netip.AddrFrom4(a).String()
}

func changes(ctx context.Context, runs int) (whole, one []float64, err error) {
	dir, err := os.MkdirTemp("", "orch-bench")
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	kernel := netfilter.New(filepath.Join(dir, "loopback"))
	p := network.NewPicture()
	cluster := network.DefaultCluster()
	p.Stand(network.Standing{Address: netip.MustParseAddr("10.200.0.11"), Subnet: cluster.Subnet(1), Cluster: cluster.Nodes, Services: cluster.Services, Routes: cluster.Routes})
	all := network.Update{Complete: true}
	for i := range changeServices {
		key := api.Key{Namespace: api.DefaultNamespace, Name: fmt.Sprintf("s%d", i)}
		ports := []api.Port{{Name: "http", Port: 8080, Protocol: api.TCP, Publish: 20000 + i}}
		all.Services = append(all.Services, wire.Service{Key: key, VIP: cluster.VIP(i).String(), Ports: ports})
		for slot := range changeEndpoints {
			n := i*changeEndpoints + slot
			all.Put = append(all.Put, wire.Endpoint{Replica: api.ReplicaKey{Namespace: key.Namespace, Service: key.Name, Slot: slot, Epoch: uint64(slot + 1)},
				Node: fmt.Sprintf("n%d", slot+2), NodeIP: fmt.Sprintf("10.200.0.%d", 12+slot),
				IP: address(cluster.Subnet(2+n/changePerNode), n%changePerNode), Ports: ports})
		}
	}
	apply := func(u network.Update) (float64, error) {
		began := time.Now()
		p.Apply(u)
		c := p.Change()
		if c.Empty() {
			return 0, errors.New("the change changes nothing")
		}
		err := kernel.Apply(ctx, c)
		return time.Since(began).Seconds(), err
	}
	took, err := apply(all)
	if err != nil {
		return nil, nil, err
	}
	whole = append(whole, took)
	for i := range runs {
		e := all.Put[(i*7919)%len(all.Put)]
		for _, u := range []network.Update{{Drop: []api.ReplicaKey{e.Replica}}, {Put: []wire.Endpoint{e}}} {
			if took, err = apply(u); err != nil {
				return nil, nil, err
			}
			one = append(one, took)
		}
	}
	return whole, one, nil
}
