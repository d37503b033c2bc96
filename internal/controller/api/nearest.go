package api

import (
	"strings"

	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/controller/view"
)

// nearCompared is among how many objects the one that was meant is looked for: a slip is
// not worth a walk over a million.
const nearCompared = 10_000

// didYouMean ends a "not found" with the name that was most likely meant, or the namespace
// in which that name is; "" where nothing is near.
func didYouMean(snap *view.Snapshot, kind, namespace, name string) string {
	name, _, _ = strings.Cut(name, "@")
	if len(name) > nameMax || name == "" {
		return ""
	}
	best, near, elsewhere, seen := 1+len(name)/4, "", "", 0
	snap.All(kind, "", func(e core.Entry) bool {
		seen++
		known, _, _ := strings.Cut(e.Key.Name, "@")
		switch {
		case e.Key.Namespace != namespace && known == name && elsewhere == "":
			elsewhere = e.Key.Namespace
		case e.Key.Namespace != namespace || len(known) > nameMax:
		default:
			if d := slips(name, known); d < best || d == best && near == "" || d == best && known < near {
				best, near = d, known
			}
		}
		return seen < nearCompared
	})
	switch {
	case elsewhere != "":
		return "; there is one in namespace " + elsewhere + " (-n " + elsewhere + ")"
	case near != "" && 2*best <= len(name):
		return "; did you mean " + near + "?"
	}
	return ""
}

// slips counts the letters to add, drop, change or swap with a neighbour to get from a to b.
func slips(a, b string) int {
	before, prev, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(prev[j]+1, row[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, prev, row = prev, row, before
	}
	return prev[len(b)]
}
