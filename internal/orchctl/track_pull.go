package orchctl

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
)

// pulledOf is how an agent tells how far a pull is.
var pulledOf = regexp.MustCompile(`([0-9.]+) of ([0-9.]+) MiB`)

// pullSteps is in how many steps a pull is told: in a log each is a line.
const pullSteps = 4

// pullSeen is what was told of pulls last: it stays until one is noticeably further.
type pullSeen struct {
	step int
	of   string // replica
	text string
}

// pulls tells how far the pull is that is furthest behind: " (web-0 on n1: 12 of 48 MiB)";
// "" where nobody says.
func (x *track) pulls() string {
	now := pullSeen{step: pullSteps + 1}
	for _, key := range slices.Sorted(maps.Keys(x.replicas)) {
		r := x.replicas[key]
		if !x.counts(r) || progressWord(r) != "pulling" {
			continue
		}
		m := pulledOf.FindStringSubmatch(r.Status.Message)
		if m == nil {
			continue
		}
		done, err1 := strconv.ParseFloat(m[1], 64)
		total, err2 := strconv.ParseFloat(m[2], 64)
		if err1 != nil || err2 != nil || total <= 0 {
			continue
		}
		if step := min(int(done/total*pullSteps), pullSteps); step < now.step {
			now = pullSeen{step: step, of: key, text: fmt.Sprintf(" (%s on %s: %s)", cleanText(r.Metadata.Name), cleanText(r.Spec.Node), m[0])}
		}
	}
	if now.text == "" || now.step != x.pulled.step || now.of != x.pulled.of {
		x.pulled = now
	}
	return x.pulled.text
}
