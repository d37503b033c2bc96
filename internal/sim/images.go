package sim

import (
	"strings"
	"time"

	"github.com/orchctl/orch/api"
)

// behavior is what an image's process does.
type behavior struct {
	missing, startFails, unready bool
	ends                         bool
	endsAfter, readyAfter        time.Duration
	exit                         api.Exit
	// fitful: it ends with code 0 every second time, by chance.
	fitful bool
	// picky: it ends so only on nodes of zone b, and runs well elsewhere.
	picky bool
}

// behaviors by the image's name, before the colon; others run well.
var behaviors = map[string]behavior{
	"good":    {readyAfter: 400 * time.Millisecond},
	"slow":    {readyAfter: 3 * time.Second},
	"missing": {missing: true},
	"broken":  {startFails: true},
	"unready": {unready: true},
	"crash":   {ends: true, endsAfter: 2 * time.Second, exit: api.Exit{Code: 1, Reason: api.ExitError}},
	"oom":     {ends: true, endsAfter: 3 * time.Second, exit: api.Exit{Code: 137, Signal: 9, OOM: true, Reason: api.ExitOutOfMemory}},
	"done":    {ends: true, endsAfter: 2 * time.Second, exit: api.Exit{Code: 0, Reason: api.ExitCompleted}},
	"picky":   {ends: true, picky: true, readyAfter: 400 * time.Millisecond, endsAfter: time.Second, exit: api.Exit{Code: 1, Reason: api.ExitError}},
	// Those of jobs.
	"work":  {ends: true, endsAfter: 1500 * time.Millisecond, exit: api.Exit{Code: 0, Reason: api.ExitCompleted}},
	"flaky": {ends: true, fitful: true, endsAfter: 1200 * time.Millisecond, exit: api.Exit{Code: 3, Reason: api.ExitError}},
	"hangs": {},
	// Those of init containers.
	"init":   {ends: true, endsAfter: 600 * time.Millisecond, exit: api.Exit{Code: 0, Reason: api.ExitCompleted}},
	"fitful": {ends: true, fitful: true, endsAfter: 600 * time.Millisecond, exit: api.Exit{Code: 3, Reason: api.ExitError}},
	"fails":  {ends: true, endsAfter: 600 * time.Millisecond, exit: api.Exit{Code: 2, Reason: api.ExitError}},
}

func behaviorOf(image string) behavior {
	name, _, _ := strings.Cut(image, "@")
	name, _, _ = strings.Cut(name, ":")
	return behaviors[name]
}

// fine tells whether a template's processes run and become ready, on every node.
func fine(t *api.Template) bool {
	for _, c := range t.InitContainers {
		if b := behaviorOf(c.Image); b.missing || b.startFails || b.exit.Code != 0 && !b.fitful {
			return false
		}
	}
	for _, c := range t.LongRunning() {
		b := behaviorOf(c.Image)
		if b.missing || b.startFails || b.ends || b.unready && (c.ReadinessProbe != nil || c.StartupProbe != nil) {
			return false
		}
	}
	return true
}

// imageless tells whether one of a template's images is nowhere.
func imageless(t *api.Template) bool {
	for _, c := range t.AllContainers() {
		if behaviorOf(c.Image).missing {
			return true
		}
	}
	return false
}
