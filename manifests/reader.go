package manifests

import (
	"fmt"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
)

const (
	// expandedMax is what one document may hold, aliases followed, in bytes with
	// a flat charge per value: aliases of aliases grow without bound.
	expandedMax = 4 << 20
	chargeMin   = 16
	// mergeDepthMax ends merges ("<<") that lead back to themselves.
	mergeDepthMax = 16
	// docProblemsMax ends the reading of a document that is no manifest at all.
	docProblemsMax = 50
)

type place struct{ line, column int }

func placeAt(n *yaml.Node) place { return place{n.Line, n.Column} }

// reader checks one document's tree against an api type. It builds a new tree
// of what passed, in which nothing is left to interpretation.
type reader struct {
	file string
	doc  int
	// root is the api type of the document; of a secret no value is told in a problem.
	root     reflect.Type
	secret   bool
	problems Problems
	// places of all fields that are present; blamed are the paths of problems.
	places map[string]place
	blamed []string
	spent  int
	over   bool
}

func (r *reader) problem(at place, path, message string) Problem {
	return Problem{File: r.file, Doc: r.doc, Line: at.line, Column: at.column, Path: path, Message: message}
}

func (r *reader) refuse(at place, path, format string, args ...any) {
	if r.over {
		return
	}
	if len(r.problems) == docProblemsMax {
		r.over = true
		path, format, args = "", "has too many problems: the rest is not checked", nil
	}
	r.problems = append(r.problems, r.problem(at, path, fmt.Sprintf(format, args...)))
	r.blamed = append(r.blamed, path)
}

// tainted tells whether a problem at path would only follow from one that was
// told: at the same field, above or below it.
func (r *reader) tainted(path string) bool {
	for _, b := range r.blamed {
		if b == path || below(path, b) || below(b, path) {
			return true
		}
	}
	return r.over
}

// below tells whether path lies within parent.
func below(path, parent string) bool {
	rest, ok := strings.CutPrefix(path, parent)
	return ok && parent != "" && rest != "" && (rest[0] == '.' || rest[0] == '[')
}

// placeOf gives the place of a field, or of the nearest one above it that the
// document has.
func (r *reader) placeOf(path string) place {
	for {
		if at, ok := r.places[path]; ok {
			return at
		}
		if path == "" {
			return place{}
		}
		if cut := strings.LastIndexAny(path, ".["); cut > 0 {
			path = path[:cut]
		} else {
			path = ""
		}
	}
}

// spend charges for one value and tells whether the document is still within
// its bound.
func (r *reader) spend(n *yaml.Node, path string) bool {
	r.spent += chargeMin + len(n.Value)
	if r.spent > expandedMax && !r.over {
		r.refuse(placeAt(n), path, "the document holds more than %d MiB once its aliases are followed: write it out, or split it", expandedMax>>20)
		r.over = true
	}
	return !r.over
}

// value gives the checked form of n, read as a t; nil if it was refused or is
// null, which means left out.
func (r *reader) value(n *yaml.Node, t reflect.Type, path string) *yaml.Node {
	if _, ok := r.places[path]; !ok {
		r.places[path] = placeAt(n)
	}
	at := placeAt(n)
	n = deref(n)
	if !r.spend(n, path) || isNull(n) {
		return nil
	}
	if tag := n.ShortTag(); !standardTags[tag] {
		if r.hidden(path) {
			tag = "that begins with !"
		}
		r.refuse(at, path, "the YAML tag %s is not supported: remove it, or put the value in quotes", clip(tag))
		return nil
	}
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if leaf, ok := leaves[t]; ok {
		return r.leaf(n, leaf, at, path)
	}
	switch t.Kind() {
	case reflect.Struct:
		return r.object(n, t, at, path)
	case reflect.Slice:
		return r.list(n, t, at, path)
	case reflect.Map:
		return r.table(n, t, at, path)
	}
	return r.scalar(n, t, at, path)
}

// wrong refuses a value of the wrong type.
func (r *reader) wrong(n *yaml.Node, want string, at place, path string) *yaml.Node {
	r.refuse(at, path, "want %s, but found %s", want, r.found(n, path))
	return nil
}

// found names what stands there, of a Secret's values only what kind of thing it is.
func (r *reader) found(n *yaml.Node, path string) string {
	if r.hidden(path) {
		return kindOf(n)
	}
	return found(n)
}

// hidden tells whether a Secret's values stand at path.
func (r *reader) hidden(path string) bool {
	return r.secret && (path == "data" || path == "binaryData" || below(path, "data") || below(path, "binaryData"))
}

func (r *reader) list(n *yaml.Node, t reflect.Type, at place, path string) *yaml.Node {
	if n.Kind != yaml.SequenceNode {
		return r.wrong(n, wanted(t)+r.asWritten(t, path), at, path)
	}
	out := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
	for i, item := range n.Content {
		here := fmt.Sprintf("%s[%d]", path, i)
		clean := r.value(item, t.Elem(), here)
		if r.over {
			return nil
		}
		if clean == nil {
			if isNull(deref(item)) {
				r.refuse(placeAt(item), here, "want %s, but found nothing", wanted(t.Elem()))
			}
			clean = &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"} // keeps the numbers of the others
		}
		out.Content = append(out.Content, clean)
	}
	return out
}

// table reads a map whose keys the user chooses.
func (r *reader) table(n *yaml.Node, t reflect.Type, at place, path string) *yaml.Node {
	if n.Kind != yaml.MappingNode {
		return r.wrong(n, wanted(t), at, path)
	}
	out := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	name := func(key string) string { return path + "[" + clip(key) + "]" }
	if t.Elem() == quantityType { // resources read as fields do: limits.cpu
		name = func(key string) string { return join(path, clip(key)) }
	}
	for _, e := range r.entries(n, path, name) {
		here := name(e.key.Value)
		r.places[here] = placeAt(e.value)
		if tag := e.key.ShortTag(); tag != "!!str" && tag != "!!timestamp" {
			r.refuse(placeAt(e.key), here, "want a string as key, but found %s: put it in quotes", found(e.key))
			continue
		}
		if isNull(deref(e.value)) {
			remedy := ""
			if t.Elem().Kind() == reflect.String {
				remedy = `: write "" for an empty value`
			}
			r.refuse(placeAt(e.value), here, "want %s, but found nothing%s", wanted(t.Elem()), remedy)
			continue
		}
		if clean := r.value(e.value, t.Elem(), here); clean != nil {
			out.Content = append(out.Content, text(e.key.Value), clean)
		}
	}
	return out
}

// object reads a mapping whose keys are the fields of t.
func (r *reader) object(n *yaml.Node, t reflect.Type, at place, path string) *yaml.Node {
	if n.Kind != yaml.MappingNode {
		return r.wrong(n, wanted(t)+r.asWritten(t, path), at, path)
	}
	fields := fieldsOf(t)
	out := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	name := func(key string) string { return join(path, clip(key)) }
	for _, e := range r.entries(n, path, name) {
		here := name(e.key.Value)
		field, known := fields[e.key.Value]
		if !known || e.key.Kind != yaml.ScalarNode {
			r.unknown(e.key, t, path, here)
			continue
		}
		r.places[here] = placeAt(e.value)
		if k := deref(e.value).Kind; k == yaml.MappingNode || k == yaml.SequenceNode {
			r.places[here] = placeAt(e.key) // the key says more than the line after it
		}
		if clean := r.value(e.value, field, here); clean != nil {
			out.Content = append(out.Content, text(e.key.Value), clean)
		}
	}
	return out
}

// unknown refuses a field that t does not have.
func (r *reader) unknown(key *yaml.Node, t reflect.Type, path, here string) {
	name, at := clip(key.Value), placeAt(key)
	if key.Kind != yaml.ScalarNode {
		r.refuse(at, here, "want a field's name, but found %s", found(key))
		return
	}
	if why, ok := laterFields[t][key.Value]; ok {
		r.refuse(at, here, "is not yet supported%s", why)
		return
	}
	if right, ok := otherNames[t][key.Value]; ok {
		r.refuse(at, here, "unknown field %q; %s", name, right)
		if _, ours, ok := strings.Cut(right, `use "`); ok { // so that ours is not called missing too
			ours, _, _ = strings.Cut(ours, `"`)
			r.blamed = append(r.blamed, join(path, ours))
		}
		return
	}
	if near := nearest(key.Value, keys(fieldsOf(t))); near != "" {
		r.refuse(at, here, "unknown field %q; did you mean %q?", name, near)
		r.blamed = append(r.blamed, join(path, near))
		return
	}
	if homes := homesOf(r.root, key.Value); homes != "" {
		r.refuse(at, here, "unknown field %q; it belongs in %s: check the indentation", name, homes)
		return
	}
	r.refuse(at, here, "unknown field %q; known here: %s", name, strings.Join(keys(fieldsOf(t)), ", "))
}

type entry struct{ key, value *yaml.Node }

// entries gives a mapping's pairs with merges ("<<: *base") followed, and
// refuses keys that stand twice. name gives the path of a key.
func (r *reader) entries(n *yaml.Node, path string, name func(key string) string) []entry {
	var list []entry
	first := map[string]int{}
	var merges []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := deref(n.Content[i]), n.Content[i+1]
		if key.Kind == yaml.ScalarNode && key.ShortTag() == "!!merge" {
			merges = append(merges, value)
			continue
		}
		if line, twice := first[key.Value]; twice && key.Kind == yaml.ScalarNode {
			r.refuse(placeAt(n.Content[i]), name(key.Value), "duplicate key %q: it stands on line %d already", clip(key.Value), line)
			continue
		}
		first[key.Value] = key.Line
		list = append(list, entry{key, value})
	}
	for _, m := range merges {
		r.merge(m, path, 0, first, &list)
	}
	return list
}

// merge adds the pairs of a merged mapping that are not there yet.
func (r *reader) merge(n *yaml.Node, path string, depth int, first map[string]int, list *[]entry) {
	at := placeAt(n)
	n = deref(n)
	if !r.spend(n, path) {
		return
	}
	if depth > mergeDepthMax {
		r.refuse(at, path, "merges (<<) more than %d deep: write it out", mergeDepthMax)
		return
	}
	switch n.Kind {
	case yaml.SequenceNode:
		for _, item := range n.Content {
			r.merge(item, path, depth+1, first, list)
		}
	case yaml.MappingNode:
		var nested []*yaml.Node
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := deref(n.Content[i]), n.Content[i+1]
			if key.Kind == yaml.ScalarNode && key.ShortTag() == "!!merge" {
				nested = append(nested, value)
			} else if _, has := first[key.Value]; !has && r.spend(key, path) {
				first[key.Value] = key.Line
				*list = append(*list, entry{key, value})
			}
		}
		for _, m := range nested {
			r.merge(m, path, depth+1, first, list)
		}
	default:
		r.refuse(at, path, "a merge (<<) needs a mapping, but found %s", found(n))
	}
}

// child gives the value of a key of a mapping as it stands, merges apart.
func child(n *yaml.Node, name string) *yaml.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return deref(n.Content[i+1])
		}
	}
	return nil
}

// deref follows an alias. An alias of an alias cannot be written in YAML.
func deref(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode && n.Alias != nil {
		return n.Alias
	}
	return n
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
