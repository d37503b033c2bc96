//go:build linux

package leasefile

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Who told a container to end.
const (
	Agent    = "agent"
	Watchdog = "watchdog"
)

const told = "told"

// Guard shows that a watchdog is alive: it locks the container's folder for as
// long as this process lives, however it ends.
func Guard(dir string) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("guard %s: %w", dir, err)
	}
	for {
		// It waits only for somebody who is just looking (Guarded).
		if err = unix.Flock(fd, unix.LOCK_EX); err != unix.EINTR {
			break
		}
	}
	if err != nil {
		unix.Close(fd)
		return fmt.Errorf("guard %s: %w", dir, err)
	}
	return nil
}

// Guarded tells whether a watchdog is alive.
func Guarded(dir string) (bool, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, fmt.Errorf("look for a watchdog at %s: %w", dir, err)
	}
	defer unix.Close(fd)
	switch err := unix.Flock(fd, unix.LOCK_SH|unix.LOCK_NB); err {
	case nil:
		return false, nil
	case unix.EWOULDBLOCK:
		return true, nil
	default:
		return false, fmt.Errorf("look for a watchdog at %s: %w", dir, err)
	}
}

// Claim notes that who is about to tell the container to end, unless somebody
// did before, and gives whom the note names. Programs may take a second signal
// for an order to drop everything, so agent and watchdog must not both send one.
func Claim(dir, who string) (string, error) {
	path := filepath.Join(dir, told)
	err := os.Symlink(who, path) // made and filled at once
	if err == nil {
		return who, nil
	}
	if by, e := os.Readlink(path); e == nil {
		return by, nil
	}
	return "", fmt.Errorf("note who ends a container: %w", err)
}

// ToldBy gives who told the container to end; "" if nobody did.
func ToldBy(dir string) string {
	by, err := os.Readlink(filepath.Join(dir, told))
	if err != nil {
		return ""
	}
	return by
}
