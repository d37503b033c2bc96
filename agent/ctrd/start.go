package ctrd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/errdefs"

	"github.com/orchctl/orch/agent/logs"
	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/leasefile"
)

// startFailedCode is the exit code of a container whose command could not be
// started, as docker has it: notFoundCode and noExecCode where the command is to blame,
// which shells use too.
const (
	startFailedCode = 128
	notFoundCode    = 127
	noExecCode      = 126
)

// Start creates and starts the container, unless it exists: one that runs is
// returned as it is (adoption), and so is one that ran and ended, for a run
// must not happen twice. A half-made leftover is removed first. When the
// container itself is at fault, the error is a *StartError. With a lease it is
// started only while that has not come to its Term, else ErrLeaseOver, and only
// beside a watchdog that lives; one that runs already is given the lease, unless
// it was made from another spec, which SpecHash tells.
func (r *Runtime) Start(ctx context.Context, s ContainerSpec) (Observed, error) {
	ctx = r.in(ctx)
	id := s.ID()
	defer r.locks.lock(id)()
	if s.Incarnation == "" {
		s.Incarnation = r.cfg.Incarnation
	}
	o, err := r.observe(ctx, id)
	switch {
	case err == nil && o.Running && s.Lease != nil && o.SpecHash == s.SpecHash:
		if err := r.SetLease(ctx, id, *s.Lease); err != nil {
			return Observed{}, fmt.Errorf("start %s, which runs: %w", id, err)
		}
		return o, nil
	case err == nil && (o.Running || !o.StartedAt.IsZero()):
		return o, nil
	case err == nil || errors.Is(err, errUnreadable):
		if err := r.remove(ctx, id); err != nil {
			return Observed{}, fmt.Errorf("start %s: %w", id, err)
		}
	case !errors.Is(err, ErrNotFound):
		return Observed{}, fmt.Errorf("start %s: %w", id, err)
	}
	o, err = r.create(ctx, id, s)
	if err != nil {
		// Half of it may be there, and the caller's context may be over.
		c, cancel := r.cleanup(ctx)
		defer cancel()
		if e := r.remove(c, id); e != nil {
			r.log.Warn("cannot clear away a container that did not start", "id", id, "err", e)
		}
		return Observed{}, err
	}
	return o, nil
}

// create makes container and first process and starts it.
func (r *Runtime) create(ctx context.Context, id string, s ContainerSpec) (Observed, error) {
	began := time.Now()
	if s.Lease != nil && s.Lease.over() {
		return Observed{}, fmt.Errorf("start %s: %w", id, ErrLeaseOver)
	}
	ref := s.ImageID
	if ref == "" {
		ref = s.Container.Image
	}
	img, err := r.findAndUse(ctx, ref)
	if err != nil {
		return Observed{}, fmt.Errorf("start %s: %w", id, err)
	}
	m, err := r.meta(ctx, img)
	if err != nil {
		return Observed{}, fmt.Errorf("start %s: %w", id, err)
	}
	// Made here and not by the shim program only: if it cannot be made, this
	// can be told.
	logFile := logs.File(r.cfg.LogDir, s.Replica, s.Container.Name)
	if err := os.MkdirAll(filepath.Dir(logFile), 0o750); err != nil {
		return Observed{}, fmt.Errorf("start %s: make log folder: %w", id, err)
	}
	mounts, held, err := r.mounts(id, s)
	if err != nil {
		return Observed{}, bindError(id, err)
	}
	defer held.release()
	files, err := r.writeFiles(id, s)
	if err != nil {
		return Observed{}, err
	}
	cgroup := r.cgroupOf(id)
	signal := orDefault(s.Container.StopSignal, m.config.StopSignal)
	// One argument only: containerd passes several in random order.
	output := map[string]string{"log": logFile}
	if s.Lease != nil {
		if err := r.writeLease(id, *s.Lease, logFile, cgroup, signal); err != nil {
			return Observed{}, err
		}
		output = map[string]string{"leased-log": filepath.Join(r.filesOf(id), leasefile.Name)}
	}
	opts, err := r.specOpts(id, s, m, cgroup, slices.Concat(mounts, besides(files, mounts)))
	if err != nil {
		return Observed{}, startError(id, err)
	}
	labels := labelsOf(s, m.id, cgroup, signal)
	parts := []client.NewContainerOpts{
		client.WithContainerLabels(labels),
		r.withRootFS(id, m),
		client.WithRuntime("io.containerd.runc.v2", nil),
		client.WithNewSpec(opts...),
	}
	if m.health != nil {
		kept, err := marshalHealthcheck(m.health)
		if err != nil {
			return Observed{}, fmt.Errorf("start %s: %w", id, err)
		}
		parts = append(parts, client.WithContainerExtension(healthExtension, kept))
	}
	container, err := r.client.NewContainer(ctx, id, parts...)
	if err != nil {
		if user := (*badUser)(nil); errors.As(err, &user) {
			return Observed{}, startError(id, user)
		}
		return Observed{}, fmt.Errorf("start %s: create container: %w", id, err)
	}
	t, err := container.NewTask(ctx, cio.BinaryIO(r.cfg.ShimPath, output))
	if err != nil {
		return Observed{}, classifyStart(ctx, id, err)
	}
	if err := held.check(t.Pid()); err != nil {
		return Observed{}, bindError(id, err)
	}
	if len(s.SecretEnv) > 0 || s.Container.Stdin {
		if err := lookInside(t.Pid(), argsOf(s.Container, m)[0], cwdOf(s.Container, m), slices.Concat(envOf(s, m), r.secretEnvOf(id))); err != nil {
			return Observed{}, startError(id, err)
		}
	}
	if s.Lease != nil {
		// containerd goes on without its log process if that dies early. And
		// making the container may have taken any time.
		if err := r.guarded(id); err != nil {
			return Observed{}, fmt.Errorf("start: %w", err)
		}
		if s.Lease.over() {
			return Observed{}, fmt.Errorf("start %s: %w", id, ErrLeaseOver)
		}
	}
	created := time.Since(began)
	started := time.Now().UTC()
	labelled := make(chan error, 1)
	go func() { // beside the start, as it costs containerd a write to disk
		_, err := container.SetLabels(ctx, map[string]string{labelStarted: started.Format(time.RFC3339Nano)})
		labelled <- err
	}()
	err = t.Start(ctx)
	labelErr := <-labelled
	if err != nil {
		return Observed{}, classifyStart(ctx, id, err)
	}
	if labelErr != nil {
		return Observed{}, fmt.Errorf("start %s: label: %w", id, labelErr)
	}
	o, err := observedOf(id, m.present.Name(), labels)
	if err != nil {
		return Observed{}, err
	}
	r.cfg.Counts.Phase("create", created)
	r.cfg.Counts.Phase("start", time.Since(started))
	o.Running, o.Pid, o.StartedAt, o.Healthcheck = true, t.Pid(), started, m.health
	return o, nil
}

// withRootFS makes the container's writable layer on top of the image's
// snapshots, which are unpacked anew if they are gone.
func (r *Runtime) withRootFS(id string, m imageMeta) client.NewContainerOpts {
	return func(ctx context.Context, cl *client.Client, c *containers.Container) error {
		sn := cl.SnapshotService(r.cfg.Snapshotter)
		_, err := sn.Prepare(ctx, id, m.parent)
		switch {
		case errdefs.IsNotFound(err):
			if err := r.unpack(ctx, m.present); err != nil {
				return err
			}
			_, err = sn.Prepare(ctx, id, m.parent)
		case errdefs.IsAlreadyExists(err): // left by a crash between snapshot and container
			if err := sn.Remove(ctx, id); err != nil {
				return err
			}
			_, err = sn.Prepare(ctx, id, m.parent)
		}
		if err != nil {
			return fmt.Errorf("make file system: %w", err)
		}
		c.Snapshotter, c.SnapshotKey, c.Image = r.cfg.Snapshotter, id, m.present.Name()
		return nil
	}
}

// bindError leaves a refusal as it is: its words are all that there is to say.
func bindError(id string, err error) error {
	if errors.Is(err, ErrBindRefused) {
		return err
	}
	return fmt.Errorf("start %s: %w", id, err)
}

// classifyStart keeps a containerd that is away or a caller that gave up apart
// from a container that cannot be started.
func classifyStart(ctx context.Context, id string, err error) error {
	if ctx.Err() != nil || errdefs.IsUnavailable(err) || errdefs.IsCanceled(err) || errdefs.IsDeadlineExceeded(err) {
		return fmt.Errorf("start %s: %w", id, err)
	}
	return startError(id, err)
}

func startError(id string, err error) *StartError {
	words := plainWords(err.Error())
	return &StartError{ID: id, err: err, Exit: api.Exit{
		Code: startCode(words), Reason: api.ExitStartFailed, Message: words, FinishedAt: time.Now().UTC(),
	}}
}

// startCode tells from runc's words, which begin with what it could not do, why there is
// no process: `exec: "x": executable file not found in $PATH`, `exec: "/etc": permission
// denied`.
func startCode(words string) int {
	switch command := strings.HasPrefix(words, "exec: "); {
	case command && (strings.Contains(words, "executable file not found") || strings.Contains(words, "no such file or directory")):
		return notFoundCode
	case command && (strings.Contains(words, "permission denied") || strings.Contains(words, "exec format error") || strings.Contains(words, "is a directory")):
		return noExecCode
	}
	return startFailedCode
}

// plainWords cuts the wrappings off runc's words: what is left begins with
// what failed.
func plainWords(s string) string {
	for _, before := range []string{"unable to start container process: ", "OCI runtime create failed: ", "OCI runtime start failed: "} {
		if i := strings.LastIndex(s, before); i >= 0 {
			s = s[i+len(before):]
			break
		}
	}
	return strings.TrimSuffix(s, ": unknown")
}
