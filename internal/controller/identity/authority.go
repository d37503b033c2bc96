package identity

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"sync"
	"sync/atomic"
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
	userPrefix  = Prefix + "users/"  // <user>
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

// Authority is the cluster's CA with its book of tokens, names and users. Safe for
// concurrent use.
type Authority struct {
	cfg  Config
	seal pki.SealKey
	// standing is what holds now; people are the users, as far as this controller knows.
	standing atomic.Pointer[standing]
	people   atomic.Pointer[people]
	holds    holds
	// turning is held while the CA or gossip's key is changed, until that is committed.
	turning sync.Mutex

	// ended holds one word: a term has ended. What the next leader wrote before this one
	// knew that was not taken from the store, and what this one could not write is in people.
	ended chan struct{}

	mu      sync.Mutex
	book    *book         // nil while this controller does not lead
	changed chan struct{} // closed and replaced when standing changes
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
	a := &Authority{cfg: cfg, seal: seal, changed: make(chan struct{}), ended: make(chan struct{}, 1)}
	a.people.Store(&people{})
	for {
		known, err := a.reread(ctx)
		if err != nil || known {
			return a, err
		}
		if err := a.claim(ctx); err != nil && !errors.Is(err, store.ErrConflict) {
			return nil, fmt.Errorf("make the cluster's CA: %w", err)
		}
		// Won or lost: what the store holds is the truth.
	}
}

func (a *Authority) claim(ctx context.Context) error {
	now := a.cfg.Now()
	ca, err := pki.NewCA(cmp.Or(a.cfg.Cluster, DefaultCluster), now, rand.Reader)
	if err != nil {
		return err
	}
	gossip := make([]byte, gossipKeyBytes)
	rand.Read(gossip)
	r := caRecord{Certificate: string(ca.CertPEM), Created: now.UTC()}
	if r.SealedKey, err = pki.Seal(a.seal, purposeCA, ca.KeyPEM, rand.Reader); err != nil {
		return err
	}
	if r.SealedGossip, err = pki.Seal(a.seal, purposeGossip, gossip, rand.Reader); err != nil {
		return err
	}
	_, err = a.cfg.Store.Txn(ctx, store.Txn{If: []store.Compare{store.Absent(caKey)}, Then: []store.Op{store.Put(caKey, encode(r))}})
	return err
}

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
	s, err := a.read(b.ca)
	if err != nil {
		return err
	}
	a.mu.Lock()
	a.book = b
	a.people.Store(&people{leading: true, of: maps.Clone(b.users)})
	a.install(s)
	a.mu.Unlock()
	a.holds.endStrangers(a.Admit)
	return nil
}

// End ends the term. What was under way is answered by its Writer.
func (a *Authority) End() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.book = nil
	a.people.Store(&people{of: a.people.Load().of})
	select {
	case a.ended <- struct{}{}:
	default:
	}
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil { // plain structs of texts, times and numbers
		panic(fmt.Sprintf("encode %T: %v", v, err))
	}
	return b
}
