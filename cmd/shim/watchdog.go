//go:build linux

package main

import (
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orchctl/orch/internal/boottime"
	"github.com/orchctl/orch/internal/leasefile"
)

// The watchdog's paces. Until the lease ends it sleeps.
const (
	// killEvery is the pause between two rounds of killing; the first usually does.
	killEvery = 10 * time.Millisecond
	// lateEvery is that pause once killFor has passed (what is left waits for a
	// disk), and the one between looks for a container that is only being made.
	lateEvery = 100 * time.Millisecond
	killFor   = time.Second
	// bornFor is how long after the lease's end a container may still appear: the
	// agent starts none with a lease that is over, so nothing that appears later
	// can run.
	bornFor = 10 * time.Second
	// lookEvery is the pause between looks whether a container still lives that
	// closed its output.
	lookEvery = 500 * time.Millisecond
)

// leasedLogMain is `shim leased-log LEASE`: the log of a container that runs only
// under a lease, and its watchdog. LEASE is the file that says how long
// (internal/leasefile); the agent replaces it with every renewal, and nobody else
// takes part: not containerd, not the network. Whatever becomes of the agent, at
// Term the container is told to end, and from Kill on what is in its cgroup is
// killed until nothing is left.
//
// It sleeps until an end comes and only then reads whether there is a later one;
// a file that cannot be read is no later one. A missing or foreign file at the
// start ends it before it says "ready" and is seen by the agent, which starts no
// container without a living watchdog.
//
// It is a child of containerd's shim, in containerd's cgroup: what is done to
// the container's (frozen, killed, out of memory) does not touch it. It lives
// until both pipes have ended and the cgroup is empty. While containerd's shim
// holds the pipes, which is until the container is deleted, it stays, as `shim
// log` does: the shim signals it then by its pid, which must not be another's.
func leasedLogMain(args []string) int {
	if len(args) != 1 || !filepath.IsAbs(args[0]) || filepath.Base(args[0]) != leasefile.Name {
		complain("usage: shim leased-log /absolute/folder/" + leasefile.Name)
		return 2
	}
	w, err := newWatchdog(filepath.Dir(args[0]), os.Getenv("CONTAINER_ID"))
	if err != nil {
		complain("leased-log: " + err.Error())
		return 1
	}
	protect()
	l, err := beginLog(w.lease.Log)
	if err != nil {
		complain("leased-log: " + err.Error())
		return 1
	}
	// Two goroutines: a log on a disk that hangs must not hold up the watchdog.
	done := make(chan struct{})
	go func() {
		defer close(done)
		pump(l, fdStdout, fdStderr, w.notes, time.Now)
		wake(w.pumped)
	}()
	w.run()
	<-done
	w.notes.record(l, time.Now())
	l.flush()
	return 0
}

// watchdog is one container's. One goroutine (run) owns it, but for notes.
type watchdog struct {
	dir    string // the container's folder
	lease  leasefile.File
	timer  int // a timerfd of CLOCK_BOOTTIME: it fires at once when a suspended machine wakes
	pumped int // an eventfd: the output has ended
	notes  *notes

	told    bool          // to end; by us or by the agent
	over    bool          // the lease; for good
	overAt  time.Duration // since when, by our clock
	blind   bool          // the lease could not be read; said once
	outputs bool          // the pipes have ended
}

func newWatchdog(dir, id string) (*watchdog, error) {
	f, err := leasefile.Read(dir)
	if err != nil {
		return nil, err
	}
	if f.ID != id {
		return nil, &os.PathError{Op: "guard " + id + " by", Path: dir, Err: unix.EBADMSG}
	}
	if err := leasefile.Guard(dir); err != nil {
		return nil, err
	}
	w := &watchdog{dir: dir, lease: f}
	if w.timer, err = unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK); err != nil {
		return nil, os.NewSyscallError("timerfd_create", err)
	}
	if w.pumped, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, os.NewSyscallError("eventfd", err)
	}
	w.notes, err = newNotes()
	return w, err
}

// run returns when the output has ended and nothing of the container lives.
func (w *watchdog) run() {
	fds := []unix.PollFd{{Fd: int32(w.timer), Events: unix.POLLIN}, {Fd: int32(w.pumped), Events: unix.POLLIN}}
	for {
		next := w.step(boottime.Now())
		if w.outputs && !populated(w.lease.Cgroups) {
			return
		}
		w.arm(next)
		unix.Poll(fds, -1) // interrupted or failed: look again
		if fds[1].Revents != 0 {
			w.outputs, fds[1].Fd = true, -1
		}
	}
}

// step does what is due and gives the time at which to look again; 0 for never.
func (w *watchdog) step(now time.Duration) time.Duration {
	if !w.over && now >= w.due() {
		w.read()
		if now >= w.lease.Kill {
			w.over, w.overAt = true, now
			w.end(now)
		} else if now >= w.lease.Term && !w.told {
			w.tell()
		}
	}
	next := w.due()
	if w.over {
		next = w.kill(now)
	}
	if w.outputs && (next == 0 || next > now+lookEvery) {
		next = now + lookEvery
	}
	return next
}

// due is the next time at which a lease that is not renewed asks for something.
func (w *watchdog) due() time.Duration {
	if w.told {
		return w.lease.Kill
	}
	return w.lease.Term
}

// read takes a later end from the file, if there is one.
func (w *watchdog) read() {
	f, err := leasefile.Read(w.dir)
	switch {
	case err == nil && f.ID == w.lease.ID:
		if f.Kill > w.lease.Kill {
			w.lease.Term, w.lease.Kill = f.Term, f.Kill
		}
	case !w.blind:
		w.blind = true
		why := "it is another container's"
		if err != nil {
			why = err.Error()
		}
		w.notes.add("the lease cannot be read and so not be renewed: " + why)
	}
}

// tell asks the container to end, unless the agent did.
func (w *watchdog) tell() {
	w.told = true
	by, err := leasefile.Claim(w.dir, leasefile.Watchdog)
	if err == nil && by != leasefile.Watchdog {
		return
	}
	for _, dir := range w.lease.Cgroups {
		if n := signalCgroup(dir, unix.Signal(w.lease.Signal), true); n > 0 {
			w.notes.add("the lease was not renewed: signal " + strconv.Itoa(w.lease.Signal) + " to the container")
			return
		}
	}
}

// end notes that the container is killed now, if it is still there.
func (w *watchdog) end(now time.Duration) {
	if populated(w.lease.Cgroups) {
		leasefile.Claim(w.dir, leasefile.Watchdog) // for whoever asks why it ended; else the agent's note stands
		w.notes.add("the lease was over " + (now - w.lease.Kill).Round(time.Millisecond).String() + " ago: killing what is left of the container")
	}
}

// kill kills what is in the container's cgroup and gives the time of the next round.
func (w *watchdog) kill(now time.Duration) time.Duration {
	if !populated(w.lease.Cgroups) {
		if now-w.overAt > bornFor {
			return 0
		}
		return now + lateEvery
	}
	killCgroups(w.lease.Cgroups)
	if now-w.overAt > killFor {
		return now + lateEvery
	}
	return now + killEvery
}

// arm sets the timer.
func (w *watchdog) arm(at time.Duration) {
	var spec unix.ItimerSpec
	if at > 0 {
		spec.Value = unix.NsecToTimespec(int64(at))
	}
	// It can fail only for want of a timer, which was made.
	unix.TimerfdSettime(w.timer, unix.TFD_TIMER_ABSTIME, &spec, nil)
}

func wake(eventfd int) { unix.Write(eventfd, []byte{1, 0, 0, 0, 0, 0, 0, 0}) }
