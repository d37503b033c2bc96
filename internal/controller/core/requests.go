package core

import (
	"fmt"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/store"
)

// requestsKept is how many answered changes are remembered: a client retries
// within seconds, and this many changes take longer than that.
const requestsKept = 1000

// request is a change that was done, kept in the transaction that did it, so
// that a retry gets its answer and does nothing.
type request struct {
	Seq      uint64         `json:"seq"`
	ID       string         `json:"id"`
	Applied  []requestedOne `json:"applied,omitempty"`
	Deleted  []api.Ref      `json:"deleted,omitempty"`
	Missing  []api.Ref      `json:"missing,omitempty"`
	IsDelete bool           `json:"isDelete,omitempty"`
}

// requestedOne is one object of an apply; without a Kind it is a service.
type requestedOne struct {
	Kind    string  `json:"kind,omitempty"`
	Key     api.Key `json:"key"`
	Outcome string  `json:"outcome"`
}

// requests is the bounded memory of changes, oldest first.
type requests struct {
	order []*request
	byID  map[string]*request
}

func newRequests() *requests { return &requests{byID: map[string]*request{}} }

func (q *requests) add(r *request) {
	q.order = append(q.order, r)
	q.byID[r.ID] = r
}

func (r *request) key() string { return fmt.Sprintf("%s%020d", requestPrefix, r.Seq) }

// remember gives the ops that keep a change, and forgets the oldest.
func (c *Core) remember(r *request) []store.Op {
	if r.ID == "" {
		return nil
	}
	c.counters.event++ // one number for all that is counted and not an epoch
	r.Seq = c.counters.event
	c.requests.add(r)
	ops := []store.Op{store.Put(r.key(), object("Request", r))}
	for len(c.requests.order) > requestsKept {
		old := c.requests.order[0]
		c.requests.order = c.requests.order[1:]
		if c.requests.byID[old.ID] == old {
			delete(c.requests.byID, old.ID)
		}
		ops = append(ops, store.Delete(old.key()))
	}
	return ops
}

// repeated answers a change that was done before and tells whether it was.
func (c *Core) repeated(ticket uint64, id string) bool {
	r := c.requests.byID[id]
	if id == "" || r == nil {
		return false
	}
	if r.IsDelete {
		c.answer(ticket, DeleteResult{Deleted: r.Deleted, Missing: r.Missing}, nil)
		return true
	}
	var result ApplyResult
	for _, x := range r.Applied {
		one := Applied{Outcome: x.Outcome}
		switch x.Kind {
		case api.KindConfig, api.KindSecret:
			if y := c.configs[idOfConfig(x.Kind, x.Key)]; y.there() {
				one.Config = y.public(c.pullers[y.id])
			}
		default:
			if s := c.services[x.Key]; s != nil {
				c.answerWith(&one, s)
			}
		}
		result.Applied = append(result.Applied, one)
	}
	c.answer(ticket, result, nil)
	return true
}
