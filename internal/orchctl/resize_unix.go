//go:build unix

package orchctl

import (
	"os"
	"os/signal"
	"syscall"
)

// windowChanges tells when the terminal's size changes.
func windowChanges() (<-chan os.Signal, func()) {
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, syscall.SIGWINCH)
	return ch, func() { signal.Stop(ch) }
}
