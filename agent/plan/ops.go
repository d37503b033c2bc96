package plan

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

// class groups effects that share a limit.
type class int

const (
	pulls class = iota
	networks
	starts
	stops
	removes
	hooks
	leaves
	classes
)

// atOnce gives each class's limit on a node with so many cores. Starting is work
// for the processor: more of it at once than cores, and one to fill the waits,
// only makes all of it slower.
func atOnce(cores int) [classes]int {
	limits := [classes]int{pulls: pullsAtOnceMax, networks: networksAtOnceMax, starts: startsAtOnceMax, stops: stopsAtOnceMax, removes: removesAtOnceMax, hooks: hooksAtOnceMax, leaves: stopsAtOnceMax}
	if cores > 0 {
		limits[networks] = min(limits[networks], cores)
		limits[starts] = min(limits[starts], cores+1)
	}
	return limits
}

// op is an effect whose answer is awaited: exactly one of image, network, run
// and leftover says what it is about.
type op struct {
	class    class
	replica  *replica
	image    *image
	network  bool
	run      *run
	leftover *leftover
}

// begin takes room for an effect; without room the replica is settled again
// when there is some.
func (c *Core) begin(o op) (id uint64, ok bool) {
	if !c.room(o.class) {
		c.blocked[o.class].push(o.replica.key)
		return 0, false
	}
	c.busy[o.class]++
	id = c.id()
	c.ops[id] = o
	return id, true
}

// room tells whether one more of the class may begin.
func (c *Core) room(k class) bool {
	return c.busy[k] < c.atOnce[k] && !(k == networks && c.pruning != 0)
}

// queue holds the replicas that wait for room, each once, in their order.
type queue struct {
	keys []api.ReplicaKey
	in   map[api.ReplicaKey]bool
}

func (q *queue) push(k api.ReplicaKey) {
	if q.in[k] {
		return
	}
	if q.in == nil {
		q.in = map[api.ReplicaKey]bool{}
	}
	q.in[k] = true
	q.keys = append(q.keys, k)
}

func (q *queue) pop() (api.ReplicaKey, bool) {
	if len(q.keys) == 0 {
		return api.ReplicaKey{}, false
	}
	k := q.keys[0]
	q.keys = q.keys[1:]
	delete(q.in, k)
	return k, true
}

// done takes the result of an effect.
func (c *Core) done(ev Done) {
	if ev.ID == c.pruning {
		c.pruning = 0
		return
	}
	if c.volumeDone(ev) {
		return
	}
	o, ok := c.ops[ev.ID]
	if !ok {
		return
	}
	delete(c.ops, ev.ID)
	c.busy[o.class]--
	if o.image != nil {
		c.imageDone(o.image, ev)
		return
	}
	r := o.replica
	if c.replicas[r.key] != r { // of before a new incarnation
		c.observe("something that was under way has ended")
		return
	}
	c.mark(r)
	switch {
	case o.network:
		c.networkDone(r, ev)
	case o.leftover != nil:
		c.leftoverDone(r, o, ev)
	case o.class == starts:
		c.startDone(o.run, ev)
	case o.class == stops:
		c.stopDone(o.run, ev)
	case o.class == removes:
		c.removeDone(o.run, ev)
	case o.class == hooks, o.class == leaves:
		c.hookDone(o.run, ev)
	}
}

// retry is the doubling delay of something that failed.
type retry struct {
	failure *Failure
	tries   int
	at      time.Time
}

func (t *retry) failed(f *Failure, now time.Time) {
	t.failure = f
	t.at = now.Add(doubled(retryFirst, retryMax, t.tries))
	t.tries++
}

// soon has something tried again that only waits for a word from elsewhere: at an even
// pace, and what it failed with before is not counted on.
func (t *retry) soon(f *Failure, now time.Time) {
	*t = retry{failure: f, at: now.Add(configAgain)}
}

func (t *retry) ok() { *t = retry{} }

// waiting tells whether the next try is not due yet.
func (t *retry) waiting(now time.Time) bool { return t.failure != nil && now.Before(t.at) }

// doubled gives first * 2^n, at most most.
func doubled(first, most time.Duration, n int) time.Duration {
	d := first
	for range n {
		if d >= most {
			break
		}
		d *= 2
	}
	return min(d, most)
}

// image is a reference that containers wait for. It lives only as long as
// somebody waits: a tag may mean another image tomorrow.
type image struct {
	ref     string
	asking  bool
	asked   EnsureImage // the last
	heard   int         // words on the progress of this pull
	waiting []*run
	retry   retry
}

// want has the run's image looked for; its imageID is set when it is there.
func (c *Core) wantImage(x *run) {
	ref := x.spec.Image
	im := c.images[ref]
	if im == nil {
		im = &image{ref: ref}
		c.images[ref] = im
	}
	if x.image != im {
		x.image = im
		im.waiting = append(im.waiting, x)
		im.retry.at = c.now // one that asks for the first time need not wait for the others' delay
	}
	if im.asking {
		return
	}
	if im.retry.waiting(c.now) {
		x.r.wakeBy(im.retry.at)
		return
	}
	id, ok := c.begin(op{class: pulls, replica: x.r, image: im})
	if !ok {
		return
	}
	im.asking, im.heard = true, 0
	im.asked = EnsureImage{ID: id, Ref: ref, Never: im.never(), Incarnation: c.incarnation, Logins: im.logins(), Trace: im.trace(c.now), Why: fmt.Sprintf("%s needs it", x.what())}
	c.emit(im.asked)
}

// never: nobody who waits wants a registry asked.
func (im *image) never() bool {
	return !slices.ContainsFunc(im.waiting, func(x *run) bool { return x.spec.PullPolicy != api.PullNever })
}

// logins of all who wait, each once and in order: whoever may have the image, all get it.
func (im *image) logins() []wire.ConfigKey {
	var all []wire.ConfigKey
	for _, x := range im.waiting {
		for ref, version := range x.r.logins {
			all = append(all, wire.ConfigKey{Namespace: x.r.key.Namespace, Ref: ref, Version: version})
		}
	}
	slices.SortFunc(all, func(a, b wire.ConfigKey) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Ref, b.Ref), -cmp.Compare(a.Version, b.Version))
	})
	return slices.Compact(all)
}

// trace is that of the first who waits and has one.
func (im *image) trace(now time.Time) string {
	for _, x := range im.waiting {
		if text := x.r.trace.of(now); text != "" {
			return text
		}
	}
	return ""
}

// tryAgain has a refused image asked for at once: what it was refused for has changed.
func (im *image) tryAgain(now time.Time) {
	im.retry.at, im.retry.tries = now, 0
}

// leaveImage ends a run's wait.
func (c *Core) leaveImage(x *run) {
	im := x.image
	if im == nil {
		return
	}
	x.image, x.pulling = nil, ""
	for i, w := range im.waiting {
		if w == x {
			im.waiting = append(im.waiting[:i:i], im.waiting[i+1:]...)
			break
		}
	}
	if len(im.waiting) == 0 && !im.asking {
		c.dropImage(im)
	}
}

func (c *Core) imageDone(im *image, ev Done) {
	im.asking = false
	waiting := im.waiting
	for _, x := range waiting {
		c.mark(x.r)
		x.pulling = ""
	}
	if ev.Failure != nil {
		im.retry.failed(ev.Failure, c.now)
		if im.never() != im.asked.Never || !slices.Equal(im.logins(), im.asked.Logins) {
			im.tryAgain(c.now) // the no was to another question
		}
		if len(waiting) == 0 {
			c.dropImage(im)
		}
		return
	}
	for _, x := range waiting {
		x.image, x.imageID = nil, ev.ImageID
	}
	c.dropImage(im)
}

func (c *Core) dropImage(im *image) {
	if c.images[im.ref] == im {
		delete(c.images, im.ref)
	}
}

func (c *Core) progress(ev Progress) {
	im := c.images[ev.Ref]
	if im == nil || !im.asking {
		return
	}
	// After a failure the first word is only that it is tried again: what was
	// told stays true until something is fetched.
	if im.heard++; im.heard == 1 && im.retry.failure != nil {
		return
	}
	for _, x := range im.waiting {
		x.pulling = ev.Message
		c.mark(x.r)
	}
}

// imagesChanged: what was missing may be there now.
func (c *Core) imagesChanged() {
	for _, im := range c.images { // the order does not matter: marking sorts below
		im.tryAgain(c.now)
	}
	for _, k := range c.sortedKeys() {
		if r := c.replicas[k]; r.waitsForImage() {
			c.mark(r)
		}
	}
}

func compareKeys(a, b api.ReplicaKey) int {
	switch {
	case a.Namespace != b.Namespace:
		return cmp.Compare(a.Namespace, b.Namespace)
	case a.Service != b.Service:
		return cmp.Compare(a.Service, b.Service)
	case a.Slot != b.Slot:
		return cmp.Compare(a.Slot, b.Slot)
	}
	return cmp.Compare(a.Epoch, b.Epoch)
}
