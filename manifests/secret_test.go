package manifests

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
)

// value is what must not be told.
const value = "hunter2hunter2"

// FuzzSecret: whatever somebody writes as a Secret's value, no problem tells it; and
// what is taken comes back as it is.
func FuzzSecret(f *testing.F) {
	for _, s := range []string{"%s", `"%s"`, "1%s", "*%s", "&%s", "!%s", "!!int %s", "!!binary %s", "[%s]", "{%s: a}", "{a: %s}", "@%s", "`%s", "%%s", "| %s", "> %s", "- %s", "a: %s", "'%s", `"%s`,
		`"%s" x`, "<<: %s", "#%s", "? %s", `"\%s"`, "[%s", "{%s", "*%s x", "!<%s> x", "\t%s"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.ContainsAny(text, "\n\r\u0085\u2028\u2029") || strings.Contains(text, value) {
			return // another line is another field, whose name is told
		}
		text = strings.ReplaceAll(text, "%s", value)
		for _, field := range []string{"data:\n  password: ", "binaryData:\n  password: ", "data: "} {
			docs, err := Load([]Source{{"a", []byte("apiVersion: orch/v1\nkind: Secret\nmetadata: {name: db}\n" + field + text + "\n")}})
			if err != nil && strings.Contains(err.Error(), value) {
				t.Fatalf("%s%s: %v", field, text, err)
			}
			for _, o := range docs.Objects() {
				roundTrip(t, o)
			}
		}
	})
}

// TestFromGetAll: as TestFromGet, of the other kinds.
func TestFromGetAll(t *testing.T) {
	meta := api.Metadata{Name: "app", UID: "u1", ResourceVersion: 42, Generation: 3, CreatedAt: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)}
	job := load(t, "", "examples/job.yaml")[0].Object.(*api.Job)
	job.Metadata, job.Status = meta, api.JobStatus{State: api.JobComplete, Succeeded: 5, EndedAt: meta.CreatedAt, Reasons: []string{"x"}}
	status := api.ConfigStatus{Version: 2, Keys: map[string]int{"a": 1}, ChangedAt: meta.CreatedAt, ChangedBy: "me", Versions: []api.ConfigVersion{{Number: 2, Users: []string{"web@3"}}}}
	config := &api.Config{Metadata: meta, Data: map[string]string{"a": "b"}, BinaryData: map[string][]byte{"c": {0, 255}}, Status: status}
	secret := &api.Config{TypeMeta: api.TypeMeta{Kind: api.KindSecret}, Metadata: meta, Data: map[string]string{"a": "b"}, Status: status}
	for _, o := range []api.Object{job, config, secret} {
		o.Default()
		text, err := Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		docs, err := Load([]Source{{"got.yaml", text}})
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		got, want := docs.Objects()[0], *o.GetMetadata()
		want.Generation, want.CreatedAt = 0, time.Time{}
		if !reflect.DeepEqual(*got.GetMetadata(), want) || docs[0].Kind() != o.ObjectKind() {
			t.Errorf("%s: got %+v, want %+v", docs[0].Kind(), got.GetMetadata(), want)
		}
		if text, _ = Marshal(got); strings.Contains(string(text), "status") {
			t.Errorf("what orch wrote is left:\n%s", text)
		}
	}
	if len(docs(t, config).Services()) != 0 {
		t.Error("a Config is a service")
	}
	// A Secret as it is shown has no values: an apply would empty it.
	secret.Data = nil
	text, err := Marshal(secret)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Load([]Source{{"got.yaml", text}}); err == nil || !strings.Contains(err.Error(), "write all values anew") {
		t.Errorf("got %v", err)
	}
}

func docs(t *testing.T, objects ...any) Docs {
	t.Helper()
	text, err := Marshal(objects...)
	if err != nil {
		t.Fatal(err)
	}
	docs, err := Load([]Source{{"a", text}})
	if err != nil {
		t.Fatal(err)
	}
	return docs
}

// TestAllKinds: documents of all kinds stand in one file, in their order, and each in the
// namespace that is asked for.
func TestAllKinds(t *testing.T) {
	docs := load(t, "shop", "examples/job-config.yaml", "examples/web.yaml")
	var got []string
	for i, d := range docs {
		got = append(got, d.Kind()+" "+d.Key().String())
		if docs.Objects()[i] != d.Object {
			t.Errorf("object %d is another", i)
		}
	}
	if want := []string{"Config shop/reindex", "Secret shop/reindex", "Job shop/reindex", "Service shop/web"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if len(docs.Services()) != 1 {
		t.Errorf("%d services", len(docs.Services()))
	}
}

// TestValuesText: text comes as it stands, and bytes as their base64 says, over several
// lines too.
func TestValuesText(t *testing.T) {
	text := "apiVersion: orch/v1\nkind: Config\nmetadata: {name: app}\ndata:\n  a: |\n    x\n\n    y\n  b: yes\n  c: 2001-01-01\n  d: \"\"\n  e: \"\\0\"\nbinaryData:\n  f: |\n    AP8\n    C\n  g: \"\"\n  h: 1234\n"
	docs, err := Load([]Source{{"a", []byte(text)}})
	if err != nil {
		t.Fatal(err)
	}
	c := docs.Objects()[0].(*api.Config)
	if want := map[string]string{"a": "x\n\ny\n", "b": "yes", "c": "2001-01-01", "d": "", "e": "\x00"}; !reflect.DeepEqual(c.Data, want) {
		t.Errorf("got %q", c.Data)
	}
	if want := map[string][]byte{"f": {0, 255, 2}, "g": {}, "h": {0xd7, 0x6d, 0xf8}}; !reflect.DeepEqual(c.BinaryData, want) {
		t.Errorf("got %x", c.BinaryData)
	}
	roundTrip(t, c)
}
