package identity

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/orchctl/orch/internal/pki"
	"github.com/orchctl/orch/internal/store"
)

// book is what a term knows of the CA, tokens, names and users. It runs ahead of the store by
// what was handed to the writer: if that fails, the term ends and the book with it.
type book struct {
	ca     caRecord
	tokens map[string]pki.TokenRecord
	names  map[string]nameRecord
	users  map[string]userRecord
	writer Writer
}

// nameRecord binds a node's name to its key.
type nameRecord struct {
	KeyHash string    `json:"keyHash"` // see pki.PublicKeyHash
	Token   string    `json:"token"`   // id of the one that it joined with
	Joined  time.Time `json:"joined"`
	// Expires is when its newest certificate ends; see Renew.
	Expires time.Time `json:"expires"`
	// CA is the hash of the CA that signed it; empty: the cluster's first.
	CA string `json:"ca,omitempty"`
}

func readBook(kvs []store.KV, w Writer) (*book, error) {
	b := &book{tokens: map[string]pki.TokenRecord{}, names: map[string]nameRecord{}, users: map[string]userRecord{}, writer: w}
	for _, kv := range kvs {
		var err error
		if id, ok := strings.CutPrefix(kv.Key, tokenPrefix); ok {
			var r pki.TokenRecord
			err = json.Unmarshal(kv.Value, &r)
			b.tokens[id] = r
		} else if name, ok := strings.CutPrefix(kv.Key, namePrefix); ok {
			var r nameRecord
			err = json.Unmarshal(kv.Value, &r)
			b.names[name] = r
		} else if name, ok := strings.CutPrefix(kv.Key, userPrefix); ok {
			var r userRecord
			err = json.Unmarshal(kv.Value, &r)
			b.users[name] = r
		} else if kv.Key == caKey {
			err = json.Unmarshal(kv.Value, &b.ca)
		}
		if err != nil {
			return nil, fmt.Errorf("read %s from the store: %w", kv.Key, err)
		}
	}
	return b, nil
}

func tokenOp(r pki.TokenRecord) store.Op { return store.Put(tokenPrefix+r.ID, encode(r)) }

func nameOp(name string, r nameRecord) store.Op { return store.Put(namePrefix+name, encode(r)) }

func userOp(name string, r userRecord) store.Op { return store.Put(userPrefix+name, encode(r)) }

// change runs f on the book of this term and waits until what it wants written
// is committed. The lock is held only until the writes are queued: their order
// is the order of the changes, and many can be on their way at once. A caller
// that gives up does not keep the writes from being queued: the book has what f
// did already, and only the term's end takes that back.
func (a *Authority) change(ctx context.Context, f func(b *book) ([]store.Op, error)) error {
	wait, err := func() (func(context.Context) error, error) {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.book == nil {
			return nil, ErrNotLeading
		}
		ops, err := f(a.book)
		if err != nil || len(ops) == 0 {
			return nil, err
		}
		return a.book.writer.Write(context.WithoutCancel(ctx), ops...)
	}()
	if err != nil || wait == nil {
		return err
	}
	return wait(ctx)
}
