package lab

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
)

// Dial connects from inside the lab's network, where nodes' addresses mean
// something; it serves as the DialContext of an http.Transport. The address
// must be numeric: the lab has no resolver.
func (l *Lab) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if _, err := netip.ParseAddrPort(addr); err != nil {
		return nil, fmt.Errorf("dial %s in lab %s: %w", addr, l.name, err)
	}
	var conn net.Conn
	err := inNetns(netnsName(l.name), func() (err error) {
		// With a numeric address the socket is made on this very thread; it
		// then belongs to the namespace wherever it is used.
		conn, err = new(net.Dialer).DialContext(ctx, network, addr)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("dial %s in lab %s: %w", addr, l.name, err)
	}
	return conn, nil
}

// DialFrom connects from inside a node's network, where its loopback is its own; "" is
// the controller's host. The address must be numeric.
func (l *Lab) DialFrom(ctx context.Context, node, network, addr string) (net.Conn, error) {
	if node == "" {
		return l.Dial(ctx, network, addr)
	}
	if _, err := netip.ParseAddrPort(addr); err != nil {
		return nil, fmt.Errorf("dial %s from %s: %w", addr, node, err)
	}
	s, err := l.read()
	if err != nil {
		return nil, err
	}
	n, err := s.node(node)
	if err != nil {
		return nil, err
	}
	if !n.Init.alive() {
		return nil, fmt.Errorf("dial %s from %s: %w", addr, node, ErrOff)
	}
	space, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", n.Init.Pid))
	if err != nil {
		return nil, fmt.Errorf("dial %s from %s: %w", addr, node, err)
	}
	defer space.Close()
	var conn net.Conn
	done := make(chan error, 1)
	go func() {
		done <- onThreadIn(space, "of "+node, func() (err error) {
			conn, err = new(net.Dialer).DialContext(ctx, network, addr)
			return err
		})
	}()
	if err := <-done; err != nil {
		return nil, fmt.Errorf("dial %s from %s: %w", addr, node, err)
	}
	return conn, nil
}

// Listen announces on an address of this machine in the lab's outer network, where nodes
// reach it: what the controller's host has, at .1 of the subnet. The address must be numeric.
func (l *Lab) Listen(ctx context.Context, network, addr string) (net.Listener, error) {
	if _, err := netip.ParseAddrPort(addr); err != nil {
		return nil, fmt.Errorf("listen at %s in lab %s: %w", addr, l.name, err)
	}
	var out net.Listener
	err := inNetns(netnsName(l.name), func() (err error) {
		out, err = new(net.ListenConfig).Listen(ctx, network, addr)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen at %s in lab %s: %w", addr, l.name, err)
	}
	return out, nil
}

// Command prepares a program to run on a node, in all its namespaces, or,
// where node is empty, on this machine but in the lab's outer network. It is
// the caller's to start and to end; one in the outer network does not end with
// the lab.
func (l *Lab) Command(ctx context.Context, node string, args ...string) (*exec.Cmd, error) {
	if len(args) == 0 {
		return nil, fmt.Errorf("run in lab %s: no command given", l.name)
	}
	s, err := l.read()
	if err != nil {
		return nil, err
	}
	enter := []string{"--net=" + netnsDir + "/" + netnsName(l.name)}
	if node != "" {
		n, err := s.node(node)
		if err != nil {
			return nil, err
		}
		if !n.Init.alive() {
			return nil, fmt.Errorf("run on %s: %w", node, ErrOff)
		}
		enter = []string{"--target", strconv.Itoa(n.Init.Pid), "--mount", "--uts", "--ipc", "--net", "--pid"}
	}
	enter = append(append(enter, "--"), args...)
	return exec.CommandContext(ctx, "nsenter", enter...), nil
}
