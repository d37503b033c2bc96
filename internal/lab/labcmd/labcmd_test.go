//go:build linux

package labcmd

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"github.com/orchctl/orch/internal/lab"
)

func orchctlLab(args ...string) (string, error) {
	var out bytes.Buffer
	cmd := New()
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	err := cmd.Execute()
	return out.String(), err
}

func exitCode(err error) int {
	var coded interface{ ExitCode() int }
	switch {
	case err == nil:
		return 0
	case errors.As(err, &coded):
		return coded.ExitCode()
	}
	return 1
}

func TestUsage(t *testing.T) {
	t.Setenv("ORCH_LAB_DIR", t.TempDir())
	for _, test := range []struct {
		args string
		code int
		want string
	}{
		{"bogus", 2, `unknown command "bogus"`},
		{"kill", 2, "usage: lab kill NODE..."},
		{"up --nodes many", 2, `invalid argument "many"`},
		{"up --subnet here", 2, "--subnet:"},
		{"up --label zone=a", 2, `--label "zone=a": want NODE:KEY=VALUE`},
		{"loss n1 lots", 2, `percent "lots": want 0 to 100`},
		{"loss n1 101", 2, `percent "101": want 0 to 100`},
		{"kill-agent n1 --signal LOUD", 2, `--signal "LOUD": no such signal`},
		{"status -o xml", 2, `--output "xml"`},
		{"exec", 2, "usage: lab exec"},
		{"down --all --name x", 2, "--all takes no --name"},
		{"status", 1, "lab default is not up"},
		{"kill n1 --name other", 1, "lab other is not up"},
		{"kill n1 --name Other", 1, `lab name "Other"`},
	} {
		t.Run(test.args, func(t *testing.T) {
			_, err := orchctlLab(strings.Fields(test.args)...)
			if err == nil || exitCode(err) != test.code || !strings.Contains(err.Error(), test.want) {
				t.Errorf("exit %d: %v; want exit %d, %q", exitCode(err), err, test.code, test.want)
			}
		})
	}
}

func TestParse(t *testing.T) {
	for _, word := range []string{"9", "KILL", "kill", "SIGKILL"} {
		if s, err := parseSignal(word); err != nil || s != syscall.SIGKILL {
			t.Errorf("signal %s: %v, %v", word, s, err)
		}
	}
	got, err := parseLabels([]string{"n1:zone=a", "n1:disk=ssd", "n2:zone="})
	want := map[string]map[string]string{"n1": {"zone": "a", "disk": "ssd"}, "n2": {"zone": ""}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("labels %v, %v; want %v", got, err, want)
	}
}

// TestLabCommands drives a real lab by command lines.
func TestLabCommands(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this test makes a real lab and needs root: run it by sudo, or leave it out with -skip TestLab")
	}
	base, err := os.MkdirTemp("", "orchlabcmd-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	t.Setenv("ORCH_LAB_DIR", filepath.Join(base, "labs"))
	build := exec.Command("go", "build", "-o", filepath.Join(base, "shim"), "github.com/orchctl/orch/cmd/shim")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the shim: %v: %s", err, out)
	}
	name := fmt.Sprintf("c%d", os.Getpid())
	t.Cleanup(func() {
		if _, err := orchctlLab("down", "--name", name); err != nil {
			t.Error(err)
		}
	})
	do := func(want string, args ...string) string {
		t.Helper()
		out, err := orchctlLab(append([]string{"--name", name}, args...)...)
		if err != nil || !strings.Contains(out, want) {
			t.Fatalf("lab %q: %v, %q; want %q", args, err, out, want)
		}
		return out
	}
	do("lab "+name+" is up: 1 nodes", "up", "--nodes", "1", "--containerd-only", "--bin-dir", base)
	do(name, "list")
	do("n1     on      10.200.0.11   containerd\n", "status")
	do("n1\n", "exec", "--node", "n1", "--", "hostname")
	if _, err := orchctlLab("--name", name, "exec", "n1", "--", "hostname", "-f"); exitCode(err) != 2 || !strings.Contains(err.Error(), "n1 is a node, not a program: write `orchctl lab exec --node n1 -- hostname -f`") {
		t.Errorf("exec of a node: %v", err)
	}
	if _, err := orchctlLab("--name", name, "exec", "n1"); exitCode(err) != 2 || !strings.Contains(err.Error(), "`orchctl lab exec --node n1 -- COMMAND`") {
		t.Errorf("exec of a node without a command: %v", err)
	}
	if _, err := orchctlLab("--name", name, "exec", "--", "sh", "-c", "exit 7"); exitCode(err) != 7 {
		t.Errorf("exec of what exits 7: %v", err)
	}
	do("n1 is cut off from everybody", "cut", "n1")
	do("fault: n1 is cut off from everybody", "status")
	do("the network is whole", "heal")
	do("n1 loses 30 %", "loss", "n1", "30%")
	do("the network of n1 is whole", "heal", "n1")
	do("n1 has lost its containerd", "kill-containerd", "n1")
	do("containerd (signal 9)", "status")
	do("n1 has its containerd again", "start-containerd", "n1")
	do("containerd of n1 is paused", "pause", "n1", "containerd", "--for", "0")
	do("containerd (paused)", "status")
	do("n1 goes on", "resume", "n1")
	do("n1 was stunned for 50ms", "stun", "n1", "--for", "50ms")
	do("n1 has lost its power", "kill", "n1")
	if _, err := orchctlLab("--name", name, "kill-agent", "n1"); !errors.Is(err, lab.ErrOff) || exitCode(err) != 1 {
		t.Errorf("kill-agent on a node that is off: %v", err)
	}
	do("n1 is on", "start", "n1")
	do("n2 added", "add")
	var s lab.Status
	if err := json.Unmarshal([]byte(do("", "status", "-o", "json")), &s); err != nil || len(s.Nodes) != 2 || s.Nodes[1].Power != lab.On {
		t.Errorf("status as JSON: %+v, %v", s, err)
	}
	do("lab "+name+" is down", "down")
	do("lab "+name+" is down", "down")
}
