package schema_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"github.com/orchctl/orch/manifests/schema"
)

var update = flag.Bool("update", false, "rewrite testdata/only-orch.txt")

func compiled(t *testing.T) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(schema.JSON()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	if err := c.AddResource("manifest.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("manifest.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// documents reads a file's documents as an editor's YAML reader does: times are text.
func documents(text []byte) (out []any, err error) {
	for dec := yaml.NewDecoder(bytes.NewReader(text)); ; {
		var v any
		if err := dec.Decode(&v); errors.Is(err, io.EOF) {
			return out, nil
		} else if err != nil {
			return nil, err
		}
		if v != nil {
			out = append(out, plain(v))
		}
	}
}

func plain(v any) any {
	switch x := v.(type) {
	case map[string]any:
		for k := range x {
			x[k] = plain(x[k])
		}
	case map[any]any: // with keys that are no text
		out := map[string]any{}
		for k, e := range x {
			out[fmt.Sprint(k)] = plain(e)
		}
		return out
	case []any:
		for i := range x {
			x[i] = plain(x[i])
		}
	case time.Time:
		return x.Format(time.RFC3339)
	}
	return v
}

// TestExamples: all that is told to people as right is right to their editors.
func TestExamples(t *testing.T) {
	s := compiled(t)
	files, err := filepath.Glob("../examples/*.yaml")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d examples, %v", len(files), err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		docs, err := documents(text)
		if err != nil || len(docs) == 0 {
			t.Errorf("%s: %d documents, %v", file, len(docs), err)
		}
		for i, doc := range docs {
			if err := s.Validate(doc); err != nil {
				t.Errorf("%s, document %d: %v", file, i+1, err)
			}
		}
	}
}

// caughtAtLeast is which share of the broken manifests an editor is to find, in percent of
// those that are YAML and have a document.
const caughtAtLeast = 50

// TestBroken: what breaks the form is found; what only orch can refuse stands in a list,
// so that a rule that is lost shows.
func TestBroken(t *testing.T) {
	s := compiled(t)
	files, err := filepath.Glob("../testdata/broken/*.yaml")
	if err != nil || len(files) < 200 {
		t.Fatalf("%d broken manifests, %v", len(files), err)
	}
	var missed []string
	all := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		docs, err := documents(text)
		if err != nil || len(docs) == 0 {
			continue // the editor's YAML reader says so
		}
		all++
		caught := false
		for _, doc := range docs {
			caught = caught || s.Validate(doc) != nil
		}
		if !caught {
			missed = append(missed, strings.TrimSuffix(filepath.Base(file), ".yaml"))
		}
	}
	if found := 100 * (all - len(missed)) / all; found < caughtAtLeast {
		t.Errorf("%d%% of %d broken manifests are found, want %d%%", found, all, caughtAtLeast)
	}
	const list = "testdata/only-orch.txt"
	got := strings.Join(missed, "\n") + "\n"
	if *update {
		if err := os.WriteFile(list, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("only orch refuses (of %d):\n%s\nwant (-update rewrites it)\n%s", all, got, want)
	}
}

// TestWhatOrchPrints: what get -o yaml gives is edited too.
func TestWhatOrchPrints(t *testing.T) {
	s := compiled(t)
	const printed = `apiVersion: orch/v1
kind: Service
metadata: {name: web, namespace: default, uid: 5f3a, resourceVersion: 3, generation: 2, createdAt: "2026-11-01T12:00:00Z"}
spec:
  replicas: 2
  containers:
  - {name: main, image: "orch.local/web:1.0", resources: {limits: {memory: 64Mi, pids: 2000}}, ports: [{port: 8080, name: http}], readinessProbe: {http: {port: http, path: /}}}
status: {revision: 1, replicas: 2, ready: 2, updated: 2, updatedReady: 2}
`
	for text, good := range map[string]bool{
		printed: true,
		strings.Replace(printed, "uid: 5f3a, ", "", 1):              false,
		strings.Replace(printed, "replicas: 2", "replicas: two", 1): false,
		strings.Replace(printed, "port: 8080", "port: 80800", 1):    false,
		strings.Replace(printed, "kind: Service", "kind: Pod", 1):   false,
	} {
		docs, err := documents([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Validate(docs[0]); (err == nil) != good {
			t.Errorf("%s\n%v", text, err)
		}
	}
}
