//go:build linux

// Package boottime reads the clock by which leases are measured: time since boot,
// in which suspension counts. A process's own clock stands still while the machine
// sleeps, and a machine that slept has used its leases up.
package boottime

import (
	"time"

	"golang.org/x/sys/unix"
)

// Now is CLOCK_BOOTTIME.
func Now() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic("read CLOCK_BOOTTIME: " + err.Error()) // the kernel has had it since 2.6.39
	}
	return time.Duration(t.Nano())
}
