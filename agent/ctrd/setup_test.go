package ctrd

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/vishvananda/netlink"

	"github.com/orchctl/orch/agent/logs"
	"github.com/orchctl/orch/api"
)

// The tests share one containerd. It runs, as the tests do, in network, mount
// and pid namespaces of their own: when the tests end, however they do,
// everything that they started is gone.
var env struct {
	dir    string // of everything
	socket string
	shim   string
	layer  v1.Layer
	image  v1.Image
	parent string // cgroup
	ctrd   *exec.Cmd
	r      *Runtime
	// forgets: this containerd, 2.x, loses the exit code of what ends while it is away.
	forgets bool
}

const testImage = "orch.test/probe:1"

func TestMain(m *testing.M) {
	const inside = "ORCH_CTRD_TEST_INSIDE"
	if dir := os.Getenv(inside); dir != "" {
		os.Exit(runInside(m, dir))
	}
	dir, err := os.MkdirTemp("", "orch-ctrd-")
	if err != nil {
		panic(err)
	}
	code := 0
	build := func(out, pkg string) {
		cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(dir, out), pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if b, err := cmd.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build %s: %v\n%s", pkg, err, b)
			code = 1
		}
	}
	build("shim", "../../cmd/shim")
	build("probe", "./testdata/probe")
	if code == 0 {
		cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
		cmd.Env = append(os.Environ(), inside+"="+dir)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
		runtime.LockOSThread() // the signal comes when this thread ends
		if err := cmd.Run(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	for _, pattern := range []string{"/sys/fs/cgroup/*/" + filepath.Base(dir), "/sys/fs/cgroup/" + filepath.Base(dir)} {
		left, _ := filepath.Glob(pattern)
		for _, cg := range left {
			if err := os.Remove(cg); err != nil {
				fmt.Fprintln(os.Stderr, "cgroups are left:", err)
				code = 1
			}
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func runInside(m *testing.M, dir string) int {
	check := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	if os.Getpid() == 1 {
		check(syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""))
		check(syscall.Mount("proc", "/proc", "proc", 0, ""))
		return runAsInit()
	}
	lo, err := netlink.LinkByName("lo")
	check(err)
	check(netlink.LinkSetUp(lo))
	env.dir, env.socket, env.shim = dir, dir+"/containerd.sock", dir+"/shim"
	env.parent = "/" + filepath.Base(dir)
	env.layer, err = layer(dir + "/probe")
	check(err)
	env.image, err = pack(v1.Config{
		Entrypoint: []string{"/probe"}, Cmd: []string{"out=from the image"},
		Env: []string{"FROM=image", "BOTH=image"}, WorkingDir: "/work", StopSignal: "SIGQUIT",
	})
	check(err)
	check(os.WriteFile(dir+"/containerd.toml", fmt.Appendf(nil, `version = 2
root = %q
state = %q
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs"]
[grpc]
address = %q
`, dir+"/root", dir+"/state", env.socket), 0o644))
	startContainerd()
	env.r, err = Dial(context.Background(), testConfig())
	check(err)
	check(load(testImage, env.image))
	code := m.Run()
	left, err := env.r.List(context.Background())
	if err != nil || len(left) > 0 {
		fmt.Fprintln(os.Stderr, "containers are left:", left, err)
		code = 1
	}
	// Without this a cgroup may still be busy when our parent removes it.
	env.ctrd.Process.Kill()
	env.ctrd.Wait()
	if code != 0 {
		b, _ := os.ReadFile(dir + "/containerd.log")
		fmt.Fprintf(os.Stderr, "containerd's last words:\n%s\n", b[max(0, len(b)-4000):])
	}
	return code
}

// runAsInit is the pid namespace's first process: it runs the tests as its
// child and takes in orphans, for a dead container without a shim would else
// hold its cgroup.
func runAsInit() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		panic(err)
	}
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		if err == nil && pid == cmd.Process.Pid {
			if !status.Exited() {
				return 1
			}
			return status.ExitStatus()
		}
	}
}

func testConfig() Config {
	return Config{
		Address: env.socket, Namespace: "orchtest", ShimPath: env.shim, LogDir: env.dir + "/logs",
		StateDir: env.dir + "/files", MemoryDir: env.dir + "/memory", CgroupParent: env.parent, Incarnation: "inc-1",
		Node: "n1", AllowBind: []string{env.dir + "/srv/data", env.dir + "/srv/link"},
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
}

func startContainerd() {
	out, err := os.OpenFile(env.dir+"/containerd.log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		panic(err)
	}
	defer out.Close()
	version, err := exec.Command("containerd", "--version").Output()
	if err != nil {
		panic(err)
	}
	env.forgets = !bytes.Contains(version, []byte(" 1.")) && !bytes.Contains(version, []byte(" v1."))
	env.ctrd = exec.Command("containerd", "-c", env.dir+"/containerd.toml")
	env.ctrd.Stdout, env.ctrd.Stderr = out, out
	// Its own process group: it must be killed alone, as a service manager does.
	env.ctrd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := env.ctrd.Start(); err != nil {
		panic(err)
	}
}

// layer is the one that all images share: to compress and to unpack it takes time.
func layer(program string) (v1.Layer, error) {
	b, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, d := range []string{"work/", "etc/", "tmp/"} {
		if err := w.WriteHeader(&tar.Header{Name: d, Typeflag: tar.TypeDir, Mode: 0o777}); err != nil {
			return nil, err
		}
	}
	for _, f := range []struct {
		name string
		data []byte
	}{
		{"probe", b},
		{"etc/passwd", []byte("root:x:0:0::/:/\napp:x:1000:1000::/:/\n")},
		{"etc/group", []byte("root:x:0:\napp:x:1000:\nextra:x:2000:app\n")},
	} {
		if err := w.WriteHeader(&tar.Header{Name: f.name, Mode: 0o755, Size: int64(len(f.data))}); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil }, tarball.WithCompressedCaching)
}

// pack makes an image of the probe program.
func pack(cfg v1.Config) (v1.Image, error) {
	img, err := mutate.AppendLayers(empty.Image, env.layer)
	if err != nil {
		return nil, err
	}
	cf, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	cf = cf.DeepCopy()
	cf.OS, cf.Architecture, cf.Config = "linux", "amd64", cfg
	if arch, err := exec.Command("uname", "-m").Output(); err == nil && strings.TrimSpace(string(arch)) == "aarch64" {
		cf.Architecture = "arm64"
	}
	return mutate.ConfigFile(img, cf)
}

// load brings an image to the node, as an operator's archive does.
func load(ref string, image v1.Image) error {
	parsed, err := name.ParseReference(ref)
	if err != nil {
		return err
	}
	var archive bytes.Buffer
	if err := tarball.Write(parsed, image, &archive); err != nil {
		return err
	}
	refs, err := env.r.ImportImage(context.Background(), &archive)
	if err != nil {
		return err
	}
	if len(refs) != 1 || refs[0] != ref {
		return fmt.Errorf("imported %v", refs)
	}
	return nil
}

var epochs uint64

// spec is one run of a container of a new replica; args are the probe's steps.
func spec(args ...string) ContainerSpec {
	epochs++
	return ContainerSpec{
		Replica:  api.ReplicaKey{Namespace: "default", Service: "web", Slot: 2, Epoch: epochs},
		Revision: 7, Container: api.Container{Name: "main", Image: testImage, Args: args},
		Grace: 3 * time.Second, SpecHash: "hash",
	}
}

func start(t *testing.T, s ContainerSpec) Observed {
	t.Helper()
	t.Cleanup(func() { remove(t, s.ID()) })
	o, err := env.r.Start(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// remove removes a container and checks that nothing is left of it.
func remove(t testing.TB, id string) {
	t.Helper()
	ctx := env.r.in(context.Background())
	if err := env.r.Remove(ctx, id); err != nil {
		t.Error(err)
		return
	}
	if _, err := env.r.client.LoadContainer(ctx, id); err == nil {
		t.Errorf("container %s is left", id)
	}
	if _, err := env.r.client.SnapshotService("overlayfs").Stat(ctx, id); err == nil {
		t.Errorf("snapshot %s is left", id)
	}
	for _, pattern := range []string{"/sys/fs/cgroup/*" + env.parent + "/" + id, "/sys/fs/cgroup" + env.parent + "/" + id, env.dir + "/files/" + id, env.dir + "/memory/" + id} {
		if left, _ := filepath.Glob(pattern); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	}
}

// eventually polls until f returns nil.
func eventually(t *testing.T, f func() error) {
	t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func observe(t *testing.T, id string) Observed {
	t.Helper()
	list, err := env.r.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range list {
		if o.ID == id {
			return o
		}
	}
	t.Fatalf("%s is not listed among %v", id, list)
	return Observed{}
}

// ended waits for the container's end.
func ended(t *testing.T, id string) api.Exit {
	t.Helper()
	var e api.Exit
	eventually(t, func() error {
		o, err := env.r.observe(env.r.in(t.Context()), id)
		if err != nil {
			return err
		}
		if o.Running || o.Exit == nil {
			return fmt.Errorf("%s has not ended: %+v", id, o)
		}
		e = *o.Exit
		return nil
	})
	return e
}

// output reads a container's log as "stream text" lines.
func output(t *testing.T, s ContainerSpec) []string {
	t.Helper()
	var out []string
	err := logs.Read(t.Context(), logs.File(env.dir+"/logs", s.Replica, s.Container.Name), logs.Options{}, func(l logs.Line) error {
		out = append(out, l.Stream+" "+l.Text)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// prints waits until the container's output is want.
func prints(t *testing.T, s ContainerSpec, want ...string) {
	t.Helper()
	eventually(t, func() error {
		if got := output(t, s); strings.Join(got, "\n") != strings.Join(want, "\n") {
			return fmt.Errorf("output is\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		return nil
	})
}

func mustGet(t *testing.T, id string) containers.Container {
	t.Helper()
	c, err := env.r.client.ContainerService().Get(env.r.in(t.Context()), id)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func v1Config(step string) v1.Config {
	return v1.Config{Entrypoint: []string{"/probe"}, Cmd: []string{step}}
}
