package orchctl

import (
	"context"
	"fmt"
	"strings"
	"time"

	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// topWatch shows what is used again and again: on a terminal in place, else one table
// after the other.
func (t *tool) topWatch(ctx context.Context, client orchv1.OrchClient, x topped) error {
	v := &topView{t: t, x: x}
	answered := t.Now()
	for {
		began := t.Now()
		u, err := t.askUsage(ctx, client, x)
		switch {
		case ctx.Err() != nil:
			return nil // an interrupt is how a watch ends
		case err == nil:
			answered = t.Now()
			if err := v.show(u); err != nil {
				return err
			}
		case !transient(unwrapCall(err)) || t.Now().Sub(answered) > streamPatience:
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(max(0, topEvery-t.Now().Sub(began))):
		}
	}
}

// topView is the table as it stands on the screen.
type topView struct {
	t      *tool
	x      topped
	widths []int // as wide as they were once, so that columns do not dance
	lines  int   // drawn last time
	shown  bool
}

func (v *topView) show(u using) error {
	if v.x.output == "json" {
		return v.t.writeJSON(u.list(v.x))
	}
	cols, rows := u.table(v.x)
	table := newTable(cols...)
	if v.widths != nil {
		copy(table.widths, v.widths)
	}
	var b strings.Builder
	if err := table.print(&b, "", rows...); err != nil {
		return err
	}
	v.widths = table.widths
	for _, n := range u.usages {
		if n.GetError() != "" {
			fmt.Fprintf(&b, "node %s: %s\n", n.GetNode(), cleanText(n.GetError()))
		}
	}
	width, height, terminal := v.t.Screen()
	if !terminal {
		text := b.String()
		if v.shown {
			text = "\n" + text
		}
		v.shown = true
		return v.t.printf("%s", text)
	}
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	if room := max(1, height-1); len(lines) > room { // what scrolled away cannot be drawn over
		lines = append(lines[:room-1], fmt.Sprintf("and %d more lines", len(lines)-room+1))
	}
	return v.draw(lines, width)
}

// draw writes each line over the one that stood there, and clears what is left: nothing
// is seen to go and come again.
func (v *topView) draw(lines []string, width int) error {
	var out strings.Builder
	if v.lines > 0 {
		fmt.Fprintf(&out, "\x1b[%dA", v.lines)
	}
	for _, l := range lines {
		out.WriteString(clip(l, width-1) + "\x1b[K\n")
	}
	out.WriteString("\x1b[J")
	v.lines = len(lines)
	_, err := v.t.Out.Write([]byte(out.String()))
	return err
}
