package orchctl

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/orchctl/orch/api"
)

// block is a part of the screen that is drawn over and over.
type block struct {
	t     *tool
	lines int // drawn last time
}

// reasonsShownMax is how many reasons of one service the block has room for.
const reasonsShownMax = 5

// rowsShownMax is how many replicas of one service it has room for.
const rowsShownMax = 8

// draw replaces the block.
func (b *block) draw(tracks []*track, jobs []*jobTrack, now time.Time) error {
	width, height, _ := b.t.Screen()
	var lines []string
	for _, x := range tracks {
		if x.fate.failed != "" {
			lines = append(lines, "✘ "+firstLine(x.fate.failed))
			continue
		}
		if x.ended > 0 && x.isReady() {
			lines = append(lines, fmt.Sprintf("✔ %s  %s", x.label, x.summary()))
			continue
		}
		lines = append(lines, x.block(now)...)
	}
	for _, x := range jobs {
		lines = append(lines, x.block(now)...)
	}
	if room := max(1, height-1); len(lines) > room { // what scrolled away cannot be drawn over
		lines = append(lines[:room-1], fmt.Sprintf("  and %d more lines", len(lines)-room+1))
	}
	var out strings.Builder
	out.WriteString(b.erase())
	for _, l := range lines {
		out.WriteString(clip(l, width-1) + "\n")
	}
	b.lines = len(lines)
	_, err := b.t.Out.Write([]byte(out.String()))
	return err
}

// block gives the lines of one service: how far it is, and the replicas that are not
// where they are to be, with what each waits for.
func (x *track) block(now time.Time) []string {
	head := fmt.Sprintf("• %s  %s  %s", x.label, now.Sub(x.began).Truncate(showEvery), x.summary())
	if r := x.fate.record; r != nil && r.Rollout.State == api.RolloutRolledBack {
		head += fmt.Sprintf("  (rolled back from revision %d: %s)", r.Number, firstLine(r.Rollout.Why))
	} else if x.service.Status.Rollout.State == api.RolloutPaused {
		head += "  (" + pauseText(x.service, now) + ")"
	} else if s := stepText(x.service); s != "" && x.service.Status.Rollout.State == api.RolloutProgressing {
		head += "  (" + s + ")"
	}
	rows, shown := x.rows()
	lines := append([]string{head}, rows...)
	reasons := notAbout(foldReasons(x.reasons()), shown)
	for i, r := range reasons {
		if i == reasonsShownMax {
			return append(lines, fmt.Sprintf("    and %d more", len(reasons)-i))
		}
		lines = append(lines, "    "+cleanText(r))
	}
	return lines
}

// rows gives a line for each replica that is on its way, first those of the newest
// revision, then those that are stopping; what only waits for its turn is counted.
func (x *track) rows() (lines, names []string) {
	var coming, going [][]string
	waiting := map[int64]int{}
	age := "new"
	if !x.rolls {
		age = "" // there is nothing old
	}
	for _, key := range slices.SortedFunc(maps.Keys(x.replicas), x.bySlot) {
		r := x.replicas[key]
		row := []string{r.Metadata.Name, age, orDash(r.Spec.Node), phaseWord(r), cleanText(replicaReason(r))}
		if r.Spec.Revision != x.service.Status.Revision {
			row[1] = "old"
		}
		switch {
		case r.Status.Phase.Ended():
		case r.Status.Phase == api.PhaseStopping:
			going = append(going, row)
		case !x.counts(r):
			waiting[r.Spec.Revision]++
		case !r.Status.Ready:
			coming = append(coming, row)
		}
	}
	rows := append(coming, going...)
	more := max(0, len(rows)-rowsShownMax)
	rows = rows[:len(rows)-more]
	same := !slices.ContainsFunc(rows, func(row []string) bool { return row[1] != "" })
	t := newTable("", "", "", "", "")
	for i, row := range rows {
		names = append(names, row[0])
		if same {
			rows[i] = slices.Delete(row, 1, 2)
		}
		for i, cell := range rows[i] {
			t.widths[i] = max(t.widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range rows {
		lines = append(lines, "    "+t.line(row))
	}
	if more > 0 {
		lines = append(lines, fmt.Sprintf("    and %s more on their way", count(more, "replica")))
	}
	for _, revision := range slices.Sorted(maps.Keys(waiting)) {
		lines = append(lines, fmt.Sprintf("    %d of revision %d still to be replaced", waiting[revision], revision))
	}
	return lines, names
}

// bySlot orders the track's replicas by slot, then by epoch.
func (x *track) bySlot(a, b string) int {
	p, q := x.replicas[a].Spec, x.replicas[b].Spec
	return cmp.Or(cmp.Compare(p.Slot, q.Slot), cmp.Compare(p.Epoch, q.Epoch), cmp.Compare(a, b))
}

// erase moves to the block's first line and clears from there.
func (b *block) erase() string {
	if b.lines == 0 {
		return ""
	}
	return fmt.Sprintf("\x1b[%dA\x1b[J", b.lines)
}

// clear takes the block off the screen.
func (b *block) clear() {
	if b.lines > 0 {
		_, _ = b.t.Out.Write([]byte(b.erase())) // the screen is gone, then there is nothing to clear
		b.lines = 0
	}
}
