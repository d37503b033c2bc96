package lab

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orchctl/orch/internal/lab/initspec"
)

// AddNode adds a node with the next free number, powers it on and returns its
// name.
func (l *Lab) AddNode(ctx context.Context) (string, error) {
	var name string
	err := l.update(func(s *state) error {
		if len(s.Nodes) > 0 && s.Nodes[len(s.Nodes)-1].Number >= NodesMax {
			return fmt.Errorf("add node to lab %s: it has had %d, the most that its subnet holds", l.name, NodesMax)
		}
		name = s.add().Name
		return nil
	})
	if err != nil {
		return "", err
	}
	return name, l.StartNode(ctx, name)
}

// KillNode takes a node's power: its link goes down and every one of its
// processes is gone. It returns when they are. A node that is off stays so.
func (l *Lab) KillNode(ctx context.Context, node string) error {
	return l.withPower(node, func(s *state, n *nodeState) error {
		// The cable first: nothing may be said by a node that half lives.
		if err := setLink(l.name, n.Name, false); err != nil {
			return err
		}
		if err := n.Init.kill(ctx); err != nil {
			return fmt.Errorf("kill %s: %w", n.Name, err)
		}
		h := hostOf(&s.Config, n.Name)
		if err := thawAll(h.cgroup()); err != nil {
			return err
		}
		if err := n.Init.awaitGone(ctx); err != nil {
			return fmt.Errorf("kill %s: %w", n.Name, err)
		}
		if err := unplug(l.name, n.Name); err != nil {
			return err
		}
		return removeCgroup(ctx, h.cgroup())
	})
}

// StartNode powers a node on: new namespaces, a new boot id, the data folder
// as it was left. It returns when containerd answers and the agent, if the
// lab has agents, is started.
func (l *Lab) StartNode(ctx context.Context, node string) error {
	if err := l.boot(ctx, node); err != nil {
		return err
	}
	s, err := l.read()
	if err != nil {
		return err
	}
	if s.Config.Daemons != All {
		return nil
	}
	return hostOf(&s.Config, node).start(ctx, "agent")
}

// boot powers a node on up to the point where containerd answers. What fails
// half-way is powered off again.
func (l *Lab) boot(ctx context.Context, node string) error {
	err := l.withPower(node, func(s *state, n *nodeState) error {
		if n.Init.alive() {
			return fmt.Errorf("start %s: it is on", node)
		}
		// A node whose PID 1 died without KillNode may have left its link.
		if err := unplug(l.name, n.Name); err != nil {
			return err
		}
		h := hostOf(&s.Config, n.Name)
		for _, dir := range []string{"containerd", "agent"} {
			if err := os.MkdirAll(filepath.Join(h.dir, dir), 0o700); err != nil {
				return err
			}
		}
		toml := filepath.Join(h.dir, "containerd.toml")
		if err := os.WriteFile(toml, []byte(containerdConfig(filepath.Join(h.dir, "containerd"))), 0o600); err != nil {
			return err
		}
		bootID := newBootID()
		if err := os.WriteFile(filepath.Join(h.dir, bootIDFile), []byte(bootID+"\n"), 0o600); err != nil {
			return err
		}
		programs := []initspec.Program{{
			Name: "containerd",
			Args: []string{s.Config.Containerd, "--config", toml},
			// Its shim is of its own version: it lies beside it, if anywhere.
			Env: []string{"PATH=" + filepath.Dir(s.Config.Containerd) + ":" + hostPath},
			Log: h.log("containerd"),
		}}
		if s.Config.Daemons == All {
			programs = append(programs, initspec.Program{
				Name:     "agent",
				Args:     agentArgs(&s.Config, n, h),
				Env:      []string{"PATH=" + hostPath, "HOME=/root"},
				Log:      h.log("agent"),
				OOMScore: -900, // after replicas, before containerd
			})
		}
		init, err := powerOn(ctx, &s.Config, h, "", programs)
		if err != nil {
			return err
		}
		n.Init = init
		return l.update(func(s *state) error {
			kept, err := s.node(node)
			if err == nil {
				kept.Init, kept.BootID = init, bootID
			}
			return err
		})
	})
	if err != nil {
		return err
	}
	err = l.connect(ctx, node)
	if err != nil {
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTimeout)
		defer cancel()
		return errors.Join(err, l.KillNode(clean, node))
	}
	return nil
}

// connect starts a booted node's containerd, if it is to have one, and plugs in
// its cable meanwhile.
func (l *Lab) connect(ctx context.Context, node string) error {
	s, err := l.read()
	if err != nil {
		return err
	}
	n, err := s.node(node)
	if err != nil {
		return err
	}
	h := hostOf(&s.Config, node)
	if s.Config.Daemons == Empty {
		return plugIn(&s.Config, n)
	}
	if err := h.start(ctx, "containerd"); err != nil {
		return err
	}
	if err := plugIn(&s.Config, n); err != nil {
		return err
	}
	return h.awaitSocket(ctx, "containerd", l.inside(n, containerdSocket))
}

// inside is how a path of a host's mount namespace is reached from outside.
func (l *Lab) inside(n *nodeState, path string) string {
	return fmt.Sprintf("/proc/%d/root%s", n.Init.Pid, path)
}

// withPower runs f while nobody else switches the node's power.
func (l *Lab) withPower(node string, f func(*state, *nodeState) error) error {
	s, err := l.read()
	if err != nil {
		return err
	}
	if _, err := s.node(node); err != nil {
		return err
	}
	dir := hostOf(&s.Config, node).dir
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	unlock, err := lock(filepath.Join(dir, lockFile))
	if err != nil {
		return err
	}
	defer unlock()
	if s, err = l.read(); err != nil { // as left by whoever held the lock
		return err
	}
	n, err := s.node(node)
	if err != nil {
		return err
	}
	return f(s, n)
}

// newBootID makes a random UUID in the form of the kernel's boot_id.
func newBootID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// Stun freezes every process of a node and takes its link down, for d; then
// it resumes, as a virtual machine does after a pause. It returns after that,
// or earlier when ctx ends, and resumes the node in either case. With d zero
// the node stays stunned until Resume.
func (l *Lab) Stun(ctx context.Context, node string, d time.Duration) error {
	h, err := l.running(node)
	if err != nil {
		return err
	}
	if err := setLink(l.name, node, false); err != nil {
		return err
	}
	if err := freeze(ctx, h.cgroup(), true); err != nil {
		return errors.Join(err, l.thaw(ctx, node, h))
	}
	if d == 0 {
		return nil
	}
	wait(ctx, d)
	return l.thaw(ctx, node, h)
}

// thaw ends a stun even when ctx has ended.
func (l *Lab) thaw(ctx context.Context, node string, h host) error {
	if err := freeze(context.WithoutCancel(ctx), h.cgroup(), false); err != nil {
		return err
	}
	return setLink(l.name, node, true)
}

// Pause stops one program of a node ("agent" or "containerd"), or "controller" of
// the host "controller", for d with SIGSTOP, then lets it go on, also when ctx
// ends earlier. With d zero it stays stopped until Resume.
func (l *Lab) Pause(ctx context.Context, node, program string, d time.Duration) error {
	h, err := l.running(node)
	if err != nil {
		return err
	}
	if err := h.signal(ctx, program, unix.SIGSTOP); err != nil {
		return err
	}
	if err := h.awaitStopped(ctx, program); err != nil {
		return errors.Join(err, h.signal(context.WithoutCancel(ctx), program, unix.SIGCONT))
	}
	if d == 0 {
		return nil
	}
	wait(ctx, d)
	return h.signal(context.WithoutCancel(ctx), program, unix.SIGCONT)
}

// Resume ends every stun and pause of a node; one that has none is left as it
// is.
func (l *Lab) Resume(ctx context.Context, node string) error {
	h, err := l.running(node)
	if err != nil {
		return err
	}
	if node != controllerName { // which is never stunned
		if err := l.thaw(ctx, node, h); err != nil {
			return err
		}
	}
	states, err := h.programs(ctx)
	if err != nil {
		return err
	}
	for _, s := range states {
		if s.Running() {
			if err := h.signal(ctx, s.Name, unix.SIGCONT); err != nil {
				return err
			}
		}
	}
	return nil
}

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// KillProcess sends a signal to a program of a node, "agent" or "containerd".
// Where the signal is one that ends programs it returns when the program has
// ended. Nothing starts it again but StartProcess.
func (l *Lab) KillProcess(ctx context.Context, node, program string, sig syscall.Signal) error {
	h, err := l.running(node)
	if err != nil {
		return err
	}
	return h.end(ctx, program, sig)
}

func (h host) end(ctx context.Context, program string, sig syscall.Signal) error {
	if err := h.signal(ctx, program, sig); err != nil {
		return err
	}
	switch sig {
	case unix.SIGKILL, unix.SIGTERM, unix.SIGINT, unix.SIGQUIT:
		return h.awaitEnd(ctx, program)
	}
	return nil
}

// StartProcess starts a program of a node that does not run. For containerd
// it returns when that answers.
func (l *Lab) StartProcess(ctx context.Context, node, program string) error {
	h, err := l.running(node)
	if err != nil {
		return err
	}
	if err := h.start(ctx, program); err != nil {
		return err
	}
	if program != "containerd" {
		return nil
	}
	socket, err := l.ContainerdSocket(node)
	if err != nil {
		return err
	}
	return h.awaitSocket(ctx, program, socket)
}

// ContainerdSocket is the path by which a node's containerd is reached from
// outside. It is good for one life of the node.
func (l *Lab) ContainerdSocket(node string) (string, error) {
	s, err := l.read()
	if err != nil {
		return "", err
	}
	n, err := s.node(node)
	if err != nil {
		return "", err
	}
	if !n.Init.alive() {
		return "", fmt.Errorf("reach containerd of %s: %w", node, ErrOff)
	}
	return l.inside(n, containerdSocket), nil
}

// running finds the host of a node, or the controller's, which must be on.
func (l *Lab) running(node string) (host, error) {
	s, err := l.read()
	if err != nil {
		return host{}, err
	}
	if node == controllerName && s.Config.Daemons == All {
		if !s.Controller.alive() {
			return host{}, fmt.Errorf("%s: %w", node, ErrOff)
		}
		return hostOf(&s.Config, node), nil
	}
	n, err := s.node(node)
	if err != nil {
		return host{}, err
	}
	if !n.Init.alive() {
		return host{}, fmt.Errorf("%s: %w; to start it: orchctl lab start %s", node, ErrOff, strings.TrimSpace(node))
	}
	return hostOf(&s.Config, node), nil
}
