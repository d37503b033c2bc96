package api

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/controller/view"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// jobOf gives the job that a request for logs names as its service; nil: it names none.
func jobOf(snap *view.Snapshot, r *orchv1.LogsRequest) *api.Job {
	if r.GetService() == "" {
		return nil
	}
	o, _ := declared(snap, keyOf(r.GetNamespace(), r.GetService()))
	job, _ := o.(*api.Job)
	return job
}

// isOfJob tells whether a name is that of a job's replica: it is expected to end, so
// what it wrote is shown when it has.
func isOfJob(snap *view.Snapshot, namespace, text string) bool {
	if before, after, ok := strings.Cut(text, "/"); ok {
		namespace, text = before, after
	}
	dash := strings.LastIndexByte(text, '-')
	if dash < 0 {
		return false
	}
	o, ok := declared(snap, keyOf(namespace, text[:dash]))
	return ok && o.ObjectKind() == api.KindJob
}

// withOutcomes adds how a job's indexes ended as the store has it: what a leader keeps
// in memory is less than that after it has changed.
func (s *Server) withOutcomes(m core.Recalled, job api.Key) core.Recalled {
	snap := s.cfg.View.Snapshot()
	if snap == nil {
		return m
	}
	told := map[api.ReplicaKey]bool{}
	for _, w := range m.Words {
		told[w.Replica] = told[w.Replica] || !w.Untold
	}
	var more []core.LastWords
	snap.Within(api.KindOutcome, job.Namespace, job.Name+"@", func(e core.Entry) bool {
		o := e.Object.(*api.Outcome)
		key := api.ReplicaKey{Namespace: job.Namespace, Service: o.Job, Slot: o.Index, Epoch: o.Epoch}
		if !told[key] && o.Epoch > 0 {
			more = append(more, core.LastWords{Replica: key, ServiceUID: o.JobUID, Container: o.Container, Node: o.Node, Exit: o.Exit})
		}
		return true
	})
	if len(more) > 0 {
		m.Words = slices.Concat(m.Words, more) // it is the leader's own
		if m.At.IsZero() {
			m.At = time.Now()
		}
	}
	return m
}

// withEnded adds the newest of those replicas that are gone, one for each index of the
// job that has none now.
func (l *logs) withEnded(list []*api.Replica) ([]*api.Replica, error) {
	newest, key := map[int]*api.Replica{}, l.job.Metadata.Key()
	for _, w := range l.server.memory(l.ctx, key).Words {
		if x := newest[w.Replica.Slot]; w.ServiceUID == l.job.Metadata.UID && (x == nil || x.Spec.Epoch < w.Replica.Epoch) {
			newest[w.Replica.Slot] = replicaOf(w.Replica, w.Node)
		}
	}
	for _, x := range list {
		delete(newest, x.Spec.Slot)
	}
	list = slices.Clone(list)
	for _, x := range newest {
		list = append(list, x)
	}
	slices.SortFunc(list, func(a, b *api.Replica) int {
		return cmp.Or(cmp.Compare(a.Spec.Slot, b.Spec.Slot), cmp.Compare(a.Spec.Epoch, b.Spec.Epoch))
	})
	if l.request.GetFollow() { // what comes is what is waited for
		return list[max(0, len(list)-logStreamsMax):], nil
	}
	return list, tooMany("job", key, list)
}

// findOfJob is find until the job has ended or is gone, and all of its replicas were
// told.
func (l *logs) findOfJob(w *view.Watcher, found chan<- *api.Replica) error {
	ctx, cancel := context.WithCancel(l.ctx)
	defer cancel()
	over := make(chan error, 1)
	go func() {
		defer cancel()
		over <- l.untilJobEnds(ctx)
	}()
	err := l.find(ctx, w, found)
	broke := ctx.Err() == nil // the watcher, not the job
	cancel()
	if ended := <-over; !broke {
		err = ended
	}
	if err != nil {
		return err
	}
	snap, err := l.server.snapshot()
	if err != nil {
		return err
	}
	list := slices.DeleteFunc(replicasOf(snap, l.job.Metadata.Key()), func(x *api.Replica) bool { return x.Spec.Node == "" })
	if list, err = l.withEnded(list); err != nil {
		return err
	}
	for _, x := range list {
		select {
		case found <- x:
		case <-l.ctx.Done():
			return l.ctx.Err()
		}
	}
	return nil
}

// untilJobEnds waits for the end of this very job, not of another one of its name.
func (l *logs) untilJobEnds(ctx context.Context) error {
	key := l.job.Metadata.Key()
	snap, w := l.server.cfg.View.Watch(api.KindJob, key.Namespace)
	defer w.Close()
	o, ok := declared(snap, key)
	job, _ := o.(*api.Job)
	if !ok || job == nil || job.Metadata.UID != l.job.Metadata.UID || job.Status.Ended() {
		return nil
	}
	for {
		changes, err := w.Next(ctx)
		if errors.Is(err, view.ErrTooSlow) {
			return status.Error(codes.ResourceExhausted, err.Error())
		}
		if err != nil {
			return err
		}
		for _, c := range changes {
			x := c.Object.(*api.Job)
			if x.Metadata.Key() == key && (c.Gone || x.Metadata.UID != l.job.Metadata.UID || x.Status.Ended()) {
				return nil
			}
		}
	}
}
