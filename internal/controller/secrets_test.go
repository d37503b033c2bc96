package controller_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	orchapi "github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/pki"
	"github.com/orchctl/orch/internal/store/mem"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// what nobody may see.
const (
	swordfish = "swordfish-4711"
	sailfish  = "sailfish-0815"
)

func values(kind, name string, data map[string]string, change ...func(*orchapi.Config)) *orchv1.Object {
	c := &orchapi.Config{TypeMeta: orchapi.TypeMeta{APIVersion: orchapi.Version, Kind: kind}, Metadata: orchapi.Metadata{Name: name}, Data: data}
	for _, f := range change {
		f(c)
	}
	js, err := json.Marshal(c)
	if err != nil {
		panic(err)
	}
	return &orchv1.Object{Kind: kind, Json: js}
}

func secret(name string, data map[string]string) *orchv1.Object {
	return values(orchapi.KindSecret, name, data)
}

// takes has a service take a key of a Secret as a variable, and a Config as files.
func takes(s *orchapi.Service) {
	c := &s.Spec.Containers[0]
	c.Env = append(c.Env, orchapi.EnvVar{Name: "PASSWORD", ValueFrom: &orchapi.EnvSource{Secret: &orchapi.KeyRef{Name: "db", Key: "password"}}})
	c.Mounts = append(c.Mounts, orchapi.Mount{Path: "/etc/app", Config: "app"})
}

// config gives a Config or Secret as it is shown.
func (r *rig) config(kind, name string) *orchapi.Config {
	r.t.Helper()
	o, err := r.admin.Get(r.ctx, &orchv1.GetRequest{Ref: &orchv1.Ref{Kind: kind, Name: name}})
	if err != nil {
		r.t.Fatal(err)
	}
	c := &orchapi.Config{}
	if err := json.Unmarshal(o.Json, c); err != nil {
		r.t.Fatal(err)
	}
	return c
}

// payloads are what the store has of secrets, by key.
func (r *rig) payloads() map[string][]byte {
	r.t.Helper()
	kvs, _, err := r.store.Range(r.ctx, "")
	if err != nil {
		r.t.Fatal(err)
	}
	out := map[string][]byte{}
	for _, kv := range kvs {
		if bytes.Contains(kv.Value, []byte("orchsecret1")) {
			out[string(kv.Key)] = kv.Value
		}
	}
	return out
}

// clean fails if a secret's value is in what somebody may read.
func clean(t *testing.T, where, text string) {
	t.Helper()
	for _, v := range []string{swordfish, sailfish} {
		for _, form := range []string{v, base64.StdEncoding.EncodeToString([]byte(v)), fmt.Sprintf("%x", v), fmt.Sprint([]byte(v))} {
			if strings.Contains(text, form) {
				t.Errorf("%s shows a secret's value: %.2000s", where, text)
			}
		}
	}
}

func (r *rig) cleanStore() {
	r.t.Helper()
	kvs, _, err := r.store.Range(r.ctx, "")
	if err != nil {
		r.t.Fatal(err)
	}
	for _, kv := range kvs {
		clean(r.t, "the store at "+string(kv.Key), string(kv.Value))
	}
}

func outcomes(resp *orchv1.ApplyResponse) string {
	var out []string
	for _, a := range resp.Applied {
		out = append(out, a.Object.Kind+" "+a.Outcome)
	}
	return strings.Join(out, ", ")
}

// TestASecretsWay: from its apply through the store to the nodes that need it, and past
// everybody else.
func TestASecretsWay(t *testing.T) {
	r := newRig(t)
	a, b := r.agent("n1"), r.agent("n2")
	objects := []*orchv1.Object{service("web", 1, takes), secret("db", map[string]string{"password": swordfish, "user": "app"}),
		values(orchapi.KindConfig, "app", map[string]string{"app.conf": "plain"})}
	said := &strings.Builder{} // all that any answer has
	ask := func(req *orchv1.ApplyRequest) *orchv1.ApplyResponse {
		t.Helper()
		resp, err := r.admin.Apply(r.ctx, req)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(said, resp, outcomes(resp))
		for _, x := range resp.Applied {
			said.Write(x.Object.Json)
		}
		return resp
	}
	if got := outcomes(ask(&orchv1.ApplyRequest{Objects: objects})); got != "Service created, Secret created, Config created" {
		t.Errorf("applied %s", got)
	}
	r.ready("web", 1)
	runs, other := a, b
	if b.count() == 1 {
		runs, other = b, a
	}
	if got := runs.value("secret/db", 1, "password"); got != swordfish {
		t.Errorf("%s, which runs it, got %q", runs.name, got)
	}
	if got := runs.value("config/app", 1, "app.conf"); got != "plain" {
		t.Errorf("%s got %q of the config", runs.name, got)
	}
	other.mu.Lock()
	if len(other.values) > 0 {
		t.Errorf("%s, which runs nothing, got %v", other.name, slices.Collect(maps.Keys(other.values)))
	}
	other.mu.Unlock()
	if n := len(r.payloads()); n != 1 {
		t.Errorf("%d sealed values in the store, want 1", n)
	}
	if got := outcomes(ask(&orchv1.ApplyRequest{Objects: objects})); got != "Service unchanged, Secret unchanged, Config unchanged" {
		t.Errorf("again: %s", got)
	}

	// What is shown has sizes and no values.
	c := r.config(orchapi.KindSecret, "db")
	if c.Data != nil || c.BinaryData != nil || c.Status.Keys["password"] != len(swordfish) || c.Status.Version != 1 {
		t.Errorf("the secret is shown as %+v", c)
	}
	if c := r.config(orchapi.KindConfig, "app"); c.Data["app.conf"] != "plain" {
		t.Errorf("the config is shown as %+v", c)
	}
	list, err := r.admin.List(r.ctx, &orchv1.ListRequest{Kind: orchapi.KindSecret})
	if err != nil || len(list.Objects) != 1 {
		t.Fatalf("secrets: %v, %v", list, err)
	}
	said.Write(list.Objects[0].Json)
	w, err := r.admin.Watch(r.ctx, &orchv1.WatchRequest{List: &orchv1.ListRequest{Kind: orchapi.KindSecret}})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		e, err := w.Recv()
		if err != nil {
			t.Fatal(err)
		}
		said.Write(e.GetObject().GetJson())
	}

	// A dry run compares the values and tells the keys.
	next := secret("db", map[string]string{"password": sailfish, "port": "5432"})
	dry := ask(&orchv1.ApplyRequest{DryRun: true, Objects: []*orchv1.Object{next, values(orchapi.KindConfig, "app", map[string]string{"app.conf": "other"})}})
	if got := dry.Applied[0].Plan; !slices.Equal(got[:min(len(got), 3)], []string{"key password changes", "key port is new", "key user goes"}) {
		t.Errorf("dry run of the secret: %q", got)
	}
	if got := dry.Applied[1].Plan; len(got) == 0 || got[0] != "key app.conf changes" {
		t.Errorf("dry run of the config: %q", got)
	}
	if same := ask(&orchv1.ApplyRequest{DryRun: true, Objects: objects[1:2]}); same.Applied[0].Outcome != "unchanged" || len(same.Applied[0].Plan) > 0 {
		t.Errorf("dry run of the same: %v", same.Applied[0])
	}
	if v := r.config(orchapi.KindSecret, "db").Status.Version; v != 1 {
		t.Errorf("a dry run made version %d", v)
	}

	// New values make a new revision, and reach its nodes.
	ask(&orchv1.ApplyRequest{Objects: []*orchv1.Object{next}})
	r.eventually("a node has version 2", func() bool {
		return a.value("secret/db", 2, "password") == sailfish || b.value("secret/db", 2, "password") == sailfish
	})

	// What is refused is refused without a quotation.
	for _, bad := range []*orchv1.Object{
		{Kind: orchapi.KindSecret, Json: fmt.Appendf(nil, `{"metadata":{"name":"db"},"data":{"password":%q}`, swordfish)},
		{Kind: orchapi.KindSecret, Json: fmt.Appendf(nil, `{"metadata":{"name":"db"},"data":{"password":{"is":%q}}}`, swordfish)},
		{Kind: orchapi.KindSecret, Json: fmt.Appendf(nil, `{"metadata":{"name":"db"},"binaryData":{"password":%q}}`, swordfish)},
		{Kind: orchapi.KindSecret, Json: fmt.Appendf(nil, `{"metadata":{"name":"db"},"data":%q}`, swordfish)},
		secret("D B", map[string]string{"password": swordfish}),
		secret("db", map[string]string{"pass word": swordfish}),
		secret("db", map[string]string{"password": strings.Repeat(swordfish, orchapi.MaxConfigBytes/len(swordfish)+1)}),
		secret("db", map[string]string{"user": swordfish}), // web takes password
		{Kind: orchapi.KindSecret, Json: []byte(`{"metadata":{"name":"db"},"status":{"version":2,"keys":{"password":14}}}`)},
	} {
		_, err := r.admin.Apply(r.ctx, &orchv1.ApplyRequest{Objects: []*orchv1.Object{bad}})
		want(t, err, codes.InvalidArgument)
		fmt.Fprintln(said, err)
	}
	_, err = r.admin.Delete(r.ctx, &orchv1.DeleteRequest{Refs: []*orchv1.Ref{{Kind: orchapi.KindSecret, Name: "db"}}})
	want(t, err, codes.FailedPrecondition, "secret default/db", "web")
	fmt.Fprintln(said, err)

	// A rotation changes what is stored and nothing else.
	r.eventually("the old version has gone or is kept", func() bool { return r.get("web").Status.Ready == 1 })
	before, revision := r.payloads(), r.get("web").Status.Revision
	rotated, err := r.admin.RotateSecretKey(r.ctx, &orchv1.RotateSecretKeyRequest{})
	if err != nil || int(rotated.Versions) != len(before) || rotated.Key != r.secrets.Newest() {
		t.Fatalf("rotate: %v, %v; want %d versions by %s", rotated, err, len(before), r.secrets.Newest())
	}
	for k, v := range r.payloads() {
		if bytes.Equal(v, before[k]) || !bytes.Contains(v, []byte(rotated.Key)) {
			t.Errorf("%s is not encrypted by the new key", k)
		}
	}
	if got := r.secrets.IDs(); len(got) != 1 {
		t.Errorf("keys %v: the old one is still there", got)
	}
	if got := outcomes(ask(&orchv1.ApplyRequest{Objects: []*orchv1.Object{next}})); got != "Secret unchanged" {
		t.Errorf("after the rotation: %s", got)
	}
	if got := r.get("web").Status.Revision; got != revision {
		t.Errorf("a rotation made revision %d of %d", got, revision)
	}
	resp, err := r.admin.RotateSecretKey(r.ctx, &orchv1.RotateSecretKeyRequest{})
	if err != nil || resp.Key == rotated.Key || resp.Versions != rotated.Versions {
		t.Errorf("rotated again: %v, %v", resp, err)
	}

	r.cleanStore()
	clean(t, "an answer", said.String())
	r.stop()
	clean(t, "the log", r.log.String())
	if !strings.Contains(r.log.String(), "secrets are encrypted anew") {
		t.Error("the log was not even kept")
	}
}

// TestARotationCutShort: whatever comes next goes on where it was.
func TestARotationCutShort(t *testing.T) {
	r := newRig(t)
	object := func(i int) *orchv1.Object {
		return secret(fmt.Sprintf("s%d", i), map[string]string{"key": swordfish, "large": strings.Repeat("x", 100_000)})
	}
	const many = 12 // more than one transaction takes
	for i := range many {
		r.apply(&orchv1.ApplyRequest{Objects: []*orchv1.Object{object(i)}})
	}
	// The controller ended when it had the new key and nothing else.
	cut, err := r.secrets.Rotate(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if got := outcomes(r.apply(&orchv1.ApplyRequest{Objects: []*orchv1.Object{object(3)}})); got != "Secret unchanged" {
		t.Errorf("an apply in the middle of a rotation: %s", got)
	}
	if got := r.secrets.IDs(); !slices.Equal(got, []string{cut}) {
		t.Errorf("keys %v, want %s alone", got, cut)
	} // And again; this time a rotation is what comes next, and its own store fails.
	if cut, err = r.secrets.Rotate(time.Now()); err != nil {
		t.Fatal(err)
	}
	var writes atomic.Int32
	r.store.SetDelay(func(c mem.Call) time.Duration {
		if c == mem.CallTxn && writes.Add(1) == 3 {
			r.store.UnknownNext(true)
		}
		return 0
	})
	_, err = r.admin.RotateSecretKey(r.ctx, &orchv1.RotateSecretKeyRequest{})
	want(t, err, codes.Unavailable)
	var resp *orchv1.RotateSecretKeyResponse
	r.eventually("it is rotated", func() bool {
		resp, err = r.admin.RotateSecretKey(r.ctx, &orchv1.RotateSecretKeyRequest{})
		return err == nil
	})
	if resp.Key != cut || resp.Versions == 0 || resp.Versions >= many {
		t.Errorf("it went on with %v, want key %s and some of %d versions", resp, cut, many)
	}
	for i := range many {
		if got := outcomes(r.apply(&orchv1.ApplyRequest{Objects: []*orchv1.Object{object(i)}})); got != "Secret unchanged" {
			t.Errorf("s%d: %s", i, got)
		}
	}
}

// TestALostKeyFile: it is said, everything else goes on, and the file heals it.
func TestALostKeyFile(t *testing.T) {
	r := newRig(t)
	a := r.agent("n1")
	db := secret("db", map[string]string{"password": swordfish})
	r.apply(&orchv1.ApplyRequest{Objects: []*orchv1.Object{db, values(orchapi.KindConfig, "app", map[string]string{"app.conf": "plain"}), service("web", 1, takes)}})
	r.ready("web", 1)
	kept, err := os.ReadFile(r.keyFile)
	if err != nil {
		t.Fatal(err)
	}
	a.cancel()
	r.stop()

	r = rigOn(t, r.store, r.dir, filepath.Join(t.TempDir(), "secrets.key"))
	r.eventually("it is logged", func() bool {
		log := r.log.String()
		return strings.Contains(log, "secret=\"secret default/db version 1\"") && strings.Contains(log, "put the key file that the store was used with back") && strings.Contains(log, r.keyFile)
	})
	b := r.agent("n2")
	r.apply(&orchv1.ApplyRequest{Objects: []*orchv1.Object{service("other", 1)}})
	r.ready("other", 1)
	r.eventually("web is on n2, without its secret", func() bool { return b.value("config/app", 1, "app.conf") == "plain" })
	if got := b.value("secret/db", 1, "password"); got != "" {
		t.Errorf("n2 got %q from nowhere", got)
	}
	if log := r.log.String(); !strings.Contains(log, "values cannot be sent to a node") || !strings.Contains(log, "config=\"secret default/db version 1\"") {
		t.Error("the log does not tell of what was left out")
	}
	_, err = r.admin.RotateSecretKey(r.ctx, &orchv1.RotateSecretKeyRequest{})
	want(t, err, codes.FailedPrecondition, "default/db version 1", r.keyFile)
	resp, err := r.admin.Apply(r.ctx, &orchv1.ApplyRequest{DryRun: true, Objects: []*orchv1.Object{secret("db", map[string]string{"password": sailfish})}})
	if err != nil || !strings.Contains(strings.Join(resp.Applied[0].Plan, " "), "cannot be compared") {
		t.Errorf("dry run: %v, %v", resp, err)
	}
	b.cancel()
	r.stop()

	// The old keys are appended to the file that was made meanwhile.
	now, err := os.ReadFile(r.keyFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(r.keyFile, slices.Concat(now, kept), 0o600); err != nil {
		t.Fatal(err)
	}
	r = rigOn(t, r.store, r.dir, r.keyFile)
	c := r.agent("n3")
	r.eventually("n3 has the secret", func() bool { return c.value("secret/db", 1, "password") == swordfish })
	if got := outcomes(r.apply(&orchv1.ApplyRequest{Objects: []*orchv1.Object{db}})); got != "Secret unchanged" {
		t.Errorf("the same values: %s", got)
	}
	r.stop()
	clean(t, "the log", r.log.String())
}

// TestOnlyAnAdminRotates and whoever may apply may apply secrets.
func TestOnlyAnAdminRotates(t *testing.T) {
	r := newRig(t)
	operator := orchv1.NewOrchClient(r.dial(r.credentials(r.authority.CA(), user(pki.Operator), time.Hour)))
	if _, err := operator.Apply(r.ctx, &orchv1.ApplyRequest{Objects: []*orchv1.Object{secret("db", map[string]string{"a": swordfish})}}); err != nil {
		t.Error(err)
	}
	_, err := operator.RotateSecretKey(r.ctx, &orchv1.RotateSecretKeyRequest{})
	want(t, err, codes.PermissionDenied, "admin")
	if _, err := operator.Delete(r.ctx, &orchv1.DeleteRequest{Refs: []*orchv1.Ref{{Kind: orchapi.KindSecret, Name: "db"}}}); err != nil {
		t.Error(err)
	}
	_, err = operator.Delete(r.ctx, &orchv1.DeleteRequest{Refs: []*orchv1.Ref{{Kind: orchapi.KindSecret, Name: "db"}}})
	want(t, err, codes.NotFound, "secret default/db")
	_, err = operator.Delete(r.ctx, &orchv1.DeleteRequest{Refs: []*orchv1.Ref{{Kind: orchapi.KindReplica, Name: "web-0"}}})
	want(t, err, codes.InvalidArgument, "want one of the kinds Service, Job, Config, Secret, Volume")
	_, err = operator.Get(r.ctx, &orchv1.GetRequest{Ref: &orchv1.Ref{Kind: orchapi.KindSecret, Name: "db"}})
	want(t, err, codes.NotFound, "secret default/db")
	list, err := operator.List(r.ctx, &orchv1.ListRequest{Kind: orchapi.KindSecret, Selector: "a=b"})
	if err != nil || len(list.Objects) != 0 {
		t.Errorf("secrets by label: %v, %v", list, err)
	}
}
