package main

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"

	"github.com/orchctl/orch/api"
)

// fill runs Default over documents that have one of everything and nothing in it, and
// keeps what has come in: the defaults as they are, not as somebody wrote them down.
func (b *book) fill() error {
	for _, doc := range documents {
		o := reflect.New(doc.typ)
		grow(o.Elem())
		o.Interface().(api.Object).Default()
		if err := b.filledIn(o.Elem()); err != nil {
			return err
		}
	}
	return nil
}

// grow makes each struct, and one element of each list and map of structs.
func grow(v reflect.Value) {
	switch t := v.Type(); t.Kind() {
	case reflect.Pointer:
		if !isLeaf(t.Elem()) {
			v.Set(reflect.New(t.Elem()))
			grow(v.Elem())
		}
	case reflect.Slice:
		if !isLeaf(t.Elem()) {
			v.Set(reflect.MakeSlice(t, 1, 1))
			grow(v.Index(0))
		}
	case reflect.Struct:
		if isLeaf(t) || isStatus(t) {
			return
		}
		for i := range t.NumField() {
			grow(v.Field(i))
		}
	}
}

// filledIn notes what is not zero; the first place of a type counts.
func (b *book) filledIn(v reflect.Value) error {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			return b.filledIn(v.Elem())
		}
	case reflect.Slice:
		if v.Len() > 0 {
			return b.filledIn(v.Index(0))
		}
	case reflect.Struct:
		return b.filledStruct(v)
	}
	return nil
}

func (b *book) filledStruct(v reflect.Value) error {
	t := v.Type()
	if isLeaf(t) {
		return nil
	}
	known := b.filled[t.Name()]
	if known == nil {
		known = map[string]string{}
		b.filled[t.Name()] = known
	}
	for _, f := range fieldsOf(t) {
		x := v.FieldByName(f.goName)
		if _, twice := known[f.name]; twice || x.IsZero() || !isLeaf(elem(f.typ)) {
			continue
		}
		text, err := json.Marshal(x.Interface())
		if err != nil {
			return fmt.Errorf("default of %s.%s: %w", t.Name(), f.name, err)
		}
		// As people write it: {pids: 2000}.
		known[f.name] = strings.NewReplacer(`"`, "", ":", ": ", ",", ", ").Replace(string(text))
	}
	for i := range t.NumField() {
		if err := b.filledIn(v.Field(i)); err != nil {
			return err
		}
	}
	return nil
}

// elem is what a pointer, list or map holds.
func elem(t reflect.Type) reflect.Type {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
		t = t.Elem()
	}
	return t
}
