package usage

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// tick is what the kernel counts a machine's time in, for programs: USER_HZ is 100 on
// everything that Go runs on.
const tick = 10 * time.Millisecond

// machine is what the whole machine has used, and has.
type machine struct {
	cpu               time.Duration
	memory, available int64 // bytes
}

func readMachine() (machine, error) {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return machine{}, err
	}
	mem, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return machine{}, err
	}
	return parseMachine(string(stat), string(mem))
}

func parseMachine(stat, mem string) (machine, error) {
	var m machine
	line, _, _ := strings.Cut(stat, "\n")
	f := strings.Fields(line)
	if len(f) < 8 || f[0] != "cpu" {
		return machine{}, fmt.Errorf("/proc/stat begins with %.40q", line)
	}
	// user, nice, system, irq and softirq; a guest's time is in the user's. Not idle,
	// not waiting for a disk, and not what the hypervisor gave to others.
	for _, i := range []int{1, 2, 3, 6, 7} {
		n, err := strconv.ParseInt(f[i], 10, 64)
		if err != nil {
			return machine{}, fmt.Errorf("/proc/stat begins with %.40q", line)
		}
		m.cpu += time.Duration(n) * tick
	}
	for line := range strings.Lines(mem) {
		f := strings.Fields(line)
		if len(f) != 3 || f[2] != "kB" {
			continue
		}
		n, err := strconv.ParseInt(f[1], 10, 64)
		switch {
		case err != nil:
		case f[0] == "MemTotal:":
			m.memory = n << 10
		case f[0] == "MemAvailable:":
			m.available = n << 10
		}
	}
	if m.memory == 0 {
		return machine{}, fmt.Errorf("no MemTotal in /proc/meminfo")
	}
	return m, nil
}
