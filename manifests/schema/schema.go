// Package schema has the JSON Schema (draft 2020-12) of manifests, for editors.
//
//	api types, their comments, examples ──► go run ./manifests/reference ──► manifest.schema.json ──► orchctl schema
//
// It owns the file; manifests/reference writes it. Invariant: whatever manifests reads and
// validates fits the schema. The contrary does not hold: what hangs on several fields, or
// on other documents, only orch itself can refuse.
package schema

import _ "embed"

//go:embed manifest.schema.json
var text []byte

// JSON gives the schema's text.
func JSON() []byte { return append([]byte(nil), text...) }
