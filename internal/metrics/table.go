package metrics

import (
	"fmt"
	"strings"
)

// Table is the list of a book for people, in Markdown.
func Table(list []Metric) string {
	var b strings.Builder
	b.WriteString("| metric | kind | labels | what it says |\n|---|---|---|---|\n")
	for _, m := range list {
		var labels []string
		for _, l := range m.Labels {
			labels = append(labels, "`"+l+"`")
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", m.Name, m.Kind, strings.Join(labels, ", "), strings.ReplaceAll(m.Help, "|", "\\|"))
	}
	return b.String()
}
