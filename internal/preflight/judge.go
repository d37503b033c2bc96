package preflight

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/orchctl/orch/api"
)

const (
	// kernelMin has what the agent is built on: pidfds and mounts by descriptor.
	kernelMin = "5.4"
	// kernelBinds refuses paths that lead out of a folder (openat2).
	kernelBinds = "5.6"
	// syncSlow is where etcd's own guide puts the limit for its log, and syncBad where
	// a write takes so long that the lead may change hands because of it.
	syncSlow = 10 * time.Millisecond
	syncBad  = 500 * time.Millisecond
	// freeMin is what should be free on the disk, in bytes: a few images, or growth of
	// etcd's data. On a small disk a share of it will do, in percent.
	freeMin   = 5 << 30
	freeShare = 20
	// filesMin is what a controller needs for a thousand agents' sessions and etcd.
	filesMin = 4096
	// containerdMin and containerdMax are the first and last versions that orch is
	// tested against, as major.minor; any 2.x counts.
	containerdMin = "1.6"
	containerdMax = "2"
)

// AgentSettings are what a node is to do.
type AgentSettings struct {
	Name string // the node's
	// Ranges are those of replicas and virtual IPs, if they are known or likely.
	Ranges []netip.Prefix
	Joined bool
	// ImagesFull is how much of the disk may be used before images are cleaned away, in
	// percent; 0: they never are.
	ImagesFull uint64
}

// Agent judges a machine that is to be a node.
func Agent(s AgentSettings, f Facts) Report {
	var r Report
	r.root(f)
	r.name(s.Name)
	r.kernel(f)
	r.features(f)
	r.cgroups(f)
	r.swap(f)
	r.containerd(f.Runtime)
	r.programs(f)
	r.plugins(f)
	r.ports(f.Ports)
	if f.ForwardDrop {
		r.warn("forward", "a firewall on this machine drops what is forwarded, as Docker sets it: replicas may not reach other nodes",
			"let the cluster's range pass, as in: iptables -I FORWARD -s 10.64.0.0/10 -j ACCEPT; iptables -I FORWARD -d 10.64.0.0/10 -j ACCEPT")
	}
	r.clock(f.Clock)
	r.disk(f.Disk, "the agent, which remembers there what runs")
	if d := f.Disk; s.ImagesFull > 0 && d.Total > 0 && (d.Total-d.Free)*100 >= d.Total*s.ImagesFull {
		r.warn("images", fmt.Sprintf("%d %% of the disk of %s is used: if containerd's images are on it, those that nothing uses are removed from %d %% on", (d.Total-d.Free)*100/d.Total, d.Path, s.ImagesFull),
			"make room, or raise --image-gc-high")
	}
	r.ranges(s.Ranges, f.Routes)
	r.reached(s.Joined, f.Reached)
	return r
}

// ControllerSettings are what a controller is to do.
type ControllerSettings struct {
	Name     string // "": there is none
	Ranges   []netip.Prefix
	External bool // etcd runs elsewhere
	// Quota is what etcd's data may grow to, in bytes.
	Quota uint64
}

// Controller judges a machine that is to run a controller.
func Controller(s ControllerSettings, f Facts) Report {
	var r Report
	if s.Name == "" {
		r.hard("name", "the machine has no name", "say --name")
	}
	r.ports(f.Ports)
	r.clock(f.Clock)
	whose := "etcd, which answers when a change is on disk"
	if s.External {
		whose = "the controller's keys and images"
	}
	r.disk(f.Disk, whose)
	if !s.External && f.Disk.Problem == "" && f.Disk.Total > 0 && f.Disk.Free < s.Quota {
		r.warn("etcd", fmt.Sprintf("its data may grow to %s, and the disk of %s has %s free", size(s.Quota), f.Disk.Path, size(f.Disk.Free)),
			"make room, or choose a larger disk with --data")
	}
	if f.Files > 0 && f.Files < filesMin {
		r.warn("files", fmt.Sprintf("the process may open %d files: each agent and user takes some", f.Files),
			fmt.Sprintf("raise the limit: LimitNOFILE=65536 in a systemd unit, or ulimit -n %d in the shell", filesMin))
	} else if f.Files > 0 {
		r.ok("files", "%d may be open", f.Files)
	}
	r.ranges(s.Ranges, f.Routes)
	return r
}

func (r *Report) root(f Facts) {
	if !f.Root {
		r.hard("root", "not run as root", "run it as root: it makes namespaces, mounts and rules of the kernel")
	}
}

func (r *Report) name(name string) {
	if err := api.CheckName(name, api.MaxNamespaceName); err != nil {
		r.hard("name", err.Error(), "say --name, with lower-case letters, digits and dashes")
		return
	}
	r.ok("name", "%s", name)
}

func (r *Report) kernel(f Facts) {
	switch {
	case older(f.Kernel, kernelMin):
		r.hard("kernel", "Linux "+f.Kernel+" is too old", "upgrade to "+kernelMin+" or later; Debian 12 has 6.1, Ubuntu 22.04 has 5.15")
	case older(f.Kernel, kernelBinds):
		r.warn("kernel", "Linux "+f.Kernel+": bind mounts of replicas are refused", "upgrade to "+kernelBinds+" or later if services have such mounts")
	default:
		r.ok("kernel", "Linux %s", f.Kernel)
	}
}

// features are what the kernel must do, with what to do where it does not.
var features = map[string]string{
	"overlayfs":  "load it (modprobe overlay) or choose a kernel that has it: images are made of layers",
	"namespaces": "choose a kernel with CONFIG_NET_NS, CONFIG_PID_NS and CONFIG_UTS_NS; in a container, give it the right to make namespaces",
	"veth":       "load it (modprobe veth) or choose a kernel that has it: replicas are connected by it",
	"vxlan":      "load it (modprobe vxlan) or choose a kernel that has it; a cluster whose nodes share one segment does without: --routes direct at the controller",
	"nftables":   "apt-get install nftables, and choose a kernel with CONFIG_NF_TABLES and CONFIG_NFT_NAT: virtual IPs and published ports are made of its rules",
}

// softFeatures are only needed in some clusters.
var softFeatures = []string{"vxlan"}

func (r *Report) features(f Facts) {
	var good []string
	for _, name := range slices.Sorted(maps.Keys(f.Features)) {
		problem := f.Features[name]
		switch {
		case problem == "":
			good = append(good, name)
		case slices.Contains(softFeatures, name):
			r.warn(name, "the kernel refuses it: "+problem, features[name])
		default:
			r.hard(name, "does not work: "+problem, features[name])
		}
	}
	if len(good) > 0 {
		r.ok("features", "%s", strings.Join(good, ", "))
	}
	if !f.Pressure && f.Kernel != "" {
		r.warn("pressure", "the kernel does not tell how long processes wait for cpu, memory and disk (PSI)", "boot with psi=1 to see it; nothing else needs it")
	}
}

// needed are the controllers that replicas' limits rest on.
var needed = []string{"cpu", "memory", "pids"}

func (r *Report) cgroups(f Facts) {
	if f.Cgroups.Kind == "" {
		r.hard("cgroups", "no tree is mounted at /sys/fs/cgroup", "mount it, as systemd does: containers are limited by it")
		return
	}
	want := needed
	if f.Cgroups.Kind != "v2" {
		want = append(slices.Clone(needed), "devices", "freezer") // v2 does these without a controller
	}
	var missing []string
	for _, c := range want {
		if !slices.Contains(f.Cgroups.Controllers, c) {
			missing = append(missing, c)
		}
	}
	if len(missing) > 0 {
		remedy := "boot without cgroup_disable=, and with systemd.unified_cgroup_hierarchy=1 for v2"
		if slices.Contains(missing, "memory") {
			remedy = "boot with cgroup_enable=memory, and without cgroup_disable="
		}
		r.hard("cgroups", fmt.Sprintf("%s without the controllers %s", f.Cgroups.Kind, strings.Join(missing, ", ")), remedy)
		return
	}
	r.ok("cgroups", "%s, with %s", f.Cgroups.Kind, strings.Join(want, ", "))
}

func (r *Report) swap(f Facts) {
	if f.Swap {
		r.ok("swap", "there is some; replicas with a limit of memory do not use it")
	}
}

var versionForm = regexp.MustCompile(`(\d+)\.(\d+)`)

func (r *Report) containerd(c Runtime) {
	switch {
	case !c.Asked:
	case c.Problem != "":
		r.hard("containerd", c.Problem, "apt-get install containerd and start it (systemctl start containerd), or say where its socket is with --containerd")
	default:
		r.version(c.Version)
	}
}

// Containerd judges a version, as containerd tells it: "containerd 1.6.20".
func Containerd(version string) Report {
	var r Report
	r.version(version)
	return r
}

func (r *Report) version(v string) {
	m := versionForm.FindString(v)
	major, _, _ := strings.Cut(m, ".")
	switch {
	case m == "":
		r.warn("containerd", fmt.Sprintf("it does not say which version it is (%q)", v), "orch works with "+containerdMin+" to "+containerdMax+".x")
	case older(m, containerdMin):
		r.hard("containerd", v+" is too old", "upgrade to "+containerdMin+" or later: Debian 12 and Ubuntu 22.04 have it")
	case newer(major, containerdMax):
		r.warn("containerd", v+" is newer than what orch was tested with", "if containers do not start, go back to "+containerdMax+".x")
	default:
		r.ok("containerd", "%s", strings.TrimPrefix(v, "containerd "))
	}
}

// packages are where programs come from.
var packages = map[string]string{"runc": "runc", "containerd-shim-runc-v2": "containerd", "nft": "nftables"}

func (r *Report) programs(f Facts) {
	var found []string
	for _, name := range slices.Sorted(maps.Keys(f.Programs)) {
		path := f.Programs[name]
		if path != "" {
			found = append(found, path)
			continue
		}
		finding := Finding{Check: name, Level: Fail, What: "not found in PATH", Remedy: "apt-get install " + cmp.Or(packages[name], name)}
		finding.Hard = name == "nft" // the others are containerd's, whose PATH may be another
		*r = append(*r, finding)
	}
	if len(found) > 0 {
		r.ok("programs", "%s", strings.Join(found, ", "))
	}
}

// plugins that the agent runs.
var pluginsNeeded = []string{"ptp", "host-local"}

func (r *Report) plugins(f Facts) {
	const remedy = "apt-get install containernetworking-plugins, or say where they are with --cni-bin"
	var missing []string
	for _, p := range pluginsNeeded {
		if !slices.Contains(f.Plugins, p) {
			missing = append(missing, p)
		}
	}
	switch {
	case f.CNIBin == "":
		r.hard("cni", "no CNI plugins in /usr/lib/cni or /opt/cni/bin", remedy)
	case len(missing) > 0:
		r.hard("cni", fmt.Sprintf("no %s in %s", strings.Join(missing, ", "), f.CNIBin), remedy)
	default:
		r.ok("cni", "%s in %s", strings.Join(pluginsNeeded, ", "), f.CNIBin)
	}
}

func (r *Report) ports(ports []Port) {
	var free []string
	for _, p := range ports {
		where := fmt.Sprintf("%s %s (%s)", strings.ToUpper(p.Network), p.Address, p.What)
		switch {
		case p.Problem == "":
			free = append(free, where)
		case ours(p.Holder):
			r.ok("port", "%s is held by %s, which runs already", where, p.Holder)
		default:
			r.fail("port", where+": "+p.Problem+heldBy(p.Holder), portRemedy(p))
		}
	}
	if len(free) > 0 {
		r.ok("ports", "free: %s", strings.Join(free, ", "))
	}
}

// ours tells whether one of orch's own holds a port.
func ours(holder string) bool {
	name, _, _ := strings.Cut(holder, " ")
	return slices.Contains([]string{"agent", "controller", "orch-agent", "orch-controller"}, name)
}

func heldBy(holder string) string {
	if holder == "" {
		return ""
	}
	return ", held by " + holder
}

func portRemedy(p Port) string {
	port := p.Address[strings.LastIndex(p.Address, ":")+1:]
	stop := "stop who holds it (ss -lntup shows it)"
	switch {
	case p.Flag != "":
		return stop + ", or choose another with " + p.Flag
	case port == "53":
		return "let it listen at its own addresses only (dnsmasq: bind-interfaces; unbound, named: interface or listen-on), or stop it: replicas ask for names at the first address of their node's subnet"
	}
	return stop
}

func (r *Report) clock(c Clock) {
	switch {
	case !c.Asked:
	case c.Synchronized:
		r.ok("clock", "synchronized")
	default:
		r.warn("clock", "not synchronized: certificates and timestamps rest on it", "apt-get install systemd-timesyncd (or chrony), and let it reach a time server")
	}
}

func (r *Report) disk(d Disk, whose string) {
	if d.Path == "" {
		return
	}
	if d.Problem != "" {
		r.hard("data", d.Problem, "make the folder writable, or choose another with --data")
		return
	}
	r.speed(d, whose)
	if d.Total == 0 {
		return
	}
	free := fmt.Sprintf("%s of %s free at %s", size(d.Free), size(d.Total), d.Path)
	if d.Free < freeMin && d.Free*100 < d.Total*freeShare {
		r.warn("space", free, "make room: a full disk stops new containers and, on a controller, every change")
		return
	}
	r.ok("space", "%s", free)
}

func (r *Report) speed(d Disk, whose string) {
	took := fmt.Sprintf("a write to %s takes %s to be on disk (the slowest %s)", d.Path, round(d.Sync), round(d.Slowest))
	switch {
	case d.Sync == 0: // not tried
	case d.Sync >= syncBad:
		r.fail("disk", took, "choose a faster disk, with --data: it is for "+whose)
	case d.Sync >= syncSlow:
		r.warn("disk", took, "choose a faster disk, with --data, if it stays so: it is for "+whose)
	default:
		r.ok("disk", "%s", took)
	}
}

func (r *Report) ranges(ranges []netip.Prefix, routes []Route) {
	if len(ranges) == 0 {
		return
	}
	bad := false
	for _, want := range ranges {
		for _, have := range routes {
			if have.To.Bits() == 0 || !want.Overlaps(have.To) {
				continue
			}
			bad = true
			r.warn("ranges", fmt.Sprintf("orch's %s overlaps this machine's route to %s (%s)", want, have.To, cmp.Or(have.Device, "no device")),
				"choose others with --cluster-cidr and --service-cidr at the controller, before its first start")
		}
	}
	if !bad {
		var words []string
		for _, w := range ranges {
			words = append(words, w.String())
		}
		r.ok("ranges", "%s overlap no route of this machine", strings.Join(words, " and "))
	}
}

func (r *Report) reached(joined bool, reached map[string]string) {
	var good, bad []string
	for _, at := range slices.Sorted(maps.Keys(reached)) {
		if reached[at] == "" {
			good = append(good, at)
		} else {
			bad = append(bad, at+" ("+reached[at]+")")
		}
	}
	const remedy = "check the address, that the controller runs, and that firewalls let TCP through to it"
	if len(good) > 0 {
		r.ok("controllers", "%s reached", strings.Join(good, ", "))
	}
	switch {
	case len(bad) == 0:
	case joined || len(good) > 0:
		r.warn("controllers", "not reached: "+strings.Join(bad, ", "), remedy)
	default:
		r.fail("controllers", "not reached: "+strings.Join(bad, ", "), remedy+": this node has not joined yet")
	}
}

func round(d time.Duration) time.Duration {
	if d < time.Millisecond {
		return d.Round(10 * time.Microsecond)
	}
	return d.Round(100 * time.Microsecond)
}

func size(n uint64) string {
	const gib = 1 << 30
	if n < gib {
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/gib)
}

// older compares versions by their first two numbers; what is no version is not older.
func older(a, b string) bool { return compare(a, b) < 0 }

func newer(a, b string) bool { return compare(a, b) > 0 }

func compare(a, b string) int {
	x, y := numbers(a), numbers(b)
	if len(x) == 0 || len(y) == 0 {
		return 0
	}
	return slices.Compare(x, y)
}

var leading = regexp.MustCompile(`^\d+(\.\d+)?`)

func numbers(v string) []int {
	var out []int
	for _, part := range strings.Split(leading.FindString(v), ".") {
		if n, err := strconv.Atoi(part); err == nil {
			out = append(out, n)
		}
	}
	return out
}
