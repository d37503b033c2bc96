package api

import (
	"fmt"
	"slices"
	"strings"
)

// maxSelectorText bounds what a client may make the controller parse.
const maxSelectorText = 4096

// Selector chooses objects by their labels: all of its conditions must hold.
// The empty selector chooses everything.
type Selector []Constraint

// Matches tells whether labels meet every condition.
func (s Selector) Matches(labels map[string]string) bool {
	for _, c := range s {
		if !c.Matches(labels) {
			return false
		}
	}
	return true
}

// Matches tells whether labels meet the condition. As in Kubernetes, NotIn also
// holds where the label is absent. An unknown operator never matches.
func (c Constraint) Matches(labels map[string]string) bool {
	value, has := labels[c.Key]
	switch c.Operator {
	case OpIn:
		return has && slices.Contains(c.Values, value)
	case OpNotIn:
		return !has || !slices.Contains(c.Values, value)
	case OpExists:
		return has
	case OpDoesNotExist:
		return !has
	}
	return false
}

// String gives the text that ParseSelector reads back to the same conditions.
func (s Selector) String() string {
	parts := make([]string, len(s))
	for i, c := range s {
		parts[i] = c.selectorText()
	}
	return strings.Join(parts, ",")
}

func (c Constraint) selectorText() string {
	set := "(" + strings.Join(c.Values, ",") + ")"
	switch c.Operator {
	case OpIn:
		if len(c.Values) == 1 {
			return c.Key + "=" + c.Values[0]
		}
		return c.Key + " in " + set
	case OpNotIn:
		if len(c.Values) == 1 {
			return c.Key + "!=" + c.Values[0]
		}
		return c.Key + " notin " + set
	case OpDoesNotExist:
		return "!" + c.Key
	}
	return c.Key
}

// ParseSelector reads Kubernetes' selector text: conditions separated by
// commas, each one of
//
//	app=web   app==web   app!=web   app in (web,api)   app notin (web)   app   !app
//
// Empty text is the empty selector.
func ParseSelector(text string) (Selector, error) {
	if len(text) > maxSelectorText {
		return nil, fmt.Errorf("selector has %d characters: at most %d are allowed", len(text), maxSelectorText)
	}
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	var s Selector
	for _, part := range splitOutsideParens(text) {
		c, err := parseCondition(strings.TrimSpace(part))
		if err != nil {
			return nil, fmt.Errorf("selector %q: %w", text, err)
		}
		s = append(s, c)
	}
	return s, nil
}

// splitOutsideParens cuts at the commas between conditions, not at those
// inside a set.
func splitOutsideParens(text string) []string {
	var parts []string
	start, inside := 0, false
	for i, r := range text {
		switch {
		case r == '(':
			inside = true
		case r == ')':
			inside = false
		case r == ',' && !inside:
			parts = append(parts, text[start:i])
			start = i + 1
		}
	}
	return append(parts, text[start:])
}

func parseCondition(text string) (Constraint, error) {
	if text == "" {
		return Constraint{}, fmt.Errorf("a condition is empty: remove the extra comma")
	}
	c, err := readCondition(text)
	if err != nil {
		return Constraint{}, err
	}
	if why := labelKeyProblem(c.Key); why != "" {
		return Constraint{}, fmt.Errorf("%q: key %s", text, why)
	}
	for _, v := range c.Values {
		if why := labelValueProblem(v); why != "" {
			return Constraint{}, fmt.Errorf("%q: value %s", text, why)
		}
	}
	return c, nil
}

func readCondition(text string) (Constraint, error) {
	if key, ok := strings.CutPrefix(text, "!"); ok && !strings.Contains(key, "=") {
		return Constraint{Key: strings.TrimSpace(key), Operator: OpDoesNotExist}, nil
	}
	if strings.ContainsAny(text, "()") {
		return readSet(text)
	}
	for _, op := range []struct {
		text string
		op   Operator
	}{{"!=", OpNotIn}, {"==", OpIn}, {"=", OpIn}} {
		if key, value, ok := strings.Cut(text, op.text); ok {
			return Constraint{Key: strings.TrimSpace(key), Operator: op.op, Values: []string{strings.TrimSpace(value)}}, nil
		}
	}
	if words := strings.Fields(text); len(words) > 1 {
		return Constraint{}, fmt.Errorf("%q: want a set in parentheses, such as app in (web,api)", text)
	}
	return Constraint{Key: text, Operator: OpExists}, nil
}

func readSet(text string) (Constraint, error) {
	head, set, _ := strings.Cut(text, "(")
	set, closed := strings.CutSuffix(set, ")")
	words := strings.Fields(head)
	if !closed || strings.ContainsAny(set, "()") || len(words) != 2 {
		return Constraint{}, fmt.Errorf("%q: want <key> in (<value>,...) or <key> notin (<value>,...)", text)
	}
	c := Constraint{Key: words[0]}
	switch words[1] {
	case "in":
		c.Operator = OpIn
	case "notin":
		c.Operator = OpNotIn
	default:
		return Constraint{}, fmt.Errorf("%q: %q is neither \"in\" nor \"notin\"", text, words[1])
	}
	for _, v := range strings.Split(set, ",") {
		c.Values = append(c.Values, strings.TrimSpace(v))
	}
	return c, nil
}
