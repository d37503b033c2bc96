package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// ErrNeedsLinux is what `orchctl lab` answers on other systems.
var ErrNeedsLinux = errors.New("the lab needs Linux: it is made of namespaces, cgroups and veth links")

const (
	// NodesMax is the largest lab: a node's number is the last byte of its
	// address, offset by addressOffset, and must stay below 255.
	NodesMax = 200
	// addressOffset is the last byte of the address of "node 0": n1 gets
	// .11, which leaves .1 to .10 for controllers.
	addressOffset = 10
	// socketPathMax is the kernel's limit on a socket's path, in bytes.
	socketPathMax = 107
	// controllerName is the controller's host; no node can be called so.
	controllerName = "controller"
	// controllerPort is where agents find the controller.
	controllerPort = 7070
	// DefaultDir holds labs, one folder each, unless ORCH_LAB_DIR names
	// another place.
	DefaultDir = "/var/lib/orch/lab"
	// DefaultName is the lab's name where none is given.
	DefaultName = "default"
)

// Daemons says which programs a lab starts.
type Daemons int

const (
	// All starts the controller, and containerd and an agent on each node.
	All Daemons = iota
	// ContainerdOnly starts containerd on each node and nothing else.
	ContainerdOnly
	// Empty starts nothing: nodes are servers on which orch is yet to be installed.
	// What they write to /etc, /usr/local and /root is their own. containerd can be
	// started on them as a program of theirs.
	Empty
)

// Config describes a lab to be made. The zero value of a field means the
// default named beside it.
type Config struct {
	Name  string // letters, digits and dashes, at most 32; "default"
	Dir   string // the lab's own folder; DirFor(Name)
	Nodes int    // nodes to start with, n1 to nN; 0 makes none
	// BinDir holds the built binaries controller, agent and shim; it has no
	// default.
	BinDir string
	// Subnet is the nodes' network, a /24; 10.200.0.0/24. The controller has
	// .1, node nI has .(10+I). Several labs may use the same one.
	Subnet netip.Prefix
	// Replicas is where nodes' replica subnets come from, a /24 each as the
	// controller gives them; 10.64.0.0/16. Several labs may use the same one.
	Replicas netip.Prefix
	// Routes says how packets of replicas get from node to node: auto, direct or
	// vxlan; empty leaves it to the controller, which means auto.
	Routes     string `json:",omitempty"`
	Containerd string // path of containerd; looked up in PATH
	CNIBin     string // folder of the CNI plugins; /usr/lib/cni or /opt/cni/bin
	// Capacity is handed to every agent as --capacity, as in
	// "cpu=2,memory=4Gi"; empty lets agents detect their machine's.
	Capacity string
	// Labels are handed to the agent of the named node.
	Labels         map[string]map[string]string
	AgentArgs      []string // appended to every agent's command line
	ControllerArgs []string // appended to the controller's
	// Limits are handed to the controller as --limit, each as "name=value".
	Limits  []string `json:",omitempty"`
	Daemons Daemons  // All
	// Progress is told of each step, from several goroutines but one at a
	// time; nil says nothing.
	Progress func(step string) `json:"-"`
}

var nameForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)

// ValidName says why a name cannot be a lab's.
func ValidName(name string) error {
	if !nameForm.MatchString(name) {
		return fmt.Errorf("lab name %q: want at most 32 lower-case letters, digits and dashes, neither first nor last a dash", name)
	}
	return nil
}

// check fills in defaults that need no look at the machine and refuses what
// cannot work.
func (c *Config) check() error {
	if c.Name == "" {
		c.Name = DefaultName
	}
	if err := ValidName(c.Name); err != nil {
		return err
	}
	if c.Dir == "" {
		c.Dir = DirFor(c.Name)
	}
	if c.Nodes < 0 || c.Nodes > NodesMax {
		return fmt.Errorf("make lab %s: %d nodes: want 0 to %d", c.Name, c.Nodes, NodesMax)
	}
	var err error
	if c.Dir, err = filepath.Abs(c.Dir); err != nil {
		return err
	}
	if c.Dir == "/" {
		return fmt.Errorf("make lab %s: the folder / cannot be a lab's own: it is removed with the lab", c.Name)
	}
	longest := fmt.Sprintf("%s/nodes/n%d/init.sock", c.Dir, NodesMax)
	if len(longest) > socketPathMax {
		return fmt.Errorf("make lab %s: folder %s: its sockets' paths would have %d bytes, the kernel takes %d: choose a shorter folder", c.Name, c.Dir, len(longest), socketPathMax)
	}
	if c.BinDir == "" {
		return fmt.Errorf("make lab %s: no folder of built binaries given", c.Name)
	}
	if c.BinDir, err = filepath.Abs(c.BinDir); err != nil {
		return err
	}
	if !c.Subnet.IsValid() {
		c.Subnet = netip.MustParsePrefix("10.200.0.0/24")
	}
	if !c.Subnet.Addr().Is4() || c.Subnet.Bits() != 24 {
		return fmt.Errorf("make lab %s: subnet %s: want an IPv4 /24", c.Name, c.Subnet)
	}
	c.Subnet = c.Subnet.Masked()
	if !c.Replicas.IsValid() {
		c.Replicas = netip.MustParsePrefix("10.64.0.0/16")
	}
	if !c.Replicas.Addr().Is4() || c.Replicas.Bits() > 24 {
		return fmt.Errorf("make lab %s: replica network %s: want an IPv4 /24 or wider: each node gets a /24", c.Name, c.Replicas)
	}
	if c.Routes != "" && !slices.Contains([]string{"auto", "direct", "vxlan"}, c.Routes) {
		return fmt.Errorf("make lab %s: routes %q: want auto, direct or vxlan", c.Name, c.Routes)
	}
	for _, l := range c.Limits {
		if name, _, ok := strings.Cut(l, "="); !ok || name == "" {
			return fmt.Errorf("make lab %s: limit %q: want name=value, such as dead-after=90s", c.Name, l)
		}
	}
	c.Replicas = c.Replicas.Masked()
	if c.Replicas.Overlaps(c.Subnet) {
		return fmt.Errorf("make lab %s: replica network %s overlaps the nodes' %s", c.Name, c.Replicas, c.Subnet)
	}
	return nil
}

// address is the Ith address of the nodes' network.
func address(subnet netip.Prefix, i int) netip.Addr {
	a := subnet.Addr().As4()
	a[3] = byte(i)
	return netip.AddrFrom4(a)
}

// agentArgs is the command line of a node's agent.
func agentArgs(c *Config, n *nodeState, h host) []string {
	args := []string{
		filepath.Join(c.BinDir, "agent"),
		"--name", n.Name,
		"--data", filepath.Join(h.dir, "agent"),
		"--containerd", containerdSocket,
		"--join", netip.AddrPortFrom(address(c.Subnet, 1), controllerPort).String(),
		"--token-file", filepath.Join(c.Dir, tokenFile),
		"--address", n.Address.String(),
		"--shim", filepath.Join(c.BinDir, "shim"),
		"--cni-bin", c.CNIBin,
		"--cgroup-parent", h.replicasCgroup(),
		"--boot-id-file", filepath.Join(h.dir, bootIDFile),
		"--image-gc-high", "0", // the disk is this machine's: what fills it is not the node's
	}
	if c.Capacity != "" {
		args = append(args, "--capacity", c.Capacity)
	}
	for _, k := range sortedKeys(c.Labels[n.Name]) {
		args = append(args, "--label", k+"="+c.Labels[n.Name][k])
	}
	return append(args, c.AgentArgs...)
}

// ownFolders are those that nodes of an Empty lab have to themselves: each begins
// as the machine's, and what is written there stays in the node's folder.
var ownFolders = []string{"/etc", "/usr/local", "/root"}

// controllerArgs is the command line of the controller.
func controllerArgs(c *Config, h host) []string {
	args := []string{
		filepath.Join(c.BinDir, "controller"),
		"--data", filepath.Join(h.dir, "data"),
		"--listen", netip.AddrPortFrom(address(c.Subnet, 1), controllerPort).String(),
		"--socket", filepath.Join(c.Dir, controllerSocket),
		"--write-admin-context", filepath.Join(c.Dir, contextFile),
		"--node-token-file", filepath.Join(c.Dir, tokenFile),
		"--cluster-cidr", c.Replicas.String(),
	}
	if c.Routes != "" {
		args = append(args, "--routes", c.Routes)
	}
	for _, l := range c.Limits {
		args = append(args, "--limit", l)
	}
	return append(args, c.ControllerArgs...)
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// containerdConfig is the config.toml of a node's containerd. disabled_plugins
// must stand before any table. What orch does not use is left out: it makes
// the start faster and keeps hosts' other settings from leaking in.
func containerdConfig(root string) string {
	return strings.Join([]string{
		`version = 2`,
		`root = "` + filepath.Join(root, "root") + `"`,
		`state = "/run/containerd"`,
		`oom_score = -999`,
		`disabled_plugins = [` + strings.Join([]string{
			`"io.containerd.grpc.v1.cri"`,
			`"io.containerd.snapshotter.v1.aufs"`,
			`"io.containerd.snapshotter.v1.btrfs"`,
			`"io.containerd.snapshotter.v1.devmapper"`,
			`"io.containerd.snapshotter.v1.zfs"`,
			`"io.containerd.tracing.processor.v1.otlp"`,
			`"io.containerd.internal.v1.tracing"`,
		}, ", ") + `]`,
		`[grpc]`,
		`  address = "` + containerdSocket + `"`,
		`[plugins."io.containerd.internal.v1.opt"]`,
		`  path = "` + filepath.Join(root, "opt") + `"`,
		``,
	}, "\n")
}
