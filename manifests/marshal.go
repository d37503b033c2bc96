package manifests

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Marshal gives objects as YAML, one document each, the fields in the order of
// the api types. Load reads the text back.
func Marshal(objects ...any) ([]byte, error) {
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	enc.CompactSeqIndent()
	for _, o := range objects {
		text, err := json.Marshal(o)
		if err != nil {
			return nil, fmt.Errorf("marshal %T: %w", o, err)
		}
		dec := json.NewDecoder(bytes.NewReader(text))
		dec.UseNumber()
		tree, err := node(dec)
		if err != nil {
			return nil, fmt.Errorf("marshal %T: %w", o, err)
		}
		if err := enc.Encode(tree); err != nil {
			return nil, fmt.Errorf("marshal %T: %w", o, err)
		}
	}
	if err := enc.Close(); err != nil {
		return nil, fmt.Errorf("marshal: %w", err)
	}
	return out.Bytes(), nil
}

// node reads the next JSON value as a YAML tree; decoding into Go values
// instead would lose the order of the fields.
func node(dec *json.Decoder) (*yaml.Node, error) {
	token, err := dec.Token()
	if err != nil {
		return nil, err
	}
	switch v := token.(type) {
	case json.Delim:
		return collection(dec, v)
	case string:
		return plain(v), nil
	case json.Number:
		tag := "!!int"
		if bytes.ContainsAny([]byte(v), ".eE") {
			tag = "!!float"
		}
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: v.String()}, nil
	case bool:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: fmt.Sprint(v)}, nil
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"}, nil
}

func collection(dec *json.Decoder, open json.Delim) (*yaml.Node, error) {
	out := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	if open == '[' {
		out = &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
	}
	for dec.More() { // keys and values alike: both are the next value
		item, err := node(dec)
		if err != nil {
			return nil, err
		}
		out.Content = append(out.Content, item)
	}
	if _, err := dec.Token(); err != nil && err != io.EOF { // the closing bracket
		return nil, err
	}
	if len(out.Content) == 0 {
		out.Style = yaml.FlowStyle
	}
	return out, nil
}

// otherwiseRead are strings that readers of YAML 1.1, such as Python's, take
// for truth values or for numbers to base 60.
var otherwiseRead = regexp.MustCompile(`^(?i:y|n|yes|no|on|off|[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)$`)

// plain makes a string that is quoted only where a reader of YAML needs it.
func plain(s string) *yaml.Node {
	n := &yaml.Node{}
	n.SetString(s)
	// SetString takes text that is no UTF-8 for binary; JSON has none. A block that begins
	// with a tab is not read back, for the tab is taken for its indentation.
	if n.Tag != "!!str" || otherwiseRead.MatchString(s) || n.Style == yaml.LiteralStyle && strings.HasPrefix(strings.TrimLeft(s, " \n"), "\t") {
		return text(s)
	}
	return n
}
