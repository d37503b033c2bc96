package api

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/controller/identity"
	"github.com/orchctl/orch/internal/controller/view"
	"github.com/orchctl/orch/internal/pki"
)

// harmless are the capabilities that do not lead out of a container: those that every
// container has by default, and those that act on its own processes, its own network
// or its share of the node's time. With any other, or with seccomp unconfined, a
// container is on the way to its node: CAP_SYS_ADMIN mounts its disks,
// CAP_DAC_READ_SEARCH opens its files, CAP_SYS_TIME sets the clock that leases are
// measured by. What is not known to be harmless is not.
var harmless = []string{
	"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
	"AUDIT_WRITE", "IPC_LOCK", "IPC_OWNER", "NET_ADMIN", "NET_BROADCAST", "NET_RAW", "SYS_NICE", "SYS_PTRACE", "SYS_RESOURCE",
}

// ofNetwork are those of them that act on the network: with hostNetwork that is the
// node's, and everybody's on it.
var ofNetwork = []string{"NET_ADMIN", "NET_BROADCAST", "NET_RAW"}

// adminOnly gives the first container of a template that owns its node, or may come
// to, and the field that asks for it; empty: there is none. With a name only that one
// is looked at.
func adminOnly(t api.Template, named string) (container, field string) {
	for _, c := range t.AllContainers() {
		x := c.SecurityContext
		if x == nil || named != "" && c.Name != named {
			continue
		}
		if x.Privileged {
			return c.Name, "securityContext.privileged, which gives it the whole node"
		}
		for _, name := range x.Capabilities.Add {
			plain := strings.TrimPrefix(strings.ToUpper(name), "CAP_")
			switch {
			case !slices.Contains(harmless, plain):
				return c.Name, fmt.Sprintf("securityContext.capabilities %.40s, with which it can take over the node", name)
			case t.HostNetwork && slices.Contains(ofNetwork, plain):
				return c.Name, fmt.Sprintf("securityContext.capabilities %.40s with hostNetwork, which gives it the node's network", name)
			}
		}
		if x.Seccomp == api.SeccompUnconfined {
			return c.Name, "securityContext.seccomp unconfined, with which it can reach for the node"
		}
	}
	return "", ""
}

// mayApply refuses services and jobs that need an admin to anybody else.
func mayApply(ctx context.Context, objects []api.Object) error {
	for i, x := range objects {
		t := templateOf(x)
		if t == nil {
			continue
		}
		container, field := adminOnly(*t, "")
		if field == "" {
			continue
		}
		if err := needAdmin(ctx, fmt.Sprintf("apply %s: objects[%d]: container %s asks for %s", refTo(x), i, container, field)); err != nil {
			return err
		}
	}
	return nil
}

// mayChange refuses new values for services that need an admin to anybody else: a file or
// a variable can have a program do whatever it may. Services of the same apply were looked
// at as they will be; jobs keep the values that they began with. Logins to registries are
// not among them: the image's name says which registry is asked, a login for another server
// is not shown to it, and what comes is what the digest says. With a wrong one a pull fails.
func (s *Server) mayChange(ctx context.Context, objects []api.Object) error {
	configs := ofType[*api.Config](objects)
	if len(configs) == 0 || needAdmin(ctx, "") == nil {
		return nil
	}
	snap, err := s.snapshot()
	if err != nil {
		return err
	}
	changed, applied := map[api.Ref]bool{}, map[api.Ref]bool{}
	for _, c := range configs {
		changed[refTo(c)] = true
	}
	for _, o := range objects {
		applied[refTo(o)] = true
	}
	snap.All(api.KindService, "", func(e core.Entry) bool {
		x := e.Object.(*api.Service)
		if applied[refTo(x)] {
			return true
		}
		for _, ref := range x.Spec.Template.ConfigRefs() {
			of := api.Ref{Kind: ref.Kind(), Key: api.Key{Namespace: x.Metadata.Namespace, Name: ref.Name()}}
			if container, field := adminOnly(x.Spec.Template, ""); field != "" && changed[of] {
				err = needAdmin(ctx, fmt.Sprintf("apply %s: service %s takes values of it, and its container %s has %s", of, x.Metadata.Key(), container, field))
				return false
			}
		}
		return true
	})
	return err
}

// templateOf gives what an object's replicas are made of; nil where it has none.
func templateOf(x any) *api.Template {
	switch x := x.(type) {
	case *api.Service:
		return &x.Spec.Template
	case *api.Job:
		return &x.Spec.Template
	}
	return nil
}

// declared gives the service or job of that name: they share their names.
func declared(snap *view.Snapshot, key api.Key) (api.Object, bool) {
	for _, kind := range []string{api.KindService, api.KindJob} {
		if o, ok := snap.Get(core.ViewKey{Kind: kind, Namespace: key.Namespace, Name: key.Name}); ok {
			return o.(api.Object), true
		}
	}
	return nil, false
}

// mayRestart: a restart asks anew what the images mean, which whoever may bring images
// to nodes decides.
func mayRestart(ctx context.Context, x *api.Service) error {
	container, field := adminOnly(x.Spec.Template, "")
	if field == "" {
		return nil
	}
	return needAdmin(ctx, fmt.Sprintf("restart service %s: container %s has %s", x.Metadata.Key(), container, field))
}

// mayExec: whoever runs commands in a container has what it has. Its replica's own
// revision counts; where that is not known any more, the newest of
// the service, or the job's only one.
func (s *Server) mayExec(ctx context.Context, x *api.Replica, container string) error {
	snap, err := s.snapshot()
	if err != nil {
		return err
	}
	var t api.Template
	ns, name := x.Metadata.Namespace, x.Spec.Service
	if o, ok := snap.Get(core.ViewKey{Kind: api.KindRevision, Namespace: ns, Name: fmt.Sprintf("%s@%d", name, x.Spec.Revision)}); ok {
		t = o.(*api.Revision).Template
	} else if o, ok := declared(snap, keyOf(ns, name)); ok {
		t = *templateOf(o)
	}
	container, field := adminOnly(t, container)
	if field == "" {
		return nil
	}
	return needAdmin(ctx, fmt.Sprintf("run a command in replica %s: container %s has %s", x.Metadata.Name, container, field))
}

// needAdmin refuses what an admin only may do.
func needAdmin(ctx context.Context, what string) error {
	caller, err := identity.CallerOf(ctx)
	if err != nil {
		return status.Error(codes.Unauthenticated, err.Error())
	}
	if !caller.Role.Allows(pki.Admin) {
		return status.Error(codes.PermissionDenied, fmt.Sprintf("%s may not %s: that needs the role %s", caller.Identity, what, pki.Admin))
	}
	return nil
}
