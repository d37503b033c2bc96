package agent

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/orchctl/orch/api"
)

// memoryReserve is kept for the kernel, containerd, its shims and the agent: a
// tenth of the memory, within these bounds.
const (
	memoryReserveMin = 128 << 20
	memoryReserveMax = 2 << 30
)

// Host is what a node says of its machine.
type Host struct {
	// BootID names the machine's present life.
	BootID string
	Kernel string
	OS     string
}

// DetectHost reads the rest from the machine.
func DetectHost(bootID string) (Host, error) {
	h := Host{BootID: bootID, OS: "linux"}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return Host{}, fmt.Errorf("ask kernel for its version: %w", err)
	}
	h.Kernel = unix.ByteSliceToString(u.Release[:])
	if b, err := os.ReadFile("/etc/os-release"); err == nil {
		h.OS = osName(string(b))
	}
	return h, nil
}

// osName reads PRETTY_NAME of os-release(5).
func osName(text string) string {
	for line := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "PRETTY_NAME="); ok {
			return strings.Trim(v, `"'`)
		}
	}
	return "linux"
}

// DetectCapacity gives the machine's cores and its memory less a reserve.
func DetectCapacity() (api.ResourceList, error) {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return nil, fmt.Errorf("detect capacity: %w", err)
	}
	total, err := memTotal(string(b))
	if err != nil {
		return nil, fmt.Errorf("detect capacity: %w", err)
	}
	reserve := min(max(total/10, memoryReserveMin), memoryReserveMax)
	return api.ResourceList{api.CPU: api.Whole(int64(runtime.NumCPU())), api.Memory: api.Whole(max(0, total-reserve))}, nil
}

// memTotal reads the bytes of memory from /proc/meminfo.
func memTotal(text string) (int64, error) {
	for sc := bufio.NewScanner(strings.NewReader(text)); sc.Scan(); {
		f := strings.Fields(sc.Text())
		if len(f) == 3 && f[0] == "MemTotal:" && f[2] == "kB" {
			kb, err := strconv.ParseInt(f[1], 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("no MemTotal in /proc/meminfo")
}
