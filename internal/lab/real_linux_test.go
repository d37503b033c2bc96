package lab

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orchctl/orch/internal/ociimage"
)

// The tests below make real labs. They need root and fail without it: a lab
// that is not tried is a lab that does not work.

var built struct {
	sync.Once
	dir string
	err error
}

// TestMain also plays the controller and the agent: the lab starts them by
// path, and what it must get right is how.
func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case "maker":
		if err := makeFrom(os.Args[1]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	case "controller", "agent":
		if err := standIn(filepath.Base(os.Args[0]), os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

// binaries builds the shim, and the stand-ins that a test asks for by name.
func binaries(t *testing.T) string {
	t.Helper()
	built.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "orchlabtest-bin-"); built.err != nil {
			return
		}
		for _, b := range []struct{ out, pkg string }{{"shim", "cmd/shim"}, {"web", "images/web"}} {
			cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(built.dir, b.out), "github.com/orchctl/orch/"+b.pkg)
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
			if out, err := cmd.CombinedOutput(); err != nil {
				built.err = fmt.Errorf("build %s: %w: %s", b.pkg, err, out)
				return
			}
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.dir
}

// standIns puts copies of this test beside the built binaries, under the
// names of the programs that they play.
func standIns(t *testing.T, names ...string) {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	program, err := os.ReadFile(self)
	must(t, err)
	for _, name := range names {
		must(t, os.WriteFile(filepath.Join(binaries(t), name), program, 0o755))
	}
}

// makeFrom makes the lab that a file of JSON describes, as `orchctl lab up`
// does in a process of its own.
func makeFrom(file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var c Config
	if err := json.Unmarshal(data, &c); err != nil {
		return err
	}
	_, err = Up(context.Background(), c)
	return err
}

// standIn is a controller that writes its files and tells its agents' names to
// whoever asks on its socket, or an agent that tells its name to it.
func standIn(role string, args []string) error {
	flags := map[string]string{}
	for i := 0; i+1 < len(args); i += 2 {
		flags[args[i]] = args[i+1]
	}
	if role == "agent" {
		token, err := os.ReadFile(flags["--token-file"])
		if err != nil {
			return err
		}
		bootID, err := os.ReadFile(flags["--boot-id-file"])
		if err != nil {
			return err
		}
		containerd, err := net.Dial("unix", flags["--containerd"])
		if err != nil {
			return err
		}
		containerd.Close()
		conn, err := net.Dial("tcp", flags["--join"])
		if err != nil {
			return err
		}
		fmt.Fprintf(conn, "%s %s %s %s\n", flags["--name"], conn.LocalAddr().(*net.TCPAddr).IP, token, strings.TrimSpace(string(bootID)))
		select {}
	}
	var mu sync.Mutex
	var joined []string
	l, err := net.Listen("tcp", flags["--listen"])
	if err != nil {
		return err
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				line, _ := bufio.NewReader(conn).ReadString('\n')
				mu.Lock()
				defer mu.Unlock()
				joined = append(joined, strings.TrimSpace(line))
			}()
		}
	}()
	for _, flag := range []string{"--node-token-file", "--write-admin-context"} {
		if err := os.WriteFile(flags[flag], []byte("secret"), 0o600); err != nil {
			return err
		}
	}
	os.Remove(flags["--socket"]) // of an earlier life
	s, err := net.Listen("unix", flags["--socket"])
	if err != nil {
		return err
	}
	for {
		conn, err := s.Accept()
		if err != nil {
			return err
		}
		mu.Lock()
		fmt.Fprintln(conn, strings.Join(joined, "\n"))
		mu.Unlock()
		conn.Close()
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test makes a real lab and needs root: run it by sudo, or leave it out with -skip TestLab")
	}
}

// config is that of a lab with a name of this process's own, so that labs of
// others on the machine do not matter.
func config(t *testing.T, suffix string) Config {
	t.Helper()
	needRoot(t)
	dir, err := os.MkdirTemp("", "orchlabtest-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return Config{
		Name:     fmt.Sprintf("t%d-%s", os.Getpid(), suffix),
		Dir:      filepath.Join(dir, "lab"),
		BinDir:   binaries(t),
		Daemons:  ContainerdOnly,
		Progress: func(step string) { t.Log(step) },
	}
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func up(t *testing.T, c Config) *Lab {
	t.Helper()
	l, err := Up(testContext(t), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := Remove(context.Background(), c.Name, c.Dir); err != nil {
			t.Error(err)
		}
		for _, trace := range traces(t, c) {
			t.Errorf("left behind: %s", trace)
		}
	})
	return l
}

// traces finds everything on the machine that belongs to a lab, by other
// means than the lab itself uses.
func traces(t *testing.T, c Config) []string {
	t.Helper()
	var found []string
	if _, err := os.Lstat(c.Dir); !errors.Is(err, fs.ErrNotExist) {
		found = append(found, "folder "+c.Dir)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, c.Name) || strings.Contains(line, c.Dir) {
			found = append(found, "mount "+line)
		}
	}
	if names, err := filepath.Glob("/run/netns/*" + c.Name + "*"); err != nil || len(names) > 0 {
		found = append(found, fmt.Sprint("netns ", names, err))
	}
	for _, pattern := range []string{"/sys/fs/cgroup/orchlab/", "/sys/fs/cgroup/*/orchlab/"} {
		dirs, err := filepath.Glob(pattern + c.Name)
		if err != nil || len(dirs) > 0 {
			found = append(found, fmt.Sprint("cgroup ", dirs, err))
		}
	}
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if link.Name == bridgeName || bytes.HasPrefix(link.HardwareAddr, []byte{0x02, 0x6f}) {
			found = append(found, "link "+link.Name)
		}
	}
	for _, p := range processesOf(t, c) {
		found = append(found, "process "+p)
	}
	return found
}

// processesOf lists processes that name the lab's folder or whose cgroup is
// the lab's.
func processesOf(t *testing.T, c Config) []string {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, dir := range dirs {
		line, _ := os.ReadFile(dir + "/cmdline")
		cgroup, _ := os.ReadFile(dir + "/cgroup")
		if len(line) == 0 { // a zombie: dead, and not ours to reap
			continue
		}
		if bytes.Contains(line, []byte(c.Dir+"/")) || bytes.Contains(cgroup, []byte("/orchlab/"+c.Name)) {
			found = append(found, filepath.Base(dir)+" "+strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return found
}

func status(t *testing.T, l *Lab, node string) HostStatus {
	t.Helper()
	s, err := l.Status(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(s.Nodes, func(n HostStatus) bool { return n.Name == node })
	if i < 0 {
		t.Fatalf("no %s in %+v", node, s)
	}
	return s.Nodes[i]
}

// run runs a program on a node ("" is the outer network) and returns its
// output.
func run(t *testing.T, l *Lab, node string, args ...string) (string, error) {
	t.Helper()
	cmd, err := l.Command(testContext(t), node, args...)
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func mustRun(t *testing.T, l *Lab, node string, args ...string) string {
	t.Helper()
	out, err := run(t, l, node, args...)
	if err != nil {
		t.Fatalf("%v on %q: %v: %s", args, node, err, out)
	}
	return out
}

// pings says whether one ping of a few is answered.
func pings(t *testing.T, l *Lab, from, to string) bool {
	t.Helper()
	addr := map[string]string{"controller": "10.200.0.1", "n1": "10.200.0.11", "n2": "10.200.0.12"}[to]
	if from == "controller" {
		from = ""
	}
	_, err := run(t, l, from, "ping", "-c", "1", "-W", "1", addr)
	return err == nil
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	must(t, poll(t.Context(), 10*time.Second, what, func() (bool, error) { return done(), nil }))
}

// serveWeb runs the demo's image in a container on a node, by containerd's own
// tool.
func serveWeb(t *testing.T, l *Lab, c Config, node string) {
	t.Helper()
	program, err := os.ReadFile(filepath.Join(c.BinDir, "web"))
	must(t, err)
	archive := filepath.Join(c.Dir, "web.tar")
	f, err := os.Create(archive)
	must(t, err)
	must(t, ociimage.Pack(f, ociimage.Options{
		Ref:        "orch.local/web:1.0",
		Files:      map[string]ociimage.File{"/bin/web": {Data: program, Mode: 0o755}},
		Entrypoint: []string{"/bin/web"},
		Env:        []string{"VERSION=1.0"},
	}))
	must(t, f.Close())
	mustRun(t, l, node, "ctr", "-n", "t", "images", "import", archive)
	mustRun(t, l, node, "ctr", "-n", "t", "run", "-d", "--net-host",
		"--cgroup", status(t, l, node).CgroupParent+"/web", "orch.local/web:1.0", "web")
}

func fetch(t *testing.T, l *Lab, url string) (string, error) {
	t.Helper()
	client := &http.Client{
		Transport: &http.Transport{DialContext: l.Dial, DisableKeepAlives: true},
		Timeout:   2 * time.Second,
	}
	resp, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

func TestLabKillAndStart(t *testing.T) {
	t.Parallel()
	c := config(t, "kill")
	c.Nodes = 2
	l := up(t, c)
	ctx := testContext(t)

	if out := mustRun(t, l, "n1", "hostname"); out != "n1\n" {
		t.Errorf("hostname %q", out)
	}
	// A host sees itself alone, and holds nobody's network.
	if out := mustRun(t, l, "n1", "cat", "/proc/1/cmdline"); !strings.Contains(out, "n1/spec.json") {
		t.Errorf("PID 1 of n1 is %q", out)
	}
	if out := mustRun(t, l, "n1", "cat", "/proc/1/mountinfo"); strings.Contains(out, "nsfs") || !strings.Contains(out, " /sys/fs/cgroup") {
		t.Errorf("mounts of n1: want cgroups and no named namespace:\n%s", out)
	}
	serveWeb(t, l, c, "n1")
	var body string
	await(t, "wait for the web server", func() (ok bool) {
		var err error
		body, err = fetch(t, l, "http://10.200.0.11:8080/")
		return err == nil
	})
	if !strings.Contains(body, "version: 1.0") {
		t.Errorf("the web server says %q", body)
	}

	before := status(t, l, "n1")
	inside, err := members("/orchlab/" + c.Name + "/n1")
	must(t, err)
	if len(inside) < 4 { // init, containerd, its shim, web
		t.Fatalf("processes of n1: %v", inside)
	}
	replicas, err := members(before.CgroupParent)
	must(t, err)
	if len(replicas) != 1 {
		t.Errorf("processes in %s: %v, want the web server alone", before.CgroupParent, replicas)
	}
	mustRun(t, l, "n1", "touch", "/run/volatile", "/var/lib/durable")

	began := time.Now()
	must(t, l.KillNode(ctx, "n1"))
	took := time.Since(began)
	t.Logf("power cut took %s", took)
	if took > 5*time.Second { // it takes a tenth of a second; a busy machine is no failure
		t.Errorf("power cut took %s", took)
	}
	for _, pid := range inside {
		if p, err := identify(pid); err == nil && p.alive() {
			t.Errorf("process %d of n1 lives on", pid)
		}
	}
	if s := status(t, l, "n1"); s.Power != Off || s.Pid != 0 {
		t.Errorf("n1 after its power cut: %+v", s)
	}
	if links := mustRun(t, l, "", "ip", "-o", "link"); strings.Contains(links, " n1@") || !strings.Contains(links, " n2@") {
		t.Errorf("links after the power cut of n1:\n%s", links)
	}
	if pings(t, l, "n2", "n1") {
		t.Error("n1 answers without power")
	}
	if s := status(t, l, "n2"); s.Power != On || s.Processes[0].Pid == 0 {
		t.Errorf("n2 after the power cut of n1: %+v", s)
	}
	must(t, l.KillNode(ctx, "n1")) // once more changes nothing
	if _, err := l.Command(ctx, "n1", "true"); !errors.Is(err, ErrOff) {
		t.Errorf("a command on n1: %v, want ErrOff", err)
	}
	if err := l.KillProcess(ctx, "n1", "containerd", unix.SIGKILL); !errors.Is(err, ErrOff) {
		t.Errorf("kill containerd on n1: %v, want ErrOff", err)
	}

	must(t, l.StartNode(ctx, "n1"))
	after := status(t, l, "n1")
	if after.Power != On || after.BootID == before.BootID || len(after.BootID) != 36 {
		t.Errorf("n1 after its return: %+v; boot id before %s", after, before.BootID)
	}
	if written, err := os.ReadFile(filepath.Join(c.Dir, "nodes/n1/boot-id")); err != nil || string(written) != after.BootID+"\n" {
		t.Errorf("boot id file: %q, %v", written, err)
	}
	if !pings(t, l, "n2", "n1") {
		t.Error("n1 does not answer after its return")
	}
	if out, err := run(t, l, "n1", "ls", "/run/volatile"); err == nil {
		t.Errorf("what was in /run is still there: %s", out)
	}
	mustRun(t, l, "n1", "ls", "/var/lib/durable")
	if out := mustRun(t, l, "n1", "ctr", "-n", "t", "containers", "ls", "-q"); out != "web\n" {
		t.Errorf("containers in the data folder: %q", out)
	}
	if out := mustRun(t, l, "n1", "ctr", "-n", "t", "tasks", "ls", "-q"); out != "" {
		t.Errorf("running after a reboot: %q", out)
	}
	if err := l.StartNode(ctx, "n1"); err == nil || !strings.Contains(err.Error(), "it is on") {
		t.Errorf("start of a node that is on: %v", err)
	}

	name, err := l.AddNode(ctx)
	must(t, err)
	if s := status(t, l, "n3"); name != "n3" || s.Power != On || s.Address.String() != "10.200.0.13" {
		t.Errorf("added %s: %+v", name, s)
	}
	if again, err := Open(c.Dir); err != nil || again.Name() != c.Name {
		t.Errorf("open: %+v, %v", again, err)
	}
	if _, err := Up(ctx, c); err == nil || !strings.Contains(err.Error(), "exists") {
		t.Errorf("the same lab again: %v", err)
	}
	if s := status(t, l, "n3"); s.Power != On {
		t.Errorf("n3 after a refused second up: %+v", s)
	}
	must(t, l.Stun(ctx, "n2", 0)) // the clean-up must cope with a frozen node
}

func TestLabFaults(t *testing.T) {
	t.Parallel()
	c := config(t, "faults")
	c.Nodes = 2
	l := up(t, c)
	ctx := testContext(t)

	type want map[string]bool // "from to" -> answered
	all := want{"n1 n2": true, "n1 controller": true, "n2 controller": true, "controller n1": true}
	check := func(when string, w want) {
		t.Helper()
		var wg sync.WaitGroup
		for pair, answered := range w {
			wg.Go(func() {
				from, to, _ := strings.Cut(pair, " ")
				if got := pings(t, l, from, to); got != answered {
					t.Errorf("%s: ping %s: %v, want %v", when, pair, got, answered)
				}
			})
		}
		wg.Wait()
	}
	check("at first", all)
	must(t, l.Cut(ctx, "n1", "n2", false))
	check("n1 - n2 cut", want{"n1 n2": false, "n2 n1": false, "n1 controller": true, "n2 controller": true})
	must(t, l.Heal(ctx))
	check("healed", all)
	must(t, l.Cut(ctx, "n1", "", false))
	check("n1 cut", want{"n1 n2": false, "n1 controller": false, "controller n1": false, "n2 controller": true})
	must(t, l.Heal(ctx, "n2"))
	check("only n2 healed", want{"n1 n2": false, "n2 controller": true})
	must(t, l.Heal(ctx, "n1"))
	check("n1 healed", all)
	must(t, l.Cut(ctx, "n1", "controller", false))
	check("n1 - controller cut", want{"n1 n2": true, "n1 controller": false, "n2 controller": true})
	must(t, l.Heal(ctx))
	must(t, l.Loss(ctx, "n1", 100))
	check("n1 loses all", want{"n1 n2": false, "n2 controller": true})
	must(t, l.Loss(ctx, "n1", 0))
	check("n1 loses nothing", all)

	// One way: n2 hears n1's frames, n1 hears nothing of n2. Counted where
	// they arrive, by what the kernel received.
	must(t, l.Cut(ctx, "n2", "n1", true))
	heard := func(node string) string {
		out := mustRun(t, l, node, "cat", "/proc/net/snmp")
		for line := range strings.Lines(out) {
			if strings.HasPrefix(line, "Icmp:") && !strings.Contains(line, "InMsgs") {
				return strings.Fields(line)[1]
			}
		}
		t.Fatalf("no Icmp in %s", out)
		return ""
	}
	n1, n2 := heard("n1"), heard("n2")
	if pings(t, l, "n1", "n2") {
		t.Error("n1 is answered by n2, which it should not hear")
	}
	if heard("n2") == n2 || heard("n1") != n1 {
		t.Errorf("ICMP received by n2: %s, then %s (want more); by n1: %s, then %s (want no more)", n2, heard("n2"), n1, heard("n1"))
	}
	must(t, l.Heal(ctx))

	for _, bad := range []error{l.Cut(ctx, "n9", "", false), l.Cut(ctx, "n1", "n9", false), l.Cut(ctx, "n1", "n1", false), l.Loss(ctx, "n1", 101), l.Heal(ctx, "n9")} {
		if bad == nil {
			t.Error("a fault of a node that is not there, or of a wrong measure, was accepted")
		}
	}
	s, err := l.Status(ctx)
	must(t, err)
	if len(s.Faults) != 0 {
		t.Errorf("faults at the end: %v", s.Faults)
	}
}

func TestLabStunAndProcesses(t *testing.T) {
	t.Parallel()
	c := config(t, "stun")
	c.Nodes = 1
	l := up(t, c)
	ctx := testContext(t)

	containerd := func() ProcessStatus { return status(t, l, "n1").Processes[0] }
	first := containerd()
	answers := func() bool {
		cctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		defer cancel()
		cmd, err := l.Command(cctx, "n1", "ctr", "version")
		must(t, err)
		return cmd.Run() == nil
	}

	must(t, l.Stun(ctx, "n1", 0))
	if s := status(t, l, "n1"); s.Power != Stunned {
		t.Errorf("stunned: %+v", s)
	}
	if pings(t, l, "controller", "n1") {
		t.Error("a stunned node answers")
	}
	must(t, l.Resume(ctx, "n1"))
	if !pings(t, l, "controller", "n1") || containerd() != first {
		t.Errorf("after the stun: %+v, before %+v", containerd(), first)
	}
	began := time.Now()
	must(t, l.Stun(ctx, "n1", 200*time.Millisecond))
	if took := time.Since(began); took < 200*time.Millisecond || took > time.Second {
		t.Errorf("a stun of 200ms took %s", took)
	}
	if s := status(t, l, "n1"); s.Power != On {
		t.Errorf("after a timed stun: %+v", s)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if err := l.Stun(ended, "n1", time.Hour); err == nil {
		if s := status(t, l, "n1"); s.Power != On {
			t.Errorf("after a stun that was called off: %+v", s)
		}
	}

	must(t, l.Pause(ctx, "n1", "containerd", 0))
	if p := containerd(); !p.Paused || answers() {
		t.Errorf("paused: %+v; it must not answer", p)
	}
	must(t, l.Resume(ctx, "n1"))
	if p := containerd(); p.Paused || !answers() {
		t.Errorf("resumed: %+v; it must answer", p)
	}

	serveWeb(t, l, c, "n1")
	web, err := members(status(t, l, "n1").CgroupParent)
	must(t, err)
	must(t, l.KillProcess(ctx, "n1", "containerd", unix.SIGKILL))
	if p := containerd(); p.Pid != 0 || p.Ended != "signal 9" {
		t.Errorf("killed: %+v", p)
	}
	if err := l.KillProcess(ctx, "n1", "containerd", unix.SIGKILL); err == nil || !strings.Contains(err.Error(), "not running") {
		t.Errorf("killed again: %v", err)
	}
	must(t, l.StartProcess(ctx, "n1", "containerd"))
	if p := containerd(); p.Pid == 0 || p.Pid == first.Pid || p.Ended != "" {
		t.Errorf("started: %+v, before %+v", p, first)
	}
	if err := l.StartProcess(ctx, "n1", "containerd"); err == nil || !strings.Contains(err.Error(), "already running") {
		t.Errorf("started again: %v", err)
	}
	if out := mustRun(t, l, "n1", "ctr", "-n", "t", "tasks", "ls", "-q"); out != "web\n" {
		t.Errorf("tasks after the restart of containerd: %q", out)
	}
	if now, err := members(status(t, l, "n1").CgroupParent); err != nil || !slices.Equal(now, web) {
		t.Errorf("processes of the replica: %v (%v), before %v", now, err, web)
	}
	if err := l.StartProcess(ctx, "n1", "agent"); err == nil || !strings.Contains(err.Error(), "there are: containerd") {
		t.Errorf("start of a program that the lab has not: %v", err)
	}
	socket, err := l.ContainerdSocket("n1")
	must(t, err)
	conn, err := net.Dial("unix", socket)
	must(t, err)
	must(t, conn.Close())
}

// TestLabRemovesHalfMade leaves a lab half made in several ways, as a crash of
// its maker would.
func TestLabRemovesHalfMade(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	for _, test := range []struct {
		name string
		make func(t *testing.T, c Config)
	}{
		{"nothing", func(*testing.T, Config) {}},
		{"folder", func(t *testing.T, c Config) { must(t, os.Mkdir(c.Dir, 0o700)) }},
		{"unnamed state", func(t *testing.T, c Config) {
			must(t, os.Mkdir(c.Dir, 0o700))
			must(t, os.WriteFile(filepath.Join(c.Dir, "lab.json.new"), []byte("{"), 0o600))
		}},
		{"network", func(t *testing.T, c Config) {
			must(t, (&Lab{name: c.Name, dir: c.Dir}).claim(&c))
			must(t, makeNetwork(&c))
		}},
		{"network without a folder", func(t *testing.T, c Config) { must(t, makeNetwork(&c)) }},
		{"host that nobody wrote down", func(t *testing.T, c Config) {
			l := &Lab{name: c.Name, dir: c.Dir}
			must(t, l.claim(&c))
			must(t, makeNetwork(&c))
			h := hostOf(&c, "n1")
			must(t, os.MkdirAll(h.dir, 0o700))
			_, err := powerOn(ctx, &c, h, "", nil)
			must(t, err)
		}},
		{"folder lost", func(t *testing.T, c Config) {
			c.Nodes = 1
			_, err := Up(ctx, c)
			must(t, err)
			must(t, os.RemoveAll(c.Dir))
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := config(t, strings.ReplaceAll(test.name, " ", "-")[:4])
			must(t, c.check())
			must(t, c.look())
			t.Cleanup(func() { Remove(context.Background(), c.Name, c.Dir) })
			test.make(t, c)
			must(t, Remove(ctx, c.Name, c.Dir))
			for _, trace := range traces(t, c) {
				t.Errorf("left behind: %s", trace)
			}
			must(t, Remove(ctx, c.Name, c.Dir)) // once more
		})
	}
}

func TestLabRemoveSparesOthersFolders(t *testing.T) {
	c := config(t, "spare")
	must(t, os.Mkdir(c.Dir, 0o700))
	precious := filepath.Join(c.Dir, "precious")
	must(t, os.WriteFile(precious, nil, 0o600))
	if err := Remove(testContext(t), c.Name, c.Dir); err == nil || !strings.Contains(err.Error(), "not a lab's folder") {
		t.Errorf("remove: %v", err)
	}
	if _, err := Up(testContext(t), c); err == nil || !strings.Contains(err.Error(), "is not empty") {
		t.Errorf("up: %v", err)
	}
	if _, err := os.Stat(precious); err != nil {
		t.Error(err)
	}
}

// TestLabUpFails makes Up fail late: what it made by then must go, and the
// error must say why.
func TestLabUpFails(t *testing.T) {
	t.Parallel()
	c := config(t, "fails")
	c.Nodes = 2
	c.Containerd = filepath.Join(t.TempDir(), "containerd")
	must(t, os.WriteFile(c.Containerd, []byte("#!/bin/sh\necho no disk today\nexit 7\n"), 0o755))
	_, err := Up(testContext(t), c)
	if err == nil || !strings.Contains(err.Error(), "exit 7") || !strings.Contains(err.Error(), "no disk today") {
		t.Errorf("up: %v", err)
	}
	for _, trace := range traces(t, c) {
		t.Errorf("left behind: %s", trace)
	}
}

// TestLabAll makes a lab with controller and agents, and sees them reach each
// other, with the programs of TestMain in their place.
func TestLabAll(t *testing.T) {
	t.Parallel()
	c := config(t, "all")
	standIns(t, "controller", "agent")
	c.Nodes = 3
	c.Daemons = All
	began := time.Now()
	l := up(t, c)
	t.Logf("up in %s", time.Since(began))
	ctx := testContext(t)

	joined := func() []string {
		conn, err := net.Dial("unix", l.ControllerSocket())
		must(t, err)
		defer conn.Close()
		answer, err := io.ReadAll(conn)
		must(t, err)
		lines := strings.Split(strings.TrimSpace(string(answer)), "\n")
		slices.Sort(lines)
		return lines
	}
	var want []string
	for _, node := range []string{"n1", "n2", "n3"} {
		s := status(t, l, node)
		want = append(want, fmt.Sprintf("%s %s secret %s", node, s.Address, s.BootID))
	}
	await(t, "wait for the agents to join", func() bool { return slices.Equal(joined(), want) })

	s, err := l.Status(ctx)
	must(t, err)
	if s.Controller == nil || s.Controller.Power != On || s.Controller.Processes[0].Pid == 0 {
		t.Errorf("controller: %+v", s.Controller)
	}
	if len(s.Nodes[0].Processes) != 2 || s.Nodes[0].Processes[1].Name != "agent" || s.Nodes[0].Processes[1].Pid == 0 {
		t.Errorf("processes of n1: %+v", s.Nodes[0].Processes)
	}
	must(t, l.StopController(ctx, unix.SIGKILL))
	if _, err := net.Dial("unix", l.ControllerSocket()); err == nil {
		t.Error("the controller answers after its end")
	}
	must(t, l.StartController(ctx))
	must(t, l.KillProcess(ctx, "n2", "agent", unix.SIGKILL))
	must(t, l.StartProcess(ctx, "n2", "agent"))
	must(t, l.KillNode(ctx, "n3"))
	must(t, l.StartNode(ctx, "n3"))
	n3 := status(t, l, "n3")
	await(t, "wait for the agents to join again", func() bool {
		return slices.Equal(joined(), []string{want[1], "n3 10.200.0.13 secret " + n3.BootID})
	})
}

// TestLabOutlivesItsMaker makes labs in processes of their own: what one made
// stays when it ends, and can be removed when it is killed half-way.
func TestLabOutlivesItsMaker(t *testing.T) {
	t.Parallel()
	c := config(t, "maker")
	c.Nodes = 2
	standIns(t, "maker")
	t.Cleanup(func() { Remove(context.Background(), c.Name, c.Dir) })
	ctx := testContext(t)
	file := filepath.Join(t.TempDir(), "config.json")
	data, err := json.Marshal(c)
	must(t, err)
	must(t, os.WriteFile(file, data, 0o600))

	if out, err := exec.Command(filepath.Join(c.BinDir, "maker"), file).CombinedOutput(); err != nil {
		t.Fatalf("maker: %v: %s", err, out)
	}
	l, err := Open(c.Dir)
	must(t, err)
	if s := status(t, l, "n2"); s.Power != On || s.Processes[0].Pid == 0 || !pings(t, l, "n1", "n2") {
		t.Errorf("n2 after its maker's end: %+v", s)
	}
	must(t, l.KillNode(ctx, "n1"))
	must(t, l.Down(ctx))
	for _, trace := range traces(t, c) {
		t.Errorf("left behind: %s", trace)
	}

	for _, stage := range []string{"lab.json", "nodes/n1/spec.json", "nodes/n2/containerd.log"} {
		maker := exec.Command(filepath.Join(c.BinDir, "maker"), file)
		must(t, maker.Start())
		await(t, "wait for "+stage, func() bool {
			_, err := os.Stat(filepath.Join(c.Dir, stage))
			return err == nil
		})
		must(t, maker.Process.Kill())
		maker.Wait()
		must(t, Remove(ctx, c.Name, c.Dir))
		for _, trace := range traces(t, c) {
			t.Errorf("maker killed at %s: left behind: %s", stage, trace)
		}
	}
}
