package orchctl

import (
	"fmt"
	"strconv"
	"time"

	"github.com/orchctl/orch/api"
)

func jobCell(f func(*api.Job) string) func(object, time.Time) string {
	return func(o object, _ time.Time) string { return f(o.value.(*api.Job)) }
}

func outcomeCell(f func(*api.Outcome) string) func(object, time.Time) string {
	return func(o object, _ time.Time) string { return f(o.value.(*api.Outcome)) }
}

var jobColumns = []column{
	{title: "NAME", cell: jobCell(func(j *api.Job) string { return j.Metadata.Name })},
	{title: "STATE", cell: jobCell(jobWord)},
	{title: "COMPLETIONS", cell: jobCell(func(j *api.Job) string { return fmt.Sprintf("%d/%d", j.Status.Succeeded, j.Spec.Want()) })},
	{title: "FAILED", cell: jobCell(func(j *api.Job) string { return strconv.Itoa(j.Status.Failed) })},
	{title: "ACTIVE", cell: jobCell(func(j *api.Job) string { return strconv.Itoa(j.Status.Active) })},
	{title: "DURATION", cell: func(o object, now time.Time) string { return jobDuration(o.value.(*api.Job), now) }},
	{title: "AGE", cell: func(o object, now time.Time) string { return age(now, o.value.(*api.Job).Metadata.CreatedAt) }},
	{title: "IMAGES", wide: true, cell: jobCell(func(j *api.Job) string { return images(&j.Spec.Template) })},
	{title: "REASON", wide: true, cell: jobCell(func(j *api.Job) string { return orDash(jobReason(j)) })},
}

var outcomeColumns = []column{
	{title: "NAME", cell: outcomeCell(func(x *api.Outcome) string { return x.Metadata.Name })},
	{title: "RESULT", cell: outcomeCell(outcomeWord)},
	{title: "TRIES", cell: outcomeCell(func(x *api.Outcome) string { return strconv.Itoa(tries(x)) })},
	{title: "NODE", cell: outcomeCell(func(x *api.Outcome) string { return orDash(x.Node) })},
	{title: "EXIT", cell: outcomeCell(outcomeExit)},
	{title: "TOOK", cell: outcomeCell(outcomeTook)},
	{title: "FINISHED", cell: func(o object, now time.Time) string { return age(now, o.value.(*api.Outcome).Exit.FinishedAt) }},
	{title: "EPOCH", wide: true, cell: outcomeCell(func(x *api.Outcome) string { return epochText(x.Epoch) })},
	{title: "WHY", wide: true, cell: outcomeCell(func(x *api.Outcome) string { return orDash(outcomeWhy(x)) })},
}

// jobWord is the job's state; of one that is on its way out that.
func jobWord(j *api.Job) string {
	if !j.Metadata.DeletedAt.IsZero() {
		return "Deleting"
	}
	if j.Status.State == "" {
		return string(api.JobRunning)
	}
	return string(j.Status.State)
}

// jobDuration is how long the job took, or takes; "-" where nothing of it has run yet.
func jobDuration(j *api.Job, now time.Time) string {
	switch st := j.Status; {
	case st.StartedAt.IsZero():
		return "-"
	case st.EndedAt.IsZero():
		return age(now, st.StartedAt)
	default:
		return short(max(0, st.EndedAt.Sub(st.StartedAt)))
	}
}

// jobReason is why it failed, or what it waits for.
func jobReason(j *api.Job) string {
	if j.Status.Why != "" {
		return firstLine(j.Status.Why)
	}
	if n := len(j.Status.Reasons); n > 1 {
		return fmt.Sprintf("%s (and %d more)", j.Status.Reasons[0], n-1)
	}
	if len(j.Status.Reasons) == 0 {
		return inputReason(j)
	}
	return j.Status.Reasons[0]
}

// inputReason says of a job whose command reads its input how it begins; "" of all else.
// Whether somebody was attached already is not known here.
func inputReason(j *api.Job) string {
	if j.Status.Ended() || waitsForStdin(&j.Spec.Template) == "" {
		return ""
	}
	return fmt.Sprintf("its command begins when somebody attaches: orchctl attach job/%s -n %s", j.Metadata.Name, j.Metadata.Namespace)
}

// outcomeWord is how an index ended, or that its last try failed.
func outcomeWord(x *api.Outcome) string {
	if x.Succeeded {
		return "Succeeded"
	}
	return "Failed"
}

// tries is how often an index was tried, as far as the tries ended by themselves.
func tries(x *api.Outcome) int {
	if x.Succeeded {
		return x.Failures + 1
	}
	return x.Failures
}

// outcomeExit is the code or the signal that ended the last try.
func outcomeExit(x *api.Outcome) string {
	switch e := x.Exit; {
	case e.Signal != 0:
		return fmt.Sprintf("signal %d", e.Signal)
	case e.Code == 0 && !x.Succeeded:
		return orDash(e.Reason)
	default:
		return strconv.Itoa(e.Code)
	}
}

func outcomeTook(x *api.Outcome) string {
	if x.StartedAt.IsZero() || x.Exit.FinishedAt.IsZero() {
		return "-"
	}
	return short(max(0, x.Exit.FinishedAt.Sub(x.StartedAt)))
}

// outcomeWhy says how the last try failed; "" where it did not.
func outcomeWhy(x *api.Outcome) string {
	if x.Succeeded {
		return ""
	}
	text := exitText(&x.Exit)
	if x.Container != "" {
		text = x.Container + ": " + text
	}
	return text
}
