package orchctl

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

func (t *tool) describeService(ctx context.Context, client orchv1.OrchClient, p *page, s *api.Service) error {
	st := s.Status
	p.field(0, "In short", "%s", serviceInShort(s))
	p.metadata(s.Metadata)
	p.field(0, "Revision", "%d", st.Revision)
	if s.Spec.Mode == api.ModeGlobal {
		p.field(0, "Mode", "global: a replica on every node that is fit")
	}
	p.field(0, "Replicas", "%d wanted, %d ready; %d up to date, %d in all", wanted(s), st.Ready, st.Updated, st.Replicas)
	p.list(0, "Reasons", st.Reasons)
	if s.Spec.Priority != 0 {
		p.field(0, "Priority", "%d", s.Spec.Priority)
	}
	p.rollout(s)
	p.reach(s)
	revisions, err := t.revisions(ctx, client, target{api.KindService, s.Metadata.Namespace, s.Metadata.Name})
	if err != nil {
		return err
	}
	if i := slices.IndexFunc(revisions, func(r *api.Revision) bool { return r.Number == st.Revision }); i >= 0 {
		p.list(0, "Values from", pins(revisions[i].Configs))
	}
	p.template(s.Spec.Template)
	replicas, err := t.replicasOf(ctx, client, s.Metadata.Key())
	if err != nil {
		return err
	}
	about := []*orchv1.Ref{{Kind: api.KindService, Namespace: s.Metadata.Namespace, Name: s.Metadata.Name}}
	pending, rows, degraded := "", [][]string{}, []string(nil)
	for _, r := range replicas {
		if r.Status.Degraded {
			degraded = append(degraded, r.Metadata.Name+" on "+r.Spec.Node)
		}
		if r.Status.Phase == api.PhasePending && pending == "" {
			pending = r.Metadata.Name
		}
		if !r.Status.Ready && len(about) <= replicasAskedMax {
			about = append(about, target{api.KindReplica, r.Metadata.Namespace, r.Metadata.Name}.ref())
		}
		rows = append(rows, []string{r.Metadata.Name, replicaReady(r), replicaWord(r), strconv.FormatInt(r.Spec.Revision, 10), orDash(r.Spec.Node), orDash(r.Status.IP),
			strconv.Itoa(r.Status.Restarts), orDash(replicaReason(r))})
	}
	if len(degraded) > 0 {
		p.field(0, "Degraded", "%s: out of reach, but traffic has nowhere better to go", strings.Join(degraded, ", "))
	}
	p.table("Replicas", rows, "NAME", "READY", "STATUS", "REVISION", "NODE", "IP", "RESTARTS", "REASON")
	if err := t.serviceVolumes(ctx, client, p, s); err != nil {
		return err
	}
	if err := t.endpointsOf(ctx, client, p, s); err != nil {
		return err
	}
	if err := t.pendingOf(ctx, client, p, s.Metadata.Key(), pending); err != nil {
		return err
	}
	if len(revisions) > 0 {
		titles, rows := revisionRows(revisions[:min(len(revisions), revisionsShown)], revisions, false, p.now)
		p.table("Revisions", rows, titles...)
	}
	return t.events(ctx, client, p, about...)
}

// template writes what each replica consists of.
func (p *page) template(x api.Template) {
	p.list(0, "Node selector", pairs(x.NodeSelector))
	if len(x.Constraints) > 0 {
		p.field(0, "Constraints", "%s", api.Selector(x.Constraints))
	}
	if c := x.RestartPolicy.Condition; c != "" {
		p.field(0, "Restarts", "%s, %s to %s apart", c, short(x.RestartPolicy.BackOff.Or(api.DefaultBackOff)), short(x.RestartPolicy.MaxBackOff.Or(api.DefaultMaxBackOff)))
	}
	if x.HostNetwork {
		p.field(0, "Network", "the node's own: each port is a port of the node")
	}
	p.field(0, "Stop", "%s, SIGKILL after %s", stopSignals(x), short(x.TerminationGracePeriod.Or(api.DefaultGrace)))
	p.list(0, "Sysctls", pairs(x.Sysctls))
	p.partition(x)
	for _, group := range []struct {
		title string
		list  []api.Container
	}{{"Init containers, one after the other", x.InitContainers}, {"Sidecars, started before and stopped after the containers", x.Sidecars}, {"Containers", x.Containers}} {
		if len(group.list) == 0 && group.title != "Containers" {
			continue
		}
		p.title(0, group.title)
		for _, c := range group.list {
			p.title(2, c.Name)
			p.container(c)
		}
	}
}

// partition tells what becomes of replicas whose node is cut off.
func (p *page) partition(x api.Template) {
	if x.Exclusive {
		p.field(0, "Exclusive", "yes: no slot ever has two running replicas")
	}
	if !x.Leased() {
		return
	}
	lease, grace := x.Lease(), x.TerminationGracePeriod.Or(api.DefaultGrace)
	kill := lease - api.LeaseDrift(lease) - api.LeaseKill
	p.field(0, "On partition", "stop: SIGTERM %s after the last renewal of its lease, killed %s after it", short(kill-grace), short(kill))
	then := "when it has ended, the replica has surely stopped"
	if x.Exclusive {
		then = fmt.Sprintf("its slot is filled again %s after the last renewal", short(lease+api.LeaseDrift(lease)))
	}
	p.field(0, "Lease", "%s; %s", short(lease), then)
}

func (p *page) container(c api.Container) {
	p.field(4, "Image", "%s", c.Image)
	p.field(4, "Command", "%s", quoted(c.Command))
	p.field(4, "Args", "%s", quoted(c.Args))
	if c.Stdin {
		p.field(4, "Input", "its command begins when somebody attaches, as with `orchctl attach`")
	}
	p.field(4, "Directory", "%s", c.WorkingDir)
	var ports []string
	for _, x := range c.Ports {
		line := fmt.Sprintf("%d/%s", x.Port, x.Transport())
		if x.Name != "" {
			line += " " + x.Name
		}
		switch {
		case x.Publish != 0 && x.Mode == api.PublishHost:
			line += fmt.Sprintf(", on its node as %d", x.Publish)
		case x.Publish != 0:
			line += fmt.Sprintf(", on every node as %d", x.Publish)
		}
		ports = append(ports, line)
	}
	p.list(4, "Environment", environment(c))
	p.list(4, "Ports", ports)
	p.field(4, "Requests", "%s", amounts(c.Resources.Requests))
	p.field(4, "Limits", "%s", amounts(c.Resources.Limits))
	p.field(4, "Started if", "%s", probeText(c.StartupProbe))
	p.field(4, "Ready if", "%s", probeText(c.ReadinessProbe))
	p.field(4, "Alive if", "%s", probeText(c.LivenessProbe))
	p.setting(c)
}

func quoted(words []string) string {
	var out []string
	for _, w := range words {
		if w == "" || strings.ContainsAny(w, " \t\n\"'") {
			w = strconv.Quote(w)
		}
		out = append(out, w)
	}
	return strings.Join(out, " ")
}

func amounts(list api.ResourceList) string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(list)) {
		out = append(out, name+" "+list[name].String())
	}
	return strings.Join(out, ", ")
}

func probeText(x *api.Probe) string {
	if x == nil {
		return ""
	}
	how := ""
	switch {
	case x.HTTP != nil:
		how = fmt.Sprintf("GET %s on port %s answers", x.HTTP.Path, x.HTTP.Port)
	case x.TCP != nil:
		how = fmt.Sprintf("port %s accepts", x.TCP.Port)
	case x.GRPC != nil && x.GRPC.Service != "":
		how = fmt.Sprintf("gRPC health of %s on port %s is SERVING", x.GRPC.Service, x.GRPC.Port)
	case x.GRPC != nil:
		how = fmt.Sprintf("gRPC health on port %s is SERVING", x.GRPC.Port)
	case x.Exec != nil:
		how = quoted(x.Exec.Command) + " exits 0"
	}
	every := "100ms until it does, then every 5s"
	if x.Interval != nil {
		every = "every " + x.Interval.String()
	}
	how += fmt.Sprintf(" within %s; %s", short(x.Timeout.Or(api.DefaultProbeTimeout)), every)
	if x.InitialDelay != nil && *x.InitialDelay > 0 {
		how += fmt.Sprintf(", from %s on", x.InitialDelay)
	}
	return how + fmt.Sprintf("; not after %d failures", max(1, x.FailureThreshold))
}

// pendingOf tells what keeps one of a service's replicas from having a node; those beside
// it mostly want for the same.
func (t *tool) pendingOf(ctx context.Context, client orchv1.OrchClient, p *page, of api.Key, name string) error {
	if name == "" {
		return nil
	}
	nodes, err := t.fitness(ctx, client, of.Namespace, of.Name, name)
	if err != nil {
		return err
	}
	p.field(0, "Pending", "%s", name)
	p.pending(nodes)
	return nil
}

// refusesMax is of how many services with pending replicas a node's description tells
// whether it refuses them.
const refusesMax = 5

// refused tells which replicas that have no node this one refuses, and why.
func (t *tool) refused(ctx context.Context, client orchv1.OrchClient, p *page, node string, replicas []object) error {
	var lines []string
	asked := map[api.Key]bool{}
	for _, o := range replicas {
		r := o.value.(*api.Replica)
		key := api.Key{Namespace: r.Metadata.Namespace, Name: r.Spec.Service}
		if r.Status.Phase != api.PhasePending || asked[key] || len(asked) == refusesMax {
			continue
		}
		asked[key] = true
		nodes, err := t.fitness(ctx, client, key.Namespace, key.Name, r.Metadata.Name)
		if notFound(err) {
			continue
		}
		if err != nil {
			return err
		}
		for _, n := range nodes {
			if n.GetNode() == node && !n.GetFit() {
				lines = append(lines, fmt.Sprintf("%s/%s: it %s", r.Metadata.Namespace, r.Metadata.Name, predicate(n.GetWhy(), 1)))
			}
		}
	}
	p.list(0, "Refuses", lines)
	return nil
}

func (t *tool) describeNode(ctx context.Context, client orchv1.OrchClient, p *page, n *api.Node) error {
	st := n.Status
	p.field(0, "In short", "%s", nodeInShort(n, p.now))
	p.metadata(n.Metadata)
	p.field(0, "Status", "%s", nodeWord(n))
	if !st.VerdictSince.IsZero() {
		p.field(0, "Since", "%s", p.when(st.VerdictSince))
	}
	p.field(0, "Why", "%s", st.VerdictWhy)
	if st.Impaired != "" {
		p.field(0, "Impaired", "%s", st.Impaired)
		if !st.ImpairedSince.IsZero() {
			p.field(2, "Since", "%s", p.when(st.ImpairedSince))
		}
	}
	if until := st.DampedUntil; !until.IsZero() {
		p.field(0, "Damped", "until %s (for %s more): it went and came back too often, and gets nothing new", until.UTC().Format(time.RFC3339), short(max(0, until.Sub(p.now))))
	}
	p.drain(n)
	p.field(0, "Address", "%s", st.Address)
	switch {
	case st.Subnet != "":
		p.field(0, "Subnet", "%s", st.Subnet)
	case st.NetworkWhy != "":
		p.field(0, "Subnet", "none: %s", st.NetworkWhy)
	}
	p.field(0, "Version", "%s", st.Version)
	p.field(0, "OS", "%s", st.OS)
	p.field(0, "Kernel", "%s", st.Kernel)
	p.field(0, "Runtime", "%s", st.Runtime)
	p.field(0, "Boot ID", "%s", st.BootID)
	p.list(0, "Orphans", st.Orphans)
	var resources [][]string
	for _, name := range slices.Sorted(maps.Keys(st.Capacity)) {
		text := api.Quantity.String
		switch name {
		case api.CPU:
			text = cores
		case api.Memory:
			text = bytesText
		}
		resources = append(resources, []string{name, text(st.Requested[name]), text(st.Capacity[name])})
	}
	p.table("Resources", resources, "NAME", "REQUESTED", "CAPACITY")
	replicas, _, err := t.fetch(ctx, client, listing{all: true}, []target{{api.KindReplica, "", ""}})
	if err != nil {
		return err
	}
	var rows [][]string
	for _, o := range replicas {
		if r := o.value.(*api.Replica); r.Spec.Node == n.Metadata.Name {
			rows = append(rows, []string{r.Metadata.Namespace, r.Metadata.Name, replicaReady(r), replicaWord(r), strconv.Itoa(r.Status.Restarts), age(p.now, r.Metadata.CreatedAt)})
		}
	}
	p.table("Replicas", rows, "NAMESPACE", "NAME", "READY", "STATUS", "RESTARTS", "AGE")
	if err := t.refused(ctx, client, p, n.Metadata.Name, replicas); err != nil {
		return err
	}
	if err := t.verdicts(ctx, client, p, n.Metadata.Name); err != nil {
		return err
	}
	return t.events(ctx, client, p, target{kind: api.KindNode, name: n.Metadata.Name}.ref())
}
