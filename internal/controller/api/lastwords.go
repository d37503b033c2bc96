package api

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
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
	// recallMax is how long the leader's memory is waited for. It answers at once,
	// unless its store does not: then there are logs to read without it.
	recallMax = 3 * time.Second
	// earlierMax is how many earlier replicas of a slot are asked after.
	earlierMax = 5
)

// memory gives what the leader keeps of the ends of a service's or a job's replicas;
// only a job's outcomes where it cannot be asked.
func (s *Server) memory(ctx context.Context, service api.Key) core.Recalled {
	ctx, cancel := context.WithTimeout(ctx, recallMax)
	defer cancel()
	m, _, err := ask[core.Recalled](ctx, s, func(ticket uint64) core.Event { return core.Recall{Ticket: ticket, Key: service} })
	if err != nil && ctx.Err() == nil {
		s.cfg.Log.Warn("cannot ask the leader for last words", "service", service, "err", err)
	}
	return s.withOutcomes(m, service)
}

// bygone gives a replica that is gone, as far as the leader remembers: "web-0@12" is
// that one, "web-0" the newest of its slot.
func (s *Server) bygone(ctx context.Context, namespace, text string) *api.Replica {
	if before, after, ok := strings.Cut(text, "/"); ok {
		namespace, text = before, after
	}
	name, epochText, exact := strings.Cut(text, "@")
	epoch, err := strconv.ParseUint(epochText, 10, 64)
	dash := strings.LastIndexByte(name, '-')
	if exact && err != nil || dash < 0 {
		return nil
	}
	var newest *api.Replica
	for _, w := range s.memory(ctx, keyOf(namespace, name[:dash])).Words {
		if w.Replica.Name() == name && (!exact || w.Replica.Epoch == epoch) && (newest == nil || newest.Spec.Epoch <= w.Replica.Epoch) {
			newest = replicaOf(w.Replica, w.Node)
		}
	}
	return newest
}

// replicaOf is all that there has to be of a replica to look for what it wrote.
func replicaOf(k api.ReplicaKey, node string) *api.Replica {
	return &api.Replica{Metadata: api.Metadata{Name: k.Name(), Namespace: k.Namespace},
		Spec: api.ReplicaSpec{Service: k.Service, Slot: k.Slot, Epoch: k.Epoch, Node: node}, Status: api.ReplicaStatus{Phase: api.PhaseStopped}}
}

// previous sends what a replica wrote in the newest run that has ended: of its own, or
// of the replica that was in its slot before it; from its node, or what that had told
// the leader.
func (l *logs) previous(x *api.Replica, out chan<- *orchv1.LogLine) {
	first := l.ofNode(x, out)
	if first.begun || l.ctx.Err() != nil {
		return
	}
	m := l.server.memory(l.ctx, keyOf(x.Metadata.Namespace, x.Spec.Service))
	if (first.away || first.none) && l.remembered(x, m, first.away, l.sender(x, out)) {
		return
	}
	missing := ""                                      // why what there may be cannot be had
	if !first.none || l.request.GetContainer() != "" { // it may not have such a container
		missing = first.why
	}
	for _, y := range l.earlier(x, m) {
		p := l.ofNode(y, out)
		if p.begun || l.ctx.Err() != nil || (p.away || p.none) && l.remembered(y, m, p.away, l.sender(y, out)) {
			return
		}
		if !p.none {
			missing = cmp.Or(missing, p.why)
		}
	}
	if missing != "" {
		l.sender(x, out)(&orchv1.LogLine{Gap: missing})
		return
	}
	none := fmt.Sprintf("previous run of container %q in replica %s not found", l.containerOf(x), x.Metadata.Name)
	if l.request.GetReplica() != "" {
		l.failed = status.Error(codes.NotFound, none)
		return
	}
	l.sender(x, out)(&orchv1.LogLine{Gap: none})
}

// ofNode sends what the replica's node has of the run.
func (l *logs) ofNode(x *api.Replica, out chan<- *orchv1.LogLine) pumped {
	if x.Spec.Node == "" {
		return pumped{none: true}
	}
	send := l.sender(x, out)
	p := l.pump(x, &orchv1.LogsOpen{Replica: wire.KeyToPB(keyOfReplica(x)), Container: l.request.GetContainer(), Tail: l.request.GetTail(), Since: l.request.GetSince(), Previous: true}, send)
	if p.begun && p.why != "" {
		send(&orchv1.LogLine{Gap: p.why})
	}
	return p
}

// earlier are the replicas that were in the slot before x, the newest first: those that
// are still known, and those that the leader remembers of this service or job. One of the same
// name that was deleted was another's.
func (l *logs) earlier(x *api.Replica, m core.Recalled) []*api.Replica {
	before := x.Spec.Epoch
	if before == 0 { // it has no node yet
		before = math.MaxUint64
	}
	snap := l.server.cfg.View.Snapshot()
	uid := ""
	if snap != nil {
		if o, ok := declared(snap, keyOf(x.Metadata.Namespace, x.Spec.Service)); ok {
			uid = o.GetMetadata().UID
		}
	}
	of := map[uint64]*api.Replica{}
	for _, w := range m.Words {
		if w.Replica.Slot == x.Spec.Slot && (uid == "" || w.ServiceUID == uid) {
			of[w.Replica.Epoch] = replicaOf(w.Replica, w.Node)
		}
	}
	if snap != nil {
		for _, y := range replicasOf(snap, keyOf(x.Metadata.Namespace, x.Spec.Service)) {
			if y.Spec.Slot == x.Spec.Slot {
				of[y.Spec.Epoch] = y
			}
		}
	}
	var out []*api.Replica
	for epoch, y := range of {
		if epoch < before && epoch > 0 {
			out = append(out, y)
		}
	}
	slices.SortFunc(out, func(a, b *api.Replica) int { return cmp.Compare(b.Spec.Epoch, a.Spec.Epoch) })
	return out[:min(len(out), earlierMax)]
}

func replicasOf(snap *view.Snapshot, service api.Key) []*api.Replica {
	var list []*api.Replica
	snap.All(api.KindReplica, service.Namespace, func(e core.Entry) bool {
		if x := e.Object.(*api.Replica); x.Spec.Service == service.Name {
			list = append(list, x)
		}
		return true
	})
	return list
}

// containerOf is the container that is meant: where none is named, the first.
func (l *logs) containerOf(x *api.Replica) string {
	if name := l.request.GetContainer(); name != "" {
		return name
	}
	if snap := l.server.cfg.View.Snapshot(); snap != nil {
		if o, ok := declared(snap, keyOf(x.Metadata.Namespace, x.Spec.Service)); ok {
			if list := templateOf(o).Containers; len(list) > 0 {
				return list[0].Name
			}
		}
	}
	return "main"
}

// remembered sends what the replica's node had told of its last end, and how it ended;
// false: nothing that anybody could read.
func (l *logs) remembered(x *api.Replica, m core.Recalled, away bool, send func(*orchv1.LogLine) bool) bool {
	key, name := keyOfReplica(x), l.containerOf(x)
	var own []core.LastWords
	for _, w := range m.Words {
		if w.Replica == key {
			own = append(own, w)
		}
	}
	if l.request.GetContainer() == "" && len(own) > 0 && !slices.ContainsFunc(own, func(w core.LastWords) bool { return w.Container == name }) {
		name = own[len(own)-1].Container // of a revision that named it otherwise
	}
	own = slices.DeleteFunc(own, func(w core.LastWords) bool { return w.Container != name })
	if len(own) == 0 {
		return false
	}
	where := fmt.Sprintf("%s has nothing of it any more", x.Spec.Node)
	if away {
		where = fmt.Sprintf("%s cannot be reached", x.Spec.Node)
	}
	ago := func(w core.LastWords) string {
		return fmt.Sprintf("%s ago", max(0, m.At.Sub(w.Exit.FinishedAt)).Round(time.Second))
	}
	last := own[len(own)-1]
	i := len(own) - 1
	for i >= 0 && own[i].Untold {
		i--
	}
	if i < 0 {
		return send(&orchv1.LogLine{Container: name, Gap: fmt.Sprintf("%s: what %s wrote is missing; %s, %s", where, x.Metadata.Name, last.Exit.Message, ago(last))})
	}
	w := own[i]
	what := fmt.Sprintf("the last %d KiB that it told the leader", api.MaxLastOutput>>10)
	if w.Exit.Output == "" {
		what = "it told the leader of no output"
	}
	note := fmt.Sprintf("%s: %s; %s, %s", where, what, w.Exit.Words(), ago(w))
	if last.Untold {
		note += fmt.Sprintf("; what it wrote since is missing: %s, %s", last.Exit.Message, ago(last))
	}
	if !send(&orchv1.LogLine{Begun: true}) || !send(&orchv1.LogLine{Container: name, Note: note}) {
		return true // nobody listens any more
	}
	for _, text := range l.chosen(w) {
		if !send(&orchv1.LogLine{Time: wire.TimeToPB(w.Exit.FinishedAt), Stream: "stdout", Text: []byte(text), Container: name}) {
			break
		}
	}
	return true
}

// chosen are the lines that were asked for. Each is as old as the end, for all that is
// known.
func (l *logs) chosen(w core.LastWords) []string {
	since, tail := wire.TimeFromPB(l.request.GetSince()), l.request.GetTail()
	if w.Exit.Output == "" || !since.IsZero() && w.Exit.FinishedAt.Before(since) {
		return nil
	}
	lines := strings.Split(w.Exit.Output, "\n")
	if tail >= 0 && int64(len(lines)) > tail {
		lines = lines[int64(len(lines))-tail:]
	}
	return lines
}
