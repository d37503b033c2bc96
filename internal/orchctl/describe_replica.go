package orchctl

import (
	"context"
	"fmt"
	"strings"

	"github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

func (t *tool) describeReplica(ctx context.Context, client orchv1.OrchClient, p *page, r *api.Replica) error {
	st := r.Status
	p.field(0, "In short", "%s", replicaInShort(r, p.now))
	var nodes []*orchv1.NodeFit
	if st.Phase.Before(api.PhaseStopping) {
		var err error
		if nodes, err = t.fitnessOf(ctx, client, r); err != nil {
			return err
		}
	}
	if st.Phase == api.PhasePending {
		p.pending(nodes)
	}
	p.metadata(r.Metadata)
	if r.Spec.Job {
		p.field(0, "Job", "%s, index %d, epoch %s", r.Spec.Service, r.Spec.Slot, epochText(r.Spec.Epoch))
	} else {
		p.field(0, "Service", "%s, slot %d, epoch %s, revision %d", r.Spec.Service, r.Spec.Slot, epochText(r.Spec.Epoch), r.Spec.Revision)
	}
	p.field(0, "Node", "%s", orDash(r.Spec.Node))
	p.field(2, "Placed", "%s", r.Spec.Why)
	p.field(2, "Chosen", "%s", r.Spec.Chosen)
	if err := t.nodeTrouble(ctx, client, p, r.Spec.Node); err != nil {
		return err
	}
	p.field(0, "IP", "%s", st.IP)
	p.field(0, "Status", "%s", replicaWord(r))
	if st.Ready {
		p.field(0, "Ready", "yes")
	} else {
		p.field(0, "Ready", "no")
	}
	p.field(0, "Reason", "%s", st.Reason)
	p.field(0, "Message", "%s", st.Message)
	if !st.StartedAt.IsZero() {
		p.field(0, "Started", "%s", p.when(st.StartedAt))
	}
	p.field(0, "Restarts", "%d", st.Restarts)
	template, configs, err := t.templateOf(ctx, client, r)
	if err != nil {
		return err
	}
	p.list(0, "Values from", pins(configs))
	if err := t.slotVolumes(ctx, client, p, r); err != nil {
		return err
	}
	p.statuses(st.Containers, template)
	if st.Phase != api.PhasePending && len(nodes) > 0 {
		p.fits("Nodes that would take it, were it placed now", nodes, r.Spec.Node)
	}
	return t.events(ctx, client, p, target{api.KindReplica, r.Metadata.Namespace, r.Metadata.Name}.ref())
}

// fitnessOf asks how nodes take this replica. One whose service is gone has no answer, nor
// has one of a controller that cannot be asked now: the rest is told all the same.
func (t *tool) fitnessOf(ctx context.Context, client orchv1.OrchClient, r *api.Replica) ([]*orchv1.NodeFit, error) {
	name := r.Metadata.Name
	if r.Spec.Epoch != 0 {
		name = fmt.Sprintf("%s@%d", name, r.Spec.Epoch)
	}
	nodes, err := t.fitness(ctx, client, r.Metadata.Namespace, r.Spec.Service, name)
	switch {
	case notFound(err):
		return nil, nil
	case err != nil && transient(unwrapCall(err)):
		t.warnf("no leader answers: why nodes take or refuse it is not known now")
		return nil, nil
	}
	return nodes, err
}

// nodeTrouble tells what is held of a node that is not well, and on what evidence.
func (t *tool) nodeTrouble(ctx context.Context, client orchv1.OrchClient, p *page, node string) error {
	if node == "" {
		return nil
	}
	found, missing, err := t.fetch(ctx, client, listing{}, []target{{kind: api.KindNode, name: node}})
	if err != nil {
		return err
	}
	if missing != nil {
		p.field(2, "Verdict", "it is no node of the fleet any more")
		return nil
	}
	n := found[0].value.(*api.Node)
	word := nodeWord(n)
	if word == nodeReady {
		return nil
	}
	if !n.Status.VerdictSince.IsZero() && n.Status.Verdict != api.VerdictHealthy {
		word += " for " + age(p.now, n.Status.VerdictSince)
	}
	p.field(2, "Verdict", "%s%s", word, colon(nodeWhy(n)))
	if n.Status.Verdict == api.VerdictHealthy {
		return nil
	}
	about := target{kind: api.KindNode, name: node}
	records, _, err := t.fetch(ctx, client, listing{about: about.ref()}, []target{{kind: api.KindVerdict}})
	if err != nil || len(records) == 0 {
		if unknownKind(err) {
			err = nil
		}
		return err
	}
	if last, ok := records[len(records)-1].value.(*api.VerdictRecord); ok {
		p.list(2, "Evidence", last.Evidence)
	}
	return nil
}

// templateOf gives what the replica consists of, as its revision declares it, and the
// versions of Configs that it takes; nil where that is not kept any more.
func (t *tool) templateOf(ctx context.Context, client orchv1.OrchClient, r *api.Replica) (*api.Template, map[api.ConfigRef]int64, error) {
	kind := api.KindService
	if r.Spec.Job {
		kind = api.KindJob
	}
	found, missing, err := t.fetch(ctx, client, listing{}, []target{{kind, r.Metadata.Namespace, r.Spec.Service}})
	if err != nil || missing != nil { // a deleted service's replicas outlive it
		return nil, nil, err
	}
	var now *api.Template
	switch v := found[0].value.(type) {
	case *api.Job:
		return &v.Spec.Template, nil, nil // it has one revision, which is not asked for
	case *api.Service:
		if v.Status.Revision == r.Spec.Revision {
			now = &v.Spec.Template
		}
	}
	if now != nil && len(now.ConfigRefs()) == 0 {
		return now, nil, nil
	}
	old, err := t.revision(ctx, client, api.Key{Namespace: r.Metadata.Namespace, Name: r.Spec.Service}, r.Spec.Revision)
	if notFound(err) {
		return now, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	return &old.Template, old.Configs, nil
}

// statuses writes what each container does, and how it is declared: in the order in
// which they start, and what the template does not know at the end.
func (p *page) statuses(list []api.ContainerStatus, template *api.Template) {
	if template == nil {
		template = &api.Template{}
	}
	states, declared := map[string]api.ContainerStatus{}, map[string]bool{}
	for _, c := range list {
		states[c.Name] = c
	}
	write := func(title string, list []api.Container) {
		if len(list) == 0 {
			return
		}
		p.title(0, title)
		for _, c := range list {
			declared[c.Name] = true
			p.title(2, c.Name)
			if x, ok := states[c.Name]; ok {
				p.status(x, c)
			}
			p.container(c)
		}
	}
	write("Init Containers", template.InitContainers)
	write("Sidecars", template.Sidecars)
	write("Containers", template.Containers)
	if len(declared) == 0 {
		p.title(0, "Containers")
	}
	for _, c := range list {
		if !declared[c.Name] {
			p.title(2, c.Name)
			p.status(c, api.Container{})
		}
	}
}

func (p *page) status(c api.ContainerStatus, declared api.Container) {
	state := string(c.State)
	switch x := c.LastExit; {
	case c.Reason != "":
		state += " (" + c.Reason + ")"
	case c.State == api.ContainerExited && x != nil && x.Signal == 0:
		state += fmt.Sprintf(" (exit code %d)", x.Code)
	}
	p.field(4, "State", "%s", state)
	p.field(4, "Message", "%s", c.Message)
	if c.State == api.ContainerRunning {
		ready := "no"
		if c.Ready {
			ready = "yes"
		}
		p.field(4, "Ready", "%s", ready)
		if !c.StartedAt.IsZero() {
			p.field(4, "Started", "%s", p.when(c.StartedAt))
		}
	}
	p.field(4, "Restarts", "%d", c.Restarts)
	if x := c.LastExit; x != nil {
		text := exitText(x)
		if limit, ok := declared.Resources.Limits[api.Memory]; ok && x.OOM && !strings.Contains(text, "limit") {
			text += fmt.Sprintf("; its memory limit is %s", limit)
		}
		if !x.FinishedAt.IsZero() {
			text += ", " + age(p.now, x.FinishedAt) + " ago"
		}
		p.field(4, "Last exit", "%s", text)
		p.list(4, "Last output", strings.Split(strings.TrimRight(x.Output, "\n"), "\n"))
	}
	p.field(4, "Image ID", "%s", c.ImageID)
	p.field(4, "Container ID", "%s", c.ID)
}
