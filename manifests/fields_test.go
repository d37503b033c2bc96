package manifests

import (
	"reflect"
	"testing"
)

// walkAll walks the types of all documents.
func walkAll(f func(path string, st reflect.Type)) {
	for _, kind := range keys(newObject) {
		walk(reflect.TypeOf(newObject[kind]()).Elem(), "", f)
	}
}

// TestEveryField: the reader knows the type of every field a manifest may have.
func TestEveryField(t *testing.T) {
	walkAll(func(path string, st reflect.Type) {
		for name, ft := range fieldsOf(st) {
			if ft.Kind() == reflect.Pointer {
				ft = ft.Elem()
			}
			_, isLeaf := leaves[ft]
			switch ft.Kind() {
			case reflect.Struct, reflect.Slice, reflect.Map, reflect.String, reflect.Int, reflect.Int64, reflect.Bool:
			default:
				if !isLeaf {
					t.Errorf("%s.%s: type %s", path, name, ft)
				}
			}
		}
	})
}

// TestLaterIsLater: what is called not yet supported cannot be written, even where
// the type has it, and what is called by another name does not exist; each in a type
// that a manifest reaches.
func TestLaterIsLater(t *testing.T) {
	reached := map[reflect.Type]bool{}
	walkAll(func(_ string, st reflect.Type) { reached[st] = true })
	for _, table := range []map[reflect.Type]map[string]string{laterFields, otherNames} {
		for st, names := range table {
			if !reached[st] {
				t.Errorf("%s is in no manifest", st)
			}
			for name := range names {
				if _, exists := fieldsOf(st)[name]; exists {
					t.Errorf("%s has %s: take it out of the table", st, name)
				}
			}
		}
	}
	for kind := range laterKinds {
		r := &reader{places: map[string]place{}}
		if r.kind(text(kind)) != "" || len(r.problems) != 1 {
			t.Errorf("kind %s: %v", kind, r.problems)
		}
	}
}

// TestLaterWins: a field that the type has but the tables call later is refused.
func TestLaterWins(t *testing.T) {
	type half struct {
		Built   string `json:"built"`
		Planned string `json:"planned"`
	}
	st := reflect.TypeFor[half]()
	laterFields[st] = map[string]string{"planned": ""}
	defer delete(laterFields, st)
	if _, ok := fieldsOf(st)["planned"]; ok || len(fieldsOf(st)) != 1 {
		t.Errorf("fields %v", fieldsOf(st))
	}
}

func TestNearest(t *testing.T) {
	known := []string{"args", "command", "env", "image", "name", "ports", "workingDir"}
	for name, want := range map[string]string{
		"imgae": "image", "Image": "image", "port": "ports", "workdir": "workingDir", "cmmand": "command",
		"names": "name", "volumes": "", "x": "", "": "",
	} {
		if got := nearest(name, known); got != want {
			t.Errorf("nearest(%q) = %q, want %q", name, got, want)
		}
	}
}
