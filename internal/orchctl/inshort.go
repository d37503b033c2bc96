package orchctl

import (
	"fmt"
	"strings"
	"time"

	"github.com/orchctl/orch/api"
)

// What stands first in a description: one line that answers why something is as it is.

// replicaInShort says what a replica does or what keeps it from it, and where.
func replicaInShort(r *api.Replica, now time.Time) string {
	st := r.Status
	since := ""
	if !r.Metadata.CreatedAt.IsZero() {
		since = " for " + age(now, r.Metadata.CreatedAt)
	}
	where := ""
	if r.Spec.Node != "" {
		where = " on " + r.Spec.Node
	}
	switch {
	case st.Phase == api.PhasePending:
		return fmt.Sprintf("waits for a node%s: %s", since, orElse(st.Message, "no reason is known"))
	case st.Phase == api.PhaseAssigned:
		return fmt.Sprintf("%s is to take it up%s", r.Spec.Node, since) + colon(st.Message)
	case st.Phase == api.PhaseStopping:
		return "stops" + where + colon(orElse(r.Spec.Why, st.Message))
	case st.Phase.Ended():
		return fmt.Sprintf("ended%s: %s", where, endedText(r))
	case strings.HasPrefix(st.Reason, "Node"), st.Reason == api.ReasonLeaseLost:
		text := "is out of reach" + where + colon(st.Message)
		if st.Degraded {
			text += "; it gets traffic all the same, for its service has nothing better"
		}
		return text
	case st.Ready:
		text := "runs" + where
		if !r.Spec.Job {
			text += " and gets traffic"
		}
		if !st.StartedAt.IsZero() {
			text += ", started " + age(now, st.StartedAt) + " ago"
		}
		return text + lastEndText(r, now)
	}
	for _, c := range st.Containers {
		if c.State != api.ContainerWaiting || c.Reason == "" || c.Reason == api.ReasonInitializing {
			continue
		}
		switch c.Reason {
		case api.ReasonPulling:
			return fmt.Sprintf("waits%s for the image of %s%s", where, c.Name, colon(c.Message))
		case api.ReasonBackOff:
			text := fmt.Sprintf("container %s ends again and again%s", c.Name, where)
			if c.LastExit != nil {
				text += ": " + exitText(c.LastExit)
			}
			if c.Message != "" {
				text += "; " + c.Message
			}
			return fmt.Sprintf("%s (%s)", text, count(c.Restarts, "restart"))
		}
		return fmt.Sprintf("container %s does not start%s: %s%s", c.Name, where, c.Reason, colon(c.Message))
	}
	if own := st.OwnReason(); own != "" && own != api.ReasonInitializing {
		return fmt.Sprintf("does not start%s: %s%s", where, own, colon(st.Message))
	}
	if st.Phase == api.PhasePreparing {
		return "starts" + where + colon(replicaReason(r))
	}
	return fmt.Sprintf("runs%s and is not ready%s", where, colon(orElse(replicaReason(r), "its readiness probe has not answered well yet"))) + lastEndText(r, now)
}

// lastEndText tells how a container of a replica that runs ended before, as it may again.
func lastEndText(r *api.Replica, now time.Time) string {
	var last *api.Exit
	for _, c := range r.Status.Containers {
		if x := c.LastExit; x != nil && c.State == api.ContainerRunning && (last == nil || x.FinishedAt.After(last.FinishedAt)) {
			last = x
		}
	}
	if last == nil || r.Status.Restarts == 0 {
		return ""
	}
	text := fmt.Sprintf("; %s, the last", count(r.Status.Restarts, "restart"))
	if !last.FinishedAt.IsZero() {
		text += " " + age(now, last.FinishedAt) + " ago"
	}
	return text + " after " + exitText(last)
}

func endedText(r *api.Replica) string {
	for _, c := range r.Status.Containers {
		if c.LastExit != nil && c.LastExit.Reason != api.ExitCompleted {
			return fmt.Sprintf("container %s: %s", c.Name, exitText(c.LastExit))
		}
	}
	if len(r.Status.Containers) > 0 {
		return "all its containers ended well"
	}
	return orElse(r.Spec.Why, strings.ToLower(phaseWord(r)))
}

// serviceInShort says how many replicas are ready and, if not all are, why.
func serviceInShort(s *api.Service) string {
	st, want := s.Status, wanted(s)
	text := fmt.Sprintf("%d of %d ready", st.Ready, want)
	switch r := st.Rollout; {
	case !s.Metadata.DeletedAt.IsZero():
		text = "is being deleted"
	case want == 0:
		text = "wants no replicas"
	case r.State == api.RolloutProgressing || r.State == api.RolloutPaused:
		text += fmt.Sprintf(", revision %d in %d of them (rollout %s)", st.Revision, st.UpdatedReady, strings.ToLower(string(r.State)))
	case r.State == api.RolloutFailed:
		text += fmt.Sprintf(", the rollout of revision %d failed", st.Revision)
	}
	reasons := foldReasons(st.Reasons)
	if len(reasons) == 0 {
		return text
	}
	text += ": " + reasons[0]
	if more := len(reasons) - 1; more > 0 {
		text += fmt.Sprintf("; and %s", count(more, "more reason"))
	}
	return text
}

// jobInShort says how far a job is and, if it is not done, why.
func jobInShort(j *api.Job) string {
	st := j.Status
	text := fmt.Sprintf("%d of %d completed", st.Succeeded, j.Spec.Want())
	why, _, _ := strings.Cut(st.Why, "\n")
	why = strings.TrimSuffix(why, "; last output:")
	switch {
	case !j.Metadata.DeletedAt.IsZero():
		return "is being deleted, with " + text
	case st.State == api.JobFailed:
		return "failed with " + text + colon(why)
	case st.State == api.JobComplete:
		return text
	}
	text += fmt.Sprintf(", %d active", st.Active)
	if st.Failed > 0 {
		text += ", " + count(st.Failed, "failed try")
	}
	if reasons := foldReasons(st.Reasons); len(reasons) > 0 {
		text += ": " + reasons[0]
	}
	return text
}

// nodeInShort says what is held of a node, since when and why, and what it has.
func nodeInShort(n *api.Node, now time.Time) string {
	st := n.Status
	text := "is " + nodeWord(n)
	if nodeWord(n) == nodeReady {
		text = "is well"
	}
	if !st.VerdictSince.IsZero() {
		text += " for " + age(now, st.VerdictSince)
	}
	switch {
	case st.VerdictWhy != "":
		text += ": " + st.VerdictWhy
	case st.Impaired != "":
		text += ": " + st.Impaired
	}
	text += "; " + count(st.Replicas, "replica")
	if n.Spec.Drain != nil && n.Spec.Drain.Done.IsZero() && len(st.DrainWaits) > 0 {
		text += ": " + st.DrainWaits[0]
	}
	return text
}

// configInShort says which version holds and who takes it.
func configInShort(c *api.Config) string {
	users := configUsers(c)
	switch len(users) {
	case 0:
		return fmt.Sprintf("version %d, which nothing uses", c.Status.Version)
	case 1:
		return fmt.Sprintf("version %d, used by %s", c.Status.Version, users[0])
	}
	return fmt.Sprintf("version %d, used by %s and %d more", c.Status.Version, users[0], len(users)-1)
}

// volumeInShort says where a volume is and what it is for.
func volumeInShort(v *api.Volume) string {
	text := map[bool]string{true: "in use", false: "unused"}[len(v.Status.UsedBy) > 0] + " on " + v.Spec.Node
	switch {
	case v.Status.Removing:
		return "being removed from " + v.Spec.Node + ", with what is in it"
	case len(v.Status.UsedBy) > 0:
		return text + ": slot " + fmt.Sprint(v.Spec.Slot) + " of service " + v.Spec.Service + " can run nowhere else"
	}
	return text + fmt.Sprintf(": kept for slot %d of service %s; `orchctl volume rm %s` frees it", v.Spec.Slot, v.Spec.Service, v.Metadata.Name)
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

func colon(text string) string {
	if text == "" {
		return ""
	}
	return ": " + text
}
