package orchctl

import (
	"strconv"
	"strings"

	"github.com/orchctl/orch/api"
)

// nodeReady is the status of a node that nothing is wrong with.
const nodeReady = "Ready"

// nodeWord is Ready for a healthy node, else its verdict, with what is to be
// known beside it.
func nodeWord(n *api.Node) string {
	w := string(n.Status.Verdict)
	switch n.Status.Verdict {
	case api.VerdictHealthy:
		w = nodeReady
	case "":
		w = string(api.VerdictUnknown)
	}
	if n.Status.Impaired != "" {
		w += ",Impaired"
	}
	if !n.Status.DampedUntil.IsZero() {
		w += ",Damped"
	}
	switch {
	case n.Spec.Drain != nil && n.Spec.Drain.Done.IsZero():
		w += ",Draining"
	case n.Spec.Drain != nil:
		w += ",Drained"
	case n.Spec.Unschedulable:
		w += ",SchedulingDisabled"
	}
	return w
}

// nodeWhy is the sentence beside the word.
func nodeWhy(n *api.Node) string {
	var why []string
	for _, w := range []string{n.Status.VerdictWhy, n.Status.Impaired, n.Status.NetworkWhy} {
		if w != "" {
			why = append(why, w)
		}
	}
	if d := n.Spec.Drain; d != nil {
		w := "it is being drained"
		if !d.Done.IsZero() {
			w = "it was drained"
		}
		if d.By != "" {
			w += " by " + d.By
		}
		why = append(why, w)
	}
	if until := n.Status.DampedUntil; !until.IsZero() {
		why = append(why, "it went and came back too often: damped until "+until.UTC().Format("15:04:05Z"))
	}
	return strings.Join(why, "; ")
}

// share gives requested/capacity.
func share(n *api.Node, resource string, text func(api.Quantity) string) string {
	if len(n.Status.Capacity) == 0 {
		return "-"
	}
	return text(n.Status.Requested[resource]) + "/" + text(n.Status.Capacity[resource])
}

// cores gives cpu with at most two decimals.
func cores(q api.Quantity) string { return trimDecimal(float64(q.Milli())/1000, 2) }

// bytesText rounds to a unit that reads well: exact amounts of memory do not.
func bytesText(q api.Quantity) string {
	v := float64(q.Value())
	for _, u := range []struct {
		text string
		size float64
	}{{"Ti", 1 << 40}, {"Gi", 1 << 30}, {"Mi", 1 << 20}, {"Ki", 1 << 10}} {
		if v >= u.size {
			return trimDecimal(v/u.size, 1) + u.text
		}
	}
	return trimDecimal(v, 0)
}

func trimDecimal(v float64, places int) string {
	s := strconv.FormatFloat(v, 'f', places, 64)
	if strings.Contains(s, ".") {
		s = trimZeros(s)
	}
	return s
}
