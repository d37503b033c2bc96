package orchctl

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// suspected is how the controller says that a replica's node is suspect.
var suspected = regexp.MustCompile(`(?:cannot be reached: (\S+) is suspect(?:;|$)| on (\S+), which is suspect$)`)

// suspects gives the nodes that a service's rollout cannot be judged without, in order.
func suspects(s *api.Service) []string {
	if s.Status.Rollout.State != api.RolloutProgressing {
		return nil
	}
	var out []string
	for _, reason := range s.Status.Reasons {
		if m := suspected.FindStringSubmatch(reason); m != nil {
			out = append(out, m[1]+m[2])
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// learn asks since when the nodes are suspect that a rollout waits for, each once. It
// fails in nothing: without an answer the node alone is told.
func (w *waiting) learn(ctx context.Context, x *track, now time.Time) {
	x.now = now
	names := suspects(x.service)
	maps.DeleteFunc(x.suspect, func(name string, _ time.Time) bool { return !slices.Contains(names, name) })
	for _, name := range names {
		if _, known := x.suspect[name]; known {
			continue
		}
		x.suspect[name] = time.Time{}
		asked, cancel := context.WithTimeout(ctx, learnTimeout)
		answer, err := w.client.Get(asked, &orchv1.GetRequest{Ref: &orchv1.Ref{Kind: api.KindNode, Name: name}})
		cancel()
		if err != nil {
			continue
		}
		if o, err := decode(answer); err == nil {
			if n, ok := o.value.(*api.Node); ok && n.Status.Verdict == api.VerdictSuspect {
				x.suspect[name] = n.Status.VerdictSince
			}
		}
	}
}

// learnTimeout bounds how long the progress stands still for a word more.
const learnTimeout = time.Second

// awaits says for which verdicts a rollout waits that has all it needs; "": for none.
func (x *track) awaits() string {
	var nodes []string
	for _, name := range slices.Sorted(maps.Keys(x.suspect)) {
		text := cleanText(name)
		if since := x.suspect[name]; !since.IsZero() {
			text += fmt.Sprintf(" (suspect since %s)", age(x.now, since))
		}
		nodes = append(nodes, text)
	}
	if len(nodes) == 0 {
		return ""
	}
	return "; waits for the verdict on " + strings.Join(nodes, ", ")
}
