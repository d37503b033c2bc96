package netdev

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/orchctl/orch/internal/network"
)

// kernel is the node's network as the kernel has it, read and written through one
// socket. It counts what it writes.
type kernel struct {
	*netlink.Handle
	writes int
	// doubles are routes that differ from one of ours in the next hop alone; the
	// kernel follows the first that it lists.
	doubles []netlink.Route
	// nobody are next hops that none can be on this node, such as its own addresses:
	// what a peer says of itself is no fault of this node's.
	nobody []netip.Addr
}

func openKernel() (*kernel, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	return &kernel{Handle: h}, nil
}

// listTries is how often a list is asked for that changes while it is read.
const listTries = 4

func listed[T any](list func() ([]T, error)) (all []T, err error) {
	for range listTries {
		if all, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return all, err
		}
	}
	return nil, err
}

// putSetting gives a setting of the kernel a value; others set them, too, by files of
// their own that count for all interfaces.
func (k *kernel) putSetting(path, want string) error {
	have, err := os.ReadFile(path)
	if err != nil || string(bytes.TrimSpace(have)) == want {
		return err
	}
	k.writes++
	return os.WriteFile(path, []byte(want), 0)
}

// link finds the interface that carries the node's own address.
func (k *kernel) link(address netip.Addr) (network.Link, error) {
	addrs, err := listed(func() ([]netlink.Addr, error) { return k.AddrList(nil, netlink.FAMILY_V4) })
	if err != nil {
		return network.Link{}, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		if ip, ok := netip.AddrFromSlice(a.IP); !ok || ip.Unmap() != address {
			continue
		}
		l, err := k.LinkByIndex(a.LinkIndex)
		if err != nil {
			return network.Link{}, fmt.Errorf("find the interface of %s: %w", address, err)
		}
		bits, _ := a.Mask.Size()
		attrs := l.Attrs()
		return network.Link{Index: attrs.Index, Name: attrs.Name, MTU: attrs.MTU, Prefix: netip.PrefixFrom(address, bits), Loopback: attrs.Flags&net.FlagLoopback != 0}, nil
	}
	return network.Link{}, fmt.Errorf("no interface of this node carries its address %s: give it back, or start the agent with another --address", address)
}

// routeKey is what the kernel tells routes apart by.
type routeKey struct {
	dst    netip.Prefix
	metric int
}

// held is a route of ours as the kernel has it. whole is what to delete: one that
// was set by hand with our number may be of any kind.
type held struct {
	network.Route
	whole netlink.Route
}

func (h held) is(r network.Route) bool { return h.Route == r && h.whole.Type == kindOf(r) }

func kindOf(r network.Route) int {
	if r.Link == 0 {
		return unix.RTN_UNREACHABLE
	}
	return unix.RTN_UNICAST
}

// routes gives ours and those of the host, which are not to one of our replicas.
// Links are named as far as they are in use.
func (k *kernel) routes(replica func(netip.Addr) bool) (ours map[routeKey]held, host []network.HostRoute, err error) {
	list, err := listed(func() ([]netlink.Route, error) { return k.RouteList(nil, netlink.FAMILY_V4) })
	if err != nil {
		return nil, nil, fmt.Errorf("list routes: %w", err)
	}
	ours, names := map[routeKey]held{}, map[int]string{}
	for _, r := range list {
		dst := prefixOf(r.Dst)
		if r.Protocol == network.RouteProtocol {
			if _, ok := ours[routeKey{dst, r.Priority}]; ok {
				k.doubles = append(k.doubles, r)
				continue
			}
			ours[routeKey{dst, r.Priority}] = held{network.Route{Link: r.LinkIndex, Via: addrOf(r.Gw), OnLink: r.Flags&unix.RTNH_F_ONLINK != 0, Src: addrOf(r.Src), Metric: r.Priority}, r}
			continue
		}
		if dst.IsSingleIP() && replica(dst.Addr()) {
			continue
		}
		h := network.HostRoute{Dst: dst, Via: addrOf(r.Gw), Link: r.LinkIndex, Metric: r.Priority}
		if len(r.MultiPath) > 0 {
			h.Link, h.Via = r.MultiPath[0].LinkIndex, addrOf(r.MultiPath[0].Gw)
		}
		if _, ok := names[h.Link]; !ok && h.Link != 0 {
			if l, err := k.LinkByIndex(h.Link); err == nil { // else it has just gone
				names[h.Link] = l.Attrs().Name
			}
		}
		h.Name = names[h.Link]
		host = append(host, h)
	}
	return ours, host, nil
}

func prefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(addrOf(n.IP), bits)
}

func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
}

func single(a netip.Addr) *net.IPNet { return ipNet(netip.PrefixFrom(a, 32)) }

// put brings the kernel in line with the paths, writing differences alone. What a
// route needs comes before it, and goes after it, so that a packet always finds
// the old way or the new one. It goes on after errors.
func (k *kernel) put(want network.Paths, ours map[routeKey]held) error {
	var errs failures
	tunnel, err := k.putTunnel(want.Tunnel)
	if err != nil {
		errs.add(err)
	}
	oldGateways, err := k.addGateway(want.Gateway)
	errs.add(err)
	staleNeighbours, staleForwards := k.putPeers(tunnel, want, &errs)
	for _, r := range k.doubles {
		errs.add(k.removeRoute(r))
	}
	wanted := map[routeKey]bool{}
	for dst, r := range want.Routes {
		key := routeKey{dst, r.Metric}
		wanted[key] = true
		if r.Link == network.TunnelLink {
			if tunnel == 0 {
				continue // it is told why; what there is may still work
			}
			r.Link = tunnel
		}
		if have, ok := ours[key]; !ok || !have.is(r) {
			k.writes++
			err := k.RouteReplace(routeOf(dst, r))
			if r.Via.IsValid() && errors.Is(err, unix.EINVAL) {
				k.nobody = append(k.nobody, r.Via)
				continue
			}
			errs.add(named(err, "set route %s", dst))
		}
	}
	for key, r := range ours {
		if !wanted[key] {
			errs.add(k.removeRoute(r.whole))
		}
	}
	for _, stale := range slices.Concat(staleNeighbours, staleForwards) {
		k.writes++
		if err := k.NeighDel(&stale); err != nil && !errors.Is(err, unix.ENOENT) {
			errs.add(fmt.Errorf("remove neighbour %s: %w", stale.IP, err))
		}
	}
	errs.add(k.removeGateways(oldGateways))
	if want.Tunnel == nil {
		errs.add(k.removeTunnel())
	}
	return errs.err()
}

func (k *kernel) removeRoute(r netlink.Route) error {
	k.writes++
	if err := k.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("remove route %s: %w", r.Dst, err)
	}
	return nil
}

func routeOf(dst netip.Prefix, r network.Route) *netlink.Route {
	out := &netlink.Route{Dst: ipNet(dst), LinkIndex: r.Link, Type: kindOf(r), Protocol: network.RouteProtocol, Priority: r.Metric, Table: unix.RT_TABLE_MAIN}
	switch {
	case r.Via.IsValid():
		out.Gw = r.Via.AsSlice()
	case r.Link != 0:
		out.Scope = netlink.SCOPE_LINK
	}
	if r.OnLink {
		out.Flags = unix.RTNH_F_ONLINK
	}
	if r.Src.IsValid() {
		out.Src = r.Src.AsSlice()
	}
	return out
}

// putPeers sets the peers' neighbours on the tunnel and gives those that are to go.
func (k *kernel) putPeers(tunnel int, want network.Paths, errs *failures) (neighbours, forwards []netlink.Neigh) {
	if tunnel == 0 {
		return nil, nil
	}
	list, err := listed(func() ([]netlink.Neigh, error) { return k.NeighList(tunnel, netlink.FAMILY_V4) })
	if err != nil {
		errs.add(fmt.Errorf("list neighbours: %w", err))
		return nil, nil
	}
	have := map[netip.Addr]network.MAC{}
	for _, e := range list {
		if e.State&netlink.NUD_PERMANENT == 0 {
			continue // the kernel's own, of an address that we do not know
		}
		if at := addrOf(e.IP); want.Neighbours[at] == (network.MAC{}) {
			neighbours = append(neighbours, e)
		} else if len(e.HardwareAddr) == len(network.MAC{}) {
			have[at] = network.MAC(e.HardwareAddr)
		}
	}
	for at, mac := range want.Neighbours {
		if have[at] != mac {
			k.writes++
			errs.add(named(k.NeighSet(&netlink.Neigh{LinkIndex: tunnel, Family: netlink.FAMILY_V4, State: netlink.NUD_PERMANENT, IP: at.AsSlice(), HardwareAddr: mac[:]}), "set neighbour %s", at))
		}
	}

	if list, err = listed(func() ([]netlink.Neigh, error) { return k.NeighList(tunnel, unix.AF_BRIDGE) }); err != nil {
		errs.add(fmt.Errorf("list the nodes behind %s: %w", network.TunnelName, err))
		return neighbours, nil
	}
	nodes := map[network.MAC]netip.Addr{}
	for _, e := range list {
		if len(e.HardwareAddr) != len(network.MAC{}) {
			continue
		}
		mac, at := network.MAC(e.HardwareAddr), addrOf(e.IP)
		if want.Forwards[mac] != at || nodes[mac].IsValid() {
			e.Family, e.Flags = unix.AF_BRIDGE, netlink.NTF_SELF
			forwards = append(forwards, e)
			continue
		}
		nodes[mac] = at
	}
	for mac, at := range want.Forwards {
		if nodes[mac] != at {
			k.writes++
			errs.add(named(k.NeighSet(&netlink.Neigh{LinkIndex: tunnel, Family: unix.AF_BRIDGE, Flags: netlink.NTF_SELF, State: netlink.NUD_PERMANENT, IP: at.AsSlice(), HardwareAddr: mac[:]}), "lead to node %s", at))
		}
	}
	return neighbours, forwards
}

// failures keeps the first error and counts the rest: ten thousand routes may fail
// for one reason.
type failures struct {
	first error
	more  int
}

func (f *failures) add(err error) {
	switch {
	case err == nil:
	case f.first == nil:
		f.first = err
	default:
		f.more++
	}
}

func (f *failures) err() error {
	if f.more == 0 {
		return f.first
	}
	return fmt.Errorf("%w (and %d more like it)", f.first, f.more)
}

func named(err error, format string, of any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf(format+": %w", of, err)
}
