package wire

import (
	"encoding/json"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// KeyToPB and KeyFromPB convert a replica's key; a nil message gives the zero key.
func KeyToPB(k api.ReplicaKey) *orchv1.ReplicaKey {
	return &orchv1.ReplicaKey{Namespace: k.Namespace, Service: k.Service, Slot: int32(k.Slot), Epoch: k.Epoch}
}

// KeyFromPB: see KeyToPB.
func KeyFromPB(k *orchv1.ReplicaKey) api.ReplicaKey {
	return api.ReplicaKey{Namespace: k.GetNamespace(), Service: k.GetService(), Slot: int(k.GetSlot()), Epoch: k.GetEpoch()}
}

// TimeToPB gives nil for the zero time; TimeFromPB reads it back.
func TimeToPB(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// TimeFromPB: see TimeToPB.
func TimeFromPB(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

func convert[A, B any](in []A, f func(A) B) []B {
	if len(in) == 0 {
		return nil
	}
	out := make([]B, len(in))
	for i, a := range in {
		out[i] = f(a)
	}
	return out
}

// ToPB converts the set. Templates are written as canonical JSON.
func (s AssignmentSet) ToPB() (*orchv1.AssignmentSet, error) {
	out := &orchv1.AssignmentSet{Complete: s.Complete, StoreRevision: s.StoreRevision, Sequence: s.Sequence, Drop: convert(s.Drop, KeyToPB),
		Configs: convert(s.Configs, configToPB), RemoveVolumes: convert(s.RemoveVolumes, volumeToPB), RemoveOrphans: s.RemoveOrphans}
	// Replicas of one revision share their template: marshal it once.
	cache := map[*api.Template][]byte{}
	for _, a := range s.Put {
		js, ok := cache[a.Template]
		if !ok && a.Template != nil {
			var err error
			if js, err = json.Marshal(a.Template); err != nil {
				return nil, fmt.Errorf("encode template of %s: %w", a.Key, err)
			}
			cache[a.Template] = js
		}
		out.Put = append(out.Put, &orchv1.Assignment{Key: KeyToPB(a.Key), ServiceUid: a.ServiceUID, Revision: a.Revision, Template: js, Images: a.Images, Labels: a.Labels,
			Stopping: a.Stopping, Spare: a.Spare, Job: a.Job, Configs: rekey[string](a.Configs), Logins: rekey[string](a.Logins), Trace: a.Trace})
	}
	return out, nil
}

// AssignmentSetFromPB reads a set; a template that is no JSON of api.Template is
// an error.
func AssignmentSetFromPB(m *orchv1.AssignmentSet) (AssignmentSet, error) {
	s := AssignmentSet{Complete: m.GetComplete(), StoreRevision: m.GetStoreRevision(), Sequence: m.GetSequence(), Drop: convert(m.GetDrop(), KeyFromPB),
		Configs: convert(m.GetConfigs(), configFromPB), RemoveVolumes: convert(m.GetRemoveVolumes(), volumeFromPB), RemoveOrphans: m.GetRemoveOrphans()}
	cache := map[string]*api.Template{}
	for _, a := range m.GetPut() {
		key := KeyFromPB(a.GetKey())
		t, ok := cache[string(a.GetTemplate())]
		if !ok && len(a.GetTemplate()) > 0 {
			t = &api.Template{}
			if err := json.Unmarshal(a.GetTemplate(), t); err != nil {
				return AssignmentSet{}, fmt.Errorf("decode template of %s: %w", key, err)
			}
			cache[string(a.GetTemplate())] = t
		}
		s.Put = append(s.Put, Assignment{Key: key, ServiceUID: a.GetServiceUid(), Revision: a.GetRevision(), Template: t, Images: a.GetImages(), Labels: a.GetLabels(),
			Stopping: a.GetStopping(), Spare: a.GetSpare(), Job: a.GetJob(), Configs: rekey[api.ConfigRef](a.GetConfigs()),
			Logins: rekey[api.ConfigRef](a.GetLogins()), Trace: a.GetTrace()})
	}
	return s, nil
}

// rekey gives the same map with keys of another type of text.
func rekey[To, From ~string, V any](m map[From]V) map[To]V {
	if m == nil {
		return nil
	}
	out := make(map[To]V, len(m))
	for k, v := range m {
		out[To(k)] = v
	}
	return out
}

func configToPB(v ConfigVersion) *orchv1.ConfigVersion {
	return &orchv1.ConfigVersion{Namespace: v.Namespace, Ref: string(v.Ref), Version: v.Version, Values: v.Values}
}

func configFromPB(m *orchv1.ConfigVersion) ConfigVersion {
	return ConfigVersion{ConfigKey: ConfigKey{Namespace: m.GetNamespace(), Ref: api.ConfigRef(m.GetRef()), Version: m.GetVersion()}, Values: m.GetValues()}
}

func volumeToPB(k api.VolumeKey) *orchv1.VolumeKey {
	return &orchv1.VolumeKey{Namespace: k.Namespace, Service: k.Service, Slot: int32(k.Slot), Volume: k.Volume}
}

func volumeFromPB(m *orchv1.VolumeKey) api.VolumeKey {
	return api.VolumeKey{Namespace: m.GetNamespace(), Service: m.GetService(), Slot: int(m.GetSlot()), Volume: m.GetVolume()}
}

// ToPB converts the set.
func (s EndpointSet) ToPB() *orchv1.EndpointSet {
	return &orchv1.EndpointSet{Complete: s.Complete, Version: s.Version, Drop: convert(s.Drop, KeyToPB), Keep: convert(s.Keep, KeyToPB),
		Put: convert(s.Put, func(e Endpoint) *orchv1.Endpoint {
			return &orchv1.Endpoint{Replica: KeyToPB(e.Replica), Node: e.Node, Ip: e.IP, NodeIp: e.NodeIP, Degraded: e.Degraded, Ports: convert(e.Ports, portToPB)}
		}),
		Services: convert(s.Services, func(x Service) *orchv1.ServiceTraffic {
			return &orchv1.ServiceTraffic{Key: refToPB(x.Key), Vip: x.VIP, SessionAffinity: string(x.SessionAffinity),
				TrafficDistribution: string(x.TrafficDistribution), Ports: convert(x.Ports, portToPB)}
		}),
		DropServices: convert(s.DropServices, refToPB)}
}

func portToPB(p api.Port) *orchv1.EndpointPort {
	return &orchv1.EndpointPort{Name: p.Name, Port: int32(p.Port), Protocol: string(p.Protocol), Publish: int32(p.Publish), Mode: string(p.Mode)}
}

func portFromPB(p *orchv1.EndpointPort) api.Port {
	return api.Port{Name: p.GetName(), Port: int(p.GetPort()), Protocol: api.Protocol(p.GetProtocol()), Publish: int(p.GetPublish()), Mode: api.PublishMode(p.GetMode())}
}

func refToPB(k api.Key) *orchv1.ServiceRef {
	return &orchv1.ServiceRef{Namespace: k.Namespace, Name: k.Name}
}

func refFromPB(k *orchv1.ServiceRef) api.Key {
	return api.Key{Namespace: k.GetNamespace(), Name: k.GetName()}
}

// EndpointSetFromPB reads a set.
func EndpointSetFromPB(m *orchv1.EndpointSet) EndpointSet {
	return EndpointSet{Complete: m.GetComplete(), Version: m.GetVersion(), Drop: convert(m.GetDrop(), KeyFromPB), Keep: convert(m.GetKeep(), KeyFromPB),
		Put: convert(m.GetPut(), func(e *orchv1.Endpoint) Endpoint {
			return Endpoint{Replica: KeyFromPB(e.GetReplica()), Node: e.GetNode(), IP: e.GetIp(), NodeIP: e.GetNodeIp(), Degraded: e.GetDegraded(),
				Ports: convert(e.GetPorts(), portFromPB)}
		}),
		Services: convert(m.GetServices(), func(x *orchv1.ServiceTraffic) Service {
			return Service{Key: refFromPB(x.GetKey()), VIP: x.GetVip(), SessionAffinity: api.SessionAffinity(x.GetSessionAffinity()),
				TrafficDistribution: api.TrafficDistribution(x.GetTrafficDistribution()), Ports: convert(x.GetPorts(), portFromPB)}
		}),
		DropServices: convert(m.GetDropServices(), refFromPB)}
}

// ToPB converts the set.
func (s NetworkSet) ToPB() *orchv1.NetworkSet {
	return &orchv1.NetworkSet{Complete: s.Complete, Cluster: s.Cluster, Services: s.Services, Subnet: s.Subnet, Why: s.Why, Routes: string(s.Routes), Drop: s.Drop,
		Put: convert(s.Put, func(p Peer) *orchv1.Peer { return &orchv1.Peer{Node: p.Node, Address: p.Address, Subnet: p.Subnet} })}
}

// NetworkSetFromPB reads a set.
func NetworkSetFromPB(m *orchv1.NetworkSet) NetworkSet {
	return NetworkSet{Complete: m.GetComplete(), Cluster: m.GetCluster(), Services: m.GetServices(), Subnet: m.GetSubnet(), Why: m.GetWhy(),
		Routes: RouteMode(m.GetRoutes()), Drop: m.GetDrop(),
		Put: convert(m.GetPut(), func(p *orchv1.Peer) Peer {
			return Peer{Node: p.GetNode(), Address: p.GetAddress(), Subnet: p.GetSubnet()}
		})}
}

var phases = map[api.Phase]orchv1.Phase{
	api.PhasePending: orchv1.Phase_PHASE_PENDING, api.PhaseAssigned: orchv1.Phase_PHASE_ASSIGNED,
	api.PhasePreparing: orchv1.Phase_PHASE_PREPARING, api.PhaseRunning: orchv1.Phase_PHASE_RUNNING,
	api.PhaseStopping: orchv1.Phase_PHASE_STOPPING, api.PhaseStopped: orchv1.Phase_PHASE_STOPPED,
	api.PhaseFailed: orchv1.Phase_PHASE_FAILED,
}

var phasesBack = func() map[orchv1.Phase]api.Phase {
	back := map[orchv1.Phase]api.Phase{}
	for a, p := range phases {
		back[p] = a
	}
	return back
}()

func exitToPB(e *api.Exit) *orchv1.Exit {
	if e == nil {
		return nil
	}
	return &orchv1.Exit{Code: int32(e.Code), Signal: int32(e.Signal), Oom: e.OOM, Reason: e.Reason, Message: e.Message, FinishedAt: TimeToPB(e.FinishedAt), Output: e.Output}
}

func exitFromPB(e *orchv1.Exit) *api.Exit {
	if e == nil {
		return nil
	}
	return &api.Exit{Code: int(e.Code), Signal: int(e.Signal), OOM: e.Oom, Reason: e.Reason, Message: e.Message, FinishedAt: TimeFromPB(e.FinishedAt), Output: e.Output}
}

func containerToPB(c api.ContainerStatus) *orchv1.ContainerStatus {
	return &orchv1.ContainerStatus{Name: c.Name, Id: c.ID, State: string(c.State), Reason: c.Reason, Message: c.Message, Ready: c.Ready,
		Restarts: int32(c.Restarts), StartedAt: TimeToPB(c.StartedAt), ImageId: c.ImageID, LastExit: exitToPB(c.LastExit)}
}

func containerFromPB(c *orchv1.ContainerStatus) api.ContainerStatus {
	return api.ContainerStatus{Name: c.GetName(), ID: c.GetId(), State: api.ContainerState(c.GetState()), Reason: c.GetReason(), Message: c.GetMessage(),
		Ready: c.GetReady(), Restarts: int(c.GetRestarts()), StartedAt: TimeFromPB(c.GetStartedAt()), ImageID: c.GetImageId(), LastExit: exitFromPB(c.GetLastExit())}
}

// ToPB converts the report. Restarts travel per container and are summed on
// arrival; LastKnown is the leader's own word and does not travel.
func (r StatusReport) ToPB() *orchv1.StatusReport {
	return &orchv1.StatusReport{Complete: r.Complete, Taken: r.Taken, Gone: convert(r.Gone, KeyToPB), Orphans: r.Orphans, VolumesGone: convert(r.VolumesGone, volumeToPB),
		Replicas: convert(r.Replicas, func(x Report) *orchv1.ReplicaStatus {
			s := x.Status
			return &orchv1.ReplicaStatus{Images: x.Images, Key: KeyToPB(x.Key), Revision: x.Revision, Phase: phases[s.Phase], Ready: s.Ready, Reason: s.Reason,
				Message: s.Message, Ip: s.IP, StartedAt: TimeToPB(s.StartedAt), Containers: convert(s.Containers, containerToPB)}
		})}
}

// StatusReportFromPB reads a report.
func StatusReportFromPB(m *orchv1.StatusReport) StatusReport {
	return StatusReport{Complete: m.GetComplete(), Taken: m.GetTaken(), Gone: convert(m.GetGone(), KeyFromPB), Orphans: m.GetOrphans(), VolumesGone: convert(m.GetVolumesGone(), volumeFromPB),
		Replicas: convert(m.GetReplicas(), func(x *orchv1.ReplicaStatus) Report {
			s := api.ReplicaStatus{Phase: phasesBack[x.GetPhase()], Ready: x.GetReady(), Reason: x.GetReason(), Message: x.GetMessage(),
				IP: x.GetIp(), StartedAt: TimeFromPB(x.GetStartedAt()), Containers: convert(x.GetContainers(), containerFromPB)}
			for _, c := range s.Containers {
				s.Restarts += c.Restarts
			}
			return Report{Key: KeyFromPB(x.GetKey()), Revision: x.GetRevision(), Status: s, Images: x.GetImages()}
		})}
}

// ToPB converts the hello.
func (h Hello) ToPB() *orchv1.Hello {
	m := &orchv1.Hello{BootId: h.BootID, Address: h.Address, Labels: h.Labels, Capacity: map[string]int64{}, Version: h.Version,
		Os: h.OS, Kernel: h.Kernel, Runtime: h.Runtime, StoreRevision: h.StoreRevision}
	for name, q := range h.Capacity {
		m.Capacity[name] = q.Milli()
	}
	return m
}

// HelloFromPB reads a hello.
func HelloFromPB(m *orchv1.Hello) Hello {
	h := Hello{BootID: m.GetBootId(), Address: m.GetAddress(), Labels: m.GetLabels(), Capacity: api.ResourceList{}, Version: m.GetVersion(),
		OS: m.GetOs(), Kernel: m.GetKernel(), Runtime: m.GetRuntime(), StoreRevision: m.GetStoreRevision()}
	for name, q := range m.GetCapacity() {
		h.Capacity[name] = api.Quantity(q)
	}
	return h
}

// ToPB converts the renewal.
func (r Renewal) ToPB() *orchv1.Renewal {
	return &orchv1.Renewal{Id: r.ID, Keys: convert(r.Keys, KeyToPB)}
}

// RenewalFromPB reads a renewal.
func RenewalFromPB(m *orchv1.Renewal) Renewal {
	return Renewal{ID: m.GetId(), Keys: convert(m.GetKeys(), KeyFromPB)}
}

// ToPB converts the grant.
func (g Grant) ToPB() *orchv1.Grant {
	return &orchv1.Grant{Id: g.ID, Leases: convert(g.Leases, func(l Lease) *orchv1.Lease {
		return &orchv1.Lease{Key: KeyToPB(l.Key), For: durationpb.New(l.For)}
	})}
}

// GrantFromPB reads a grant.
func GrantFromPB(m *orchv1.Grant) Grant {
	return Grant{ID: m.GetId(), Leases: convert(m.GetLeases(), func(l *orchv1.Lease) Lease {
		return Lease{Key: KeyFromPB(l.GetKey()), For: l.GetFor().AsDuration()}
	})}
}

// BeatToPB makes a beat of a sequence number and what the node knows of itself.
func BeatToPB(seq uint64, s SelfCheck) *orchv1.Beat {
	return &orchv1.Beat{Sequence: seq, SelfCheckAge: durationpb.New(s.Age), Failing: s.Failing, IoPressure: s.IOPressure, MemoryPressure: s.MemoryPressure}
}

// SelfCheckFromPB reads what BeatToPB said of the node.
func SelfCheckFromPB(m *orchv1.Beat) SelfCheck {
	return SelfCheck{Age: m.GetSelfCheckAge().AsDuration(), Failing: m.GetFailing(), IOPressure: m.GetIoPressure(), MemoryPressure: m.GetMemoryPressure()}
}
