package controller_test

import (
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	orchapi "github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// A port that is another's is told by the field that asks for it.
func TestAPortThatIsAnothersIsAField(t *testing.T) {
	r := newRig(t)
	publish := func(s *orchapi.Service) {
		s.Spec.Containers[0].Ports = []orchapi.Port{{Port: 80, Publish: 8080}}
	}
	r.apply(&orchv1.ApplyRequest{Objects: []*orchv1.Object{service("web", 1, publish)}})
	if vip := r.get("web").Status.VIP; vip != "10.128.0.10" {
		t.Errorf("web has the virtual IP %q", vip)
	}
	_, err := r.admin.Apply(r.ctx, &orchv1.ApplyRequest{Objects: []*orchv1.Object{service("other", 1), service("api", 1, publish)}})
	want(t, err, codes.InvalidArgument, "port 8080/TCP is published by service default/web")
	for _, d := range status.Convert(err).Details() {
		if bad, ok := d.(*errdetails.BadRequest); ok {
			if v := bad.FieldViolations; len(v) != 1 || v[0].Field != "objects[1].spec.containers[0].ports[0].publish" {
				t.Errorf("fields %v", v)
			}
			return
		}
	}
	t.Errorf("no field is told: %v", err)
}
