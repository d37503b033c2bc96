package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/orchctl/orch/api"
)

// book is all that the tables are made of.
type book struct {
	// docs are the comments of fields by type and Go name, values the texts of the
	// constants by type and in order, consts those by Go name.
	docs   map[string]map[string]string
	values map[string][]string
	consts map[string]string
	// types are those that a manifest reaches, by Go name.
	types map[string]reflect.Type
	// words are the names of fields in manifests by their Go names.
	words map[string]string
	// filled are the defaults that Default writes, by type and manifest name.
	filled   map[string]map[string]string
	examples map[string]map[string]example
	anchors  map[string]string
}

func newBook(root string) (*book, error) {
	b := &book{docs: map[string]map[string]string{}, values: map[string][]string{}, consts: map[string]string{}, types: map[string]reflect.Type{},
		words: map[string]string{}, filled: map[string]map[string]string{}, examples: map[string]map[string]example{}}
	for _, doc := range documents {
		b.reach(doc.typ)
	}
	if err := b.parse(filepath.Join(root, "api")); err != nil {
		return nil, err
	}
	if err := b.fill(); err != nil {
		return nil, err
	}
	if err := b.gather(filepath.Join(root, "manifests", "examples")); err != nil {
		return nil, err
	}
	return b, nil
}

// documents are the types of a manifest's documents, with the kinds that are read into
// each. What a type has in common with those before it is told as it is there.
var documents = []struct {
	typ   reflect.Type
	kinds []string
}{
	{reflect.TypeFor[api.Service](), []string{api.KindService}},
	{reflect.TypeFor[api.Job](), []string{api.KindJob}},
	{reflect.TypeFor[api.Config](), []string{api.KindConfig, api.KindSecret}},
}

// documentOf gives the type of a kind's documents, nil if there is none.
func documentOf(kind string) reflect.Type {
	for _, doc := range documents {
		if slices.Contains(doc.kinds, kind) {
			return doc.typ
		}
	}
	return nil
}

// isStatus tells whether a type is what orch writes of an object: no part of a manifest.
func isStatus(t reflect.Type) bool {
	return t == reflect.TypeFor[api.ServiceStatus]() || t == reflect.TypeFor[api.JobStatus]() || t == reflect.TypeFor[api.ConfigStatus]()
}

// field is one of a struct's own, those of embedded structs apart.
type field struct {
	goName, name string
	typ          reflect.Type
	required     bool
}

func fieldsOf(t reflect.Type) []field {
	var list []field
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" || name == "-" {
			continue
		}
		list = append(list, field{f.Name, name, f.Type, !strings.Contains(options, "omit")})
	}
	return list
}

// isLeaf tells whether a struct is written as one value.
func isLeaf(t reflect.Type) bool {
	return t.Kind() != reflect.Struct || t == reflect.TypeFor[api.IntOrPercent]() || t.PkgPath() != reflect.TypeFor[api.Service]().PkgPath()
}

// reach gathers the struct types of a manifest; status is none of it.
func (b *book) reach(t reflect.Type) {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		b.reach(t.Elem())
		return
	}
	if isLeaf(t) || isStatus(t) {
		return
	}
	b.types[t.Name()] = t
	for _, f := range fieldsOf(t) {
		b.words[f.goName] = f.name
	}
	for i := range t.NumField() {
		b.reach(t.Field(i).Type)
	}
}

// parse reads the comments and constants of the api package.
func (b *book) parse(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(files) == 0 {
		return fmt.Errorf("find the api package in %s: %w", dir, fs.ErrNotExist)
	}
	set := token.NewFileSet()
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		tree, err := parser.ParseFile(set, file, nil, parser.ParseComments)
		if err != nil {
			return fmt.Errorf("parse %s: %w", file, err)
		}
		for _, decl := range tree.Decls {
			if g, ok := decl.(*ast.GenDecl); ok {
				for _, spec := range g.Specs {
					b.spec(spec)
				}
			}
		}
	}
	return nil
}

func (b *book) spec(spec ast.Spec) {
	switch x := spec.(type) {
	case *ast.TypeSpec:
		if s, ok := x.Type.(*ast.StructType); ok {
			docs := map[string]string{}
			for _, f := range s.Fields.List {
				for _, name := range f.Names {
					docs[name.Name] = strings.Join(strings.Fields(f.Doc.Text()), " ")
				}
			}
			b.docs[x.Name.Name] = docs
		}
	case *ast.ValueSpec:
		for i, name := range x.Names {
			if i >= len(x.Values) {
				continue
			}
			lit, ok := x.Values[i].(*ast.BasicLit)
			if !ok || lit.Kind != token.STRING {
				continue
			}
			text, err := strconv.Unquote(lit.Value)
			if err != nil {
				continue
			}
			b.consts[name.Name] = text
			if typ, ok := x.Type.(*ast.Ident); ok {
				b.values[typ.Name] = append(b.values[typ.Name], text)
			}
		}
	}
}
