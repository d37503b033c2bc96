package sim

import (
	"math/rand/v2"
	"time"

	"github.com/orchctl/orch/agent/plan"
	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

// gray is how a machine fails while it beats: times until which something does
// not work.
type gray struct {
	down  int64 // containerd refuses
	hangs int64 // containerd does not answer
	full  int64 // the disk is full
	slow  int64 // every task waits for the disk
}

const (
	// selfCheckEvery is the time between an agent's looks at its own machine.
	selfCheckEvery = 3 * time.Second
	// answerMax is how long an agent waits for containerd.
	answerMax = 10 * time.Second
	// saveAgain is the wait after the disk refused the assignment.
	saveAgain = 5 * time.Second
)

func (h *host) diskFull() bool { return h.w.clock < h.gray.full }

// turnGray makes the machine fail in one of the ways.
func (h *host) turnGray(kind Fault, long time.Duration, n int) {
	w, until := h.w, h.w.clock+int64(long)
	switch {
	case kind == DiskFull:
		w.say("the disk of %s is full for %s", h.name, long)
		h.gray.full = max(h.gray.full, until)
	case n < 40:
		w.say("containerd of %s is down for %s", h.name, long)
		h.gray.down = max(h.gray.down, until)
		h.runtime.deaf = max(h.runtime.deaf, until)
		h.after(long, h.runtimeBack)
	case n < 75:
		w.say("containerd of %s hangs for %s", h.name, long)
		h.gray.hangs = max(h.gray.hangs, until)
		h.runtime.deaf = max(h.runtime.deaf, until)
		h.after(long, h.runtimeBack)
	default:
		w.say("everything on %s waits for its disk for %s", h.name, long)
		h.gray.slow = max(h.gray.slow, until)
	}
}

// runtimeBack: the agent subscribes to events again.
func (h *host) runtimeBack() {
	if h.w.clock >= max(h.gray.down, h.gray.hangs) {
		h.agent.receive(h.agent.life, func() { h.agent.step(plan.RuntimeBack{}) })
	}
}

// selfCheck looks at the machine every few seconds; beats carry what it found.
func (a *agent) selfCheck() {
	g := &a.h.gray
	switch now := a.h.w.clock; {
	case now < g.hangs:
		if now-a.good > int64(answerMax) {
			a.failing = "containerd: no answer for 10s"
		}
	case now < g.down:
		a.failing = "containerd: connection refused"
	case now < g.full:
		a.failing = "data folder: no space left on device"
	default:
		a.good, a.failing = now, ""
	}
	a.after(selfCheckEvery, true, a.selfCheck)
}

func (a *agent) check() wire.SelfCheck {
	c := wire.SelfCheck{Age: time.Duration(a.h.w.clock - a.good), Failing: a.failing}
	if a.h.w.clock < a.h.gray.slow {
		c.IOPressure = 0.97
	}
	return c
}

// refusal is what a machine that does not work answers, and after how long; ""
// says that it works. What hangs may be done after all when it hangs no more.
func (h *host) refusal(r *rand.Rand, e plan.Effect) (message string, took time.Duration, late bool) {
	now := h.w.clock
	switch {
	case now < h.gray.hangs:
		return "no answer", min(time.Duration(h.gray.hangs-now), answerMax), chance(r, 0.3)
	case now < h.gray.down:
		return "connection refused", time.Millisecond, false
	}
	switch e.(type) {
	case plan.StartContainer, plan.EnsureImage, plan.SetupNetwork:
		if now < h.gray.full {
			return "no space left on device", 2 * time.Millisecond, false
		}
	}
	return "", 0, false
}

// refused is the answer to an effect that could not be carried out.
func refused(e plan.Effect, message string) plan.Event {
	switch e := e.(type) {
	case plan.Observe:
		return plan.Observed{ID: e.ID, Err: message}
	case plan.EnsureImage:
		return failed(e.ID, api.ReasonImageError, message)
	case plan.SetupNetwork:
		return failed(e.ID, api.ReasonNetworkError, message)
	case plan.TeardownNetwork:
		return failed(e.ID, api.ReasonNetworkError, message)
	case plan.PruneNetworks:
		return failed(e.ID, api.ReasonNetworkError, message)
	case plan.StartContainer:
		return failed(e.ID, api.ReasonCreateError, message)
	case plan.StopContainer:
		return failed(e.ID, api.ReasonCreateError, message)
	case plan.RemoveVolume:
		return failed(e.ID, api.ReasonVolumeError, message)
	case plan.RunHook:
		return failed(e.ID, api.ReasonHookFailed, message)
	case plan.RemoveContainer:
		return failed(e.ID, api.ReasonCreateError, message)
	}
	return nil
}
