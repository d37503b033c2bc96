package orchctl

import (
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
)

// TestEventsChosen: by type and time, alone and together.
func TestEventsChosen(t *testing.T) {
	f := newFake(event(1, 3*time.Hour, api.KindService, "web", api.EventNormal, "Created", "long ago"), event(2, 2*time.Hour, api.KindService, "web", api.EventWarning, "RolledBack", "long ago too"),
		event(3, time.Minute, api.KindReplica, "web-0", api.EventNormal, "Ready", "now"), event(4, time.Minute, api.KindReplica, "web-1", api.EventWarning, "NotReady", "now too"))
	in(t, f, func(t *testing.T, r *rig) {
		for args, want := range map[string]string{
			"": "Created RolledBack Ready NotReady", "--types warning": "RolledBack NotReady", "--types Normal,Warning": "Created RolledBack Ready NotReady",
			"--since 1h": "Ready NotReady", "--since 1h --types Warning": "NotReady", "--since 10s": "",
		} {
			got := r.run(append([]string{"events"}, strings.Fields(args)...)...)
			var reasons []string
			for _, line := range strings.Split(got.out, "\n") {
				if words := strings.Fields(line); len(words) > 3 && words[0] != "LAST" {
					reasons = append(reasons, words[2])
				}
			}
			if got.code != 0 || strings.Join(reasons, " ") != want {
				t.Errorf("%s: %s", args, got)
			}
		}
		for args, want := range map[string]string{"--types Error": "--types Error: want Normal or Warning", "--since -1h": "want a time back from now", "--since yesterday": "want a time back from now"} {
			if got := r.run(append([]string{"events"}, strings.Fields(args)...)...); got.code != 2 || !strings.Contains(got.err, want) {
				t.Errorf("%s: %s", args, got)
			}
		}
	})
}
