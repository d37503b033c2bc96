package agent

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestPrioritize runs in a process of its own, which it changes for good. Where
// the rights are missing, that must be said.
func TestPrioritize(t *testing.T) {
	const child = "ORCH_TEST_PRIORITIZE"
	if os.Getenv(child) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestPrioritize$", "-test.v")
		cmd.Env = append(os.Environ(), child+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	if err := Prioritize(); err != nil {
		if !errors.Is(err, fs.ErrPermission) {
			t.Error(err)
		}
		return
	}
	if b, err := os.ReadFile("/proc/self/oom_score_adj"); err != nil || strings.TrimSpace(string(b)) != strconv.Itoa(oomScore) {
		t.Errorf("oom score %q, %v", b, err)
	}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil || len(threads) < 2 {
		t.Fatalf("%d threads, %v", len(threads), err)
	}
	for _, thread := range threads {
		id, _ := strconv.Atoi(thread.Name())
		// The call itself gives 20 less the nice value, as a result below zero is an error.
		if got, err := unix.Getpriority(unix.PRIO_PROCESS, id); err != nil || got != 20-niceness {
			t.Errorf("thread %d has niceness %d, %v", id, 20-got, err)
		}
	}
}

func TestRaiseWeight(t *testing.T) {
	for _, x := range []struct {
		name, own, dir, file, procs, have, want string
	}{
		{"alone, v2", "0::/system.slice/orch-agent.service\n", "system.slice/orch-agent.service", "cpu.weight", "42\n", "100\n", "1000"},
		{"alone, v1", "5:cpu,cpuacct:/agent\n4:memory:/agent\n", "cpu,cpuacct/agent", "cpu.shares", "42\n", "1024\n", "10240"},
		{"shared", "0::/user.slice\n", "user.slice", "cpu.weight", "42\n43\n", "100\n", "100\n"},
		{"another's", "0::/user.slice\n", "user.slice", "cpu.weight", "420\n", "100\n", "100\n"},
		{"raised already", "0::/a\n", "a", "cpu.weight", "42\n", "5000\n", "5000\n"},
		{"the root", "0::/\n", ".", "cpu.weight", "42\n", "100\n", "100\n"},
		{"cpu only counted", "5:cpuacct,cpuset:/a\n", "cpuacct,cpuset/a", "cpu.shares", "42\n", "1\n", "1\n"},
	} {
		t.Run(x.name, func(t *testing.T) {
			root := t.TempDir()
			dir := filepath.Join(root, x.dir)
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			for file, text := range map[string]string{x.file: x.have, "cgroup.procs": x.procs} {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := raiseWeight(root, x.own, 42); err != nil {
				t.Error(err)
			}
			if got, err := os.ReadFile(filepath.Join(dir, x.file)); err != nil || string(got) != x.want {
				t.Errorf("%s is %q, %v, want %q", x.file, got, err, x.want)
			}
		})
	}
	if err := raiseWeight(t.TempDir(), "0::/none\nnonsense\n", 42); err != nil {
		t.Errorf("a cgroup without the controller: %v", err)
	}
}
