package ctrd

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"golang.org/x/sys/unix"

	"github.com/orchctl/orch/internal/leasefile"
)

// retryEvery is the pause before asking again a containerd that broke off.
const retryEvery = 50 * time.Millisecond

// Stop ends the container: its stop signal (the manifest's, else its image's, else
// SIGTERM), after grace SIGKILL, and returns when it has ended. A grace of zero
// kills at once. why goes into the container's Exit; api.ExitLivenessFailed,
// ExitStartupFailed and ExitHookFailed there become its reason. A container that is
// gone or has ended is no error. A restart of containerd meanwhile is waited out as
// long as ctx allows.
func (r *Runtime) Stop(ctx context.Context, id string, grace time.Duration, why string) error {
	ctx = r.in(ctx)
	kill := time.Now().Add(grace)
	told, killed := false, false
	for {
		c, err := r.client.ContainerService().Get(ctx, id)
		if errdefs.IsNotFound(err) {
			return nil
		}
		var t *tasktypes.Process
		if err == nil {
			t, err = r.task(ctx, id)
		}
		if err == nil {
			if t == nil || t.Status == tasktypes.Status_STOPPED {
				return nil
			}
			if !told && why != "" {
				// Before the signal, so that no exit is judged without it.
				err = r.label(ctx, c, labelStopWhy, why)
			}
		}
		if err == nil {
			switch now := time.Now(); {
			case !killed && (t.Status == tasktypes.Status_CREATED || !now.Before(kill)):
				err = r.kill(ctx, id, unix.SIGKILL)
				killed, told = err == nil, true
			case !told && r.claimedByWatchdog(c):
				told = true // its signal counts
			case !told:
				err = r.kill(ctx, id, stopSignal(c.Labels))
				told = err == nil
			}
		}
		if err == nil {
			var ended bool
			if ended, err = r.wait(ctx, id, kill, killed); ended {
				return nil
			}
		}
		if ctx.Err() != nil {
			return fmt.Errorf("stop %s: %w", id, errors.Join(ctx.Err(), err))
		}
		if err != nil {
			if !errdefs.IsUnavailable(err) && !errdefs.IsNotFound(err) && !errdefs.IsCanceled(err) {
				return fmt.Errorf("stop %s: %w", id, err)
			}
			r.log.Debug("stopping is interrupted", "id", id, "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(retryEvery):
			}
		}
	}
}

// wait waits for the end until the time to kill comes.
func (r *Runtime) wait(ctx context.Context, id string, kill time.Time, killed bool) (ended bool, err error) {
	until := ctx
	if !killed {
		var cancel context.CancelFunc
		until, cancel = context.WithDeadline(ctx, kill)
		defer cancel()
	}
	_, err = r.client.TaskService().Wait(until, &tasks.WaitRequest{ContainerID: id})
	if err = errgrpc.ToNative(err); err == nil || errdefs.IsNotFound(err) {
		return true, nil
	}
	if ctx.Err() == nil && timedOut(until, err) {
		return false, nil // time to kill
	}
	return false, err
}

// timedOut tells whether a call failed because its time was up. containerd keeps
// the deadline too, may be first to notice, and passes it on as an unknown error.
func timedOut(ctx context.Context, err error) bool {
	return errors.Is(ctx.Err(), context.DeadlineExceeded) || strings.Contains(err.Error(), context.DeadlineExceeded.Error())
}

// kill sends a signal to the container's first process; one that is gone
// already is no error.
func (r *Runtime) kill(ctx context.Context, id string, sig syscall.Signal) error {
	_, err := r.client.TaskService().Kill(ctx, &tasks.KillRequest{ContainerID: id, Signal: uint32(sig)})
	err = errgrpc.ToNative(err)
	if errdefs.IsNotFound(err) || (err != nil && strings.Contains(err.Error(), "process already finished")) {
		return nil
	}
	return err
}

// claimedByWatchdog tells whether a leased container was told to end already,
// and notes otherwise that we do it now.
func (r *Runtime) claimedByWatchdog(c containers.Container) bool {
	if c.Labels[labelLeased] == "" {
		return false
	}
	by, err := leasefile.Claim(r.filesOf(c.ID), leasefile.Agent)
	if err != nil {
		r.log.Warn("stopping a container that may be told twice", "id", c.ID, "err", err)
	}
	return by == leasefile.Watchdog
}

// label sets one label, leaving the others.
func (r *Runtime) label(ctx context.Context, c containers.Container, key, value string) error {
	_, err := r.client.ContainerService().Update(ctx, containers.Container{ID: c.ID, Labels: map[string]string{key: value}}, "labels."+key)
	return err
}

// stopSignal reads a container's stop signal: "SIGQUIT", "QUIT", "3" or, of an
// image whose first process is an init system, "SIGRTMIN+3".
func stopSignal(labels map[string]string) syscall.Signal {
	s := strings.ToUpper(labels[labelStopSignal])
	if s == "" {
		return unix.SIGTERM
	}
	for _, rt := range []struct {
		name string
		base int
	}{{"RTMIN", realTimeMin}, {"RTMAX", realTimeMax}} {
		rest, ok := strings.CutPrefix(strings.TrimPrefix(s, "SIG"), rt.name)
		if !ok {
			continue
		}
		n := 0
		if rest != "" {
			var err error
			if n, err = strconv.Atoi(rest); err != nil {
				return unix.SIGTERM
			}
		}
		if n += rt.base; n >= realTimeMin && n <= realTimeMax {
			return syscall.Signal(n)
		}
		return unix.SIGTERM
	}
	for n := syscall.Signal(1); n <= realTimeMax; n++ {
		if name := unix.SignalName(n); s == fmt.Sprint(int(n)) || (name != "" && (s == name || "SIG"+s == name)) {
			return n
		}
	}
	return unix.SIGTERM
}

// The real-time signals that programs may use, as the C libraries count them: the
// kernel's first two are their own.
const realTimeMin, realTimeMax = 34, 64

// Remove deletes the container with its process, snapshot, cgroup and files;
// its log stays. One that still runs is killed. One that is gone is no error.
func (r *Runtime) Remove(ctx context.Context, id string) error {
	ctx = r.in(ctx)
	defer r.locks.lock(id)()
	return r.remove(ctx, id)
}

func (r *Runtime) remove(ctx context.Context, id string) error {
	cgroup := r.cgroupOf(id)
	c, err := r.client.ContainerService().Get(ctx, id)
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove %s: %w", id, err)
	}
	if err == nil {
		if c.Labels[labelCgroup] != "" {
			cgroup = c.Labels[labelCgroup]
		}
		if err := r.deleteTask(ctx, id); err != nil {
			return fmt.Errorf("remove %s: %w", id, err)
		}
		if err := r.client.ContainerService().Delete(ctx, id); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("remove %s: %w", id, err)
		}
	}
	// Without a container, too: a crash may have left the rest.
	if err := r.client.SnapshotService(r.cfg.Snapshotter).Remove(ctx, id); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove %s: snapshot: %w", id, err)
	}
	if err := removeCgroup(ctx, cgroup); err != nil {
		return fmt.Errorf("remove %s: %w", id, err)
	}
	if err := r.removeFiles(id); err != nil {
		return fmt.Errorf("remove %s: files: %w", id, err)
	}
	return nil
}

// deleteTask ends and deletes the container's process.
func (r *Runtime) deleteTask(ctx context.Context, id string) error {
	t, err := r.task(ctx, id)
	if t == nil && err == nil {
		return nil
	}
	if err != nil || t.Status != tasktypes.Status_STOPPED {
		if err := r.kill(ctx, id, unix.SIGKILL); err != nil {
			return fmt.Errorf("kill: %w", err)
		}
		if _, err := r.client.TaskService().Wait(ctx, &tasks.WaitRequest{ContainerID: id}); err != nil {
			if err = errgrpc.ToNative(err); !errdefs.IsNotFound(err) {
				return fmt.Errorf("wait for the end: %w", err)
			}
		}
	}
	_, err = r.client.TaskService().Delete(ctx, &tasks.DeleteTaskRequest{ContainerID: id})
	if err = errgrpc.ToNative(err); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("delete process: %w", err)
	}
	return nil
}
