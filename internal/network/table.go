package network

import (
	"fmt"
	"hash/fnv"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/orchctl/orch/api"
)

// Connection is one that a kernel keeps track of, as its client sees it.
type Connection struct {
	// ID is the kernel's; 0: not known.
	ID       uint32
	Protocol api.Protocol
	Client   netip.AddrPort
	// To is what the client has connected to, Server who answers: they differ where
	// a rule led it there.
	To, Server netip.AddrPort
	// Open is false for a TCP connection that is not made yet, and for one that is
	// Ending: it was reset, or both sides have said their last. Neither is one over UDP.
	Open, Ending bool
}

// Table is a set of nftables rules: what the kernel has, or should have.
type Table struct {
	Chains map[string]Chain
	Sets   map[string]Set
}

// NewTable is an empty one.
func NewTable() *Table { return &Table{Chains: map[string]Chain{}, Sets: map[string]Set{}} }

// Chain is a chain with its rules.
type Chain struct {
	// Base is where the kernel enters it; nil for one that others go to.
	Base  *Base
	Rules []Rule
}

// Base is a chain's hook.
type Base struct {
	Type, Hook string
	Priority   int
}

// Rule is one rule. In the kernel its hash is its comment, by which it is known again.
type Rule struct {
	// Text is in the words of nft; empty in what was read from the kernel.
	Text string
	Hash string
}

func rule(format string, args ...any) Rule {
	text := fmt.Sprintf(format, args...)
	return Rule{text, hash(text)}
}

func hash(text string) string {
	h := fnv.New64a()
	h.Write([]byte(text))
	return fmt.Sprintf("%016x", h.Sum64())
}

// Set is a set, or a map where Value is not empty, of a table.
type Set struct {
	// Key and Value are types in the words of nft, such as "inet_proto . inet_service".
	Key, Value string
	// Timeout in seconds makes it one that rules add to; its elements are the kernel's own.
	Timeout int
	// Elements maps keys to values (empty in a set), in the words of nft.
	Elements map[string]string
}

func (s Set) sameKind(t Set) bool {
	return s.Key == t.Key && s.Value == t.Value && s.Timeout == t.Timeout
}

func (c Chain) sameRules(d Chain) bool {
	return slices.EqualFunc(c.Rules, d.Rules, func(a, b Rule) bool { return a.Hash == b.Hash })
}

func (c Chain) sameBase(d Chain) bool {
	return (c.Base == nil) == (d.Base == nil) && (c.Base == nil || *c.Base == *d.Base)
}

// Change turns one table into another, as one transaction in the order of its fields.
type Change struct {
	// Whole: the table is made anew, whatever it held.
	Whole bool
	// Sets are made, without elements, then Chains, which are made where they are
	// missing and emptied, then filled when all are there.
	Sets   map[string]Set
	Chains map[string]Chain
	// Drop and Put are elements by set; one whose value changes is in both.
	Drop, Put map[string]map[string]string
	// DropChains and DropSets are used by nothing any more.
	DropChains, DropSets []string
}

// Empty tells whether there is nothing to do.
func (c Change) Empty() bool {
	return !c.Whole && len(c.Sets)+len(c.Chains)+len(c.Drop)+len(c.Put)+len(c.DropChains)+len(c.DropSets) == 0
}

// Size is how many objects, rules and elements it names: what it costs.
func (c Change) Size() int {
	n := len(c.Sets) + len(c.DropChains) + len(c.DropSets)
	for _, chain := range c.Chains {
		n += 1 + len(chain.Rules)
	}
	for _, e := range c.Drop {
		n += len(e)
	}
	for _, e := range c.Put {
		n += len(e)
	}
	return n
}

// Opened are the UDP ports of nodes that lead somewhere from now on.
func (c Change) Opened() []uint16 {
	var out []uint16
	for key := range c.Put[setPorts] {
		if _, led := c.Drop[setPorts][key]; led {
			continue
		}
		if port, ok := strings.CutPrefix(key, "udp . "); ok {
			if n, err := strconv.ParseUint(port, 10, 16); err == nil {
				out = append(out, uint16(n))
			}
		}
	}
	slices.Sort(out)
	return out
}

func element(m *map[string]map[string]string, set, key, value string) {
	if *m == nil {
		*m = map[string]map[string]string{}
	}
	if (*m)[set] == nil {
		(*m)[set] = map[string]string{}
	}
	(*m)[set][key] = value
}

// chain notes that a chain becomes another; nil: it is not there.
func (c *Change) chain(name string, have, want *Chain) {
	switch {
	case want == nil && have != nil:
		c.DropChains = append(c.DropChains, name)
	case want == nil:
	case have == nil || !have.sameRules(*want):
		if c.Chains == nil {
			c.Chains = map[string]Chain{}
		}
		c.Chains[name] = *want
	}
}

// set notes that a set becomes another of the same kind.
func (c *Change) set(name string, have, want *Set) {
	if want == nil {
		if have != nil {
			c.DropSets = append(c.DropSets, name)
		}
		return
	}
	if have == nil {
		if c.Sets == nil {
			c.Sets = map[string]Set{}
		}
		c.Sets[name] = Set{Key: want.Key, Value: want.Value, Timeout: want.Timeout}
		have = &Set{}
	}
	if want.Timeout > 0 {
		return
	}
	for k, v := range have.Elements {
		if w, ok := want.Elements[k]; !ok || w != v {
			element(&c.Drop, name, k, v)
		}
	}
	for k, v := range want.Elements {
		if w, ok := have.Elements[k]; !ok || w != v {
			element(&c.Put, name, k, v)
		}
	}
}

// sort makes the same change the same value.
func (c *Change) sort() {
	slices.Sort(c.DropChains)
	slices.Sort(c.DropSets)
}

// Diff gives what turns have into want. nil for have: there is no table. What
// cannot be turned, such as a chain on another hook, is made anew with all else.
func Diff(have, want *Table) Change {
	if have == nil {
		return whole(want)
	}
	for name, w := range want.Chains {
		if h, ok := have.Chains[name]; ok && !h.sameBase(w) {
			return whole(want)
		}
	}
	for name, w := range want.Sets {
		if h, ok := have.Sets[name]; ok && !h.sameKind(w) {
			return whole(want)
		}
	}
	var c Change
	for _, name := range names(have.Chains, want.Chains) {
		c.chain(name, get(have.Chains, name), get(want.Chains, name))
	}
	for _, name := range names(have.Sets, want.Sets) {
		c.set(name, get(have.Sets, name), get(want.Sets, name))
	}
	c.sort()
	return c
}

func whole(want *Table) Change {
	c := Change{Whole: true}
	for name, w := range want.Chains {
		c.chain(name, nil, &w)
	}
	for name, w := range want.Sets {
		c.set(name, nil, &w)
	}
	return c
}

func get[V any](m map[string]V, name string) *V {
	if v, ok := m[name]; ok {
		return &v
	}
	return nil
}

func names[V any](a, b map[string]V) []string {
	all := slices.AppendSeq(slices.Collect(maps.Keys(a)), maps.Keys(b))
	slices.Sort(all)
	return slices.Compact(all)
}

// String writes the table for people and tests, in order.
func (t *Table) String() string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(t.Sets)) {
		s := t.Sets[name]
		kind := s.Key
		if s.Value != "" {
			kind += " : " + s.Value
		}
		if s.Timeout > 0 {
			kind += fmt.Sprintf(" timeout %ds", s.Timeout)
		}
		fmt.Fprintf(&b, "set %s { %s }\n", name, kind)
		for _, k := range slices.Sorted(maps.Keys(s.Elements)) {
			fmt.Fprintf(&b, "\t%s", k)
			if v := s.Elements[k]; v != "" {
				fmt.Fprintf(&b, " : %s", v)
			}
			b.WriteByte('\n')
		}
	}
	for _, name := range slices.Sorted(maps.Keys(t.Chains)) {
		c := t.Chains[name]
		fmt.Fprintf(&b, "chain %s", name)
		if c.Base != nil {
			fmt.Fprintf(&b, " (%s %s %d)", c.Base.Type, c.Base.Hook, c.Base.Priority)
		}
		b.WriteByte('\n')
		for _, r := range c.Rules {
			fmt.Fprintf(&b, "\t%s\n", r.Text)
		}
	}
	return b.String()
}
