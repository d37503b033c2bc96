package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/orchctl/orch/api"
)

const reasonsBegin, reasonsEnd = "<!-- reasons -->\n", "<!-- end of reasons -->"

func troubleshooting(root string) string { return filepath.Join(root, "docs", "troubleshooting.md") }

// renderReasons gives the page with its table of reasons written anew.
func renderReasons(page string) (string, error) {
	before, rest, ok := strings.Cut(page, reasonsBegin)
	_, after, closed := strings.Cut(rest, reasonsEnd)
	if !ok || !closed {
		return "", fmt.Errorf("docs/troubleshooting.md has no %s ... %s", strings.TrimSpace(reasonsBegin), reasonsEnd)
	}
	var b strings.Builder
	b.WriteString(before + reasonsBegin + "\n| reason | of | means | do |\n|---|---|---|---|\n")
	for _, r := range api.EventReasons {
		do := r.Do
		if do == "" {
			do = "-"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", r.Reason, strings.ToLower(strings.Join(r.Of, ", ")), r.Means, do)
	}
	return b.String() + "\n" + reasonsEnd + after, nil
}

func writeReasons(root string) error {
	text, err := os.ReadFile(troubleshooting(root))
	if err != nil {
		return err
	}
	page, err := renderReasons(string(text))
	if err != nil {
		return err
	}
	return os.WriteFile(troubleshooting(root), []byte(page), 0o644)
}
