// Reference writes the tables of fields in docs/manifest.md: types, meanings from the
// api package's comments, defaults from what Default fills in, and examples from
// manifests/examples. It writes the JSON Schema of manifests, manifests/schema, from the
// same, and the table of events' reasons in docs/troubleshooting.md from api.EventReasons.
//
//	go run ./manifests/reference
//
// A table stands between "<!-- fields: Rollout -->" and "<!-- end of fields -->"; what
// stands elsewhere is written by hand and left alone. A test keeps the page current.
package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

func main() {
	root := "."
	if len(os.Args) > 1 {
		root = os.Args[1]
	}
	if err := run(root); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run writes the page below root, the folder of go.mod.
func run(root string) error {
	file := page(root)
	before, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read the page: %w", err)
	}
	after, err := render(root, before)
	if err != nil {
		return err
	}
	if err := writeReasons(root); err != nil {
		return err
	}
	schema, err := renderSchema(root)
	if err != nil {
		return fmt.Errorf("make the schema: %w", err)
	}
	if err := os.WriteFile(schemaFile(root), schema, 0o644); err != nil {
		return err
	}
	if bytes.Equal(before, after) {
		return nil
	}
	return os.WriteFile(file, after, 0o644)
}

func page(root string) string { return filepath.Join(root, "docs", "manifest.md") }

var (
	begin   = regexp.MustCompile(`^<!-- fields: ([A-Za-z]+) -->$`)
	end     = "<!-- end of fields -->"
	heading = regexp.MustCompile(`^#+ (.*)$`)
)

// render gives the page with its tables written anew.
func render(root string, page []byte) ([]byte, error) {
	b, err := newBook(root)
	if err != nil {
		return nil, err
	}
	lines := strings.Split(string(page), "\n")
	b.anchors = anchorsOf(lines)
	var out []string
	for i := 0; i < len(lines); i++ {
		out = append(out, lines[i])
		m := begin.FindStringSubmatch(lines[i])
		if m == nil {
			continue
		}
		table, err := b.table(m[1])
		if err != nil {
			return nil, fmt.Errorf("docs/manifest.md:%d: %w", i+1, err)
		}
		out = append(out, table...)
		for i++; i < len(lines) && lines[i] != end; i++ {
			if begin.MatchString(lines[i]) || heading.MatchString(lines[i]) {
				return nil, fmt.Errorf("docs/manifest.md:%d: the table of %s has no %s", i+1, m[1], end)
			}
		}
		out = append(out, end)
	}
	return []byte(strings.Join(out, "\n")), nil
}

// anchorsOf gives the link to each type's table: that of the heading above it, as the
// common renderers make them.
func anchorsOf(lines []string) map[string]string {
	anchors, last := map[string]string{}, ""
	for _, line := range lines {
		if m := heading.FindStringSubmatch(line); m != nil {
			last = regexp.MustCompile(`[^a-z0-9 _-]`).ReplaceAllString(strings.ToLower(m[1]), "")
			last = strings.ReplaceAll(last, " ", "-")
		}
		if m := begin.FindStringSubmatch(line); m != nil {
			anchors[m[1]] = "#" + last
		}
	}
	return anchors
}
