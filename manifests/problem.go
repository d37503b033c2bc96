package manifests

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// problemsShownMax bounds Problems.Error: more would scroll the first away.
const problemsShownMax = 100

// Problem is one thing that is wrong in a manifest.
type Problem struct {
	// File is the source's name.
	File string
	// Doc is the document's number within the file, from 1; 0 means the file.
	Doc int
	// Line and Column count from 1; 0 means unknown.
	Line, Column int
	// Path is the field, as spec.containers[0].image; empty for the document.
	Path string
	// Message says what is wrong and what would be right.
	Message string
}

// String gives `web.yaml:12:9: document 2: spec.replicas: want a whole number`,
// without the parts that are not known.
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d", p.Line)
		if p.Column > 0 {
			fmt.Fprintf(&b, ":%d", p.Column)
		}
	}
	b.WriteString(": ")
	if p.Doc > 0 {
		fmt.Fprintf(&b, "document %d: ", p.Doc)
	}
	if p.Path != "" {
		b.WriteString(p.Path + ": ")
	}
	b.WriteString(p.Message)
	return b.String()
}

// Problems are all that is wrong in the given manifests, by file and line. It is
// the error type of this package.
type Problems []Problem

// Error gives one line per problem, the first problemsShownMax of them.
func (p Problems) Error() string {
	var lines []string
	for i, x := range p {
		if i == problemsShownMax {
			lines = append(lines, fmt.Sprintf("... and %d more", len(p)-i))
			break
		}
		lines = append(lines, x.String())
	}
	return strings.Join(lines, "\n")
}

// err gives the problems as an error in their order, nil if there are none.
func (p Problems) err() error {
	if len(p) == 0 {
		return nil
	}
	slices.SortStableFunc(p, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column),
			cmp.Compare(a.Path, b.Path), cmp.Compare(a.Message, b.Message))
	})
	return slices.Compact(p)
}
