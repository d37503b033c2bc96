package main

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/manifests"
)

const root = "../.."

func readPage(t *testing.T) []byte {
	t.Helper()
	text, err := os.ReadFile(page(root))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func openBook(t *testing.T) *book {
	t.Helper()
	b, err := newBook(root)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestPageIsCurrent: what the page says of fields is what the api package says.
func TestPageIsCurrent(t *testing.T) {
	before := readPage(t)
	after, err := render(root, before)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(before, after) {
		t.Error("docs/manifest.md is not current: say go run ./manifests/reference")
	}
}

// TestEveryFieldIsThere: each type of a manifest has a table, and so, by the rules of
// table, each field a comment and an example. Those at the top are written by hand.
func TestEveryFieldIsThere(t *testing.T) {
	b := openBook(t)
	anchors := anchorsOf(strings.Split(string(readPage(t)), "\n"))
	for name := range b.types {
		byHand := name == "Service" || name == "Job" || name == "TypeMeta" || name == "Metadata"
		if _, ok := anchors[name]; ok == byHand {
			t.Errorf("api.%s: has a table: %t", name, ok)
		}
	}
	if len(b.types) < 30 {
		t.Errorf("only %d types are reached", len(b.types))
	}
	seen := map[string]string{}
	for name, link := range anchors {
		if other, twice := seen[link]; twice && name != "ServiceSpec" && name != "Template" {
			t.Errorf("%s and %s are both at %s", name, other, link)
		}
		seen[link] = name
	}
}

// TestExamplesAreValid: what the tables show is what manifests takes, as a file and, of
// some, alone; a probe that names a port needs the port.
func TestExamplesAreValid(t *testing.T) {
	sources, err := manifests.FromPaths([]string{filepath.Join(root, "manifests", "examples")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	docs, err := manifests.Load(sources)
	if err != nil || len(docs) < 35 {
		t.Fatalf("%d documents: %v", len(docs), err)
	}
	b := openBook(t)
	for _, x := range []struct{ in, typ, field, want string }{
		{"container", "Container", "securityContext", ""}, {"container", "Container", "mounts", ""}, {"container", "Container", "lifecycle", ""},
		{"container", "Container", "startupProbe", `no port of this container is named "proxy"`}, {"spec", "ServiceSpec", "rollout", ""}, {"spec", "Template", "nodeSelector", ""},
		{"job", "JobSpec", "completions", ""}, {"job", "JobSpec", "parallelism", ""}, {"job", "JobSpec", "backoffLimit", ""}, {"job", "JobSpec", "deadline", ""},
		{"job", "JobSpec", "ttlAfterFinished", ""}, {"container", "Container", "envFrom", ""}, {"container of a job", "Container", "stdin", ""}, {"container", "Container", "stdin", "is for the command of a job"},
		{"spec", "ServiceSpec", "mode", ""}, {"container", "Container", "stopSignal", ""}, {"spec", "Template", "terminationGracePeriod", ""},
	} {
		text := b.examples[x.typ][x.field].text
		if text == "" {
			t.Errorf("%s.%s has no short example", x.typ, x.field)
			continue
		}
		manifest := "apiVersion: orch/v1\nkind: Service\nmetadata: {name: x}\nspec:\n  containers:\n  - name: main\n    image: web\n"
		if strings.HasSuffix(x.in, "job") {
			manifest = strings.Replace(manifest, "kind: Service", "kind: Job", 1)
		}
		if strings.HasPrefix(x.in, "container") {
			manifest += "    " + text + "\n"
		} else {
			manifest += "  " + text + "\n"
		}
		_, err := manifests.Load([]manifests.Source{{Name: "x", Data: []byte(manifest)}})
		if (err != nil) != (x.want != "") || err != nil && !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: got %v, want %q", text, err, x.want)
		}
	}
}

// TestWhatIsMissing: a field that nobody explained or showed stops the writer.
func TestWhatIsMissing(t *testing.T) {
	b := openBook(t)
	for _, c := range []struct {
		spoil func()
		typ   string
		want  string
	}{
		{func() {}, "Manager", "Manager is no type of a manifest"},
		{func() { b.docs["Tmpfs"]["Size"] = "" }, "Tmpfs", "api.Tmpfs.Size has no comment"},
		{func() { delete(b.examples["Mount"], "bind") }, "Mount", "no file in manifests/examples has Mount.bind"},
	} {
		c.spoil()
		if _, err := b.table(c.typ); err == nil || err.Error() != c.want {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
	if _, err := render(root, []byte("# x\n<!-- fields: Mount -->\n## y\n")); err == nil || !strings.Contains(err.Error(), "docs/manifest.md:3") {
		t.Errorf("a table without an end: %v", err)
	}
}

func TestMeaning(t *testing.T) {
	b := openBook(t)
	type words struct{ meaning, left string }
	for doc, want := range map[string]words{
		"Path is text; empty means the Container's. More.":  {"Text. More.", "the Container's"},
		"Path tells. Nil means 10 s; 0 kills at once.":      {"`path` tells. 0 kills at once.", "10 s"},
		"Path tells, with HostNetwork and SeccompDefault.":  {"`path` tells, with `hostNetwork` and `default`.", "none"},
		"Empty means half | half.":                          {"", `half \| half`},
		"Path starts the line. Name begins any; not Mounts": {"`path` starts the line. Name begins any; not `mounts`", "none"},
	} {
		meaning, left := b.meaning(reflect.TypeFor[api.Mount](), field{goName: "Path", name: "path", typ: reflect.TypeFor[string]()}, doc)
		if got := (words{meaning, left}); got != want {
			t.Errorf("%s\ngot  %q\nwant %q", doc, got, want)
		}
	}
	for typ, want := range map[string]map[string]string{
		"Rollout": {"progressDeadline": "10m", "autoRollback": "true", "maxSurge": "25%"}, "Hook": {"timeout": "30s"}, "Resources": {"limits": "{pids: 2000}"},
	} {
		for name, text := range want {
			if got := b.filled[typ][name]; got != text {
				t.Errorf("default of %s.%s is %q, want %q", typ, name, got, text)
			}
		}
	}
}

// TestSchemaIsCurrent: so is the schema that editors get.
func TestSchemaIsCurrent(t *testing.T) {
	before, err := os.ReadFile(schemaFile(root))
	if err != nil {
		t.Fatal(err)
	}
	after, err := renderSchema(root)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(before, after) {
		t.Error("manifests/schema is not current: say go run ./manifests/reference")
	}
}

// TestRulesAreOfFields: a rule of a field that there is no more says nothing.
func TestRulesAreOfFields(t *testing.T) {
	b := openBook(t)
	for name := range rules {
		typ, fieldName, ok := strings.Cut(name, ".")
		if !ok && typ == "ResourceList" {
			continue
		}
		x, known := b.types[typ]
		if !known || !slices.ContainsFunc(fieldsOf(x), func(f field) bool { return f.name == fieldName }) {
			t.Errorf("a rule of %s, which is no field", name)
		}
	}
	for name := range wholes {
		if b.types[name] == nil {
			t.Errorf("a rule of %s, which is no type", name)
		}
	}
}

// TestReasonsAreCurrent: users find every reason that an event may give.
func TestReasonsAreCurrent(t *testing.T) {
	before, err := os.ReadFile(troubleshooting(root))
	if err != nil {
		t.Fatal(err)
	}
	after, err := renderReasons(string(before))
	if err != nil {
		t.Fatal(err)
	}
	if string(before) != after {
		t.Error("docs/troubleshooting.md is not current: say go run ./manifests/reference")
	}
}
