package orchctl

import (
	"io"
	"strings"
	"unicode/utf8"
)

// columnGap is the space between columns.
const columnGap = 3

// table prints rows under titles. It keeps its widths from one print to the
// next, so that rows which come later stay in line.
type table struct {
	titles []string
	widths []int
	titled bool
	// steady tables never widen a column once their titles stand: a cell that is too
	// long takes its room from the cells behind it, in its own row alone.
	steady bool
}

func newTable(titles ...string) *table {
	return &table{titles: titles, widths: make([]int, len(titles))}
}

// newSteadyTable makes a table for rows that come one by one: its columns have room
// for what may still come.
func newSteadyTable(cols []column) *table {
	x := newTable(titles(cols)...)
	x.steady = true
	for i, c := range cols {
		x.widths[i] = roomFor[c.title]
	}
	return x
}

// roomFor is how wide, in characters, the usual cells of a column become while a
// table is watched. What is not here is as wide as it was at the begin.
var roomFor = map[string]int{
	"NAME": 12, "NAMESPACE": 10, "NODE": 8, "SERVICE": 10,
	"READY": 7, "STATUS": 20, "IP": 13, "AGE": 5, "RESTARTS": 8, "REASON": 20,
	"VIP": 13, "ROLLOUT": 11, "ENDPOINTS": 21, "CPU": 9, "MEMORY": 12, "OTHERS": 12, "CHANGE": 22, "BY": 14,
}

// print writes the rows, before the first ones the titles.
func (x *table) print(w io.Writer, indent string, rows ...[]string) error {
	fixed := x.steady && x.titled
	if !x.titled {
		rows = append([][]string{x.titles}, rows...)
		x.titled = true
	}
	for _, row := range rows {
		for i := range row {
			row[i] = cleanText(row[i])
			if !fixed {
				x.widths[i] = max(x.widths[i], utf8.RuneCountInString(row[i]))
			}
		}
	}
	var b strings.Builder
	for _, row := range rows {
		b.WriteString(indent + x.line(row) + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// line lays out one row.
func (x *table) line(row []string) string {
	var b strings.Builder
	at, column := 0, 0 // how far the line is, and where the next column begins
	for i, cell := range row {
		b.WriteString(cell)
		at += utf8.RuneCountInString(cell)
		column += x.widths[i] + columnGap
		if i < len(row)-1 {
			space := max(column-at, columnGap)
			b.WriteString(strings.Repeat(" ", space))
			at += space
		}
	}
	return strings.TrimRight(b.String(), " ")
}
