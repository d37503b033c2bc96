package identity

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/orchctl/orch/internal/pki"
	"github.com/orchctl/orch/internal/store"
)

const (
	// TokenLife is the life of a token for which none is asked.
	TokenLife = 24 * time.Hour
	// tokenLifeMax bounds what can be asked for: a token that never ends is a
	// key under the doormat.
	tokenLifeMax = 366 * 24 * time.Hour
	// tokensMax bounds the book, which every new leader reads.
	tokensMax = 10_000
)

// CreateToken makes a join token for so many joins, 0 for any number; expires zero is
// TokenLife from now. The text
// is all that ever holds the secret.
func (a *Authority) CreateToken(ctx context.Context, role pki.JoinRole, expires time.Time, maxUses int) (string, error) {
	now := a.cfg.Now()
	if expires.IsZero() {
		expires = now.Add(TokenLife)
	}
	if expires.After(now.Add(tokenLifeMax)) {
		return "", fmt.Errorf("make join token for %s: %w: it would last until %s, at most a year is allowed", role, ErrInvalid, expires.UTC().Format(time.RFC3339))
	}
	text, r, err := pki.NewToken(a.CA(), role, now, expires, maxUses, rand.Reader)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	err = a.change(ctx, func(b *book) ([]store.Op, error) {
		ops := []store.Op{tokenOp(r)}
		for id, old := range b.tokens {
			// An expired token only tells who used it; a month of that is enough.
			if now.After(old.Expires.Add(pki.ServingValidity)) {
				delete(b.tokens, id)
				ops = append(ops, store.Delete(tokenPrefix+id))
			}
		}
		if len(b.tokens) >= tokensMax {
			return nil, fmt.Errorf("make join token for %s: %w: there are %d already; they go a month after they expired", role, ErrRefused, len(b.tokens))
		}
		b.tokens[r.ID] = r
		return ops, nil
	})
	if err != nil {
		return "", err
	}
	return text, nil
}

// Tokens gives all tokens that are not revoked, oldest first.
func (a *Authority) Tokens() ([]pki.TokenRecord, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.book == nil {
		return nil, ErrNotLeading
	}
	list := slices.SortedFunc(maps.Values(a.book.tokens), func(x, y pki.TokenRecord) int {
		return cmp.Or(x.Created.Compare(y.Created), cmp.Compare(x.ID, y.ID))
	})
	return slices.DeleteFunc(list, func(r pki.TokenRecord) bool { return !r.Revoked.IsZero() }), nil
}

// RevokeToken ends a token; false if there is none of that id.
func (a *Authority) RevokeToken(ctx context.Context, id string) (known bool, err error) {
	err = a.change(ctx, func(b *book) ([]store.Op, error) {
		var r pki.TokenRecord
		if r, known = b.tokens[id]; !known || !r.Revoked.IsZero() {
			return nil, nil
		}
		r.Revoked = a.cfg.Now().UTC()
		b.tokens[id] = r
		return []store.Op{tokenOp(r)}, nil
	})
	return known, err
}

// usable tells whether the text is a token of this cluster for role that lasts
// for some time yet.
func (a *Authority) usable(text string, role pki.JoinRole, atLeast time.Duration) bool {
	tok, err := pki.ParseToken(text)
	if err != nil || !a.standing.Load().trusts(tok.CAHash) {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.book == nil {
		return false
	}
	r, ok := a.book.tokens[tok.ID]
	return ok && r.Role == role && r.Check(tok, a.cfg.Now().Add(atLeast)) == nil
}
