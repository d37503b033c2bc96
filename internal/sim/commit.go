package sim

import (
	"time"

	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/store"
)

// commitTimeout is how long a commit may take before its outcome is unknown.
const commitTimeout = 5 * time.Second

// commit sends a transaction on its way through a network and a quorum that may
// be slow, may refuse, or may not say what they did.
func (l *lead) commit(e core.Commit) {
	w := l.w
	changes := w.ledger.read(e.Ops)
	w.ledger.decided(l, changes)
	l.openBefore, l.openSince, l.openAt, l.committing = l.openSince, l.events, w.clock, true
	if w.res.Commits++; len(e.Ops) > 0 { // else it only asks whether the term lasts
		w.res.Writes++
	}
	w.mix(uint64(len(e.Ops)))
	write := between(w.r.net, 200*time.Microsecond, 6*time.Millisecond)
	answer := between(w.r.net, 100*time.Microsecond, 2*time.Millisecond)
	outcome := ""
	if !w.calm && w.cfg.Without&Commits == 0 {
		switch n := w.r.net.IntN(1000); {
		case n < 30:
			write, outcome = write+between(w.r.net, 50*time.Millisecond, 3*time.Second), "slow"
		case n < 34:
			outcome = "failed"
		case n < 38:
			outcome = "unknown, not written"
		case n < 42:
			outcome = "unknown, written"
		case n < 46:
			outcome = "unknown, written later"
		}
		if outcome != "" {
			w.res.Faults[Commits]++
			w.say("commit %d of term %d: %s", e.Seq, l.lease.Term, outcome)
		}
	}
	if !w.calm { // it may end a term long after faults have stopped
		w.lingering = max(w.lingering, w.clock+int64(write+answer), w.clock+int64(commitTimeout))
	}
	done := func(rev int64, err error) {
		w.after(answer, func() { l.receive(core.Committed{Seq: e.Seq, Rev: rev, Err: err}) })
	}
	if l.ctl.storeCut {
		answer = commitTimeout
		done(0, store.ErrUnknown)
		return
	}
	w.after(write, func() {
		if w.storeFull() {
			outcome = "failed"
		}
		switch outcome {
		case "failed":
			done(0, store.ErrNoSpace)
			return
		case "unknown, not written":
			done(0, store.ErrUnknown)
			return
		case "unknown, written later":
			done(0, store.ErrUnknown)
			w.after(between(w.r.net, 0, 2*time.Second), func() {
				if !w.storeFull() {
					l.write(e.Ops, changes)
				}
			})
			return
		}
		rev, err := l.write(e.Ops, changes)
		if l.ctl.doomed && !l.over {
			l.ctl.doomed = false
			l.ctl.kill()
			return
		}
		if outcome == "unknown, written" && err == nil {
			err = store.ErrUnknown
		}
		done(rev, err)
	})
}

// storeFull tells whether the store refuses every write for want of room.
func (w *world) storeFull() bool { return w.clock < w.full }

// write is the moment of truth.
func (l *lead) write(ops []store.Op, changes []change) (int64, error) {
	w := l.w
	rev, err := w.store.Txn(w.ctx, store.Txn{If: []store.Compare{l.lease.Fence()}, Then: ops})
	if err != nil {
		w.say("a commit of term %d is refused: %v", l.lease.Term, err)
		return 0, err
	}
	if l.lease.Term != w.ledger.term {
		w.violate("I9", "a commit of term %d was written in term %d", l.lease.Term, w.ledger.term)
	}
	w.ledger.apply(changes)
	return rev, nil
}
