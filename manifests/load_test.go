package manifests

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
)

var update = flag.Bool("update", false, "write the outputs in testdata anew")

// brokenMin is how many there are, about, so that the table does not shrink.
const brokenMin = 230

// TestBroken loads each broken manifest and compares every message.
func TestBroken(t *testing.T) {
	files, err := filepath.Glob("testdata/broken/*.yaml")
	if err != nil || len(files) < brokenMin {
		t.Fatalf("%d broken manifests (%v): want at least %d", len(files), err, brokenMin)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			docs, err := Load([]Source{{Name: filepath.Base(file), Data: data}})
			var problems Problems
			if !errors.As(err, &problems) || docs != nil {
				t.Fatalf("loaded: %v, %v", docs, err)
			}
			golden(t, strings.TrimSuffix(file, ".yaml")+".txt", []byte(problems.Error()+"\n"))
		})
	}
}

func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("got:\n%swant (%s):\n%s", got, file, want)
	}
}

// TestExamples loads every example, alone and all together, and back from its
// own text.
func TestExamples(t *testing.T) {
	sources, err := FromPaths([]string{"examples"}, nil)
	if err != nil || len(sources) < 25 {
		t.Fatalf("%d examples, %v", len(sources), err)
	}
	docs, err := Load(sources)
	if err != nil {
		t.Fatal(err)
	}
	if len(docs) < len(sources) {
		t.Errorf("%d documents in %d files", len(docs), len(sources))
	}
	for _, d := range docs {
		roundTrip(t, d.Object)
	}
}

func roundTrip(t *testing.T, want api.Object) {
	t.Helper()
	text, err := Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	docs, err := Load([]Source{{Name: "again", Data: text}})
	if err != nil {
		t.Fatalf("%v\nin:\n%s", err, text)
	}
	if len(docs) != 1 || !reflect.DeepEqual(docs[0].Object, want) {
		again, _ := Marshal(docs[0].Object)
		t.Fatalf("came back different:\n%s\nfrom:\n%s", again, text)
	}
}

// TestWeb pins what the first example means, default values and all.
func TestWeb(t *testing.T) {
	docs := load(t, "", "examples/web.yaml")
	text, err := Marshal(docs.Services()[0])
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/web.defaulted.txt", text)
}

// TestExclusive pins what exclusive fills in.
func TestExclusive(t *testing.T) {
	docs := load(t, "", "examples/exclusive.yaml")
	text, err := Marshal(docs.Services()[0], docs.Services()[1])
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/exclusive.defaulted.txt", text)
}

func load(t *testing.T, namespace string, paths ...string) Docs {
	t.Helper()
	sources, err := FromPaths(paths, nil)
	if err != nil {
		t.Fatal(err)
	}
	docs, err := Load(sources, InNamespace(namespace))
	if err != nil {
		t.Fatal(err)
	}
	return docs
}

const small = `apiVersion: orch/v1
kind: Service
metadata: {name: web}
spec:
  containers:
  - {name: main, image: "web:1"}
`

func TestNamespace(t *testing.T) {
	docs, err := Load([]Source{{"a", []byte(small)}}, InNamespace("shop"))
	if err != nil || docs[0].Key() != (api.Key{Namespace: "shop", Name: "web"}) {
		t.Errorf("got %v, %v", docs, err)
	}
	named := strings.Replace(small, "{name: web}", "{name: web, namespace: prod}", 1)
	_, err = Load([]Source{{"a", []byte(named)}}, InNamespace("shop"))
	want := `a:3:34: document 1: metadata.namespace: is "prod", but namespace "shop" was asked for: change one of them`
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if _, err := Load([]Source{{"a", []byte(small)}}, InNamespace("No")); err == nil {
		t.Error("a bad namespace was taken")
	}
}

// TestScalars: what stands in the file is what comes out, whatever YAML 1.1 made of it.
func TestScalars(t *testing.T) {
	for _, text := range []string{`yes`, `"no"`, `on`, `y`, `1:30`, `"1:30"`, `2001-01-02`, `'0644'`, `"1e3"`, `"null"`, `"~"`, `"<<"`, `=`, `"\t\x01é 世 \U0001F600"`, `" "`, `""`} {
		manifest := strings.Replace(small, `image: "web:1"}`, `image: "web:1", env: [{name: A, value: `+text+`}]}`, 1)
		docs, err := Load([]Source{{"a", []byte(manifest)}})
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		want := strings.Trim(text, `'"`)
		if strings.Contains(text, `\t`) {
			want = "\t\x01é 世 \U0001F600"
		}
		if got := docs.Services()[0].Spec.Containers[0].Env[0].Value; got != want {
			t.Errorf("%s became %q, want %q", text, got, want)
		}
		roundTrip(t, docs.Services()[0])
	}
}

// TestQuantityLiteral: a quantity never passes through a float.
func TestQuantityLiteral(t *testing.T) {
	manifest := strings.Replace(small, `image: "web:1"}`, `image: "web:1", resources: {limits: {cpu: 0.10, memory: 1073741824}}}`, 1)
	docs, err := Load([]Source{{"a", []byte(manifest)}})
	if err != nil {
		t.Fatal(err)
	}
	limits := docs.Services()[0].Spec.Containers[0].Resources.Limits
	if limits["cpu"] != 100 || limits["memory"] != api.Whole(1<<30) {
		t.Errorf("got %v", limits)
	}
}

// TestFromGet: a document that `get -o yaml` printed may be applied again; it
// carries the object's identity and nothing else of what orch wrote.
func TestFromGet(t *testing.T) {
	s := load(t, "", "examples/web.yaml").Services()[0]
	s.Metadata.UID, s.Metadata.ResourceVersion = "u1", 42
	want := *s
	s.Metadata.Generation, s.Metadata.CreatedAt = 3, time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	s.Status = api.ServiceStatus{Revision: 3, Replicas: 3, Ready: 2, Reasons: []string{"web-1: no node"}}
	text, err := Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	docs, err := Load([]Source{{"got.yaml", text}})
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if !reflect.DeepEqual(docs.Services()[0], &want) {
		t.Errorf("got %+v\nwant %+v", docs.Services()[0], &want)
	}
}

// TestJSON: tabs between JSON's tokens are no fault.
func TestJSON(t *testing.T) {
	text := "{\n\t\"apiVersion\": \"orch/v1\",\n\t\"kind\": \"Service\",\n\t\"metadata\": {\"name\": \"web\"},\n\t\"spec\": {\"containers\": [{\"name\": \"main\",\t\"image\": \"web:1\"}]}\n}\n"
	docs, err := Load([]Source{{"a.json", []byte(text)}})
	if err != nil || docs.Services()[0].Spec.Containers[0].Image != "web:1" {
		t.Errorf("got %v, %v", docs, err)
	}
}

// TestEmptyDocuments: separators without content, a byte order mark and
// Windows' line ends are no fault, and documents keep their numbers.
func TestEmptyDocuments(t *testing.T) {
	text := "\ufeff---\n---\n# nothing\n---\n" + small + "---\n---\n" + strings.Replace(small, "web}", "api}", 1) + "...\n"
	docs, err := Load([]Source{{"a", []byte(strings.ReplaceAll(text, "\n", "\r\n"))}})
	if err != nil || len(docs) != 2 || docs[0].Key().Name != "web" || docs[1].Key().Name != "api" {
		t.Fatalf("got %v, %v", docs, err)
	}
	if docs[0].Index != 3 || docs[0].Line != 5 || docs[1].Index != 5 || docs[1].Line != 13 {
		t.Errorf("got document %d on line %d and %d on %d", docs[0].Index, docs[0].Line, docs[1].Index, docs[1].Line)
	}
}

// TestMarshalNode: objects that no manifest holds are written too, in the order
// of their types.
func TestMarshalNode(t *testing.T) {
	node := api.Node{TypeMeta: api.TypeMeta{APIVersion: api.Version, Kind: api.KindNode}, Metadata: api.Metadata{Name: "n1"},
		Status: api.NodeStatus{Verdict: api.VerdictHealthy, VerdictSince: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Capacity: api.ResourceList{"cpu": 1500}, Orphans: []string{"yes", "1", "a: b"}}}
	got, err := Marshal(node, node.Status.Capacity)
	want := `apiVersion: orch/v1
kind: Node
metadata:
  name: n1
status:
  verdict: Healthy
  verdictSince: "2026-01-02T03:04:05Z"
  capacity:
    cpu: 1500m
  replicas: 0
  orphans:
  - "yes"
  - "1"
  - 'a: b'
---
cpu: 1500m
`
	if err != nil || string(got) != want {
		t.Errorf("got %v\n%s\nwant\n%s", err, got, want)
	}
}

func TestMerge(t *testing.T) {
	text := `apiVersion: orch/v1
kind: Service
metadata: {name: web}
spec:
  containers:
  - &base {name: one, image: "web:1", workingDir: /srv}
  - <<: *base
    name: two
`
	docs, err := Load([]Source{{"a", []byte(text)}})
	if err != nil {
		t.Fatal(err)
	}
	two := docs.Services()[0].Spec.Containers[1]
	if two.Name != "two" || two.Image != "web:1" || two.WorkingDir != "/srv" {
		t.Errorf("got %+v", two)
	}
}

// TestAllOrNothing: problems of all sources come together, by file and line,
// and the good document is not given out.
func TestAllOrNothing(t *testing.T) {
	bad := strings.Replace(small, "image", "imgae", 1)
	docs, err := Load([]Source{
		{"a.yaml", []byte(small + "---\n" + small + "---\n" + strings.Replace(bad, "name: web", "name: Web", 1))},
		{"z.yaml", []byte(bad)},
		{"b.yaml", []byte("a: [")},
	})
	want := `a.yaml:10:18: document 2: metadata.name: Service default/web is declared in a.yaml:1 (document 1) already: remove one of them
a.yaml:17:18: document 3: metadata.name: "Web" is not a name: use lower case letters, digits and "-", with a letter or digit at both ends
a.yaml:20:18: document 3: spec.containers[0].imgae: unknown field "imgae"; did you mean "image"?
b.yaml:1: document 1: is not YAML: did not find expected node content
z.yaml:3:18: document 1: metadata.name: Service default/web is declared in a.yaml:1 (document 1) already: remove one of them
z.yaml:6:18: document 1: spec.containers[0].imgae: unknown field "imgae"; did you mean "image"?`
	if docs != nil || err == nil || err.Error() != want {
		t.Errorf("got %v\n%v\nwant\n%s", docs, err, want)
	}
}

// TestHostile: what no user writes is refused at small cost.
func TestHostile(t *testing.T) {
	var laughs strings.Builder
	laughs.WriteString("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n")
	for i := 1; i < 30; i++ {
		at, before := string(rune('a'+i%26))+"x"+string(rune('0'+i/26)), "a0"
		if i > 1 {
			before = string(rune('a'+(i-1)%26)) + "x" + string(rune('0'+(i-1)/26))
		}
		laughs.WriteString(at + ": &" + at + " [" + strings.Repeat("*"+before+", ", 9) + "*" + before + "]\n")
	}
	head := "apiVersion: orch/v1\nkind: Service\nmetadata: {name: web}\n"
	many := head + "x: &e [" + strings.Repeat("{name: A, value: a}, ", 5000) + "]\ny: &c {name: a, image: b, env: *e}\nspec: {containers: [" + strings.Repeat("*c, ", 5000) + "]}\n"
	cases := map[string]struct{ text, want string }{
		"billion laughs": {head + laughs.String() + "spec: {containers: *dx1}\n", "want a mapping"},
		"many aliases":   {many, "once its aliases are followed"},
		"own alias":      {head + "spec: &s {containers: [*s]}\n", "unknown field"},
		"own merge":      {head + "spec: &s\n  <<: *s\n  containers: []\n", "more than 16 deep"},
		"deep":           {strings.Repeat("[", 20000), "is not YAML"},
		"large":          {strings.Repeat("#", MaxSourceBytes+1), "larger than 4 MiB"},
		"many problems":  {head + "spec: {containers: [" + strings.Repeat("1,", 60) + "]}", "too many problems"},
		"utf-16":         {"\xff\xfea\x00", "not UTF-8"},
		"latin1":         {head + "# caf\xe9\n", "a:4: is not UTF-8"},
		"nul":            {"a: \x00", "is not YAML"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			docs, err := Load([]Source{{"a", []byte(c.text)}})
			if docs != nil || err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, %v; want %q", docs, err, c.want)
			}
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("took %s", took)
			}
		})
	}
}

func TestFromPaths(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"b.yaml", "a.yml", "c.json", "notes.txt"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "sub.yaml"), 0o700); err != nil {
		t.Fatal(err)
	}
	sources, err := FromPaths([]string{dir, "-"}, strings.NewReader("in"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range sources {
		got = append(got, strings.TrimPrefix(s.Name, dir+"/")+"="+string(s.Data))
	}
	if want := []string{"a.yml=a.yml", "b.yaml=b.yaml", "c.json=c.json", "<stdin>=in"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	_, err = FromPaths([]string{filepath.Join(dir, "none"), filepath.Join(dir, "sub.yaml"), "-", "-"}, strings.NewReader(""))
	want := dir + "/none: cannot be read: no such file or directory\n" +
		dir + "/sub.yaml: this folder has no *.yaml, *.yml or *.json (sub-folders are not searched)\n" +
		"<stdin>: is named twice: standard input can be read only once"
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	if _, err := FromPaths(nil, nil); err == nil {
		t.Error("no path was taken")
	}
}
