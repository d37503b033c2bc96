package lab

import (
	"net/netip"
	"os"
	"path"
	"path/filepath"
)

// The files of a lab's folder.
const (
	stateFile        = "lab.json"
	lockFile         = "lock"
	controllerSocket = "controller.sock"
	contextFile      = "admin.yaml"
	tokenFile        = "node-token"
	// containerdSocket is a path inside a node's mount namespace.
	containerdSocket = "/run/containerd/containerd.sock"
	// bootIDFile lies in a node's folder. The kernel's own boot id is the
	// same for all nodes of a lab.
	bootIDFile = "boot-id"
)

// DirFor is the default folder of the named lab.
func DirFor(name string) string {
	base := os.Getenv("ORCH_LAB_DIR")
	if base == "" {
		base = DefaultDir
	}
	return filepath.Join(base, name)
}

// netnsName is the outer network namespace's name, as `ip netns` shows it.
func netnsName(lab string) string { return "orchlab-" + lab }

// labCgroup is the cgroup that holds all cgroups of a lab, relative to each
// hierarchy's root.
func labCgroup(lab string) string { return path.Join("/orchlab", lab) }

// host names what belongs to one host of a lab: a node or the controller's.
type host struct {
	lab  string // the lab's name
	name string
	dir  string // the host's own folder
}

func hostOf(c *Config, name string) host {
	if name == controllerName {
		return host{lab: c.Name, name: name, dir: filepath.Join(c.Dir, name)}
	}
	return host{lab: c.Name, name: name, dir: filepath.Join(c.Dir, "nodes", name)}
}

func (h host) socket() string  { return filepath.Join(h.dir, "init.sock") }
func (h host) spec() string    { return filepath.Join(h.dir, "spec.json") }
func (h host) initLog() string { return filepath.Join(h.dir, "init.log") }

// log is where a program of the host writes.
func (h host) log(program string) string { return filepath.Join(h.dir, program+".log") }

// cgroup holds everything of the host, so that one freeze stops all of it.
func (h host) cgroup() string { return path.Join(labCgroup(h.lab), h.name) }

// daemonsCgroup holds PID 1, containerd and the agent.
func (h host) daemonsCgroup() string { return path.Join(h.cgroup(), "daemons") }

// replicasCgroup is where the agent puts containers; a limit on it fakes the
// node's capacity without touching the daemons beside it.
func (h host) replicasCgroup() string { return path.Join(h.cgroup(), "replicas") }

// nodeState is what is written down of a node.
type nodeState struct {
	Name    string
	Number  int // 1 for n1; the address follows from it
	Address netip.Addr
	BootID  string  // of the life that runs, or ran last
	Init    process // PID 1 of that life
}

// process names a process beyond the reuse of its number.
type process struct {
	Pid   int    // on the machine
	Start uint64 // in clock ticks since the machine's boot; see proc(5)
}
