package dns

import (
	"container/list"
	"time"

	"github.com/miekg/dns"
)

// cache holds answers of the host's servers, the least used of which goes when it is
// full. They are kept packed, so that their size is known.
type cache struct {
	entries, bytes int // at most
	size           int
	byQuestion     map[question]*list.Element
	used           *list.List // of *entry, the latest used first
}

type entry struct {
	q           question
	packed      []byte
	stored, end time.Time
	// failed is when the servers were last asked again in vain.
	failed time.Time
}

func newCache(entries, bytes int) *cache {
	return &cache{entries: entries, bytes: bytes, byQuestion: map[question]*list.Element{}, used: list.New()}
}

// get gives what is known, stale or not; nil: nothing that may still be said.
func (c *cache) get(q question, now time.Time) *entry {
	x, ok := c.byQuestion[q]
	if !ok {
		return nil
	}
	e := x.Value.(*entry)
	if now.Sub(e.end) >= staleMax {
		c.remove(x)
		return nil
	}
	c.used.MoveToFront(x)
	copied := *e
	return &copied
}

// put remembers an answer for as long as it may be.
func (c *cache) put(q question, m *dns.Msg, now time.Time) {
	if x, ok := c.byQuestion[q]; ok {
		c.remove(x)
	}
	age := lifetime(m)
	if age <= 0 {
		return
	}
	packed, err := m.Pack()
	if err != nil || len(packed) > cacheMessage {
		return
	}
	e := &entry{q: q, packed: packed, stored: now, end: now.Add(age)}
	c.byQuestion[q] = c.used.PushFront(e)
	c.size += e.cost()
	for len(c.byQuestion) > c.entries || c.size > c.bytes {
		c.remove(c.used.Back())
	}
}

// fail notes that the servers do not answer now.
func (c *cache) fail(q question, now time.Time) {
	if x, ok := c.byQuestion[q]; ok {
		x.Value.(*entry).failed = now
	}
}

func (c *cache) remove(x *list.Element) {
	e := c.used.Remove(x).(*entry)
	delete(c.byQuestion, e.q)
	c.size -= e.cost()
}

// cost of an entry: its message, its name twice (in the key and the message's own),
// and about what maps and lists take.
func (e *entry) cost() int { return len(e.packed) + 2*len(e.q.name) + 200 }

// message gives the answer as it is to be said at a moment.
func (e *entry) message(now time.Time) (*dns.Msg, error) {
	m := new(dns.Msg)
	if err := m.Unpack(e.packed); err != nil {
		return nil, err
	}
	age, stale := uint32(now.Sub(e.stored)/time.Second), !now.Before(e.end)
	for _, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range section {
			switch h := rr.Header(); {
			case h.Rrtype == dns.TypeOPT: // its TTL is none
			case stale:
				h.Ttl = staleTTL
			default:
				h.Ttl = max(h.Ttl, age+1) - age
			}
		}
	}
	return m, nil
}

// lifetime is how long an answer holds: the shortest of what its records say, and for
// what does not exist what the zone says (RFC 2308). 0: not at all.
func lifetime(m *dns.Msg) time.Duration {
	if m.Truncated || m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError {
		return 0
	}
	least, some, zoneSays := uint32(1<<31), false, false
	for _, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range section {
			h := rr.Header()
			if h.Rrtype == dns.TypeOPT {
				continue
			}
			least, some = min(least, h.Ttl), true
			if soa, ok := rr.(*dns.SOA); ok {
				least, zoneSays = min(least, soa.Minttl), true
			}
		}
	}
	negative := m.Rcode == dns.RcodeNameError || len(m.Answer) == 0
	age := time.Duration(least) * time.Second
	switch {
	case !some || negative && !zoneSays:
		return 0
	case negative:
		return min(age, negativeMax)
	}
	return min(age, ageMax)
}
