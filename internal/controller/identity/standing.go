package identity

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/orchctl/orch/internal/pki"
	"github.com/orchctl/orch/internal/store"
)

// caRecord is the value of caKey. What a cluster that never rotated anything has is what
// the first version wrote.
type caRecord struct {
	// Certificate and SealedKey are of the CA that signs.
	Certificate string `json:"certificate"`
	SealedKey   []byte `json:"sealedKey"`
	// SealedGossip is the key that gossip is encrypted with.
	SealedGossip []byte    `json:"sealedGossip"`
	Created      time.Time `json:"created"`
	// First is the hash of the cluster's first CA, for certificates of which no record
	// says who signed them; empty: that of Certificate.
	First string `json:"first,omitempty"`
	// Older is the CA before, until it is retired.
	Older *olderCA `json:"older,omitempty"`
	// NextGossip is a key that all are told, but nobody uses yet; LastGossip is one that
	// nobody uses any more, but is still understood. One of them at most.
	NextGossip []byte `json:"nextGossip,omitempty"`
	LastGossip []byte `json:"lastGossip,omitempty"`
}

// olderCA is a CA that signs for controllers only: everybody trusts it yet. To who trusts
// only the new one, that one vouches for it; see Serving.
type olderCA struct {
	Certificate string    `json:"certificate"`
	SealedKey   []byte    `json:"sealedKey"`
	Created     time.Time `json:"created"`
}

// standing is an opened caRecord. It does not change.
type standing struct {
	ca      *pki.CA
	created time.Time
	// older is nil where there is one CA only.
	older        *pki.CA
	olderCreated time.Time

	bundle []byte // PEM of all that are trusted, ca first
	pool   *x509.CertPool
	gossip [][]byte // all that are understood, the one to encrypt with first
	moving bool     // gossip's keys have not come to rest
}

// read opens a record.
func (a *Authority) read(r caRecord) (*standing, error) {
	fail := func(err error) (*standing, error) {
		return nil, fmt.Errorf("read the cluster's CA: %w", err)
	}
	unsealed := func(purpose string, sealed []byte) ([]byte, error) {
		plain, err := pki.Open(a.seal, purpose, sealed)
		if err != nil {
			return nil, fmt.Errorf("%w; it was sealed by another controller's %s: copy that file to %s", err, sealKeyFile, a.cfg.Dir)
		}
		return plain, nil
	}
	s := &standing{created: r.Created, bundle: []byte(r.Certificate), moving: r.NextGossip != nil || r.LastGossip != nil}
	key, err := unsealed(purposeCA, r.SealedKey)
	if err != nil {
		return fail(err)
	}
	if s.ca, err = pki.ParseCA([]byte(r.Certificate), key); err != nil {
		return fail(err)
	}
	if o := r.Older; o != nil {
		if key, err = unsealed(purposeCA, o.SealedKey); err != nil {
			return fail(err)
		}
		if s.older, err = pki.ParseCA([]byte(o.Certificate), key); err != nil {
			return fail(err)
		}
		s.olderCreated = o.Created
		s.bundle = slices.Concat(s.bundle, []byte(o.Certificate))
	}
	for _, sealed := range [][]byte{r.SealedGossip, r.NextGossip, r.LastGossip} {
		if sealed == nil {
			continue
		}
		key, err := unsealed(purposeGossip, sealed)
		if err != nil {
			return fail(err)
		}
		s.gossip = append(s.gossip, key)
	}
	if s.pool, err = pki.Pool(s.bundle); err != nil {
		return fail(err)
	}
	return s, nil
}

// trusts tells whether the CA of that hash is trusted.
func (s *standing) trusts(hash string) bool {
	return s.ca.Hash() == hash || s.older != nil && s.older.Hash() == hash
}

// serving is the CA that controllers' own certificates come from: the one that everybody
// trusts.
func (s *standing) serving(now time.Time) *pki.CA {
	if s.older != nil && now.Before(s.older.Certificate().NotAfter) {
		return s.older
	}
	return s.ca
}

// chain is what goes with a controller's certificate that lasts so long, so that whoever
// trusts one of the CAs, or knows the hash of one, believes it.
func (s *standing) chain(life time.Duration, now time.Time) ([][]byte, error) {
	if s.serving(now) == s.ca {
		return [][]byte{s.ca.Certificate().Raw}, nil
	}
	vouched, err := s.ca.Vouch(s.older, life, now)
	if err != nil {
		return nil, err
	}
	return [][]byte{vouched.Raw, s.ca.Certificate().Raw, s.older.Certificate().Raw}, nil
}

// install makes s what holds, and tells who waits for it.
// The caller holds mu.
func (a *Authority) install(s *standing) {
	old := a.standing.Swap(s)
	if old != nil && bytes.Equal(old.bundle, s.bundle) && slices.EqualFunc(old.gossip, s.gossip, bytes.Equal) && old.moving == s.moving {
		return
	}
	close(a.changed)
	a.changed = make(chan struct{})
}

// CA is the cluster's certificate authority: the one that signs.
func (a *Authority) CA() *pki.CA { return a.standing.Load().ca }

// Pool trusts all of the cluster's CAs.
func (a *Authority) Pool() *x509.CertPool { return a.standing.Load().pool }

// Trust is what the cluster's members know each other by. Nobody changes it.
type Trust struct {
	// CA has all CAs in PEM, the one that signs first.
	CA []byte
	// GossipKeys are all that are understood, the one to encrypt with first; 32 bytes each.
	GossipKeys [][]byte
}

// Trust gives what holds now; next is closed when that changes.
func (a *Authority) Trust() (t Trust, next <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.standing.Load()
	return Trust{CA: s.bundle, GossipKeys: s.gossip}, a.changed
}

// Bundle has all CAs in PEM, the one that signs first.
func (a *Authority) Bundle() []byte { return a.standing.Load().bundle }

// Follow calls f with what holds, and again whenever that changed, until ctx ends.
func (a *Authority) Follow(ctx context.Context, f func(Trust)) error {
	for {
		t, next := a.Trust()
		f(t)
		select {
		case <-next:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// reread takes CAs, gossip keys and users from the store, unless this controller leads:
// then the book is ahead of it. False: there is no CA yet.
func (a *Authority) reread(ctx context.Context) (known bool, err error) {
	kvs, _, err := a.cfg.Store.Range(ctx, caKey)
	if err != nil {
		return false, fmt.Errorf("read the cluster's CA: %w", err)
	}
	if len(kvs) == 0 {
		return false, nil
	}
	var r caRecord
	if err := json.Unmarshal(kvs[0].Value, &r); err != nil {
		return true, fmt.Errorf("read the cluster's CA: %w", err)
	}
	s, err := a.read(r)
	if err != nil {
		return true, err
	}
	if kvs, _, err = a.cfg.Store.Range(ctx, userPrefix); err != nil {
		return true, fmt.Errorf("read the users: %w", err)
	}
	b, err := readBook(kvs, nil)
	if err != nil {
		return true, err
	}
	a.mu.Lock()
	leading := a.book != nil
	if !leading {
		a.people.Store(&people{of: b.users})
		a.install(s)
	}
	a.mu.Unlock()
	if !leading {
		a.holds.endStrangers(a.Admit)
	}
	return true, nil
}

// watchAgain is the wait before a watch that ended is begun anew.
const watchAgain = time.Second

// Run keeps what this controller knows of CAs, gossip keys and users up to date while
// another one leads, until ctx ends.
func (a *Authority) Run(ctx context.Context) error {
	for {
		err := a.watch(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, store.ErrClosed) {
			return err
		}
		a.cfg.Log.Warn("cannot follow the cluster's CAs and users", "error", err, "retry_in", watchAgain)
		select {
		case <-time.After(watchAgain):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (a *Authority) watch(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	_, rev, err := a.cfg.Store.Range(ctx, caKey)
	if err != nil {
		return err
	}
	w := a.cfg.Store.Watch(ctx, Prefix, rev+1)
	if _, err := a.reread(ctx); err != nil {
		return err
	}
	for {
		select {
		case c, more := <-w.Changes():
			if !more {
				return w.Err()
			}
			if !slices.ContainsFunc(c.Events, func(e store.Event) bool {
				return e.Key == caKey || len(e.Key) > len(userPrefix) && e.Key[:len(userPrefix)] == userPrefix
			}) {
				continue
			}
		case <-a.ended:
		}
		if _, err := a.reread(ctx); err != nil {
			return err
		}
	}
}
