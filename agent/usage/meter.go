package usage

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/orchctl/orch/agent/ctrd"
	"github.com/orchctl/orch/api"
)

const (
	// Window is what a rate is taken over where there is no reading to begin from: long
	// enough to be steady, and short enough for whoever waits for it.
	Window = time.Second
	// WindowMin is the shortest of use: the kernel counts a machine's time in hundredths
	// of a second. Whoever asks again within it is told the same again.
	WindowMin = 500 * time.Millisecond
	// WindowMax is the longest that still says what is used now. It is longer than the
	// usual time between two scrapes.
	WindowMax = 20 * time.Second
)

// Runtime is what a Meter needs of containerd.
type Runtime interface {
	Usage(ctx context.Context) ([]ctrd.ContainerUsage, error)
	// Disk gives size and free space of the disk of images, in bytes.
	Disk(ctx context.Context) (size, free int64, err error)
}

// Usage is what a node uses.
type Usage struct {
	At time.Time
	// Window is what CPUMilli, here and of each container, is averaged over; 0: no rates.
	Window time.Duration
	// CPU is the time that the machine's cores have worked since it started, all
	// together; CPUMilli is how many of them work, in thousandths.
	CPU      time.Duration
	CPUMilli int64
	// Memory in bytes without what the kernel gives back at need, of MemoryTotal.
	Memory, MemoryTotal int64
	// Disk that images lie on: its size and what is free, in bytes; 0: not known.
	Disk, DiskFree int64
	// Containers that run, in the runtime's order.
	Containers []Container
}

// Container is what one container uses.
type Container struct {
	ctrd.ContainerUsage
	// CPUMilli as in Usage, for as long as it runs where that is less than Window.
	CPUMilli int64
}

// Meter measures. Make it with New; its methods may be called concurrently.
type Meter struct {
	runtime Runtime
	machine func() (machine, error)
	turn    chan struct{} // holds one token: the right to take readings

	mu     sync.Mutex
	before Usage // the last reading, without rates; zero: none
	answer Usage // what was told last
}

// New makes a meter of this machine.
func New(r Runtime) *Meter {
	m := &Meter{runtime: r, machine: readMachine, turn: make(chan struct{}, 1)}
	m.turn <- struct{}{}
	return m
}

// Read takes one reading, without rates. It waits for nothing but the runtime.
func (m *Meter) Read(ctx context.Context) (Usage, error) {
	list, err := m.runtime.Usage(ctx)
	if err != nil {
		return Usage{}, err
	}
	own, err := m.machine()
	if err != nil {
		return Usage{}, fmt.Errorf("read what the machine uses: %w", err)
	}
	u := Usage{At: time.Now(), CPU: own.cpu, Memory: max(0, own.memory-own.available), MemoryTotal: own.memory}
	if u.Disk, u.DiskFree, err = m.runtime.Disk(ctx); err != nil {
		u.Disk, u.DiskFree = 0, 0 // a disk that cannot be told keeps nothing else from being told
	}
	for _, c := range list {
		u.Containers = append(u.Containers, Container{ContainerUsage: c})
	}
	return u, nil
}

// Now tells what is used, with rates. It waits for up to Window where nobody has asked for
// long, and for whoever is measuring.
func (m *Meter) Now(ctx context.Context) (Usage, error) {
	select {
	case <-m.turn:
	case <-ctx.Done():
		return Usage{}, ctx.Err()
	}
	defer func() { m.turn <- struct{}{} }()
	m.mu.Lock()
	before, answer := m.before, m.answer
	m.mu.Unlock()
	if answer.Window > 0 && time.Since(answer.At) < WindowMin {
		return answer, nil
	}
	if age := time.Since(before.At); before.At.IsZero() || age > WindowMax || age < WindowMin {
		var err error
		if before, err = m.Read(ctx); err != nil {
			return Usage{}, err
		}
		timer := time.NewTimer(Window)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return Usage{}, ctx.Err()
		}
	}
	now, err := m.Read(ctx)
	if err != nil {
		return Usage{}, err
	}
	answer = rates(before, now)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.before, m.answer = now, answer
	return answer, nil
}

// rates gives the later reading with what was used between the two.
func rates(before, now Usage) Usage {
	now.Window = now.At.Sub(before.At)
	now.CPUMilli = milli(now.CPU-before.CPU, now.Window)
	had := make(map[string]time.Duration, len(before.Containers))
	for _, c := range before.Containers {
		had[c.ID] = c.CPU
	}
	list := make([]Container, len(now.Containers))
	for i, c := range now.Containers {
		c.CPUMilli = milli(c.CPU-had[c.ID], now.Window) // one that is new began with nothing
		list[i] = c
	}
	now.Containers = list
	return now
}

// milli gives thousandths of a core, rounded; never less than none.
func milli(used, window time.Duration) int64 {
	if window <= 0 || used <= 0 {
		return 0
	}
	return int64(float64(used)/float64(window)*1000 + 0.5)
}

// Replica is what the containers of one replica use.
type Replica struct {
	Key        api.ReplicaKey
	Containers []Container
}

// ByReplica groups containers, in the order in which replicas come first.
func (u Usage) ByReplica() []Replica {
	var out []Replica
	at := map[api.ReplicaKey]int{}
	for _, c := range u.Containers {
		i, ok := at[c.Replica]
		if !ok {
			i = len(out)
			at[c.Replica] = i
			out = append(out, Replica{Key: c.Replica})
		}
		out[i].Containers = append(out[i].Containers, c)
	}
	return out
}
