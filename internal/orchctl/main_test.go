package orchctl

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/clientconfig"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

func TestUsage(t *testing.T) {
	in(t, newFake(), func(t *testing.T, r *rig) {
		for _, c := range []struct{ line, want string }{
			{"aply -f x", `unknown command "aply" for "orchctl"; did you mean "apply"?`},
			{"config use", "usage: orchctl config use-context NAME"},
			{"config veiw", `did you mean "view"?`},
			{"ps", `unknown command "ps" for "orchctl"; did you mean ` + "`orchctl get replicas`?"},
			{"node drain n1", "did you mean `orchctl drain NODE`?"},
			{"node cordon n1", "did you mean `orchctl cordon NODE`?"},
			{"drain", "usage: orchctl drain NODE..."},
			{"drain n1 --abort --deadline 10m", "leave out --deadline"},
			{"drain n1 --deadline -1m", "want a time from now"},
			{"drain n1 --deadline 0", "want a time from now"},
			{"drain service/web", `"service/web" is no node`},
			{"rebalance n1", `unexpected argument "n1"`},
			{"rebalance --dry-run --wait", "leave out --wait"},
			{"net chekc", `did you mean "check"?`},
			{"net ping", "did you mean `orchctl net check`?"},
			{"net check replica/web-0", `"replica/web-0" is no node`},
			{"forward web-0 80", "did you mean `orchctl port-forward`?"},
			{"port-forward web-0", "usage: orchctl port-forward"},
			{"port-forward node/n1 80", "a node has no ports"},
			{"port-forward service/ 80", "the name is missing"},
			{"port-forward web-0 80:90:100", "want PORT, LOCAL:PORT or :PORT"},
			{"port-forward web-0 80:", "want PORT, LOCAL:PORT or :PORT"},
			{"port-forward web-0 70000", "ports go from 1 to 65535"},
			{"port-forward web-0 70000:80", "want PORT, LOCAL:PORT"},
			{"port-forward web-0 80 --address here", "want an IP address of this machine"},
			{"version now", `unexpected argument "now"`},
			{"get services --request-timeout x", `invalid argument "x" for "--request-timeout" flag: want a duration`},
			{"logs web-0 --tail x", "want a number; see"},
			{"get", "say what: service, job, replica, endpoint, config, secret, volume, outcome, node, event, verdict or fleet"},
			{"get pods", `there is no kind "pods"; did you mean "replica"?`},
			{"get services -o xml", "-o xml: want wide, yaml, json, name"},
			{"get services -l a,,b", "a condition is empty"},
			{"get services web -l a=b", "not both"},
			{"get services web -A", "leave out -A"},
			{"get services,nodes -w", "-w watches one type"},
			{"get verdict n2", "`orchctl get verdicts --node n2`"},
			{"get nodes --node n2", "--node is for all verdicts on a node"},
			{"get verdict n2/3 --node n2", "--node is for all verdicts on a node"},
			{"get verdicts -l a=b", "-l: verdicts have no labels"},
			{"describe node n2 --verdicts -1", "--verdicts -1: want a number, or 0 for all"},
			{"describe node n2 --verdicts many", "want a number; see"},
			{"node thaw", "did you mean `orchctl fleet thaw`?"},
			{"fleet thaw n2", `unexpected argument "n2"`},
			{"fleet melt", "`orchctl fleet --help` lists them"},
			{"get event 7", "orchctl events --for"},
			{"get service/web nodes", `"nodes": want TYPE/NAME`},
			{"get service replica/web-0", "names a kind again"},
			{"get services --no-such-flag", "see `orchctl get --help`"},
			{"apply", "name a manifest with -f"},
			{"apply web.yaml", "orchctl apply -f web.yaml"},
			{"apply -f web.yaml --prune", "--prune needs a selector (-l): without one it would delete everything that is not in the files"},
			{"apply -f web.yaml --prune -l , --yes", "a condition is empty"},
			{"apply -f web.yaml -l app=web", "give --prune too, or leave out -l"},
			{"apply -f web.yaml -y", "give --prune too, or leave out --yes"},
			{"delete", "say what to delete"},
			{"delete service", "name the services to delete"},
			{"delete service/web -f x", "either TYPE/NAME, or a manifest"},
			{"delete node/n1", "orchctl node remove"},
			{"scale", "usage: orchctl scale service/NAME --replicas N"},
			{"scale service/web", "say how many with --replicas, as in `orchctl scale service/web --replicas=3`"},
			{"scale service/web 2", "unexpected argument \"2\": say how many with --replicas, as in `orchctl scale service/web --replicas=2`"},
			{"scale web 2", "`orchctl scale web --replicas=2`"},
			{"scale service web 2", "`orchctl scale service web --replicas=2`"},
			{"scale service/web service/api --replicas 2", "only a service is scaled, one at a time: want service/NAME"},
			{"scale service/web --replicas -1", "want 0 or more"},
			{"scale node/n1 --replicas 1", "only a service is scaled"},
			{"exec web-0 ls --", "want a replica, --, and a command"},
			{"exec web-0", "want a replica, --, and a command"},
			{"logs", "an argument is missing\nusage: orchctl logs"},
			{"logs web-0 --tail -5", "--tail -5"},
			{"token create --role king", "want node or controller"},
			{"token create --expires -1h", "want a time from now"},
			{"cordon", "usage: orchctl cordon NODE..."},
			{"node kill n1", `unknown command "kill" for "orchctl node"`},
			{"events --for event/1", "want a service, job, replica, config, secret, volume or node"},
			{"version -o wide", "want json or yaml"},
			{"rollout status", "usage: orchctl rollout status service/NAME"},
			{"rollout resume deployment/pr", `there is no kind "deployment"; did you mean "service"?`},
			{"rollout status shop/web", `there is no kind "shop"`},
			{"rollout undo ds web", `there is no kind "ds"; did you mean "service"?`},
			{"history deploy/pr", `there is no kind "deploy"; did you mean "service"?`},
			{"scale deployment/pr --replicas 2", `there is no kind "deployment"`},
			{"rollout pause node/n1", "only a service is rolled out: want service/NAME"},
			{"rollout undo web --to-revision 0", "--to-revision 0: they count from 1"},
			{"rollout undo web --revision 2", "unknown flag: --revision; see"},
			{"rollout pause web --wait", "unknown flag: --wait"},
			{"create secret app --from-litteral a=b", "unknown flag: --from-litteral; see `orchctl create secret --help`"},
			{"create secret docker-registry hub --docker-server=a", "`orchctl create secret registry hub --server HOST"},
			{"create secret tls hub --cert=a", "leave out \"tls\""},
			{"create secret registry hub --docker-server=a", "--docker-server: use --server"},
			{"create secret hub --type registry", "`orchctl create secret registry hub --server HOST"},
			{"rollout status web --revision -1", "--revision -1: they count from 1"},
			{"rollout history web", "did you mean `orchctl history service/NAME`?"},
			{"rollback web", "did you mean `orchctl rollout undo service/NAME`?"},
			{"restart web", "did you mean `orchctl rollout restart service/NAME`?"},
			{"history", "usage: orchctl history service/NAME"},
			{"history services", `only a service has a history`},
			{"history web -o name", "-o name: want wide, yaml, json"},
			{"diff", "name a manifest with -f"},
			{"diff web.yaml", `unexpected argument "web.yaml"`},
			{"get services --revision 3", "--revision is of one service"},
			{"get node n1 --revision 3", "--revision is of one service"},
			{"get service web --revision 0", "--revision 0: they count from 1"},
			{"get revisions", "did you mean `orchctl history service/NAME`?"},
			{"lab no-such", "lab"},
		} {
			got := r.run(strings.Fields(c.line)...)
			if got.code != 2 || !strings.HasPrefix(got.err, "orchctl: ") || !strings.Contains(got.err, c.want) || got.out != "" {
				t.Errorf("%s: %s\nwant %q and exit 2", c.line, got, c.want)
			}
		}
		if len(r.calls) > 0 {
			t.Errorf("the controller was asked: %v", r.calls)
		}
	})
}

// TestEveryCommandHelps: each has a sentence, and help works everywhere.
func TestEveryCommandHelps(t *testing.T) {
	r := newRig(t, newFake(), nil)
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		path := strings.Fields(cmd.CommandPath())[1:]
		if got := r.run(append(path, "--help")...); got.code != 0 || !strings.Contains(got.out, "Usage:") {
			t.Errorf("help of %v: %s", path, got)
		}
		if cmd.Short == "" {
			t.Errorf("%v has no sentence", path)
		}
		for line := range strings.Lines(cmd.Long) {
			if len(line) > 100 {
				t.Errorf("%v: this line is to be wrapped: %s", path, line)
			}
		}
		ours := len(path) > 0 && path[0] != "lab" && path[0] != "completion" && path[0] != "help"
		if ours && cmd.Example == "" {
			t.Errorf("%v has no example", path)
		}
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk((&tool{Env: r.env}).tree())
}

// TestErrors: each status in words, with what to do.
func TestErrors(t *testing.T) {
	bad, err := status.New(codes.InvalidArgument, "spec.replicas: too many; metadata.name: bad").WithDetails(&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
		{Field: "spec.replicas", Description: "too many"}, {Field: "metadata.name", Description: "\x1b[2Jbad"}, {Field: "objects[0].spec.containers[0].ports[0].publish", Description: "port 80/TCP is taken"},
		{Field: "objects[0]", Description: "is too large"}, {Field: "objects[7].kind", Description: "is unknown"}}})
	if err != nil {
		t.Fatal(err)
	}
	away, err := status.New(codes.Unavailable, "exec: node n1 is away").WithDetails(&errdetails.ErrorInfo{Reason: "NODE_AWAY"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		line, method string
		err          error
		code         int
		want         string
	}{
		{"apply -f - --wait=false", "Apply", bad.Err(), 2, "orchctl: apply: the controller refuses it\n  spec.replicas: too many\n  metadata.name: [2Jbad\n" +
			"  <stdin>:1: document 1: spec.containers[0].ports[0].publish: port 80/TCP is taken\n  <stdin>:1: document 1: is too large\n  objects[7].kind: is unknown\n"},
		{"apply -f - --wait=false", "Apply", status.Error(codes.PermissionDenied, "user eve (viewer) may not do this"), 1,
			"orchctl: apply: user eve (viewer) may not do this\nuse a context with the role operator or admin (`orchctl config get-contexts` shows yours), or ask an admin\n"},
		{"token create", "CreateToken", status.Error(codes.PermissionDenied, "no"), 1, "the role admin ("},
		{"fleet thaw", "NodeWord", status.Error(codes.PermissionDenied, "no"), 1, "the role admin ("},
		{"node dead n1", "NodeWord", status.Error(codes.PermissionDenied, "no"), 1, "the role admin ("},
		{"apply -f - --wait=false", "Apply", status.Error(codes.FailedPrecondition, "service default/web: it changed; get it again"), 1, "orchctl: apply: service default/web: it changed; get it again\n"},
		{"get services", "List", status.Error(codes.Unauthenticated, "unknown certificate"), 1, "get a new context file from an admin"},
		{"get services", "List", status.Error(codes.Unimplemented, "unknown method"), 1, "`orchctl version`"},
		{"get services", "List", status.Error(codes.ResourceExhausted, "the store is full"), 1, "a limit of the cluster is reached"},
		{"get services", "List", status.Error(codes.Internal, "a bug"), 1, "orchctl: get services: a bug\n"},
		{"exec web-0 -- ls", "Exec", away.Err(), 1, "`orchctl get nodes -o wide`"},
	} {
		in(t, newFake(frozenFleet()), func(t *testing.T, r *rig) {
			r.fail[c.method] = []error{c.err}
			r.onNode = func(*orchv1.NodeWordRequest) error { return nil }
			r.env.In = strings.NewReader(webYAML)
			if got := r.run(strings.Fields(c.line)...); got.code != c.code || !strings.Contains(got.err, c.want) {
				t.Errorf("%s, %s: %s\nwant exit %d and\n%s", c.line, c.method, got, c.code, c.want)
			}
		})
	}
	in(t, newFake(), func(t *testing.T, r *rig) {
		for range 1000 {
			r.fail["List"] = append(r.fail["List"], unavailable("no leader"))
		}
		began := time.Now()
		got := r.run("get", "services")
		if took := time.Since(began); got.code != 1 || took > readPatience || took < readPatience/2 || !strings.Contains(got.err, "orchctl: get services: no leader\ncheck that a controller runs and that this machine reaches 10.0.0.1:7070") {
			t.Errorf("after %s: %s", took, got)
		}
	})
	in(t, newFake(), func(t *testing.T, r *rig) {
		r.onApply = func(*orchv1.ApplyRequest) (*orchv1.ApplyResponse, error) {
			time.Sleep(time.Minute)
			return nil, errors.New("too late")
		}
		r.env.In = strings.NewReader(webYAML)
		got := r.run("apply", "-f", "-", "--wait=false", "--request-timeout", "2s")
		if got.code != 1 || !strings.Contains(got.err, "orchctl: apply: no answer within 2s\n") || !strings.Contains(got.err, "--request-timeout") {
			t.Error(got)
		}
		time.Sleep(time.Minute)
	})
}

// TestDialing: a read fails at once where nobody answers, a change waits for a
// controller that restarts.
func TestDialing(t *testing.T) {
	in(t, newFake(), func(t *testing.T, r *rig) {
		dials, refuse, real := 0, 5, r.dial
		r.dial = func(ctx context.Context) (grpc.ClientConnInterface, func() error, error) {
			if dials++; dials <= refuse {
				return nil, nil, &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
			}
			return real(ctx)
		}
		if got := r.run("get", "services"); got.code != 1 || dials != 1 || !strings.Contains(got.err, "connection refused\nthe host answers, but nothing listens there") {
			t.Errorf("%d dials: %s", dials, got)
		}
		r.env.In = strings.NewReader(webYAML)
		if got := r.run("apply", "-f", "-", "--wait=false"); got.code != 0 || dials != 6 {
			t.Errorf("%d dials: %s", dials, got)
		}
	})
}

func TestNodesAndTokens(t *testing.T) {
	f := newFake()
	in(t, f, func(t *testing.T, r *rig) {
		var said []string
		r.onNode = func(q *orchv1.NodeWordRequest) error {
			word := q.Word + " " + q.Node
			if q.Force {
				word += " by force"
			}
			said = append(said, word)
			if q.Node == "n9" {
				return status.Error(codes.NotFound, "node n9: not found")
			}
			return nil
		}
		if got := r.run("cordon", "n1", "n9", "node/n2"); got.out != "node/n1 cordoned\nnode/n2 cordoned\n" || got.err != "orchctl: cordon node/n9: node n9: not found\n" || got.code != 1 {
			t.Error(got)
		}
		if got := r.run("node", "dead", "n1"); got.code != 0 {
			t.Error(got)
		}
		if got := r.run("node", "remove", "n1"); got.code != 0 || got.out != "node/n1 removed\n" || !strings.Contains(got.err, "has to join anew") {
			t.Error(got)
		}
		f.put(draining1(nil)) // cordoned, maybe: that is not to be ended by mistake
		if got := r.run("drain", "n1", "--abort"); got.code != 1 || got.err != "orchctl: node/n1 is not being drained\n" {
			t.Error(got)
		}
		f.put(draining1(&api.Drain{By: "user alice", Since: epoch}))
		if got := r.run("drain", "n1", "--abort"); got.code != 0 || got.out != "node/n1 drain ended: it gets new replicas again, and keeps what is left\n" {
			t.Error(got)
		}
		if got := r.run("node", "dead", "n3", "--force"); got.code != 0 || got.out != "node/n3 declared dead\n" {
			t.Error(got)
		}
		if got := r.run("uncordon", "n1"); got.code != 0 || got.out != "node/n1 uncordoned\n" {
			t.Error(got)
		}
		if got := strings.Join(said, ", "); got != "cordon n1, cordon n9, cordon n2, dead n1, remove n1, uncordon n1, dead n3 by force, uncordon n1" {
			t.Errorf("said %s", got)
		}

		if got := r.run("token", "create", "--role", "controller", "--expires", "1h"); got.out != "orch-controller-secret\n" || got.code != 0 || !f.asked[0].Expires.AsTime().Equal(time.Now().Add(time.Hour)) {
			t.Error(got, f.asked)
		}
		f.fail["CreateToken"] = []error{unavailable("no leader")}
		if got := r.run("token", "create"); got.code != 1 || f.called("CreateToken") != 2 {
			t.Errorf("a token is not made twice: %s", got)
		}
		if got := r.run("token", "list"); got.err != "No tokens.\n" || got.code != 0 {
			t.Error(got)
		}
		f.tokens = []*orchv1.Token{{Id: "5f3a", Role: "node", Created: timestamppb.New(time.Now().Add(-time.Hour)), Expires: timestamppb.New(time.Now().Add(23 * time.Hour)), Uses: 2},
			{Id: "77aa", Role: "controller", Created: timestamppb.New(time.Now().Add(-time.Hour)), Expires: timestamppb.New(time.Now().Add(-time.Minute))},
			{Id: "88bb", Role: "node", Created: timestamppb.New(time.Now().Add(-time.Hour)), Expires: timestamppb.New(time.Now().Add(23 * time.Hour)), Uses: 3, MaxUses: 3}}
		want := "ID     ROLE         AGE   EXPIRES   USES     STATE\n5f3a   node         60m   in 23h    2        good\n77aa   controller   60m   expired   0        expired\n88bb   node         60m   in 23h    3 of 3   used up\n"
		if got := r.run("token", "list"); got.out != want {
			t.Error(got)
		}
		if got := r.run("token", "revoke", "5f3a"); got.out != "token 5f3a revoked\n" || len(f.tokens) != 2 {
			t.Error(got)
		}
		if got := r.run("token", "revoke", "5f3a"); got.code != 1 {
			t.Error(got)
		}
	})
}

func TestVersion(t *testing.T) {
	in(t, newFake(), func(t *testing.T, r *rig) {
		if got := r.run("version"); got.code != 0 || !strings.Contains(got.out, "Client: ") || !strings.Contains(got.out, "Controller:  v0.1.0\nLeader:      c1, term 7\nCluster:     5f3a, 3 nodes\n") {
			t.Error(got)
		}
		if got := r.run("version", "--client"); got.code != 0 || strings.Contains(got.out, "Controller") || r.called("Version") != 1 {
			t.Error(got)
		}
		r.fail["Version"] = []error{status.Error(codes.PermissionDenied, "no")}
		if got := r.run("version", "-o", "json"); got.code != 1 || !strings.Contains(got.out, `"client"`) {
			t.Errorf("the client's version is told without a controller: %s", got)
		}
	})
}

func TestCompletion(t *testing.T) {
	in(t, world(), func(t *testing.T, r *rig) {
		for _, c := range []struct{ line, want string }{
			{"get service |", "idle web :4"}, {"get service web |", "idle :4"}, {"get node/|", "node/n1 node/n2 node/n3 :4"}, {"get no|", "node nodes :4"},
			{"exec job|", "job-0 :4"}, {"logs service/w|", "service/web :4"}, {"cordon |", "n1 n2 n3 :4"}, {"drain n1 |", "n2 n3 :4"}, {"net check |", "n1 n2 n3 :4"}, {"get endpoints |", "idle web :4"},
			{"port-forward service/w|", "service/web :4"}, {"port-forward web-0 |", ":4"}, {"events --for |", "service/ job/ replica/ config/ secret/ volume/ node/ :6"},
			{"get verdicts --node |", "n1 n2 n3 :4"}, {"get verdict |", ":4"}, {"get fl|", "fleet :4"},
			{"scale service/|", "service/idle service/web :4"}, {"get services -o |", "wide yaml json name :4"},
			{"rollout undo service/w|", "service/web :4"}, {"history service |", "idle web :4"}, {"diff --color |", "auto always never :4"},
		} {
			words := strings.Split(strings.TrimSuffix(c.line, "|"), " ")
			got := r.run(append([]string{"__complete"}, words...)...)
			if have := strings.Join(strings.Fields(got.out), " "); have != c.want {
				t.Errorf("%s\ngot  %s\nwant %s", c.line, have, c.want)
			}
		}
	})
	if got := newRig(t, newFake(), nil).run("completion", "bash"); got.code != 0 || !strings.Contains(got.out, "__start_orchctl") {
		t.Errorf("completion bash: exit %d", got.code)
	}
}

func TestConfig(t *testing.T) {
	r := newRig(t, newFake(), nil)
	r.env.Cluster = fromFile
	path := filepath.Join(t.TempDir(), "config.yaml")
	c := &clientconfig.Config{CurrentContext: "home", Contexts: []clientconfig.Context{
		{Name: "home", Controllers: []string{"10.0.0.1:7070"}, Key: "SECRET", Certificate: "C", CA: "A"}, {Name: "work", Controllers: []string{"10.1.0.1:7070", "10.1.0.2:7070"}, Namespace: "shop", Key: "SECRET"}}}
	if err := c.Save(path); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) result { return r.run(append([]string{"--config", path}, args...)...) }
	want := "CURRENT   NAME   CONTROLLERS                   NAMESPACE   CERTIFICATE\n*         home   10.0.0.1:7070                 default     none\n          work   10.1.0.1:7070,10.1.0.2:7070   shop        none\n"
	if got := run("config", "get-contexts"); got.out != want || got.code != 0 {
		t.Error(got)
	}
	if got := run("config", "use-context", "work"); got.code != 0 {
		t.Error(got)
	}
	after, err := clientconfig.Load(path)
	if err != nil || after.CurrentContext != "work" || after.Contexts[0].Key != "SECRET" {
		t.Errorf("%v, %v", after, err)
	}
	if got := run("config", "view"); got.code != 0 || strings.Contains(got.out, "SECRET") || !strings.Contains(got.out, "currentContext: work") {
		t.Error(got)
	}
	if got := run("config", "use-context", "nowhere"); got.code != 1 || !strings.Contains(got.err, "there are home, work") {
		t.Error(got)
	}
	if got := run("--context", "nowhere", "get", "services"); got.code != 1 || !strings.Contains(got.err, "there are home, work: choose one with --context") {
		t.Error(got)
	}
	if got := r.run("--config", "/no/such.yaml", "get", "services"); got.code != 1 || !strings.Contains(got.err, "there is no context file /no/such.yaml: the controller's first start writes one") {
		t.Error(got)
	}
}

// TestReadyNeedsEverything guards apply's word that a service is ready.
func TestReadyNeedsEverything(t *testing.T) {
	spare := func(r *api.Replica) { r.Spec.Spare = true }
	two := []*api.Replica{replica("web", 0, 1, "n1", running(true)), replica("web", 1, 2, "n2", running(true))}
	for _, c := range []struct {
		name     string
		service  *api.Service
		replicas []*api.Replica
		want     bool
	}{
		{"all ready", service("web", 2, all(2)), two, true},
		{"one not", service("web", 2, counts(2, 1)), []*api.Replica{two[0], replica("web", 1, 2, "n2", running(false))}, false},
		{"replicas not seen yet", service("web", 2, all(2)), two[:1], false},
		{"an old one is left", service("web", 2, func(s *api.Service) {
			s.Status = api.ServiceStatus{Revision: 1, Replicas: 3, Ready: 2, Updated: 2, UpdatedReady: 2}
		}), two, false},
		{"one too many", service("web", 1, all(1)), two, false},
		{"one too many is stopping", service("web", 1, all(1)), []*api.Replica{two[0], replica("web", 1, 2, "n2", func(r *api.Replica) { r.Status.Phase = api.PhaseStopping })}, true},
		{"a spare beside", service("web", 2, all(2)), append(two[:2:2], replica("web", 1, 3, "n3", spare)), true},
		{"a spare instead", service("web", 2, all(2)), []*api.Replica{two[0], replica("web", 1, 2, "n2", running(true), lastKnown), replica("web", 1, 3, "n3", running(true), spare)}, true},
		{"none wanted", service("web", 0, all(0)), nil, true},
	} {
		x := newTrack(c.service, "created", epoch, epoch, nil)
		for _, r := range c.replicas {
			x.see(sighting{put, objectOf(r), nil}, epoch.Add(time.Second))
		}
		if got := x.ready(epoch.Add(time.Second)); got != c.want {
			t.Errorf("%s: ready is %v", c.name, got)
		}
	}
}

func TestTexts(t *testing.T) {
	for d, want := range map[time.Duration]string{12 * time.Millisecond: "12ms", 840 * time.Millisecond: "0.84s", 500 * time.Millisecond: "0.5s", 2340 * time.Millisecond: "2.34s",
		12340 * time.Millisecond: "12.3s", 5 * time.Minute: "5m", 65 * time.Second: "1m5s", 10 * time.Second: "10s", 100 * time.Minute: "1h40m", 20 * time.Hour: "20h"} {
		if got := short(d); got != want {
			t.Errorf("short(%s) = %s, want %s", d, got, want)
		}
	}
	for d, want := range map[time.Duration]string{5 * time.Second: "5s", 119 * time.Second: "119s", 3*time.Minute + 2*time.Second: "3m2s", 20 * time.Minute: "20m", 5 * time.Hour: "5h", 30 * time.Hour: "30h",
		75 * time.Hour: "3d3h", 400 * time.Hour: "16d", -time.Second: "0s"} {
		if got := age(epoch, epoch.Add(-d)); got != want {
			t.Errorf("age of %s = %s, want %s", d, got, want)
		}
	}
	if got := cleanText("a\x1b[31mb\nc\u202ed"); strings.ContainsAny(got, "\x1b\n\u202e") {
		t.Errorf("cleanText leaves %q", got)
	}
}

// TestImports: orchctl runs on people's machines, macOS too.
func TestImports(t *testing.T) {
	const module = "github.com/orchctl/orch/"
	for _, goos := range []string{"linux", "darwin"} {
		cmd := exec.Command("go", "list", "-deps", module+"cmd/orchctl")
		cmd.Env = append(os.Environ(), "GOOS="+goos, "CGO_ENABLED=0")
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		deps := strings.Fields(string(out))
		if len(deps) < 100 {
			t.Fatalf("%d imports", len(deps))
		}
		for _, d := range deps {
			for _, not := range []string{module + "agent", module + "internal/controller", module + "internal/store", "go.etcd.io/", "github.com/containerd/"} {
				if strings.HasPrefix(d, not) {
					t.Errorf("%s: orchctl imports %s", goos, d)
				}
			}
		}
	}
	if testing.Short() {
		return // the build is the slow half
	}
	cmd := exec.Command("go", "build", "-o", os.DevNull, module+"cmd/orchctl")
	cmd.Env = append(os.Environ(), "GOOS=darwin", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("build for darwin: %v\n%s", err, out)
	}
}
