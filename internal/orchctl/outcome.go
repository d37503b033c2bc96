package orchctl

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// appliedObject is what became of one document of an apply.
type appliedObject struct {
	object
	outcome string
	plan    []string
}

func appliedObjects(answer *orchv1.ApplyResponse) ([]appliedObject, error) {
	var out []appliedObject
	for _, x := range answer.GetApplied() {
		o, err := decode(x.GetObject())
		if err != nil {
			return nil, err
		}
		out = append(out, appliedObject{o, x.GetOutcome(), x.GetPlan()})
	}
	return out, nil
}

// outcomeLine gives "service/web configured", "config/app configured (version 3)".
func (x appliedObject) outcomeLine() string {
	line := fmt.Sprintf("%s/%s %s", word(x.kind), x.name(), x.outcome)
	if c, ok := x.value.(*api.Config); ok && x.outcome == "configured" && c.Status.Version > 0 {
		line += fmt.Sprintf(" (version %d)", c.Status.Version)
	}
	return line
}

// revised is a service that has a new revision because it takes values that changed.
type revised struct {
	api.Key
	revision int64
	why      []string // "config app version 3"
}

func (r revised) String() string {
	return fmt.Sprintf("service/%s revision %d: %s", r.Name, r.revision, strings.Join(r.why, ", "))
}

// revisedBy gives the services that an apply gave new revisions though they are none of
// its documents: the newest version of a Config tells who takes it.
func revisedBy(list []appliedObject) []revised {
	var out []revised
	for _, x := range list {
		c, ok := x.value.(*api.Config)
		if !ok || x.outcome != "configured" || len(c.Status.Versions) == 0 {
			continue
		}
		newest := c.Status.Versions[len(c.Status.Versions)-1]
		for _, user := range newest.Users {
			name, number, _ := strings.Cut(user, "@")
			revision, err := strconv.ParseInt(number, 10, 64)
			key := api.Key{Namespace: c.Metadata.Namespace, Name: name}
			if err != nil || slices.ContainsFunc(list, func(y appliedObject) bool { return y.is(key) }) {
				continue
			}
			i := slices.IndexFunc(out, func(r revised) bool { return r.Key == key })
			if i < 0 {
				i = len(out)
				out = append(out, revised{Key: key, revision: revision})
			}
			if revision > out[i].revision { // of one that another revision of it takes too
				out[i].revision = revision
			}
			out[i].why = append(out[i].why, fmt.Sprintf("%s version %d", api.RefTo(x.kind, x.name()), newest.Number))
			out[i].why = slices.Compact(out[i].why)
		}
	}
	return out
}

// is tells whether it is the service or job of that name: the two share their names.
func (x appliedObject) is(key api.Key) bool {
	return (x.kind == api.KindService || x.kind == api.KindJob) && x.namespace() == key.Namespace && x.name() == key.Name
}

// follow adds a service to those that are waited for: as it was before, but with its new
// revision, of which nothing is there yet.
func (w *waiting) follow(ctx context.Context, r revised, began, committed time.Time) error {
	var known *api.Service
	for _, s := range w.early {
		if v, ok := s.o.value.(*api.Service); ok && v.Metadata.Key() == r.Key {
			known = v
		}
	}
	if known == nil {
		found, missing, err := w.t.fetch(ctx, w.client, listing{}, []target{{api.KindService, r.Namespace, r.Name}})
		if err != nil || missing != nil {
			return err // deleted meanwhile: nothing to wait for
		}
		v, ok := found[0].value.(*api.Service)
		if !ok {
			return fmt.Errorf("apply: the controller answered with a %s", found[0].kind)
		}
		known = v
	}
	next := *known
	if next.Status.Revision < r.revision {
		from := next.Status.Rollout.From
		if next.Status.Rollout.State == api.RolloutComplete || from == 0 {
			from = next.Status.Revision
		}
		next.Status.Revision, next.Status.Updated, next.Status.UpdatedReady = r.revision, 0, 0
		next.Status.Rollout = api.RolloutStatus{State: api.RolloutProgressing, From: from, StartedAt: committed}
		next.Status.Reasons = nil
	}
	w.add(&next, "revised", began, committed)
	return nil
}
