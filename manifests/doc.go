// Package manifests turns YAML and JSON files into api objects, and objects
// into YAML.
//
// It owns the strictness of what users write: nothing is silently ignored,
// guessed or coerced, and every refusal names file, line, document and field,
// with a remedy. All or nothing: one problem in one document, and no object is
// given out; all problems are told at once. What a field may hold is the api
// package's business (Validate); this package only finds its line.
//
// Invariant: what Load gives out is defaulted and valid, and Marshal's text of
// it loads to an equal object.
//
//	files, folders, stdin ──FromPaths──► sources ──Load──► documents (defaulted, valid)
//	                                        │
//	       node tree (lines) ── check against the api types ── sigs.k8s.io/yaml ── Validate
//
// The node tree is read once. What passes the check is written out again with
// every string quoted and every alias replaced, and only that text is given to
// sigs.k8s.io/yaml: the two libraries speak different versions of YAML ("yes"
// is a string in one and true in the other), so they must never both interpret
// the user's text.
package manifests
