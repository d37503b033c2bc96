package orchctl

import (
	"time"

	"github.com/orchctl/orch/api"
)

// epoch is the bubble's first moment.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func service(name string, want int, change ...func(*api.Service)) *api.Service {
	s := &api.Service{Metadata: api.Metadata{Name: name, UID: "5f3a-1", ResourceVersion: 1, Generation: 1, CreatedAt: epoch.Add(-90 * time.Minute), Labels: map[string]string{"app": name}},
		Spec: api.ServiceSpec{Replicas: &want, Template: api.Template{Containers: []api.Container{{Name: "main", Image: "orch.local/" + name + ":1.0",
			Ports: []api.Port{{Name: "http", Port: 8080, Publish: 8080, Mode: api.PublishHost}}, Resources: api.Resources{Limits: api.ResourceList{api.Memory: api.Whole(64 << 20)}},
			ReadinessProbe: &api.Probe{HTTP: &api.HTTPProbe{Path: "/healthz", Port: "http"}}}}}},
		Status: api.ServiceStatus{Revision: 1}}
	s.Default()
	for _, c := range change {
		c(s)
	}
	return s
}

// all makes a service's status that of n ready replicas.
func all(n int) func(*api.Service) {
	return func(s *api.Service) {
		s.Status.Replicas, s.Status.Ready, s.Status.Updated, s.Status.UpdatedReady = n, n, n, n
	}
}

// counts sets existing and ready ones of the newest revision.
func counts(exist, ready int, reasons ...string) func(*api.Service) {
	return func(s *api.Service) {
		s.Status.Replicas, s.Status.Ready, s.Status.Updated, s.Status.UpdatedReady = exist, ready, exist, ready
		s.Status.Reasons = reasons
	}
}

func replica(service string, slot int, epochNo uint64, node string, change ...func(*api.Replica)) *api.Replica {
	k := api.ReplicaKey{Namespace: "default", Service: service, Slot: slot, Epoch: epochNo}
	r := &api.Replica{Metadata: api.Metadata{Name: k.Name(), Namespace: "default", CreatedAt: epoch.Add(-5 * time.Minute), Labels: map[string]string{"app": service}},
		Spec:   api.ReplicaSpec{Service: service, Slot: slot, Epoch: epochNo, Revision: 1, Node: node},
		Status: api.ReplicaStatus{Phase: api.PhaseAssigned}}
	for _, c := range change {
		c(r)
	}
	return r
}

func pending(why string) func(*api.Replica) {
	return func(r *api.Replica) {
		r.Status = api.ReplicaStatus{Phase: api.PhasePending, Reason: api.ReasonNoNode, Message: why}
	}
}

func running(ready bool) func(*api.Replica) {
	return func(r *api.Replica) {
		r.Status = api.ReplicaStatus{Phase: api.PhaseRunning, Ready: ready, IP: "10.64.1.2", StartedAt: epoch.Add(-4 * time.Minute),
			Containers: []api.ContainerStatus{{Name: "main", ID: "default.web-0.17.main", State: api.ContainerRunning, Ready: ready, StartedAt: epoch.Add(-4 * time.Minute)}}}
	}
}

func waits(reason, message string, exit *api.Exit) func(*api.Replica) {
	return func(r *api.Replica) {
		r.Status = api.ReplicaStatus{Phase: api.PhasePreparing,
			Containers: []api.ContainerStatus{{Name: "main", State: api.ContainerWaiting, Reason: reason, Message: message, LastExit: exit}}}
	}
}

func restarts(n int) func(*api.Replica) {
	return func(r *api.Replica) {
		r.Status.Restarts = n
		if len(r.Status.Containers) > 0 {
			r.Status.Containers[0].Restarts = n
		}
	}
}

func lastKnown(r *api.Replica) { r.Status.LastKnown, r.Status.Ready = true, false }

func node(name string, verdict api.Verdict, change ...func(*api.Node)) *api.Node {
	n := &api.Node{Metadata: api.Metadata{Name: name, CreatedAt: epoch.Add(-26 * time.Hour), Labels: map[string]string{"zone": "a"}},
		Status: api.NodeStatus{Verdict: verdict, VerdictSince: epoch.Add(-time.Minute), Address: "10.0.0.2", Replicas: 2,
			Capacity:  api.ResourceList{api.CPU: 4000, api.Memory: api.Whole(8123456 << 10)},
			Requested: api.ResourceList{api.CPU: 1500, api.Memory: api.Whole(2 << 30)},
			BootID:    "boot-1", Version: "v0.1.0", OS: "Debian GNU/Linux 12", Kernel: "6.1.0", Runtime: "containerd 1.6.20"}}
	for _, c := range change {
		c(n)
	}
	return n
}

func event(seq uint64, ago time.Duration, kind, name, typ, reason, message string) *api.Event {
	e := &api.Event{Seq: seq, Time: epoch.Add(-ago), Namespace: "default", Kind: kind, Name: name, Type: typ, Reason: reason, Message: message, Count: 1}
	if kind == api.KindNode {
		e.Namespace = ""
	}
	return e
}
