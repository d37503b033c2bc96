package controller_test

import (
	"encoding/json"
	"testing"

	"google.golang.org/grpc/codes"

	orchapi "github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// TestAVolumesWay: it outlives its service, is shown with its node, and goes only when
// its node has said so.
func TestAVolumesWay(t *testing.T) {
	r := newRig(t)
	a := r.agent("n1")
	r.apply(&orchv1.ApplyRequest{Objects: []*orchv1.Object{service("db", 1, func(s *orchapi.Service) {
		s.Spec.Containers[0].Mounts = []orchapi.Mount{{Path: "/var/lib/db", Volume: "data"}}
	})}})
	r.ready("db", 1)
	ref := &orchv1.Ref{Kind: orchapi.KindVolume, Name: "data.db-0"}
	get := func() (v orchapi.Volume, err error) {
		o, err := r.admin.Get(r.ctx, &orchv1.GetRequest{Ref: ref})
		if err != nil {
			return v, err
		}
		if err := json.Unmarshal(o.Json, &v); err != nil {
			t.Fatal(err)
		}
		return v, nil
	}
	v, err := get()
	if err != nil || v.Spec.Node != "n1" || v.Spec.Service != "db" || len(v.Status.UsedBy) != 1 {
		t.Errorf("the volume: %+v, %v", v, err)
	}
	remove := func() error {
		_, err := r.admin.Delete(r.ctx, &orchv1.DeleteRequest{Refs: []*orchv1.Ref{ref}})
		return err
	}
	want(t, remove(), codes.FailedPrecondition, "data.db-0", "db-0")
	if _, err := r.admin.Delete(r.ctx, &orchv1.DeleteRequest{Refs: []*orchv1.Ref{{Kind: orchapi.KindService, Name: "db"}}}); err != nil {
		t.Fatal(err)
	}
	r.eventually("nothing runs", func() bool { return a.count() == 0 && r.get("db").Metadata.Name == "" })
	r.eventually("the volume is there and nobody has it", func() bool {
		v, err := get()
		return err == nil && len(v.Status.UsedBy) == 0
	})
	if err := remove(); err != nil {
		t.Fatal(err)
	}
	r.eventually("the node has removed it", func() bool {
		_, err := get()
		return err != nil
	})
	want(t, remove(), codes.NotFound, "volume default/data.db-0")
}
