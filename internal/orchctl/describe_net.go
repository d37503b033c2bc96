package orchctl

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/network"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// reach tells by which addresses and names clients come to a service.
func (p *page) reach(s *api.Service) {
	switch {
	case s.Spec.Headless:
		p.field(0, "Virtual IP", "none (headless): its name leads to its ready replicas")
	case s.Status.VIP != "":
		p.field(0, "Virtual IP", "%s", s.Status.VIP)
	default:
		p.field(0, "Virtual IP", "none yet")
	}
	full := fmt.Sprintf("%s.%s.%s", s.Metadata.Name, s.Metadata.Namespace, network.Domain)
	names := []string{
		fmt.Sprintf("%s; from replicas also %s.%s, and %s in the same namespace", full, s.Metadata.Name, s.Metadata.Namespace, s.Metadata.Name),
		fmt.Sprintf("%s-0.%s leads to one replica", s.Metadata.Name, full),
	}
	for _, x := range servicePorts(s) {
		if x.Name != "" {
			names = append(names, fmt.Sprintf("_%s._%s.%s (SRV)", x.Name, map[bool]string{true: "udp", false: "tcp"}[x.Transport() == api.UDP], full))
		}
	}
	p.list(0, "Names", names)
	p.list(0, "Ports", reachable(s))
	switch s.Spec.SessionAffinity {
	case "":
	case api.AffinityClientIP:
		p.field(0, "Affinity", "a client's address keeps its replica, until %s after its last new connection", short(api.AffinityTimeout))
	default:
		p.field(0, "Affinity", "%s", s.Spec.SessionAffinity)
	}
	switch s.Spec.TrafficDistribution {
	case "":
	case api.PreferSameNode:
		p.field(0, "Distribution", "replicas on the client's own node first")
	default:
		p.field(0, "Distribution", "%s", s.Spec.TrafficDistribution)
	}
}

// reachable gives a line for each port: where clients find it.
func reachable(s *api.Service) []string {
	var out []string
	for _, x := range servicePorts(s) {
		line := fmt.Sprintf("%d/%s", x.Port, x.Transport())
		if x.Name != "" {
			line += " " + x.Name
		}
		switch {
		case !s.Spec.Headless && s.Status.VIP != "":
			line += " at " + net.JoinHostPort(s.Status.VIP, strconv.Itoa(x.Port))
		case s.Spec.HostNetwork:
			line += " at the addresses of the nodes that run a replica"
		default:
			line += " at each replica's address"
		}
		switch {
		case s.Spec.HostNetwork && x.Mode == api.PublishHost: // it is there already
		case x.Publish != 0 && x.Mode == api.PublishHost:
			line += fmt.Sprintf(", at port %d of the nodes that run a replica", x.Publish)
		case x.Publish != 0:
			line += fmt.Sprintf(", at port %d of every node", x.Publish)
		}
		out = append(out, line)
	}
	return out
}

// endpointsOf lists who gets a service's traffic, with what is held of their nodes.
func (t *tool) endpointsOf(ctx context.Context, client orchv1.OrchClient, p *page, s *api.Service) error {
	about := target{api.KindService, s.Metadata.Namespace, s.Metadata.Name}
	found, _, err := t.fetch(ctx, client, listing{about: about.ref()}, []target{{kind: api.KindEndpoint, namespace: s.Metadata.Namespace}})
	if unknownKind(err) {
		return nil
	}
	if err != nil {
		return err
	}
	var rows [][]string
	for _, o := range found {
		e := o.value.(*api.Endpoint)
		rows = append(rows, []string{e.Status.Replica, endpointText(e), orDash(e.Status.Node), orDash(string(e.Status.Verdict)), endpointWord(e)})
	}
	p.table("Endpoints", rows, "REPLICA", "ENDPOINTS", "NODE", "VERDICT", "STATUS")
	return nil
}

func (p *page) endpoint(e *api.Endpoint) {
	p.metadata(e.Metadata)
	p.field(0, "Service", "%s", e.Status.Service)
	p.field(0, "Replica", "%s, epoch %s", e.Status.Replica, epochText(e.Status.Epoch))
	p.field(0, "Node", "%s, %s", orDash(e.Status.Node), orDash(string(e.Status.Verdict)))
	p.field(0, "Endpoints", "%s", endpointText(e))
	p.field(0, "Published", "%s", publishedText(e.Status.Ports))
	p.field(0, "Status", "%s", endpointWord(e))
	switch {
	case e.Status.Degraded:
		p.field(0, "Why", "its node cannot be reached, but its service has nothing better")
	case e.Status.Kept:
		p.field(0, "Why", "its node has not reported to this leader yet")
	}
}

// drain tells that a node is being emptied, or was.
func (p *page) drain(n *api.Node) {
	d := n.Spec.Drain
	if d == nil {
		return
	}
	state := fmt.Sprintf("going on, %s left", count(n.Status.Replicas, "replica"))
	if !d.Done.IsZero() {
		state = "done, nothing is left since " + p.when(d.Done)
	}
	if d.By != "" {
		state += ", by " + d.By
	}
	p.field(0, "Drain", "%s; `orchctl uncordon %s` ends it", state, n.Metadata.Name)
	if !d.Since.IsZero() {
		p.field(2, "Since", "%s", p.when(d.Since))
	}
	p.list(2, "Waits", n.Status.DrainWaits)
	switch at := d.Deadline; {
	case at.IsZero() || !d.Done.IsZero():
	case d.Overdue:
		p.field(2, "Deadline", "%s, it has passed: what is left is stopped as far as each service's floor allows", p.when(at))
	default:
		p.field(2, "Deadline", "%s (in %s): then what is left is stopped", at.UTC().Format(time.RFC3339), short(max(0, at.Sub(p.now))))
	}
}
