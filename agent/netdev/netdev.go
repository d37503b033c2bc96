package netdev

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"

	"github.com/orchctl/orch/api"
)

// cniTimeout bounds one run of a CNI plugin, which takes 10-40 ms.
const cniTimeout = 20 * time.Second

// Config says where things lie. StateDir and Subnet are required.
type Config struct {
	// CNIBin holds the plugins; it defaults to /usr/lib/cni.
	CNIBin string
	// ConfDir gets the network's CNI configuration, written by us; it defaults
	// to StateDir/cni.
	ConfDir string
	// StateDir holds records and the address pool, and survives reboots.
	StateDir string
	// NetNSDir holds the named namespaces; it defaults to /run/orch/netns and
	// must not be on a remote file system.
	NetNSDir string
	// Subnet is this node's share of addresses; its first is the node's own
	// side of every link.
	Subnet netip.Prefix
	// Cluster holds all nodes' subnets: what goes there is not masqueraded.
	// It defaults to Subnet.
	Cluster netip.Prefix
	// Logger gets what no caller can be told; nil discards.
	Logger *slog.Logger
}

// PortMapping leads a port of the node to one of the replica.
type PortMapping struct {
	HostPort int
	Port     int
	// Protocol defaults to TCP.
	Protocol api.Protocol
}

// PortMappings gives those that containers publish on their node.
func PortMappings(containers []api.Container) []PortMapping {
	var out []PortMapping
	for _, c := range containers {
		for _, p := range c.Ports {
			if p.Publish != 0 {
				out = append(out, PortMapping{HostPort: p.Publish, Port: p.Port, Protocol: p.Protocol})
			}
		}
	}
	return out
}

// Attachment is a replica's network.
type Attachment struct {
	// NetNS is the path of its network namespace.
	NetNS string
	IP    netip.Addr
}

// Files are what a replica's containers get mounted, as paths on the node.
type Files struct {
	// ResolvConf goes to /etc/resolv.conf, Hosts to /etc/hosts.
	ResolvConf, Hosts string
}

// Network gives replicas their network. Its methods may be called concurrently.
type Network struct {
	cfg  Config
	log  *slog.Logger
	cni  *libcni.CNIConfig
	conf *libcni.NetworkConfigList

	// busy serialises the work on one replica (and on those that share its
	// stripe); mu guards records alone.
	busy    [64]sync.Mutex
	mu      sync.Mutex
	records map[string]*record // by id: what is in the files
	rules   rules
}

// record is what is known of one replica's network, kept in a file.
type record struct {
	Key   api.ReplicaKey `json:"key"`
	Ports []PortMapping  `json:"ports,omitempty"`
	// IP is missing until all is made.
	IP netip.Addr `json:"ip,omitzero"`
}

// New opens the network: it switches forwarding on, takes up what an earlier
// agent left and clears away what does not exist any more (after a reboot) or
// was never finished.
func New(cfg Config) (*Network, error) {
	if cfg.CNIBin == "" {
		cfg.CNIBin = "/usr/lib/cni"
	}
	if cfg.ConfDir == "" {
		cfg.ConfDir = filepath.Join(cfg.StateDir, "cni")
	}
	if cfg.NetNSDir == "" {
		cfg.NetNSDir = "/run/orch/netns"
	}
	if !cfg.Cluster.IsValid() {
		cfg.Cluster = cfg.Subnet
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if !filepath.IsAbs(cfg.StateDir) {
		return nil, fmt.Errorf("open network: state folder is not absolute: %q", cfg.StateDir)
	}
	if !cfg.Subnet.IsValid() || !cfg.Subnet.Addr().Is4() || cfg.Subnet.Bits() > 30 {
		return nil, fmt.Errorf("open network: subnet %s is not IPv4 with room for two addresses", cfg.Subnet)
	}
	cfg.Subnet, cfg.Cluster = cfg.Subnet.Masked(), cfg.Cluster.Masked()
	n := &Network{
		cfg: cfg, log: cfg.Logger,
		// The executor is given, since the library would make one at the first
		// use, without a lock.
		cni: libcni.NewCNIConfigWithCacheDir([]string{cfg.CNIBin}, filepath.Join(cfg.StateDir, "cache"),
			&invoke.DefaultExec{RawExec: &invoke.RawExec{Stderr: os.Stderr}}),
		records: map[string]*record{},
		rules:   rules{subnet: cfg.Subnet, cluster: cfg.Cluster, marker: filepath.Join(filepath.Dir(cfg.NetNSDir), "route_localnet")},
	}
	for _, dir := range []string{n.recordDir(), cfg.ConfDir, cfg.NetNSDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("open network: %w", err)
		}
	}
	if err := n.writeConf(); err != nil {
		return nil, err
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
		return nil, fmt.Errorf("open network: switch forwarding on: %w", err)
	}
	if err := n.recover(); err != nil {
		return nil, err
	}
	return n, nil
}

// writeConf writes the CNI configuration and reads it back as the library's.
func (n *Network) writeConf() error {
	type m = map[string]any
	b, err := json.MarshalIndent(m{
		"cniVersion": "1.0.0",
		"name":       "orch",
		"plugins": []m{{
			"type":   "ptp",
			"ipMasq": false, // our own rules do that
			"ipam": m{
				"type":    "host-local",
				"dataDir": filepath.Join(n.cfg.StateDir, "ipam"),
				"ranges":  [][]m{{{"subnet": n.cfg.Subnet.String()}}},
				"routes":  []m{{"dst": "0.0.0.0/0"}},
			},
		}},
	}, "", "  ")
	if err != nil {
		return fmt.Errorf("write CNI configuration: %w", err)
	}
	path := filepath.Join(n.cfg.ConfDir, "orch.conflist")
	if err := writeFile(path, b); err != nil {
		return fmt.Errorf("write CNI configuration: %w", err)
	}
	if n.conf, err = libcni.ConfListFromBytes(b); err != nil {
		return fmt.Errorf("read CNI configuration %s: %w", path, err)
	}
	return nil
}

// recover reads the records and clears away what is not whole: the namespace
// gone (a reboot), no address yet (a crash while it was made), or a namespace
// without a record.
func (n *Network) recover() error {
	files, err := os.ReadDir(n.recordDir())
	if err != nil {
		return fmt.Errorf("read network records: %w", err)
	}
	var broken []string
	for _, f := range files {
		id, ok := strings.CutSuffix(f.Name(), ".json")
		if !ok {
			continue // of a write that was cut short
		}
		rec := &record{}
		b, err := os.ReadFile(filepath.Join(n.recordDir(), f.Name()))
		if err != nil {
			return fmt.Errorf("read network record %s: %w", f.Name(), err)
		}
		if err := json.Unmarshal(b, rec); err != nil || idOf(rec.Key) != id || !rec.IP.IsValid() || !isNetNS(n.netns(id)) {
			broken = append(broken, id)
			continue
		}
		n.records[id] = rec
	}
	spaces, err := os.ReadDir(n.cfg.NetNSDir)
	if err != nil {
		return fmt.Errorf("read network namespaces: %w", err)
	}
	for _, f := range spaces {
		if n.records[f.Name()] == nil {
			broken = append(broken, f.Name())
		}
	}
	slices.Sort(broken)
	for _, id := range slices.Compact(broken) {
		n.log.Info("clearing away a replica's network that is not whole", "id", id)
		ctx, cancel := context.WithTimeout(context.Background(), cniTimeout)
		err := n.clear(ctx, id, nil)
		cancel()
		if err != nil { // no reason for the node to do without its agent; the next start tries again
			n.log.Error("cannot clear away a replica's network", "id", id, "err", err)
		}
	}
	var ports []portRule
	for _, rec := range n.records {
		ports = append(ports, portRules(rec)...)
	}
	return n.rules.reset(ports, len(n.records) > 0)
}

// Setup makes the replica's network, or returns the one that it has.
func (n *Network) Setup(ctx context.Context, key api.ReplicaKey, hostPorts []PortMapping) (Attachment, error) {
	id := idOf(key)
	defer n.lock(id)()
	n.mu.Lock()
	rec := n.records[id]
	n.mu.Unlock()
	if rec != nil && rec.IP.IsValid() && isNetNS(n.netns(id)) {
		return Attachment{n.netns(id), rec.IP}, nil
	}
	if rec != nil { // its namespace was taken away, or clearing failed before
		if err := n.clear(ctx, id, rec); err != nil {
			return Attachment{}, fmt.Errorf("set up network of %s: %w", key, err)
		}
	}
	rec = &record{Key: key, Ports: normalPorts(hostPorts)}
	if err := n.save(id, rec); err != nil {
		return Attachment{}, fmt.Errorf("set up network of %s: %w", key, err)
	}
	if err := n.make(ctx, id, rec); err != nil {
		c, cancel := context.WithTimeout(context.WithoutCancel(ctx), cniTimeout)
		defer cancel()
		if e := n.clear(c, id, rec); e != nil {
			err = errors.Join(err, e)
		}
		return Attachment{}, fmt.Errorf("set up network of %s: %w", key, err)
	}
	return Attachment{n.netns(id), rec.IP}, nil
}

// make makes namespace, interfaces and rules for a record that is saved.
func (n *Network) make(ctx context.Context, id string, rec *record) error {
	if err := newNetNS(n.netns(id)); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, cniTimeout)
	defer cancel()
	res, err := n.cni.AddNetworkList(ctx, n.conf, n.runtimeConf(id))
	if err != nil {
		return fmt.Errorf("CNI: %w", err)
	}
	ip, err := addressOf(res)
	if err != nil {
		return err
	}
	whole := *rec
	whole.IP = ip
	if err := n.rules.add(portRules(&whole)); err != nil {
		return err
	}
	rec.IP = ip // only now: clear takes an address to mean that the rules are there
	return n.save(id, rec)
}

// Teardown takes the replica's network back. One that is not there is no error.
func (n *Network) Teardown(ctx context.Context, key api.ReplicaKey) error {
	id := idOf(key)
	defer n.lock(id)()
	n.mu.Lock()
	rec := n.records[id]
	n.mu.Unlock()
	if rec == nil {
		return nil
	}
	if err := n.clear(ctx, id, rec); err != nil {
		return fmt.Errorf("tear down network of %s: %w", key, err)
	}
	return nil
}

// List gives the replicas that have a network, or part of one, in order.
func (n *Network) List() []api.ReplicaKey {
	n.mu.Lock()
	defer n.mu.Unlock()
	keys := make([]api.ReplicaKey, 0, len(n.records))
	for _, rec := range n.records {
		keys = append(keys, rec.Key)
	}
	slices.SortFunc(keys, func(a, b api.ReplicaKey) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Service, b.Service), cmp.Compare(a.Slot, b.Slot), cmp.Compare(a.Epoch, b.Epoch))
	})
	return keys
}

// Prune takes back the networks of all replicas but those that keep holds.
func (n *Network) Prune(ctx context.Context, keep func(api.ReplicaKey) bool) error {
	var errs []error
	for _, key := range n.List() {
		if !keep(key) {
			errs = append(errs, n.Teardown(ctx, key))
		}
	}
	return errors.Join(errs...)
}

// clear removes everything of an id: rules first, so that no new connection
// comes, the record last, so that a crash in between is found again.
func (n *Network) clear(ctx context.Context, id string, rec *record) error {
	if rec != nil && rec.IP.IsValid() {
		if err := n.rules.remove(portRules(rec), rec.IP); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, cniTimeout)
	defer cancel()
	rt := n.runtimeConf(id)
	if !isNetNS(rt.NetNS) {
		rt.NetNS = "" // plugins then only give the address back
	}
	if err := n.cni.DelNetworkList(ctx, n.conf, rt); err != nil {
		return fmt.Errorf("CNI: %w", err)
	}
	if err := removeNetNS(n.netns(id)); err != nil {
		return err
	}
	if err := os.Remove(n.recordPath(id)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove network record: %w", err)
	}
	n.mu.Lock()
	delete(n.records, id)
	none := len(n.records) == 0
	n.mu.Unlock()
	if none {
		return n.rules.removeAllUnless(func() bool {
			n.mu.Lock()
			defer n.mu.Unlock()
			return len(n.records) > 0
		})
	}
	return nil
}
