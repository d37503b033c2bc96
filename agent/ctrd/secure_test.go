package ctrd

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/pkg/cap"
	"golang.org/x/sys/unix"

	"github.com/orchctl/orch/api"
)

func as(user, group string) *api.SecurityContext {
	return &api.SecurityContext{User: user, Group: group}
}

func TestSecurity(t *testing.T) {
	const nnp, none = "stdout NoNewPrivs:\t1", "stdout CapEff:\t0000000000000000"
	own := statusLine(t, "CapEff")
	for _, c := range []struct {
		name string
		sc   *api.SecurityContext
		args []string
		want []string
	}{
		{"user by name", as("app", ""), []string{"id"}, []string{"stdout uid 1000 gid 1000 groups [1000 2000]"}},
		{"user by number", as("1000", ""), []string{"id", "caps"}, []string{"stdout uid 1000 gid 1000 groups [1000 2000]", none, nnp, "stdout Seccomp:\t2"}},
		{"number of nobody", as("4242", ""), []string{"id"}, []string{"stdout uid 4242 gid 0 groups [0]"}},
		{"group by name", as("app", "extra"), []string{"id"}, []string{"stdout uid 1000 gid 2000 groups [2000]"}},
		{"numbers", as("7", "8"), []string{"id"}, []string{"stdout uid 7 gid 8 groups [8]"}},
		{"read-only root", &api.SecurityContext{ReadOnlyRoot: true}, []string{"touch=/work/x", "touch=/dev/shm/x"},
			[]string{"stdout open /work/x: read-only file system"}},
		{"capabilities", &api.SecurityContext{Capabilities: api.Capabilities{Drop: []string{"ALL"}, Add: []string{"net_bind_service", "CAP_KILL"}}}, []string{"caps"},
			[]string{"stdout CapEff:\t0000000000000420", nnp, "stdout Seccomp:\t2"}},
		{"capabilities of a user", &api.SecurityContext{User: "app", Capabilities: api.Capabilities{Drop: []string{"KILL"}, Add: []string{"NET_BIND_SERVICE"}}},
			[]string{"caps", "serve=80"}, []string{"stdout CapEff:\t0000000000000400", nnp, "stdout Seccomp:\t2", "stdout serving"}},
		{"one dropped", &api.SecurityContext{Capabilities: api.Capabilities{Drop: []string{"CHOWN"}}}, []string{"caps"},
			[]string{"stdout CapEff:\t00000000800405fa", nnp, "stdout Seccomp:\t2"}},
		{"no seccomp", &api.SecurityContext{Seccomp: api.SeccompUnconfined}, []string{"caps"},
			[]string{"stdout CapEff:\t00000000800405fb", nnp, "stdout Seccomp:\t0"}},
		{"escalation", &api.SecurityContext{Seccomp: api.SeccompDefault, AllowPrivilegeEscalation: true}, []string{"caps"},
			[]string{"stdout CapEff:\t00000000800405fb", "stdout NoNewPrivs:\t0", "stdout Seccomp:\t2"}},
		{"privileged", &api.SecurityContext{Privileged: true}, []string{"caps", "mounted=/sys", "mounted=/sys/fs/cgroup", "mounted=/proc/sys"},
			[]string{"stdout " + own, "stdout NoNewPrivs:\t0", "stdout Seccomp:\t0", "stdout /sys rw,nosuid,nodev,noexec,relatime", "stdout /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := spec(c.args...)
			s.Container.SecurityContext = c.sc
			o := start(t, s)
			prints(t, s, c.want...)
			if !strings.HasPrefix(c.args[len(c.args)-1], "serve") {
				ended(t, o.ID)
			}
		})
	}
	for user, want := range map[string]string{
		"ghost":       `user "ghost": the image's /etc/passwd has no such user`,
		"app:ghost":   `user "app:ghost": the image's /etc/group has no such group`,
		"99999999999": `user "99999999999": invalid USER value "99999999999": uid out of range`,
	} {
		s := spec("id")
		name, group, _ := strings.Cut(user, ":")
		s.Container.SecurityContext = as(name, group)
		failsToStart(t, s, want)
	}
}

// failsToStart starts a container that is at fault itself.
func failsToStart(t *testing.T, s ContainerSpec, want string) {
	t.Helper()
	_, err := env.r.Start(t.Context(), s)
	var se *StartError
	if !errors.As(err, &se) || se.Exit.Reason != api.ExitStartFailed || !strings.Contains(se.Exit.Message, want) {
		t.Errorf("start: %v, want %q", err, want)
	}
	remove(t, s.ID())
}

// statusLine gives a line of the test's own /proc/self/status.
func statusLine(t *testing.T, key string) string {
	t.Helper()
	for line := range strings.Lines(readFile(t, "/proc/self/status")) {
		if strings.HasPrefix(line, key+":") {
			return strings.TrimSpace(line)
		}
	}
	t.Fatalf("no %s in /proc/self/status", key)
	return ""
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestDevices: a privileged container has the node's, others do not.
func TestDevices(t *testing.T) {
	const loop = "/dev/orch-test-loop" // /dev is the tests' own from here on
	if err := unix.Mount("dev", "/dev", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount("/dev", unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	for path, dev := range map[string]uint64{"/dev/null": unix.Mkdev(1, 3), loop: unix.Mkdev(1, 5)} {
		if err := unix.Mknod(path, unix.S_IFCHR|0o666, int(dev)); err != nil {
			t.Fatal(err)
		}
	}
	for _, privileged := range []bool{false, true} {
		s := spec("device=" + loop)
		s.Container.SecurityContext = &api.SecurityContext{Privileged: privileged}
		ended(t, start(t, s).ID)
		prints(t, s, map[bool]string{true: "stdout opened " + loop, false: "stdout open " + loop + ": no such file or directory"}[privileged])
	}
}

func TestCapabilitiesOf(t *testing.T) {
	all := cap.Known()
	for _, c := range []struct {
		name string
		sc   api.SecurityContext
		want []string
	}{
		{"default", api.SecurityContext{}, slices.Sorted(slices.Values(defaultCapabilities))},
		{"drop comes before add", api.SecurityContext{Capabilities: api.Capabilities{Add: []string{"KILL"}, Drop: []string{"all"}}}, []string{"CAP_KILL"}},
		{"all", api.SecurityContext{Capabilities: api.Capabilities{Add: []string{"ALL"}}}, slices.Sorted(slices.Values(all))},
		{"privileged", api.SecurityContext{Privileged: true, Capabilities: api.Capabilities{Drop: all[1:]}}, all[:1]},
	} {
		if got := capabilitiesOf(c.sc, all); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestUlimitsAndSysctls(t *testing.T) {
	s := spec("limit=7", "limit=11", "limit=4", "limit=8", "cat=/proc/sys/kernel/msgmax", "cat=/proc/sys/net/ipv4/ip_unprivileged_port_start")
	s.Container.Ulimits = map[string]api.Ulimit{"nofile": {Soft: 200}, "sigpending": {Soft: 100, Hard: 200}, "core": {Soft: -1}, "memlock": {Soft: 4096}}
	s.Sysctls = map[string]string{"kernel.msgmax": "4242", "net.ipv4.ip_unprivileged_port_start": "80"}
	ended(t, start(t, s).ID)
	prints(t, s, "stdout limit 7 200 200", "stdout limit 11 100 200", "stdout limit 4 18446744073709551615 18446744073709551615", "stdout limit 8 4096 4096", "stdout 4242", "stdout 80")
	most := strings.TrimSpace(readFile(t, "/proc/sys/fs/nr_open"))
	if caps, err := cap.Current(); err != nil || !slices.Contains(caps, "CAP_SYS_RESOURCE") {
		most = fmt.Sprint(openFiles().Hard)
	}
	s = spec("limit=7")
	s.Container.Ulimits = map[string]api.Ulimit{"nofile": {Soft: -1}}
	ended(t, start(t, s).ID)
	prints(t, s, fmt.Sprintf("stdout limit 7 %s %s", most, most))

	s = spec("id")
	s.Sysctls = map[string]string{"net.ipv4.no_such_thing": "1"}
	failsToStart(t, s, "no_such_thing")
	s = spec("id")
	s.Sysctls = map[string]string{"kernel.panic": "1"}
	failsToStart(t, s, "kernel.panic")
}

func TestStopSignal(t *testing.T) {
	s := spec("wait=0")
	s.Container.StopSignal = "SIGTERM" // the image says SIGQUIT
	o := start(t, s)
	prints(t, s, "stdout waiting")
	if err := env.r.Stop(t.Context(), o.ID, 10*time.Second, ""); err != nil {
		t.Fatal(err)
	}
	prints(t, s, "stdout waiting", "stdout got terminated")
	for word, want := range map[string]syscall.Signal{
		"": unix.SIGTERM, "SIGQUIT": unix.SIGQUIT, "quit": unix.SIGQUIT, "3": unix.SIGQUIT, "SIGWINCH": unix.SIGWINCH, "nonsense": unix.SIGTERM,
		"SIGRTMIN+3": 37, "RTMAX-1": 63, "SIGRTMIN": 34, "37": 37, "SIGRTMIN-1": unix.SIGTERM, "SIGRTMAX+1": unix.SIGTERM, "SIGRTMINx": unix.SIGTERM,
	} {
		if got := stopSignal(map[string]string{labelStopSignal: word}); got != want {
			t.Errorf("stop signal %q is %d, want %d", word, got, want)
		}
	}
}
