package session

import (
	"sync"
	"time"
)

// watchdog calls bite when it was not fed for so long, and once again as long
// as linkAgain after that.
type watchdog struct {
	mu      sync.Mutex
	timer   *time.Timer
	warned  bool
	stopped bool
}

func newWatchdog(silence time.Duration, bite func()) *watchdog {
	w := &watchdog{}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(silence, func() {
		w.mu.Lock()
		again := !w.warned && !w.stopped
		if again {
			w.warned = true
			w.timer.Reset(linkAgain)
		}
		quiet := w.stopped
		w.mu.Unlock()
		if !again && !quiet {
			bite()
		}
	})
	return w
}

// fed allows the next silence.
func (w *watchdog) fed(silence time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.warned = false
	w.timer.Reset(silence)
}

func (w *watchdog) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	w.timer.Stop()
}
