package api

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/controller/view"
	"github.com/orchctl/orch/internal/wire"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

const (
	// logStreamsMax is how many replicas are read at once; each is a stream.
	logStreamsMax = 200
	// logAhead is how many lines of a replica may wait for the others'.
	logAhead = 64
	// logAgain is the wait before a node that went away is asked again for lines
	// that are followed: its agent is back within a second or so.
	logAgain = time.Second
)

// Logs implements orch.v1.Orch: one replica, or all of a service, merged by time
// where they end and as they come where they are followed. A node that is away
// makes a gap, not a failure.
func (s *Server) Logs(r *orchv1.LogsRequest, st orchv1.Orch_LogsServer) error {
	if r.GetPrevious() && r.GetFollow() {
		return invalid("logs: a run that has ended writes no more: previous and follow exclude each other")
	}
	snap, w := s.cfg.View.Watch(api.KindReplica, "")
	defer w.Close()
	if snap == nil {
		_, err := s.snapshot()
		return err
	}
	replicas, err := logged(snap, r)
	if status.Code(err) == codes.NotFound && r.GetReplica() != "" && (r.GetPrevious() || strings.Contains(r.GetReplica(), "@") || isOfJob(snap, r.GetNamespace(), r.GetReplica())) {
		if x := s.bygone(st.Context(), r.GetNamespace(), r.GetReplica()); x != nil {
			replicas, err = []*api.Replica{x}, nil
		}
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(st.Context())
	defer cancel()
	l := logs{server: s, request: r, ctx: ctx, stream: st, job: jobOf(snap, r)}
	if l.job != nil {
		if replicas, err = l.withEnded(replicas); err != nil {
			return err
		}
	}
	if r.GetFollow() {
		return statusOf(l.follow(replicas, w))
	}
	return statusOf(l.merge(replicas))
}

// logged gives the replicas that a request means.
func logged(snap *view.Snapshot, r *orchv1.LogsRequest) ([]*api.Replica, error) {
	if (r.GetReplica() == "") == (r.GetService() == "") {
		return nil, invalid("logs: want a replica or a service, one of them")
	}
	if r.GetReplica() != "" {
		x, err := resolve(snap, r.GetNamespace(), r.GetReplica())
		if err != nil {
			return nil, err
		}
		if x.Spec.Node == "" && !r.GetPrevious() {
			return nil, status.Error(codes.FailedPrecondition, fmt.Sprintf("replica %s has no node yet: %s", x.Metadata.Name, x.Status.Message))
		}
		return []*api.Replica{x}, nil
	}
	key := keyOf(r.GetNamespace(), r.GetService())
	if _, ok := declared(snap, key); !ok {
		return nil, notFound("service %s: not found, and there is no job of that name", key)
	}
	list := replicasOf(snap, key)
	if r.GetPrevious() { // of each slot once: its earlier replicas are looked for
		slots := map[int][]*api.Replica{}
		for _, x := range list {
			slots[x.Spec.Slot] = append(slots[x.Spec.Slot], x)
		}
		list = nil
		for _, slot := range slices.Sorted(maps.Keys(slots)) {
			list = append(list, serving(slots[slot]))
		}
	} else {
		list = slices.DeleteFunc(list, func(x *api.Replica) bool { return x.Spec.Node == "" })
	}
	return list, tooMany("service", key, list)
}

func tooMany(kind string, key api.Key, list []*api.Replica) error {
	if len(list) <= logStreamsMax {
		return nil
	}
	return invalid("%s %s has %d replicas: the logs of at most %d can be read at once; name a replica, such as %s", kind, key, len(list), logStreamsMax, list[0].Metadata.Name)
}

// logs is one call.
type logs struct {
	server  *Server
	request *orchv1.LogsRequest
	ctx     context.Context
	stream  orchv1.Orch_LogsServer
	failed  error    // there is nothing to read; of one replica only
	job     *api.Job // whose replicas are read; nil: it is no job, or one replica was named
}

// sender gives what sends a replica's lines to out; false: nobody takes them any more.
func (l *logs) sender(x *api.Replica, out chan<- *orchv1.LogLine) func(*orchv1.LogLine) bool {
	key := wire.KeyToPB(keyOfReplica(x))
	return func(line *orchv1.LogLine) bool {
		line.Replica = key
		select {
		case out <- line:
			return true
		case <-l.ctx.Done():
			return false
		}
	}
}

// read sends a replica's lines to out and returns when they have ended. Where they
// are followed and the node goes away, they go on behind a gap when it is back,
// as long as there is such a replica. Of one that is gone there is what its node, or
// the leader, has kept.
func (l *logs) read(x *api.Replica, out chan<- *orchv1.LogLine) {
	if l.request.GetPrevious() {
		l.previous(x, out)
		return
	}
	told := false // of this gap
	tail, since := l.request.GetTail(), l.request.GetSince()
	sender := l.sender(x, out)
	send := func(line *orchv1.LogLine) bool {
		if at := wire.TimeFromPB(line.GetTime()); !at.IsZero() {
			told, tail, since = false, -1, wire.TimeToPB(at.Add(1))
		}
		told = told && !line.GetBegun()
		return sender(line)
	}
	for {
		p := l.pump(x, &orchv1.LogsOpen{Replica: wire.KeyToPB(keyOfReplica(x)), Container: l.request.GetContainer(), Follow: l.request.GetFollow(), Tail: tail, Since: since}, send)
		if x.Status.Phase.Ended() && !p.begun && (p.away || p.none) && l.ctx.Err() == nil &&
			l.remembered(x, l.server.memory(l.ctx, keyOf(x.Metadata.Namespace, x.Spec.Service)), p.away, send) {
			return
		}
		if p.why != "" && !told {
			told = send(&orchv1.LogLine{Gap: p.why})
		}
		if !p.away || !l.request.GetFollow() {
			return
		}
		select {
		case <-time.After(logAgain):
		case <-l.ctx.Done():
			return
		}
		if !l.server.fills(x) {
			return
		}
	}
}

// fills tells whether the replica is still there and has not ended.
func (s *Server) fills(x *api.Replica) bool {
	snap := s.cfg.View.Snapshot()
	if snap == nil {
		return false
	}
	y, ok := snap.Get(core.ViewKey{Kind: api.KindReplica, Namespace: x.Metadata.Namespace, Name: fmt.Sprintf("%s@%d", x.Metadata.Name, x.Spec.Epoch)})
	return ok && !y.(*api.Replica).Status.Phase.Ended()
}

// merge sends lines in the order of their times.
func (l *logs) merge(replicas []*api.Replica) error {
	var readers sync.WaitGroup
	defer readers.Wait()
	ctx, cancel := context.WithCancel(l.ctx)
	defer cancel()
	l.ctx = ctx
	var heads lines
	for i, x := range replicas {
		c := make(chan *orchv1.LogLine, logAhead)
		readers.Go(func() {
			defer close(c)
			l.read(x, c)
		})
		heads = append(heads, &head{order: i, from: c})
	}
	open := heads[:0]
	for _, h := range heads {
		if h.next() {
			open = append(open, h)
		}
	}
	heads = open
	heap.Init(&heads)
	for len(heads) > 0 {
		h := heads[0]
		if err := l.stream.Send(h.line); err != nil {
			return err
		}
		if h.next() {
			heap.Fix(&heads, 0)
		} else {
			heap.Pop(&heads)
		}
	}
	if l.failed != nil {
		return l.failed
	}
	return ctx.Err()
}

// follow sends lines as they come, also of replicas that a service gets meanwhile. With
// a job it comes to its end.
func (l *logs) follow(replicas []*api.Replica, w *view.Watcher) error {
	var readers sync.WaitGroup
	defer readers.Wait()
	ctx, cancel := context.WithCancel(l.ctx)
	defer cancel()
	l.ctx = ctx
	out := make(chan *orchv1.LogLine, logAhead)
	seen := map[uint64]bool{} // by epoch
	var reading atomic.Int64
	var streams sync.WaitGroup
	start := func(x *api.Replica) {
		if !seen[x.Spec.Epoch] && reading.Load() < logStreamsMax {
			seen[x.Spec.Epoch] = true
			reading.Add(1)
			streams.Add(1)
			readers.Go(func() {
				defer streams.Done()
				defer reading.Add(-1)
				l.read(x, out)
			})
		}
	}
	for _, x := range replicas {
		start(x)
	}
	found, ended := make(chan *api.Replica), make(chan error, 1)
	if l.job != nil {
		readers.Go(func() {
			err := l.findOfJob(w, found)
			close(found) // nothing more comes: what is read comes to its end
			if err != nil {
				ended <- err
			}
		})
	} else if l.request.GetService() != "" {
		readers.Go(func() { ended <- l.find(l.ctx, w, found) })
	} else {
		go func() {
			readers.Wait()
			ended <- nil
		}()
	}
	for {
		select {
		case x, more := <-found:
			if more {
				start(x)
				continue
			}
			found = nil
			readers.Go(func() {
				streams.Wait()
				select {
				case ended <- nil:
				default: // it ended otherwise
				}
			})
		case line := <-out:
			if err := l.stream.Send(line); err != nil {
				return err
			}
		case err := <-ended:
			for len(out) > 0 { // what came before the end
				if err := l.stream.Send(<-out); err != nil {
					return err
				}
			}
			return errors.Join(err, ctx.Err())
		}
	}
}

// find tells of replicas of the service that come while its logs are followed.
func (l *logs) find(ctx context.Context, w *view.Watcher, found chan<- *api.Replica) error {
	key := keyOf(l.request.GetNamespace(), l.request.GetService())
	for {
		changes, err := w.Next(ctx)
		if errors.Is(err, view.ErrTooSlow) {
			return status.Error(codes.ResourceExhausted, err.Error())
		}
		if err != nil {
			return err
		}
		for _, c := range changes {
			x := c.Object.(*api.Replica)
			if c.Gone || x.Spec.Service != key.Name || x.Metadata.Namespace != key.Namespace || x.Spec.Node == "" {
				continue
			}
			select {
			case found <- x:
			case <-l.ctx.Done():
				return l.ctx.Err()
			}
		}
	}
}

// head is the next line of one replica.
type head struct {
	order int
	from  <-chan *orchv1.LogLine
	line  *orchv1.LogLine
}

func (h *head) next() bool {
	line, ok := <-h.from
	h.line = line
	return ok
}

// lines is a heap by time; gaps, which have none, come at once.
type lines []*head

func (l lines) Len() int      { return len(l) }
func (l lines) Swap(i, j int) { l[i], l[j] = l[j], l[i] }
func (l lines) Less(i, j int) bool {
	a, b := wire.TimeFromPB(l[i].line.GetTime()), wire.TimeFromPB(l[j].line.GetTime())
	if !a.Equal(b) {
		return a.Before(b)
	}
	return l[i].order < l[j].order
}

// Push and Pop make a heap.Interface.
func (l *lines) Push(x any) { *l = append(*l, x.(*head)) }

func (l *lines) Pop() any {
	last := (*l)[len(*l)-1]
	*l = (*l)[:len(*l)-1]
	return last
}
