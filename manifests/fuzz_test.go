package manifests

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"
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
		for _, s := range docs.Services() {
			objects = append(objects, s)
		}
		text, err := Marshal(objects...)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Load([]Source{{Name: "again", Data: text}})
		if err != nil {
			t.Fatalf("%v\nin:\n%s", err, text)
		}
		if !reflect.DeepEqual(again.Services(), docs.Services()) {
			t.Fatalf("came back different:\n%s", text)
		}
	})
}
