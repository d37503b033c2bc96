package deploy

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// program stands in for one of orch's in packages: it passes every check.
const program = `#!/bin/sh
case "$1" in
--version) echo "$(basename "$0") %s" ;;
check) echo "ok     all    good"; cat "$3" >/dev/null ;;
completion) echo "complete -F _orchctl orchctl" ;;
*) exit 9 ;;
esac
`

// packages builds the packages of a version and gives their folder.
func packages(t *testing.T, version string) string {
	t.Helper()
	root := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	here, err := filepath.Abs(".")
	must(err)
	must(os.Symlink(here, filepath.Join(root, "deploy")))
	must(os.Mkdir(filepath.Join(root, "bin"), 0o755))
	for _, name := range []string{"agent", "controller", "shim", "orchctl"} {
		must(os.WriteFile(filepath.Join(root, "bin", name), fmt.Appendf(nil, program, version), 0o755))
	}
	build := exec.Command(filepath.Join(here, "deb", "build"), nfpm(t))
	build.Dir = root
	build.Env = append(os.Environ(), "DEB_VERSION="+version, "GIT_DIR="+gitDir(t))
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build packages: %v\n%s", err, out)
	}
	return filepath.Join(root, "out", "deb")
}

func gitDir(t *testing.T) string {
	return strings.TrimSpace(run(t, "git", "rev-parse", "--absolute-git-dir"))
}

// nfpm gives the path of that program, built where make deb has not done so.
func nfpm(t *testing.T) string {
	t.Helper()
	if path, err := filepath.Abs("../bin/nfpm"); err == nil {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	path := filepath.Join(t.TempDir(), "nfpm")
	run(t, "go", "build", "-C", "../tools", "-o", path, "github.com/goreleaser/nfpm/v2/cmd/nfpm")
	return path
}

func run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestPackages(t *testing.T) {
	dir := packages(t, "1.2.3+4.gabc")
	for name, want := range map[string]struct {
		files     []string
		conffiles string
		depends   string
	}{
		"orch-agent": {[]string{"/usr/lib/orch/agent", "/usr/lib/orch/shim", "/usr/bin/orch-agent", "/lib/systemd/system/orch-agent.service", "/etc/orch/agent.yaml"},
			"/etc/orch/agent.yaml", "containerd (>= 1.6) | containerd.io (>= 1.6), runc | containerd.io, containernetworking-plugins, nftables, iproute2"},
		"orch-controller": {[]string{"/usr/lib/orch/controller", "/usr/bin/orch-controller", "/lib/systemd/system/orch-controller.service", "/etc/orch/controller.yaml"},
			"/etc/orch/controller.yaml", ""},
		"orchctl": {[]string{"/usr/bin/orchctl", "/usr/share/bash-completion/completions/orchctl"}, "", ""},
	} {
		found, err := filepath.Glob(filepath.Join(dir, name+"_1.2.3+4.gabc_*.deb"))
		if err != nil || len(found) != 1 {
			t.Errorf("%s: %v, %v", name, found, err)
			continue
		}
		root, control := t.TempDir(), t.TempDir()
		run(t, "dpkg-deb", "-x", found[0], root)
		run(t, "dpkg-deb", "-e", found[0], control)
		for _, file := range want.files {
			if _, err := os.Lstat(filepath.Join(root, file)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		conffiles, _ := os.ReadFile(filepath.Join(control, "conffiles")) // orchctl has none
		if got := strings.TrimSpace(string(conffiles)); got != want.conffiles {
			t.Errorf("%s: conffiles %q, want %q", name, got, want.conffiles)
		}
		if got := strings.TrimSpace(run(t, "dpkg-deb", "-f", found[0], "Depends")); got != want.depends {
			t.Errorf("%s depends on %s, want %s", name, got, want.depends)
		}
		for _, script := range []string{"postinst", "prerm", "postrm"} {
			path := filepath.Join(control, script)
			if info, err := os.Stat(path); err != nil {
				if name != "orchctl" {
					t.Errorf("%s: %v", name, err)
				}
			} else if run(t, "sh", "-n", path); info.Mode()&0o111 == 0 {
				t.Errorf("%s: %s is not executable", name, script)
			}
		}
	}
}

// machine is a copy of this one, on which packages can be installed: what is written
// goes into a folder of the test, and ends with it.
type machine struct {
	t    *testing.T
	root string
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test installs packages in a copy of this machine: run it as root")
	}
	// Not in /tmp, which may be a tmpfs too small, or be mounted without leave to run.
	dir, err := os.MkdirTemp("/var/tmp", "orch-deploy-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	for _, d := range []string{"upper", "work", "root"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return &machine{t: t, root: dir}
}

// try runs a script there, in mounts and processes of its own; files is a folder that is
// to be seen at /mnt.
func (m *machine) try(files, script string) (string, error) {
	const enter = `set -e
cd "$1"
mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work root
mount --bind "$2" root/mnt
mount -t proc proc root/proc
mount -t tmpfs tmpfs root/run
mount -t tmpfs tmpfs root/tmp
mount --rbind /dev root/dev
exec chroot root /bin/bash -c "$3"
`
	cmd := exec.Command("sh", "-c", enter, "sh", m.root, files, script)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "DEBIAN_FRONTEND=noninteractive"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID, Unshareflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (m *machine) run(files, script string) string {
	m.t.Helper()
	out, err := m.try(files, script)
	if err != nil {
		m.t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return out
}

func (m *machine) has(path string) bool {
	info, err := os.Lstat(filepath.Join(m.root, "upper", path))
	return err == nil && info.Mode()&os.ModeCharDevice == 0 // which stands for what was removed
}

// TestScriptInstallsPackages: the script takes packages where they lie beside it, keeps
// settings, and dpkg upgrades and removes them.
func TestScriptInstallsPackages(t *testing.T) {
	first, second := packages(t, "1.0.0"), packages(t, "1.0.1")
	m := newMachine(t)
	out := m.run(first, "/mnt/install.sh agent --no-packages --no-start --join 10.0.0.1:7070 --token abc --label zone=eu-1")
	if !strings.Contains(out, "agent 1.0.0") || !strings.Contains(out, "start it by hand") {
		t.Errorf("the script said\n%s", out)
	}
	settings, err := os.ReadFile(filepath.Join(m.root, "upper/etc/orch/agent.yaml"))
	if err != nil || !strings.Contains(string(settings), "join: '10.0.0.1:7070'\nlabel: 'zone=eu-1'\ntoken-file: '/etc/orch/token'\n") {
		t.Errorf("settings: %v\n%s", err, settings)
	}
	if m.has("etc/systemd/system/orch-agent.service") || !m.has("lib/systemd/system/orch-agent.service") && !m.has("usr/lib/systemd/system/orch-agent.service") {
		t.Error("the unit is not the package's")
	}
	if out := m.run(first, "mkdir /tmp/bin && cp /usr/lib/orch/agent /usr/lib/orch/shim /tmp/bin && cp /lib/systemd/system/orch-agent.service /tmp/bin && ! /mnt/install.sh agent --bin-dir /tmp/bin --no-start 2>&1"); !strings.Contains(out, "the package orch-agent is installed") {
		t.Errorf("programs over a package: %s", out)
	}
	m.run(second, "dpkg --force-confold -i /mnt/orch-agent_*.deb")
	if out := m.run(second, "orch-agent --version"); out != "orch-agent 1.0.1\n" {
		t.Errorf("after the upgrade: %s", out)
	}
	if now, err := os.ReadFile(filepath.Join(m.root, "upper/etc/orch/agent.yaml")); err != nil || string(now) != string(settings) {
		t.Errorf("the upgrade changed settings: %v", err)
	}
	out = m.run(second, "mkdir -p /var/lib/orch/agent && touch /var/lib/orch/agent/kept && dpkg --purge orch-agent")
	for path, stays := range map[string]bool{"usr/lib/orch/agent": false, "usr/bin/orch-agent": false, "etc/orch/token": false, "etc/orch/agent.yaml": false, "var/lib/orch/agent/kept": true} {
		if m.has(path) != stays {
			t.Errorf("after purging, is there %s: %v; dpkg said\n%s", path, !stays, out)
		}
	}
}
