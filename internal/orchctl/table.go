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
}

func newTable(titles ...string) *table {
	return &table{titles: titles, widths: make([]int, len(titles))}
}

// print writes the rows, before the first ones the titles.
func (x *table) print(w io.Writer, indent string, rows ...[]string) error {
	if !x.titled {
		rows = append([][]string{x.titles}, rows...)
		x.titled = true
	}
	for _, row := range rows {
		for i := range row {
			row[i] = cleanText(row[i])
			x.widths[i] = max(x.widths[i], utf8.RuneCountInString(row[i]))
		}
	}
	var b strings.Builder
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			line.WriteString(cell)
			if i < len(row)-1 {
				line.WriteString(strings.Repeat(" ", x.widths[i]-utf8.RuneCountInString(cell)+columnGap))
			}
		}
		b.WriteString(indent + strings.TrimRight(line.String(), " ") + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}
