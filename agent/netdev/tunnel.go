package netdev

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/orchctl/orch/internal/network"
)

// gatewayLabel marks the address that we have put on loopback.
const gatewayLabel = "lo:orch"

// putTunnel makes the tunnel's device as wanted and gives its index; 0: there is
// none. What it has is changed in place as far as the kernel lets it.
func (k *kernel) putTunnel(want *network.Tunnel) (int, error) {
	if want == nil {
		return 0, nil
	}
	l, err := k.LinkByName(network.TunnelName)
	if err != nil && !errors.As(err, new(netlink.LinkNotFoundError)) {
		return 0, fmt.Errorf("find device %s: %w", network.TunnelName, err)
	}
	if err == nil {
		have, ok := l.(*netlink.Vxlan)
		if !ok {
			return 0, fmt.Errorf("interface %s is a %s: rename it, for orch needs the name", network.TunnelName, l.Type())
		}
		if have.VxlanId != network.TunnelID || have.Port != network.TunnelPort || have.Learning || addrOf(have.SrcAddr) != want.Local {
			k.writes++
			if err := k.LinkDel(l); err != nil {
				return 0, fmt.Errorf("remove device %s: %w", network.TunnelName, err)
			}
			l = nil
		}
	} else {
		l = nil
	}
	if l == nil {
		// Not bound to the interface: the host's routes say by which way a node is
		// reached, and the device survives the interface.
		l = &netlink.Vxlan{
			LinkAttrs: netlink.LinkAttrs{Name: network.TunnelName, MTU: want.MTU, HardwareAddr: want.MAC[:]},
			VxlanId:   network.TunnelID, Port: network.TunnelPort, SrcAddr: want.Local.AsSlice(),
		}
		k.writes++
		if err := k.LinkAdd(l); err != nil {
			return 0, fmt.Errorf("make device %s: %w", network.TunnelName, tunnelInWords(err))
		}
	}
	// The answer to a packet that came through the tunnel may leave by another
	// way, and the other way about: strict filtering (which hosts may have on,
	// and of which the kernel takes the looser) would drop it.
	if err := k.putSetting(filepath.Join("/proc/sys/net/ipv4/conf", network.TunnelName, "rp_filter"), "2"); err != nil {
		return 0, fmt.Errorf("loosen the filter of sources on %s: %w", network.TunnelName, err)
	}
	a := l.Attrs()
	if a.MTU != want.MTU {
		k.writes++
		if err := k.LinkSetMTU(l, want.MTU); err != nil {
			return 0, fmt.Errorf("set MTU %d of %s: %w", want.MTU, network.TunnelName, err)
		}
	}
	if string(a.HardwareAddr) != string(want.MAC[:]) {
		k.writes++
		if err := k.LinkSetHardwareAddr(l, want.MAC[:]); err != nil {
			return 0, fmt.Errorf("set the hardware address of %s: %w", network.TunnelName, err)
		}
	}
	if err := k.putTunnelAddress(l, want.Address); err != nil {
		return 0, err
	}
	if a.Flags&net.FlagUp == 0 {
		k.writes++
		if err := k.LinkSetUp(l); err != nil {
			return 0, fmt.Errorf("set %s up: %w", network.TunnelName, tunnelInWords(err))
		}
	}
	return l.Attrs().Index, nil
}

// tunnelInWords says what to do about what the kernel says.
func tunnelInWords(err error) error {
	switch {
	case errors.Is(err, unix.EEXIST):
		return fmt.Errorf("another device of this node is VXLAN %d on UDP port %d: remove it: %w", network.TunnelID, network.TunnelPort, err)
	case errors.Is(err, unix.EADDRINUSE):
		return fmt.Errorf("another program of this node listens on UDP port %d, which VXLAN needs: stop it: %w", network.TunnelPort, err)
	case errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("the kernel has no VXLAN: load its module vxlan, or route directly (--routes direct): %w", err)
	}
	return err
}

// putTunnelAddress gives the device the address that masquerading takes.
func (k *kernel) putTunnelAddress(l netlink.Link, want netip.Addr) error {
	list, err := k.AddrList(l, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("list addresses of %s: %w", network.TunnelName, err)
	}
	there := false
	for _, a := range list {
		if addrOf(a.IP) == want {
			there = true
		}
	}
	if want.IsValid() && !there {
		k.writes++
		if err := k.AddrReplace(l, &netlink.Addr{IPNet: single(want)}); err != nil {
			return fmt.Errorf("give %s its address %s: %w", network.TunnelName, want, err)
		}
	}
	for _, a := range list {
		if addrOf(a.IP) != want {
			k.writes++
			if err := k.AddrDel(l, &a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
				return fmt.Errorf("take address %s from %s: %w", a.IP, network.TunnelName, err)
			}
		}
	}
	return nil
}

func (k *kernel) removeTunnel() error {
	l, err := k.LinkByName(network.TunnelName)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil
	}
	if _, ok := l.(*netlink.Vxlan); err == nil && !ok {
		return nil // not ours
	}
	if err == nil {
		k.writes++
		err = k.LinkDel(l)
	}
	if err != nil {
		return fmt.Errorf("remove device %s: %w", network.TunnelName, err)
	}
	return nil
}

// addGateway puts the node's address among its replicas on loopback, so that what
// listens on it does so without replicas, too; it gives those of before. Its scope
// keeps the kernel from taking it as a source where nobody said so.
func (k *kernel) addGateway(want netip.Addr) (old []netlink.Addr, err error) {
	lo, err := k.LinkByName("lo")
	if err != nil {
		return nil, fmt.Errorf("find loopback: %w", err)
	}
	list, err := k.AddrList(lo, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("list addresses of loopback: %w", err)
	}
	there := false
	for _, a := range list {
		switch at := addrOf(a.IP); {
		case at == want:
			there = true
		case a.Label == gatewayLabel:
			old = append(old, a)
		}
	}
	if want.IsValid() && !there {
		k.writes++
		if err := k.AddrAdd(lo, &netlink.Addr{IPNet: single(want), Label: gatewayLabel, Scope: int(netlink.SCOPE_LINK)}); err != nil {
			return old, fmt.Errorf("give the node its address %s: %w", want, err)
		}
	}
	return old, nil
}

func (k *kernel) removeGateways(old []netlink.Addr) error {
	if len(old) == 0 {
		return nil
	}
	lo, err := k.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find loopback: %w", err)
	}
	for _, a := range old {
		k.writes++
		if err := k.AddrDel(lo, &a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("take the node's old address %s: %w", a.IP, err)
		}
	}
	return nil
}
