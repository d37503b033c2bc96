package lab

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strconv"
)

// Exec runs a command on a node, as from a shell there, and gives both its outputs to
// out. What it leaves in the background runs on for as long as the node has power.
// stdin may be nil.
func (l *Lab) Exec(ctx context.Context, node string, stdin io.Reader, out io.Writer, args ...string) error {
	s, err := l.read()
	if err != nil {
		return err
	}
	if _, err := l.running(node); err != nil {
		return err
	}
	n, err := s.node(node)
	if err != nil {
		return err
	}
	cgroups, err := makeCgroups(hostOf(&s.Config, node))
	if err != nil {
		return err
	}
	// It joins the node's cgroups before its namespaces, in which they have other paths.
	const join = `while [ "$1" != -- ]; do echo 0 >"$1/cgroup.procs" || exit; shift; done; shift; exec "$@"`
	words := append([]string{"-c", join, "sh"}, cgroups...)
	words = append(words, "--", "nsenter", "--target", strconv.Itoa(n.Init.Pid), "--mount", "--uts", "--ipc", "--net", "--pid", "--wd=/", "--")
	cmd := exec.CommandContext(ctx, "sh", append(words, args...)...)
	cmd.Env = []string{"PATH=" + hostPath, "HOME=/root", "LANG=C.UTF-8"}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, out, out
	cmd.WaitDelay = commandTimeout // what runs in the background may hold the outputs open
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run %s on %s: %w", filepath.Base(args[0]), node, err)
	}
	return nil
}

// Inside is how a path on a node is reached from outside. It is good for one life
// of the node.
func (l *Lab) Inside(node, path string) (string, error) {
	s, err := l.read()
	if err != nil {
		return "", err
	}
	n, err := s.node(node)
	if err != nil {
		return "", err
	}
	if !n.Init.alive() {
		return "", fmt.Errorf("reach %s of %s: %w", path, node, ErrOff)
	}
	return l.inside(n, path), nil
}

// AgentFlags are what must be said to an agent on a node only because the node is
// one of a lab: cgroups are the machine's, and so would be the boot id.
func (l *Lab) AgentFlags(node string) ([]string, error) {
	s, err := l.read()
	if err != nil {
		return nil, err
	}
	if _, err := s.node(node); err != nil {
		return nil, err
	}
	h := hostOf(&s.Config, node)
	return []string{"--cgroup-parent", h.replicasCgroup(), "--boot-id-file", filepath.Join(h.dir, bootIDFile)}, nil
}
