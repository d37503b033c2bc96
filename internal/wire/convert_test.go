package wire

import (
	"reflect"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

var (
	key  = api.ReplicaKey{Namespace: "default", Service: "web", Slot: 2, Epoch: 17}
	when = time.Date(2026, 11, 1, 12, 0, 0, 5, time.UTC)
)

func TestWhatGoesOverComesBack(t *testing.T) {
	set := AssignmentSet{Complete: true, StoreRevision: 9, Sequence: 3, Drop: []api.ReplicaKey{key},
		Put: []Assignment{{Key: key, ServiceUID: "u", Revision: 2, Stopping: true, Spare: true, Job: true,
			Template: &api.Template{Containers: []api.Container{{Name: "main", Image: "a/b:1"}}}}}}
	pb, err := set.ToPB()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := AssignmentSetFromPB(pb); err != nil || !reflect.DeepEqual(got, set) {
		t.Errorf("assignments: got %+v, %v\nwant %+v", got, err, set)
	}
	ends := EndpointSet{Complete: true, Version: 4, Drop: []api.ReplicaKey{key}, Keep: []api.ReplicaKey{key}, Put: []Endpoint{{Replica: key, Node: "n1", IP: "10.64.0.2", NodeIP: "10.0.0.1",
		Ports: []api.Port{{Name: "http", Port: 80, Protocol: api.TCP, Publish: 8080, Mode: api.PublishHost}}}},
		Services: []Service{{Key: api.Key{Namespace: "default", Name: "web"}, VIP: "10.128.0.1", SessionAffinity: api.AffinityClientIP,
			TrafficDistribution: api.PreferSameNode, Ports: []api.Port{{Port: 80, Publish: 8080}}}},
		DropServices: []api.Key{{Namespace: "default", Name: "old"}}}
	if got := EndpointSetFromPB(ends.ToPB()); !reflect.DeepEqual(got, ends) {
		t.Errorf("endpoints: got %+v\nwant %+v", got, ends)
	}
	network := NetworkSet{Complete: true, Cluster: "10.64.0.0/10", Services: "10.128.0.0/14", Subnet: "10.64.1.0/24", Why: "w", Routes: RoutesAuto,
		Put: []Peer{{Node: "n2", Address: "10.0.0.2", Subnet: "10.64.2.0/24"}}, Drop: []string{"n3"}}
	if got := NetworkSetFromPB(network.ToPB()); !reflect.DeepEqual(got, network) {
		t.Errorf("network: got %+v\nwant %+v", got, network)
	}
	for phase := range phases {
		rep := StatusReport{Complete: true, Taken: 7, Gone: []api.ReplicaKey{key}, Orphans: []string{"x"}, Replicas: []Report{{Key: key, Revision: 2,
			Status: api.ReplicaStatus{Phase: phase, Ready: true, Reason: "R", Message: "m", IP: "10.64.0.2", Restarts: 3, StartedAt: when,
				Containers: []api.ContainerStatus{{Name: "main", ID: "i", State: api.ContainerRunning, Ready: true, Restarts: 3, StartedAt: when, ImageID: "sha256:1",
					LastExit: &api.Exit{Code: 137, Signal: 9, OOM: true, Reason: api.ExitOutOfMemory, Message: "m", FinishedAt: when}}}}}}}
		if got := StatusReportFromPB(rep.ToPB()); !reflect.DeepEqual(got, rep) {
			t.Errorf("report: got %+v\nwant %+v", got, rep)
		}
	}
	hello := Hello{BootID: "b", Address: "10.0.0.1", Labels: map[string]string{"a": "b"}, Capacity: api.ResourceList{api.CPU: 1500}, Version: "1", OS: "o", Kernel: "k", Runtime: "r", StoreRevision: 8}
	if got := HelloFromPB(hello.ToPB()); !reflect.DeepEqual(got, hello) {
		t.Errorf("hello: got %+v\nwant %+v", got, hello)
	}
}

// FuzzFromPB: whatever a peer sends, reading it must not panic.
func FuzzFromPB(f *testing.F) {
	set, _ := AssignmentSet{Put: []Assignment{{Key: key, Template: &api.Template{}}}}.ToPB()
	seed, _ := proto.Marshal(&orchv1.ControllerMessage{Message: &orchv1.ControllerMessage_Assignments{Assignments: set}})
	f.Add(seed)
	seed, _ = proto.Marshal(&orchv1.AgentMessage{Message: &orchv1.AgentMessage_Status{Status: StatusReport{Replicas: []Report{{Key: key}}}.ToPB()}})
	f.Add(seed)
	f.Fuzz(func(t *testing.T, b []byte) {
		var down orchv1.ControllerMessage
		if proto.Unmarshal(b, &down) == nil {
			_, _ = AssignmentSetFromPB(down.GetAssignments())
			EndpointSetFromPB(down.GetEndpoints())
			NetworkSetFromPB(down.GetNetwork())
		}
		var up orchv1.AgentMessage
		if proto.Unmarshal(b, &up) == nil {
			StatusReportFromPB(up.GetStatus())
			HelloFromPB(up.GetHello())
		}
	})
}
