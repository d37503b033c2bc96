package ctrd

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/orchctl/orch/agent/logs"
	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/boottime"
	"github.com/orchctl/orch/internal/leasefile"
)

// leased is a container with a lease of so long from now.
func leased(term, kill time.Duration, args ...string) ContainerSpec {
	s := spec(args...)
	now := boottime.Now()
	s.Lease = &Lease{Term: now + term, Kill: now + kill}
	return s
}

// lives tells whether a process is in the container's cgroup, which needs no containerd.
func lives(t *testing.T, id string) bool {
	t.Helper()
	dirs, err := guardDirs(env.r.cgroupOf(id))
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		if b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs")); err == nil && len(b) > 0 {
			return true
		}
	}
	return false
}

// died waits for the last process and gives the time since boot.
func died(t *testing.T, id string) time.Duration {
	t.Helper()
	eventually(t, func() error {
		if lives(t, id) {
			return fmt.Errorf("%s lives", id)
		}
		return nil
	})
	return boottime.Now()
}

// watchdogs gives the pids of a container's watchdogs.
func watchdogs(id string) (pids []int) {
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range procs {
		if b, _ := os.ReadFile(p); bytes.Contains(b, []byte("leased-log\x00"+env.dir+"/files/"+id+"/lease\x00")) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(p)))
			pids = append(pids, pid)
		}
	}
	return pids
}

func watchdogOf(t *testing.T, id string) int {
	t.Helper()
	pids := watchdogs(id)
	if len(pids) != 1 {
		t.Fatalf("watchdogs of %s: %v, want one", id, pids)
	}
	return pids[0]
}

// shimOf gives the process that stands between containerd and a container.
func shimOf(t *testing.T, o Observed) (pid int) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", o.Pid))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Sscan(strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))[1], &pid)
	return pid
}

// TestLeaseEndsWithNobodyThere: the agent's client is gone and containerd is
// dead, and the leases of several sorts of containers run out.
func TestLeaseEndsWithNobodyThere(t *testing.T) {
	const term, kill = 6 * time.Second, 6500 * time.Millisecond
	agent, err := Dial(t.Context(), testConfig())
	if err != nil {
		t.Fatal(err)
	}
	begin := func(args ...string) (ContainerSpec, Observed) {
		s := leased(term, kill, args...)
		t.Cleanup(func() { remove(t, s.ID()) })
		o, err := agent.Start(t.Context(), s)
		if err != nil || !o.Leased || !o.Running {
			t.Fatalf("%+v, %v", o, err)
		}
		return s, o
	}
	polite, _ := begin("wait=0")
	silent, _ := begin("fork=5", "close", "deaf")
	lost, lostO := begin("fork=1", "close", "deaf") // its shim will be killed
	stopped, stoppedO := begin("fork=0", "deaf")    // its shim will be stopped
	renewed, _ := begin("wait=0")
	prints(t, polite, "stdout waiting")
	prints(t, renewed, "stdout waiting")
	if err := agent.Close(); err != nil {
		t.Fatal(err)
	}
	env.ctrd.Process.Kill()
	env.ctrd.Wait()
	restarted := false
	defer func() {
		if !restarted {
			startContainerd()
		}
	}()
	if err := syscall.Kill(shimOf(t, lostO), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	shim := shimOf(t, stoppedO)
	if err := syscall.Kill(shim, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(shim, syscall.SIGCONT)

	// Renewing needs no containerd.
	extended := Lease{Term: renewed.Lease.Term + time.Minute, Kill: renewed.Lease.Kill + time.Minute}
	if err := env.r.SetLease(t.Context(), renewed.ID(), extended); err != nil {
		t.Fatal(err)
	}
	if at := died(t, polite.ID()); at < polite.Lease.Term || at >= polite.Lease.Kill {
		t.Errorf("polite: died at %s, want between %s and %s", at, polite.Lease.Term, polite.Lease.Kill)
	}
	for name, s := range map[string]ContainerSpec{"silent": silent, "without shim": lost} {
		if at := died(t, s.ID()); at < s.Lease.Kill || at > s.Lease.Kill+5*time.Second {
			t.Errorf("%s: died at %s, want %s", name, at, s.Lease.Kill)
		}
	}
	// A dead process that its parent, the stopped shim, does not take note of
	// stays in the list; what counts is that it does not run.
	eventually(t, func() error {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", stoppedO.Pid))
		if err == nil && !bytes.Contains(b, []byte(") Z ")) {
			return fmt.Errorf("it runs: %s", b)
		}
		return nil
	})
	if now := boottime.Now(); now < stopped.Lease.Kill {
		t.Errorf("stopped shim: died at %s, want %s", now, stopped.Lease.Kill)
	}
	if !lives(t, renewed.ID()) {
		t.Error("the renewed one died")
	}
	syscall.Kill(shim, syscall.SIGCONT)

	startContainerd()
	restarted = true
	eventually(t, func() error { return env.r.Ping(t.Context()) })
	for name, c := range map[string]struct {
		spec ContainerSpec
		code int
		how  string
	}{"polite": {polite, 0, "exit code 0"}, "silent": {silent, 137, "signal 9 (SIGKILL)"}, "stopped": {stopped, 137, "signal 9 (SIGKILL)"}} {
		e := ended(t, c.spec.ID())
		if env.forgets {
			c.code, c.how = lostCode, "its exit code is lost with containerd's shim"
		}
		if e.Code != c.code || e.Reason != api.ReasonLeaseLost || e.Message != "stopped (its lease was over, says its watchdog); "+c.how {
			t.Errorf("%s: exit %+v", name, e)
		}
	}
	if o := observe(t, renewed.ID()); !o.Running || !o.Leased {
		t.Errorf("the renewed one is %+v", o)
	}
	out := output(t, polite)
	slices.Sort(out)
	if want := []string{"orch the lease was not renewed: signal 3 to the container", "stdout got quit", "stdout waiting"}; !slices.Equal(out, want) {
		t.Errorf("output %q, want %q", out, want)
	}
	if err := env.r.Stop(t.Context(), renewed.ID(), 10*time.Second, "scaled down"); err != nil {
		t.Fatal(err)
	}
	if e := ended(t, renewed.ID()); e.Reason != api.ExitCompleted {
		t.Errorf("the renewed one: exit %+v", e)
	}
	// With the containers go their watchdogs.
	for _, s := range []ContainerSpec{polite, silent, lost, stopped, renewed} {
		remove(t, s.ID())
		eventually(t, func() error {
			if pids := watchdogs(s.ID()); len(pids) > 0 {
				return fmt.Errorf("watchdogs %v of %s are left", pids, s.ID())
			}
			return nil
		})
	}
}

// TestLeaseIsRenewed by an agent that knows nothing but the id, and restarted.
func TestLeaseIsRenewed(t *testing.T) {
	// Term and Kill are one, in every renewal as at the start: were the start's
	// Kill later, a renewal within the first moments would be shorter than it.
	const lease = 4 * time.Second
	s := leased(lease, lease, "deaf")
	o := start(t, s)
	began := boottime.Now()
	var last Lease
	for boottime.Now() < began+lease+2*time.Second {
		r, err := Dial(t.Context(), testConfig())
		if err != nil {
			t.Fatal(err)
		}
		now := boottime.Now()
		last = Lease{Term: now + lease, Kill: now + lease}
		if err := r.SetLease(t.Context(), o.ID, last); err != nil {
			t.Fatal(err)
		}
		// One that comes late, after a newer one, shortens nothing.
		if err := r.SetLease(t.Context(), o.ID, Lease{Term: 1, Kill: 2}); err != nil {
			t.Fatal(err)
		}
		if f, err := leasefile.Read(r.filesOf(o.ID)); err != nil || f.Kill != last.Kill || f.Term != last.Term {
			t.Fatalf("lease is %+v, %v; want %+v", f, err, last)
		}
		r.Close()
		if !lives(t, o.ID) {
			t.Fatalf("died although its lease was renewed: %q", output(t, s))
		}
		time.Sleep(50 * time.Millisecond)
	}
	// Start again is adoption, and brings a lease, too.
	s.Lease = &Lease{Term: last.Term + time.Second, Kill: last.Kill + time.Second}
	if got, err := env.r.Start(t.Context(), s); err != nil || got != o {
		t.Errorf("adopted %+v, %v; want %+v", got, err, o)
	}
	if at := died(t, o.ID); at < s.Lease.Kill {
		t.Errorf("died %s before its last lease's end", s.Lease.Kill-at)
	}
	if e := ended(t, o.ID); e.Reason != api.ReasonLeaseLost {
		t.Errorf("exit %+v", e)
	}
}

func TestLeaseThatIsOverStartsNothing(t *testing.T) {
	for name, term := range map[string]time.Duration{
		"before it is made": -time.Second,
		"while it is made":  30 * time.Millisecond, // making takes longer than this
	} {
		t.Run(name, func(t *testing.T) {
			s := leased(term, time.Hour, "out=ran")
			o, err := env.r.Start(t.Context(), s)
			if !errors.Is(err, ErrLeaseOver) {
				t.Errorf("%+v, %v", o, err)
			}
			var fault *StartError
			if errors.As(err, &fault) {
				t.Errorf("the container is blamed: %v", err)
			}
			if _, err := env.r.observe(env.r.in(t.Context()), s.ID()); !errors.Is(err, ErrNotFound) {
				t.Errorf("left: %v", err)
			}
			if b, err := os.ReadFile(logs.File(env.dir+"/logs", s.Replica, s.Container.Name)); strings.Contains(string(b), "ran") {
				t.Errorf("it ran: %q, %v", b, err)
			}
			remove(t, s.ID())
		})
	}
	s := spec()
	s.Lease = &Lease{Term: boottime.Now() + time.Hour} // and no Kill
	if _, err := env.r.Start(t.Context(), s); err == nil || errors.Is(err, ErrLeaseOver) {
		t.Errorf("an absurd lease: %v", err)
	}
	remove(t, s.ID())
}

// TestStopAfterTheWatchdog: the container is told once to end.
func TestStopAfterTheWatchdog(t *testing.T) {
	s := leased(4*time.Second, time.Hour, "stubborn")
	o := start(t, s)
	eventually(t, func() error {
		if out := output(t, s); !slices.Contains(out, "stdout got quit") {
			return fmt.Errorf("not told: %q", out)
		}
		return nil
	})
	if now := boottime.Now(); now < s.Lease.Term {
		t.Errorf("told %s before its term", s.Lease.Term-now)
	}
	if err := env.r.Stop(t.Context(), o.ID, 500*time.Millisecond, api.ReasonLeaseLost); err != nil {
		t.Fatal(err)
	}
	if e := ended(t, o.ID); e.Signal != 9 || e.Reason != api.ReasonLeaseLost {
		t.Errorf("exit %+v", e)
	}
	told := 0
	for _, l := range output(t, s) {
		if l == "stdout got quit" {
			told++
		}
	}
	if told != 1 {
		t.Errorf("told %d times: %q", told, output(t, s))
	}
	// Without the watchdog's word the agent's counts.
	s = leased(time.Hour, time.Hour, "wait=0")
	o = start(t, s)
	prints(t, s, "stdout waiting")
	if err := env.r.Stop(t.Context(), o.ID, 10*time.Second, api.ReasonLeaseLost); err != nil {
		t.Fatal(err)
	}
	if e := ended(t, o.ID); e.Code != 0 || e.Reason != api.ReasonLeaseLost {
		t.Errorf("exit %+v", e)
	}
}

// TestWatchdogBesideAContainer: where it lives, how small it is, and that its
// death is noticed.
func TestWatchdogBesideAContainer(t *testing.T) {
	s := leased(time.Hour, time.Hour, "long=1000000", "deaf")
	o := start(t, s)
	eventually(t, func() error {
		if out := output(t, s); len(out) == 0 || out[len(out)-1] != "stdout waiting" {
			return errors.New("not written yet")
		}
		return nil
	})
	pid := watchdogOf(t, o.ID)
	cgroups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil || strings.Contains(string(cgroups), o.ID) {
		t.Errorf("the watchdog is in the container's cgroup: %s, %v", cgroups, err)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	var anon int
	for line := range strings.Lines(string(status)) {
		for _, key := range []string{"RssAnon:", "RssFile:", "VmRSS:", "VmLck:", "Threads:"} {
			if strings.HasPrefix(line, key) {
				t.Log(strings.TrimSpace(line))
			}
		}
		fmt.Sscanf(line, "RssAnon: %d", &anon)
	}
	if anon == 0 || anon > 3<<10 {
		t.Errorf("it holds %d KiB of its own, want at most 3 MiB", anon)
	}
	longer := Lease{Term: s.Lease.Term + time.Second, Kill: s.Lease.Kill + time.Second}
	if err := env.r.SetLease(t.Context(), o.ID, longer); err != nil {
		t.Errorf("guarded: %v", err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if err := env.r.SetLease(t.Context(), o.ID, longer); !errors.Is(err, ErrUnguarded) {
			return fmt.Errorf("without its watchdog: %v", err)
		}
		return nil
	})
	if !lives(t, o.ID) {
		t.Error("SetLease stopped a container: that is for its caller to do")
	}
	plain := start(t, spec("wait=0"))
	for name, id := range map[string]string{"without a lease": plain.ID, "nobody": "nobody"} {
		if err := env.r.SetLease(t.Context(), id, longer); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if plain.Leased || observe(t, plain.ID).Leased {
		t.Error("a plain container is called leased")
	}
}

// TestNoStartWithoutAWatchdog: containerd starts a container whose log process
// has died; we do not.
func TestNoStartWithoutAWatchdog(t *testing.T) {
	cfg := testConfig()
	cfg.ShimPath = env.dir + "/dying"
	if err := os.WriteFile(cfg.ShimPath, []byte("#!/bin/sh\nexit 0\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	r, err := Dial(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	s := leased(time.Hour, time.Hour, "wait=0")
	t.Cleanup(func() { remove(t, s.ID()) })
	if _, err := r.Start(t.Context(), s); !errors.Is(err, ErrUnguarded) {
		t.Errorf("%v", err)
	}
	if lives(t, s.ID()) {
		t.Error("it runs")
	}
}

// TestStartForgetsTheRunBefore: an agent that was killed while it removed a
// container may leave its folder, and the next run of the same id finds a note
// there that it was told to end. It was not.
func TestStartForgetsTheRunBefore(t *testing.T) {
	s := leased(time.Minute, 2*time.Minute, "wait=0")
	t.Cleanup(func() { remove(t, s.ID()) })
	dir := env.r.filesOf(s.ID())
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := leasefile.Claim(dir, leasefile.Watchdog); err != nil {
		t.Fatal(err)
	}
	if _, err := env.r.Start(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	prints(t, s, "stdout waiting")
	if by := leasefile.ToldBy(dir); by != "" {
		t.Errorf("told by %q before anybody did", by)
	}
	if err := env.r.Stop(t.Context(), s.ID(), 5*time.Second, "scaled down"); err != nil {
		t.Fatal(err)
	}
	if e := ended(t, s.ID()); e.Reason != api.ExitCompleted {
		t.Errorf("exit %+v", e)
	}
}

// TestAnotherSpecGetsNoLease: an orphan that stands where a container is to be
// started is not kept alive by the tries.
func TestAnotherSpecGetsNoLease(t *testing.T) {
	s := leased(time.Minute, 2*time.Minute, "wait=0")
	o := start(t, s)
	before, err := leasefile.Read(env.r.filesOf(o.ID))
	if err != nil {
		t.Fatal(err)
	}
	next := s
	next.SpecHash, next.Lease = "another", &Lease{Term: s.Lease.Term + time.Minute, Kill: s.Lease.Kill + time.Minute}
	if got, err := env.r.Start(t.Context(), next); err != nil || got.SpecHash != s.SpecHash {
		t.Errorf("it gives %+v, %v", got, err)
	}
	if f, err := leasefile.Read(env.r.filesOf(o.ID)); err != nil || f.Kill != before.Kill {
		t.Errorf("its lease ends at %s, %v; want %s", f.Kill, err, before.Kill)
	}
}
