package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/unit"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/e2e/rig"
	"github.com/orchctl/orch/internal/lab"
)

// servers is a lab of machines on which nothing of orch is, yet. Its tests are what
// systemd would be there: they start what the installed units say.
type servers struct {
	*lab.Lab
	t       *testing.T
	release string // folder of a release's files, which every server sees
}

const installPort = "7070"

func newServers(t *testing.T, name string, n int) *servers {
	t.Helper()
	ctx := t.Context()
	must(t, lab.Remove(ctx, name, lab.DirFor(name)))
	l, err := lab.Up(ctx, lab.Config{Name: name, Nodes: n, BinDir: filepath.Join(rig.Root(), "bin"), Daemons: lab.Empty})
	must(t, err)
	t.Cleanup(func() { must(t, l.Down(context.Background())) })
	s := &servers{Lab: l, t: t, release: filepath.Join(l.Dir(), "release")}
	must(t, os.MkdirAll(s.release, 0o755))
	for _, file := range []string{"bin/agent", "bin/shim", "bin/controller", "bin/orchctl", "out/images/web.tar", "out/images/web2.tar",
		"deploy/install.sh", "deploy/agent.yaml", "deploy/controller.yaml", "deploy/systemd/orch-agent.service", "deploy/systemd/orch-controller.service"} {
		text, err := os.ReadFile(filepath.Join(rig.Root(), file))
		must(t, err)
		must(t, os.WriteFile(filepath.Join(s.release, filepath.Base(file)), text, 0o755))
	}
	return s
}

// run runs a command on a server; what it says is given in any case.
func (s *servers) run(node string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	var out bytes.Buffer
	err := s.Exec(ctx, node, nil, &out, args...)
	return out.String(), err
}

func (s *servers) must(node string, args ...string) string {
	s.t.Helper()
	out, err := s.run(node, args...)
	if err != nil {
		s.t.Fatalf("%v\n%s", err, out)
	}
	return out
}

func (s *servers) install(node string, args ...string) string {
	s.t.Helper()
	return s.must(node, append([]string{filepath.Join(s.release, "install.sh")}, args...)...)
}

func (s *servers) path(node, path string) string {
	s.t.Helper()
	inside, err := s.Inside(node, path)
	must(s.t, err)
	return inside
}

func (s *servers) read(node, path string) string {
	s.t.Helper()
	b, err := os.ReadFile(s.path(node, path))
	must(s.t, err)
	return string(b)
}

func (s *servers) address(node string) string {
	s.t.Helper()
	all, err := s.Status(s.t.Context())
	must(s.t, err)
	i := slices.IndexFunc(all.Nodes, func(h lab.HostStatus) bool { return h.Name == node })
	return all.Nodes[i].Address.String()
}

// start starts a service as systemd would, as far as its unit says what to run, with
// which rights and surroundings, and returns when it has said that it is ready.
func (s *servers) start(node, service string) {
	t := s.t
	t.Helper()
	f, err := os.Open(s.path(node, "/etc/systemd/system/"+service+".service"))
	must(t, err)
	defer f.Close()
	options, err := unit.DeserializeOptions(f)
	must(t, err)
	var run string
	var environment, rights []string
	for _, o := range options {
		switch o.Name {
		case "ExecStart":
			run = o.Value
		case "Environment":
			environment = append(environment, o.Value)
		case "NoNewPrivileges":
			rights = append(rights, "--no-new-privs")
		case "CapabilityBoundingSet":
			rights = append(rights, "--bounding-set", boundingSet(o.Value))
		}
	}
	socket := filepath.Join(s.Dir(), node+"-"+service+".notify")
	os.Remove(socket)
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	must(t, err)
	defer conn.Close()
	environment = append(environment, "NOTIFY_SOCKET="+socket)
	log := s.log(node, service)
	script := fmt.Sprintf("echo $$ >/run/%s.pid; exec env %s setpriv %s %s >>%s 2>&1 </dev/null", service, strings.Join(environment, " "), strings.Join(rights, " "), run, log)
	s.must(node, "setsid", "--fork", "sh", "-c", script)
	must(t, conn.SetReadDeadline(time.Now().Add(30*time.Second)))
	for b := make([]byte, 1024); ; {
		n, err := conn.Read(b)
		if err != nil {
			words, _ := os.ReadFile(log)
			t.Fatalf("%s on %s does not say that it is ready: %v\n%s", service, node, err, words)
		}
		if strings.HasPrefix(string(b[:n]), "READY=1") {
			return
		}
	}
}

func (s *servers) log(node, service string) string {
	return filepath.Join(s.Dir(), node+"-"+service+".log")
}

// boundingSet turns what a unit says into what setpriv takes.
func boundingSet(value string) string {
	list, without := strings.CutPrefix(value, "~")
	sign, words := "+", []string{"-all"}
	if without {
		sign, words = "-", nil
	}
	for _, c := range strings.Fields(list) {
		words = append(words, sign+strings.ToLower(strings.TrimPrefix(c, "CAP_")))
	}
	return strings.Join(words, ",")
}

// stop ends the service's own process and nothing else, as KillMode=process does.
func (s *servers) stop(node, service string) {
	s.t.Helper()
	s.must(node, "sh", "-c", fmt.Sprintf("pid=$(cat /run/%s.pid); kill $pid; for i in $(seq 200); do kill -0 $pid 2>/dev/null || exit 0; sleep 0.05; done; exit 1", service))
}

// orchctl asks the controller from its own server, where root has the admin's context.
func (s *servers) orchctl(args ...string) string {
	s.t.Helper()
	return s.must("n1", append([]string{"orchctl"}, args...)...)
}

// nodes waits until so many nodes are healthy, and gives them by name.
func (s *servers) nodes(n int, good func(api.Node) bool) map[string]api.Node {
	t := s.t
	t.Helper()
	var out string
	var err error
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if out, err = s.run("n1", "orchctl", "get", "nodes", "-o", "json"); err != nil {
			continue
		}
		all := map[string]api.Node{}
		var list struct{ Items []api.Node }
		must(t, json.Unmarshal([]byte(out), &list))
		for _, x := range list.Items {
			if good(x) {
				all[x.Metadata.Name] = x
			}
		}
		if len(all) == n {
			return all
		}
	}
	t.Fatalf("not %d nodes as they should be: %v\n%s", n, err, out)
	return nil
}

func healthy(n api.Node) bool { return n.Status.Verdict == api.VerdictHealthy }

// lives are the containers of a server: their processes, each with when it began.
func (s *servers) lives(node string) []string {
	t := s.t
	t.Helper()
	all, err := s.Containers()
	must(t, err)
	var out []string
	for _, c := range all {
		if c.Node == node {
			out = append(out, c.ID+" "+s.must(node, "sh", "-c", `for p in $(cat $(find /sys/fs/cgroup -path "*/`+c.ID+`/cgroup.procs" | head -1)); do cut -d" " -f1,22 /proc/$p/stat; done`))
		}
	}
	slices.Sort(out)
	return out
}

// upgraded makes another version of a program: one letter of what it says its version
// is, wherever that stands in it.
func (s *servers) upgraded(program string) string {
	t := s.t
	t.Helper()
	path := filepath.Join(s.release, program)
	text, err := os.ReadFile(path)
	must(t, err)
	version := strings.Fields(s.must("n1", path, "--version"))[1]
	next := "x" + version[1:]
	if len(version) < 7 {
		t.Fatalf("version %q is too short to be found in the program", version)
	}
	must(t, os.WriteFile(path+".next", bytes.ReplaceAll(text, []byte(version), []byte(next)), 0o755))
	must(t, os.Rename(path+".next", path))
	return next
}

// TestInstall sets up a cluster on empty servers with the script alone, upgrades it and
// takes it away, with what the units of systemd say.
func TestInstall(t *testing.T) {
	ownLab(t)
	s := newServers(t, "install", 3)
	defer func() {
		if t.Failed() {
			logs, _ := filepath.Glob(filepath.Join(s.Dir(), "*.log"))
			for _, path := range logs {
				words, _ := os.ReadFile(path)
				t.Logf("%s:\n%s", path, words)
			}
		}
	}()
	controller := s.address("n1") + ":" + installPort

	said := s.install("n1", "controller", "--listen", controller)
	if !strings.Contains(said, "start it by hand") || !strings.Contains(said, "--join "+controller) {
		t.Errorf("without systemd the script says how to go on, and how nodes join; it said\n%s", said)
	}
	s.start("n1", "orch-controller")
	var token string
	for deadline := time.Now().Add(20 * time.Second); token == "" && time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if out, err := s.run("n1", "orchctl", "token", "create", "--role", "node"); err == nil {
			token = strings.TrimSpace(out)
		}
	}
	if token == "" {
		t.Fatal("no token to be had")
	}

	// A machine that is not ready is refused with what to do, and nothing is put on it.
	join := func(node string) []string {
		flags, err := s.AgentFlags(node)
		must(t, err)
		return append([]string{"agent", "--join", controller, "--token", token, "--label", "zone=eu-1", "--label", "disk=ssd"}, flags...)
	}
	out, err := s.run("n2", append([]string{filepath.Join(s.release, "install.sh")}, join("n2")...)...)
	if err == nil || !strings.Contains(out, "FAIL   containerd") || !strings.Contains(out, "-> apt-get install containerd and start it") {
		t.Errorf("without containerd: %v\n%s", err, out)
	}
	if _, err := os.Stat(s.path("n2", "/usr/local/lib/orch/agent")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a refused installation has put something: %v", err)
	}

	for _, node := range []string{"n2", "n3"} {
		must(t, s.StartProcess(t.Context(), node, "containerd"))
		s.install(node, join(node)...)
		if info, err := os.Stat(s.path(node, "/etc/orch/token")); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the token on %s: %v, %v", node, info, err)
		}
		if text := s.read(node, "/etc/orch/agent.yaml"); strings.Contains(text, token) || !strings.Contains(text, "label: ['zone=eu-1','disk=ssd']") {
			t.Errorf("settings of %s:\n%s", node, text)
		}
		s.start(node, "orch-agent")
	}
	before := s.nodes(2, healthy)
	if l := before["n2"].Metadata.Labels; l["zone"] != "eu-1" || l["disk"] != "ssd" {
		t.Errorf("labels %v", l)
	}
	s.orchctl("image", "load", filepath.Join(s.release, "web.tar"))
	manifest := service("site", 2, "", httpProbe)
	must(t, os.WriteFile(filepath.Join(s.release, "site.yaml"), []byte(manifest), 0o644))
	s.orchctl("apply", "-f", filepath.Join(s.release, "site.yaml"), "--timeout", "30s")
	run2, run3 := s.lives("n2"), s.lives("n3")
	if len(run2) == 0 || len(run3) == 0 {
		t.Fatalf("containers: %q and %q", run2, run3)
	}

	// Upgrading touches the programs, and no container, nor what an administrator wrote.
	next := s.upgraded("agent")
	s.must("n2", "sh", "-c", "echo 'log-level: debug' >>/etc/orch/agent.yaml")
	mine := s.read("n2", "/etc/orch/agent.yaml")
	if said := s.install("n2", append(join("n2"), "--label=tier=web")...); !strings.Contains(said, "changed by hand and stays") || !strings.Contains(said, "is held by agent") {
		t.Errorf("a second run said\n%s", said)
	}
	if s.read("n2", "/etc/orch/agent.yaml") != mine || !strings.Contains(s.read("n2", "/etc/orch/agent.yaml.new"), "'tier=web'") {
		t.Error("settings that were changed by hand do not stay, or the new ones are nowhere")
	}
	if said := s.install("n3", "agent"); !strings.Contains(said, "/etc/orch/agent.yaml stays as it is") {
		t.Errorf("a second run without settings said\n%s", said)
	}
	for _, node := range []string{"n2", "n3"} {
		s.stop(node, "orch-agent")
		s.start(node, "orch-agent")
	}
	s.nodes(2, func(n api.Node) bool { return healthy(n) && n.Status.Version == next })
	if after2, after3 := s.lives("n2"), s.lives("n3"); !slices.Equal(run2, after2) || !slices.Equal(run3, after3) {
		t.Errorf("the upgrade touched containers: %q and %q, then %q and %q", run2, run3, after2, after3)
	}

	// Uninstalling leaves containers and data, unless it is told to purge.
	s.stop("n3", "orch-agent")
	s.install("n3", "uninstall")
	if after := s.lives("n3"); !slices.Equal(run3, after) {
		t.Errorf("uninstalling touched containers: %q, then %q", run3, after)
	}
	for path, stays := range map[string]bool{"/usr/local/lib/orch/agent": false, "/etc/systemd/system/orch-agent.service": false, "/usr/local/bin/orch-agent": false,
		"/etc/orch/agent.yaml": true, "/var/lib/orch/agent/pki": true} {
		if _, err := os.Lstat(s.path("n3", path)); (err == nil) != stays {
			t.Errorf("after uninstalling, %s: %v", path, err)
		}
	}
	s.stop("n2", "orch-agent")
	s.install("n2", "uninstall", "--purge")
	if left := s.lives("n2"); len(left) > 0 {
		t.Errorf("purging leaves %q", left)
	}
	for _, path := range []string{"/usr/local/lib/orch", "/etc/orch", "/var/lib/orch/agent", "/var/lib/orch/install"} {
		if entries, err := os.ReadDir(s.path("n2", path)); err == nil {
			t.Errorf("purging leaves %s with %v", path, entries)
		}
	}
}
