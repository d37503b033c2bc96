package main

import (
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"unicode"

	"github.com/orchctl/orch/api"
)

// table gives the lines of one type's table.
func (b *book) table(name string) ([]string, error) {
	t, ok := b.types[name]
	if !ok {
		return nil, fmt.Errorf("%s is no type of a manifest", name)
	}
	lines := []string{"", "| field | type | default | meaning | example |", "|---|---|---|---|---|"}
	for _, f := range fieldsOf(t) {
		if isStatus(f.typ) || f.typ == reflect.TypeFor[api.Metadata]() {
			continue // told once, for all kinds
		}
		doc := b.docs[name][f.goName]
		if doc == "" {
			return nil, fmt.Errorf("api.%s.%s has no comment", name, f.goName)
		}
		x, ok := b.examples[name][f.name]
		if !ok {
			return nil, fmt.Errorf("no file in manifests/examples has %s.%s", name, f.name)
		}
		meaning, left := b.meaning(t, f, doc)
		lines = append(lines, "| "+strings.Join([]string{"`" + f.name + "`", b.typeOf(f.typ), left, meaning, x.String()}, " | ")+" |")
	}
	return append(lines, ""), nil
}

// String gives the example with a link to its file.
func (x example) String() string {
	link := fmt.Sprintf("[%s](../manifests/examples/%s)", strings.TrimSuffix(x.file, ".yaml"), x.file)
	if x.text == "" {
		return link
	}
	fence, pad := "`", ""
	if strings.Contains(x.text, "`") {
		fence, pad = "``", " "
	}
	return fence + pad + strings.ReplaceAll(x.text, "|", `\|`) + pad + fence + " (" + link + ")"
}

// typeOf names a type in a user's words, with a link to its own table.
func (b *book) typeOf(t reflect.Type) string {
	switch {
	case t.Kind() == reflect.Pointer:
		return b.typeOf(t.Elem())
	case t.Kind() == reflect.Slice && t != reflect.TypeFor[[]byte]():
		return "list of " + b.typeOf(t.Elem())
	}
	switch t {
	case reflect.TypeFor[api.Duration]():
		return "duration"
	case reflect.TypeFor[api.Quantity]():
		return "quantity"
	case reflect.TypeFor[api.IntOrPercent]():
		return "count or share"
	case reflect.TypeFor[api.PortRef]():
		return "port"
	case reflect.TypeFor[[]byte]():
		return "base64"
	}
	if values := b.values[t.Name()]; len(values) > 0 && t.Kind() == reflect.String {
		return "`" + strings.Join(values, "`, `") + "`"
	}
	switch t.Kind() {
	case reflect.Map:
		return "map of " + b.typeOf(t.Elem())
	case reflect.Struct:
		if link, ok := b.anchors[t.Name()]; ok {
			return "[" + t.Name() + "](" + link + ")"
		}
		return t.Name()
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "text"
	}
	return "number"
}

// meansWhenMissing finds what a comment says of a field that is left out: "nil means
// 10 s", up to the end of the clause.
var meansWhenMissing = regexp.MustCompile(`(?i)[;.]?\s*\b(?:nil|empty|0) means (?:that )?(.+?)(;|\.( |$))`)

// meaning splits a comment into what a field means and what leaving it out does.
func (b *book) meaning(t reflect.Type, f field, doc string) (meaning, left string) {
	if m := meansWhenMissing.FindStringSubmatchIndex(doc); m != nil {
		left = doc[m[2]:m[3]]
		before, after := strings.TrimRight(doc[:m[0]], " ;."), strings.TrimSpace(doc[m[1]:])
		doc = strings.TrimSpace(before + ". " + capital(after))
		if before == "" {
			doc = capital(after)
		}
	}
	left = b.inWords(t, left)
	filled := b.filled[t.Name()][f.name]
	switch {
	case f.required:
		left = "required"
	case filled != "":
		_, more, _ := strings.Cut(left, ", ") // "25 %, or what order says"
		left = "`" + filled + "`"
		if more != "" {
			left += ", " + more
		}
	case left != "":
	case f.typ.Kind() == reflect.Bool:
		left = "`false`"
	case f.typ.Kind() == reflect.Int:
		left = "`0`"
	case f.typ.Kind() == reflect.Struct:
		left = "those of its fields"
	default:
		left = "none"
	}
	return b.inWords(t, sentence(f, doc)), left
}

// sentence drops the Go name that a comment begins with: "Name is a label" is said of
// the field in the first column.
func sentence(f field, doc string) string {
	for _, verb := range []string{" is ", " are ", ": "} {
		if rest, ok := strings.CutPrefix(doc, f.goName+verb); ok {
			return capital(rest)
		}
	}
	return doc
}

func capital(s string) string {
	for i, r := range s {
		return string(unicode.ToUpper(r)) + s[i+len(string(r)):]
	}
	return s
}

var identifier = regexp.MustCompile("`[^`]*`|\\[[^]]*\\]\\([^)]*\\)|\\b[A-Z][A-Za-z]*[a-z][A-Za-z]*\\b")

var humps = regexp.MustCompile(`[a-z][A-Z]`)

// inWords writes Go names as a manifest has them, and constants as their values.
func (b *book) inWords(t reflect.Type, s string) string {
	own := map[string]bool{}
	for _, f := range fieldsOf(t) {
		own[f.goName] = true
	}
	var out strings.Builder
	last := 0
	for _, at := range identifier.FindAllStringIndex(s, -1) {
		word := s[at[0]:at[1]]
		out.WriteString(s[last:at[0]])
		last = at[1]
		// Any word may begin a sentence with a capital; elsewhere, with a hump, and among
		// the type's own fields it is a name.
		name := own[word] || humps.MatchString(word) || at[0] > 0 && !strings.HasSuffix(s[:at[0]], ". ")
		switch text, isConst := b.consts[word]; {
		case word[0] == '`' || word[0] == '[': // code and links stay
		case word == api.KindConfig || word == api.KindSecret: // of fields and kinds the kinds are meant
		case isConst && humps.MatchString(word):
			word = "`" + text + "`"
		case name && b.words[word] != "":
			word = "`" + b.words[word] + "`"
		}
		out.WriteString(word)
	}
	out.WriteString(s[last:])
	return strings.NewReplacer("|", `\|`, " %", "%").Replace(out.String())
}
