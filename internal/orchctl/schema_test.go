package orchctl

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSchema(t *testing.T) {
	in(t, newFake(), func(t *testing.T, r *rig) {
		got := r.run("schema")
		var doc struct {
			Schema string         `json:"$schema"`
			Defs   map[string]any `json:"$defs"`
		}
		if err := json.Unmarshal([]byte(got.out), &doc); err != nil || got.code != 0 || !strings.Contains(doc.Schema, "2020-12") || doc.Defs["Service"] == nil {
			t.Errorf("%v, code %d", err, got.code)
		}
		file := filepath.Join(t.TempDir(), "orch.schema.json")
		if got := r.run("schema", "-o", file); got.String() != "--- stderr\n--- exit 0\n" {
			t.Error(got)
		}
		if text, err := os.ReadFile(file); err != nil || string(text) != got.out {
			t.Errorf("the file differs: %v", err)
		}
		if got := r.run("schema", "-o", "/no/such/folder/x"); got.code != 1 || !strings.Contains(got.err, "write the schema to /no/such/folder/x: no such file or directory") {
			t.Error(got)
		}
		if len(r.calls) > 0 {
			t.Errorf("the controller was asked: %v", r.calls)
		}
	})
}
