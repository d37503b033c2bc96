package netdev

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/orchctl/orch/api"
)

// ifName is the interface inside a replica's namespace.
const ifName = "eth0"

// idOf names a replica's namespace, record and CNI attachment. Names in orch
// hold no underscore, so no two replicas share one.
func idOf(k api.ReplicaKey) string {
	return fmt.Sprintf("%s_%s_%d_%d", k.Namespace, k.Service, k.Slot, k.Epoch)
}

func (n *Network) recordDir() string           { return filepath.Join(n.cfg.StateDir, "replicas") }
func (n *Network) recordPath(id string) string { return filepath.Join(n.recordDir(), id+".json") }
func (n *Network) netns(id string) string      { return filepath.Join(n.cfg.NetNSDir, id) }

func (n *Network) runtimeConf(id string) *libcni.RuntimeConf {
	return &libcni.RuntimeConf{ContainerID: id, NetNS: n.netns(id), IfName: ifName}
}

// lock takes the mutex of one id.
func (n *Network) lock(id string) (unlock func()) {
	h := fnv.New32a()
	h.Write([]byte(id))
	m := &n.busy[h.Sum32()%uint32(len(n.busy))]
	m.Lock()
	return m.Unlock
}

// save writes a record and remembers it.
func (n *Network) save(id string, rec *record) error {
	b, err := json.Marshal(rec)
	if err != nil {
		return fmt.Errorf("write network record: %w", err)
	}
	if err := writeFile(n.recordPath(id), b); err != nil {
		return fmt.Errorf("write network record: %w", err)
	}
	n.mu.Lock()
	n.records[id] = rec
	n.mu.Unlock()
	return nil
}

// writeFile replaces a file whole. Not synced: after a power cut there is no
// namespace that a record could speak of, and a torn one is cleared away.
func writeFile(path string, b []byte) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, b, 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// addressOf finds the IPv4 address in a CNI result.
func addressOf(res types.Result) (netip.Addr, error) {
	r, err := types100.NewResultFromResult(res)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("read the result of CNI: %w", err)
	}
	for _, c := range r.IPs {
		if ip, ok := netip.AddrFromSlice(c.Address.IP); ok && ip.Unmap().Is4() {
			return ip.Unmap(), nil
		}
	}
	return netip.Addr{}, errors.New("read the result of CNI: it holds no IPv4 address")
}

// newNetNS makes a network namespace with its loopback up and binds it to path.
func newNetNS(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
	if err != nil {
		return fmt.Errorf("make network namespace: %w", err)
	}
	f.Close()
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread is in the new namespace and must end
		// with this goroutine instead of serving another.
		runtime.LockOSThread()
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("unshare: %w", err)
			}
			lo, err := netlink.LinkByName("lo")
			if err != nil {
				return fmt.Errorf("find loopback: %w", err)
			}
			if err := netlink.LinkSetUp(lo); err != nil {
				return fmt.Errorf("set loopback up: %w", err)
			}
			self := fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid())
			if err := unix.Mount(self, path, "", unix.MS_BIND, ""); err != nil {
				return fmt.Errorf("bind: %w", err)
			}
			return nil
		}()
	}()
	if err := <-done; err != nil {
		os.Remove(path)
		return fmt.Errorf("make network namespace %s: %w", path, err)
	}
	return nil
}

// isNetNS tells whether a namespace is bound to path; after a reboot there may
// be a file only.
func isNetNS(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.NSFS_MAGIC
}

// removeNetNS unbinds a namespace; with it go its interfaces once the last
// process has left it. One that is not there is no error.
func removeNetNS(path string) error {
	for isNetNS(path) {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unbind network namespace %s: %w", path, err)
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove network namespace: %w", err)
	}
	return nil
}

// Within runs f on a thread in the network namespace that is bound to path.
func Within(path string, f func()) error {
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return fmt.Errorf("enter network namespace: %w", err)
	}
	defer ns.Close()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
		err := netns.Set(ns)
		if err == nil {
			f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		return fmt.Errorf("enter network namespace: %w", err)
	}
	return nil
}
