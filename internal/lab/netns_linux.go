package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// netnsDir is where named network namespaces lie; `ip netns` looks there.
const netnsDir = "/run/netns"

const bridgeName = "br0"

// inNetns runs f on a thread that is in the named namespace. Sockets and
// processes which f makes stay there. f must not hand its work to other
// goroutines.
func inNetns(name string, f func() error) error {
	target, err := os.Open(filepath.Join(netnsDir, name))
	if err != nil {
		return fmt.Errorf("enter network namespace %s: %w", name, err)
	}
	defer target.Close()
	done := make(chan error, 1)
	go func() { done <- onThreadIn(target, name, f) }()
	return <-done
}

// onThreadIn keeps the thread locked, and so lets it end with the goroutine,
// when it cannot be brought back: no other goroutine may run on it then.
func onThreadIn(target *os.File, name string, f func() error) error {
	runtime.LockOSThread()
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer own.Close()
	if err := unix.Setns(int(target.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter network namespace %s: %w", name, err)
	}
	err = f()
	if back := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); back != nil {
		return errors.Join(err, fmt.Errorf("leave network namespace %s: %w", name, back))
	}
	runtime.UnlockOSThread()
	return err
}

// makeNetwork makes the outer namespace, its bridge and nothing that leads
// out.
func makeNetwork(c *Config) error {
	name := netnsName(c.Name)
	if err := makeNetns(name); err != nil {
		return fmt.Errorf("make network namespace %s: %w", name, err)
	}
	return withLinks(c.Name, func(h *netlink.Handle) error {
		if err := setUp(h, "lo"); err != nil {
			return err
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name = bridgeName
		// Without an address of its own a bridge takes the lowest of its
		// ports', and changes it under its neighbours' feet.
		attrs.HardwareAddr = hardwareAddr(address(c.Subnet, 1))
		snoop := false
		if err := h.LinkAdd(&netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snoop}); err != nil {
			return fmt.Errorf("make bridge %s: %w", bridgeName, err)
		}
		return addAddress(h, bridgeName, netip.PrefixFrom(address(c.Subnet, 1), c.Subnet.Bits()))
	})
}

func makeNetns(name string) error {
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends here, in the new namespace.
		runtime.LockOSThread()
		ns, err := netns.NewNamed(name)
		if err == nil {
			err = ns.Close()
		}
		done <- err
	}()
	return <-done
}

// withLinks hands f a handle on the links of the outer namespace.
func withLinks(lab string, f func(*netlink.Handle) error) error {
	ns, err := netns.GetFromName(netnsName(lab))
	if err != nil {
		return fmt.Errorf("open network namespace %s: %w", netnsName(lab), err)
	}
	defer ns.Close()
	return withLinksAt(ns, f)
}

func withLinksAt(ns netns.NsHandle, f func(*netlink.Handle) error) error {
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer h.Close()
	return f(h)
}

// plugIn joins a node's namespace, known by its PID 1, to the bridge.
func plugIn(c *Config, n *nodeState) error {
	mac := hardwareAddr(n.Address)
	err := withLinks(c.Name, func(h *netlink.Handle) error {
		bridge, err := h.LinkByName(bridgeName)
		if err != nil {
			return fmt.Errorf("find bridge %s: %w", bridgeName, err)
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name = n.Name
		attrs.MasterIndex = bridge.Attrs().Index
		veth := &netlink.Veth{
			LinkAttrs:        attrs,
			PeerName:         "eth0",
			PeerNamespace:    netlink.NsPid(n.Init.Pid),
			PeerHardwareAddr: mac, // kept over reboots, like a real card's
		}
		if err := h.LinkAdd(veth); err != nil {
			return fmt.Errorf("make link to %s: %w", n.Name, err)
		}
		return setUp(h, n.Name)
	})
	if err != nil {
		return err
	}
	ns, err := netns.GetFromPid(n.Init.Pid)
	if err != nil {
		return fmt.Errorf("open network namespace of %s: %w", n.Name, err)
	}
	defer ns.Close()
	return withLinksAt(ns, func(h *netlink.Handle) error {
		if err := setUp(h, "lo"); err != nil {
			return err
		}
		if err := addAddress(h, "eth0", netip.PrefixFrom(n.Address, c.Subnet.Bits())); err != nil {
			return err
		}
		gateway := address(c.Subnet, 1).AsSlice()
		if err := h.RouteAdd(&netlink.Route{Gw: gateway}); err != nil {
			return fmt.Errorf("add default route on %s: %w", n.Name, err)
		}
		return nil
	})
}

// hardwareAddr derives a locally administered MAC address from an IPv4 one.
func hardwareAddr(a netip.Addr) net.HardwareAddr {
	b := a.As4()
	return net.HardwareAddr{0x02, 0x6f, b[0], b[1], b[2], b[3]}
}

func setUp(h *netlink.Handle, name string) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find link %s: %w", name, err)
	}
	if err := h.LinkSetUp(link); err != nil {
		return fmt.Errorf("set link %s up: %w", name, err)
	}
	return nil
}

func addAddress(h *netlink.Handle, name string, p netip.Prefix) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find link %s: %w", name, err)
	}
	ip := &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
	if err := h.AddrAdd(link, &netlink.Addr{IPNet: ip}); err != nil {
		return fmt.Errorf("add address %s to %s: %w", p, name, err)
	}
	if err := h.LinkSetUp(link); err != nil {
		return fmt.Errorf("set link %s up: %w", name, err)
	}
	return nil
}

// setLink pulls or plugs a node's cable at the bridge's end. A cable that is
// gone altogether counts as pulled.
func setLink(lab, node string, up bool) error {
	return withLinks(lab, func(h *netlink.Handle) error {
		if up {
			return setUp(h, node)
		}
		link, err := h.LinkByName(node)
		if errors.As(err, &netlink.LinkNotFoundError{}) {
			return nil
		} else if err != nil {
			return fmt.Errorf("find link %s: %w", node, err)
		}
		if err := h.LinkSetDown(link); err != nil {
			return fmt.Errorf("set link %s down: %w", node, err)
		}
		return nil
	})
}

// unplug removes a node's link. The kernel does so too when the last process
// of the node's namespace is gone, but only after a while.
func unplug(lab, node string) error {
	return withLinks(lab, func(h *netlink.Handle) error {
		link, err := h.LinkByName(node)
		if errors.As(err, &netlink.LinkNotFoundError{}) {
			return nil
		} else if err != nil {
			return fmt.Errorf("find link %s: %w", node, err)
		}
		if err := h.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("remove link %s: %w", node, err)
		}
		return nil
	})
}

// removeNetwork removes the outer namespace's name; the kernel removes the
// namespace with its bridge and links when nothing holds it any more.
func removeNetwork(lab string) error {
	path := filepath.Join(netnsDir, netnsName(lab))
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && err != unix.EINVAL && err != unix.ENOENT {
		return fmt.Errorf("remove network namespace %s: %w", netnsName(lab), err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove network namespace %s: %w", netnsName(lab), err)
	}
	return nil
}

// enforce puts the faults in force in the outer namespace.
func enforce(ctx context.Context, lab string, faults []Fault) error {
	return inNetns(netnsName(lab), func() error {
		cmd := exec.CommandContext(ctx, "nft", "-f", "-")
		cmd.Stdin = strings.NewReader(ruleset(faults))
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("set network faults of lab %s: %w: %s", lab, err, strings.TrimSpace(string(out)))
		}
		return nil
	})
}
