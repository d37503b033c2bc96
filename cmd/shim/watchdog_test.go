//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orchctl/orch/internal/boottime"
	"github.com/orchctl/orch/internal/leasefile"
)

// The tests start real watchdogs (this binary again) beside real process trees
// in cgroups that they make. They adopt and reap orphans, as nobody else here
// does: a dead process that is not reaped stays in its cgroup.

const asShim = "ORCH_SHIM_UNDER_TEST"

func TestMain(m *testing.M) {
	if os.Getenv(asShim) != "" {
		os.Exit(dispatch(os.Args[1:]))
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		panic(err)
	}
	children := make(chan os.Signal, 1)
	signal.Notify(children, unix.SIGCHLD)
	go func() {
		for range children {
			reap()
		}
	}()
	os.Exit(m.Run())
}

var reaped struct {
	sync.Mutex
	status map[int]unix.WaitStatus
}

func reap() {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		reaped.Lock()
		if reaped.status == nil {
			reaped.status = map[int]unix.WaitStatus{}
		}
		reaped.status[pid] = status
		reaped.Unlock()
	}
}

// exitOf gives how a child ended; false if it has not.
func exitOf(pid int) (unix.WaitStatus, bool) {
	reaped.Lock()
	defer reaped.Unlock()
	s, ok := reaped.status[pid]
	return s, ok
}

// soon is how long anything may take on a machine that is busy.
const soon = 20 * time.Second

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(soon); !f(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", soon, what)
		}
	}
}

// hierarchies are what a host may have. The first is what this one has.
var hierarchies = map[string][]string{
	"hybrid": {"unified", "freezer", "pids"},
	"v1":     {"freezer", "pids"},
	"v2":     {"unified"},
	// As before Linux 5.14: no cgroup.kill.
	"old v2": {"unified"},
	"pids":   {"pids"},
}

// cgroupDirs gives the folders of a cgroup; where a host has none of the
// hierarchies, those of its only one.
func cgroupDirs(kind, id string) (dirs []string) {
	for _, h := range hierarchies[kind] {
		root := filepath.Join("/sys/fs/cgroup", h)
		if _, err := os.Stat(filepath.Join(root, "cgroup.procs")); err == nil {
			dirs = append(dirs, filepath.Join(root, id))
		}
	}
	if dirs == nil {
		dirs = []string{filepath.Join("/sys/fs/cgroup", id)}
	}
	return dirs
}

// guarded is a container in the eyes of a watchdog.
type guarded struct {
	t         *testing.T
	dir       string // of the lease
	file      leasefile.File
	out       [2]*os.File // the pipes' ends for the container
	ready     *os.File
	watchdog  *os.Process
	container *os.Process
}

// upMax is the time within which a container is surely up, on a machine that is
// busy with other tests too: leases of tests that need it up are no shorter.
const upMax = 3 * time.Second

// guard makes cgroups and starts a watchdog with a lease of so long from now.
func guard(t *testing.T, kind string, term, kill time.Duration) *guarded {
	t.Helper()
	g := &guarded{t: t, dir: t.TempDir()}
	id := fmt.Sprintf("orch-shim-%d-%d", os.Getpid(), time.Now().UnixNano())
	g.file = leasefile.File{ID: id, Log: filepath.Join(g.dir, "main.log"), Signal: int(unix.SIGTERM)}
	g.file.Cgroups = cgroupDirs(kind, id)
	g.makeCgroups(kind)
	g.renew(term, kill)
	g.start()
	return g
}

func (g *guarded) makeCgroups(kind string) {
	g.t.Helper()
	for _, dir := range g.file.Cgroups {
		if err := os.Mkdir(dir, 0o755); err != nil {
			g.t.Fatal(err)
		}
		g.t.Cleanup(func() {
			for range 200 { // whatever the test found out, nothing is left
				killCgroups([]string{dir})
				if err := os.Remove(dir); err == nil || errors.Is(err, os.ErrNotExist) {
					return
				}
				time.Sleep(10 * time.Millisecond)
			}
			g.t.Errorf("cgroup %s is left", dir)
		})
		if kind == "old v2" { // its kill file takes nothing
			file := filepath.Join(dir, "cgroup.kill")
			if err := unix.Mount("/dev/full", file, "", unix.MS_BIND, ""); err != nil {
				g.t.Fatal(err)
			}
			g.t.Cleanup(func() {
				if err := unix.Unmount(file, unix.MNT_DETACH); err != nil {
					g.t.Error(err)
				}
			})
		}
	}
}

// renew writes a lease of so long from now.
func (g *guarded) renew(term, kill time.Duration) {
	g.t.Helper()
	now := boottime.Now()
	g.file.Term, g.file.Kill = now+term, now+kill
	if err := leasefile.Write(g.dir, g.file); err != nil {
		g.t.Fatal(err)
	}
}

// start starts the watchdog as containerd's shim does, and waits for "ready".
func (g *guarded) start() {
	g.t.Helper()
	var ends [3][2]*os.File
	for i := range ends {
		r, w, err := os.Pipe()
		if err != nil {
			g.t.Fatal(err)
		}
		ends[i] = [2]*os.File{r, w}
		g.t.Cleanup(func() { r.Close(); w.Close() })
	}
	g.out, g.ready = [2]*os.File{ends[0][1], ends[1][1]}, ends[2][0]
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		g.t.Fatal(err)
	}
	defer null.Close()
	g.watchdog, err = os.StartProcess("/proc/self/exe", []string{"shim", "leased-log", filepath.Join(g.dir, leasefile.Name)}, &os.ProcAttr{
		Env:   append(os.Environ(), asShim+"=1", "GORACE=atexit_sleep_ms=0", "CONTAINER_ID="+g.file.ID),
		Files: []*os.File{null, null, os.Stderr, ends[0][0], ends[1][0], ends[2][1]},
	})
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() {
		if !g.over() {
			unix.Kill(g.watchdog.Pid, unix.SIGKILL)
		}
	})
	ends[0][0].Close()
	ends[1][0].Close()
	ends[2][1].Close()
	g.ready.SetReadDeadline(time.Now().Add(soon))
	if n, err := g.ready.Read(make([]byte, 1)); n != 1 {
		g.t.Fatalf("the watchdog is not ready: %v", err)
	}
	if on, err := leasefile.Guarded(g.dir); !on || err != nil {
		g.t.Errorf("a ready watchdog does not show that it lives: %v, %v", on, err)
	}
}

// run starts a shell's script in the cgroups, with the pipes as its output. $G
// is the lease's folder.
func (g *guarded) run(script string) {
	g.t.Helper()
	join := ""
	for _, dir := range g.file.Cgroups {
		join += "echo $$ > " + dir + "/cgroup.procs; "
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		g.t.Fatal(err)
	}
	defer null.Close()
	g.container, err = os.StartProcess("/bin/sh", []string{"sh", "-c", join + script}, &os.ProcAttr{
		Env: append(os.Environ(), "G="+g.dir), Files: []*os.File{null, g.out[0], g.out[1]},
	})
	if err != nil {
		g.t.Fatal(err)
	}
	g.out[0].Close()
	g.out[1].Close()
}

// up waits until the script has made the file $G/up.
func (g *guarded) up() {
	g.t.Helper()
	eventually(g.t, "the container is up", func() bool { _, err := os.Stat(filepath.Join(g.dir, "up")); return err == nil })
}

func (g *guarded) alive() bool { return populated(g.file.Cgroups) }
func (g *guarded) over() bool  { _, ok := exitOf(g.watchdog.Pid); return ok }

// dies waits for the container's end and gives when it was seen, in time since boot.
func (g *guarded) dies() time.Duration {
	g.t.Helper()
	eventually(g.t, "nothing of the container lives", func() bool { return !g.alive() })
	return boottime.Now()
}

// leaves waits for the watchdog's end, which must come soon.
func (g *guarded) leaves() {
	g.t.Helper()
	eventually(g.t, "the watchdog ends", g.over)
	if s, _ := exitOf(g.watchdog.Pid); !s.Exited() || s.ExitStatus() != 0 {
		g.t.Errorf("the watchdog ended by %s", ending(s))
	}
	if on, err := leasefile.Guarded(g.dir); on || err != nil {
		g.t.Errorf("guarded after its end: %v, %v", on, err)
	}
}

// says gives the log's lines, without their times.
func (g *guarded) says() []string { g.t.Helper(); return records(g.t, g.file.Log) }

func (g *guarded) wantNote(begins string, want bool) {
	g.t.Helper()
	said := slices.ContainsFunc(g.says(), func(l string) bool { return strings.HasPrefix(l, "orch F "+begins) })
	if said != want {
		g.t.Errorf("said %q: %v, want %v; all: %q", begins, said, want, g.says())
	}
}

const (
	noteSignal = "the lease was not renewed: signal 15 to the container"
	noteKill   = "the lease was over "
	noteBlind  = "the lease cannot be read and so not be renewed: "
)

// hardly is a container that does all that it can to stay: it ignores SIGTERM,
// has many processes, one of them in a session of its own, with no parent left,
// and closes its output.
const hardly = `trap "" TERM
i=0; while [ $i -lt 20 ]; do sleep 1000 & i=$((i+1)); done
(setsid sh -c 'trap "" TERM; touch $G/up; while :; do sleep 1000; done' &)
exec >&- 2>&-
wait; while :; do sleep 1000; done`

func TestWatchdogKillsAll(t *testing.T) {
	for kind := range hierarchies {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			g := guard(t, kind, upMax, upMax+300*time.Millisecond)
			g.run(hardly)
			g.up()
			if died := g.dies(); died < g.file.Kill {
				t.Errorf("died %s before its time", g.file.Kill-died)
			}
			g.leaves()
			g.wantNote(noteSignal, true)
			g.wantNote(noteKill, true)
			if by := leasefile.ToldBy(g.dir); by != leasefile.Watchdog {
				t.Errorf("told by %q", by)
			}
		})
	}
}

// TestWatchdogOutrunsForks: a container that forks as fast as it can.
func TestWatchdogOutrunsForks(t *testing.T) {
	t.Parallel()
	g := guard(t, "v1", upMax, upMax+100*time.Millisecond)
	for _, dir := range g.file.Cgroups {
		poke(dir, "pids.max", "150")
	}
	g.run(`trap "" TERM; touch $G/up; while :; do (while :; do sleep 0.01 & done) 2>/dev/null & sleep 0.01; done 2>/dev/null`)
	g.up()
	g.dies()
	g.leaves()
}

func TestWatchdogAsksFirst(t *testing.T) {
	t.Parallel()
	// The child in the same cgroup does not hear of it: only the first process is asked.
	g := guard(t, "hybrid", upMax, 30*time.Second)
	g.run(`sh -c 'trap "echo child" TERM; touch $G/up; while :; do sleep 0.05; done' & c=$!
trap 'echo asked; kill -KILL $c; exit 0' TERM
while :; do sleep 0.05; done`)
	g.up()
	if died := g.dies(); died < g.file.Term || died >= g.file.Kill {
		t.Errorf("died at %s, asked at %s, killed from %s", died, g.file.Term, g.file.Kill)
	}
	g.leaves()
	if said := g.says(); !slices.Contains(said, "stdout F asked") || slices.Contains(said, "stdout F child") {
		t.Errorf("said %q", said)
	}
	g.wantNote(noteSignal, true)
	g.wantNote(noteKill, false)
}

func TestWatchdogSendsTheImagesSignal(t *testing.T) {
	t.Parallel()
	g := guard(t, "v1", 30*time.Second, 40*time.Second)
	g.file.Signal = int(unix.SIGQUIT)
	w := &watchdog{dir: g.dir, lease: g.file, notes: noNotes}
	g.run(`trap 'echo quit; exit 0' QUIT; touch $G/up; while :; do sleep 0.05; done`)
	g.up()
	w.tell()
	g.dies()
	g.leaves()
	if said := g.says(); !slices.Contains(said, "stdout F quit") {
		t.Errorf("said %q", said)
	}
}

func TestWatchdogIsRenewed(t *testing.T) {
	t.Parallel()
	const lease = upMax
	g := guard(t, "hybrid", lease, lease+200*time.Millisecond)
	g.run(`touch $G/up; sleep 1000`)
	g.up()
	// Longer than the first lease and its renewal at the end of that.
	for until := boottime.Now() + 2*lease + lease/2; boottime.Now() < until; time.Sleep(20 * time.Millisecond) {
		g.renew(lease, lease+200*time.Millisecond)
		if !g.alive() {
			t.Fatalf("died although its lease was renewed: %q", g.says())
		}
	}
	if died := g.dies(); died < g.file.Term {
		t.Errorf("died %s before its last lease's end", g.file.Term-died)
	}
	g.leaves()
}

// TestWatchdogWithoutALease: what cannot be read renews nothing, and what was
// known holds.
func TestWatchdogWithoutALease(t *testing.T) {
	for name, spoil := range map[string]func(g *guarded) error{
		"missing": func(g *guarded) error { return os.Remove(filepath.Join(g.dir, leasefile.Name)) },
		"torn":    func(g *guarded) error { return os.Truncate(filepath.Join(g.dir, leasefile.Name), 40) },
		"unreadable": func(g *guarded) error {
			path := filepath.Join(g.dir, leasefile.Name)
			return errors.Join(os.Remove(path), os.Mkdir(path, 0o700))
		},
		"another's": func(g *guarded) error {
			f := g.file
			f.ID, f.Term, f.Kill = "other", f.Term+time.Hour, f.Kill+time.Hour
			f.Cgroups = []string{"/sys/fs/cgroup/pids/other"}
			return leasefile.Write(g.dir, f)
		},
		"shorter": func(g *guarded) error { // a late writer, overtaken by a newer one
			f := g.file
			f.Term, f.Kill = 1, 2
			return leasefile.Write(g.dir, f)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := guard(t, "hybrid", upMax, upMax+300*time.Millisecond)
			g.run(hardly)
			g.up()
			if err := spoil(g); err != nil {
				t.Fatal(err)
			}
			if died := g.dies(); died < g.file.Kill {
				t.Errorf("died %s before its time", g.file.Kill-died)
			}
			g.leaves()
			g.wantNote(noteBlind, name != "shorter")
			g.wantNote(noteKill, true)
		})
	}
}

// TestWatchdogWakes: the machine slept, or the watchdog did not run, over both ends.
func TestWatchdogWakes(t *testing.T) {
	t.Parallel()
	g := guard(t, "hybrid", 500*time.Millisecond, 700*time.Millisecond)
	if err := unix.Kill(g.watchdog.Pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	g.run(`trap 'echo asked; exit 0' TERM; touch $G/up; while :; do sleep 0.05; done`)
	g.up()
	eventually(t, "both ends have passed", func() bool { return boottime.Now() > g.file.Kill+300*time.Millisecond })
	if !g.alive() {
		t.Fatal("dead without a watchdog")
	}
	if err := unix.Kill(g.watchdog.Pid, unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	g.dies()
	g.leaves()
	g.wantNote(noteKill, true)
	if said := g.says(); slices.Contains(said, "stdout F asked") {
		t.Errorf("it was asked when it was to be dead: %q", said)
	}
}

// TestWatchdogKillsTheFrozen: paused containers are thawed to die.
func TestWatchdogKillsTheFrozen(t *testing.T) {
	for _, kind := range []string{"hybrid", "v1", "v2", "old v2"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			g := guard(t, kind, upMax, upMax+100*time.Millisecond)
			g.run(hardly)
			g.up()
			for _, dir := range g.file.Cgroups {
				freeze(dir, true)
			}
			g.dies()
			g.leaves()
		})
	}
}

func TestWatchdogEndsWithTheContainer(t *testing.T) {
	t.Parallel()
	g := guard(t, "hybrid", time.Hour, 2*time.Hour)
	g.run(`echo done; exit 3`)
	died := g.dies()
	g.leaves()
	if took := boottime.Now() - died; took > 5*time.Second { // a fraction of a second on an idle machine
		t.Errorf("it stayed for %s", took)
	}
	if said := g.says(); !slices.Contains(said, "stdout F done") || slices.ContainsFunc(said, func(l string) bool { return strings.HasPrefix(l, "orch") }) {
		t.Errorf("said %q", said)
	}
	if by := leasefile.ToldBy(g.dir); by != "" {
		t.Errorf("told by %q", by)
	}
}

// TestWatchdogStaysWithASilentContainer: closed pipes are no end.
func TestWatchdogStaysWithASilentContainer(t *testing.T) {
	t.Parallel()
	g := guard(t, "hybrid", time.Hour, 2*time.Hour)
	g.run(`exec >&- 2>&-; touch $G/up; while [ ! -e $G/go ]; do sleep 0.05; done`)
	g.up()
	for until := time.Now().Add(3 * lookEvery); time.Now().Before(until); time.Sleep(20 * time.Millisecond) {
		if g.over() {
			t.Fatal("the watchdog left a container that lives")
		}
	}
	if err := os.WriteFile(filepath.Join(g.dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	died := g.dies()
	g.leaves()
	if took := boottime.Now() - died; took > 5*time.Second {
		t.Errorf("it stayed for %s", took)
	}
}

// TestWatchdogOfTheUnborn: the container is made when the lease is over already,
// or never.
func TestWatchdogOfTheUnborn(t *testing.T) {
	t.Parallel()
	late := guard(t, "hybrid", time.Millisecond, 2*time.Millisecond)
	never := guard(t, "v1", time.Millisecond, 2*time.Millisecond)
	time.Sleep(50 * time.Millisecond)
	var held [2]*os.File // as containerd's shim holds the pipes
	for i, f := range late.out {
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		held[i] = os.NewFile(uintptr(fd), "held")
	}
	late.run(`touch $G/up; sleep 1000`)
	eventually(t, "it was killed", func() bool { _, ok := exitOf(late.container.Pid); return ok })
	late.dies()
	late.out = held
	late.run(`sleep 1000`)
	eventually(t, "what came after it was killed", func() bool { _, ok := exitOf(late.container.Pid); return ok })
	late.leaves()
	if never.over() {
		t.Error("the watchdog left while the container could still appear")
	}
	never.out[0].Close()
	never.out[1].Close()
	never.leaves()
}

// TestWatchdogLeavesTheAskingToTheAgent, if that was first.
func TestWatchdogLeavesTheAskingToTheAgent(t *testing.T) {
	t.Parallel()
	g := guard(t, "hybrid", upMax, upMax+600*time.Millisecond)
	g.run(`trap 'echo asked' TERM; touch $G/up; while :; do sleep 0.02; done`)
	g.up()
	if by, err := leasefile.Claim(g.dir, leasefile.Agent); by != leasefile.Agent || err != nil {
		t.Fatal(by, err)
	}
	if died := g.dies(); died < g.file.Kill {
		t.Errorf("died %s before its time", g.file.Kill-died)
	}
	g.leaves()
	if said := g.says(); slices.Contains(said, "stdout F asked") {
		t.Errorf("asked twice: %q", said)
	}
	g.wantNote(noteKill, true)
	if by := leasefile.ToldBy(g.dir); by != leasefile.Agent {
		t.Errorf("told by %q", by)
	}
}

// TestWatchdogWithAHangingLog: the log is a FIFO that nobody reads, as a disk
// that hangs.
func TestWatchdogWithAHangingLog(t *testing.T) {
	t.Parallel()
	g := &guarded{t: t, dir: t.TempDir()}
	id := fmt.Sprintf("orch-shim-hang-%d-%d", os.Getpid(), time.Now().UnixNano())
	g.file = leasefile.File{ID: id, Log: filepath.Join(g.dir, "main.log"), Signal: int(unix.SIGTERM), Cgroups: cgroupDirs("pids", id)}
	g.makeCgroups("pids")
	if err := unix.Mkfifo(g.file.Log, 0o600); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(g.file.Log, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	g.renew(1200*time.Millisecond, 1500*time.Millisecond)
	g.start()
	g.run(`trap "" TERM; (touch $G/up; yes) & while :; do echo more; done`)
	g.up()
	if died := g.dies(); died < g.file.Kill {
		t.Errorf("died %s before its time", g.file.Kill-died)
	}
	if g.over() {
		t.Error("the log did not hang: nothing was tested")
	}
	go func() {
		b := make([]byte, 64<<10)
		for {
			if _, err := reader.Read(b); err != nil {
				return
			}
		}
	}()
	g.leaves()
	reader.Close()
}

// TestWatchdogRefuses what it cannot guard by, and does not say "ready".
func TestWatchdogRefuses(t *testing.T) {
	g := &guarded{t: t, dir: t.TempDir()}
	if _, err := newWatchdog(g.dir, "db"); err == nil {
		t.Error("without a lease: no error")
	}
	g.file = leasefile.File{ID: "db", Log: "/nonexistent/x.log", Signal: 15, Cgroups: []string{"/sys/fs/cgroup/pids/db"}}
	g.renew(time.Hour, 2*time.Hour)
	if _, err := newWatchdog(g.dir, "other"); err == nil {
		t.Error("another's lease: no error")
	}
	for _, args := range [][]string{nil, {"lease"}, {"/x/main.log"}, {"/a/lease", "/b/lease"}} {
		if code := leasedLogMain(args); code != 2 {
			t.Errorf("leased-log %q gives %d", args, code)
		}
	}
	if code := leasedLogMain([]string{filepath.Join(g.dir, "none", "lease")}); code != 1 {
		t.Errorf("without a lease it gives %d", code)
	}
}

// TestStrangersAreNotHit: a pid that was in the cgroup is another's by now.
func TestStrangersAreNotHit(t *testing.T) {
	g := guard(t, "v1", time.Hour, 2*time.Hour)
	g.run(`touch $G/up; sleep 1000`)
	g.up()
	stranger, err := os.StartProcess("/bin/sleep", []string{"sleep", "1000"}, &os.ProcAttr{})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Kill(stranger.Pid, unix.SIGKILL) // ours until it is reaped, which is at the end
	if n := signalBatch(g.file.Cgroups[0], []int{stranger.Pid}, unix.SIGKILL); n != 0 {
		t.Errorf("%d were hit", n)
	}
	killCgroups(g.file.Cgroups)
	g.dies()
	g.leaves()
	if n := signalCgroup(g.file.Cgroups[0], unix.SIGKILL, false); n != 0 {
		t.Errorf("%d were hit in an empty cgroup", n)
	}
	if _, dead := exitOf(stranger.Pid); dead {
		t.Error("the stranger is dead")
	}
	if got, want := parent(os.Getpid()), os.Getppid(); got != want {
		t.Errorf("parent %d, want %d", got, want)
	}
}

// TestWatchdogIsProtected, as far as it is permitted here.
func TestWatchdogIsProtected(t *testing.T) {
	g := guard(t, "v1", time.Hour, 2*time.Hour)
	proc := "/proc/" + strconv.Itoa(g.watchdog.Pid)
	b, err := os.ReadFile(proc + "/status")
	if err != nil {
		t.Fatal(err)
	}
	locked, may := 0, uint64(0)
	for line := range strings.Lines(string(b)) {
		fmt.Sscanf(line, "VmLck: %d", &locked)
		fmt.Sscanf(line, "CapEff: %x", &may)
	}
	if may&(1<<unix.CAP_IPC_LOCK) != 0 && locked == 0 {
		t.Errorf("its memory is not locked:\n%s", b)
	}
	if b, err := os.ReadFile(proc + "/oom_score_adj"); err != nil || may&(1<<unix.CAP_SYS_RESOURCE) != 0 && strings.TrimSpace(string(b)) != "-1000" {
		t.Errorf("oom_score_adj is %q, %v", b, err)
	}
	g.out[0].Close()
	g.out[1].Close()
	g.leaves()
}
