package etcd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"

	"github.com/orchctl/orch/internal/store"
)

const (
	// QuotaDefault is the size that the data may reach, in bytes: a million
	// placements and their history fit several times.
	QuotaDefault = 4 << 30
	// keepHistoryDefault is how long old revisions stay for watches to resume.
	keepHistoryDefault = 5 * time.Minute
	// maxRequestBytes leaves room for the encoding above EmbeddedLimits.MaxBytes,
	// and stays under the 10 MiB from which etcd warns.
	maxRequestBytes = 8 << 20
	// raftKeepEntries bounds the raft log held in memory. etcd's 10,000 would be
	// gigabytes when a transaction is large; our transactions are few and large.
	raftKeepEntries = 1000
	raftCatchUp     = 500
	// progressEvery is how often a quiet watch learns the revision: well within
	// keepHistoryDefault, so that it can resume.
	progressEvery = time.Minute
	// soleElectionMs is the election timeout of a sole member, which has nobody to
	// disturb: half of etcd's default halves the wait after a restart. Five ticks
	// are the least that etcd takes.
	soleElectionMs = 500
	// defragAtStart gives free pages back to the disk at start when it would
	// free at least so much, in MB.
	defragAtStart = 100
	// soleMemberURL is the peer address that a sole member is known by. Nothing
	// listens there.
	soleMemberURL = "http://127.0.0.1:0"
)

// EmbeddedConfig describes an etcd inside this process. Only Dir is needed: that
// is a cluster of one member that listens nowhere.
type EmbeddedConfig struct {
	// Dir is the data folder; made with mode 0700 when absent.
	Dir string
	// Name is the member's name; "controller" when empty.
	Name string
	// ClientListen serves etcd's clients (etcdctl, for instance) at
	// unix:///path or, with ClientTLS, https://ip:port. Empty: nowhere.
	ClientListen string
	ClientTLS    TLSFiles
	// PeerListen is where other members reach this one: https://ip:port with
	// PeerTLS. Empty for a sole member.
	PeerListen string
	PeerTLS    TLSFiles
	// Members are all members of a new cluster, name to peer URL, this one
	// included. Empty for a sole member.
	Members map[string]string
	// Join says that Members is a running cluster that this member was added to.
	Join bool
	// QuotaBytes bounds the data; 0 for 4 GiB.
	QuotaBytes int64
	// KeepHistory is how long old revisions are kept; 0 for 5 minutes.
	KeepHistory time.Duration
	// RangePage is the number of keys per read; 0 for the default.
	RangePage int
	// Log receives etcd's warnings and errors; nil discards them.
	Log *slog.Logger
}

// TLSFiles are PEM files for mutual TLS: the own certificate and key, and the CA
// that the other side must come from.
type TLSFiles struct {
	CertFile, KeyFile, CAFile string
}

func (f TLSFiles) complete() bool { return f.CertFile != "" && f.KeyFile != "" && f.CAFile != "" }

func (f TLSFiles) info() transport.TLSInfo {
	return transport.TLSInfo{CertFile: f.CertFile, KeyFile: f.KeyFile, TrustedCAFile: f.CAFile, ClientCertAuth: true}
}

// EmbeddedServer is a running etcd in this process. Embedded makes it.
type EmbeddedServer struct {
	etcd  *embed.Etcd
	store *Store
	quota int64
	lock  *folderLock
	once  sync.Once
}

// Embedded starts an etcd in this process and waits until it serves; ctx bounds
// the wait (several members: until a quorum has come up) and nothing after it.
// A folder that another controller holds gives ErrInUse, one that cannot be
// read ErrCorrupt.
func Embedded(ctx context.Context, c EmbeddedConfig) (_ *EmbeddedServer, err error) {
	conf, err := c.embedConfig()
	if err != nil {
		return nil, fmt.Errorf("start etcd in %s: %w", c.Dir, err)
	}
	lock, err := lockFolder(c.Dir)
	if err != nil {
		return nil, fmt.Errorf("start etcd: %w", err)
	}
	defer func() {
		if err != nil {
			lock.release()
		}
	}()
	if err := checkDatabase(c.Dir); err != nil {
		return nil, fmt.Errorf("start etcd: %w", err)
	}
	e, err := start(conf)
	if err != nil {
		return nil, fmt.Errorf("start etcd in %s: %w", c.Dir, err)
	}
	select {
	case <-e.Server.ReadyNotify():
	case err = <-e.Err():
	case <-e.Server.StopNotify():
		err = errors.New("it stopped at once")
	case <-ctx.Done():
		err = fmt.Errorf("no quorum yet: %w", ctx.Err())
	}
	if err != nil {
		e.Server.HardStop()
		e.Close()
		return nil, fmt.Errorf("start etcd in %s: %w", c.Dir, err)
	}
	s := newStore(v3client.New(e.Server), store.EmbeddedLimits, c.RangePage)
	return &EmbeddedServer{etcd: e, store: s, quota: conf.QuotaBackendBytes, lock: lock}, nil
}

// start turns the panics with which etcd meets a damaged log into an error.
func start(conf *embed.Config) (e *embed.Etcd, err error) {
	defer func() {
		if r := recover(); r != nil {
			e, err = nil, fmt.Errorf("%w: %v", ErrCorrupt, r)
		}
	}()
	if e, err = embed.StartEtcd(conf); err != nil {
		for _, damage := range []error{
			walpb.ErrCRCMismatch, wal.ErrCRCMismatch, wal.ErrFileNotFound, wal.ErrMetadataConflict,
			wal.ErrSnapshotMismatch, wal.ErrSnapshotNotFound, wal.ErrSliceOutOfRange, io.ErrUnexpectedEOF,
		} {
			if errors.Is(err, damage) {
				return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
			}
		}
	}
	return e, err
}

// checkDatabase opens the database for reading once. etcd would meet a damaged
// one in a goroutine of its own, where the panic ends the process.
func checkDatabase(dir string) error {
	path := filepath.Join(dir, "member", "snap", "db")
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return fmt.Errorf("data folder %s: %w: %s: %w; restore a backup, or remove the folder to start anew", dir, ErrCorrupt, path, err)
	}
	return db.Close()
}

func (c EmbeddedConfig) embedConfig() (*embed.Config, error) {
	if c.Dir == "" {
		return nil, errors.New("no data folder given")
	}
	conf := embed.NewConfig()
	conf.Dir = c.Dir
	conf.Name = c.Name
	if conf.Name == "" {
		conf.Name = "controller"
	}
	if err := c.listen(conf); err != nil {
		return nil, err
	}
	if err := c.members(conf); err != nil {
		return nil, err
	}
	conf.QuotaBackendBytes = c.QuotaBytes
	if conf.QuotaBackendBytes == 0 {
		conf.QuotaBackendBytes = QuotaDefault
	}
	keep := c.KeepHistory
	if keep == 0 {
		keep = keepHistoryDefault
	}
	conf.AutoCompactionMode = embed.CompactorModePeriodic
	conf.AutoCompactionRetention = keep.String()
	conf.MaxTxnOps = uint(store.EmbeddedLimits.MaxOps)
	conf.MaxRequestBytes = maxRequestBytes
	conf.SnapshotCount = raftKeepEntries
	conf.SnapshotCatchUpEntries = raftCatchUp
	conf.WatchProgressNotifyInterval = progressEvery
	conf.BootstrapDefragThresholdMegabytes = defragAtStart
	if len(c.Members) <= 1 && !c.Join {
		conf.ElectionMs = soleElectionMs
	}
	conf.EnableGRPCGateway = false
	conf.LogLevel = "warn"
	conf.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zapLogger(orDiscard(c.Log)))
	return conf, nil
}

// listen opens no TCP port without mutual TLS: who can speak to etcd owns the
// cluster.
func (c EmbeddedConfig) listen(conf *embed.Config) error {
	conf.ListenClientUrls, conf.AdvertiseClientUrls = nil, nil
	conf.ListenPeerUrls = nil
	if c.ClientListen != "" {
		u, err := listenURL(c.ClientListen, c.ClientTLS, true)
		if err != nil {
			return fmt.Errorf("client address: %w", err)
		}
		conf.ListenClientUrls, conf.AdvertiseClientUrls = []url.URL{u}, []url.URL{u}
		if c.ClientTLS.complete() {
			conf.ClientTLSInfo = c.ClientTLS.info()
		}
	}
	if c.PeerListen != "" {
		u, err := listenURL(c.PeerListen, c.PeerTLS, false)
		if err != nil {
			return fmt.Errorf("peer address: %w", err)
		}
		conf.ListenPeerUrls = []url.URL{u}
		conf.PeerTLSInfo = c.PeerTLS.info()
	}
	return nil
}

func listenURL(s string, tls TLSFiles, unix bool) (url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return url.URL{}, err
	case u.Scheme == "unix" && unix:
		// A relative path would come out as host plus path; a socket's name is
		// limited to 107 bytes by the kernel.
		if u.Host != "" || len(u.Path) > 107 {
			return url.URL{}, fmt.Errorf("%s: want unix:///absolute/path of at most 107 bytes", s)
		}
		return *u, nil
	case u.Scheme != "https":
		return url.URL{}, fmt.Errorf("%s: etcd never listens without mutual TLS", s)
	case !tls.complete():
		return url.URL{}, fmt.Errorf("%s: certificate, key and CA files are all needed", s)
	}
	if host, _, err := net.SplitHostPort(u.Host); err != nil || net.ParseIP(host) == nil {
		return url.URL{}, fmt.Errorf("%s: want https://ip:port", s)
	}
	return *u, nil
}

func (c EmbeddedConfig) members(conf *embed.Config) error {
	members := c.Members
	if len(members) == 0 {
		own := c.PeerListen
		if own == "" {
			own = soleMemberURL
		}
		members = map[string]string{conf.Name: own}
	}
	own, ok := members[conf.Name]
	if !ok {
		return fmt.Errorf("member %q is not among the members", conf.Name)
	}
	if len(members) > 1 && c.PeerListen == "" {
		return errors.New("several members need a peer address")
	}
	u, err := url.Parse(own)
	if err != nil {
		return fmt.Errorf("peer address of %s: %w", conf.Name, err)
	}
	conf.AdvertisePeerUrls = []url.URL{*u}
	names := make([]string, 0, len(members))
	for n := range members {
		names = append(names, n)
	}
	sort.Strings(names)
	parts := make([]string, 0, len(names))
	for _, n := range names {
		parts = append(parts, n+"="+members[n])
	}
	conf.InitialCluster = strings.Join(parts, ",")
	if c.Join {
		conf.ClusterState = embed.ClusterStateFlagExisting
	}
	return nil
}

// Store is the store in this etcd; it ends with Close.
func (e *EmbeddedServer) Store() store.Store { return e.store }

// Backup: see Store.Backup.
func (e *EmbeddedServer) Backup(ctx context.Context, w io.Writer) (int64, error) {
	return e.store.Backup(ctx, w)
}

// IsLeader tells whether this member is etcd's leader.
func (e *EmbeddedServer) IsLeader() bool { return e.etcd.Server.Leader() == e.etcd.Server.MemberID() }

// LeaderChanged returns a channel that is closed when etcd elects next. Take it
// before asking IsLeader, so that no change is missed.
func (e *EmbeddedServer) LeaderChanged() <-chan struct{} { return e.etcd.Server.LeaderChangedNotify() }

// Done is closed when etcd has stopped, by Close or by itself (for instance
// when the member was removed from its cluster).
func (e *EmbeddedServer) Done() <-chan struct{} { return e.etcd.Server.StopNotify() }

// Usage is how much of the quota the data takes, both in bytes. Space that
// compaction freed inside the file does not count.
func (e *EmbeddedServer) Usage() (used, quota int64) {
	return e.etcd.Server.Backend().SizeInUse(), e.quota
}

// Reclaim makes room again in a store that reported store.ErrNoSpace, after keys
// were deleted: it drops all history, gives the freed pages back and lifts
// etcd's alarm, which would otherwise refuse writes for ever. Transactions wait
// while it runs (seconds for a full quota). It frees this member's file only.
func (e *EmbeddedServer) Reclaim(ctx context.Context) error {
	_, rev, err := e.store.Range(ctx, "\x00")
	if err != nil {
		return fmt.Errorf("reclaim space in %s: %w", e.etcd.Config().Dir, err)
	}
	_, err = e.store.client.Compact(ctx, rev, clientv3.WithCompactPhysical())
	if err != nil && !errors.Is(err, rpctypes.ErrCompacted) {
		return fmt.Errorf("reclaim space in %s: compact: %w", e.etcd.Config().Dir, err)
	}
	if err := e.etcd.Server.Backend().Defrag(); err != nil {
		return fmt.Errorf("reclaim space in %s: defragment: %w", e.etcd.Config().Dir, err)
	}
	if _, err := e.store.client.AlarmDisarm(ctx, &clientv3.AlarmMember{}); err != nil {
		return fmt.Errorf("reclaim space in %s: lift alarm: %w", e.etcd.Config().Dir, err)
	}
	return nil
}

// Close stops etcd after what is under way, and frees the folder. Closing twice
// is harmless.
func (e *EmbeddedServer) Close() error {
	var err error
	e.once.Do(func() {
		err = e.store.Close()
		e.etcd.Close()
		e.lock.release()
	})
	return err
}
