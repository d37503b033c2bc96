package manifests

import (
	"reflect"
	"slices"
	"strings"
	"sync"
)

// fieldsOf gives a struct's fields by their names in manifests; embedded
// structs count as written in place. Fields that are not yet supported are no
// fields, though the type may have them already.
func fieldsOf(t reflect.Type) map[string]reflect.Type {
	if known, ok := fieldCache.Load(t); ok {
		return known.(map[string]reflect.Type)
	}
	fields := map[string]reflect.Type{}
	for f := range fieldsIn(t) {
		if _, later := laterFields[t][f.name]; !later {
			fields[f.name] = f.typ
		}
	}
	fieldCache.Store(t, fields)
	return fields
}

// Supports tells whether a field of an api type may stand in a manifest: some types have
// fields already that do nothing yet.
func Supports(t reflect.Type, field string) bool {
	_, ok := fieldsOf(t)[field]
	return ok
}

var fieldCache sync.Map // reflect.Type -> map[string]reflect.Type

type field struct {
	name string
	typ  reflect.Type
}

// fieldsIn yields the fields in the order of the type.
func fieldsIn(t reflect.Type) func(yield func(field) bool) {
	return func(yield func(field) bool) {
		for i := range t.NumField() {
			f := t.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if f.Anonymous && name == "" {
				for inner := range fieldsIn(f.Type) {
					if !yield(inner) {
						return
					}
				}
			} else if name != "" && name != "-" && !yield(field{name, f.Type}) {
				return
			}
		}
	}
}

// homesOf tells where in a document of type root a field of this name stands: "spec.rollout";
// "" if nowhere. Of several the outermost is meant: the service's replicas, not those of
// a canary's step.
func homesOf(root reflect.Type, name string) string {
	var homes []string
	walk(root, "", func(path string, t reflect.Type) {
		same := strings.HasPrefix(path, "spec.initContainers") || strings.HasPrefix(path, "spec.sidecars") // as spec.containers
		if _, ok := fieldsOf(t)[name]; ok && !same && path != "status" && !strings.HasPrefix(path, "status.") {
			homes = append(homes, path)
		}
	})
	if len(homes) == 0 || len(homes) > 3 {
		return "" // such as "name": no help
	}
	outermost := slices.MinFunc(homes, func(a, b string) int { return strings.Count(a, ".") - strings.Count(b, ".") })
	homes = slices.DeleteFunc(homes, func(h string) bool { return strings.Count(h, ".") > strings.Count(outermost, ".") })
	if i := slices.Index(homes, ""); i >= 0 {
		homes[i] = "the document's top level"
	}
	return strings.Join(homes, " or ")
}

// walk calls f for each struct type within t with its path.
func walk(t reflect.Type, path string, f func(path string, t reflect.Type)) {
	switch {
	case t.Kind() == reflect.Pointer:
		walk(t.Elem(), path, f)
	case leaves[t].typ != nil:
	case t.Kind() == reflect.Slice, t.Kind() == reflect.Map:
		walk(t.Elem(), path+"[]", f)
	case t.Kind() == reflect.Struct:
		f(path, t)
		for x := range fieldsIn(t) {
			if _, later := laterFields[t][x.name]; !later {
				walk(x.typ, join(path, x.name), f)
			}
		}
	}
}

// keys gives a map's keys sorted.
func keys[V any](m map[string]V) []string {
	list := make([]string, 0, len(m))
	for k := range m {
		list = append(list, k)
	}
	slices.Sort(list)
	return list
}

// nearest gives the known name that was most likely meant, "" if none is near.
func nearest(name string, known []string) string {
	const longestCompared = 64 // longer ones are no slip of the finger
	if len(name) > longestCompared {
		return ""
	}
	best, near := 2+len(name)/3, ""
	for _, k := range known {
		a, b := strings.ToLower(name), strings.ToLower(k)
		d := distance(a, b)
		if len(a) >= 4 && strings.HasPrefix(b, a) {
			d = min(d, 1) // cut short
		}
		// Half of the word must be right: "to" is not a slip for "cpu".
		if d < best && 2*d <= max(len(a), len(b)) {
			best, near = d, k
		}
	}
	return near
}

// distance counts the letters to add, drop, change or swap with a neighbour to
// get from a to b.
func distance(a, b string) int {
	prev2, prev, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(prev[j]+1, row[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], prev2[j-2]+1)
			}
		}
		prev2, prev, row = prev, row, prev2
	}
	return prev[len(b)]
}
