package orchctl

import (
	"fmt"
	"strings"
	"time"
)

// block is a part of the screen that is drawn over and over.
type block struct {
	t     *tool
	lines int // drawn last time
}

// reasonsShownMax is how many reasons of one service the block has room for.
const reasonsShownMax = 5

// draw replaces the block.
func (b *block) draw(tracks []*track, now time.Time) error {
	width, height, _ := b.t.Screen()
	var lines []string
	for _, x := range tracks {
		if x.ended > 0 && x.isReady() {
			lines = append(lines, fmt.Sprintf("✔ %s  %s", x.label, x.summary()))
			continue
		}
		lines = append(lines, fmt.Sprintf("• %s  %s  %s", x.label, now.Sub(x.began).Truncate(showEvery), x.summary()))
		for i, r := range x.reasons() {
			if i == reasonsShownMax {
				lines = append(lines, fmt.Sprintf("    and %d more", len(x.reasons())-i))
				break
			}
			lines = append(lines, "    "+cleanText(r))
		}
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
