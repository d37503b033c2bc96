package identity

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/orchctl/orch/internal/pki"
	"github.com/orchctl/orch/internal/store"
)

// Where things lie in the store. Everything that this package owns is below Prefix.
const (
	Prefix      = "/orch/pki/"
	caKey       = Prefix + "ca"
	tokenPrefix = Prefix + "tokens/" // <id>
	namePrefix  = Prefix + "names/"  // <node>
)

const (
	gossipKeyBytes = 32 // AES-256
	sealKeyFile    = "seal.key"
	// DefaultCluster names a cluster that was given no name.
	DefaultCluster = "orch"

	purposeCA     = "store: ca key"
	purposeGossip = "store: gossip key"
)

// Config is what Open needs. Store, Dir and Log are required.
type Config struct {
	Store store.Store
	// Dir holds the seal key.
	Dir string
	// Cluster is the name of a cluster that is made now; one that exists keeps
	// its own. Empty: DefaultCluster.
	Cluster string
	// Now is the clock; nil is the system's.
	Now func() time.Time
	Log *slog.Logger
}

// Authority is the cluster's CA with its book of tokens and names. Safe for
// concurrent use.
type Authority struct {
	cfg    Config
	ca     *pki.CA
	gossip []byte

	mu   sync.Mutex
	book *book // nil while this controller does not lead
}

// caRecord is the value of caKey.
type caRecord struct {
	Certificate  string    `json:"certificate"`
	SealedKey    []byte    `json:"sealedKey"`
	SealedGossip []byte    `json:"sealedGossip"`
	Created      time.Time `json:"created"`
}

// Open reads the cluster's CA, or makes it: the first controller of all wins.
func Open(ctx context.Context, cfg Config) (*Authority, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	seal, err := pki.EnsureSealKey(filepath.Join(cfg.Dir, sealKeyFile), rand.Reader)
	if err != nil {
		return nil, err
	}
	a := &Authority{cfg: cfg}
	for {
		kvs, _, err := cfg.Store.Range(ctx, caKey)
		if err != nil {
			return nil, fmt.Errorf("read the cluster's CA: %w", err)
		}
		if len(kvs) > 0 {
			return a, a.read(kvs[0].Value, seal)
		}
		if err := a.claim(ctx, seal); err != nil && !errors.Is(err, store.ErrConflict) {
			return nil, fmt.Errorf("make the cluster's CA: %w", err)
		}
		// Won or lost: what the store holds is the truth.
	}
}

func (a *Authority) claim(ctx context.Context, seal pki.SealKey) error {
	now := a.cfg.Now()
	ca, err := pki.NewCA(cmp.Or(a.cfg.Cluster, DefaultCluster), now, rand.Reader)
	if err != nil {
		return err
	}
	gossip := make([]byte, gossipKeyBytes)
	rand.Read(gossip)
	r := caRecord{Certificate: string(ca.CertPEM), Created: now.UTC()}
	if r.SealedKey, err = pki.Seal(seal, purposeCA, ca.KeyPEM, rand.Reader); err != nil {
		return err
	}
	if r.SealedGossip, err = pki.Seal(seal, purposeGossip, gossip, rand.Reader); err != nil {
		return err
	}
	_, err = a.cfg.Store.Txn(ctx, store.Txn{If: []store.Compare{store.Absent(caKey)}, Then: []store.Op{store.Put(caKey, encode(r))}})
	return err
}

func (a *Authority) read(value []byte, seal pki.SealKey) error {
	var r caRecord
	if err := json.Unmarshal(value, &r); err != nil {
		return fmt.Errorf("read the cluster's CA: %w", err)
	}
	fail := func(err error) error {
		return fmt.Errorf("read the cluster's CA: %w; it was sealed by another controller's %s: copy that file to %s", err, sealKeyFile, a.cfg.Dir)
	}
	key, err := pki.Open(seal, purposeCA, r.SealedKey)
	if err != nil {
		return fail(err)
	}
	if a.gossip, err = pki.Open(seal, purposeGossip, r.SealedGossip); err != nil {
		return fail(err)
	}
	a.ca, err = pki.ParseCA([]byte(r.Certificate), key)
	return err
}

// CA is the cluster's certificate authority.
func (a *Authority) CA() *pki.CA { return a.ca }

// GossipKey encrypts gossip; 32 bytes.
func (a *Authority) GossipKey() []byte { return a.gossip }

// Writer hands writes to the leader, in the order of its calls; wait returns
// once they are committed, or with why that cannot be known.
type Writer interface {
	Write(ctx context.Context, ops ...store.Op) (wait func(context.Context) error, err error)
}

// Begin starts a term: kvs are all that the store holds below Prefix, read
// behind the term's fence.
func (a *Authority) Begin(kvs []store.KV, w Writer) error {
	b, err := readBook(kvs, w)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.book = b
	return nil
}

// End ends the term. What was under way is answered by its Writer.
func (a *Authority) End() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.book = nil
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil { // plain structs of texts, times and numbers
		panic(fmt.Sprintf("encode %T: %v", v, err))
	}
	return b
}
