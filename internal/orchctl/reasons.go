package orchctl

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// volatile is what changes in a reason while it stays the same: times and amounts.
var volatile = regexp.MustCompile(`[0-9]+(\.[0-9]+)?( ?[KMGT]i?B| ?(ms|[smhd%]))+\b|[0-9]+(\.[0-9]+)?%|[0-9]+ \(available .*\)`)

// sameReason is equal for reasons that tell the same.
func sameReason(text string) string { return volatile.ReplaceAllString(text, "#") }

// aboutReplica takes a reason apart that is about one replica: "web-2 on n1: ...", or
// "web-2 pending: ...".
var aboutReplica = regexp.MustCompile(`^(\S+-[0-9]+)( on \S+| pending|)(?: \(and [0-9]+ more\))?: (.*)$`)

// stateOfReplica is what is known of one where nothing says more: "web-2@17 is not ready
// on n1".
var stateOfReplica = regexp.MustCompile(`^(\S+-[0-9]+@[0-9]+) (is .*)( on \S+?)(?: \(and [0-9]+ more\))?$`)

// kindOf is equal for reasons that differ only in who has them, in times and in amounts.
func kindOf(reason string) string {
	if m := aboutReplica.FindStringSubmatch(reason); m != nil {
		if m[2] == " pending" {
			return "pending: " + sameReason(m[3])
		}
		return "on: " + sameReason(m[3])
	}
	if m := stateOfReplica.FindStringSubmatch(reason); m != nil {
		return "state: " + m[2]
	}
	return sameReason(reason)
}

// foldReasons tells what several replicas suffer from once, with the first of them.
func foldReasons(all []string) []string {
	var order []string
	first, others := map[string]string{}, map[string]int{}
	for _, text := range all {
		kind := kindOf(text)
		if _, ok := first[kind]; ok {
			others[kind]++
			continue
		}
		order = append(order, kind)
		first[kind] = text
	}
	var out []string
	for _, kind := range order {
		text, more := first[kind], ""
		if n := others[kind]; n > 0 {
			more = fmt.Sprintf(" (and %d more)", n)
		}
		if m := aboutReplica.FindStringSubmatch(text); m != nil {
			text = m[1] + m[2] + more + ": " + m[3]
		} else if stateOfReplica.MatchString(text) {
			text += more
		}
		out = append(out, text)
	}
	return out
}

// standing are reasons, since when they are there, and which were told.
type standing struct {
	since map[string]time.Time
	said  map[string]bool
}

func newStanding() standing { return standing{map[string]time.Time{}, map[string]bool{}} }

// news are the reasons that have stood for a while and were not told yet; two that
// differ in times and amounts only are one.
func (x *standing) news(reasons []string, now time.Time) []string {
	var out []string
	current := map[string]bool{}
	for _, r := range foldReasons(reasons) {
		id := kindOf(r) // who has it first is chance
		current[id] = true
		since, ok := x.since[id]
		if !ok {
			x.since[id] = now
			continue
		}
		if now.Sub(since) >= reasonAfter && !x.said[id] {
			x.said[id] = true
			out = append(out, r)
		}
	}
	for id := range x.since {
		if !current[id] {
			delete(x.since, id)
		}
	}
	return out
}

// notAbout leaves out what is about one of the replicas that are shown anyway.
func notAbout(reasons, shown []string) []string {
	return slices.DeleteFunc(slices.Clone(reasons), func(r string) bool {
		m := aboutReplica.FindStringSubmatch(r)
		if m == nil {
			m = stateOfReplica.FindStringSubmatch(r)
		}
		if m == nil || strings.Contains(r, " more)") {
			return false
		}
		name, _, _ := strings.Cut(m[1], "@")
		return slices.Contains(shown, name)
	})
}
