package identity

import (
	"maps"
	"slices"
	"time"

	"github.com/orchctl/orch/internal/store"
)

// Revived is who may come in again where the store was set back to a backup: whoever was
// removed since is in the book as before.
type Revived struct {
	// Tokens is how many join tokens were revoked.
	Tokens int
	// Users and Nodes by name, sorted.
	Users, Nodes []string
}

// Restored gives what has to change in a store that was restored from a backup, of which
// kvs are all that lies below Prefix. A join token that was used up or revoked after the
// backup would be good again, and nobody can tell: all of them are revoked.
func Restored(kvs []store.KV, now time.Time) (ops []store.Op, who Revived, err error) {
	b, err := readBook(kvs, nil)
	if err != nil {
		return nil, Revived{}, err
	}
	for _, id := range slices.Sorted(maps.Keys(b.tokens)) {
		r := b.tokens[id]
		if !r.Revoked.IsZero() || now.After(r.Expires) {
			continue
		}
		r.Revoked = now.UTC()
		ops = append(ops, tokenOp(r))
	}
	return ops, Revived{Tokens: len(ops), Users: slices.Sorted(maps.Keys(b.users)), Nodes: slices.Sorted(maps.Keys(b.names))}, nil
}
