package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// state is lab.json: all that a later command must know. Whatever can be read
// off the machine (what runs, which link is up) is not in it.
type state struct {
	Config     Config
	Controller process // PID 1 of the controller's host; zero without one
	Nodes      []nodeState
	Faults     []Fault
}

func (s *state) node(name string) (*nodeState, error) {
	var names []string
	for i := range s.Nodes {
		if s.Nodes[i].Name == name {
			return &s.Nodes[i], nil
		}
		names = append(names, s.Nodes[i].Name)
	}
	return nil, fmt.Errorf("lab %s has no node %q; it has %s", s.Config.Name, name, strings.Join(names, ", "))
}

func readState(dir string) (*state, error) {
	data, err := os.ReadFile(filepath.Join(dir, stateFile))
	if err != nil {
		return nil, err
	}
	s := new(state)
	if err := json.Unmarshal(data, s); err != nil {
		return nil, fmt.Errorf("read state of lab in %s: %w", dir, err)
	}
	return s, nil
}

// write replaces lab.json in one step, so that a crash leaves the old or the
// new state, never half of one.
func (s *state) write() error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	path := filepath.Join(s.Config.Dir, stateFile)
	if err := os.WriteFile(path+".new", append(data, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// lock takes a lock file that serves several processes as well as several
// goroutines, and returns the function that lets go of it.
func lock(path string) (func(), error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}

// read returns the state as it is now; commands of other processes change it.
func (l *Lab) read() (*state, error) {
	s, err := readState(l.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("lab %s is not up: %s has no %s", l.name, l.dir, stateFile)
	}
	return s, err
}

// update changes the state under its lock.
func (l *Lab) update(change func(*state) error) error {
	unlock, err := lock(filepath.Join(l.dir, lockFile))
	if err != nil {
		return err
	}
	defer unlock()
	s, err := l.read()
	if err != nil {
		return err
	}
	if err := change(s); err != nil {
		return err
	}
	return s.write()
}
