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

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/network"
)

// Config says where things lie. StateDir and Address are required.
type Config struct {
	// CNIBin holds the plugins; it defaults to /usr/lib/cni.
	CNIBin string
	// StateDir holds records, the address pool, replicas' files and where the node
	// stands, and survives reboots.
	StateDir string
	// NetNSDir holds the named namespaces; it defaults to /run/orch/netns and
	// must not be on a remote file system.
	NetNSDir string
	// Address is the node's own, by which its peers reach it.
	Address netip.Addr
	// Logger gets what no caller can be told; nil discards.
	Logger *slog.Logger
}

// Attachment is a replica's network.
type Attachment struct {
	// NetNS is the path of its network namespace; empty: it uses the node's own.
	NetNS string
	// IP is the replica's; without a namespace of its own it is the node's.
	IP netip.Addr
}

// Network gives replicas their network. Its methods may be called concurrently.
type Network struct {
	cfg Config
	log *slog.Logger
	cni *libcni.CNIConfig
	// Those of the same names, but in tests.
	cniTimeout, clearTimeout time.Duration

	// busy serialises the work on one replica (and on those that share its
	// stripe).
	busy [64]sync.Mutex
	// mu guards what follows.
	mu      sync.Mutex
	records map[string]*record // by id: what is in the files
	place   place
	// moved is closed, and made anew, when place changes.
	moved chan struct{}
	// left is set by Leave: nothing is put right until the next Configure.
	left bool
	// unsaved: place holds peers that its file does not.
	unsaved bool
	// wrong is what the last look found and could not put right, in words; looked:
	// there was one since the place was told whole.
	wrong  string
	looked bool

	// telling is held while the place changes and is written to disk, looking while
	// the kernel is brought in line; either before mu.
	telling, looking sync.Mutex
	// dirty holds one element if place or the kernel may have changed.
	dirty chan struct{}
}

// record is what is known of one replica's network, kept in a file.
type record struct {
	Key api.ReplicaKey `json:"key"`
	// HostNetwork: it uses the node's own, and has files alone.
	HostNetwork bool `json:"hostNetwork,omitempty"`
	// Subnet is where its address is from.
	Subnet netip.Prefix `json:"subnet,omitzero"`
	// IP is missing until all is made.
	IP netip.Addr `json:"ip,omitzero"`
}

// forwarding is the setting without which no packet gets to a replica or from one.
const forwarding = "/proc/sys/net/ipv4/ip_forward"

// New opens the network: it switches forwarding on, takes up what an earlier
// agent left and clears away what does not exist any more (after a reboot) or
// was never finished. Routes and devices are left as they are until Run.
func New(cfg Config) (*Network, error) {
	if cfg.CNIBin == "" {
		cfg.CNIBin = "/usr/lib/cni"
	}
	if cfg.NetNSDir == "" {
		cfg.NetNSDir = "/run/orch/netns"
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if !filepath.IsAbs(cfg.StateDir) {
		return nil, fmt.Errorf("open network: state folder is not absolute: %q", cfg.StateDir)
	}
	if !cfg.Address.Is4() {
		return nil, fmt.Errorf("open network: the node's address %q is not IPv4", cfg.Address)
	}
	n := &Network{
		cfg: cfg, log: cfg.Logger,
		cni:        libcni.NewCNIConfigWithCacheDir([]string{cfg.CNIBin}, filepath.Join(cfg.StateDir, "cache"), &plugins{}),
		cniTimeout: cniTimeout, clearTimeout: clearTimeout,
		records: map[string]*record{},
		moved:   make(chan struct{}),
		dirty:   make(chan struct{}, 1),
	}
	for _, dir := range []string{n.recordDir(), n.filesDir(), cfg.NetNSDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("open network: %w", err)
		}
	}
	if err := os.WriteFile(forwarding, []byte("1"), 0); err != nil {
		return nil, fmt.Errorf("open network: switch forwarding on: %w", err)
	}
	if err := n.loadPlace(); err != nil {
		return nil, err
	}
	if err := n.recover(); err != nil {
		return nil, err
	}
	return n, nil
}

// recover reads the records and clears away what is not whole: the namespace
// gone (a reboot), no address yet (a crash while it was made), or a namespace
// or files without a record.
func (n *Network) recover() error {
	files, err := os.ReadDir(n.recordDir())
	if err != nil {
		return fmt.Errorf("read network records: %w", err)
	}
	broken := map[string]*record{}
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
		if err := json.Unmarshal(b, rec); err != nil || idOf(rec.Key) != id || !n.whole(id, rec) {
			broken[id] = nil
			if err == nil {
				broken[id] = rec
			}
			continue
		}
		n.records[id] = rec
	}
	for _, dir := range []string{n.cfg.NetNSDir, n.filesDir()} {
		found, err := os.ReadDir(dir)
		if err != nil {
			return fmt.Errorf("read what replicas' networks left: %w", err)
		}
		for _, f := range found {
			if n.records[f.Name()] == nil && broken[f.Name()] == nil {
				broken[f.Name()] = nil
			}
		}
	}
	for id, rec := range broken {
		n.log.Info("clearing away a replica's network that is not whole", "id", id)
		if err := n.clear(context.Background(), id, rec); err != nil { // no reason for the node to do without its agent; the next start tries again
			n.log.Error("cannot clear away a replica's network", "id", id, "err", err)
		}
	}
	for id, rec := range n.records { // one from before there were files
		if err := n.writeFiles(id, rec); err != nil {
			return err
		}
	}
	return nil
}

// whole tells whether a record speaks of a network that is there.
func (n *Network) whole(id string, rec *record) bool {
	return rec.IP.IsValid() && (rec.HostNetwork || isNetNS(n.netns(id)))
}

// Setup makes the replica's network, or returns the one that it has. It waits for
// the node's subnet as long as ctx lets it. A replica with hostNetwork waits for
// nothing and gets the node's own network.
func (n *Network) Setup(ctx context.Context, key api.ReplicaKey, hostNetwork bool) (Attachment, error) {
	a, err := n.setup(ctx, key, hostNetwork)
	if err != nil {
		return Attachment{}, fmt.Errorf("set up network of %s: %w", key, err)
	}
	return a, nil
}

func (n *Network) setup(ctx context.Context, key api.ReplicaKey, hostNetwork bool) (Attachment, error) {
	var at network.Standing
	if !hostNetwork {
		var err error
		if at, err = n.awaitSubnet(ctx); err != nil {
			return Attachment{}, err
		}
	}
	id := idOf(key)
	defer n.lock(id)()
	n.mu.Lock()
	rec := n.records[id]
	n.mu.Unlock()
	if rec != nil && rec.HostNetwork == hostNetwork && n.whole(id, rec) && n.reachable(rec, at) {
		return n.attachment(id, rec), nil
	}
	if rec != nil { // its namespace was taken away, clearing failed before, or its address is nobody's any more
		if err := n.clear(ctx, id, rec); err != nil {
			return Attachment{}, err
		}
	}
	rec = &record{Key: key, HostNetwork: hostNetwork, Subnet: at.Subnet}
	if err := n.save(id, rec); err != nil {
		return Attachment{}, err
	}
	made, err := n.make(ctx, id, *rec, at)
	if err != nil {
		if e := n.clear(context.WithoutCancel(ctx), id, rec); e != nil {
			err = errors.Join(err, e)
		}
		return Attachment{}, err
	}
	return n.attachment(id, made), nil
}

// reachable tells whether others still find a replica by its address: packets go
// to who has the subnet now.
func (n *Network) reachable(rec *record, at network.Standing) bool {
	if rec.HostNetwork {
		return rec.IP == n.cfg.Address
	}
	return at.Subnet.Contains(rec.IP)
}

func (n *Network) attachment(id string, rec *record) Attachment {
	if rec.HostNetwork {
		return Attachment{IP: rec.IP}
	}
	return Attachment{n.netns(id), rec.IP}
}

// make makes namespace, interfaces and files for a record that is saved, and
// saves it with the address.
func (n *Network) make(ctx context.Context, id string, rec record, at network.Standing) (*record, error) {
	if rec.HostNetwork {
		rec.IP = n.cfg.Address
	} else {
		mtu, err := n.replicaMTU(at)
		if err != nil {
			return nil, err
		}
		if err := newNetNS(n.netns(id)); err != nil {
			return nil, err
		}
		if rec.IP, err = n.plug(ctx, id, at.Subnet, mtu); err != nil {
			return nil, err
		}
	}
	if err := n.writeFiles(id, &rec); err != nil {
		return nil, err
	}
	return &rec, n.save(id, &rec)
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

// clear removes everything of an id, the record last, so that a crash in between
// is found again. rec is nil if nothing is known of it.
func (n *Network) clear(ctx context.Context, id string, rec *record) error {
	if rec == nil || !rec.HostNetwork {
		if err := n.unplug(ctx, id, rec); err != nil {
			return err
		}
		if err := removeNetNS(n.netns(id)); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(filepath.Join(n.filesDir(), id)); err != nil {
		return fmt.Errorf("remove files of replica: %w", err)
	}
	if err := os.Remove(n.recordPath(id)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove network record: %w", err)
	}
	n.mu.Lock()
	delete(n.records, id)
	n.mu.Unlock()
	return nil
}
