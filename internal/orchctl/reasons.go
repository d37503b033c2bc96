package orchctl

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// volatile is what changes in a reason while it stays the same: times and amounts.
var volatile = regexp.MustCompile(`[0-9]+(\.[0-9]+)?( ?[KMGT]i?B| ?(ms|[smhd%]))+\b|[0-9]+(\.[0-9]+)?%`)

// sameReason is equal for reasons that tell the same.
func sameReason(text string) string { return volatile.ReplaceAllString(text, "#") }

// aboutReplica takes a reason apart that is about one replica: "web-2 on n1: ...", or
// "web-2 pending: ...".
var aboutReplica = regexp.MustCompile(`^(\S+-[0-9]+)( on \S+| pending|)(?: \(and [0-9]+ more\))?: (.*)$`)

// foldReasons tells what several replicas suffer from once, with the first of them.
func foldReasons(all []string) []string {
	type kind struct {
		first, where, rest string
		others             int
	}
	var order []string
	kinds := map[string]*kind{}
	for _, text := range all {
		m := aboutReplica.FindStringSubmatch(text)
		if m == nil {
			m = []string{"", "", "", text}
		}
		pending := ""
		if m[2] == " pending" {
			pending = "pending"
		}
		id := pending + "\x00" + sameReason(m[3])
		if m[1] == "" { // about the whole: it stands for itself
			id = "\x00\x00" + sameReason(text)
		}
		if k := kinds[id]; k != nil {
			k.others++
			continue
		}
		order = append(order, id)
		kinds[id] = &kind{first: m[1], where: m[2], rest: m[3]}
	}
	var out []string
	for _, id := range order {
		switch k := kinds[id]; {
		case k.first == "":
			out = append(out, k.rest)
		case k.others == 0:
			out = append(out, k.first+k.where+": "+k.rest)
		default:
			out = append(out, fmt.Sprintf("%s%s (and %d more): %s", k.first, k.where, k.others, k.rest))
		}
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
		id := sameReason(r)
		if m := aboutReplica.FindStringSubmatch(r); m != nil { // who has it first is chance
			id = sameReason(m[3])
		}
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
		return m != nil && slices.Contains(shown, m[1]) && !strings.Contains(r, " more): ")
	})
}
