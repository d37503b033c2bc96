package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/e2e/load"
	"github.com/orchctl/orch/e2e/rig"
	"github.com/orchctl/orch/internal/pki"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// labController is where the lab's controller listens.
const labController = "10.200.0.1:7070"

// agentOn is the command line of another agent on a node, which starts nothing there:
// args come last.
func agentOn(t *testing.T, node, name, data string, args ...string) *exec.Cmd {
	t.Helper()
	address, err := fleet.Address(t.Context(), node)
	must(t, err)
	boot := filepath.Join(data, "boot-id")
	must(t, os.WriteFile(boot, []byte(rand.Text()+"\n"), 0o600))
	cmd, err := fleet.Lab.Command(t.Context(), node, append([]string{"setpriv", "--pdeathsig", "KILL", filepath.Join(rig.Root(), "bin", "agent"),
		"--name", name, "--data", data, "--join", labController, "--address", address, "--boot-id-file", boot, "--gossip-port", "0"}, args...)...)
	must(t, err)
	return cmd
}

// joinMax is how long a join may take that is refused, or one that is not.
const joinMax = 10 * time.Second

// join has a machine join, and gives what its agent said. One that has joined finds no
// containerd, waits for it, and is ended.
func join(t *testing.T, name, token string) (said string, code int, joined bool) {
	t.Helper()
	data, err := os.MkdirTemp(shared, "join-")
	must(t, err)
	cmd := agentOn(t, "n1", name, data, "--token", token, "--containerd", filepath.Join(data, "none.sock"))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	must(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	var over error
	finished := false
	err = rig.Until(t.Context(), joinMax, "the agent of "+name+" to join, or to end", func() error {
		select {
		case over = <-ended:
			finished = true
			return nil
		default:
		}
		if _, err := os.Stat(filepath.Join(data, "pki", "tls.crt")); err != nil {
			return err
		}
		joined = true
		return nil
	})
	if !finished {
		_ = cmd.Process.Kill()
		over = <-ended
	}
	if exit := new(exec.ExitError); err != nil || over != nil && !errors.As(over, &exit) {
		t.Errorf("%v, %v:\n%s", err, over, out.String())
	}
	return out.String(), cmd.ProcessState.ExitCode(), joined
}

// TestTokens: who joins, and who is told at once why not.
func TestTokens(t *testing.T) {
	token := func(args ...string) string {
		return strings.TrimSpace(orchctl(t, append([]string{"token", "create"}, args...)...))
	}
	idOf := func(token string) string { return strings.Split(token, ".")[2] }
	good, short, controller, revoked := token("--uses", "1", "--expires", "1h"), token("--expires", "1s"), token("--role", "controller", "--expires", "1h"), token("--expires", "1h")
	orchctl(t, "token", "revoke", idOf(revoked))
	stranger, err := pki.NewCA("orch", time.Now(), rand.Reader)
	must(t, err)
	foreign, _, err := pki.NewToken(stranger, pki.JoinNode, time.Now(), time.Now().Add(time.Hour), 0, rand.Reader)
	must(t, err)

	said, _, joined := join(t, "guest-1", good)
	if !joined {
		t.Errorf("a good token: the node did not join:\n%s", said)
	}
	t.Cleanup(func() {
		if err := fleet.Must(context.Background(), "node", "remove", "guest-1"); err != nil {
			t.Error(err)
		}
	})
	contains(t, "token list", orchctl(t, "token", "list"), "1 of 1", "used up")
	must(t, rig.Until(t.Context(), 5*time.Second, "the short token to expire", func() error {
		for line := range strings.Lines(orchctl(t, "token", "list")) {
			if strings.HasPrefix(line, idOf(short)) && strings.Contains(line, "expired") {
				return nil
			}
		}
		return errors.New("it has not")
	}))
	for what, x := range map[string]struct {
		token string
		words []string
	}{
		"used up": {good, []string{"used up", "1 of 1", "orchctl token create --role node"}}, "expired": {short, []string{"expired at", "orchctl token create --role node"}},
		"a controller's": {controller, []string{"is for a controller", "orchctl token create --role node"}}, "revoked": {revoked, []string{"revoked", "orchctl token create --role node"}},
		"foreign": {foreign, []string{"does not belong to the token's cluster", "--join"}}, "damaged": {good + "x", []string{"not a join token"}},
	} {
		said, code, joined := join(t, "guest-2", x.token)
		if code != 1 || joined {
			t.Errorf("%s: exit %d, joined %v:\n%s", what, code, joined, said)
		}
		contains(t, what, said, x.words...)
		if strings.Contains(said, x.token) {
			t.Errorf("%s: the token stands in what was said:\n%s", what, said)
		}
	}
	said, code, _ := join(t, "n2", token("--expires", "1h"))
	if code != 1 {
		t.Errorf("a name that is taken: exit %d", code)
	}
	contains(t, "a name that is taken", said, "belongs to another key", "orchctl node remove n2")
}

// TestUsers: a viewer looks and changes nothing; one who is removed is out at once.
func TestUsers(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "alice.yaml")
	contains(t, "user create", orchctl(t, "user", "create", "alice", "--role", "viewer", "--out", file), "orchctl --config "+file+" get nodes")
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("alice's file: %v, %v", info, err)
	}
	as := func(args ...string) (string, int) {
		out, errs, code := fleet.OrchctlIn(t.Context(), strings.NewReader(service("never", 1, "", "")), append([]string{"--config", file}, args...)...)
		return out + errs, code
	}
	if said, code := as("get", "nodes"); code != 0 {
		t.Errorf("alice looks: exit %d\n%s", code, said)
	}
	said, code := as("apply", "-f", "-")
	if code != 1 {
		t.Errorf("a viewer applies: exit %d", code)
	}
	contains(t, "a viewer applies", said, "user alice (viewer) may not do this", "operator")
	_, errs, code := fleet.Orchctl(t.Context(), "user", "create", "alice", "--role", "viewer", "--out", filepath.Join(dir, "b.yaml"))
	if code != 1 {
		t.Errorf("a second alice: exit %d", code)
	}
	contains(t, "a second alice", errs, "--replace")
	contains(t, "user list", orchctl(t, "user", "list"), "alice", "viewer", "admin")

	watch := exec.CommandContext(t.Context(), filepath.Join(rig.Root(), "bin", "orchctl"), "--config", file, "get", "nodes", "-w")
	var seen lockedBuffer
	watch.Stdout, watch.Stderr = &seen, &seen
	must(t, watch.Start())
	must(t, rig.Until(t.Context(), 10*time.Second, "the watch to show something", func() error {
		if !strings.Contains(seen.String(), "n1") {
			return errors.New(seen.String())
		}
		return nil
	}))
	orchctl(t, "user", "remove", "alice")
	ended := make(chan error, 1)
	go func() { ended <- watch.Wait() }()
	select {
	case <-ended:
		if code := watch.ProcessState.ExitCode(); code != 1 {
			t.Errorf("the watch ended with %d", code)
		}
		contains(t, "the watch", seen.String(), "no such user any more")
	case <-time.After(5 * time.Second):
		t.Errorf("the watch of a removed user goes on:\n%s", seen.String())
		_ = watch.Process.Kill()
		<-ended
	}
	said, code = as("get", "nodes")
	if code != 1 {
		t.Errorf("a removed user looks: exit %d", code)
	}
	contains(t, "a removed user", said, "no such user any more", "orchctl user create alice --role viewer")
	_, errs, code = fleet.Orchctl(t.Context(), "user", "remove", "admin")
	if code != 1 {
		t.Errorf("the last admin is removed: exit %d", code)
	}
	contains(t, "the last admin", errs, "last admin")
}

// lockedBuffer is written by a program while it is read.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// sessionsLost is how often agents lost the leader, by their logs.
func sessionsLost(t *testing.T) int {
	t.Helper()
	lost := 0
	for _, n := range nodes {
		b, err := os.ReadFile(filepath.Join(fleet.Lab.Dir(), "nodes", n, "agent.log"))
		must(t, err)
		lost += bytes.Count(b, []byte("no session with the leader"))
	}
	return lost
}

// rotated is how long it may take until every node has a certificate of a new CA.
const rotated = 20 * time.Second

// TestRotations: the CA and gossip's key change under requests through a virtual IP: none
// fails, no session ends, no node is judged.
func TestRotations(t *testing.T) {
	ctx := t.Context()
	apply(t, "turned", service("turned", 2, "", httpProbe))
	s, err := fleet.Service(ctx, "turned")
	must(t, err)
	verdicts, err := rig.List[api.VerdictRecord](ctx, fleet, api.KindVerdict, "")
	must(t, err)
	before := sessionsLost(t)
	running := containers(t)
	traffic, err := fleet.StartOn(ctx, "n1", load.Job{Kind: load.HTTP, Targets: []string{"http://" + s.Status.VIP + ":8080/whoami"}, Rate: 100, Workers: 8, Fresh: true})
	must(t, err)

	authorities := func() []*orchv1.Authority {
		t.Helper()
		r, err := fleet.Orch.ListAuthorities(ctx, &orchv1.ListAuthoritiesRequest{})
		must(t, err)
		return r.GetAuthorities()
	}
	old := authorities()[0].GetHash()
	oldToken := strings.TrimSpace(orchctl(t, "token", "create", "--expires", "1h"))
	began := time.Now()
	contains(t, "ca rotate", orchctl(t, "ca", "rotate"), "orchctl ca retire")
	must(t, rig.Until(ctx, rotated, "nodes and the admin's file to be of the new CA", func() error {
		list := authorities()
		if len(list) != 2 || len(list[0].GetNodes()) < len(nodes) || len(list[1].GetUsers())+len(list[1].GetNodes()) > 0 {
			return fmt.Errorf("CAs: %v", list)
		}
		return nil
	}))
	t.Logf("everybody had a certificate of the new CA after %s", time.Since(began).Round(10*time.Millisecond))
	if said, _, joined := join(t, "guest-3", oldToken); !joined {
		t.Errorf("a token of the old CA, which is trusted yet:\n%s", said)
	}
	orchctl(t, "node", "remove", "guest-3")
	must(t, fleet.Reconnect(ctx)) // with the new certificate of the admin's file
	contains(t, "ca retire", orchctl(t, "ca", "retire", old[:8]), "refused from now on")
	said, code, joined := join(t, "guest-3", oldToken)
	if code != 1 || joined {
		t.Errorf("a token of a retired CA: exit %d, joined %v", code, joined)
	}
	contains(t, "a token of a retired CA", said, "orchctl token create --role node")

	began = time.Now()
	contains(t, "gossip rotate-key", orchctl(t, "gossip", "rotate-key"), "worth nothing")
	t.Logf("gossip had a new key after %s", time.Since(began).Round(10*time.Millisecond))
	// New connections are made with what is new.
	must(t, fleet.Lab.KillProcess(ctx, "n3", "agent", syscall.SIGKILL))
	must(t, fleet.Lab.StartProcess(ctx, "n3", "agent"))
	must(t, fleet.WaitNodes(ctx, len(nodes)))

	report, err := traffic.Stop()
	must(t, err)
	if report.Failed > 0 || report.Requests < 100 {
		t.Errorf("requests under rotations: %s", report)
	}
	after, err := rig.List[api.VerdictRecord](ctx, fleet, api.KindVerdict, "")
	must(t, err)
	for _, v := range after[min(len(verdicts), len(after)):] {
		if v.Node != "n3" {
			t.Errorf("a verdict: %+v", v)
		}
	}
	if lost := sessionsLost(t) - before; lost > 0 {
		t.Errorf("agents lost the leader %d times", lost)
	}
	sameContainers(t, running)
}

// TestClone: of two machines with one key the second is refused, both are named, and what
// runs on the first goes on. A node that was removed is refused too.
func TestClone(t *testing.T) {
	ctx := t.Context()
	added, err := fleet.Lab.AddNode(ctx)
	must(t, err)
	gone := false
	leave := func(ctx context.Context) error {
		if gone {
			return nil
		}
		gone = true
		if err := fleet.Must(ctx, "node", "dead", added, "--force"); err != nil {
			return err
		}
		return fleet.Must(ctx, "node", "remove", added)
	}
	t.Cleanup(func() {
		if err := errors.Join(leave(context.Background()), fleet.Lab.KillNode(context.Background(), added)); err != nil {
			t.Error(err)
		}
	})
	must(t, fleet.WaitNode(ctx, added, api.VerdictHealthy, 20*time.Second))
	must(t, fleet.Lab.KillProcess(ctx, added, "agent", syscall.SIGKILL))

	copied, err := os.MkdirTemp(shared, "clone-")
	must(t, err)
	must(t, os.CopyFS(filepath.Join(copied, "pki"), os.DirFS(filepath.Join(fleet.Lab.Dir(), "nodes", "n2", "agent", "pki"))))
	must(t, os.Chmod(filepath.Join(copied, "pki", "tls.key"), 0o600))
	before := sessionsLost(t)
	clone := agentOn(t, added, "n2", copied)
	var said lockedBuffer
	clone.Stdout, clone.Stderr = &said, &said
	must(t, clone.Start())
	defer func() {
		_ = clone.Process.Kill()
		_ = clone.Wait()
	}()
	must(t, rig.Until(ctx, 10*time.Second, "the copy to be refused", func() error {
		if text := said.String(); !strings.Contains(text, "two machines go by its name and key") || !strings.Contains(text, "orchctl token create") {
			return errors.New(text)
		}
		return nil
	}))
	contains(t, "events", orchctl(t, "events", "--for", "node/n2"), "NodeCloned", "two machines")
	address, err := fleet.Address(ctx, "n2")
	must(t, err)
	stays(t, time.Second, "n2 where it was", func() error {
		all, err := rig.List[api.Node](ctx, fleet, api.KindNode, "")
		if err != nil {
			return err
		}
		for _, n := range all {
			if n.Metadata.Name == "n2" && (n.Status.Address != address || n.Status.Verdict != api.VerdictHealthy) {
				return fmt.Errorf("it is %s at %s", n.Status.Verdict, n.Status.Address)
			}
		}
		return nil
	})
	if lost := sessionsLost(t) - before; lost > 0 {
		t.Errorf("agents lost the leader %d times", lost)
	}

	must(t, leave(ctx))
	must(t, fleet.Lab.StartProcess(ctx, added, "agent"))
	must(t, rig.Until(ctx, 10*time.Second, "the removed node to be refused", func() error {
		b, err := os.ReadFile(filepath.Join(fleet.Lab.Dir(), "nodes", added, "agent.log"))
		if err != nil {
			return err
		}
		if !bytes.Contains(b, []byte("it was removed from the cluster")) {
			return fmt.Errorf("its log has: %s", b[max(0, len(b)-1000):])
		}
		return nil
	}))
}
