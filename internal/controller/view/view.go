package view

import (
	"cmp"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/btree"

	"github.com/orchctl/orch/internal/controller/core"
)

// ErrTooSlow: the watcher did not keep up; it is to list and watch again.
var ErrTooSlow = errors.New("too slow, list again")

const (
	// degree of the tree: a change copies one node per level, about 2 KB each.
	degree = 32
	// unreadMax is how many changes may wait for a watcher: a node's death in a
	// large fleet publishes some thousands at once.
	unreadMax = 65_536
)

// Change is one object that came, changed or went.
type Change struct {
	Key core.ViewKey
	// Object as published; of one that went, as it was last.
	Object any
	Gone   bool
}

// View is what the leader last published. Make it with New. One goroutine
// writes; any may read.
type View struct {
	current atomic.Pointer[Snapshot] // nil before the first publication

	mu       sync.Mutex
	tree     *btree.BTreeG[core.Entry]
	fresh    bool // the next publication begins a term: it is complete
	watchers map[*Watcher]bool
}

// Snapshot is the view at one moment.
type Snapshot struct {
	tree *btree.BTreeG[core.Entry]
	// StaleSince is when the leader that published it ended; zero while it leads.
	StaleSince time.Time
}

// New makes a view that nothing was published to yet.
func New() *View {
	return &View{tree: newTree(), watchers: map[*Watcher]bool{}}
}

func newTree() *btree.BTreeG[core.Entry] {
	return btree.NewG(degree, func(a, b core.Entry) bool { return compare(a.Key, b.Key) < 0 })
}

// Begin says that a new term leads: its first publication is the whole picture,
// and what it does not hold is gone.
func (v *View) Begin() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.fresh = true
}

// Begun tells whether the term that began has published.
func (v *View) Begun() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return !v.fresh
}

// End says that nobody leads any more: what is there is stale from now on.
func (v *View) End(now time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.fresh = true
	if s := v.current.Load(); s != nil && s.StaleSince.IsZero() {
		v.current.Store(&Snapshot{tree: s.tree, StaleSince: now})
	}
}

// Publish takes in what changed. It never waits for a reader.
func (v *View) Publish(p core.Publish) {
	v.mu.Lock()
	defer v.mu.Unlock()
	changes := make([]Change, 0, len(p.Put)+len(p.Gone))
	if v.fresh {
		v.fresh = false
		changes = v.replace(p, changes)
	} else {
		changes = apply(v.tree, p, changes)
	}
	v.current.Store(&Snapshot{tree: v.tree.Clone()})
	for w := range v.watchers {
		if !w.offer(changes) {
			delete(v.watchers, w)
		}
	}
}

func apply(tree *btree.BTreeG[core.Entry], p core.Publish, changes []Change) []Change {
	for _, e := range p.Put {
		tree.ReplaceOrInsert(e)
		changes = append(changes, Change{Key: e.Key, Object: e.Object})
	}
	for _, k := range p.Gone {
		if old, ok := tree.Delete(core.Entry{Key: k}); ok {
			changes = append(changes, Change{Key: k, Object: old.Object, Gone: true})
		}
	}
	return changes
}

// replace begins anew with what a term publishes first.
func (v *View) replace(p core.Publish, changes []Change) []Change {
	next := newTree()
	changes = apply(next, p, changes)
	v.tree.Ascend(func(e core.Entry) bool {
		if !next.Has(e) {
			changes = append(changes, Change{Key: e.Key, Object: e.Object, Gone: true})
		}
		return true
	})
	v.tree = next
	return changes
}

// Snapshot is the view as it is now; nil before anything was published.
func (v *View) Snapshot() *Snapshot { return v.current.Load() }

// Get gives one object.
func (s *Snapshot) Get(k core.ViewKey) (any, bool) {
	e, ok := s.tree.Get(core.Entry{Key: k})
	return e.Object, ok
}

// All visits the objects of a kind in natural order ("n2" before "n10"), of one
// namespace or, for "", of all, until visit returns false. Objects without a
// namespace are visited for "" only.
func (s *Snapshot) All(kind, namespace string, visit func(core.Entry) bool) {
	s.tree.AscendGreaterOrEqual(core.Entry{Key: core.ViewKey{Kind: kind, Namespace: namespace}}, func(e core.Entry) bool {
		if e.Key.Kind != kind || namespace != "" && e.Key.Namespace != namespace {
			return false
		}
		return visit(e)
	})
}

// Within visits the objects of a kind whose names begin with beginning, which ends in
// its separator ("n1/", "web@"), in natural order, until visit returns false. It
// costs what it visits.
func (s *Snapshot) Within(kind, namespace, beginning string, visit func(core.Entry) bool) {
	last := core.ViewKey{Kind: kind, Namespace: namespace, Name: beginning + "\xff"} // no name goes so far
	s.tree.AscendGreaterOrEqual(core.Entry{Key: core.ViewKey{Kind: kind, Namespace: namespace, Name: beginning}}, func(e core.Entry) bool {
		if compare(e.Key, last) > 0 {
			return false
		}
		// Between them may stand those of "n01", which is as large as "n1".
		return !strings.HasPrefix(e.Key.Name, beginning) || visit(e)
	})
}

// Count is the number of objects of a kind.
func (s *Snapshot) Count(kind string) int {
	n := 0
	s.All(kind, "", func(core.Entry) bool { n++; return true })
	return n
}

func compare(a, b core.ViewKey) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), natural(a.Name, b.Name))
}

// natural compares texts with numbers in them by the numbers' size. Texts that
// are equal so ("a1", "a01") are told apart byte by byte.
func natural(a, b string) int {
	for i, j := 0, 0; i < len(a) && j < len(b); {
		if !digit(a[i]) || !digit(b[j]) {
			if a[i] != b[j] {
				return cmp.Compare(a[i], b[j])
			}
			i, j = i+1, j+1
			continue
		}
		x, y := number(a[i:]), number(b[j:])
		i, j = i+len(x), j+len(y)
		x, y = trimZeros(x), trimZeros(y)
		if c := cmp.Or(cmp.Compare(len(x), len(y)), cmp.Compare(x, y)); c != 0 {
			return c
		}
		if i == len(a) || j == len(b) {
			if c := cmp.Compare(len(a)-i, len(b)-j); c != 0 {
				return c
			}
		}
	}
	return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
}

func digit(c byte) bool { return '0' <= c && c <= '9' }

func number(s string) string {
	i := 0
	for i < len(s) && digit(s[i]) {
		i++
	}
	return s[:i]
}

func trimZeros(s string) string {
	for len(s) > 1 && s[0] == '0' {
		s = s[1:]
	}
	return s
}
