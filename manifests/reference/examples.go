package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
)

// exampleMax is the longest example that stands in a table, in characters: more would
// make the table unreadable. Of a longer one only the file is named.
const exampleMax = 60

// example is a field as one of the example files has it.
type example struct {
	text string // "maxSurge: 1"; empty if it is long
	file string // init.yaml
}

// gather takes each field's first example that is short enough, and the first of all
// where none is.
func (b *book) gather(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil || len(files) == 0 {
		return fmt.Errorf("find examples in %s: there are none", dir)
	}
	for _, file := range files { // sorted
		text, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("read an example: %w", err)
		}
		for dec := yaml.NewDecoder(bytes.NewReader(text)); ; {
			var tree yaml.Node
			if err := dec.Decode(&tree); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				return fmt.Errorf("parse %s: %w", file, err)
			}
			root := tree.Content[0]
			typ := documentOf(kindOf(root))
			if typ == nil {
				return fmt.Errorf("%s: %q is no kind of a document", file, kindOf(root))
			}
			if err := b.examplesIn(root, typ, filepath.Base(file)); err != nil {
				return err
			}
		}
	}
	return nil
}

// kindOf gives a document's kind, "" if it has none.
func kindOf(root *yaml.Node) string {
	for i := 0; i+1 < len(root.Content); i += 2 {
		if root.Content[i].Value == "kind" {
			return root.Content[i+1].Value
		}
	}
	return ""
}

func (b *book) examplesIn(n *yaml.Node, t reflect.Type, file string) error {
	if n.Alias != nil {
		n = n.Alias
	}
	switch t.Kind() {
	case reflect.Pointer:
		return b.examplesIn(n, t.Elem(), file)
	case reflect.Slice, reflect.Map:
		if isLeaf(elem(t)) {
			return nil
		}
		for i, item := range n.Content {
			if t.Kind() == reflect.Map && i%2 == 0 {
				continue // a key
			}
			if err := b.examplesIn(item, t.Elem(), file); err != nil {
				return err
			}
		}
		return nil
	}
	if isLeaf(t) {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if err := b.exampleAt(n.Content[i].Value, n.Content[i+1], t, file); err != nil {
			return err
		}
	}
	return nil
}

// exampleAt notes one field of t, or of a struct embedded in it.
func (b *book) exampleAt(name string, n *yaml.Node, t reflect.Type, file string) error {
	for _, f := range fieldsOf(t) {
		if f.name != name {
			continue
		}
		text, err := short(name, n)
		if err != nil {
			return fmt.Errorf("%s: %s.%s: %w", file, t.Name(), name, err)
		}
		known := b.examples[t.Name()]
		if known == nil {
			known = map[string]example{}
			b.examples[t.Name()] = known
		}
		if before, ok := known[name]; !ok || before.text == "" && text != "" {
			known[name] = example{text, file}
		}
		return b.examplesIn(n, f.typ, file)
	}
	for i := range t.NumField() {
		if f := t.Field(i); f.Anonymous {
			if err := b.exampleAt(name, n, f.Type, file); err != nil {
				return err
			}
		}
	}
	return nil
}

// short gives a field on one line; empty if it is too long for that.
func short(name string, n *yaml.Node) (string, error) {
	text, err := yaml.Marshal(&yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{{Kind: yaml.ScalarNode, Value: name}, flow(n)}})
	if err != nil {
		return "", err
	}
	line := strings.TrimSpace(string(text))
	if len(line) > exampleMax || strings.Contains(line, "\n") {
		return "", nil
	}
	return line, nil
}

// flow gives a copy without comments, anchors and line breaks.
func flow(n *yaml.Node) *yaml.Node {
	if n.Alias != nil {
		n = n.Alias
	}
	c := &yaml.Node{Kind: n.Kind, Tag: n.Tag, Value: n.Value, Style: n.Style}
	if n.Kind != yaml.ScalarNode {
		c.Style = yaml.FlowStyle
	}
	for _, x := range n.Content {
		c.Content = append(c.Content, flow(x))
	}
	return c
}
