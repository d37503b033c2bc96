package identity

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/orchctl/orch/internal/pki"
	"github.com/orchctl/orch/internal/store"
)

const (
	// gossipSettle is how long each step of a rotation of gossip's key is left to reach
	// everybody: sessions are told within milliseconds, and who has none learns it with the
	// next Welcome.
	gossipSettle = 2 * time.Second
	// namedMax is how many nodes or users a refusal names.
	namedMax = 10
)

// AuthorityInfo is one CA that is trusted.
type AuthorityInfo struct {
	Hash             string
	Created, Expires time.Time
	// Signing: nodes and users get their certificates from it.
	Signing bool
	// Nodes and Users have their newest certificate from it.
	Nodes, Users []string
}

// Authorities gives all CAs that are trusted, the one that signs first.
func (a *Authority) Authorities() ([]AuthorityInfo, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.book == nil {
		return nil, ErrNotLeading
	}
	s := a.standing.Load()
	list := []AuthorityInfo{infoOf(s.ca, s.created, true)}
	if s.older != nil {
		list = append(list, infoOf(s.older, s.olderCreated, false))
	}
	for i := range list {
		list[i].Nodes, list[i].Users = a.book.holders(list[i].Hash, s.ca.Hash(), a.cfg.Now())
	}
	return list, nil
}

func infoOf(ca *pki.CA, created time.Time, signing bool) AuthorityInfo {
	return AuthorityInfo{Hash: ca.Hash(), Created: created, Expires: ca.Certificate().NotAfter, Signing: signing}
}

// holders are who has the newest certificate from that CA; sorted. Certificates that are
// over for good do not count.
func (b *book) holders(hash, signing string, now time.Time) (nodes, users []string) {
	first := cmp.Or(b.ca.First, signing)
	for name, r := range b.names {
		if cmp.Or(r.CA, first) == hash && now.Before(r.Expires.Add(pki.RenewGrace)) {
			nodes = append(nodes, name)
		}
	}
	for name, r := range b.users {
		if k := r.newest(); k.CA == hash && now.Before(k.Expires) {
			users = append(users, name)
		}
	}
	slices.Sort(nodes)
	slices.Sort(users)
	return nodes, users
}

// RotateAuthority makes a new CA, which signs for nodes and users from then on. The one
// before goes on to sign for controllers, so that everybody believes them, until it is
// retired; the new one vouches for it to whoever joins.
func (a *Authority) RotateAuthority(ctx context.Context) (AuthorityInfo, error) {
	fail := func(err error) (AuthorityInfo, error) {
		return AuthorityInfo{}, fmt.Errorf("rotate the CA: %w", err)
	}
	a.turning.Lock()
	defer a.turning.Unlock()
	s, now := a.standing.Load(), a.cfg.Now()
	if s.older != nil {
		return fail(fmt.Errorf("%w: there are two already: retire the older one first, with \"orchctl ca retire %.8s\"; \"orchctl ca list\" shows who still needs it", ErrRefused, s.older.Hash()))
	}
	ca, err := pki.NewCA(s.ca.Cluster, now, rand.Reader)
	if err != nil {
		return fail(err)
	}
	sealed, err := pki.Seal(a.seal, purposeCA, ca.KeyPEM, rand.Reader)
	if err != nil {
		return fail(err)
	}
	err = a.turn(ctx, func(r caRecord) (caRecord, error) {
		r.Older = &olderCA{Certificate: r.Certificate, SealedKey: r.SealedKey, Created: r.Created}
		r.First = cmp.Or(r.First, s.ca.Hash())
		r.Certificate, r.SealedKey, r.Created = string(ca.CertPEM), sealed, now.UTC()
		return r, nil
	})
	if err != nil {
		return fail(err)
	}
	a.cfg.Log.Info("the cluster has a new CA", "ca", ca.Hash(), "before", s.ca.Hash())
	return infoOf(ca, now, true), nil
}

// RetireAuthority ends the trust in a CA that signs no more, named by its hash or a
// beginning of it.
func (a *Authority) RetireAuthority(ctx context.Context, hash string, force bool) error {
	fail := func(err error) error { return fmt.Errorf("retire the CA %.64s: %w", hash, err) }
	a.turning.Lock()
	defer a.turning.Unlock()
	s := a.standing.Load()
	switch {
	case hash == "":
		return fail(fmt.Errorf("%w: name it by the beginning of its hash: see \"orchctl ca list\"", ErrInvalid))
	case s.older != nil && strings.HasPrefix(s.older.Hash(), hash) && strings.HasPrefix(s.ca.Hash(), hash):
		return fail(fmt.Errorf("%w: more than one begins so: see \"orchctl ca list\"", ErrInvalid))
	case strings.HasPrefix(s.ca.Hash(), hash):
		return fail(fmt.Errorf("%w: it signs the cluster's certificates: make another first, with \"orchctl ca rotate\"", ErrRefused))
	case s.older == nil || !strings.HasPrefix(s.older.Hash(), hash):
		return fail(fmt.Errorf("%w: see \"orchctl ca list\"", ErrUnknown))
	}
	err := a.turn(ctx, func(r caRecord) (caRecord, error) {
		nodes, users := a.book.holders(s.older.Hash(), s.ca.Hash(), a.cfg.Now())
		if !force && len(nodes)+len(users) > 0 {
			return r, fmt.Errorf("%w: certificates of it are still used by %s. A node that is connected gets another one within seconds, one that is away when it is back; a user gets one by \"orchctl user create NAME --role ROLE --replace\". --force retires it nevertheless: who has nothing newer is locked out then, and a node has to join again with a fresh token", ErrRefused, inWords(nodes, users))
		}
		r.Older = nil
		return r, nil
	})
	if err != nil {
		return fail(err)
	}
	a.cfg.Log.Info("a CA was retired", "ca", s.older.Hash(), "force", force)
	a.holds.endStrangers(a.Admit)
	return nil
}

// inWords names the first few.
func inWords(nodes, users []string) string {
	var parts []string
	for _, of := range []struct {
		what  string
		names []string
	}{{"node", nodes}, {"user", users}} {
		if len(of.names) == 0 {
			continue
		}
		text := of.what + " "
		if len(of.names) > 1 {
			text = of.what + "s "
		}
		text += strings.Join(of.names[:min(len(of.names), namedMax)], ", ")
		if more := len(of.names) - namedMax; more > 0 {
			text += fmt.Sprintf(" and %d more", more)
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, " and ")
}

// turn changes the record of CAs and gossip's keys, waits until that is committed, and
// makes it what holds. The caller holds turning. A caller who loses interest does not keep
// what was committed from being known.
func (a *Authority) turn(ctx context.Context, f func(caRecord) (caRecord, error)) error {
	var next *standing
	var of *book
	err := a.change(context.WithoutCancel(ctx), func(b *book) ([]store.Op, error) {
		r, err := f(b.ca)
		if err != nil {
			return nil, err
		}
		if next, err = a.read(r); err != nil {
			return nil, err
		}
		b.ca, of = r, b
		return []store.Op{store.Put(caKey, encode(r))}, nil
	})
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.book == of { // else the term is over, and what is in the store may be newer
		a.install(next)
	}
	return nil
}

// GossipKey encrypts gossip; 32 bytes.
func (a *Authority) GossipKey() []byte { return a.standing.Load().gossip[0] }

// RotateGossipKey gives gossip a new key, in steps that Tend makes: all are told it, then
// it is used, then the old one is forgotten. It returns when that is done, with a short
// hash of the key, or as soon as ctx ends; the steps go on.
func (a *Authority) RotateGossipKey(ctx context.Context) (string, error) {
	fail := func(err error) (string, error) { return "", fmt.Errorf("rotate gossip's key: %w", err) }
	key := make([]byte, gossipKeyBytes)
	rand.Read(key)
	sealed, err := pki.Seal(a.seal, purposeGossip, key, rand.Reader)
	if err != nil {
		return fail(err)
	}
	a.turning.Lock()
	err = a.turn(ctx, func(r caRecord) (caRecord, error) {
		if r.NextGossip != nil || r.LastGossip != nil {
			return r, fmt.Errorf("%w: that is being done, and ends by itself within %s", ErrRefused, 2*gossipSettle)
		}
		r.NextGossip = sealed
		return r, nil
	})
	a.turning.Unlock()
	if err != nil {
		return fail(err)
	}
	hash := KeyName(key)
	a.cfg.Log.Info("gossip gets a new key", "key", hash)
	for {
		_, changed := a.Trust()
		if !a.standing.Load().moving {
			return hash, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fail(ctx.Err())
		}
	}
}

// KeyName is a short hash by which a secret key can be told of.
func KeyName(key []byte) string {
	sum := sha256.Sum256(key)
	return hex.EncodeToString(sum[:4])
}

// Tend makes the steps of a rotation of gossip's key that are due, also of one that an
// earlier leader began. It is run in each term, until ctx ends.
func (a *Authority) Tend(ctx context.Context) {
	for {
		_, changed := a.Trust()
		var due <-chan time.Time
		if a.standing.Load().moving {
			due = time.After(gossipSettle)
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-due:
			if err := a.stepGossip(ctx); err != nil && ctx.Err() == nil {
				a.cfg.Log.Warn("rotate gossip's key", "error", err, "retry_in", gossipSettle)
			}
		}
	}
}

func (a *Authority) stepGossip(ctx context.Context) error {
	a.turning.Lock()
	defer a.turning.Unlock()
	return a.turn(ctx, func(r caRecord) (caRecord, error) {
		if r.NextGossip != nil {
			r.SealedGossip, r.LastGossip, r.NextGossip = r.NextGossip, r.SealedGossip, nil
		} else {
			r.LastGossip = nil
		}
		return r, nil
	})
}
