package preflight

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// inOwnNetwork calls f in a thread that is in a network namespace of its own, and ends
// with it.
func inOwnNetwork(f func(error)) {
	var wg sync.WaitGroup
	wg.Go(func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The first thread cannot end, and is what /proc/self shows of the
			// program: it keeps its namespace, and is kept until another has done this.
			defer runtime.UnlockOSThread()
			inOwnNetwork(f)
			return
		}
		f(unix.Unshare(unix.CLONE_NEWNET)) // never unlocked: the thread ends with its goroutine
	})
	wg.Wait()
}

// prefixOf gives a netlink destination as a prefix.
func prefixOf(n *net.IPNet) (netip.Prefix, bool) {
	addr, ok := netip.AddrFromSlice(n.IP)
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(addr.Unmap(), ones), ok
}

// socket is one that waits for others, as /proc/net tells.
type socket struct {
	network string // "tcp" or "udp"
	address netip.Addr
	port    uint16
	inode   string
}

type sockets []socket

// The states of sockets that wait: TCP_LISTEN, and for UDP one that is bound and not
// connected (TCP_CLOSE).
const (
	stateListen = "0A"
	stateBound  = "07"
)

func listeners() sockets {
	var out sockets
	for _, file := range []string{"tcp", "tcp6", "udp", "udp6"} {
		b, err := os.ReadFile("/proc/thread-self/net/" + file)
		if err != nil {
			continue
		}
		out = append(out, readSockets(strings.TrimSuffix(file, "6"), string(b))...)
	}
	return out
}

// readSockets reads a table of proc_net_tcp(5).
func readSockets(network, table string) sockets {
	want := stateListen
	if network == "udp" {
		want = stateBound
	}
	var out sockets
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) < 10 || f[3] != want {
			continue
		}
		host, port, ok := strings.Cut(f[1], ":")
		raw, err := hex.DecodeString(host)
		n, perr := strconv.ParseUint(port, 16, 16)
		if !ok || err != nil || perr != nil {
			continue
		}
		for i := 0; i+4 <= len(raw); i += 4 { // each four bytes as the machine has them
			binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
		}
		addr, ok := netip.AddrFromSlice(raw)
		if !ok {
			continue
		}
		out = append(out, socket{network: network, address: addr.Unmap(), port: uint16(n), inode: f[9]})
	}
	return out
}

// find tells who listens at a port, of all addresses or of host: "dnsmasq (pid 17)".
func (s sockets) find(network, host, port string) (holder string, ok bool) {
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return "", false
	}
	addr, _ := netip.ParseAddr(host)
	for _, l := range s {
		mine := l.address.IsUnspecified() || addr.IsValid() && (addr.IsUnspecified() || addr == l.address)
		if l.network == network && uint64(l.port) == n && mine {
			return holderOf(l.inode), true
		}
	}
	return "", false
}

// holderOf finds the process that has a socket; "" where it is not ours to see.
func holderOf(inode string) string {
	fds, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return ""
	}
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err != nil || to != "socket:["+inode+"]" {
			continue
		}
		pid := strings.Split(fd, "/")[2]
		comm, err := os.ReadFile("/proc/" + pid + "/comm")
		if err != nil {
			return ""
		}
		return fmt.Sprintf("%s (pid %s)", strings.TrimSpace(string(comm)), pid)
	}
	return ""
}
