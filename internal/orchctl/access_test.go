package orchctl

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/orchctl/orch/internal/clientconfig"
	"github.com/orchctl/orch/internal/pki"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

func TestUserCommands(t *testing.T) {
	dir := t.TempDir()
	in(t, newFake(), func(t *testing.T, r *rig) {
		ca, err := pki.NewCA("orch", time.Now(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		var asked []*orchv1.CreateUserRequest
		r.onUser = func(q *orchv1.CreateUserRequest) (*orchv1.CreateUserResponse, error) {
			asked = append(asked, q)
			cert, err := ca.Sign(q.GetCsr(), pki.Identity{Kind: pki.User, Name: q.GetName(), Role: pki.Role(q.GetRole())}, time.Until(q.GetExpires().AsTime()), time.Now())
			return &orchv1.CreateUserResponse{Certificate: cert, Ca: ca.CertPEM}, err
		}
		for _, c := range []struct {
			args []string
			want string
		}{
			{[]string{"user", "create", "alice"}, "--role viewer, operator or admin"},
			{[]string{"user", "create", "alice", "--role", "king"}, "want viewer, operator or admin"},
			{[]string{"user", "create", "Älice", "--role", "viewer"}, "want lower-case letters"},
			{[]string{"user", "create", "alice", "--role", "viewer", "--expires", "-1h"}, "want a time from now"},
			{[]string{"user", "create", "alice", "--role", "viewer", "--expires", "1w"}, "want a number with a unit, such as 90m, 12h or 7d"},
			{[]string{"token", "create", "--uses", "-1"}, "how many may join"},
		} {
			if got := r.run(c.args...); got.code != exitUsage || !strings.Contains(got.err, c.want) {
				t.Errorf("%v: %s", c.args, got)
			}
		}
		if len(asked) > 0 {
			t.Errorf("asked for %v", asked)
		}
		file := filepath.Join(dir, "alice.yaml")
		got := r.run("user", "create", "alice", "--role", "viewer", "--expires", "30d", "--out", file)
		if got.code != 0 || !strings.Contains(got.out, "orchctl --config "+file+" get nodes") || strings.Contains(got.out, "PRIVATE") {
			t.Error(got)
		}
		if len(asked) != 1 || asked[0].GetReplace() || time.Until(asked[0].GetExpires().AsTime()) != 720*time.Hour {
			t.Errorf("asked for %v", asked)
		}
		c, err := clientconfig.Load(file)
		if err != nil {
			t.Fatal(err)
		}
		x, err := c.Context("")
		if err != nil || x.Name != "test" || !slices.Equal(x.Controllers, []string{"10.0.0.1:7070"}) {
			t.Errorf("context %v, %v", x, err)
		}
		b := pki.Bundle{CA: []byte(x.CA), Cert: []byte(x.Certificate), Key: []byte(x.Key)}
		cert, err := b.Certificate()
		if err != nil {
			t.Fatal(err)
		}
		if id, err := pki.IdentityOf(cert.Leaf); err != nil || id != (pki.Identity{Kind: pki.User, Name: "alice", Role: pki.Viewer}) {
			t.Errorf("identity %v, %v", id, err)
		}
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("file: %v, %v", info, err)
		}
		if got := r.run("user", "create", "alice", "--role", "viewer", "--out", file); got.code != 1 || !strings.Contains(got.err, "--out") || len(asked) != 1 {
			t.Error(got)
		}
		if got := r.run("user", "create", "alice", "--role", "viewer", "--out", file, "--replace"); got.code != 0 || len(asked) != 2 || !asked[1].GetReplace() {
			t.Error(got)
		}
		// What is not just that user's file is not replaced, nor is the user made.
		for name, text := range map[string]string{"web.yaml": "kind: Service\n", "alice.yaml": ""} {
			other := filepath.Join(dir, "others-"+name)
			if text == "" { // alice's file with another cluster in it
				text = "contexts:\n- name: a\n- name: b\n"
			}
			if err := os.WriteFile(other, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			got := r.run("user", "create", "alice", "--role", "viewer", "--out", other, "--replace")
			if data, err := os.ReadFile(other); err != nil || string(data) != text || got.code != 1 || !strings.Contains(got.err, "--out") || len(asked) != 2 {
				t.Errorf("%s: %s, %v", other, got, err)
			}
		}
		if got := r.run("user", "create", "bob", "--role", "admin", "--out", "-"); got.code != 0 || !strings.Contains(got.out, "PRIVATE KEY") || !strings.Contains(got.out, "currentContext: test") {
			t.Error(got)
		}
		r.users = []*orchv1.User{{Name: "admin", Role: "admin", Created: timestamppb.New(time.Now().Add(-time.Hour)), Expires: timestamppb.New(time.Now().Add(48 * time.Hour))},
			{Name: "alice", Role: "viewer", By: "user admin", Created: timestamppb.New(time.Now().Add(-time.Hour)), Expires: timestamppb.New(time.Now().Add(-time.Hour))}}
		want := "NAME    ROLE     AGE   EXPIRES   BY\nadmin   admin    60m   in 2d     a controller's start\nalice   viewer   60m   expired   user admin\n"
		if got := r.run("user", "list"); got.out != want {
			t.Error(got)
		}
		if got := r.run("user", "remove", "alice"); got.code != 0 || got.out != "user alice removed\n" {
			t.Error(got)
		}
		if got := r.run("user", "remove", "alice"); got.code != 1 {
			t.Error(got)
		}

		// From a month before its end a certificate is warned of, once.
		for _, w := range []struct {
			life, left time.Duration
			warned     bool
		}{
			{pki.UserValidity, 29 * 24 * time.Hour, true}, {pki.UserValidity, 31 * 24 * time.Hour, false},
			{8 * time.Hour, 7 * time.Hour, false}, {8 * time.Hour, time.Hour, true}, {pki.UserValidity, -time.Hour, false},
		} {
			of := *cert.Leaf
			of.NotBefore, of.NotAfter = time.Now().Add(w.left-w.life), time.Now().Add(w.left)
			r.env.Cluster = func(string, string) (Cluster, error) {
				return Cluster{Name: "test", Certificate: &of, Dial: r.dial}, nil
			}
			got := r.run("user", "list")
			if n := strings.Count(got.err, "orchctl user create alice --role viewer --replace"); got.code != 0 || (n == 1) != w.warned || n > 1 {
				t.Errorf("%s left of %s: %s", w.left, w.life, got)
			}
		}
	})
}

func TestCACommands(t *testing.T) {
	in(t, newFake(), func(t *testing.T, r *rig) {
		now := time.Now()
		r.authorities = []*orchv1.Authority{
			{Hash: strings.Repeat("ab", 32), Signing: true, Created: timestamppb.New(now.Add(-time.Hour)), Expires: timestamppb.New(now.Add(240 * time.Hour)), Nodes: []string{"n1", "n2"}},
			{Hash: strings.Repeat("cd", 32), Created: timestamppb.New(now.Add(-48 * time.Hour)), Expires: timestamppb.New(now.Add(240 * time.Hour)),
				Nodes: []string{"n3", "n4", "n5", "n6", "n7", "n8", "n9"}, Users: []string{"alice"}},
		}
		want := "HASH           STATE     AGE   EXPIRES   NODES                     USERS\n" +
			"abababababab   signs     60m   in 10d    n1,n2                     -\n" +
			"cdcdcdcdcdcd   trusted   2d    in 10d    n3,n4,n5,n6,n7 and 2 more   alice\n"
		if got := r.run("ca", "list"); strings.Join(strings.Fields(got.out), " ") != strings.Join(strings.Fields(want), " ") {
			t.Error(got)
		}
		if got := r.run("ca", "rotate"); got.code != 0 || !strings.Contains(got.out, "abababababab signs") || !strings.Contains(got.out, "orchctl ca retire") {
			t.Error(got)
		}
		if got := r.run("ca", "retire", "cdcd"); got.code != 0 || !strings.Contains(got.out, "refused from now on") {
			t.Error(got)
		}
		r.fail["RetireAuthority"] = []error{status.Error(codes.FailedPrecondition, "still used by node n3")}
		if got := r.run("ca", "retire", "cdcd", "--force"); got.code != 1 || !strings.Contains(got.err, "still used by node n3") {
			t.Error(got)
		}
		if got := strings.Join(r.retired, ", "); got != "cdcd false, cdcd true" {
			t.Errorf("retired %s", got)
		}
		if got := r.run("gossip", "rotate-key"); got.code != 0 || !strings.Contains(got.out, "key 66bb now") {
			t.Error(got)
		}
		// A rotation is asked for once: what is not answered may have been done.
		r.fail["RotateAuthority"] = []error{unavailable("no leader")}
		if got := r.run("ca", "rotate"); got.code != 1 || r.called("RotateAuthority") != 2 {
			t.Error(got)
		}
	})
}
