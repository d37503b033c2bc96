// Package initspec is what the lab and the PID 1 of a lab host say to each
// other: the file that tells it what to furnish and run, and the words of its
// control socket.
//
//	lab --- spec.json ---> shim init --- start, signal ---> containerd, agent
//	lab <-- init.sock ---> shim init <-- exits ------------ everything orphaned
//
// Invariant: standard library only, and little of it: the shim carries this.
package initspec

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Spec is one host's furniture and programs. Paths are absolute.
type Spec struct {
	// Hostname is set in the host's own UTS namespace.
	Hostname string `json:"hostname"`
	// Socket is where PID 1 listens for commands.
	Socket string `json:"socket"`
	// Cgroups are folders that PID 1 joins before it does anything else, so
	// that whatever it starts is found there.
	Cgroups []string `json:"cgroups"`
	// VarLib is mounted on /var/lib: a host's persistent state that programs
	// keep outside the folders that they were given (CNI addresses, for one).
	VarLib string `json:"varLib"`
	// Keep are folders that stay visible although a fresh /run, /tmp or
	// /var/lib would hide them.
	Keep []string `json:"keep"`
	// Own are folders that begin as the machine's and take what is written there
	// into OwnDir.
	Own    []string `json:"own,omitempty"`
	OwnDir string   `json:"ownDir,omitempty"`
	// Files are mounted on others that are there: what lies at the key is the host's own.
	Files map[string]string `json:"files,omitempty"`
	// Programs may be started by name; none is started unasked.
	Programs []Program `json:"programs"`
}

// Program is something PID 1 can start.
type Program struct {
	Name string   `json:"name"`
	Args []string `json:"args"` // Args[0] is the program's path
	Env  []string `json:"env"`
	Log  string   `json:"log"` // receives both outputs, appended
	// OOMScore is written to oom_score_adj; 0 leaves the inherited value.
	OOMScore int `json:"oomScore"`
}

// Read reads a spec from a file.
func Read(path string) (*Spec, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	s := new(Spec)
	if err := json.Unmarshal(data, s); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return s, nil
}

// Write writes a spec to a file.
func (s *Spec) Write(path string) error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o600)
}

// The commands of the control socket, one line per connection. The answer is
// "ok" or "error: why" on a line, then for Status a line per program.
const (
	Start  = "start"  // start NAME
	Signal = "signal" // signal NAME NUMBER
	Status = "status" // status
)

// ReadyFD is the descriptor on which PID 1 writes Ready once it listens, or
// the reason why it gives up.
const (
	ReadyFD = 3
	Ready   = "ready"
)

// State is what PID 1 knows of one program.
type State struct {
	Name string
	Pid  int // within the host's PID namespace; 0 when it does not run
	// Ended says how the last life ended: "exit 1", "signal 9"; empty while
	// the program runs and before it first did.
	Ended string
}

// Running says whether the program runs.
func (s State) Running() bool { return s.Pid != 0 }

// String is the line of a State in the answer to Status.
func (s State) String() string {
	return strings.TrimSpace(s.Name + " " + strconv.Itoa(s.Pid) + " " + s.Ended)
}

// ParseState reads such a line.
func ParseState(line string) (State, error) {
	f := strings.SplitN(line, " ", 3)
	if len(f) < 2 {
		return State{}, fmt.Errorf("read program state %q: too few words", line)
	}
	pid, err := strconv.Atoi(f[1])
	if err != nil {
		return State{}, fmt.Errorf("read program state %q: %w", line, err)
	}
	s := State{Name: f[0], Pid: pid}
	if len(f) == 3 {
		s.Ended = f[2]
	}
	return s, nil
}
