package netdev

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/network"
)

const (
	// lookEvery finds what no notice told of: the kernel drops notices if many come
	// at once.
	lookEvery = 10 * time.Second
	// Between two looks lies lookRest times what the last one took, within bounds:
	// much may be going on in the kernel that is none of our business, and yet a
	// route that was deleted is back within 2 s.
	lookRest = 10
	lookMin  = 100 * time.Millisecond
	lookMax  = 1500 * time.Millisecond
	// retryAfter is when something that failed is tried again.
	retryAfter = time.Second
	// saveEvery bounds how often peers are written to disk: of ten thousand nodes
	// that join, each is news.
	saveEvery = 2 * time.Second
)

// Run keeps routes and devices in place until ctx ends; they stay then.
func (n *Network) Run(ctx context.Context) error {
	notices, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_NEIGH, unix.RTNLGRP_IPV4_NETCONF)
	if err != nil {
		return fmt.Errorf("watch the kernel's routes: %w", err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { n.listen(ctx, notices) })
	n.keep(ctx) // here, as it is this goroutine's network namespace that it works on
	notices.Close()
	if err := n.saveLate(); err != nil {
		n.log.Warn("peers are not on disk: they are told again", "err", err)
	}
	wg.Wait()
	return ctx.Err()
}

// keep looks at once, then when something may have changed.
func (n *Network) keep(ctx context.Context) {
	look, save := time.NewTicker(lookEvery), time.NewTicker(saveEvery)
	defer look.Stop()
	defer save.Stop()
	again := time.NewTimer(0) // the next look may be now
	defer again.Stop()
	due, may := true, false
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.dirty:
			due = true
		case <-look.C:
			due = true
		case <-again.C:
			may = true
		case <-save.C:
			if err := n.saveLate(); err != nil {
				n.log.Warn("cannot write peers to disk", "err", err)
			}
		}
		if !due || !may {
			continue
		}
		due, may = false, false
		began := time.Now()
		rest := lookMax
		if err := n.look(); err != nil {
			due, rest = true, retryAfter
		} else {
			rest = min(max(lookMin, lookRest*time.Since(began)), lookMax)
		}
		again.Reset(rest)
	}
}

// listen marks the kernel's state as dirty whenever a notice says that something
// of ours, or that we depend on, may have changed.
func (n *Network) listen(ctx context.Context, notices *nl.NetlinkSocket) {
	for {
		msgs, _, err := notices.Receive()
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, unix.ENOBUFS): // some are lost
			n.markDirty()
			continue
		case err != nil:
			n.log.Error("no notice comes of changes in the kernel: routes are only compared", "every", lookEvery, "err", err)
			return
		}
		for _, m := range msgs {
			if n.concerns(m.Header.Type, m.Data) {
				n.markDirty()
				break
			}
		}
	}
}

// concerns leaves out what happens all the time: replicas that come and go, and
// the host's own neighbours.
func (n *Network) concerns(kind uint16, data []byte) bool {
	switch kind {
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		if len(data) < unix.SizeofRtMsg {
			return false
		}
		m := nl.DeserializeRtMsg(data)
		return m.Dst_len < 32 && m.Table != unix.RT_TABLE_LOCAL
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		// Permanent ones are set by hand, the rest is the kernel's.
		const stateAt = 8 // in ndmsg: family, padding, index, then the state
		return len(data) > stateAt+1 && nl.NativeEndian().Uint16(data[stateAt:])&unix.NUD_PERMANENT != 0
	}
	return true
}

// look compares the kernel with what is wanted, and puts it right.
func (n *Network) look() error {
	n.looking.Lock()
	defer n.looking.Unlock()
	n.mu.Lock()
	p, left := n.place, n.left
	n.mu.Unlock()
	if !p.known || left {
		return nil
	}
	wrong, writes, err := n.put(p)
	if writes > 0 {
		n.log.Debug("brought routes in line", "writes", writes, "peers", len(p.peers))
	}
	if err != nil {
		wrong = err.Error()
	}
	n.mu.Lock()
	before := n.wrong
	n.wrong, n.looked = wrong, true
	n.mu.Unlock()
	if wrong != "" && wrong != before {
		n.log.Warn("the node's network is not as it should be", "what", wrong)
	}
	return err
}

// put brings the kernel in line with a place. With wrong it has left everything
// as it was.
func (n *Network) put(p place) (wrong string, writes int, err error) {
	k, err := openKernel()
	if err != nil {
		return "", 0, err
	}
	defer k.Close()
	link, err := k.link(p.at.Address)
	if err != nil {
		return "", 0, err
	}
	ours, host, err := k.routes(n.replicas(p.at.Subnet))
	if err != nil {
		return "", 0, err
	}
	if wrong = network.Overlap(p.at, host); wrong != "" {
		return wrong, 0, nil
	}
	if err := k.putSetting(forwarding, "1"); err != nil {
		return "", k.writes, fmt.Errorf("switch forwarding on: %w", err)
	}
	want := network.PathsOf(p.at, link, p.sorted(), host)
	for _, peer := range want.Lost {
		n.log.Debug("no route leads to a peer", "node", peer.Node, "address", peer.Address)
	}
	err = k.put(want, ours)
	for _, via := range k.nobody {
		n.log.Debug("no route can lead over a peer", "address", via)
	}
	return "", k.writes, err
}

// replicas tells addresses of this node's replicas, for which the plugins make
// routes, also of those that still have one of an earlier subnet.
func (n *Network) replicas(subnet netip.Prefix) func(netip.Addr) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	known := make(map[netip.Addr]bool, len(n.records))
	for _, rec := range n.records {
		known[rec.IP] = true
	}
	return func(a netip.Addr) bool { return known[a] || subnet.Contains(a) }
}

// replicaMTU is that of a new replica's link. It is an error if the node's place
// is one where nothing may be programmed.
func (n *Network) replicaMTU(at network.Standing) (int, error) {
	n.mu.Lock()
	p, looked, wrong := n.place, n.looked, n.wrong
	n.mu.Unlock()
	k, err := openKernel()
	if err != nil {
		return 0, err
	}
	defer k.Close()
	link, err := k.link(at.Address)
	if err != nil {
		return 0, err
	}
	if !looked || wrong != "" { // not told yet, or put right meanwhile
		_, host, err := k.routes(n.replicas(at.Subnet))
		if err != nil {
			return 0, err
		}
		if wrong := network.Overlap(at, host); wrong != "" {
			return 0, errors.New(wrong)
		}
	}
	return network.PathsOf(at, link, p.sorted(), nil).ReplicaMTU, nil
}

// Health says in words what is wrong now and cannot be put right; empty: nothing.
func (n *Network) Health() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.wrong
}

// Leave takes everything of ours from the node but the rules of traffic: replicas'
// networks, routes, devices, and what is known of the cluster. Nothing is put back
// until the next Configure.
func (n *Network) Leave(ctx context.Context) error {
	n.telling.Lock()
	defer n.telling.Unlock()
	n.mu.Lock()
	n.left, n.unsaved, n.wrong, n.looked = true, false, "", false
	n.place = place{}
	n.mu.Unlock()
	errs := []error{n.Prune(ctx, func(api.ReplicaKey) bool { return false })}
	n.looking.Lock()
	defer n.looking.Unlock()
	errs = append(errs, clearPaths())
	for _, path := range []string{n.placePath(), n.ipamDir(), n.cacheDir()} {
		if err := os.RemoveAll(path); err != nil {
			errs = append(errs, fmt.Errorf("remove what is known of the network: %w", err))
		}
	}
	return errors.Join(errs...)
}

// clearPaths takes our routes, addresses and devices from the kernel.
func clearPaths() error {
	k, err := openKernel()
	if err != nil {
		return err
	}
	defer k.Close()
	ours, _, err := k.routes(func(netip.Addr) bool { return false })
	if err != nil {
		return err
	}
	return k.put(network.Paths{}, ours)
}
