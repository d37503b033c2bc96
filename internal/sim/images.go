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
}

func behaviorOf(image string) behavior {
	name, _, _ := strings.Cut(image, ":")
	return behaviors[name]
}

// fine tells whether a template's processes run and become ready.
func fine(t *api.Template) bool {
	for _, c := range t.Containers {
		b := behaviorOf(c.Image)
		if b.missing || b.startFails || b.ends || b.unready && c.ReadinessProbe != nil {
			return false
		}
	}
	return true
}
