package lab

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// Status is what a lab looks like now.
type Status struct {
	Name         string       `json:"name"`
	Dir          string       `json:"dir"`
	Subnet       netip.Prefix `json:"subnet"`
	Netns        string       `json:"netns"`
	AdminContext string       `json:"adminContext"`
	Controller   *HostStatus  `json:"controller,omitempty"` // nil in a lab without one
	Nodes        []HostStatus `json:"nodes"`
	Faults       []Fault      `json:"faults,omitempty"`
}

// HostStatus is one host's part of it.
type HostStatus struct {
	Name         string          `json:"name"`
	Power        Power           `json:"power"`
	Address      netip.Addr      `json:"address"`
	CgroupParent string          `json:"cgroupParent"`        // of replicas, below each cgroup tree
	BootID       string          `json:"bootID,omitempty"`    // nodes only
	Pid          int             `json:"pid,omitempty"`       // of PID 1 on the machine; 0 while off
	Processes    []ProcessStatus `json:"processes,omitempty"` // unknown while off or stunned
}

// Power says whether a host lives.
type Power string

const (
	On      Power = "on"
	Off     Power = "off"
	Stunned Power = "stunned"
)

// ProcessStatus is one program of a host.
type ProcessStatus struct {
	Name  string `json:"name"`
	Pid   int    `json:"pid,omitempty"`   // on the machine; 0 while it does not run
	Ended string `json:"ended,omitempty"` // "exit 1", "signal 9"; of the last life
	// Paused is true while the program is stopped by a signal.
	Paused bool `json:"paused,omitempty"`
}

// Status looks at the lab. It changes nothing.
func (l *Lab) Status(ctx context.Context) (*Status, error) {
	s, err := l.read()
	if err != nil {
		return nil, err
	}
	out := &Status{
		Name: l.name, Dir: l.dir, Subnet: s.Config.Subnet, Netns: netnsName(l.name),
		AdminContext: l.AdminContext(), Faults: s.Faults,
	}
	if s.Config.Daemons == All {
		c, err := hostStatus(ctx, hostOf(&s.Config, controllerName), s.Controller)
		if err != nil {
			return nil, err
		}
		c.Address = address(s.Config.Subnet, 1)
		out.Controller = &c
	}
	for _, n := range s.Nodes {
		h, err := hostStatus(ctx, hostOf(&s.Config, n.Name), n.Init)
		if err != nil {
			return nil, err
		}
		h.Address, h.BootID = n.Address, n.BootID
		out.Nodes = append(out.Nodes, h)
	}
	return out, nil
}

func hostStatus(ctx context.Context, h host, init process) (HostStatus, error) {
	out := HostStatus{Name: h.name, Power: Off, CgroupParent: h.replicasCgroup()}
	if !init.alive() {
		return out, nil
	}
	out.Power, out.Pid = On, init.Pid
	frozen, err := isFrozen(h.cgroup())
	if err != nil {
		return out, err
	}
	if frozen {
		out.Power = Stunned
		return out, nil
	}
	states, err := h.programs(ctx)
	if err != nil {
		if !init.alive() { // lost its power while we asked
			return HostStatus{Name: h.name, Power: Off, CgroupParent: h.replicasCgroup()}, nil
		}
		return out, err
	}
	pids, err := outerPids(h.daemonsCgroup())
	if err != nil {
		return out, err
	}
	for _, s := range states {
		p := ProcessStatus{Name: s.Name, Ended: s.Ended}
		if s.Running() {
			p.Pid = pids[s.Pid]
			p.Paused = stopped(p.Pid)
		}
		out.Processes = append(out.Processes, p)
	}
	return out, nil
}

// outerPids maps the numbers that a cgroup's processes have in their own PID
// namespace to those that they have on the machine.
func outerPids(cgroup string) (map[int]int, error) {
	pids, err := members(cgroup)
	if err != nil {
		return nil, err
	}
	out := map[int]int{}
	for _, pid := range pids {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			continue // ended meanwhile
		}
		for line := range strings.Lines(string(data)) {
			if numbers, ok := strings.CutPrefix(line, "NSpid:"); ok {
				f := strings.Fields(numbers)
				if inner, err := strconv.Atoi(f[len(f)-1]); err == nil && len(f) == 2 {
					out[inner] = pid
				}
			}
		}
	}
	return out, nil
}

// awaitStopped waits until a program that was sent SIGSTOP has come to rest:
// the kernel stops its threads one by one, and not in the middle of a write.
func (h host) awaitStopped(ctx context.Context, program string) error {
	return poll(ctx, cgroupWait, fmt.Sprintf("pause %s on %s", program, h.name), func() (bool, error) {
		s, err := h.program(ctx, program)
		if err != nil {
			return false, err
		}
		if !s.Running() {
			return false, fmt.Errorf("pause %s on %s: it ended (%s)", program, h.name, s.Ended)
		}
		pids, err := outerPids(h.daemonsCgroup())
		return err == nil && stopped(pids[s.Pid]), err
	})
}

// stopped says whether every thread of a process is stopped by a signal.
func stopped(pid int) bool {
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return false
	}
	for _, t := range threads {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/stat", pid, t.Name()))
		if err != nil {
			return false
		}
		text := string(data) // the state's letter follows the name, which may hold anything
		if !strings.HasPrefix(text[strings.LastIndexByte(text, ')')+1:], " T ") {
			return false
		}
	}
	return true
}
