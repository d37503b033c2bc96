package orchctl

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/orchctl/orch/api"
)

// column is one column of a kind's table.
type column struct {
	title string
	wide  bool // only with -o wide
	// some: left out where no row has anything there.
	some bool
	cell func(o object, now time.Time) string
}

func serviceCell(f func(*api.Service) string) func(object, time.Time) string {
	return func(o object, _ time.Time) string { return f(o.value.(*api.Service)) }
}

func replicaCell(f func(*api.Replica) string) func(object, time.Time) string {
	return func(o object, _ time.Time) string { return f(o.value.(*api.Replica)) }
}

func nodeCell(f func(*api.Node) string) func(object, time.Time) string {
	return func(o object, _ time.Time) string { return f(o.value.(*api.Node)) }
}

func eventCell(f func(*api.Event) string) func(object, time.Time) string {
	return func(o object, _ time.Time) string { return f(o.value.(*api.Event)) }
}

var namespaceColumn = column{title: "NAMESPACE", cell: func(o object, _ time.Time) string { return orDash(o.namespace()) }}

var columns = map[string][]column{
	api.KindService: {
		{title: "NAME", cell: serviceCell(func(s *api.Service) string { return s.Metadata.Name })},
		{title: "READY", cell: serviceCell(func(s *api.Service) string { return fmt.Sprintf("%d/%d", s.Status.Ready, wanted(s)) })},
		{title: "UP-TO-DATE", cell: serviceCell(upToDate)},
		{title: "REVISION", cell: serviceCell(func(s *api.Service) string { return strconv.FormatInt(s.Status.Revision, 10) })},
		{title: "ROLLOUT", some: true, cell: serviceCell(rolloutWord)},
		{title: "MODE", some: true, cell: serviceCell(modeWord)},
		{title: "VIP", cell: serviceCell(vipText)},
		{title: "PORTS", cell: serviceCell(portsText)},
		{title: "AGE", cell: func(o object, now time.Time) string { return age(now, o.value.(*api.Service).Metadata.CreatedAt) }},
		{title: "IMAGES", wide: true, cell: serviceCell(func(s *api.Service) string { return images(&s.Spec.Template) })},
		{title: "REASON", wide: true, cell: serviceCell(func(s *api.Service) string { return orDash(serviceReason(s)) })},
	},
	api.KindReplica: {
		{title: "NAME", cell: replicaCell(func(r *api.Replica) string { return r.Metadata.Name })},
		{title: "READY", cell: replicaCell(replicaReady)},
		{title: "STATUS", cell: replicaCell(replicaWord)},
		{title: "RESTARTS", cell: replicaCell(func(r *api.Replica) string { return strconv.Itoa(r.Status.Restarts) })},
		{title: "NODE", cell: replicaCell(func(r *api.Replica) string { return orDash(r.Spec.Node) })},
		{title: "IP", cell: replicaCell(func(r *api.Replica) string { return orDash(r.Status.IP) })},
		{title: "AGE", cell: func(o object, now time.Time) string { return age(now, o.value.(*api.Replica).Metadata.CreatedAt) }},
		{title: "REVISION", wide: true, cell: replicaCell(func(r *api.Replica) string { return strconv.FormatInt(r.Spec.Revision, 10) })},
		{title: "EPOCH", wide: true, cell: replicaCell(func(r *api.Replica) string { return epochText(r.Spec.Epoch) })},
		{title: "REASON", wide: true, cell: replicaCell(func(r *api.Replica) string { return orDash(replicaReason(r)) })},
	},
	api.KindNode: {
		{title: "NAME", cell: nodeCell(func(n *api.Node) string { return n.Metadata.Name })},
		{title: "STATUS", cell: nodeCell(nodeWord)},
		{title: "REPLICAS", cell: nodeCell(func(n *api.Node) string { return strconv.Itoa(n.Status.Replicas) })},
		{title: "CPU", cell: nodeCell(func(n *api.Node) string { return share(n, api.CPU, cores) })},
		{title: "MEMORY", cell: nodeCell(func(n *api.Node) string { return share(n, api.Memory, bytesText) })},
		{title: "VERSION", cell: nodeCell(func(n *api.Node) string { return orDash(n.Status.Version) })},
		{title: "AGE", cell: func(o object, now time.Time) string { return age(now, o.value.(*api.Node).Metadata.CreatedAt) }},
		{title: "ADDRESS", wide: true, cell: nodeCell(func(n *api.Node) string { return orDash(n.Status.Address) })},
		{title: "SUBNET", wide: true, cell: nodeCell(func(n *api.Node) string { return orDash(n.Status.Subnet) })},
		{title: "KERNEL", wide: true, cell: nodeCell(func(n *api.Node) string { return orDash(n.Status.Kernel) })},
		{title: "RUNTIME", wide: true, cell: nodeCell(func(n *api.Node) string { return orDash(n.Status.Runtime) })},
		{title: "OS", wide: true, cell: nodeCell(func(n *api.Node) string { return orDash(n.Status.OS) })},
		{title: "WHY", wide: true, cell: nodeCell(func(n *api.Node) string { return orDash(nodeWhy(n)) })},
	},
	api.KindEvent: {
		{title: "LAST", cell: func(o object, now time.Time) string { return age(now, o.value.(*api.Event).Time) }},
		{title: "TYPE", cell: eventCell(func(e *api.Event) string { return e.Type })},
		{title: "REASON", cell: eventCell(func(e *api.Event) string { return e.Reason })},
		{title: "OBJECT", cell: eventCell(func(e *api.Event) string { return word(e.Kind) + "/" + e.Name })},
		{title: "COUNT", cell: eventCell(func(e *api.Event) string { return strconv.Itoa(max(1, e.Count)) })},
		{title: "MESSAGE", cell: eventCell(func(e *api.Event) string { return e.Message })},
	},
	api.KindEndpoint: endpointColumns,
	api.KindJob:      jobColumns,
	api.KindConfig:   configColumns,
	api.KindSecret:   configColumns,
	api.KindVolume:   volumeColumns,
	api.KindOutcome:  outcomeColumns,
	api.KindVerdict:  verdictColumns,
	api.KindFleet:    fleetColumns,
}

// columnsOf gives the columns to show.
func columnsOf(kind string, wide, namespaces bool) []column {
	var out []column
	if namespaces && !spaceless(kind) {
		out = append(out, namespaceColumn)
	}
	for _, c := range columns[kind] {
		if wide || !c.wide {
			out = append(out, c)
		}
	}
	return out
}

// cut leaves out the columns in which no row has anything, where they are such.
func cut(cols []column, rows [][]string) ([]column, [][]string) {
	keep := make([]bool, len(cols))
	for i, c := range cols {
		keep[i] = !c.some || slices.ContainsFunc(rows, func(row []string) bool { return row[i] != "-" })
	}
	var kept []column
	for i, c := range cols {
		if keep[i] {
			kept = append(kept, c)
		}
	}
	out := make([][]string, len(rows))
	for n, row := range rows {
		for i, cell := range row {
			if keep[i] {
				out[n] = append(out[n], cell)
			}
		}
	}
	return kept, out
}

func titles(cols []column) []string {
	var out []string
	for _, c := range cols {
		out = append(out, c.title)
	}
	return out
}

func cells(cols []column, o object, now time.Time) []string {
	var out []string
	for _, c := range cols {
		out = append(out, c.cell(o, now))
	}
	return out
}

// upToDate counts wanted replicas of the newest revision; a slot whose replica
// cannot be reached has two while a spare stands in.
func upToDate(s *api.Service) string { return strconv.Itoa(min(s.Status.Updated, wanted(s))) }

// rolloutWord is the rollout's state where there is one that is not complete.
func rolloutWord(s *api.Service) string {
	if s.Status.Rollout.State == api.RolloutComplete {
		return "-"
	}
	return orDash(string(s.Status.Rollout.State))
}

func modeWord(s *api.Service) string {
	if s.Spec.Mode == "" {
		return "-"
	}
	return string(s.Spec.Mode)
}

func images(x *api.Template) string {
	var out []string
	for _, c := range x.LongRunning() {
		if !slices.Contains(out, c.Image) {
			out = append(out, c.Image)
		}
	}
	return strings.Join(out, ",")
}

func serviceReason(s *api.Service) string {
	if len(s.Status.Reasons) > 1 {
		return fmt.Sprintf("%s (and %d more)", s.Status.Reasons[0], len(s.Status.Reasons)-1)
	}
	return strings.Join(s.Status.Reasons, "")
}

// replicaReady counts containers that get traffic; of a replica that does not
// get any, none.
func replicaReady(r *api.Replica) string {
	ready, all := 0, len(r.Status.Containers)
	if all == 0 {
		return "-"
	}
	for _, c := range r.Status.Containers {
		if c.Ready && (r.Status.Ready || !r.Status.LastKnown) {
			ready++
		}
	}
	return fmt.Sprintf("%d/%d", ready, all)
}

// replicaWord says in a word or two what a replica does.
func replicaWord(r *api.Replica) string {
	w := phaseWord(r)
	if r.Spec.Spare {
		w += " (spare)"
	}
	if r.Status.Degraded {
		return w + " (last known, degraded)"
	}
	// Pending and Assigned are the leader's own words: no node has said anything.
	if r.Status.LastKnown && !r.Status.Phase.Ended() && api.PhaseAssigned.Before(r.Status.Phase) {
		w += " (last known)"
	}
	return w
}

func phaseWord(r *api.Replica) string {
	switch r.Status.Phase {
	case api.PhasePending, api.PhaseStopping, api.PhaseAssigned:
		return string(r.Status.Phase)
	case api.PhaseStopped:
		if len(r.Status.Containers) > 0 { // by itself, and well
			return api.ExitCompleted
		}
		return string(r.Status.Phase)
	case api.PhaseFailed:
		for _, c := range r.Status.Containers {
			if c.LastExit != nil && c.LastExit.Reason != api.ExitCompleted {
				return "Failed (" + c.LastExit.Reason + ")"
			}
		}
		for _, c := range r.Status.Containers {
			if c.LastExit == nil {
				return "Failed"
			}
		}
		if len(r.Status.Containers) > 0 {
			return api.ExitCompleted
		}
		return "Failed"
	}
	if r.Status.Reason == api.ReasonLeaseLost { // why its containers ended says less
		return api.ReasonLeaseLost
	}
	if w := trouble(r); w != "" {
		return w
	}
	switch {
	case r.Status.Phase == api.PhasePreparing:
		return "Starting"
	case r.Status.Phase == api.PhaseRunning && (r.Status.Ready || r.Status.LastKnown):
		return "Running"
	case r.Status.Phase == api.PhaseRunning:
		return "NotReady"
	}
	return orDash(string(r.Status.Phase))
}

// trouble is what a container, or the replica before it has any, waits for or
// ended of.
func trouble(r *api.Replica) string {
	for _, c := range r.Status.Containers {
		switch {
		case c.State == api.ContainerExited && c.LastExit != nil && c.LastExit.Reason != "":
			return c.LastExit.Reason
		case c.State == api.ContainerWaiting && c.Reason == api.ReasonBackOff && c.LastExit != nil && c.LastExit.Reason != "":
			return c.Reason + " (" + c.LastExit.Reason + ")"
		case c.State != api.ContainerRunning && c.Reason != "":
			return c.Reason
		}
	}
	if r.Status.LastKnown {
		return ""
	}
	return r.Status.OwnReason()
}

// replicaReason is the sentence beside the word.
func replicaReason(r *api.Replica) string {
	if r.Status.Message != "" {
		return r.Status.Message
	}
	for _, c := range r.Status.Containers {
		if c.State == api.ContainerRunning && c.Ready {
			continue
		}
		if c.Message != "" {
			return c.Name + ": " + c.Message
		}
		if c.State != api.ContainerRunning && c.LastExit != nil {
			return c.Name + ": " + exitText(c.LastExit)
		}
	}
	return r.Status.Reason
}

// exitText tells how a run ended: "OutOfMemory: signal 9, ...".
func exitText(x *api.Exit) string {
	how := fmt.Sprintf("exit code %d", x.Code)
	if x.Signal != 0 {
		how = fmt.Sprintf("signal %d", x.Signal)
	}
	if x.OOM && x.Message == "" {
		how += ", out of memory"
	}
	out := orDash(x.Reason) + ": " + how
	if x.Message != "" && x.Message != how {
		out += ": " + x.Message
	}
	return out
}

func epochText(e uint64) string {
	if e == 0 {
		return "-"
	}
	return strconv.FormatUint(e, 10)
}
