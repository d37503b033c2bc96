package orchctl

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/orchctl/orch/api"
)

// revisionsShown is how many of a service's newest revisions a description tells.
const revisionsShown = 5

// rollout tells how a service's newest revision is rolled out, and by what rules.
func (p *page) rollout(s *api.Service) {
	r, want := s.Status.Rollout, wanted(s)
	if r.State != "" {
		text := fmt.Sprintf("%s: revision %d", r.State, s.Status.Revision)
		if r.From > 0 && r.From != s.Status.Revision {
			text += fmt.Sprintf(", after revision %d", r.From)
		}
		if d := tookOf(r); d > 0 {
			text += ", took " + short(d)
		}
		p.field(0, "Rollout", "%s", text)
		if !r.StartedAt.IsZero() {
			p.field(2, "Since", "%s", p.when(r.StartedAt))
		}
		if r.State != api.RolloutPaused && r.PausedBy != "" {
			p.field(2, "Paused", "the next one, by %s", r.PausedBy)
		}
		if r.State == api.RolloutPaused {
			p.field(2, "Paused", "%s", strings.TrimPrefix(strings.TrimPrefix(pauseText(s, p.now), "paused"), " "))
		} else {
			p.field(2, "Step", "%s", strings.TrimPrefix(stepText(s), "step "))
		}
		if r.State == api.RolloutProgressing && !r.ProgressAt.IsZero() {
			p.field(2, "Progress", "%s; given up %s after it", p.when(r.ProgressAt), short(s.Spec.Rollout.ProgressDeadline.Or(api.DefaultProgressDeadline)))
		}
		if r.Why != "" {
			p.list(2, "Why", strings.Split(strings.TrimRight(r.Why, "\n"), "\n"))
		}
	}
	bounds := fmt.Sprintf("%d more and %d fewer than wanted at a time", s.Spec.Surge(want), s.Spec.Unavailable(want))
	if s.Spec.Rollout.Strategy == api.StrategyRecreate {
		bounds = "recreate: all of the old revision stop before any of the new one starts"
	}
	if d := s.Spec.MinReady(); d > 0 {
		bounds += fmt.Sprintf("; one counts when it was ready for %s", d)
	}
	p.field(0, "Rollout rules", "%s", bounds)
	for i, step := range s.Spec.Rollout.Canary {
		then := "then until `orchctl rollout resume`"
		if step.Pause != nil {
			then = fmt.Sprintf("then %s", step.Pause)
		}
		text := fmt.Sprintf("%d. %s new, %s", i+1, step.Replicas, then)
		if i == 0 {
			p.field(0, "Canary", "%s", text)
		} else {
			fmt.Fprintf(&p.b, "%s%s\n", strings.Repeat(" ", fieldWidth+1), cleanText(text))
		}
	}
	if b := s.Spec.Rollout.AutoRollback; b != nil && !*b {
		p.field(0, "Auto rollback", "no: a rollout that fails stays where it is")
	}
}

// stopSignals tells what asks the containers to end.
func stopSignals(x api.Template) string {
	var out []string
	for _, c := range x.LongRunning() {
		if c.StopSignal != "" {
			out = append(out, c.StopSignal+" to "+c.Name)
		}
	}
	switch len(out) {
	case 0:
		return "SIGTERM" // or the image's
	case len(x.LongRunning()):
		return strings.Join(out, ", ")
	}
	return strings.Join(out, ", ") + ", SIGTERM to the others"
}

// setting tells what surrounds a container's process: hooks, rights, limits, mounts.
func (p *page) setting(c api.Container) {
	if l := c.Lifecycle; l != nil {
		p.field(4, "After start", "%s", hookText(l.PostStart))
		p.field(4, "Before stop", "%s", hookText(l.PreStop))
	}
	p.field(4, "Security", "%s", securityText(c.SecurityContext))
	var ulimits, mounts []string
	for _, name := range slices.Sorted(maps.Keys(c.Ulimits)) {
		u := c.Ulimits[name]
		text := fmt.Sprintf("%s %d", name, u.Soft)
		if u.Hard != 0 && u.Hard != u.Soft {
			text += fmt.Sprintf(" (hard %d)", u.Hard)
		}
		ulimits = append(ulimits, text)
	}
	p.field(4, "Ulimits", "%s", strings.Join(ulimits, ", "))
	for _, m := range c.Mounts {
		mounts = append(mounts, mountText(m))
	}
	p.list(4, "Mounts", mounts)
}

func hookText(h *api.Hook) string {
	if h == nil {
		return ""
	}
	switch within := " within " + short(h.Timeout.Or(api.DefaultHookTimeout)); {
	case h.Exec != nil:
		return quoted(h.Exec.Command) + within
	case h.HTTP != nil:
		return fmt.Sprintf("GET %s on port %s%s", h.HTTP.Path, h.HTTP.Port, within)
	case h.Sleep != nil:
		return "wait " + h.Sleep.String()
	}
	return ""
}

func securityText(x *api.SecurityContext) string {
	if x == nil {
		return ""
	}
	var out []string
	if x.User != "" {
		user := "user " + x.User
		if x.Group != "" {
			user += ", group " + x.Group
		}
		out = append(out, user)
	}
	for _, y := range []struct {
		set  bool
		text string
	}{{x.Privileged, "privileged: it owns its node"}, {x.ReadOnlyRoot, "read-only root"}, {x.AllowPrivilegeEscalation, "may gain privileges"},
		{len(x.Capabilities.Drop) > 0, "without " + strings.Join(x.Capabilities.Drop, " ")}, {len(x.Capabilities.Add) > 0, "with " + strings.Join(x.Capabilities.Add, " ")},
		{x.Seccomp == api.SeccompUnconfined, "no seccomp filter"}} {
		if y.set {
			out = append(out, y.text)
		}
	}
	return strings.Join(out, ", ")
}
