package orchctl

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// cleanText keeps what a fleet says on one line and away from the terminal's
// controls.
func cleanText(s string) string {
	bad := func(r rune) bool { return unicode.IsControl(r) || r == utf8.RuneError || unicode.Is(unicode.Cf, r) }
	if strings.IndexFunc(s, bad) < 0 {
		return s
	}
	return strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if bad(r) {
			return ' '
		}
		return r
	}, s)), " ")
}

// count gives "1 problem", "2 problems", "2 tries".
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	if stem, ok := strings.CutSuffix(what, "try"); ok {
		what = stem + "trie"
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// short gives a duration as people write one: "12ms", "0.84s", "2m5s".
func short(d time.Duration) string {
	switch {
	case d < 100*time.Millisecond:
		return fmt.Sprintf("%dms", d.Round(time.Millisecond).Milliseconds())
	case d < 10*time.Second:
		return trimZeros(fmt.Sprintf("%.2f", d.Seconds())) + "s"
	case d < time.Minute:
		return trimZeros(fmt.Sprintf("%.1f", d.Seconds())) + "s"
	}
	s := d.Round(time.Second).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func trimZeros(s string) string { return strings.TrimSuffix(strings.TrimRight(s, "0"), ".") }

// age gives the time since then in one or two units: "5s", "2m3s", "3h", "12d".
func age(now, then time.Time) string {
	if then.IsZero() {
		return "-"
	}
	d := max(0, now.Sub(then)) // the two clocks may differ
	days := int(d / (24 * time.Hour))
	two := func(big int, bigUnit string, small int, smallUnit string) string {
		if small == 0 {
			return fmt.Sprintf("%d%s", big, bigUnit)
		}
		return fmt.Sprintf("%d%s%d%s", big, bigUnit, small, smallUnit)
	}
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 10*time.Minute:
		return two(int(d.Minutes()), "m", int(d.Seconds())%60, "s")
	case d < 3*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 8*time.Hour:
		return two(int(d.Hours()), "h", int(d.Minutes())%60, "m")
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	case days < 8:
		return two(days, "d", int(d.Hours())%24, "h")
	}
	return fmt.Sprintf("%dd", days)
}

// clip cuts a line to the screen's width, in characters.
func clip(s string, width int) string {
	if width <= 0 || utf8.RuneCountInString(s) <= width {
		return s
	}
	return string([]rune(s)[:max(0, width-1)]) + "…"
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
