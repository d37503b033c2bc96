package api

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/controller/view"
	"github.com/orchctl/orch/internal/pki"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

func methods() []string {
	var out []string
	for _, d := range []grpc.ServiceDesc{orchv1.Orch_ServiceDesc, orchv1.Agents_ServiceDesc} {
		for _, m := range d.Methods {
			out = append(out, "/"+d.ServiceName+"/"+m.MethodName)
		}
		for _, s := range d.Streams {
			out = append(out, "/"+d.ServiceName+"/"+s.StreamName)
		}
	}
	return out
}

// Every method of both services, and who may call it.
func TestRoles(t *testing.T) {
	who := []pki.Identity{{}, {Kind: pki.Node, Name: "n1"}, {Kind: pki.Controller, Name: "c1"},
		{Kind: pki.User, Name: "v", Role: pki.Viewer}, {Kind: pki.User, Name: "o", Role: pki.Operator}, {Kind: pki.User, Name: "a", Role: pki.Admin}}
	// Columns: nobody, node, controller, viewer, operator, admin.
	table := map[string]string{
		"/orch.v1.Orch/Get": "---yyy", "/orch.v1.Orch/List": "---yyy", "/orch.v1.Orch/Watch": "---yyy", "/orch.v1.Orch/Explain": "---yyy",
		"/orch.v1.Orch/Logs": "---yyy", "/orch.v1.Orch/Version": "---yyy", "/orch.v1.Orch/NetCheck": "---yyy", "/orch.v1.Orch/Usage": "---yyy",
		"/orch.v1.Orch/Apply": "----yy", "/orch.v1.Orch/Scale": "----yy", "/orch.v1.Orch/Delete": "----yy", "/orch.v1.Orch/Exec": "----yy",
		"/orch.v1.Orch/LoadImage": "----yy", "/orch.v1.Orch/RemoveImage": "----yy", "/orch.v1.Orch/PullImage": "----yy", "/orch.v1.Orch/ListImages": "---yyy", "/orch.v1.Orch/NodeWord": "----yy", "/orch.v1.Orch/PortForward": "----yy", "/orch.v1.Orch/Rebalance": "----yy", "/orch.v1.Orch/Rollout": "----yy",
		"/orch.v1.Orch/CreateToken": "-----y", "/orch.v1.Orch/ListTokens": "-----y", "/orch.v1.Orch/RevokeToken": "-----y", "/orch.v1.Orch/RotateSecretKey": "-----y", "/orch.v1.Orch/Backup": "-----y",
		"/orch.v1.Orch/CreateUser": "-----y", "/orch.v1.Orch/ListUsers": "-----y", "/orch.v1.Orch/RemoveUser": "-----y",
		"/orch.v1.Orch/ListAuthorities": "-----y", "/orch.v1.Orch/RotateAuthority": "-----y", "/orch.v1.Orch/RetireAuthority": "-----y", "/orch.v1.Orch/RotateGossipKey": "-----y",
		"/orch.v1.Agents/Join": "yyyyyy", "/orch.v1.Agents/Renew": "yyyyyy", "/orch.v1.Agents/Session": "-y----", "/orch.v1.Agents/Relay": "-y----",
	}
	for _, m := range methods() {
		row, ok := table[m]
		if !ok {
			t.Errorf("%s is not in the table", m)
			continue
		}
		for i, id := range who {
			err := check(m, id)
			if got := err == nil; got != (row[i] == 'y') {
				t.Errorf("%s by %s: %v", m, id, err)
			}
			if code := status.Code(err); err != nil && (code == codes.Unauthenticated) != (id.Kind == "") {
				t.Errorf("%s by %s: code %s", m, id, code)
			}
		}
	}
	if err := check("/orch.v1.Orch/Invented", who[5]); status.Code(err) != codes.Unimplemented {
		t.Errorf("an unknown method: %v", err)
	}
	if len(rules) != len(table) {
		t.Errorf("%d rules, %d methods", len(rules), len(table))
	}
}

func TestDecode(t *testing.T) {
	const good = `{"apiVersion":"orch/v1","kind":"Service","metadata":{"name":"web"},"spec":{"containers":[{"name":"main","image":"a:1"}]}}`
	services, err := decodeAll([]*orchv1.Object{{Kind: "Service", Json: []byte(good)}})
	if err != nil || services[0].GetMetadata().Namespace != api.DefaultNamespace || services[0].(*api.Service).Spec.Want() != 1 {
		t.Fatalf("good: %v, %v", services, err)
	}
	for _, c := range []struct{ name, kind, json, field, says string }{
		{"kind", "Pod", good, "objects[1].kind", `"Pod" cannot be applied: want one of Config, Job, Secret, Service`},
		{"another kind", "Job", good, "objects[1].kind", `want "Job"`},
		{"a Config as a Secret", "Secret", `{"kind":"Config","metadata":{"name":"db"}}`, "objects[1].kind", "in an object of kind Secret"},
		{"a Secret as a Config", "Config", `{"kind":"Secret","metadata":{"name":"db"}}`, "objects[1].kind", "in an object of kind Config"},
		{"a Secret as it was shown", "Secret", `{"kind":"Secret","metadata":{"name":"db"},"status":{"version":2,"keys":{"user":3,"password":9}}}`, "objects[1].data", "values are not shown, so this cannot be applied as it is: give data, with values for password, user"},
		{"a Secret's number", "Secret", `{"metadata":{"name":"db"},"data":{"pin":4711}}`, "objects[1].data", "is a JSON number: want string"},
		{"a Secret's bytes", "Secret", `{"metadata":{"name":"db"},"binaryData":{"pin":"4711!"}}`, "objects[1]", "is no JSON of a Secret"},
		{"a Secret's field", "Secret", `{"metadata":{"name":"db"},"stringData":{"pin":"4711"}}`, "objects[1]", `unknown field "stringData"`},
		{"unknown field", "Service", strings.Replace(good, "image", "imag", 1), "objects[1]", `unknown field "imag"`},
		{"wrong type", "Service", strings.Replace(good, `"web"`, `7`, 1), "objects[1].metadata.name", "JSON number"},
		{"trailing", "Service", good + "{}", "objects[1]", "more follows"},
		{"no JSON", "Service", "web", "objects[1]", "invalid character"},
		{"empty", "Service", "", "objects[1]", "EOF"},
		{"invalid", "Service", strings.Replace(good, "a:1", "", 1), "objects[1].spec.containers[0].image", "image"},
	} {
		_, err := decodeAll([]*orchv1.Object{{Kind: "Service", Json: []byte(good)}, {Kind: c.kind, Json: []byte(c.json)}})
		st := status.Convert(err)
		if st.Code() != codes.InvalidArgument || len(st.Details()) != 1 {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		v := st.Details()[0].(*errdetails.BadRequest).FieldViolations
		if len(v) != 1 || v[0].Field != c.field || !strings.Contains(v[0].Description, c.says) || strings.Contains(v[0].String(), "4711") {
			t.Errorf("%s: got %v, want %s: %s", c.name, v, c.field, c.says)
		}
	}
	if _, err := decodeAll(nil); status.Code(err) != codes.InvalidArgument {
		t.Errorf("nothing: %v", err)
	}
	if _, err := decodeAll(make([]*orchv1.Object, objectsMax+1)); status.Code(err) != codes.InvalidArgument {
		t.Errorf("too many: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add("Service", []byte(`{"metadata":{"name":"web"},"spec":{"containers":[{}]}}`))
	f.Fuzz(func(t *testing.T, kind string, js []byte) {
		s, err := decodeAll([]*orchv1.Object{{Kind: kind, Json: js}})
		if err != nil {
			if status.Code(err) != codes.InvalidArgument {
				t.Errorf("code of %v", err)
			}
			return
		}
		if _, err := json.Marshal(s[0]); err != nil {
			t.Error(err)
		}
	})
}

func TestResolve(t *testing.T) {
	v := view.New()
	var p core.Publish
	add := func(ns, service string, slot int, epoch uint64, change func(*api.Replica)) {
		k := api.ReplicaKey{Namespace: ns, Service: service, Slot: slot, Epoch: epoch}
		r := &api.Replica{Metadata: api.Metadata{Name: k.Name(), Namespace: ns}, Spec: api.ReplicaSpec{Service: service, Slot: slot, Epoch: epoch},
			Status: api.ReplicaStatus{Phase: api.PhaseRunning, Ready: true}}
		if change != nil {
			change(r)
		}
		name := k.String()[len(ns)+1:]
		if epoch == 0 {
			name = k.Name()
		}
		p.Put = append(p.Put, core.Entry{Key: core.ViewKey{Kind: api.KindReplica, Namespace: ns, Name: name}, Object: r})
	}
	unready := func(r *api.Replica) { r.Status.Ready = false }
	stopping := func(r *api.Replica) { r.Status.Phase = api.PhaseStopping }
	add("default", "web", 0, 17, nil)
	add("default", "web", 0, 21, unready)
	add("default", "web", 1, 18, stopping)
	add("default", "web", 1, 19, unready)
	add("default", "web", 10, 20, nil)
	add("default", "db", 0, 3, nil)
	add("default", "cache", 0, 0, func(r *api.Replica) { r.Status.Phase = api.PhasePending })
	add("prod", "web", 2, 30, nil)
	v.Publish(p)
	for _, c := range []struct {
		ns, text string
		want     uint64 // epoch
		code     codes.Code
		says     string
	}{
		{"", "web-0", 17, codes.OK, ""},
		{"", "web-0@21", 21, codes.OK, ""},
		{"", "default/web-0@17", 17, codes.OK, ""},
		{"", "web-1", 19, codes.OK, ""},
		{"", "web-10", 20, codes.OK, ""},
		{"", "d", 3, codes.OK, ""},
		{"", "cac", 0, codes.OK, ""},
		{"prod", "w", 30, codes.OK, ""},
		{"", "prod/web-2", 30, codes.OK, ""},
		{"", "we", 0, codes.InvalidArgument, "web-0, web-1, web-10"},
		{"", "web-2", 0, codes.NotFound, "default/web-2"},
		{"", "web-0@2", 0, codes.NotFound, ""},
		{"", "x", 0, codes.NotFound, ""},
		{"", "", 0, codes.InvalidArgument, ""},
		{"", "prod/", 0, codes.InvalidArgument, ""},
		{"default", "prod/web-2", 0, codes.InvalidArgument, "twice"},
	} {
		r, err := resolve(v.Snapshot(), c.ns, c.text)
		if status.Code(err) != c.code || err != nil && !strings.Contains(err.Error(), c.says) || err == nil && r.Spec.Epoch != c.want {
			t.Errorf("%q in %q: got %v, %v; want epoch %d, %s %q", c.text, c.ns, r, err, c.want, c.code, c.says)
		}
	}
}

func TestErrorsKeepTheirMeaning(t *testing.T) {
	for _, c := range []struct {
		err  error
		want codes.Code
	}{
		{core.ErrNotFound, codes.NotFound}, {core.ErrChanged, codes.FailedPrecondition}, {core.ErrBusy, codes.FailedPrecondition},
		{core.ErrInvalid, codes.InvalidArgument}, {errors.New("other"), codes.Internal}, {status.Error(codes.Unavailable, "x"), codes.Unavailable}, {nil, codes.OK},
	} {
		if got := status.Code(statusOf(c.err)); got != c.want {
			t.Errorf("%v: %s, want %s", c.err, got, c.want)
		}
	}
	details := status.Convert(statusOf(core.ErrChanged)).Details()
	if len(details) != 1 || details[0].(*errdetails.ErrorInfo).Reason != "CHANGED" {
		t.Errorf("details: %v", details)
	}
}
