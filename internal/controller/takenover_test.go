package controller_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	orchapi "github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// takenOver is a node whose agent says what it likes to its first assignment;
// with nil it says nothing and reads no relay.
func (r *rig) takenOver(name string, say func(x *orchv1.Assignment) *orchv1.AgentMessage) {
	r.t.Helper()
	key := newKey(r.t)
	cert, err := r.join(r.token(), name, key)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(r.ctx)
	r.t.Cleanup(cancel)
	client := orchv1.NewAgentsClient(r.dial(r.tls(r.authority.CA(), cert, key)))
	st, err := client.Session(ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	st.Send(&orchv1.AgentMessage{Message: &orchv1.AgentMessage_Hello{Hello: &orchv1.Hello{BootId: "b", Address: "10.0.0.2",
		Capacity: map[string]int64{orchapi.CPU: 8000, orchapi.Memory: 16 << 40}}}})
	if say == nil { // it opens what it is asked for, and leaves it there
		go func() {
			for {
				m, err := st.Recv()
				if err != nil {
					return
				}
				if open := m.GetOpenRelay(); open != nil {
					if relay, err := client.Relay(ctx); err == nil {
						relay.Send(&orchv1.Frame{Frame: &orchv1.Frame_OpenId{OpenId: open.GetId()}})
					}
				}
			}
		}()
		return
	}
	for {
		m, err := st.Recv()
		if err != nil {
			r.t.Fatal(err)
		}
		if put := m.GetAssignments().GetPut(); len(put) > 0 {
			if err := st.Send(say(put[0])); err != nil {
				r.t.Fatal(err)
			}
			return
		}
	}
}

// What one node says may cost that node its session, never the leader its term,
// nor users their lists.
func TestATakenOverNode(t *testing.T) {
	r := newRig(t)
	term := r.ctl.Status().Term
	r.apply(&orchv1.ApplyRequest{Objects: []*orchv1.Object{service("web", 1)}})
	far := &timestamppb.Timestamp{Seconds: 1 << 42} // year 139,000, which JSON cannot say
	r.takenOver("evil", func(x *orchv1.Assignment) *orchv1.AgentMessage {
		return &orchv1.AgentMessage{Message: &orchv1.AgentMessage_Status{Status: &orchv1.StatusReport{Complete: true, Taken: 1, Replicas: []*orchv1.ReplicaStatus{{
			Key: x.Key, Phase: orchv1.Phase_PHASE_RUNNING, Message: "spoken", StartedAt: far, Ip: "10.64.0.2",
			Containers: []*orchv1.ContainerStatus{{Name: "main", State: "Running", StartedAt: far, LastExit: &orchv1.Exit{
				Code: 1, Reason: "Error", Message: strings.Repeat("\x01", 1<<20), FinishedAt: far}}},
		}}}}}
	})
	r.eventually("what it said is published", func() bool {
		list, err := r.admin.List(r.ctx, &orchv1.ListRequest{Kind: orchapi.KindReplica})
		if err != nil {
			t.Fatalf("replicas cannot be listed any more: %v", err)
		}
		// On a busy machine the node, which does not beat, may have a spare by now.
		return slices.ContainsFunc(list.Objects, func(o *orchv1.Object) bool { return strings.Contains(string(o.Json), "spoken") })
	})
	r.apply(&orchv1.ApplyRequest{Objects: []*orchv1.Object{service("more", 1)}}) // behind what it made the leader write
	if got := r.ctl.Status().Term; got != term {
		t.Errorf("term %d became %d: one node toppled the leader", term, got)
	}
}

// A node that takes no frame of an image, while it beats, gives up its turn.
func TestAnImageThatIsNotTaken(t *testing.T) {
	r := newRig(t)
	r.images.Stall = 200 * time.Millisecond
	r.takenOver("hangs", nil)
	r.eventually("it has a session", func() bool { return r.ctl.Sessions().Has("hangs") })
	up, err := r.admin.LoadImage(r.ctx)
	if err != nil {
		t.Fatal(err)
	}
	for range 64 { // more than the windows of the connection hold
		if err := up.Send(&orchv1.LoadImageRequest{Data: make([]byte, 1<<20)}); err != nil {
			t.Fatal(err)
		}
	}
	up.CloseSend()
	for {
		p, err := up.Recv()
		if err != nil {
			t.Fatal("ended without a word of the node: ", err)
		}
		if p.State == "failed" {
			if !strings.Contains(p.Message, "takes nothing") {
				t.Errorf("failed: %s", p.Message)
			}
			return
		}
	}
}

// What is stored beside a change is bounded like the change.
func TestALongRequestID(t *testing.T) {
	r := newRig(t)
	r.apply(&orchv1.ApplyRequest{Objects: []*orchv1.Object{service("web", 1)}})
	term, id := r.ctl.Status().Term, strings.Repeat("x", 4<<20)
	_, err := r.admin.Apply(r.ctx, &orchv1.ApplyRequest{Objects: []*orchv1.Object{service("web", 2)}, RequestId: id})
	want(t, err, codes.InvalidArgument, "request id")
	_, err = r.admin.Scale(r.ctx, &orchv1.ScaleRequest{Name: "web", Replicas: 3, CurrentReplicas: -1, RequestId: id})
	want(t, err, codes.InvalidArgument, "request id")
	if got := r.ctl.Status().Term; got != term {
		t.Errorf("term %d became %d", term, got)
	}
}

// A deletion whose answer was lost is answered again, and not done again.
func TestADeletionIsDoneOnce(t *testing.T) {
	r := newRig(t)
	r.apply(&orchv1.ApplyRequest{Objects: []*orchv1.Object{service("web", 0)}})
	req := &orchv1.DeleteRequest{Refs: []*orchv1.Ref{{Kind: orchapi.KindService, Name: "web"}}, RequestId: "once"}
	gone := func() bool { return r.get("web").Metadata.Name == "" }
	if _, err := r.admin.Delete(r.ctx, req); err != nil {
		t.Fatal(err)
	}
	r.eventually("it is gone", gone)
	if resp, err := r.admin.Delete(r.ctx, req); err != nil || len(resp.Deleted) != 1 {
		t.Errorf("the retry: %v, %v", resp, err)
	}
	r.apply(&orchv1.ApplyRequest{Objects: []*orchv1.Object{service("web", 0)}})
	if _, err := r.admin.Delete(r.ctx, req); err != nil || gone() {
		t.Errorf("the retry took another's service: %v", err)
	}
}
