package core

import (
	"container/list"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/orchctl/orch/api"
)

// The bounds of what is kept of runs that ended. At most 20 MiB of output, mostly a
// tenth of it.
const (
	// wordsPerServiceMax is more than anybody reads of one service, so that one that
	// ends again and again does not push out the others'.
	wordsPerServiceMax = 50
	wordsMax           = 20_000
)

// LastWords is how one run of a container ended, as its node told it; of a replica
// that is gone without a word of its own, when and why it went.
type LastWords struct {
	Replica api.ReplicaKey
	// ServiceUID tells it from replicas of another service of that name.
	ServiceUID string
	Container  string
	Node       string
	Exit       api.Exit
	// Untold: nobody told how it ended. Exit says in words why it is gone, FinishedAt
	// is when that became known, and there is no output.
	Untold bool
	// Gone: nothing of the replica is left, or its node is dead.
	Gone bool
}

// lastWords are kept in memory only: a new leader has what complete reports bring, and
// nothing of nodes that are dead by then.
type lastWords struct {
	all *list.List // of *LastWords, oldest first
	of  map[api.Key][]*list.Element
}

func newLastWords() lastWords {
	return lastWords{all: list.New(), of: map[api.Key][]*list.Element{}}
}

// keep takes what is newest. Where it is one too many, the oldest goes; of its service,
// the oldest that says nothing but that it was, if there is one: a rollout over many
// replicas may not take along how some of them crashed.
func (l *lastWords) keep(w LastWords) {
	key := w.Replica.ServiceKey()
	if of := l.of[key]; len(of) == wordsPerServiceMax {
		l.forget(of[max(0, slices.IndexFunc(of, func(e *list.Element) bool { return e.Value.(*LastWords).Untold }))])
	}
	if l.all.Len() == wordsMax {
		l.forget(l.all.Front())
	}
	l.of[key] = append(l.of[key], l.all.PushBack(&w))
}

func (l *lastWords) forget(e *list.Element) {
	key := l.all.Remove(e).(*LastWords).Replica.ServiceKey()
	l.of[key] = slices.DeleteFunc(l.of[key], func(x *list.Element) bool { return x == e })
	if len(l.of[key]) == 0 {
		delete(l.of, key)
	}
}

// newest gives what is known last of a replica's container; nil: nothing.
func (l *lastWords) newest(key api.ReplicaKey, container string) *LastWords {
	for _, e := range slices.Backward(l.of[key.ServiceKey()]) {
		if w := e.Value.(*LastWords); w.Replica == key && w.Container == container {
			return w
		}
	}
	return nil
}

// hearWords keeps the ends that a report tells of for the first time.
func (c *Core) hearWords(f *filling, s api.ReplicaStatus) {
	for _, ct := range s.Containers {
		x := ct.LastExit
		if x == nil || x.Reason == api.ExitCompleted && c.isInit(f, ct.Name) {
			continue
		}
		if old := c.words.newest(f.key, ct.Name); old != nil && !old.Untold && old.Exit.FinishedAt.Equal(x.FinishedAt) {
			continue
		}
		exit := *x
		exit.Output = lastBytes(exit.Output, api.MaxLastOutput)
		c.words.keep(LastWords{Replica: f.key, ServiceUID: f.serviceUID, Container: ct.Name, Node: f.node, Exit: exit})
	}
}

// isInit tells whether a container is there to end.
func (c *Core) isInit(f *filling, container string) bool {
	r := c.services[f.key.ServiceKey()].revisions[f.revision]
	return r != nil && slices.ContainsFunc(r.Template.InitContainers, func(x api.Container) bool { return x.Name == container })
}

// partWords notes that a filling goes: where its containers had not ended as last told,
// all that there will be of them is when and why.
func (c *Core) partWords(f *filling) {
	for _, e := range c.words.of[f.key.ServiceKey()] {
		if w := e.Value.(*LastWords); w.Replica == f.key {
			w.Gone = true
		}
	}
	for _, ct := range f.status.Containers {
		if ct.State != api.ContainerRunning && ct.LastExit != nil {
			continue
		}
		c.words.keep(LastWords{Replica: f.key, ServiceUID: f.serviceUID, Container: ct.Name, Node: f.node, Untold: true, Gone: true,
			Exit: api.Exit{Reason: "Untold", Message: c.partWhy(f), FinishedAt: c.now}})
	}
}

// partWhy says why a filling goes.
func (c *Core) partWhy(f *filling) string {
	n := c.nodes[f.node]
	switch {
	case !f.void:
		return "stopped: " + orElse(f.why, "nobody wanted it any more")
	case n == nil:
		return fmt.Sprintf("its node %s was removed", f.node)
	case n.verdict == api.VerdictDead:
		return fmt.Sprintf("its node %s died: %s", f.node, n.why)
	}
	return fmt.Sprintf("the life of its node %s is over", f.node)
}

// lastBytes is the end of a text, from the beginning of a character.
func lastBytes(s string, size int) string {
	if len(s) <= size {
		return s
	}
	return strings.Clone(strings.ToValidUTF8(s[len(s)-size:], ""))
}

// recall answers with what is kept of a service, oldest first.
func (c *Core) recall(ev Recall) {
	var out []LastWords
	for _, e := range c.words.of[ev.Key] {
		out = append(out, *e.Value.(*LastWords))
	}
	c.answer(ev.Ticket, Recalled{Words: out, At: c.now}, nil)
}

// Recalled answers Recall.
type Recalled struct {
	Words []LastWords
	// At is the leader's clock, by which times are told.
	At time.Time
}
