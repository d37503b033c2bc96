package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/orchctl/orch/agent/ctrd"
	"github.com/orchctl/orch/agent/plan"
	"github.com/orchctl/orch/agent/probes"
	"github.com/orchctl/orch/api"
)

const (
	// hookAgain is the wait after containerd did not answer: a restart of it is no
	// failure of the hook.
	hookAgain = 200 * time.Millisecond
	// listenAgain is the wait for a program that does not listen yet.
	listenAgain = 20 * time.Millisecond
)

// hooked gives a hook a context that ends with its container, and ends a hook that runs
// where its container is to be stopped, is removed or has the next: one that waits for
// a port would else go on for up to its own timeout, and ask whoever has the address by
// then. done is called when the effect is carried out.
func (d *driver) hooked(ctx context.Context, e plan.Effect) (_ context.Context, done func()) {
	switch e := e.(type) {
	case plan.RunHook:
		d.endHook(e.ContainerID)
		ctx, cancel := context.WithCancel(ctx)
		d.hooks[e.ContainerID] = cancel
		return ctx, cancel
	case plan.StopContainer:
		d.endHook(e.ContainerID)
	case plan.RemoveContainer:
		d.endHook(e.ContainerID)
	}
	return ctx, func() {}
}

// endHook ends the hook of a container, if one runs.
func (d *driver) endHook(id string) {
	if cancel := d.hooks[id]; cancel != nil {
		cancel()
		delete(d.hooks, id)
	}
}

// runHook carries out a hook and tells what came of it.
func (d *driver) runHook(ctx context.Context, e plan.RunHook) (ev plan.Event) {
	life := ctx
	ctx, cancel := context.WithTimeout(ctx, e.Timeout)
	defer cancel()
	done := plan.Done{ID: e.ID}
	defer func() {
		if life.Err() != nil {
			ev = plan.Done{ID: e.ID, Failure: &plan.Failure{Reason: plan.NotRunning, Message: "its container ends"}}
		}
	}()
	if sleep := e.Hook.Sleep; sleep != nil {
		pause(ctx, min(sleep.Or(0), e.Timeout))
		return done
	}
	gone := false
	run := d.execIn(e.ContainerID)
	t := probes.Target{Probe: api.Probe{Exec: e.Hook.Exec, HTTP: e.Hook.HTTP}, IP: e.IP, Port: e.Port, Timeout: e.Timeout,
		Exec: func(ctx context.Context, command []string) (int, string, error) {
			code, output, err := run(ctx, command)
			gone = errors.Is(err, ctrd.ErrNotRunning) || errors.Is(err, ctrd.ErrNotFound)
			return code, output, err
		}}
	if e.Patient && e.Hook.HTTP != nil && !listens(ctx, net.JoinHostPort(e.IP, strconv.Itoa(e.Port))) {
		done.Failure = &plan.Failure{Reason: api.ReasonHookFailed, Message: fmt.Sprintf("port %d: nothing listens within %s", e.Port, e.Timeout)}
		return done
	}
	for {
		ok, asked, message := probes.Try(ctx, t)
		switch {
		case ok:
			return done
		case gone:
			done.Failure = &plan.Failure{Reason: plan.NotRunning, Message: message}
			return done
		case asked || ctx.Err() != nil:
			done.Failure = &plan.Failure{Reason: api.ReasonHookFailed, Message: message}
			return done
		}
		pause(ctx, hookAgain)
	}
}

// listens waits until a connection is accepted; false: ctx ended before.
func listens(ctx context.Context, address string) bool {
	var dialer net.Dialer
	for ctx.Err() == nil {
		conn, err := dialer.DialContext(ctx, "tcp", address)
		if err == nil {
			_ = conn.Close() // nothing was said
			return true
		}
		pause(ctx, listenAgain)
	}
	return false
}
