package netfilter

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/network"
)

// diagTimeout bounds one question to the kernel about sockets.
const diagTimeout = 2 * time.Second

// Connections are those that this node's kernel keeps track of.
type Connections struct {
	// Spaces is the folder of replicas' network namespaces.
	Spaces string
}

// To gives the connections that servers answer, TCP and UDP, unless they are over.
func (c Connections) To(ctx context.Context, servers func(netip.AddrPort) bool) ([]network.Connection, error) {
	var out []network.Connection
	err := whole(func() error {
		out = nil
		return flows(func(c network.Connection) {
			if servers(c.Server) {
				out = append(out, c)
			}
		})
	})
	if err != nil {
		return nil, fmt.Errorf("list connections: %w", err)
	}
	return out, nil
}

// dumpTries is how often a list is asked for that changes while the kernel gives it.
const dumpTries = 3

// whole repeats what was interrupted so, and takes what there is in the end: what was
// missed is found the next time.
func whole(dump func() error) error {
	for range dumpTries {
		if err := dump(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return err
		}
	}
	return nil
}

// Cut makes the kernel forget connections, so that what comes next on them is led
// anew, or refused. Open TCP sockets of this node and its replicas hear of it: their
// reads and writes end with ECONNABORTED. One that is just being made goes on: its
// next try is led elsewhere.
func (c Connections) Cut(ctx context.Context, all []network.Connection) error {
	if len(all) == 0 {
		return nil
	}
	var errs []error
	clients := map[netip.Addr][]network.Connection{}
	for _, one := range all {
		if err := forget(one); err != nil {
			errs = append(errs, fmt.Errorf("forget connection %s to %s: %w", one.Client, one.To, err))
		}
		if one.Protocol == api.TCP && one.Open {
			clients[one.Client.Addr()] = append(clients[one.Client.Addr()], one)
		}
	}
	if len(clients) > 0 {
		errs = append(errs, c.tell(ctx, clients))
	}
	return errors.Join(errs...)
}

// tell ends the sockets of clients, wherever they are on this node.
func (c Connections) tell(ctx context.Context, clients map[netip.Addr][]network.Connection) error {
	spaces, err := os.ReadDir(c.Spaces)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("end sockets: %w", err)
	}
	own, err := netns.Get()
	if err != nil {
		return fmt.Errorf("end sockets: %w", err)
	}
	errs := []error{tellIn(own, clients)} // first: what comes from 127.0.0.1 is this namespace's
	own.Close()
	for _, s := range spaces {
		if ctx.Err() != nil || len(clients) == 0 {
			break
		}
		ns, err := netns.GetFromPath(filepath.Join(c.Spaces, s.Name()))
		if err != nil {
			continue // it goes just now, and its sockets with it
		}
		errs = append(errs, tellIn(ns, clients))
		ns.Close()
	}
	return errors.Join(errs...)
}

// tellIn ends those sockets that are in a namespace, and takes them from clients.
func tellIn(ns netns.NsHandle, clients map[netip.Addr][]network.Connection) error {
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if errors.Is(err, unix.EINVAL) {
		return nil // a file without a namespace
	}
	if err != nil {
		return fmt.Errorf("end sockets: %w", err)
	}
	defer h.Close()
	if err := h.SetSocketTimeout(diagTimeout); err != nil {
		return fmt.Errorf("end sockets: %w", err)
	}
	addrs, err := h.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("end sockets: list addresses: %w", err)
	}
	var here []network.Connection
	for _, a := range addrs {
		ip, _ := netip.AddrFromSlice(a.IP)
		here = append(here, clients[ip.Unmap()]...)
		delete(clients, ip.Unmap())
	}
	if len(here) == 0 {
		return nil
	}
	open, err := openSockets(ns)
	if err != nil {
		return fmt.Errorf("end sockets: %w", err)
	}
	defer open.Close()
	var errs []error
	for _, one := range here {
		if err := open.end(one.Client, one.To); err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("end socket %s to %s: %w", one.Client, one.To, err))
		}
	}
	return errors.Join(errs...)
}
