package manifests

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/orchctl/orch/api"
)

// FuzzLoad: any text either gives problems or documents that are defaulted,
// valid and equal to what their own text loads to.
func FuzzLoad(f *testing.F) {
	for _, pattern := range []string{"examples/*.yaml", "testdata/broken/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			f.Fatalf("no seeds in %s: %v", pattern, err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		docs, err := Load([]Source{{Name: "fuzz", Data: data}})
		var problems Problems
		if err != nil {
			if !errors.As(err, &problems) || len(problems) == 0 || docs != nil {
				t.Fatalf("%v with %d documents", err, len(docs))
			}
			return
		}
		var objects []any
		for _, o := range docs.Objects() {
			objects = append(objects, o)
		}
		text, err := Marshal(objects...)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Load([]Source{{Name: "again", Data: text}})
		if err != nil {
			t.Fatalf("%v\nin:\n%s", err, text)
		}
		if !reflect.DeepEqual(again.Objects(), docs.Objects()) {
			t.Fatalf("came back different:\n%s", text)
		}
	})
}

// FuzzText: any text in a string field comes back from its own YAML unchanged.
func FuzzText(f *testing.F) {
	for _, s := range []string{"", "yes", "1:30", "a: b", " x\n y\n", "\n\n", "#", "\tx", "a\r\nb", "\u2028", "\u0085", "\ufeff", "- a", "|", "'\"", "<<", "\x7f", "a \nb", "2001-01-01", "\U0001F600"} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, value, arg string) {
		if !utf8.ValidString(value) || !utf8.ValidString(arg) || strings.ContainsRune(value+arg, 0) || len(value+arg) > 1000 {
			return // cannot stand in an object
		}
		s := &api.Service{Metadata: api.Metadata{Name: "web", Annotations: map[string]string{"a": value}},
			Spec: api.ServiceSpec{Template: api.Template{Containers: []api.Container{{Name: "main", Image: "web", Args: []string{arg, value},
				Env: []api.EnvVar{{Name: "A", Value: value}}}}}}}
		s.Default()
		roundTrip(t, s)
		c := &api.Config{Metadata: api.Metadata{Name: "app"}, Data: map[string]string{"a": value, "b": arg}, BinaryData: map[string][]byte{"c": []byte(value)}}
		c.Default()
		roundTrip(t, c)
	})
}
