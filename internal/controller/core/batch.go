package core

import (
	"time"

	"github.com/orchctl/orch/internal/store"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// counters are the numbers that may never be given twice. They are written with
// whatever used them.
type counters struct{ epoch, event, subnet, vip uint64 }

func (n counters) record() []byte {
	return message(&orchv1.Counters{Epoch: n.epoch, Event: n.event, Subnet: n.subnet, Vip: n.vip})
}

// batch gathers writes and holds the effects that wait for them.
type batch struct {
	seq    uint64
	ops    []store.Op
	at     map[string]int // index in ops of the op on a key: the last one wins
	bytes  int
	held   []Effect
	sealed bool // full, or out: no more writes
	sentAt time.Time
}

// countersRoom and countersBytes are kept free in every batch for the counters:
// one write, generously measured.
const (
	countersRoom  = 1
	countersBytes = 1024
)

// write adds ops that must go together.
func (c *Core) write(ops ...store.Op) {
	b := c.open()
	size := 0
	for _, op := range ops {
		size += op.Size()
	}
	if len(b.ops) > 0 && (len(b.ops)+len(ops)+countersRoom > c.cfg.Limits.MaxOps || b.bytes+size > c.cfg.Limits.MaxBytes-countersBytes) {
		b.sealed = true
		b = c.open()
	}
	for _, op := range ops {
		// Two ops on one key in one transaction are refused by etcd; the later
		// one is what holds.
		if i, ok := b.at[op.Key]; ok {
			b.ops[i] = op
			continue
		}
		b.at[op.Key] = len(b.ops)
		b.ops = append(b.ops, op)
	}
	b.bytes += size
}

// open gives the batch that gathers now.
func (c *Core) open() *batch {
	if n := len(c.batches); n > 0 && !c.batches[n-1].sealed {
		return c.batches[n-1]
	}
	c.seq++
	b := &batch{seq: c.seq, at: map[string]int{}}
	c.batches = append(c.batches, b)
	return b
}

// confirm has the answer to a request wait for a quorum's word that is asked for
// later than the request came, though it may change nothing. A leader that is
// deposed and does not know it yet would else say that all is so already, or that
// it is not there, when another leader has changed it since.
func (c *Core) confirm() { c.open() }

// emit releases an effect now if nothing uncommitted lies before it, else holds
// it behind the newest write.
func (c *Core) emit(e Effect) {
	if n := len(c.batches); n > 0 {
		c.batches[n-1].held = append(c.batches[n-1].held, e)
		return
	}
	c.release(e)
}

// release fills in what only the commit's result knows, and leaves out what was
// meant for a session that is over: what it says may have been undone within the
// same transaction, and so was never committed.
func (c *Core) release(e Effect) {
	switch s := e.(type) {
	case SendAssignments:
		if c.current(s.Node, s.Session) == nil {
			return
		}
		s.Set.StoreRevision = c.rev
		e = s
	case SendEndpoints:
		c.toldEndpoints(s.Set.Version)
	case SendNetwork:
		if c.current(s.Node, s.Session) == nil {
			return
		}
	}
	c.out = append(c.out, e)
}

// flush sends the oldest batch if none is out, and an empty one if renewals wait
// for a quorum's word.
func (c *Core) flush() {
	if c.inflight {
		return
	}
	if len(c.batches) == 0 {
		if len(c.renewals) == 0 {
			return
		}
		c.open() // a batch without writes: it proves that the term lasts
	}
	b := c.batches[0]
	b.sealed, b.sentAt = true, c.now
	if c.counters != c.written {
		b.ops = append(b.ops, store.Put(countersKey, c.counters.record()))
		c.written = c.counters
	}
	c.inflight = true
	c.out = append(c.out, Commit{Seq: b.seq, Ops: b.ops})
}

// committed releases what a batch held. After an error nothing is ever released:
// the driver drops this core.
func (c *Core) committed(ev Committed) {
	if ev.Err != nil || len(c.batches) == 0 || c.batches[0].seq != ev.Seq {
		c.failed = true
		return
	}
	b := c.batches[0]
	c.batches, c.inflight = c.batches[1:], false
	c.rev = max(c.rev, ev.Rev)
	c.quorumAt = b.sentAt
	for _, e := range b.held {
		c.release(e)
	}
	c.grant()
}
