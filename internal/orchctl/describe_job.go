package orchctl

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// outcomesShownMax is how many outcomes of a job a description lists, those that failed
// first; `get outcomes` lists all.
const outcomesShownMax = 20

func (t *tool) describeJob(ctx context.Context, client orchv1.OrchClient, p *page, j *api.Job) error {
	st, x := j.Status, target{api.KindJob, j.Metadata.Namespace, j.Metadata.Name}
	p.field(0, "In short", "%s", jobInShort(j))
	p.metadata(j.Metadata)
	p.field(0, "State", "%s", jobWord(j))
	if st.Why != "" {
		p.list(0, "Why", strings.Split(strings.TrimRight(st.Why, "\n"), "\n"))
	}
	p.field(0, "Completions", "%d of %d done; %d active, at most %d at once", st.Succeeded, j.Spec.Want(), st.Active, j.Spec.AtOnce())
	p.field(0, "Failures", "%s; %d may fail", count(st.Failed, "try"), j.Spec.MayFail())
	if !st.StartedAt.IsZero() {
		p.field(0, "Started", "%s", p.when(st.StartedAt))
	}
	if !st.EndedAt.IsZero() {
		p.field(0, "Ended", "%s, after %s", p.when(st.EndedAt), jobDuration(j, p.now))
	}
	if d := j.Spec.Deadline; d != nil {
		p.field(0, "Deadline", "%s from its creation", d)
	}
	if d := j.Spec.TTLAfterFinished; d != nil {
		p.field(0, "Kept", "%s after its end", d)
	}
	reasons := st.Reasons
	if text := inputReason(j); text != "" {
		reasons = append(slices.Clone(reasons), text)
	}
	p.list(0, "Reasons", reasons)
	if j.Spec.Priority != 0 {
		p.field(0, "Priority", "%d", j.Spec.Priority)
	}
	template := j.Spec.Template
	template.RestartPolicy.Condition = "" // nothing of it is restarted in place
	p.field(0, "Next try", "%s to %s after one that failed", short(template.RestartPolicy.BackOff.Or(api.DefaultBackOff)), short(template.RestartPolicy.MaxBackOff.Or(api.DefaultMaxBackOff)))
	p.template(template)
	replicas, err := t.replicasOf(ctx, client, j.Metadata.Key())
	if err != nil {
		return err
	}
	about, rows, pending := []*orchv1.Ref{x.ref()}, [][]string{}, ""
	for _, r := range replicas {
		if r.Status.Phase == api.PhasePending && pending == "" {
			pending = r.Metadata.Name
		}
		if len(about) <= replicasAskedMax {
			about = append(about, target{api.KindReplica, r.Metadata.Namespace, r.Metadata.Name}.ref())
		}
		if len(rows) < outcomesShownMax {
			rows = append(rows, []string{r.Metadata.Name, replicaWord(r), orDash(r.Spec.Node), orDash(replicaReason(r))})
		}
	}
	p.table("Replicas", rows, "NAME", "STATUS", "NODE", "REASON")
	p.more(len(replicas)-len(rows), "")
	if err := t.pendingOf(ctx, client, p, j.Metadata.Key(), pending); err != nil {
		return err
	}
	outcomes, err := t.outcomesOf(ctx, client, x)
	if err != nil {
		return err
	}
	p.outcomes(x, outcomes)
	return t.events(ctx, client, p, about...)
}

// outcomes writes those of a job, failed ones first.
func (p *page) outcomes(x target, list []*api.Outcome) {
	slices.SortStableFunc(list, func(a, b *api.Outcome) int {
		return cmp.Compare(outcomeRank(a), outcomeRank(b))
	})
	var rows [][]string
	for _, o := range list[:min(len(list), outcomesShownMax)] {
		rows = append(rows, []string{strconv.Itoa(o.Index), outcomeWord(o), strconv.Itoa(tries(o)), orDash(o.Node), outcomeExit(o), age(p.now, o.Exit.FinishedAt), orDash(outcomeWhy(o))})
	}
	p.table("Outcomes", rows, "INDEX", "RESULT", "TRIES", "NODE", "EXIT", "FINISHED", "WHY")
	p.more(len(list)-len(rows), fmt.Sprintf("; `orchctl get outcomes --job %s -n %s` lists them", x.name, x.namespace))
}

func outcomeRank(x *api.Outcome) int {
	if x.Succeeded {
		return 1
	}
	return 0
}

// more tells how many rows a table has no room for.
func (p *page) more(n int, where string) {
	if n > 0 {
		fmt.Fprintf(&p.b, "  and %d more%s\n", n, where)
	}
}

func (t *tool) describeOutcome(ctx context.Context, client orchv1.OrchClient, p *page, x *api.Outcome) error {
	p.field(0, "Name", "%s", x.Metadata.Name)
	p.field(0, "Namespace", "%s", x.Metadata.Namespace)
	p.field(0, "Job", "%s, index %d", x.Job, x.Index)
	p.field(0, "Result", "%s", outcomeWord(x))
	p.field(0, "Tries", "%d, %d of them failed", tries(x), x.Failures)
	p.field(0, "Last try", "%s-%d@%d on %s", x.Job, x.Index, x.Epoch, orDash(x.Node))
	if !x.StartedAt.IsZero() {
		p.field(0, "Started", "%s", p.when(x.StartedAt))
	}
	if !x.Exit.FinishedAt.IsZero() {
		p.field(0, "Finished", "%s", p.when(x.Exit.FinishedAt))
	}
	p.field(0, "Container", "%s", x.Container)
	p.field(0, "Exit", "%s", exitText(&x.Exit))
	p.list(0, "Last output", strings.Split(strings.TrimRight(x.Exit.Output, "\n"), "\n"))
	return t.events(ctx, client, p, target{api.KindReplica, x.Metadata.Namespace, fmt.Sprintf("%s-%d", x.Job, x.Index)}.ref())
}

// outcomesOf gets those of a job, in the order of its indexes.
func (t *tool) outcomesOf(ctx context.Context, client orchv1.OrchClient, x target) ([]*api.Outcome, error) {
	found, _, err := t.fetch(ctx, client, listing{about: x.ref()}, []target{{api.KindOutcome, x.namespace, ""}})
	if err != nil {
		return nil, err
	}
	var out []*api.Outcome
	for _, o := range found {
		if v, ok := o.value.(*api.Outcome); ok {
			out = append(out, v)
		}
	}
	return out, nil
}

// replicasOf gets those of a service or a job, by slot.
func (t *tool) replicasOf(ctx context.Context, client orchv1.OrchClient, key api.Key) ([]*api.Replica, error) {
	found, _, err := t.fetch(ctx, client, listing{}, []target{{api.KindReplica, key.Namespace, ""}})
	if err != nil {
		return nil, err
	}
	var out []*api.Replica
	for _, o := range found {
		if r, ok := o.value.(*api.Replica); ok && r.Spec.Service == key.Name {
			out = append(out, r)
		}
	}
	return out, nil
}
