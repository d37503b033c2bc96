package api

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/controller/session"
	"github.com/orchctl/orch/internal/controller/view"
	"github.com/orchctl/orch/internal/wire"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// forwardTries is how many ready replicas of a service are tried for one
// connection: a node that went may be shown ready for half a second.
const forwardTries = 3

// PortForward implements orch.v1.Orch: one TCP connection between the user and a
// replica's port, by way of the replica's agent.
func (s *Server) PortForward(st orchv1.Orch_PortForwardServer) error {
	first, err := st.Recv()
	if err != nil {
		return statusOf(err)
	}
	want := first.GetPortForward()
	if want == nil {
		return invalid("the first frame of a port-forward is its request")
	}
	snap, err := s.snapshot()
	if err != nil {
		return err
	}
	replicas, err := forwardable(snap, want)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(st.Context())
	defer cancel() // ends the relay
	x, r, err := s.openForward(ctx, snap, replicas, want.GetPort())
	if err != nil {
		return statusOf(err)
	}
	defer r.Close()
	s.cfg.Log.Info("port-forward", "replica", keyOfReplica(x).String(), "port", want.GetPort(), "by", callerName(ctx))
	// It may stay in a Recv until this has returned and the stream's context ends.
	go upstream(st, r)
	return downstream(st, r, x.Spec.Node, "port-forward")
}

// openForward reaches the first of the replicas whose node answers.
func (s *Server) openForward(ctx context.Context, snap *view.Snapshot, replicas []*api.Replica, port string) (*api.Replica, relay, error) {
	var away error
	for _, x := range replicas[:min(forwardTries, len(replicas))] {
		number, err := portNumber(snap, x, port)
		if err != nil {
			return nil, nil, err
		}
		r, err := s.open(ctx, x.Spec.Node, &orchv1.OpenRelay{Request: &orchv1.OpenRelay_PortForward{
			PortForward: &orchv1.PortForwardOpen{Replica: wire.KeyToPB(keyOfReplica(x)), Port: number}}})
		if !errors.Is(err, session.ErrAway) {
			return x, r, err
		}
		away = err
	}
	return nil, nil, away
}

// forwardable gives the replicas that a request may lead to, in the order in which
// they are tried. Of a service they are the ready ones, always in the same order:
// connections of one forward meet the same replica as long as it is ready.
func forwardable(snap *view.Snapshot, r *orchv1.PortForwardRequest) ([]*api.Replica, error) {
	if (r.GetReplica() == "") == (r.GetService() == "") {
		return nil, invalid("port-forward: want a replica or a service, one of them")
	}
	if r.GetReplica() != "" {
		x, err := resolve(snap, r.GetNamespace(), r.GetReplica())
		if err != nil {
			return nil, err
		}
		if x.Spec.Node == "" || x.Status.Phase.Ended() {
			return nil, status.Error(codes.FailedPrecondition, fmt.Sprintf("replica %s does not run: %s %s", x.Metadata.Name, x.Status.Phase, x.Status.Message))
		}
		return []*api.Replica{x}, nil
	}
	key := keyOf(r.GetNamespace(), r.GetService())
	if _, ok := snap.Get(core.ViewKey{Kind: api.KindService, Namespace: key.Namespace, Name: key.Name}); !ok {
		return nil, notFound("service %s: not found", key)
	}
	var list []*api.Replica
	all := 0
	snap.All(api.KindReplica, key.Namespace, func(e core.Entry) bool {
		x := e.Object.(*api.Replica)
		if x.Spec.Service != key.Name {
			return true
		}
		if all++; x.Status.Ready && x.Spec.Node != "" {
			list = append(list, x)
		}
		return true
	})
	if len(list) == 0 {
		return nil, status.Error(codes.FailedPrecondition, fmt.Sprintf("service %s has no ready replica, of %d: a connection to one that is not ready needs its name, such as replica/%s-0", key, all, key.Name))
	}
	return list, nil
}

// portNumber reads the port that a user means: a number, declared or not, or the
// name of a declared one.
func portNumber(snap *view.Snapshot, x *api.Replica, text string) (uint32, error) {
	ports := portsOf(snap, x)
	if n, err := strconv.ParseUint(text, 10, 32); err == nil {
		has := func(p api.Protocol) bool {
			return slices.ContainsFunc(ports, func(q api.Port) bool { return q.Port == int(n) && q.Transport() == p })
		}
		switch {
		case n < 1 || n > 65535:
			return 0, invalid("port %s: want 1 to 65535", text)
		case has(api.UDP) && !has(api.TCP):
			return 0, invalid("port %s of replica %s is UDP: only TCP can be forwarded", text, x.Metadata.Name)
		}
		return uint32(n), nil
	}
	var names string
	for _, p := range ports {
		switch {
		case p.Name == text && text != "" && p.Transport() == api.UDP:
			return 0, invalid("port %s of replica %s is UDP: only TCP can be forwarded", text, x.Metadata.Name)
		case p.Name == text && text != "":
			return uint32(p.Port), nil
		case p.Name != "":
			names += ", " + p.Name
		}
	}
	if names == "" {
		names = ", none of its ports has a name"
	}
	return 0, invalid("port %.80q of replica %s: want a number or a name (%s)", text, x.Metadata.Name, names[2:])
}

// portsOf gives the ports that a replica declares: those of its endpoint, which
// are its revision's, else those of its service.
func portsOf(snap *view.Snapshot, x *api.Replica) []api.Port {
	key := keyOfReplica(x)
	if e, ok := snap.Get(core.ViewKey{Kind: api.KindEndpoint, Namespace: key.Namespace, Name: nameOfReplica(key)}); ok {
		return e.(*api.Endpoint).Status.Ports
	}
	s, ok := snap.Get(core.ViewKey{Kind: api.KindService, Namespace: key.Namespace, Name: key.Service})
	if !ok {
		return nil
	}
	var ports []api.Port
	for _, c := range s.(*api.Service).Spec.Containers {
		ports = append(ports, c.Ports...)
	}
	return ports
}
