package manifests

import (
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/orchctl/orch/api"
)

var standardTags = map[string]bool{"!!str": true, "!!int": true, "!!float": true, "!!bool": true, "!!null": true,
	"!!map": true, "!!seq": true, "!!timestamp": true,
	"!!merge": true} // a plain << as a value; as a key it is followed before

var (
	quantityType = reflect.TypeFor[api.Quantity]()
	bytesType    = reflect.TypeFor[[]byte]()
	wholeNumber  = regexp.MustCompile(`^-?(0|[1-9][0-9]*)$`)
)

// leaf is a type with a text form of its own.
type leaf struct {
	typ  reflect.Type
	want string
	// literal types are read as the user wrote them, number or not: 0.10 must
	// not pass through a floating point number.
	literal bool
}

var leaves = map[reflect.Type]leaf{
	quantityType:                        {quantityType, "a quantity such as 500m or 512Mi", true},
	reflect.TypeFor[api.Duration]():     {reflect.TypeFor[api.Duration](), "a duration such as 500ms, 10s or 2m", false},
	reflect.TypeFor[api.IntOrPercent](): {reflect.TypeFor[api.IntOrPercent](), `a count or a percentage, such as 2 or "25%"`, false},
	reflect.TypeFor[api.PortRef]():      {reflect.TypeFor[api.PortRef](), "a port's number or name", false},
	bytesType:                           {bytesType, "base64", true},
	reflect.TypeFor[time.Time]():        {reflect.TypeFor[time.Time](), "a time such as 2026-01-02T15:04:05Z", true},
}

// leaf checks a value by the type's own reader.
func (r *reader) leaf(n *yaml.Node, l leaf, at place, path string) *yaml.Node {
	tag := n.ShortTag()
	if n.Kind != yaml.ScalarNode || tag == "!!bool" {
		return r.wrong(n, l.want, at, path)
	}
	out := text(n.Value)
	if tag == "!!int" && !l.literal {
		if !wholeNumber.MatchString(n.Value) {
			return r.wrong(n, l.want, at, path)
		}
		out = &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: n.Value}
	} else if tag == "!!float" && !l.literal {
		return r.wrong(n, l.want, at, path)
	}
	asJSON := []byte(out.Value)
	if out.Tag == "!!str" {
		asJSON, _ = json.Marshal(out.Value)
	}
	err := json.Unmarshal(asJSON, reflect.New(l.typ).Interface())
	switch {
	case err == nil:
		return out
	case l.typ == bytesType: // never the text itself, which may be a Secret's
		r.refuse(at, path, "is not base64: write what base64 -w0 FILE prints; a value that is text stands in data as it is")
		return nil
	case l.typ == reflect.TypeFor[time.Time]():
		return r.wrong(n, l.want, at, path)
	}
	r.refuse(at, path, "%s", clipMessage(err.Error()))
	return nil
}

// scalar checks strings, whole numbers and booleans.
func (r *reader) scalar(n *yaml.Node, t reflect.Type, at place, path string) *yaml.Node {
	tag := n.ShortTag()
	if n.Kind != yaml.ScalarNode {
		return r.wrong(n, wanted(t)+plainName(path), at, path)
	}
	switch t.Kind() {
	case reflect.String:
		if tag == "!!str" || tag == "!!timestamp" || tag == "!!merge" {
			return text(n.Value)
		}
		example := fmt.Sprintf(", as %q", clip(n.Value))
		if r.hidden(path) {
			example = ""
		}
		r.refuse(at, path, "want a string, but found %s: put it in quotes%s", r.found(n, path), example)
		return nil
	case reflect.Int, reflect.Int64:
		// What does not fit an integer has become a float for the YAML library.
		if (tag != "!!int" && tag != "!!float") || !wholeNumber.MatchString(n.Value) {
			return r.wrong(n, wanted(t), at, path)
		}
		if _, err := strconv.ParseInt(n.Value, 10, t.Bits()); err != nil {
			r.refuse(at, path, "%s is too large", clip(n.Value))
			return nil
		}
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: n.Value}
	case reflect.Bool:
		// "yes" and "on" are strings in one YAML and true in another: not guessed.
		if tag != "!!bool" {
			return r.wrong(n, wanted(t), at, path)
		}
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: strings.ToLower(n.Value)}
	}
	panic(fmt.Sprintf("manifests: the api type %s at %s cannot be read yet", t, path)) // a new field's type; TestEveryField finds it
}

// text makes a node that every YAML reader takes for this string.
func text(s string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Style: yaml.DoubleQuotedStyle, Value: s}
}

// wanted names a type in a user's words.
func wanted(t reflect.Type) string {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if l, ok := leaves[t]; ok {
		return l.want
	}
	switch t.Kind() {
	case reflect.Struct:
		return "a mapping (of " + strings.Join(keys(fieldsOf(t)), ", ") + ")"
	case reflect.Slice:
		return "a list (each item after a -)"
	case reflect.Map:
		return "a mapping (name: value)"
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	}
	return "a whole number"
}

// kindOf names what kind of thing stands there.
func kindOf(n *yaml.Node) string {
	n = deref(n)
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.ShortTag() {
	case "!!int", "!!float":
		return "a number"
	case "!!bool":
		return "a truth value"
	case "!!null":
		return "nothing"
	}
	return "a string"
}

// found names what stands there instead.
func found(n *yaml.Node) string {
	n = deref(n)
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.ShortTag() {
	case "!!int", "!!float":
		return "the number " + clip(n.Value)
	case "!!bool":
		return "the truth value " + clip(n.Value)
	case "!!null":
		return "nothing"
	}
	return fmt.Sprintf("the string %q", clip(n.Value))
}

// clip keeps a message on one screen whatever stood in the file.
func clip(s string) string { return clipTo(s, 80) }

func clipMessage(s string) string { return clipTo(s, 400) }

func clipTo(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
