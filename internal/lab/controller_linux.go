package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/orchctl/orch/internal/lab/initspec"
)

// StartController starts the controller, and its host where that is off, and
// returns when it answers on its socket and has written the files that a lab
// needs: the join token and the admin's context.
func (l *Lab) StartController(ctx context.Context) error {
	s, err := l.read()
	if err != nil {
		return err
	}
	if s.Config.Daemons != All {
		return fmt.Errorf("start controller: lab %s was made without one", l.name)
	}
	h := hostOf(&s.Config, controllerName)
	if err := os.MkdirAll(filepath.Join(h.dir, "data"), 0o700); err != nil {
		return err
	}
	unlock, err := lock(filepath.Join(h.dir, lockFile))
	if err != nil {
		return err
	}
	defer unlock()
	if s, err = l.read(); err != nil {
		return err
	}
	if !s.Controller.alive() {
		init, err := powerOn(ctx, &s.Config, h, netnsName(l.name), []initspec.Program{{
			Name:     controllerName,
			Args:     controllerArgs(&s.Config, h),
			Env:      []string{"PATH=" + hostPath, "HOME=/root"},
			Log:      h.log(controllerName),
			OOMScore: -900,
		}})
		if err != nil {
			return err
		}
		if err := l.update(func(s *state) error { s.Controller = init; return nil }); err != nil {
			return err
		}
	}
	if err := h.start(ctx, controllerName); err != nil {
		return err
	}
	if err := h.awaitSocket(ctx, controllerName, l.ControllerSocket()); err != nil {
		return err
	}
	for _, file := range []string{tokenFile, contextFile} {
		path := filepath.Join(l.dir, file)
		err := poll(ctx, readyTimeout, "wait for the controller to write "+path, func() (bool, error) {
			info, err := os.Stat(path)
			return err == nil && info.Size() > 0, nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// StopController sends a signal to the controller and, where the signal is
// one that ends programs, returns when it has ended.
func (l *Lab) StopController(ctx context.Context, sig syscall.Signal) error {
	s, err := l.read()
	if err != nil {
		return err
	}
	if !s.Controller.alive() {
		return fmt.Errorf("stop controller of lab %s: %w", l.name, ErrOff)
	}
	return hostOf(&s.Config, controllerName).end(ctx, controllerName, sig)
}
