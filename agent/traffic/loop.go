package traffic

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/orchctl/orch/internal/network"
	"github.com/orchctl/orch/internal/wire"
)

const (
	// holdMax is how long a fresh agent leaves a kernel alone that has rules of
	// ours, when it has no session: the leader would know better than the disk, and
	// most restarts have a session again after one second.
	holdMax = 5 * time.Second
	// watchEvery is how often the kernel is asked whether somebody was there.
	watchEvery = time.Second
	// compareEvery is how often all is compared, whatever the kernel says.
	compareEvery = time.Minute
	// compareShare bounds the time spent on comparing where others change their rules
	// all the time: a twentieth of it. creditMax is what can be saved up for when
	// much happens at once: what comes together in a minute.
	compareShare = 20
	creditMax    = 3 * time.Second
	// staleMax is how many listings may be overtaken by changes of our own until the
	// loop waits for one.
	staleMax = 5
	// retryFirst and retryMax are the waits after the kernel refused.
	retryFirst = 200 * time.Millisecond
	retryMax   = 5 * time.Second
)

// loop is the one that changes the kernel's rules and the names.
type loop struct {
	*Balancer
	programmed func(mark uint64)

	free bool // the kernel may be changed
	// occupied: a kernel that may not be changed yet has rules of ours.
	occupied bool
	sure     bool // the kernel has what the picture's table says
	mark     uint64
	settling settling // what is in force and is yet to be told as programmed
	// telling is the mark that is told as soon as what was on its way to servers out
	// of use is forgotten; 0: none waits for that.
	telling   uint64
	forgotten chan struct{}
	// gone are where endpoints were that were dropped, until no rule leads there.
	gone   map[server]bool
	opened []uint16

	failures int
	retryAt  time.Time
	// suspect: somebody was there. compared is when all was the last time, credit how
	// much time may be spent on it from then on, stale how often a listing was of no
	// use.
	suspect  bool
	compared time.Time
	credit   time.Duration
	stale    int
	repair   string // the last one
	applied  int    // changes, over the loop's life
	listing  bool
	listed   chan listing
	beside   sync.WaitGroup // those who list and forget
}

func (l *loop) run(ctx context.Context) error {
	if l.loaded {
		l.drawing.Lock()
		l.picture.Apply(l.known)
		l.drawing.Unlock()
		u := l.known
		l.cfg.Names.Update(u.Put, nil, u.Services, nil, true)
	}
	l.gone = map[server]bool{}
	l.listed = make(chan listing, 1) // room for the only one at a time, also when nobody waits any more
	l.forgotten = make(chan struct{}, 1)
	defer l.beside.Wait()
	watch := time.NewTicker(watchEvery)
	defer watch.Stop()
	retry := time.NewTimer(0) // the first step comes at once
	defer retry.Stop()
	tell := time.NewTimer(0)
	defer tell.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.wake:
		case <-retry.C:
		case <-tell.C:
		case <-watch.C:
			l.watch(ctx)
		case got := <-l.listed:
			l.compare(ctx, got)
		case <-l.forgotten:
			l.programmed(l.telling)
			l.telling = 0
		}
		l.step(ctx)
		if l.failures > 0 {
			retry.Reset(time.Until(l.retryAt))
		}
		l.tell(ctx)
		if at, ok := l.settling.next(); ok && l.telling == 0 {
			tell.Reset(time.Until(at))
		}
	}
}

// step takes up what waits, and brings the kernel in line.
func (l *loop) step(ctx context.Context) {
	dirty := l.take()
	if !l.free && !l.release(ctx) {
		return
	}
	if !dirty && l.sure || l.failures > 0 && time.Now().Before(l.retryAt) {
		return
	}
	done, err := l.program(ctx)
	if ctx.Err() != nil || err == nil && !done {
		return
	}
	if l.note(tryRules, err); err != nil {
		l.failures++
		l.sure = false
		l.retryAt = time.Now().Add(min(retryFirst<<min(l.failures-1, 8), retryMax))
		return
	}
	l.failures = 0
	l.cutter.cut(l.gone, l.opened)
	l.settling.add(l.mark, time.Now(), l.gone)
	l.gone, l.opened = map[server]bool{}, nil
}

// tell says which mark is in force once it has settled. A server that it took out of
// use may close its listener then: so no connection may be on its way there for which
// the first packet was lost. The kernel would lead the next try, a second later, by
// what it remembers. Looking for those takes a while where there are many
// connections, and the loop does not wait for it.
func (l *loop) tell(ctx context.Context) {
	if l.telling != 0 {
		return
	}
	mark, gone, ok := l.settling.take(time.Now())
	switch {
	case !ok:
	case len(gone) == 0:
		l.programmed(mark)
	default:
		l.telling = mark
		l.beside.Go(func() {
			l.cutter.say(ctx, l.cutter.forgetUnmade(ctx, gone))
			l.forgotten <- struct{}{}
		})
	}
}

// take draws what waits into the picture, and tells the names. It tells whether
// there was anything.
func (l *loop) take() bool {
	l.mu.Lock()
	pending, standing, stands, verdicts := l.pending, l.standing, l.stands, l.verdicts
	l.pending, l.stands, l.verdicts = nil, false, nil
	l.mu.Unlock()
	if len(pending) == 0 && !stands && len(verdicts) == 0 {
		return false
	}
	l.drawing.Lock()
	defer l.drawing.Unlock()
	if stands {
		l.picture.Stand(standing)
	}
	if len(pending) > 0 {
		u := fold(pending)
		l.mark = pending[len(pending)-1].Mark
		l.leave(l.picture.Apply(u))
		l.join(u.Put)
		if u.Complete {
			l.free = true
			for _, k := range l.picture.Ejected() {
				l.picture.Eject(k, false)
			}
		}
		l.cfg.Names.Update(u.Put, u.Drop, u.Services, u.DropServices, u.Complete)
		l.saver.keep(u)
	}
	for _, v := range verdicts {
		l.eject(v)
	}
	return true
}

// eject takes an endpoint out of rules and names, or lets it in again. The last
// one of a service stays: a chance is better than none.
func (l *loop) eject(v verdict) {
	e, ok := l.picture.Endpoint(v.replica)
	if !ok || v.out && !l.picture.Spare(v.replica) {
		return
	}
	l.picture.Eject(v.replica, v.out)
	var u network.Update
	if v.out {
		u.Drop = append(u.Drop, v.replica)
		l.leave([]wire.Endpoint{e})
	} else {
		u.Put = append(u.Put, e)
		l.join(u.Put)
	}
	l.cfg.Logger.Info("no session, and an endpoint changed its answers: it is taken out, or in again", "replica", v.replica, "out", v.out)
	l.cfg.Names.Update(u.Put, u.Drop, nil, nil, false)
}

// leave and join keep gone: an address may be another's at once, and so may a port
// of a node.
func (l *loop) leave(gone []wire.Endpoint) {
	for _, e := range gone {
		for _, s := range servers(e) {
			l.gone[s] = true
		}
	}
}

func (l *loop) join(put []wire.Endpoint) {
	l.cutter.spare(put)
	if len(l.gone) == 0 {
		return
	}
	for _, e := range put {
		for _, s := range servers(e) {
			delete(l.gone, s)
		}
	}
}

// release decides whether a fresh agent may touch the kernel yet.
func (l *loop) release(ctx context.Context) bool {
	if l.loaded && l.alone() >= holdMax {
		l.cfg.Logger.Info("no session: traffic is led by what lay on disk")
		l.free = true
		return true
	}
	if l.occupied {
		return false
	}
	have, err := l.cfg.Rules.List(ctx)
	if ctx.Err() == nil {
		l.note(tryRules, err)
	}
	l.occupied = have != nil
	l.free = err == nil && !l.occupied // nothing to spoil
	return l.free
}

// program brings the kernel in line with the picture. It is not done as long as
// nobody knows where the node stands.
func (l *loop) program(ctx context.Context) (done bool, err error) {
	l.drawing.Lock()
	c := l.picture.Change()
	l.drawing.Unlock()
	table := l.picture.Table()
	if len(table.Chains) == 0 {
		return false, nil
	}
	l.opened = append(l.opened, c.Opened()...)
	switch {
	case l.sure:
	case l.failures > 1:
		// Whatever is in the way there goes with the table.
		c = network.Diff(nil, table)
	default:
		have, err := l.cfg.Rules.List(ctx)
		if err != nil {
			return false, err
		}
		c = network.Diff(have, table)
	}
	if err := l.cfg.Rules.Apply(ctx, c); err != nil {
		return false, err
	}
	l.sure = true
	l.applied++
	return true, nil
}

// listing is what the kernel has, and how many changes of ours it may hold.
type listing struct {
	table   *network.Table
	err     error
	applied int
	took    time.Duration
}

// watch asks the kernel whether somebody was there, and has all listed if so. With
// a thousand services that takes a while, in which endpoints may change: so the
// loop does not wait for it.
func (l *loop) watch(ctx context.Context) {
	if !l.sure || l.listing {
		return
	}
	touched, err := l.cfg.Rules.Touched()
	l.note(tryWatch, err)
	l.suspect = l.suspect || touched || err != nil
	since := time.Since(l.compared)
	if !(l.suspect && l.credit+since/compareShare > 0) && since < compareEvery {
		return
	}
	l.listing = true
	applied := l.applied
	l.beside.Go(func() {
		started := time.Now()
		have, err := l.cfg.Rules.List(ctx)
		l.listed <- listing{have, err, applied, time.Since(started)}
	})
}

// compare puts right what somebody else did to our rules.
func (l *loop) compare(ctx context.Context, got listing) {
	l.listing = false
	if ctx.Err() != nil || !l.sure {
		return
	}
	if got.err != nil {
		l.note(tryList, got.err)
		return
	}
	if got.applied != l.applied {
		// We were there ourselves meanwhile. Looked at again, but not for ever.
		if l.stale++; l.stale < staleMax {
			l.suspect = true
			return
		}
		if got.table, got.err = l.cfg.Rules.List(ctx); got.err != nil {
			return
		}
	}
	touched := l.suspect
	l.credit = min(l.credit+time.Since(l.compared)/compareShare, creditMax) - got.took
	l.compared, l.suspect, l.stale = time.Now(), false, 0
	c := network.Diff(got.table, l.picture.Table())
	if c.Empty() {
		l.repair = ""
		l.note(tryList, nil)
		return
	}
	// The same again, though nobody was there: this nft writes something in other
	// words than those we know. Doing it over and over would help nobody.
	repair := fmt.Sprint(c)
	if repair == l.repair && !touched {
		l.note(tryList, fmt.Errorf("nft lists what was just set otherwise than it was set: %.200s", repair))
		return
	}
	l.repair = repair
	l.cfg.Logger.Warn("somebody else has changed orch's nftables rules: putting them right", "changes", c.Size(), "all", c.Whole)
	if err := l.cfg.Rules.Apply(ctx, c); err != nil {
		l.sure = false // the step that follows tries otherwise
		return
	}
	l.applied++
}
