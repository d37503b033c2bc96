package orchctl

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

func endpointCell(f func(*api.Endpoint) string) func(object, time.Time) string {
	return func(o object, _ time.Time) string { return f(o.value.(*api.Endpoint)) }
}

var endpointColumns = []column{
	{title: "NAME", cell: endpointCell(func(e *api.Endpoint) string { return e.Status.Replica })},
	{title: "SERVICE", cell: endpointCell(func(e *api.Endpoint) string { return e.Status.Service })},
	{title: "ENDPOINTS", cell: endpointCell(endpointText)},
	{title: "NODE", cell: endpointCell(func(e *api.Endpoint) string { return orDash(e.Status.Node) })},
	{title: "STATUS", cell: endpointCell(endpointWord)},
	{title: "PUBLISHED", wide: true, cell: endpointCell(func(e *api.Endpoint) string { return orDash(publishedText(e.Status.Ports)) })},
	{title: "VERDICT", wide: true, cell: endpointCell(func(e *api.Endpoint) string { return orDash(string(e.Status.Verdict)) })},
	{title: "EPOCH", wide: true, cell: endpointCell(func(e *api.Endpoint) string { return epochText(e.Status.Epoch) })},
}

// slotOf gives the number in "web-0"; 0 where a newer controller names otherwise.
func slotOf(e *api.Endpoint) int {
	n, _ := strconv.Atoi(strings.TrimPrefix(e.Status.Replica, e.Status.Service+"-"))
	return n
}

// endpointText gives "10.64.1.2:8080,10.64.1.2:53/UDP". Of one that is only kept the
// leader may not know the address: agents do.
func endpointText(e *api.Endpoint) string {
	if e.Status.IP == "" {
		return "-"
	}
	var out []string
	for _, p := range e.Status.Ports {
		text := net.JoinHostPort(e.Status.IP, strconv.Itoa(p.Port))
		if p.Transport() != api.TCP {
			text += "/" + string(p.Transport())
		}
		out = append(out, text)
	}
	if len(out) == 0 {
		return e.Status.IP
	}
	return strings.Join(out, ",")
}

// endpointWord says how sure it is that the endpoint works.
func endpointWord(e *api.Endpoint) string {
	switch {
	case e.Status.Degraded:
		return "Degraded"
	case e.Status.Kept:
		return "Ready (last known)"
	}
	return "Ready"
}

// publishedText gives "8080/TCP,9090/TCP (host)".
func publishedText(ports []api.Port) string {
	var out []string
	for _, p := range ports {
		if p.Publish == 0 {
			continue
		}
		text := fmt.Sprintf("%d/%s", p.Publish, p.Transport())
		if p.Mode == api.PublishHost {
			text += " (host)"
		}
		out = append(out, text)
	}
	return strings.Join(out, ",")
}

// vipText is a service's virtual IP, None where it is to have none.
func vipText(s *api.Service) string {
	if s.Spec.Headless {
		return "None"
	}
	return orDash(s.Status.VIP)
}

// servicePorts gives all ports of a service's containers.
func servicePorts(s *api.Service) []api.Port {
	var out []api.Port
	for _, c := range s.Spec.LongRunning() {
		out = append(out, c.Ports...)
	}
	return out
}

// portsText gives "8080/TCP,80:8080/TCP": the port of each replica and of the
// virtual IP, and behind a colon that of the nodes.
func portsText(s *api.Service) string {
	var out []string
	for _, p := range servicePorts(s) {
		text := strconv.Itoa(p.Port)
		if p.Publish != 0 {
			text += ":" + strconv.Itoa(p.Publish)
		}
		text += "/" + string(p.Transport())
		if !slices.Contains(out, text) {
			out = append(out, text)
		}
	}
	return orDash(strings.Join(out, ","))
}

// endpoints gets those of a service, or of a replica. That there is neither is an
// error; that it gets no traffic is none.
func (t *tool) endpoints(ctx context.Context, client orchv1.OrchClient, x target) ([]object, error) {
	about, err := t.endpointsAbout(ctx, client, x)
	if err != nil {
		return nil, err
	}
	answer, err := read(ctx, t, "get endpoints of "+about.String(), viewer, func(ctx context.Context) (*orchv1.ListResponse, error) {
		return client.List(ctx, &orchv1.ListRequest{Kind: api.KindEndpoint, Namespace: about.namespace, About: about.ref()})
	})
	if err != nil {
		return nil, err
	}
	if at := answer.GetStaleSince(); at != nil {
		t.warnf("no leader answers: what gets traffic was last known %s ago", age(t.Now(), at.AsTime()))
	}
	list, err := decodeAll(answer.GetObjects())
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(list, compareObjects)
	if len(list) == 0 {
		t.warnf("%s has no endpoints: nothing of it gets traffic; `orchctl describe %s %s -n %s` tells why", about, word(about.kind), about.name, about.namespace)
	}
	return list, nil
}

// endpointsAbout says what is meant by an endpoint's name: a service, or a replica
// where no service has that name.
func (t *tool) endpointsAbout(ctx context.Context, client orchv1.OrchClient, x target) (target, error) {
	exists := func(y target) error {
		_, err := read(ctx, t, "get endpoints of "+y.String(), viewer, func(ctx context.Context) (*orchv1.Object, error) {
			return client.Get(ctx, &orchv1.GetRequest{Ref: y.ref()})
		})
		return err
	}
	s, r := target{api.KindService, x.namespace, x.name}, target{api.KindReplica, x.namespace, x.name}
	if strings.Contains(x.name, "@") {
		return r, exists(r)
	}
	err := exists(s)
	// A replica's name ends in its slot; anything else would be a beginning of one.
	if at := strings.LastIndexByte(x.name, '-'); notFound(err) && at >= 0 {
		if _, bad := strconv.Atoi(x.name[at+1:]); bad == nil && exists(r) == nil {
			return r, nil
		}
	}
	return s, err
}
