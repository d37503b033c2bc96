package preflight

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/orchctl/orch/internal/network"
)

const (
	// reachTimeout is how long a controller may take to let us connect.
	reachTimeout = 2 * time.Second
	// runtimeTimeout is how long containerd may take to answer.
	runtimeTimeout = 3 * time.Second
	// syncTries are enough for a median, and few enough not to matter on a slow disk.
	syncTries = 11
	// syncBudget ends the tries on a disk so slow that it is known by then.
	syncBudget = 2 * time.Second
	// syncBytes is about what etcd writes for a small change.
	syncBytes = 2300
)

// Ask says what to look for. The zero value of a field leaves it out.
type Ask struct {
	// Node looks at what the agent needs of the kernel and its programs.
	Node   bool
	CNIBin string // given by the user; else the usual folders are tried
	Data   string // folder that will hold the daemon's data
	Ports  []Port
	Reach  []string // controllers, as host:port
	Routes bool
	// Runtime asks containerd for its version, "containerd 1.6.20".
	Runtime func(context.Context) (string, error)
	// Quick leaves out what takes time: trying the kernel, writing, connecting. Daemons
	// look so at their start.
	Quick bool
}

// Look gathers facts. It changes nothing and leaves nothing behind: what it tries
// of the kernel it tries in a network namespace of its own.
func Look(ctx context.Context, a Ask) Facts {
	f := Facts{Root: os.Geteuid() == 0}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		f.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	if a.Node {
		f.lookAtNode(a, u)
	}
	if a.Runtime != nil {
		f.Runtime = askRuntime(ctx, a.Runtime)
	}
	if a.Data != "" {
		f.Disk = tryDisk(a.Data, map[bool]int{false: syncTries}[a.Quick])
	}
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil {
		f.Files = limit.Cur
	}
	if a.Quick {
		return f
	}
	if a.Node {
		for what, problem := range tryNetwork(ctx) {
			f.Features[what] = problem
		}
		f.ForwardDrop = forwardDrop(ctx)
	}
	f.Ports = tryPorts(a.Ports)
	f.Clock = Clock{Asked: true, Synchronized: synchronized()}
	if a.Routes {
		f.Routes = routes()
	}
	f.Reached = reach(ctx, a.Reach)
	return f
}

// lookAtNode reads what is cheap.
func (f *Facts) lookAtNode(a Ask, u unix.Utsname) {
	f.Features = map[string]string{"overlayfs": overlay(unix.ByteSliceToString(u.Release[:])), "namespaces": namespaces()}
	f.Pressure = exists("/proc/pressure/cpu")
	f.Cgroups = cgroups("/sys/fs/cgroup")
	if swaps, err := os.ReadFile("/proc/swaps"); err == nil {
		f.Swap = bytes.Count(bytes.TrimSpace(swaps), []byte("\n")) > 0 // below the heading
	}
	f.Programs = map[string]string{}
	for _, name := range []string{"runc", "containerd-shim-runc-v2", "nft"} {
		f.Programs[name], _ = exec.LookPath(name)
	}
	for _, dir := range []string{a.CNIBin, "/usr/lib/cni", "/opt/cni/bin"} {
		if dir == "" || f.CNIBin != "" || a.CNIBin != "" && dir != a.CNIBin {
			continue
		}
		entries, err := os.ReadDir(dir)
		if err != nil && dir != a.CNIBin {
			continue
		}
		f.CNIBin = dir
		for _, e := range entries {
			f.Plugins = append(f.Plugins, e.Name())
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// overlay says why there is no overlayfs; a module that is not loaded yet counts as
// there, for the kernel loads it when it is first used.
func overlay(release string) string {
	if b, err := os.ReadFile("/proc/filesystems"); err == nil && bytes.Contains(b, []byte("\toverlay\n")) {
		return ""
	}
	for _, list := range []string{"modules.builtin", "modules.dep"} {
		if b, err := os.ReadFile(filepath.Join("/lib/modules", release, list)); err == nil && bytes.Contains(b, []byte("/overlay.ko")) {
			return ""
		}
	}
	return "it is neither in the kernel nor among its modules"
}

func namespaces() string {
	var missing []string
	for _, ns := range []string{"ipc", "mnt", "net", "pid", "uts"} {
		if !exists("/proc/self/ns/" + ns) {
			missing = append(missing, ns)
		}
	}
	if len(missing) > 0 {
		return "the kernel has none of " + strings.Join(missing, ", ")
	}
	return ""
}

func cgroups(root string) Cgroups {
	if b, err := os.ReadFile(filepath.Join(root, "cgroup.controllers")); err == nil {
		return Cgroups{Kind: "v2", Controllers: strings.Fields(string(b))}
	}
	var c Cgroups
	entries, _ := os.ReadDir(root)
	for _, e := range entries {
		if exists(filepath.Join(root, e.Name(), "cgroup.procs")) && e.Name() != "unified" && e.Name() != "systemd" {
			c.Controllers = append(c.Controllers, strings.Split(e.Name(), ",")...)
		}
	}
	if len(c.Controllers) > 0 {
		c.Kind = "v1"
		if exists(filepath.Join(root, "unified", "cgroup.controllers")) {
			c.Kind = "hybrid"
		}
	}
	slices.Sort(c.Controllers)
	c.Controllers = slices.Compact(c.Controllers)
	return c
}

func askRuntime(ctx context.Context, ask func(context.Context) (string, error)) Runtime {
	ctx, cancel := context.WithTimeout(ctx, runtimeTimeout)
	defer cancel()
	version, err := ask(ctx)
	if err != nil {
		return Runtime{Asked: true, Problem: err.Error()}
	}
	return Runtime{Asked: true, Version: version}
}

// rules are of the kinds that agent/traffic makes.
const rules = `table ip orchcheck {
	chain pick {
		dnat to numgen random mod 2 map { 0 : 10.0.0.2, 1 : 10.0.0.3 }
	}
	map services {
		type ipv4_addr . inet_proto . inet_service : verdict
		elements = { 10.0.0.1 . tcp . 80 : jump pick }
	}
	chain prerouting {
		type nat hook prerouting priority -100
		ip daddr . meta l4proto . th dport vmap @services
		fib daddr type local return
	}
	chain postrouting {
		type nat hook postrouting priority 100
		ip saddr 10.0.0.0/8 masquerade
	}
}
`

// networkTimeout is for nft, which answers in milliseconds.
const networkTimeout = 5 * time.Second

// tryNetwork makes links and rules where nobody else sees them. The namespace goes
// with the thread that made it, and all that is in it.
func tryNetwork(ctx context.Context) map[string]string {
	out := map[string]string{}
	say := func(what string, err error) {
		out[what] = ""
		if err != nil {
			out[what] = err.Error()
		}
	}
	inOwnNetwork(func(err error) {
		if err != nil {
			say("namespaces", fmt.Errorf("make a network namespace: %w", err))
			return
		}
		say("veth", netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "orchcheck0"}, PeerName: "orchcheck1"}))
		say("vxlan", netlink.LinkAdd(&netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "orchcheck2"}, VxlanId: 1, Port: network.TunnelPort}))
		ctx, cancel := context.WithTimeout(ctx, networkTimeout)
		defer cancel()
		nft := exec.CommandContext(ctx, "nft", "-f", "-") // in this thread's namespace
		nft.Stdin = strings.NewReader(rules)
		said, err := nft.CombinedOutput()
		if first, _, _ := strings.Cut(strings.TrimSpace(string(said)), "\n"); err != nil && first != "" {
			err = errors.New(strings.TrimPrefix(first, "/dev/stdin:"))
		}
		say("nftables", err)
	})
	return out
}

// forwardDrop asks for the chain that iptables and Docker have.
func forwardDrop(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, networkTimeout)
	defer cancel()
	said, err := exec.CommandContext(ctx, "nft", "list", "chain", "ip", "filter", "FORWARD").Output()
	return err == nil && dropsForwarded(string(said)) // without that chain nothing is dropped in it
}

func dropsForwarded(chain string) bool {
	return strings.Contains(chain, "hook forward") && strings.Contains(chain, "policy drop")
}

// tryPorts fills in who is in the way.
func tryPorts(ports []Port) []Port {
	ports = slices.Clone(ports)
	held := listeners()
	for i := range ports {
		p := &ports[i]
		host, port, err := net.SplitHostPort(p.Address)
		if err != nil {
			p.Problem = err.Error()
			continue
		}
		if p.Everywhere {
			if h, ok := held.find(p.Network, "", port); ok {
				p.Problem, p.Holder = "somebody listens at that port of all addresses", h
			}
			continue
		}
		if p.Problem = bind(p.Network, p.Address); p.Problem != "" {
			p.Holder, _ = held.find(p.Network, cmp.Or(host, "0.0.0.0"), port)
		}
	}
	return ports
}

func bind(kind, address string) string {
	var c interface{ Close() error }
	var err error
	if kind == "udp" {
		c, err = net.ListenPacket(kind, address)
	} else {
		c, err = net.Listen(kind, address)
	}
	switch {
	case err == nil:
		c.Close()
		return ""
	case errors.Is(err, syscall.EADDRINUSE):
		return "in use"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "this machine has no such address"
	case errors.Is(err, fs.ErrPermission):
		return "not permitted"
	}
	return err.Error()
}

func synchronized() bool {
	var t unix.Timex
	_, err := unix.Adjtimex(&t)
	return err == nil && t.Status&unix.STA_UNSYNC == 0
}

// tryDisk writes so many times where the folder is, or will be made.
func tryDisk(path string, tries int) Disk {
	dir := path
	for !exists(dir) && dir != filepath.Dir(dir) {
		dir = filepath.Dir(dir)
	}
	d := Disk{Path: path}
	var s unix.Statfs_t
	if unix.Statfs(dir, &s) == nil {
		d.Free, d.Total = s.Bavail*uint64(s.Bsize), s.Blocks*uint64(s.Bsize)
	}
	file, err := os.CreateTemp(dir, ".orch-check-*")
	if err != nil {
		d.Problem = err.Error()
		return d
	}
	defer os.Remove(file.Name())
	defer file.Close()
	var took []time.Duration
	for began := time.Now(); len(took) < tries && time.Since(began) < syncBudget; {
		start := time.Now()
		_, err := file.Write(make([]byte, syncBytes))
		if err = cmp.Or(err, unix.Fdatasync(int(file.Fd()))); err != nil {
			d.Problem = "write " + path + ": " + err.Error()
			return d
		}
		took = append(took, time.Since(start))
	}
	if slices.Sort(took); tries == 0 {
		return d
	}
	d.Sync, d.Slowest = took[len(took)/2], took[len(took)-1]
	return d
}

// routes are those that orch has not made itself.
func routes() []Route {
	list, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil // what cannot be read is not judged
	}
	var out []Route
	for _, r := range list {
		if r.Dst == nil || r.Protocol == network.RouteProtocol {
			continue
		}
		to, ok := prefixOf(r.Dst)
		if !ok {
			continue
		}
		device := ""
		if l, err := netlink.LinkByIndex(r.LinkIndex); err == nil {
			device = l.Attrs().Name
		}
		out = append(out, Route{To: to, Device: device})
	}
	return out
}

func reach(ctx context.Context, controllers []string) map[string]string {
	if len(controllers) == 0 {
		return nil
	}
	out := map[string]string{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, at := range controllers {
		wg.Go(func() {
			d := net.Dialer{Timeout: reachTimeout}
			conn, err := d.DialContext(ctx, "tcp", at)
			problem := ""
			if err == nil {
				conn.Close()
			} else {
				problem = innermost(err)
			}
			mu.Lock()
			defer mu.Unlock()
			out[at] = problem
		})
	}
	wg.Wait()
	return out
}

// innermost is "connection refused", without the layers that say what we know.
func innermost(err error) string {
	var sys *os.SyscallError
	if errors.As(err, &sys) {
		return sys.Err.Error()
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err.Error()
	}
	return err.Error()
}
