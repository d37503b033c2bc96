package store

import (
	"fmt"
	"sort"
	"strings"
)

// Txn is a transaction: if every compare holds, every op is done, at one
// revision. No op may touch a key that another op of the same transaction
// touches, except that deletions may overlap (etcd's rule).
type Txn struct {
	If   []Compare
	Then []Op
}

// CompareKind says what a Compare looks at. The zero value is invalid.
type CompareKind uint8

const (
	CompareAbsent CompareKind = iota + 1
	CompareModRev
	CompareValue
)

// Compare is a condition on one key. Make it with Absent, ModRevIs or ValueIs.
type Compare struct {
	Kind  CompareKind
	Key   string
	Rev   int64  // CompareModRev
	Value []byte // CompareValue
}

// Absent holds if the key does not exist.
func Absent(key string) Compare { return Compare{Kind: CompareAbsent, Key: key} }

// ModRevIs holds if the key was last changed at rev; rev 0 means absent.
func ModRevIs(key string, rev int64) Compare {
	return Compare{Kind: CompareModRev, Key: key, Rev: rev}
}

// ValueIs holds if the key exists with exactly this value.
func ValueIs(key string, value []byte) Compare {
	return Compare{Kind: CompareValue, Key: key, Value: value}
}

// OpKind says what an Op does. The zero value is invalid.
type OpKind uint8

const (
	OpPut OpKind = iota + 1
	OpDelete
	OpDeletePrefix
)

// Op is one write. Make it with Put, Delete or DeletePrefix.
type Op struct {
	Kind  OpKind
	Key   string // the prefix for OpDeletePrefix
	Value []byte // OpPut
}

// Put sets key to value. The value must not be changed afterwards.
func Put(key string, value []byte) Op { return Op{Kind: OpPut, Key: key, Value: value} }

// Delete removes key; no error if it is absent.
func Delete(key string) Op { return Op{Kind: OpDelete, Key: key} }

// DeletePrefix removes every key that starts with prefix, which must not be
// empty: nothing in orch may wipe the whole store by an empty string.
func DeletePrefix(prefix string) Op { return Op{Kind: OpDeletePrefix, Key: prefix} }

// opOverhead is what one op or compare adds to a request beside its key and
// value, in bytes: field tags, lengths, kinds, revision. Generous.
const opOverhead = 32

// Size is what the compare counts against Limits.MaxBytes.
func (c Compare) Size() int { return len(c.Key) + len(c.Value) + opOverhead }

// Size is what the op counts against Limits.MaxBytes.
func (o Op) Size() int { return len(o.Key) + len(o.Value) + opOverhead }

// Size is what the transaction counts against Limits.MaxBytes.
func (t Txn) Size() int {
	n := 0
	for _, c := range t.If {
		n += c.Size()
	}
	for _, o := range t.Then {
		n += o.Size()
	}
	return n
}

// Check tells whether a store with these limits takes the transaction: nil,
// ErrTooLarge or ErrInvalid with the place. Both stores call it first, so that
// they refuse alike.
func (t Txn) Check(l Limits) error {
	if n := max(len(t.If), len(t.Then)); n > l.MaxOps {
		return fmt.Errorf("%w: %d operations, limit %d", ErrTooLarge, n, l.MaxOps)
	}
	if n := t.Size(); n > l.MaxBytes {
		return fmt.Errorf("%w: %d bytes, limit %d", ErrTooLarge, n, l.MaxBytes)
	}
	for _, c := range t.If {
		switch {
		case c.Key == "":
			return fmt.Errorf("%w: compare of an empty key", ErrInvalid)
		case c.Kind < CompareAbsent || c.Kind > CompareValue:
			return fmt.Errorf("%w: compare of %q has unknown kind %d", ErrInvalid, c.Key, c.Kind)
		}
	}
	return t.checkOps()
}

func (t Txn) checkOps() error {
	puts := make(map[string]bool, len(t.Then))
	deletes := false
	for _, o := range t.Then {
		if o.Key == "" {
			return fmt.Errorf("%w: operation on an empty key", ErrInvalid)
		}
		switch o.Kind {
		case OpPut:
			if puts[o.Key] {
				return fmt.Errorf("%w: two puts of %q", ErrInvalid, o.Key)
			}
			puts[o.Key] = true
		case OpDelete, OpDeletePrefix:
			deletes = true
		default:
			return fmt.Errorf("%w: operation on %q has unknown kind %d", ErrInvalid, o.Key, o.Kind)
		}
	}
	if !deletes {
		return nil
	}
	sorted := make([]string, 0, len(puts))
	for k := range puts {
		sorted = append(sorted, k)
	}
	sort.Strings(sorted)
	for _, o := range t.Then {
		switch o.Kind {
		case OpDelete:
			if puts[o.Key] {
				return fmt.Errorf("%w: put and delete of %q", ErrInvalid, o.Key)
			}
		case OpDeletePrefix:
			i := sort.SearchStrings(sorted, o.Key)
			if i < len(sorted) && strings.HasPrefix(sorted[i], o.Key) {
				return fmt.Errorf("%w: put of %q under deleted prefix %q", ErrInvalid, sorted[i], o.Key)
			}
		}
	}
	return nil
}
