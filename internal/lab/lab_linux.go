package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// ErrOff is wrapped by errors about a host that has no power.
var ErrOff = errors.New("the host is off")

// Lab is a fleet on this machine. Several programs may hold the same lab; its
// methods may be called at the same time.
type Lab struct {
	name, dir string
}

// Name is the lab's name.
func (l *Lab) Name() string { return l.name }

// Dir is the lab's own folder; programs' logs are in it.
func (l *Lab) Dir() string { return l.dir }

// AdminContext is the context file that orchctl takes by ORCH_CONFIG. The
// controller writes it at its first start.
func (l *Lab) AdminContext() string { return filepath.Join(l.dir, contextFile) }

// ControllerSocket is the controller's unix socket. It works from outside the
// lab's network, where the controller's address does not.
func (l *Lab) ControllerSocket() string { return filepath.Join(l.dir, controllerSocket) }

// Up makes a lab and returns once the controller and every containerd answer
// and every agent is started; whether agents have registered is the caller's
// to ask the controller. On an error nothing is left.
func Up(ctx context.Context, c Config) (_ *Lab, err error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	if err := c.look(); err != nil {
		return nil, err
	}
	l := &Lab{name: c.Name, dir: c.Dir}
	if err := l.claim(&c); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			// The caller's context may be the reason that we are here.
			clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTimeout)
			defer cancel()
			err = errors.Join(err, Remove(clean, c.Name, c.Dir))
		}
	}()
	say := progress(c.Progress)
	if err := makeNetwork(&c); err != nil {
		return nil, err
	}
	say("network %s: bridge %s, %s", netnsName(c.Name), bridgeName, c.Subnet)

	var nodes []string
	if err := l.update(func(s *state) error {
		for range c.Nodes {
			nodes = append(nodes, s.add().Name)
		}
		return nil
	}); err != nil {
		return nil, err
	}
	// Nodes boot while the controller starts; only agents wait for it, since
	// it writes the token that they join with.
	group, gctx := errgroup.WithContext(ctx)
	token := make(chan struct{})
	if c.Daemons == All {
		group.Go(func() error {
			if err := l.StartController(gctx); err != nil {
				return err
			}
			say("controller answers on %s", address(c.Subnet, 1))
			close(token)
			return nil
		})
	}
	for _, name := range nodes {
		group.Go(func() error {
			if err := l.boot(gctx, name); err != nil {
				return err
			}
			say("%s is on%s", name, map[bool]string{true: ", containerd answers"}[c.Daemons != Empty])
			if c.Daemons != All {
				return nil
			}
			select {
			case <-token:
			case <-gctx.Done():
				return gctx.Err()
			}
			return hostOf(&c, name).start(gctx, "agent")
		})
	}
	if err := group.Wait(); err != nil {
		return nil, fmt.Errorf("make lab %s: %w", c.Name, err)
	}
	return l, nil
}

// Open finds a lab that is up, by name or by the path of its folder.
func Open(nameOrDir string) (*Lab, error) {
	dir := nameOrDir
	if !filepath.IsAbs(dir) {
		if err := ValidName(nameOrDir); err != nil {
			return nil, err
		}
		dir = DirFor(nameOrDir)
	}
	s, err := readState(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("lab %s is not up (no %s); to make it: orchctl lab up --name %s", nameOrDir, filepath.Join(dir, stateFile), filepath.Base(dir))
	}
	if err != nil {
		return nil, err
	}
	return &Lab{name: s.Config.Name, dir: dir}, nil
}

// Down removes the lab: processes, links, namespaces, cgroups and folder.
func (l *Lab) Down(ctx context.Context) error { return Remove(ctx, l.name, l.dir) }

// look checks the machine and fills in what is found on it.
func (c *Config) look() error {
	if os.Geteuid() != 0 {
		return errors.New("the lab needs root: it makes namespaces, links and cgroups (try sudo)")
	}
	binaries := []string{"shim"}
	if c.Daemons == All {
		binaries = append(binaries, "controller", "agent")
	}
	for _, b := range binaries {
		if err := executable(filepath.Join(c.BinDir, b)); err != nil {
			return fmt.Errorf("make lab %s: %w (build it: make build)", c.Name, err)
		}
	}
	if c.Containerd == "" {
		path, err := exec.LookPath("containerd")
		if err != nil {
			return fmt.Errorf("make lab %s: %w", c.Name, err)
		}
		c.Containerd = path
	}
	if _, err := exec.LookPath("nft"); err != nil {
		return fmt.Errorf("make lab %s: %w", c.Name, err)
	}
	if c.CNIBin == "" {
		for _, dir := range []string{"/opt/cni/bin", "/usr/lib/cni"} {
			if executable(filepath.Join(dir, "bridge")) == nil {
				c.CNIBin = dir
			}
		}
		if c.CNIBin == "" {
			return fmt.Errorf("make lab %s: no CNI plugins in /usr/lib/cni or /opt/cni/bin", c.Name)
		}
	}
	return nil
}

func executable(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.IsDir() || info.Mode()&0o111 == 0 {
		return fmt.Errorf("%s is not executable", path)
	}
	return nil
}

// claim makes the lab's folder, which is where two labs of one name collide.
// The state is written before anything else is made, so that after a crash
// at any later point a removal knows everything.
func (l *Lab) claim(c *Config) error {
	taken := fmt.Errorf("lab %s exists, whole or in part; to remove it: orchctl lab down --name %s", c.Name, c.Name)
	if _, err := os.Lstat(filepath.Join(netnsDir, netnsName(c.Name))); err == nil {
		return taken
	}
	parent := filepath.Dir(c.Dir)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return err
	}
	err := os.Mkdir(c.Dir, 0o700)
	if errors.Is(err, fs.ErrNotExist) { // another lab's end removed it meanwhile
		if err = os.MkdirAll(parent, 0o755); err == nil {
			err = os.Mkdir(c.Dir, 0o700)
		}
	}
	if errors.Is(err, fs.ErrExist) {
		entries, readErr := os.ReadDir(c.Dir)
		if readErr != nil {
			return readErr
		}
		if len(entries) > 0 {
			if _, stateErr := os.Stat(filepath.Join(c.Dir, stateFile)); stateErr == nil {
				return taken
			}
			return fmt.Errorf("make lab %s: folder %s is not empty; a lab's folder is its own and is removed with it", c.Name, c.Dir)
		}
		err = nil
	}
	if err != nil {
		return err
	}
	return (&state{Config: *c}).write()
}

// add writes down a new node with the next free number.
func (s *state) add() *nodeState {
	number := 1
	for _, n := range s.Nodes {
		number = max(number, n.Number+1)
	}
	s.Nodes = append(s.Nodes, nodeState{
		Name:    fmt.Sprintf("n%d", number),
		Number:  number,
		Address: address(s.Config.Subnet, addressOffset+number),
	})
	return &s.Nodes[len(s.Nodes)-1]
}

// progress makes a possibly absent listener callable from anywhere.
func progress(tell func(string)) func(format string, args ...any) {
	var mu sync.Mutex
	began := time.Now()
	return func(format string, args ...any) {
		if tell == nil {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		tell(fmt.Sprintf("%5.2fs  ", time.Since(began).Seconds()) + fmt.Sprintf(format, args...))
	}
}
