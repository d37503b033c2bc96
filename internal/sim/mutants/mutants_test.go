package main

import (
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"strings"
	"testing"
)

// Every row fits the code as it is, and every invariant has some.
func TestTableIsUpToDate(t *testing.T) {
	t.Chdir("../../..")
	covered, seen := map[string]int{}, map[string]bool{}
	for _, m := range table() {
		covered[m.breaks]++
		if err := m.check(); err != nil {
			t.Error(err)
			continue
		}
		b, err := os.ReadFile(m.file)
		if err != nil {
			t.Fatal(err)
		}
		mutated := strings.Replace(string(b), m.old, m.new, 1)
		if seen[m.file+mutated+m.test] {
			t.Errorf("%s: the same mistake twice: %s", m.file, m.why)
		}
		seen[m.file+mutated+m.test] = true
		if _, err := parser.ParseFile(token.NewFileSet(), m.file, mutated, parser.SkipObjectResolution); err != nil {
			t.Errorf("%s: %s: %v", m.file, m.why, err)
		}
	}
	for i := 1; i <= 10; i++ {
		if name := fmt.Sprintf("I%d", i); covered[name] == 0 {
			t.Errorf("no mistake breaks %s", name)
		}
	}
}
