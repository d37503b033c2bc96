package orchctl

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/orchctl/orch/api"
)

// rolledBackShownMax is how many services that went back a line names.
const rolledBackShownMax = 3

// leftBehind says of each Config and Secret with a new version which services went back
// behind it: its values stay as they are, and bring down the next revision, too.
func (w *waiting) leftBehind() []string {
	var out []string
	for _, c := range w.configs {
		ref := api.RefTo(c.ObjectKind(), c.Metadata.Name)
		of := map[int64][]string{} // services, by the version that they run with
		for _, x := range w.tracks {
			if v := x.wentBackTo(c, ref); v > 0 {
				of[v] = append(of[v], x.label)
			}
		}
		var run []string
		for _, v := range slices.Sorted(maps.Keys(of)) {
			names, verb, more := slices.Sorted(slices.Values(of[v])), "run", ""
			switch n := len(names); {
			case n == 1:
				verb = "runs"
			case n > rolledBackShownMax:
				names, more = names[:rolledBackShownMax], fmt.Sprintf(" and %d more", n-rolledBackShownMax)
			}
			run = append(run, fmt.Sprintf("%s%s %s with version %d", strings.Join(names, ", "), more, verb, v))
		}
		if len(run) > 0 {
			out = append(out, cleanText(fmt.Sprintf("%s/%s stays at version %d: mend its values and apply again; %s", word(c.ObjectKind()), c.Metadata.Name, c.Status.Version, strings.Join(run, "; "))))
		}
	}
	return out
}

// wentBackTo gives the version of a Config that a service has again, whose revision with
// the newest one was rolled back; 0: it was not, or it has another template by now.
func (x *track) wentBackTo(c *api.Config, ref api.ConfigRef) int64 {
	r := x.fate.record
	st := x.service.Status
	switch {
	case x.fate.failed == "" || r == nil || r.Rollout.State != api.RolloutRolledBack:
		return 0
	case x.key.Namespace != c.Metadata.Namespace || r.Configs[ref] != c.Status.Version:
		return 0
	case st.Revision != x.target+1 || st.Rollout.State != api.RolloutComplete:
		return 0
	}
	user := revisionName(x.key.Name, r.Rollout.From)
	for _, v := range c.Status.Versions {
		if v.Number != c.Status.Version && slices.Contains(v.Users, user) {
			return v.Number
		}
	}
	return 0
}
