package agent

import (
	"time"

	"golang.org/x/sys/unix"
)

// bootTime is CLOCK_BOOTTIME: time since boot, suspension counted. Leases are
// measured by it, because a machine that slept has used its lease up.
func bootTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic("read CLOCK_BOOTTIME: " + err.Error()) // the kernel has had it since 2.6.39
	}
	return time.Duration(t.Nano())
}
