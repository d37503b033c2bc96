package identity

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/orchctl/orch/internal/pki"
	"github.com/orchctl/orch/internal/store"
)

const (
	// usersMax bounds the book, which every new leader reads.
	usersMax = 10_000
	// userKeysMax is how many certificates of one user are good at once. A person has one;
	// the admin of the first start gets another for each file that it is written to.
	userKeysMax = 8
	// userLifeMax bounds what can be asked for: a certificate that nobody ever renews is
	// one that nobody looks after.
	userLifeMax = 5 * 366 * 24 * time.Hour
)

// ErrExists: there is such a user already.
var ErrExists = errors.New("there is such a user already")

// userRecord is a user in the book.
type userRecord struct {
	Role    pki.Role  `json:"role"`
	Created time.Time `json:"created"`
	By      string    `json:"by,omitempty"` // empty: a controller's start
	Keys    []userKey `json:"keys"`         // oldest first
}

// userKey is a certificate by its key.
type userKey struct {
	Hash    string    `json:"hash"` // see pki.PublicKeyHash
	Expires time.Time `json:"expires"`
	CA      string    `json:"ca"` // hash of the CA that signed it
}

func (r userRecord) newest() userKey {
	if len(r.Keys) == 0 {
		return userKey{}
	}
	return r.Keys[len(r.Keys)-1]
}

func (r userRecord) has(keyHash string) bool { return r.key(keyHash).Hash != "" }

// key gives the one of that hash; zero where there is none.
func (r userRecord) key(hash string) userKey {
	for _, k := range r.Keys {
		if k.Hash == hash {
			return k
		}
	}
	return userKey{}
}

// with adds a key, and drops those that are over.
func (r userRecord) with(k userKey, now time.Time) userRecord {
	keys := slices.DeleteFunc(slices.Clone(r.Keys), func(old userKey) bool { return old.Hash == k.Hash || !now.Before(old.Expires) })
	keys = append(keys, k)
	r.Keys = keys[max(0, len(keys)-userKeysMax):]
	return r
}

// people are the users as calls are judged by. It does not change.
type people struct {
	leading bool
	of      map[string]userRecord
}

// User is a user in the book.
type User struct {
	Name             string
	Role             pki.Role
	Created, Expires time.Time
	By               string
}

// NewUser is a user to make. Expires zero is pki.UserValidity from now.
type NewUser struct {
	Name    string
	Role    pki.Role
	Expires time.Time
	CSR     []byte
	Replace bool
	By      string
}

// CreateUser signs a certificate for a user's key and puts the user into the book. A
// retry with the same key is answered again.
func (a *Authority) CreateUser(ctx context.Context, u NewUser) (certPEM []byte, err error) {
	id := pki.Identity{Kind: pki.User, Name: u.Name, Role: u.Role}
	fail := func(err error) ([]byte, error) { return nil, fmt.Errorf("create user %s: %w", u.Name, err) }
	if err := id.Validate(); err != nil {
		return fail(fmt.Errorf("%w: %w", ErrInvalid, err))
	}
	req, err := pki.ParseCSR(u.CSR)
	if err != nil {
		return fail(fmt.Errorf("%w: %w", ErrInvalid, err))
	}
	if req.Identity != id {
		return fail(fmt.Errorf("%w: the request asks for %s, the call for %s", ErrInvalid, req.Identity, id))
	}
	now := a.cfg.Now()
	life := pki.UserValidity
	if !u.Expires.IsZero() {
		life = u.Expires.Sub(now)
	}
	switch {
	case life <= 0:
		return fail(fmt.Errorf("%w: it would expire at %s, before it is made", ErrInvalid, u.Expires.UTC().Format(time.RFC3339)))
	case life > userLifeMax:
		return fail(fmt.Errorf("%w: it would last until %s, at most five years are allowed", ErrInvalid, u.Expires.UTC().Format(time.RFC3339)))
	}
	err = a.changeUsers(ctx, func(b *book) ([]store.Op, error) {
		have, known := b.users[u.Name]
		again := known && have.has(req.KeyHash)
		switch {
		case known && !again && !u.Replace:
			return nil, fmt.Errorf("%w, with the role %s: choose another name, or say --replace to make a new certificate, after which the old one is worth nothing", ErrExists, have.Role)
		case !known && len(b.users) >= usersMax:
			return nil, fmt.Errorf("%w: there are %d already: remove some", ErrRefused, len(b.users))
		case known && have.Role == pki.Admin && u.Role != pki.Admin && !b.otherAdmin(u.Name, now):
			return nil, fmt.Errorf("%w: %s is the last admin: make another first", ErrRefused, u.Name)
		}
		var op store.Op
		if certPEM, op, err = a.sign(b, u, req, life, now, again); err != nil {
			return nil, err
		}
		return []store.Op{op}, nil
	})
	if err != nil {
		return fail(err)
	}
	a.holds.endStrangers(a.Admit) // calls with what was replaced
	return certPEM, nil
}

// sign makes the certificate and the record; keep leaves the user's other keys.
func (a *Authority) sign(b *book, u NewUser, req pki.Request, life time.Duration, now time.Time, keep bool) ([]byte, store.Op, error) {
	ca := a.CA()
	certPEM, err := ca.Sign(u.CSR, req.Identity, life, now)
	if err != nil {
		return nil, store.Op{}, err
	}
	cert, err := pki.ParseCert(certPEM)
	if err != nil {
		return nil, store.Op{}, err
	}
	r := userRecord{Role: u.Role, Created: now.UTC(), By: u.By}
	if have, known := b.users[u.Name]; known && keep {
		r.Created, r.By, r.Keys = have.Created, have.By, have.Keys
	}
	r = r.with(userKey{Hash: req.KeyHash, Expires: cert.NotAfter.UTC(), CA: ca.Hash()}, now)
	b.users[u.Name] = r
	return certPEM, userOp(u.Name, r), nil
}

// otherAdmin tells whether anybody but that user can act as an admin.
func (b *book) otherAdmin(but string, now time.Time) bool {
	for name, r := range b.users {
		if name != but && r.Role == pki.Admin && now.Before(r.newest().Expires) {
			return true
		}
	}
	return false
}

// changeUsers is change; calls are judged by the outcome from the moment that it is
// handed to the writer.
func (a *Authority) changeUsers(ctx context.Context, f func(b *book) ([]store.Op, error)) error {
	return a.change(ctx, func(b *book) ([]store.Op, error) {
		ops, err := f(b)
		if err == nil {
			a.people.Store(&people{leading: true, of: maps.Clone(b.users)})
		}
		return ops, err
	})
}

// Users gives all users by name.
func (a *Authority) Users() ([]User, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.book == nil {
		return nil, ErrNotLeading
	}
	var list []User
	for name, r := range a.book.users {
		list = append(list, User{Name: name, Role: r.Role, Created: r.Created, Expires: r.newest().Expires, By: r.By})
	}
	slices.SortFunc(list, func(x, y User) int { return strings.Compare(x.Name, y.Name) })
	return list, nil
}

// RemoveUser makes a user's certificates worthless and ends the calls that are made with
// them. False: there is no such user. by is who says it: nobody removes himself.
func (a *Authority) RemoveUser(ctx context.Context, name, by string) (known bool, err error) {
	err = a.changeUsers(ctx, func(b *book) ([]store.Op, error) {
		var r userRecord
		if r, known = b.users[name]; !known {
			return nil, nil
		}
		if r.Role == pki.Admin && !b.otherAdmin(name, a.cfg.Now()) {
			return nil, fmt.Errorf("remove user %s: %w: it is the last admin, and nobody could make another: make one first, with \"orchctl user create NAME --role admin\"", name, ErrRefused)
		}
		if name == by {
			return nil, fmt.Errorf("remove user %s: %w: that is you, and you could not undo it: another admin has to", name, ErrRefused)
		}
		delete(b.users, name)
		return []store.Op{store.Delete(userPrefix + name)}, nil
	})
	if err == nil && known {
		a.holds.endStrangers(a.Admit)
	}
	return known, err
}

// Admit decides whether a user may come in with that certificate: it must be in the book,
// which a controller has while it leads. Others know it as they read it last: whom that
// has may read what they know, and every change needs a leader.
func (a *Authority) Admit(id pki.Identity, cert *x509.Certificate) error {
	if now := a.cfg.Now(); !now.Before(cert.NotAfter) {
		return fmt.Errorf("%s: %w: the certificate expired at %s: ask an admin for \"orchctl user create %s --role %s --replace\"", id, ErrRefused, cert.NotAfter.UTC().Format(time.RFC3339), id.Name, id.Role)
	}
	p := a.people.Load()
	r, known := p.of[id.Name]
	switch {
	case known && r.Role == id.Role && r.has(pki.PublicKeyHash(cert)):
		if k := r.key(pki.PublicKeyHash(cert)); !a.standing.Load().trusts(k.CA) {
			return fmt.Errorf("%s: %w: the CA that signed the certificate was retired: ask an admin for \"orchctl user create %s --role %s --replace\"", id, ErrRefused, id.Name, id.Role)
		}
		return nil
	case !p.leading:
		return fmt.Errorf("%s is not known here: %w", id, ErrNotLeading)
	case !known:
		return fmt.Errorf("%s: %w: there is no such user any more: ask an admin for \"orchctl user create %s --role %s\"", id, ErrRefused, id.Name, id.Role)
	}
	return fmt.Errorf("%s: %w: there is a newer certificate for this user: use the context file that was made with it, or ask an admin for \"orchctl user create %s --role %s --replace\"", id, ErrRefused, id.Name, cmp.Or(r.Role, id.Role))
}
