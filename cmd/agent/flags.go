package main

import (
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/orchctl/orch/agent"
	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/daemon"
	"github.com/orchctl/orch/internal/metrics"
	"github.com/orchctl/orch/internal/registry"
	"github.com/orchctl/orch/internal/tracing"
	"github.com/orchctl/orch/internal/version"
)

// flags are the command line; each may also come from the environment, as
// ORCH_ and the name in capitals, and from the file that --config names.
type flags struct {
	name, data, containerd, token, tokenFile, address string
	shim, cniBin                                      string
	cgroupParent, bootIDFile, logLevel, metricsAddr   string
	join, labels, capacity, resources                 []string
	insecureRegistries, allowBind                     []string
	registryConfig, registryAuth                      string
	gossipPort, maxPulls, imageGCHigh, imageGCLow     int
	trace                                             tracing.Flags
	replicaCIDR, clusterCIDR                          string // of earlier versions
}

// hostnameLabel is on every node, so that services can name one.
const hostnameLabel = "orch/hostname"

// Where things lie if nothing is said.
const (
	defaultData       = "/var/lib/orch/agent"
	defaultContainerd = "/run/containerd/containerd.sock"
)

func newCommand() *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use:     "agent",
		Short:   "Run a node of an orch cluster",
		Version: version.String(),
		RunE:    func(cmd *cobra.Command, _ []string) error { return run(cmd.Context(), f) },
	}
	cmd.SetVersionTemplate("agent {{.Version}}\n")
	daemon.Prepare(cmd, os.LookupEnv)
	cmd.CompletionOptions.DisableDefaultCmd = true
	cmd.AddCommand(purgeCommand(), checkCommand())
	f.addTo(cmd.Flags())
	daemon.ConfigFile(cmd, "/etc/orch/agent.yaml")
	return cmd
}

// addTo defines the flags.
func (f *flags) addTo(p *pflag.FlagSet) {
	hostname, err := os.Hostname()
	if err != nil {
		hostname = ""
	}
	p.StringVar(&f.name, "name", strings.ToLower(strings.SplitN(hostname, ".", 2)[0]), "the node's name")
	p.StringVar(&f.data, "data", defaultData, "folder of the agent's own")
	p.StringVar(&f.containerd, "containerd", defaultContainerd, "containerd's socket")
	p.StringSliceVar(&f.join, "join", nil, "controllers, as host:port; repeat or separate by commas")
	p.StringVar(&f.token, "token", "", "join token; needed once (safer: --token-file)")
	p.StringVar(&f.tokenFile, "token-file", "", "file that holds the join token")
	p.StringVar(&f.address, "address", "", "the node's own IP; default: the one that leads to the first controller")
	p.StringVar(&f.shim, "shim", "", "path of the shim program; default: beside the agent")
	p.StringVar(&f.cniBin, "cni-bin", "", "folder of the CNI plugins; default: /usr/lib/cni or /opt/cni/bin")
	p.StringVar(&f.cgroupParent, "cgroup-parent", "/orch", "cgroup under which containers get their own")
	p.StringVar(&f.bootIDFile, "boot-id-file", daemon.BootIDFile, "file that names the machine's present life")
	p.StringArrayVar(&f.labels, "label", nil, "label of the node, as key=value; repeat for more")
	p.StringSliceVar(&f.capacity, "capacity", nil, "what replicas may use, as cpu=2,memory=4Gi; default: cores, and memory less a reserve")
	p.StringArrayVar(&f.resources, "resource", nil, "further resource that is only counted, as gpus=2; repeat for more")
	p.StringSliceVar(&f.insecureRegistries, "insecure-registry", nil, "registry that is spoken to without TLS, as host:port")
	p.StringVar(&f.registryConfig, "registry-config", registry.DefaultHostsDir, "folder with registries' settings: HOST/hosts.toml as containerd reads it, or HOST/*.crt, *.cert and *.key")
	p.StringVar(&f.registryAuth, "registry-auth", "/etc/orch/registry-auth.json", "file with logins to registries, as docker login writes it; need not exist")
	p.IntVar(&f.maxPulls, "max-pulls", 3, "images that are fetched at once")
	p.IntVar(&f.imageGCHigh, "image-gc-high", 85, "percent of the disk of images beyond which unused ones are removed; 0: never")
	p.IntVar(&f.imageGCLow, "image-gc-low", 75, "percent of the disk down to which they are")
	p.StringArrayVar(&f.allowBind, "allow-bind", nil, "folder of which replicas may have something mounted (mounts: bind); repeat for more; none: refused")
	p.IntVar(&f.gossipPort, "gossip-port", 7946, "port of gossip between nodes, UDP and TCP; 0: none")
	f.trace.AddTo(p)
	p.StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error")
	p.StringVar(&f.metricsAddr, "metrics-addr", "127.0.0.1:7074", "address to serve /metrics, /healthz and /readyz at, in plain HTTP, or \"off\"")
	// What earlier versions took, so that whoever still says it learns what to do.
	p.StringVar(&f.replicaCIDR, "replica-cidr", "", "")
	p.StringVar(&f.clusterCIDR, "cluster-cidr", "", "")
	for _, name := range []string{"replica-cidr", "cluster-cidr"} {
		if err := p.MarkHidden(name); err != nil {
			panic(err) // it was defined above
		}
	}
	daemon.Pairs(p, "label", "capacity", "resource")
	daemon.Secret(p, "token")
}

// settings are the flags, read and checked.
type settings struct {
	flags
	level      slog.Level
	addr       netip.Addr
	nodeLabels map[string]string
	resources  api.ResourceList
}

func (f flags) check() (settings, error) {
	s := settings{flags: f}
	bad := func(format string, args ...any) (settings, error) {
		return settings{}, daemon.Usagef(format, args...)
	}
	if err := api.CheckName(f.name, api.MaxNamespaceName); err != nil {
		return bad("--name: %w", err)
	}
	if len(f.join) == 0 {
		return bad("--join is required: give the address of a controller, such as --join 10.0.0.1:7070")
	}
	for _, j := range f.join {
		if _, _, err := net.SplitHostPort(j); err != nil {
			return bad("--join %q: want host:port, such as 10.0.0.1:7070", j)
		}
	}
	if err := registry.CheckInsecure(f.insecureRegistries); err != nil {
		return bad("--insecure-registry %w", err)
	}
	if err := s.level.UnmarshalText([]byte(f.logLevel)); err != nil {
		return bad("--log-level %q: want debug, info, warn or error", f.logLevel)
	}
	if f.replicaCIDR != "" || f.clusterCIDR != "" {
		return bad("--replica-cidr and --cluster-cidr are no flags of an agent any more: the controller gives each node a subnet, from the range that its own --cluster-cidr says; leave them out")
	}
	var err error
	if s.addr, err = ownAddress(f.address, f.join[0]); err != nil {
		return bad("--address: %w", err)
	}
	if !s.addr.Is4() {
		return bad("--address %s: replicas have IPv4 addresses, and routes between nodes need the node's own to be one; say --address", s.addr)
	}
	if f.gossipPort < 0 || f.gossipPort > api.MaxPort {
		return bad("--gossip-port %d: want a number from 1 to %d, or 0 for none", f.gossipPort, api.MaxPort)
	}
	if f.maxPulls < 1 {
		return bad("--max-pulls %d: want at least 1", f.maxPulls)
	}
	if f.imageGCHigh < 0 || f.imageGCHigh > 100 || f.imageGCHigh > 0 && (f.imageGCLow < 0 || f.imageGCLow >= f.imageGCHigh) {
		return bad("--image-gc-high %d, --image-gc-low %d: want percent of the disk, the low mark below the high one; high 0: never", f.imageGCHigh, f.imageGCLow)
	}
	if err := metrics.CheckAddress("--metrics-addr", f.metricsAddr); err != nil {
		return bad("%w", err)
	}
	for _, dir := range f.allowBind {
		if !filepath.IsAbs(dir) {
			return bad("--allow-bind %q: want an absolute path, such as /srv/data", dir)
		}
	}
	if s.nodeLabels, err = readLabels(f.labels, f.name); err != nil {
		return bad("%w", err)
	}
	if s.resources, err = readCapacity(f.capacity, f.resources); err != nil {
		return bad("%w", err)
	}
	if s.data, err = filepath.Abs(f.data); err != nil {
		return bad("--data: %w", err)
	}
	return s, s.findPrograms()
}

// findPrograms fills in where the shim and the CNI plugins lie.
func (s *settings) findPrograms() error {
	if s.shim == "" {
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find the shim program: %w; say --shim", err)
		}
		s.shim = filepath.Join(filepath.Dir(self), "shim")
	}
	shim, err := filepath.Abs(s.shim)
	if err != nil {
		return err
	}
	s.shim = shim
	if _, err := os.Stat(s.shim); err != nil {
		return fmt.Errorf("find the shim program: %w; it comes with the agent: say --shim", err)
	}
	if s.cniBin == "" {
		for _, dir := range []string{"/usr/lib/cni", "/opt/cni/bin"} {
			if _, err := os.Stat(filepath.Join(dir, "ptp")); err == nil {
				s.cniBin = dir
				break
			}
		}
	}
	if _, err := os.Stat(filepath.Join(s.cniBin, "ptp")); err != nil {
		return fmt.Errorf("find the CNI plugins: no ptp in %q; install containernetworking-plugins, or say --cni-bin", s.cniBin)
	}
	return nil
}

// ownAddress gives the IP by which the node is known: as said, or the one that
// packets to the controller leave from.
func ownAddress(said, controller string) (netip.Addr, error) {
	if said != "" {
		addr, err := netip.ParseAddr(said)
		if err != nil || addr.IsUnspecified() {
			return netip.Addr{}, fmt.Errorf("%q: want this node's own IP", said)
		}
		return addr.Unmap(), nil
	}
	conn, err := net.Dial("udp", controller) // sends nothing
	if err != nil {
		return netip.Addr{}, fmt.Errorf("cannot find out which of this node's addresses leads to %s: %w; say --address", controller, err)
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), nil
}

func readLabels(list []string, name string) (map[string]string, error) {
	labels := map[string]string{hostnameLabel: name, "orch/os": runtime.GOOS, "orch/arch": runtime.GOARCH}
	for _, l := range list {
		k, v, ok := strings.Cut(l, "=")
		if !ok || k == "" {
			return nil, fmt.Errorf("--label %q: want key=value", l)
		}
		labels[k] = v
	}
	for k, v := range labels {
		if err := api.CheckLabel(k, v); err != nil {
			return nil, fmt.Errorf("--label: %w", err)
		}
	}
	return labels, nil
}

// readCapacity gives what was said, on top of what the machine has.
func readCapacity(capacity, more []string) (api.ResourceList, error) {
	list, err := agent.DetectCapacity()
	if err != nil {
		return nil, err
	}
	read := func(flag, item string, extended bool) error {
		k, v, ok := strings.Cut(item, "=")
		q, err := api.ParseQuantity(v)
		if !ok || err != nil {
			return fmt.Errorf("--%s %q: want name=quantity, such as %s", flag, item, map[bool]string{false: "memory=4Gi", true: "gpus=2"}[extended])
		}
		if k == "" || k == api.Pids || (extended && !api.IsExtended(k)) || (!extended && k != api.CPU && k != api.Memory) {
			return fmt.Errorf("--%s %q: want %s", flag, item, map[bool]string{false: "cpu or memory; others go with --resource", true: "a resource other than cpu, memory and pids"}[extended])
		}
		list[k] = q
		return nil
	}
	for _, item := range capacity {
		if err := read("capacity", item, false); err != nil {
			return nil, err
		}
	}
	for _, item := range more {
		if err := read("resource", item, true); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// inWords lists resources for the log.
func inWords(list api.ResourceList) string {
	var words []string
	for _, k := range slices.Sorted(maps.Keys(list)) {
		words = append(words, k+"="+list[k].String())
	}
	return strings.Join(words, ",")
}
