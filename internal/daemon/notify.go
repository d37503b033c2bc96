package daemon

import (
	"context"
	"fmt"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
)

// watchdogShare is how many signs of life are given in the time after which the
// service manager takes the daemon for hung: one that is late must not count.
const watchdogShare = 4

// startRoom is what a start takes beside what it waits for: etcd may have much to read.
const startRoom = 5 * time.Minute

// Ready tells the service manager, if it listens (Type=notify), that the daemon does
// what it is there for: what waits for its start goes on.
func Ready(status string) error { return notify(sd.SdNotifyReady + "\nSTATUS=" + status) }

// Waits tells the service manager, if it listens, that the start waits for so long on
// purpose: without it a wait beyond TimeoutStartSec= counts as a start that failed.
func Waits(wait time.Duration, status string) error {
	return notify(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d\nSTATUS=%s", (wait + startRoom).Microseconds(), status))
}

func notify(state string) error {
	if _, err := sd.SdNotify(false, state); err != nil {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	return nil
}

// Watchdog gives the service manager signs of life, if it wants them (WatchdogSec=),
// for as long as alive says so. It returns when ctx ends, after it has said that
// the daemon stops. Signs that do not arrive are no reason to end: a service manager
// that misses them does what it thinks right.
func Watchdog(ctx context.Context, alive func() bool) error {
	within, err := sd.SdWatchdogEnabled(false)
	if err != nil {
		return fmt.Errorf("read what the service manager's watchdog wants: %w", err)
	}
	if within == 0 {
		<-ctx.Done()
		_ = notify(sd.SdNotifyStopping)
		return nil
	}
	t := time.NewTicker(within / watchdogShare)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			_ = notify(sd.SdNotifyStopping)
			return nil
		case <-t.C:
			if alive() {
				_ = notify(sd.SdNotifyWatchdog)
			}
		}
	}
}
