package ctrd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"golang.org/x/sys/unix"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/leasefile"
)

// lostCode is the exit code of a container that nobody saw end.
const lostCode = 255

var errUnreadable = errors.New("not readable as a container of ours")

// List gives all containers with our label, running or not, by id. A container
// whose labels cannot be read is logged and left out.
func (r *Runtime) List(ctx context.Context) ([]Observed, error) {
	ctx = r.in(ctx)
	// Tasks first: a container made after this is then listed without its
	// task and looked at singly, instead of a task being missed.
	res, err := r.client.TaskService().List(ctx, &tasks.ListTasksRequest{})
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", errgrpc.ToNative(err))
	}
	byID := map[string]*tasktypes.Process{}
	for _, t := range res.Tasks {
		byID[t.ID] = t
	}
	list, err := r.client.ContainerService().List(ctx, `labels."`+labelService+`"`)
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	var out []Observed
	for _, c := range list {
		// A listing leaves out tasks whose shim did not answer in time, so
		// a missing one is asked for.
		t := byID[c.ID]
		var taskErr error
		if t == nil {
			t, taskErr = r.task(ctx, c.ID)
		}
		o, err := r.judge(c, t, taskErr)
		if err != nil {
			r.log.Warn("container with our label cannot be read", "id", c.ID, "err", err)
			continue
		}
		out = append(out, o)
	}
	slices.SortFunc(out, func(a, b Observed) int { return cmp.Compare(a.ID, b.ID) })
	return out, nil
}

// observe looks at one container; ErrNotFound if there is none.
func (r *Runtime) observe(ctx context.Context, id string) (Observed, error) {
	c, err := r.client.ContainerService().Get(ctx, id)
	if errdefs.IsNotFound(err) {
		return Observed{}, fmt.Errorf("look at container %s: %w", id, ErrNotFound)
	}
	if err != nil {
		return Observed{}, fmt.Errorf("look at container %s: %w", id, err)
	}
	t, err := r.task(ctx, id)
	o, err := r.judge(c, t, err)
	if err != nil {
		return Observed{}, fmt.Errorf("look at container %s: %w: %w", id, errUnreadable, err)
	}
	return o, nil
}

// task gives the container's process as containerd has it; nil if it has none.
func (r *Runtime) task(ctx context.Context, id string) (*tasktypes.Process, error) {
	res, err := r.client.TaskService().Get(ctx, &tasks.GetRequest{ContainerID: id})
	if err != nil {
		if err = errgrpc.ToNative(err); errdefs.IsNotFound(err) {
			return nil, nil
		}
		return nil, err
	}
	return res.Process, nil
}

// judge makes an Observed from what containerd has of a container and its
// process. taskErr says that it did not tell of the process.
func (r *Runtime) judge(c containers.Container, t *tasktypes.Process, taskErr error) (Observed, error) {
	o, err := observedOf(c.ID, c.Image, c.Labels)
	if err != nil {
		return Observed{}, err
	}
	if o.Healthcheck, err = keptHealthcheck(c); err != nil {
		return Observed{}, err
	}
	switch {
	case taskErr != nil || (t != nil && t.Status == tasktypes.Status_UNKNOWN):
		o.Running, o.Uncertain = true, true
	case t == nil && !o.StartedAt.IsZero():
		e := r.lostExit(c.ID, c.Labels, c.UpdatedAt)
		o.Exit = &e
	case t == nil || t.Status == tasktypes.Status_CREATED:
		// Half-made: neither running nor ended.
		if t != nil {
			o.StartedAt = time.Time{}
		}
	case t.Status == tasktypes.Status_STOPPED:
		if o.StartedAt.IsZero() { // the label is written beside the start
			o.StartedAt = c.CreatedAt.UTC()
		}
		e := r.exitOf(c.ID, c.Labels, t.ExitStatus, t.ExitedAt.AsTime())
		o.Exit = &e
	default: // running, paused, pausing
		o.Running, o.Pid = true, t.Pid
		if o.StartedAt.IsZero() {
			o.StartedAt = c.CreatedAt.UTC()
		}
	}
	return o, nil
}

// exitOf judges an end from its status, from what the cgroup tells and from
// whether we were asked to stop the container, or its watchdog ended it.
func (r *Runtime) exitOf(id string, labels map[string]string, status uint32, at time.Time) api.Exit {
	mem, err := readMemory(labels[labelCgroup])
	if err != nil {
		r.log.Warn("cannot read the evidence for out of memory", "err", err)
	}
	why := labels[labelStopWhy]
	if labels[labelLeased] != "" && leasefile.ToldBy(r.filesOf(id)) == leasefile.Watchdog {
		why = endedByWatchdog
	}
	return judgeExit(status, at, mem, why)
}

// lostExit is the end of a container whose shim is gone: killed, or the node was off.
// containerd 2 also removes the shim of a container that ended while containerd itself
// was being restarted, and its exit code with it. Why it was stopped is still known.
func (r *Runtime) lostExit(id string, labels map[string]string, at time.Time) api.Exit {
	e := r.exitOf(id, labels, lostCode, at)
	if e.Reason == api.ExitError {
		e.Message = "lost with its supervisor (containerd's shim killed, the node was off, or it ended while containerd was restarted)"
	}
	e.Message = strings.Replace(e.Message, fmt.Sprintf("exit code %d", lostCode), "its exit code is lost with containerd's shim", 1)
	return e
}

// endedByWatchdog is why a container was stopped that nobody renewed the lease of.
const endedByWatchdog = "its lease was over, says its watchdog"

// failedIts are the reasons for a stop that become the exit's.
var failedIts = map[string]string{
	api.ExitLivenessFailed: "liveness probe",
	api.ExitStartupFailed:  "startup probe",
	api.ExitHookFailed:     "postStart hook",
}

// judgeExit is exitOf without the reading. The exit code 137 alone is not out
// of memory: the kernel must have said so.
func judgeExit(status uint32, at time.Time, mem memoryEvidence, stopWhy string) api.Exit {
	e := api.Exit{Code: int(status), FinishedAt: at.UTC()}
	how := fmt.Sprintf("exit code %d", status)
	// A signal n is reported as 128+n.
	if n := int(status) - 128; n > 0 && n <= 64 {
		if name := unix.SignalName(unix.Signal(n)); name != "" {
			e.Signal = n
			how = fmt.Sprintf("signal %d (%s)", n, name)
		}
	}
	switch {
	case stopWhy == endedByWatchdog || stopWhy == api.ReasonLeaseLost:
		e.Reason, e.Message = api.ReasonLeaseLost, "stopped ("+stopWhy+"); "+how
	case failedIts[stopWhy] != "":
		e.Reason, e.Message = stopWhy, "stopped because its "+failedIts[stopWhy]+" failed; "+how
	case e.Signal == int(unix.SIGKILL) && mem.oomKills > 0:
		e.OOM, e.Reason = true, api.ExitOutOfMemory
		e.Message = "killed for want of memory" + mem.String()
	case status == 0:
		e.Reason = api.ExitCompleted
	case stopWhy != "":
		e.Reason, e.Message = exitKilled, "stopped ("+stopWhy+"); "+how
	case e.Signal != 0:
		e.Reason, e.Message = api.ExitSignaled, "ended by "+how
	default:
		e.Reason, e.Message = api.ExitError, how
	}
	if mem.oomKills > 0 && !e.OOM {
		e.Message = joinWords(e.Message, fmt.Sprintf("the kernel had killed %d of its processes for want of memory%s", mem.oomKills, mem))
	}
	return e
}

// exitKilled is the reason of a container that ended because Stop was called.
const exitKilled = "Killed"

func joinWords(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}
