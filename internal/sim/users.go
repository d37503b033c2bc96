package sim

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller/core"
)

// user owns one service, asks one thing at a time, and asks again with the same
// request id when no answer came. Meanwhile a colleague may have scaled it.
type user struct {
	w       *world
	key     api.Key
	pending *request
	last    *api.Service // as last acknowledged; nil: deleted, or never applied
	version int
	// leased is how likely the service is to be exclusive, or to stop when cut off.
	leased float64
	// global is how likely it is to be global.
	global float64
	// colleagues counts what others asked for.
	colleagues int
	// volumes is how likely it is to have some, in percent.
	volumes int
}

// request is one thing asked for, through all its tries.
type request struct {
	u      *user
	id     string
	ticket uint64
	make   func(ticket uint64) core.Event
	words  string
	tries  int
	lead   *lead
	// once is set for a word about a node and for what a colleague asks: it is not
	// tried again.
	once bool
	// deletes is set for a delete, word for a word on a rollout: it may be refused.
	deletes bool
	word    string
	// asked is when it was asked first. taken, if set, judges the answer in place of
	// what is done for a service: it tells whether to ask again.
	asked int64
	taken func(e core.Reply) (again bool)
}

func newUser(w *world, i int) *user {
	return &user{w: w, volumes: pick(w.r.owners, []int{0, 0, 15, 80}), leased: pick(w.r.world, []float64{0, 0.1, 0.5, 0.95}), global: pick(w.r.world, []float64{0, 0, 0.1, 0.8}), key: api.Key{Namespace: api.DefaultNamespace, Name: []string{"web", "db", "cache", "queue", "cron"}[i]}}
}

// nextRequest has somebody ask for something now and then.
func (w *world) nextRequest() {
	gap := between(w.r.users, 100*time.Millisecond, 6*time.Second)
	if w.res.Requests < 2*len(w.users) {
		gap /= 10
	}
	w.after(gap, func() {
		if w.calm {
			return
		}
		u, n := pick(w.r.users, w.users), w.r.users.IntN(100)
		w.requests++
		switch {
		case slices.Contains(w.cfg.SkipRequests, w.requests):
		case n < 14:
			u.wordOnNode()
		case u.pending == nil:
			u.ask(w.requests)
		}
		w.nextRequest()
	})
}

func (u *user) ask(number int) {
	w := u.w
	n := w.r.users.IntN(100)
	w.say("request %d", number)
	switch have := u.last; {
	case have == nil || n < 45:
		u.version++
		s := u.manifest()
		images := w.tell(&s.Spec.Template)
		u.send(&request{words: fmt.Sprintf("apply %s: %d x %s%s", u.key.Name, s.Spec.Want(), s.Spec.Containers[0].Image, leaseWords(&s.Spec.Template)), make: func(t uint64) core.Event {
			return core.Apply{Ticket: t, Services: []*api.Service{s}, RequestID: u.pending.id, By: "user", Images: images}
		}})
	case n < 52:
		u.send(&request{words: "apply " + u.key.Name + " unchanged", make: func(t uint64) core.Event {
			s := *have
			s.Metadata.ResourceVersion, s.Metadata.UID = 0, ""
			return core.Apply{Ticket: t, Services: []*api.Service{&s}, RequestID: u.pending.id, By: "user"}
		}})
	case n < 60 && u.leased > 0.3:
		// Only what its lease says changes.
		s := cloneOf(have)
		s.Metadata.ResourceVersion, s.Metadata.UID = 0, ""
		s.Spec.Priority = w.r.users.IntN(10)
		u.lease(&s.Spec.Template)
		u.mayHook(&s.Spec.Template)
		s.Spec.Mode, s.Spec.Rollout = "", api.Rollout{ProgressDeadline: have.Spec.Rollout.ProgressDeadline}
		s.Default()
		if problems := api.Validate(&s); len(problems) > 0 {
			w.violate("sim", "a made-up manifest is invalid: %v", problems)
		}
		images := w.tell(&s.Spec.Template)
		u.send(&request{words: fmt.Sprintf("apply %s with another lease:%s", u.key.Name, leaseWords(&s.Spec.Template)), make: func(t uint64) core.Event {
			return core.Apply{Ticket: t, Services: []*api.Service{&s}, RequestID: u.pending.id, By: "user", Images: images}
		}})
	case n < 58:
		s := u.manifest()
		u.send(&request{words: "try apply " + u.key.Name, make: func(t uint64) core.Event {
			return core.Apply{Ticket: t, Services: []*api.Service{s}, DryRun: true, By: "user"}
		}})
	case n < 74:
		u.wordOnRollout()
	case n < 87:
		replicas := w.r.users.IntN(7)
		if have.Spec.Mode == api.ModeGlobal {
			return // it would be refused
		}
		u.send(&request{words: fmt.Sprintf("scale %s to %d", u.key.Name, replicas), make: func(t uint64) core.Event {
			return core.Scale{Ticket: t, Key: u.key, Replicas: replicas, Current: -1, RequestID: u.pending.id, By: "user"}
		}})
	default:
		u.send(&request{deletes: true, words: "delete " + u.key.Name, make: func(t uint64) core.Event {
			return core.Delete{Ticket: t, Refs: []api.Ref{{Key: u.key}}, IgnoreMissing: true, RequestID: u.pending.id, By: "user"}
		}})
	}
}

// cloneOf gives an object that shares nothing with another.
func cloneOf[T any](o *T) (out T) {
	js, err := json.Marshal(o)
	if err == nil {
		err = json.Unmarshal(js, &out)
	}
	if err != nil {
		panic(fmt.Sprintf("copy an object: %v", err)) // it came as JSON
	}
	return out
}

// wordOnRollout is an operator's word on how the newest revision is rolled out.
func (u *user) wordOnRollout() {
	w := u.w
	word := pick(w.r.users, []string{"pause", "pause", "resume", "resume", "undo", "undo", "restart"})
	w.res.RolloutWords++
	var images map[string]string
	if word == "restart" && u.last != nil {
		images = w.tell(&u.last.Spec.Template)
	}
	u.send(&request{word: word, words: word + " the rollout of " + u.key.Name, make: func(t uint64) core.Event {
		return core.Rollout{Ticket: t, Key: u.key, Word: word, RequestID: u.pending.id, By: "operator", Images: images}
	}})
}

// wordOnNode is an operator's word.
func (u *user) wordOnNode() {
	h := pick(u.w.r.users, u.w.hosts)
	word := pick(u.w.r.users, []string{"cordon", "uncordon", "uncordon", "dead", "drain", "drain", "drain", "remove", "remove", "rebalance"})
	within := pick(u.w.r.users, []time.Duration{0, 0, 2 * time.Second, 10 * time.Second})
	switch {
	case word == "rebalance":
		u.w.rebalance(u.w.r.users.IntN(4) == 0)
		return
	case word == "dead" && h.on:
		word = "uncordon" // an operator who says so of a living node gets what he asked for
	case word == "drain":
		u.w.drain(u, h, within)
		return
	case word == "remove": // what is Dead, else it is refused
		if l := u.w.leader(); l != nil {
			dead := slices.DeleteFunc(slices.Clone(u.w.hosts), func(h *host) bool { return l.core.Verdict(h.name) != api.VerdictDead })
			if len(dead) > 0 {
				h = dead[len(dead)-1]
			}
		}
	}
	u.w.order(u, h, word)
}

// wordMax is how long an operator's word may take to be heard and acted on.
const wordMax = 15 * time.Second

func (w *world) order(u *user, h *host, word string) {
	if word == "dead" {
		h.calledDead = w.clock + int64(wordMax)
	}
	r := &request{u: u, once: true, words: word + " " + h.name, make: func(t uint64) core.Event {
		return core.NodeWord{Ticket: t, Node: h.name, Word: word, Force: word != "remove", By: "operator"}
	}}
	w.res.Requests++
	r.try()
}

// drain has a node emptied, in a while or as long as it takes.
func (w *world) drain(u *user, h *host, within time.Duration) {
	w.res.Drains++
	w.res.Requests++
	r := &request{u: u, once: true, words: fmt.Sprintf("drain %s within %s", h.name, within), make: func(t uint64) core.Event {
		return core.NodeWord{Ticket: t, Node: h.name, Word: "drain", Deadline: within, By: "operator"}
	}}
	r.try()
}

// rebalance asks for it; what it comes to is the world's last plan.
func (w *world) rebalance(dry bool) {
	w.res.Requests++
	w.plan = nil
	r := &request{u: w.users[0], once: true, words: "rebalance", make: func(t uint64) core.Event {
		return core.Rebalance{Ticket: t, DryRun: dry, By: "operator"}
	}}
	r.try()
}

// thaw is an operator's word that what is silent is truly gone.
func (w *world) thaw(u *user) {
	r := &request{u: u, once: true, words: "thaw", make: func(t uint64) core.Event { return core.Thaw{Ticket: t, By: "operator"} }}
	w.res.Requests++
	r.try()
}

// send asks for something until there is an answer.
func (u *user) send(r *request) {
	u.w.res.Requests++
	r.u, r.id, r.asked = u, fmt.Sprintf("r%d", u.w.res.Requests), u.w.clock
	u.pending = r
	r.try()
}

// colleague scales the service once, whatever becomes of it.
func (u *user) colleague() {
	if u.last != nil && u.last.Spec.Mode == api.ModeGlobal {
		return
	}
	u.colleagues++
	replicas := u.w.r.users.IntN(7)
	u.w.res.Requests++
	id := fmt.Sprintf("r%d", u.w.res.Requests)
	r := &request{u: u, id: id, once: true, words: fmt.Sprintf("scale %s to %d, says a colleague", u.key.Name, replicas), make: func(t uint64) core.Event {
		return core.Scale{Ticket: t, Key: u.key, Replicas: replicas, Current: -1, RequestID: id, By: "colleague"}
	}}
	r.try()
}

func (r *request) try() {
	w := r.u.w
	r.tries++
	w.after(w.latency(), func() {
		var l *lead
		for _, c := range w.controllers {
			if c.up && c.lead != nil && c.lead.core != nil && (l == nil || c.lead.lease.Term > l.lease.Term) {
				l = c.lead
			}
		}
		if l == nil {
			r.again("nobody leads")
			return
		}
		w.say("a user: %s%s", r.words, map[bool]string{true: ", again"}[r.tries > 1])
		w.tickets++
		r.ticket, r.lead = w.tickets, l
		l.requests[r.ticket] = r
		l.receive(r.make(r.ticket))
	})
}

// again: it was not done, or nobody knows.
func (r *request) again(why string) {
	w := r.u.w
	if r.once {
		return
	}
	w.say("a user has no answer to %s: %s", r.words, why)
	if !w.calm && !r.deletes && r.taken == nil && chance(w.r.users, 0.3) {
		r.u.colleague()
	}
	w.after(between(w.r.users, 50*time.Millisecond, time.Second), r.try)
}

// unknown: the controller that was asked is no more.
func (r *request) unknown() {
	delete(r.lead.requests, r.ticket)
	r.again("the connection broke")
}

// reply is the controller's answer.
func (l *lead) reply(e core.Reply) {
	r := l.requests[e.Ticket]
	if r == nil {
		return
	}
	delete(l.requests, e.Ticket)
	w := l.w
	w.mix(e.Ticket)
	switch v := e.Value.(type) {
	case core.ApplyResult:
		for _, a := range v.Applied {
			if !r.dry() {
				w.ledger.acknowledged(r, a)
			}
			if s := w.ledger.pic.services[r.u.key]; a.Service != nil && r.word == "pause" && l.lease.Term == w.ledger.term && s != nil && s.Metadata.DeletedAt.IsZero() &&
				s.Metadata.UID == a.Service.Metadata.UID && s.Status.Rollout.PausedBy == "" {
				w.violate("I2", "the pause of %s was acknowledged, and is not stored", r.u.key)
			}
		}
	case core.RebalanceResult:
		w.plan = &v
		w.res.Moves += len(v.Moves)
		w.say("a rebalance plans %v, from %.3f to %.3f", v.Moves, v.Before, v.After)
	case core.DeleteResult:
		for _, k := range v.Deleted {
			if s := w.ledger.pic.services[k.Key]; (k.Kind == "" || k.Kind == api.KindService) && s != nil && s.Metadata.DeletedAt.IsZero() && l.lease.Term == w.ledger.term {
				w.violate("I2", "the delete of %s was acknowledged before it was committed", k)
			}
		}
	}
	if a, ok := r.make(0).(core.Apply); ok && len(a.Services) > 0 && isConflict(e.Err) && !w.ledger.refusedRightly(a.Services[0]) {
		w.violate("ports", "%s was refused, though nobody else has its ports: %v", r.words, e.Err)
	}
	if w.broken != nil || r.once {
		return
	}
	w.after(w.latency(), func() {
		if !w.calm && w.cfg.Without&SessionBreak == 0 && chance(w.r.users, 0.02) {
			r.again("the answer was lost")
			return
		}
		r.answered(e)
	})
}

// isConflict tells whether an apply was refused for a port that another service has.
func isConflict(err error) bool {
	return errors.Is(err, core.ErrInvalid) && strings.Contains(err.Error(), ": port ")
}

// lacks tells whether an apply was refused for a Config or a Secret, rightly.
func (r *request) lacks(err error) bool {
	a, ok := r.make(0).(core.Apply)
	return ok && len(a.Services) > 0 && r.u.w.ledger.isLacking(&a.Services[0].Spec.Template, err) && r.u.w.ledger.lackedSince(&a.Services[0].Spec.Template, r.asked)
}

func (r *request) dry() bool {
	a, ok := r.make(0).(core.Apply)
	return ok && a.DryRun
}

func (r *request) answered(e core.Reply) {
	u, w := r.u, r.u.w
	switch {
	case r.taken != nil:
		if r.taken(e) {
			r.again(fmt.Sprint(e.Err))
			return
		}
	case r.word != "" && (errors.Is(e.Err, core.ErrInvalid) || errors.Is(e.Err, core.ErrBusy)): // nothing to undo, or not paused
		w.say("a user is refused: %v", e.Err)
	case errors.Is(e.Err, core.ErrBusy):
		r.again(e.Err.Error())
		return
	case errors.Is(e.Err, core.ErrNotFound):
		u.last = nil
	case isConflict(e.Err):
		w.res.Conflicts++
		w.say("a user is refused: %v", e.Err)
	case errors.Is(e.Err, core.ErrInvalid) && r.lacks(e.Err):
		w.res.ConfigsRefused++
		w.say("a user is refused: %v", e.Err)
	case e.Err != nil:
		w.violate("sim", "a user is refused: %s: %v", r.words, e.Err)
	case r.deletes:
		u.last = nil
	case !r.dry():
		u.last = e.Value.(core.ApplyResult).Applied[0].Service
	}
	w.say("a user is answered: %s", r.words)
	u.pending = nil
}

// pending is what the service's user waits for; nil for nothing.
func (w *world) pending(key api.Key) *request {
	for _, u := range w.users {
		if u.key == key {
			return u.pending
		}
	}
	return nil
}

// asksToDelete tells whether a user waits for a delete to be done.
func (w *world) asksToDelete(key api.Key) bool {
	r := w.pending(key)
	return r != nil && r.deletes
}

func sortedRequests(m map[uint64]*request) []*request {
	return slices.SortedFunc(maps.Values(m), func(a, b *request) int { return cmp.Compare(a.ticket, b.ticket) })
}
