package agent

import (
	"errors"
	"strconv"

	"github.com/orchctl/orch/agent/ctrd"
	"github.com/orchctl/orch/agent/plan"
	"github.com/orchctl/orch/api"
)

// Reasons of what goes wrong on the way out.
const (
	reasonStopError   = "StopError"
	reasonRemoveError = "RemoveError"
)

// failure says what went wrong in plan's words; other is the reason where the
// error names none.
func failure(err error, other string) *plan.Failure {
	if err == nil {
		return nil
	}
	f := &plan.Failure{Reason: other, Message: err.Error()}
	var start *ctrd.StartError
	switch {
	case errors.As(err, &start):
		exit := start.Exit
		f.Reason, f.Exit = api.ExitStartFailed, &exit
	case errors.Is(err, ctrd.ErrLeaseOver):
		f.Reason = api.ReasonLeaseLost
	case errors.Is(err, ctrd.ErrVolume):
		f.Reason = api.ReasonVolumeError
	case errors.Is(err, ctrd.ErrBindRefused):
		f.Reason = api.ReasonBindRefused
	case errors.Is(err, ctrd.ErrImageMissing):
		f.Reason = api.ReasonImageMissing
	case errors.Is(err, ctrd.ErrRegistryUnreachable):
		f.Reason = api.ReasonRegistryUnreachable
	case errors.Is(err, ctrd.ErrImageError):
		f.Reason = api.ReasonImageError
	}
	return f
}

func containerOf(o ctrd.Observed) plan.Container {
	c := plan.Container{ID: o.ID, Replica: o.Replica, Name: o.Container, Revision: o.Revision, Incarnation: o.Incarnation, Attempt: o.Attempt,
		Hash: o.SpecHash, ImageID: o.ImageID, NetNS: o.NetNS, IP: o.IP, Grace: o.Grace, Running: o.Running, Uncertain: o.Uncertain,
		StartedAt: o.StartedAt, Exit: o.Exit}
	if h := o.Healthcheck; h != nil {
		c.Healthcheck = &plan.Healthcheck{Probe: h.Probe, StartPeriod: h.StartPeriod}
	}
	return c
}

// specOf is what the runtime is told, but for values of Configs and Secrets; see resolve.
func specOf(e plan.StartContainer, cfg Config) ctrd.ContainerSpec {
	s := ctrd.ContainerSpec{Replica: e.Replica, Revision: e.Revision, Incarnation: e.Incarnation, Attempt: e.Attempt, Container: e.Container,
		ImageID: e.ImageID, NetNS: e.Network.NetNS, HostNetwork: e.HostNetwork, IP: e.Network.IP, Env: environment(e, cfg), Grace: e.Grace, SpecHash: e.Hash, Sysctls: e.Sysctls}
	// A replica has a namespace of its own, unless it has its node's network.
	s.HostNetwork = e.Network.NetNS == ""
	files := cfg.Network.Files(e.Replica)
	s.Hosts, s.ResolvConf = files.Hosts, files.ResolvConf
	for _, m := range e.Container.Mounts {
		if m.Volume == "" {
			continue
		}
		if s.Volumes == nil {
			s.Volumes = map[string]string{}
		}
		k := e.Replica
		s.Volumes[m.Volume] = VolumePath(cfg.Data, api.VolumeKey{Namespace: k.Namespace, Service: k.Service, Slot: k.Slot, Volume: m.Volume})
	}
	if e.Lease != nil {
		s.Lease = &ctrd.Lease{Term: e.Lease.Term, Kill: e.Lease.Kill}
	}
	return s
}

// environment tells a container who it is.
func environment(e plan.StartContainer, cfg Config) []api.EnvVar {
	k := e.Replica
	return []api.EnvVar{
		{Name: "ORCH_NAMESPACE", Value: k.Namespace},
		{Name: "ORCH_SERVICE", Value: k.Service},
		{Name: "ORCH_REPLICA", Value: k.Name()},
		{Name: "ORCH_SLOT", Value: strconv.Itoa(k.Slot)},
		// The slot's fencing token: each filling has a higher one than any before.
		{Name: "ORCH_EPOCH", Value: strconv.FormatUint(k.Epoch, 10)},
		{Name: "ORCH_REVISION", Value: strconv.FormatInt(e.Revision, 10)},
		{Name: "ORCH_NODE", Value: cfg.Name},
		{Name: "ORCH_NODE_IP", Value: cfg.Address.String()},
		{Name: "ORCH_IP", Value: e.Network.IP},
	}
}
