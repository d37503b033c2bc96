package store

import (
	"context"
	"errors"
)

var (
	// ErrConflict: a compare did not hold. Nothing was written.
	ErrConflict = errors.New("a compare failed")
	// ErrUnknown: the transaction may or may not have been written, now or
	// later. The only sound answer is to read again behind a new fence.
	ErrUnknown = errors.New("outcome unknown")
	// ErrCompacted: the revision asked for is no longer kept. Range anew.
	ErrCompacted = errors.New("revision compacted")
	// ErrTooLarge: the transaction is above Limits. Nothing was written.
	ErrTooLarge = errors.New("transaction too large")
	// ErrNoSpace: the store's quota is used up. etcd may report it for a
	// transaction that it still wrote, so it can come together with ErrUnknown.
	ErrNoSpace = errors.New("store is full")
	// ErrInvalid: the transaction is malformed (see Txn.Check). Nothing was
	// written.
	ErrInvalid = errors.New("invalid transaction")
	// ErrClosed: the store was closed by its owner.
	ErrClosed = errors.New("store is closed")
)

// Store is a key-value store with one revision counter for all keys. Every
// transaction that changes something raises the revision by one. All methods
// may be called from several goroutines.
type Store interface {
	// Txn writes t.Then atomically if every compare in t.If holds, and returns
	// the revision of the write. A transaction that changes nothing (no ops, or
	// deletes of absent keys) returns the current revision, confirmed by a
	// quorum. Errors: ErrConflict, ErrTooLarge, ErrInvalid, ErrClosed, or the
	// context's error before it was sent: nothing written. ErrUnknown: see there.
	// ErrNoSpace without ErrUnknown: nothing written.
	Txn(ctx context.Context, t Txn) (rev int64, err error)

	// Range returns all keys that start with prefix ("" is every key), sorted,
	// as one snapshot, and the store's revision of that snapshot. The read is
	// linearizable and retried while the store cannot be reached. Values must
	// not be changed by the caller.
	Range(ctx context.Context, prefix string) (kvs []KV, rev int64, err error)

	// Watch reports changes under prefix with ModRev >= from, in order, without
	// gap or repetition; from below 1 means from the first. It lives until ctx
	// ends, the store closes, or from is compacted.
	Watch(ctx context.Context, prefix string, from int64) Watcher

	// Limits are the largest transaction that Txn takes.
	Limits() Limits

	// Close releases the store and ends its watches with ErrClosed.
	Close() error
}

// Watcher is a running watch.
type Watcher interface {
	// Changes delivers whole transactions. It is closed when the watch ends.
	Changes() <-chan Change
	// Err says why the watch ended: ErrCompacted, ErrClosed or the context's
	// error. Nil while it runs.
	Err() error
}

// Change is what one transaction did under the watched prefix.
type Change struct {
	Rev    int64   // revision of the transaction
	Events []Event // in the order of its ops; never empty
}

// Event is one key's change.
type Event struct {
	KV           // of a deletion only Key and ModRev (the deletion's) are set
	Deleted bool // the key is gone
}

// KV is a key with its value and the revisions that created and last changed it.
type KV struct {
	Key       string
	Value     []byte
	CreateRev int64
	ModRev    int64
}

// Limits bound one transaction.
type Limits struct {
	MaxOps   int // ops, and likewise compares, in one transaction
	MaxBytes int // sum of Compare.Size and Op.Size, in bytes
}

// ExternalLimits fit an external etcd with its default settings: 128 operations
// and 1.5 MiB per request, of which a third is left for the encoding.
var ExternalLimits = Limits{MaxOps: 128, MaxBytes: 1 << 20}

// EmbeddedLimits fit the etcd that a controller runs itself (store/etcd raises
// its settings to match). The ops hold the failover of a node's share of a very
// large fleet in one transaction; the bytes keep one raft entry small enough
// not to delay heartbeats.
var EmbeddedLimits = Limits{MaxOps: 16384, MaxBytes: 4 << 20}
