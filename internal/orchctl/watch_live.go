package orchctl

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// goneShown is how long a row of what is gone stays, so that one sees it go.
const goneShown = 3 * time.Second

// watchLive draws the table over itself as it changes, at most once every showEvery: rows
// stay where they are, and what is gone stays for a moment, marked.
func (t *tool) watchLive(ctx context.Context, client orchv1.OrchClient, l listing, x target) error {
	ctx, cancel := context.WithCancel(ctx)
	f := t.feed(ctx, client, []*orchv1.ListRequest{l.request(x)})
	defer f.wait()
	defer cancel()
	rows, left := map[string]object{}, map[string]time.Time{}
	cols := slices.DeleteFunc(columnsOf(x.kind, l.output == "wide", l.all), func(c column) bool { return c.title == "MODE" })
	screen, inStep, dirty := &liveTable{t: t, cols: cols, widths: map[string]int{}}, false, true
	tick := time.NewTicker(showEvery)
	defer tick.Stop()
	for {
		select {
		case s := <-f.ch:
			if s.err != nil {
				return s.err
			}
			switch {
			case s.news == synced:
				inStep = true
			case x.name != "" && s.o.name() != x.name, !l.events.wants(s.o):
				continue
			case s.news == gone:
				left[s.o.key()] = t.Now()
			default:
				rows[s.o.key()] = s.o
				delete(left, s.o.key())
			}
			dirty = true
		case now := <-tick.C:
			for key, at := range left {
				if now.Sub(at) >= goneShown {
					delete(left, key)
					delete(rows, key)
				}
			}
			if !inStep || !dirty && now.Nanosecond() > int(showEvery) { // ages go on by themselves once a second
				continue
			}
			dirty = false
			if err := screen.draw(slices.SortedFunc(maps.Values(rows), compareObjects), left); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil // an interrupt is how a watch ends
		}
	}
}

// liveTable is a table that is drawn over itself; its columns only widen.
type liveTable struct {
	t      *tool
	cols   []column
	widths map[string]int
	block  block
}

func (x *liveTable) draw(objects []object, left map[string]time.Time) error {
	table := newTable(titles(x.cols)...)
	lines := [][]string{table.titles}
	for _, o := range objects {
		row := cells(x.cols, o, x.t.Now())
		if _, isGone := left[o.key()]; isGone {
			for i, c := range x.cols {
				if c.title != "NAME" && c.title != "NAMESPACE" {
					row[i] = ""
				}
				if c.title == "STATUS" || c.title == "READY" && !slices.ContainsFunc(x.cols, func(c column) bool { return c.title == "STATUS" }) {
					row[i] = "(gone)"
				}
			}
		}
		lines = append(lines, row)
	}
	for _, row := range lines {
		for i, c := range x.cols {
			row[i] = cleanText(row[i])
			x.widths[c.title] = max(x.widths[c.title], len([]rune(row[i])))
			table.widths[i] = x.widths[c.title]
		}
	}
	width, height, _ := x.t.Screen()
	more := 0
	if room := max(2, height-1); len(lines) > room {
		more = len(lines) - room + 1
		lines = lines[:room-1]
	}
	var b strings.Builder
	b.WriteString(strings.TrimSuffix(x.block.erase(), "\x1b[J")) // each line is cleared as it is drawn: nothing flickers
	for _, row := range lines {
		b.WriteString(clip(table.line(row), width-1) + "\x1b[K\n")
	}
	if more > 0 {
		b.WriteString("and " + count(more, "more row") + "\x1b[K\n")
	}
	b.WriteString("\x1b[J")
	x.block.lines = len(lines) + min(more, 1)
	_, err := x.t.Out.Write([]byte(b.String()))
	return err
}

// isLive tells whether a watch is drawn in place: on a terminal, of a kind whose rows
// change. What happened is appended.
func (t *tool) isLive(l listing, kind string) bool {
	_, _, screen := t.Screen()
	return l.live && screen && (l.output == "" || l.output == "wide") && kind != api.KindEvent && kind != api.KindVerdict
}
