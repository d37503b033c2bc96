package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/manifests"
)

// object is a JSON object of the schema; encoding/json sorts its keys.
type object map[string]any

func schemaFile(root string) string {
	return filepath.Join(root, "manifests", "schema", "manifest.schema.json")
}

// renderSchema gives the JSON Schema of all kinds of documents.
func renderSchema(root string) ([]byte, error) {
	b, err := newBook(root)
	if err != nil {
		return nil, err
	}
	defs := object{}
	for _, name := range slices.Sorted(maps.Keys(b.types)) {
		if t := b.types[name]; documentIs(t) || t == reflect.TypeFor[api.TypeMeta]() || t == reflect.TypeFor[api.Template]() || t == reflect.TypeFor[api.ConfigStatus]() {
			continue // a document has a definition for each kind; what is embedded stands in its place
		}
		def, err := b.definition(b.types[name])
		if err != nil {
			return nil, err
		}
		defs[name] = def
	}
	var kinds []any
	for _, doc := range documents {
		for _, kind := range doc.kinds {
			def, err := b.document(doc.typ, kind)
			if err != nil {
				return nil, err
			}
			defs[kind] = def
			kinds = append(kinds, object{"$ref": "#/$defs/" + kind})
		}
	}
	text, err := json.MarshalIndent(object{
		"$schema":     "https://json-schema.org/draft/2020-12/schema",
		"title":       "orch manifest",
		"description": "A document of a manifest for orchctl apply: a Service, a Job, a Config or a Secret.",
		"type":        "object",
		"required":    []string{"apiVersion", "kind", "metadata"},
		"oneOf":       kinds,
		"$defs":       defs,
	}, "", "  ")
	return append(text, '\n'), err
}

func documentIs(t reflect.Type) bool {
	return slices.ContainsFunc(documents, func(d struct {
		typ   reflect.Type
		kinds []string
	}) bool {
		return d.typ == t
	})
}

// document is the definition of one kind: its type's fields, with what holds for that
// kind alone.
func (b *book) document(t reflect.Type, kind string) (object, error) {
	def, err := b.definition(t)
	if err != nil {
		return nil, err
	}
	properties := def["properties"].(object)
	properties["apiVersion"] = object{"const": api.Version, "description": "The version of the manifest's form."}
	properties["kind"] = object{"const": kind, "description": "What is declared."}
	name := map[string]int{api.KindService: api.MaxServiceName, api.KindJob: api.MaxServiceName, api.KindConfig: api.MaxConfigName, api.KindSecret: api.MaxConfigName}[kind]
	properties["metadata"] = object{"allOf": []any{object{"$ref": "#/$defs/Metadata"}, object{"properties": object{"name": object{"maxLength": name}}}},
		"description": "Its name, and what it is labelled with."}
	required := []string{"apiVersion", "kind", "metadata"}
	switch kind {
	case api.KindConfig:
		delete(properties, "type")
	case api.KindService, api.KindJob:
		required = append(required, "spec")
	}
	if kind == api.KindJob {
		properties["spec"] = object{"allOf": []any{object{"$ref": "#/$defs/JobSpec"}, object{"properties": object{
			"containers": object{"items": without(jobHasNo)}, "sidecars": object{"items": without(jobHasNo)}}}}, "description": "What is to be run to its end."}
	}
	def["required"] = required
	// What orch says of an object is taken back only with the object's uid, as get printed it.
	properties["status"] = object{"type": "object", "description": "What orch says of it, as orchctl get -o yaml prints it: not read."}
	def["if"] = object{"required": []string{"status"}}
	def["then"] = object{"properties": object{"metadata": object{"required": []string{"uid"}}}}
	return def, nil
}

// jobHasNo are fields of containers that only services have, initHasNo those of containers
// that go on running.
var (
	jobHasNo  = []string{"readinessProbe", "livenessProbe", "startupProbe", "ports"}
	initHasNo = append([]string{"lifecycle"}, jobHasNo...)
)

func without(fields []string) object {
	properties := object{}
	for _, f := range fields {
		properties[f] = false
		if f == "ports" {
			properties[f] = object{"maxItems": 0}
		}
	}
	return object{"properties": properties}
}

// definition is that of a struct: its own fields and those of what is embedded in it.
func (b *book) definition(t reflect.Type) (object, error) {
	properties, required := object{}, []string{}
	if err := b.properties(t, t, properties, &required); err != nil {
		return nil, err
	}
	def := object{"type": "object", "additionalProperties": false, "properties": properties}
	if len(required) > 0 {
		def["required"] = required
	}
	maps.Copy(def, wholes[t.Name()])
	return def, nil
}

func (b *book) properties(t, within reflect.Type, to object, required *[]string) error {
	for _, f := range fieldsOf(t) {
		if isStatus(f.typ) || !manifests.Supports(within, f.name) {
			continue
		}
		def, err := b.property(t, f)
		if err != nil {
			return err
		}
		to[f.name] = def
		if f.required {
			*required = append(*required, f.name)
		}
	}
	for i := range t.NumField() {
		if f := t.Field(i); f.Anonymous && f.Type != reflect.TypeFor[api.TypeMeta]() {
			if err := b.properties(f.Type, within, to, required); err != nil {
				return err
			}
		}
	}
	return nil
}

var links = regexp.MustCompile(`\[([^]]*)\]\([^)]*\)`)

// property is one field: its form, what validation asks of it, and what its comment says.
func (b *book) property(t reflect.Type, f field) (object, error) {
	def := b.form(f.typ)
	rule := rules[t.Name()+"."+f.name]
	if items, ok := rule["items"].(object); ok && def["items"] != nil { // of each item, beside its form
		rule = maps.Clone(rule)
		rule["items"] = object{"allOf": []any{def["items"], items}}
	}
	maps.Copy(def, rule)
	if doc := b.docs[t.Name()][f.goName]; doc != "" {
		meaning, left := b.meaning(t, f, doc)
		if left != "none" && left != "required" && left != "" {
			meaning = strings.TrimRight(meaning, " ") + " Left out: " + left + "."
		}
		meaning = strings.ReplaceAll(links.ReplaceAllString(meaning, "$1"), `\|`, "|")
		if ref, isRef := def["$ref"]; isRef {
			def = object{"$ref": ref}
		}
		def["description"] = strings.TrimSpace(strings.ReplaceAll(meaning, "..", "."))
	}
	if filled := b.filled[t.Name()][f.name]; filled != "" {
		value, err := yamlValue(filled)
		if err != nil {
			return nil, fmt.Errorf("default of %s.%s: %w", t.Name(), f.name, err)
		}
		def["default"] = value
	}
	if x := b.examples[t.Name()][f.name]; x.text != "" {
		value, err := yamlValue(x.text)
		if m, ok := value.(map[string]any); err == nil && ok && len(m) == 1 {
			def["examples"] = []any{m[f.name]}
		}
	}
	return def, nil
}

func yamlValue(text string) (any, error) {
	var v any
	err := yaml.Unmarshal([]byte(text), &v)
	return v, err
}

// form is a type as JSON Schema has it.
func (b *book) form(t reflect.Type) object {
	if t.Kind() == reflect.Pointer {
		return b.form(t.Elem())
	}
	switch t {
	case reflect.TypeFor[api.Duration]():
		return object{"type": "string", "pattern": durationPattern}
	case reflect.TypeFor[api.Quantity]():
		return object{"anyOf": []any{object{"type": "number", "minimum": 0}, object{"type": "string", "pattern": quantityPattern}}}
	case reflect.TypeFor[api.IntOrPercent]():
		return object{"anyOf": []any{object{"type": "integer", "minimum": 0}, object{"type": "string", "pattern": `^[0-9]+%$`}}}
	case reflect.TypeFor[api.PortRef]():
		return object{"anyOf": []any{portNumber, object{"type": "string", "minLength": 1}}}
	case reflect.TypeFor[[]byte]():
		return object{"type": "string", "pattern": `^[A-Za-z0-9+/\s]*={0,2}\s*$`, "contentEncoding": "base64"}
	}
	if values := b.values[t.Name()]; len(values) > 0 && t.Kind() == reflect.String {
		return object{"type": "string", "enum": values}
	}
	switch t.Kind() {
	case reflect.Slice:
		return object{"type": "array", "items": b.form(t.Elem())}
	case reflect.Map:
		def := object{"type": "object", "additionalProperties": b.form(t.Elem())}
		maps.Copy(def, rules[t.Name()])
		return def
	case reflect.Struct:
		if t.PkgPath() != reflect.TypeFor[api.Service]().PkgPath() { // a time
			return object{"type": "string"}
		}
		return object{"$ref": "#/$defs/" + t.Name()}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.String:
		return object{"type": "string"}
	}
	return object{"type": "integer"}
}
