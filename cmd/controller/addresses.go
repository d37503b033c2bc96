package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// socketPathMax is the kernel's limit on a socket's path, in bytes.
	socketPathMax = 107
	// gossipPort is memberlist's usual one.
	gossipPort = 7946
	// gossipOff turns gossip off.
	gossipOff = "off"
	// socketMode lets every user of the machine connect; who is let in is decided
	// by certificates, as over TCP.
	socketMode = 0o666
)

// completeAddresses finds out where others reach this controller.
func (c *config) completeAddresses() error {
	host, port, err := net.SplitHostPort(c.listen)
	if err != nil {
		return fmt.Errorf("--listen %s: want host:port or :port", c.listen)
	}
	if c.advertise == "" {
		if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
			host = ownAddress()
		}
		c.advertise = net.JoinHostPort(host, port)
	} else if _, _, err := net.SplitHostPort(c.advertise); err != nil {
		return fmt.Errorf("--advertise %s: want host:port", c.advertise)
	}
	if c.gossipAddr == "" {
		host, _, _ := net.SplitHostPort(c.advertise)
		if _, err := netip.ParseAddr(host); err != nil {
			host = ownAddress() // gossip needs a number
		}
		c.gossipAddr = net.JoinHostPort(host, strconv.Itoa(gossipPort))
	}
	if c.gossipAddr != gossipOff {
		if _, _, err := splitPort(c.gossipAddr); err != nil {
			return fmt.Errorf("--gossip-addr %s: want host:port or %q", c.gossipAddr, gossipOff)
		}
	}
	return nil
}

func splitPort(address string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, err
	}
	n, err := strconv.ParseUint(text, 10, 16)
	return host, int(n), err
}

// ownAddress is the first address of this host that others can reach, IPv4
// before IPv6; without one it is loopback.
func ownAddress() string {
	best := "127.0.0.1"
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err != nil || !p.Addr().IsGlobalUnicast() {
			continue
		}
		if p.Addr().Is4() {
			return p.Addr().String()
		}
		if best == "127.0.0.1" {
			best = p.Addr().String()
		}
	}
	return best
}

// allHosts are the names that the serving certificate is good for.
func allHosts(advertise string) []string {
	hosts := []string{"localhost"}
	if h, _, err := net.SplitHostPort(advertise); err == nil {
		hosts = append(hosts, h)
	}
	if h, err := os.Hostname(); err == nil {
		hosts = append(hosts, h)
	}
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			hosts = append(hosts, p.Addr().Unmap().WithZone("").String())
		}
	}
	return hosts
}

// listenTCP says what to do where the port is taken.
func listenTCP(address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("listen on %s: the port is in use: stop who holds it (ss -ltnp shows it), or choose another with --listen", address)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("listen on %s: this host has no such address: choose another with --listen", address)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("listen on %s: %w: ports below 1024 need root", address, err)
	case err != nil:
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	return l, nil
}

// listenUnix takes over the file of a controller that is gone, never that of one
// that lives.
func listenUnix(path string) (net.Listener, error) {
	if info, err := os.Lstat(path); err == nil {
		if info.Mode()&fs.ModeSocket == 0 {
			return nil, fmt.Errorf("listen on %s: there is a file that is no socket: remove it, or choose another with --socket", path)
		}
		conn, err := net.DialTimeout("unix", path, time.Second)
		if err == nil {
			conn.Close()
			return nil, fmt.Errorf("listen on %s: another process answers there: stop it, or choose another with --socket", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("listen on %s: %w", path, err)
		}
	}
	l, err := net.Listen("unix", path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listen on %s: its folder does not exist", path)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	if err := os.Chmod(path, socketMode); err != nil {
		l.Close()
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return l, nil
}

// controllers are the addresses for the admin's context: the socket where there
// is one, and then nothing else. The context lies on this host, and an address
// beside the socket would be dialled while the controller is down; where the
// controller listens in a network of its own, somebody else may answer there.
func (c *config) controllers() []string {
	if c.socket != "" {
		return []string{"unix://" + c.socket}
	}
	return []string{c.advertise}
}

// isLoopback keeps profiles off the network.
func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	ip, perr := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && (host == "localhost" || perr == nil && ip.IsLoopback())
}
