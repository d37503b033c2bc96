package manifests

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/orchctl/orch/api"
)

// Doc is one document: where it stood and what it declares.
type Doc struct {
	// File is the source's name, Index the document's number in it from 1,
	// Line where it begins.
	File  string
	Index int
	Line  int
	// Object is defaulted and valid.
	Object api.Object
}

// Kind gives the object's kind.
func (d Doc) Kind() string { return d.Object.ObjectKind() }

// Key gives the object's namespace and name.
func (d Doc) Key() api.Key { return d.Object.GetMetadata().Key() }

// Docs are documents in the order in which they were given.
type Docs []Doc

// Services gives the services among them.
func (d Docs) Services() []*api.Service {
	var list []*api.Service
	for _, x := range d {
		if s, ok := x.Object.(*api.Service); ok {
			list = append(list, s)
		}
	}
	return list
}

// Objects gives what each of them declares.
func (d Docs) Objects() []api.Object {
	list := make([]api.Object, len(d))
	for i, x := range d {
		list[i] = x.Object
	}
	return list
}

// Option changes how Load reads.
type Option func(*loader)

// InNamespace puts objects that name no namespace into ns, and refuses those
// that name another. Empty ns changes nothing.
func InNamespace(ns string) Option { return func(l *loader) { l.namespace = ns } }

// DefaultNamespace puts objects that name no namespace into ns and leaves the
// others where they are. Empty ns means api.DefaultNamespace.
func DefaultNamespace(ns string) Option { return func(l *loader) { l.fallback = ns } }

type loader struct {
	namespace string
	fallback  string
	docs      Docs
	// seen maps "Service default/web" to where it was declared first.
	seen     map[string]string
	problems Problems
}

// Load reads all documents of all sources. Either every one is good, or the
// error is Problems and tells what is wrong in all of them.
func Load(sources []Source, opts ...Option) (Docs, error) {
	l := &loader{seen: map[string]string{}}
	for _, o := range opts {
		o(l)
	}
	for _, s := range sources {
		l.source(s)
	}
	if err := l.problems.err(); err != nil {
		return nil, err
	}
	return l.docs, nil
}

// source reads one file.
func (l *loader) source(s Source) {
	refuse := func(doc, line int, format string, args ...any) {
		l.problems = append(l.problems, Problem{File: s.Name, Doc: doc, Line: line, Message: fmt.Sprintf(format, args...)})
	}
	if len(s.Data) > MaxSourceBytes {
		refuse(0, 0, "is larger than %d MiB: split it into several files", MaxSourceBytes>>20)
		return
	}
	if line := invalidUTF8(s.Data); line > 0 {
		refuse(0, line, "is not UTF-8: save the file in that encoding")
		return
	}
	data := s.Data
	if json.Valid(data) {
		// JSON is YAML but for tabs between its tokens (inside strings JSON has none).
		data = bytes.ReplaceAll(data, []byte("\t"), []byte(" "))
	}
	dec, full := yaml.NewDecoder(bytes.NewReader(data)), 0
	for i := 1; ; i++ {
		var tree yaml.Node
		err := dec.Decode(&tree)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			line, why := syntax(err, data)
			refuse(i, line, "%s", why)
			return
		}
		if root := content(&tree); root != nil && !isNull(root) {
			full++
			l.document(s.Name, i, root)
		}
	}
	if full == 0 {
		refuse(0, 0, "has no documents: a manifest begins with apiVersion: %s", api.Version)
	}
}

// content gives the document's top value; nil if it has none.
func content(tree *yaml.Node) *yaml.Node {
	if tree.Kind != yaml.DocumentNode || len(tree.Content) == 0 {
		return nil
	}
	return tree.Content[0]
}

// invalidUTF8 gives the line of the first byte that is no UTF-8, 0 if all are.
func invalidUTF8(data []byte) int {
	if utf8.Valid(data) {
		return 0
	}
	line := 1
	for len(data) > 0 {
		r, size := utf8.DecodeRune(data)
		if r == utf8.RuneError && size == 1 {
			break
		}
		if r == '\n' {
			line++
		}
		data = data[size:]
	}
	return line
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)`)

// syntax turns the YAML library's error into a line and a sentence.
func syntax(err error, data []byte) (line int, why string) {
	m := yamlLine.FindStringSubmatch(err.Error())
	if m == nil {
		return 0, "cannot be read as YAML: " + err.Error()
	}
	line, _ = strconv.Atoi(m[1])
	if line > 0 && strings.HasPrefix(m[2], "did not find expected") {
		line++ // the library counts these from 0
	}
	if name, ok := strings.CutPrefix(m[2], "unknown anchor '"); ok { // it gives no line
		name, _, _ = strings.Cut(name, "'")
		before, _, _ := strings.Cut(string(data), "*"+name)
		line = 1 + strings.Count(before, "\n")
		return line, "is not YAML: an alias (*) has no anchor (&) before it; a value that begins with * stands in quotes" // it may be a Secret's
	}
	line = min(max(line, 1), 1+strings.Count(strings.TrimRight(string(data), "\n"), "\n"))
	if tab := tabIndent(data, line); tab > 0 {
		return tab, "a tab stands in the indentation: YAML wants spaces there"
	}
	return line, "is not YAML: " + m[2]
}

// tabIndent gives the first line around the given one that is indented with a
// tab, 0 if there is none. The library's line may be one off.
func tabIndent(data []byte, line int) int {
	for i, text := range strings.Split(string(data), "\n") {
		indent := text[:len(text)-len(strings.TrimLeft(text, " \t"))]
		if n := i + 1; n >= line-1 && n <= line+1 && strings.Contains(indent, "\t") {
			return n
		}
	}
	return 0
}
