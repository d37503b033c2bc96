package orchctl

import (
	"fmt"
	"slices"
	"strings"

	"github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// Kinds and the words for them.
var kindWords = []struct {
	kind, one, many string
	others          []string
}{
	{api.KindService, "service", "services", []string{"svc"}},
	{api.KindJob, "job", "jobs", nil},
	{api.KindReplica, "replica", "replicas", []string{"rep", "reps"}},
	{api.KindEndpoint, "endpoint", "endpoints", []string{"ep", "eps"}},
	{api.KindConfig, "config", "configs", []string{"cfg"}},
	{api.KindSecret, "secret", "secrets", nil},
	{api.KindVolume, "volume", "volumes", []string{"vol", "vols"}},
	{api.KindOutcome, "outcome", "outcomes", nil},
	{api.KindNode, "node", "nodes", []string{"no"}},
	{api.KindEvent, "event", "events", []string{"ev"}},
	{api.KindVerdict, "verdict", "verdicts", nil},
	{api.KindFleet, "fleet", "fleet", nil},
}

// foreign are words of other systems, and ours for them.
var foreign = map[string]string{"pod": "replica", "pods": "replica", "po": "replica", "container": "replica", "containers": "replica",
	"task": "replica", "tasks": "replica", "ps": "replica", "alloc": "replica", "allocs": "replica", "deployment": "service",
	"deployments": "service", "deploy": "service", "statefulset": "service", "daemonset": "service", "daemonsets": "service", "ds": "service", "configmap": "config", "configmaps": "config", "cm": "config",
	"pvc": "volume", "pv": "volume", "persistentvolumeclaim": "volume", "persistentvolumeclaims": "volume", "batch": "job", "endpointslice": "endpoint", "endpointslices": "endpoint", "server": "node", "servers": "node", "client": "node"}

// kindsList gives all kinds in words, with "and" or "or" before the last.
func kindsList(last string) string {
	var out []string
	for _, k := range kindWords {
		out = append(out, k.one)
	}
	n := len(out) - 1
	return strings.Join(out[:n], ", ") + " " + last + " " + out[n]
}

// parseKind reads a word for a kind.
func parseKind(word string) (string, error) {
	low := strings.ToLower(word)
	for _, k := range kindWords {
		if low == k.one || low == k.many || slices.Contains(k.others, low) {
			return k.kind, nil
		}
	}
	hint := ""
	if low == "all" {
		hint = allHint()
	} else if low == "revision" || low == "revisions" {
		hint = "; did you mean `orchctl history service/NAME`?"
	} else if ours, ok := foreign[low]; ok {
		hint = fmt.Sprintf("; did you mean %q?", ours)
	}
	return "", usagef("there is no kind %q%s (there are %s)", word, hint, kindsList("and"))
}

// word gives the kind's word: "service".
func word(kind string) string {
	for _, k := range kindWords {
		if k.kind == kind {
			return k.one
		}
	}
	return strings.ToLower(kind)
}

func words(kind string) string {
	for _, k := range kindWords {
		if k.kind == kind {
			return k.many
		}
	}
	return strings.ToLower(kind) + "s"
}

// target is what an argument names; an empty name means all of the kind.
type target struct{ kind, namespace, name string }

func (x target) ref() *orchv1.Ref {
	return &orchv1.Ref{Kind: x.kind, Namespace: x.namespace, Name: x.name}
}

func (x target) String() string { return word(x.kind) + "/" + x.name }

// parseTargets reads `service`, `service web api`, `service/web node/n1` and
// `services,nodes`.
func (t *tool) parseTargets(args []string) ([]target, error) {
	if len(args) == 0 {
		return nil, usagef("say what: %s, such as `orchctl get services`", kindsList("or"))
	}
	if kind, _, ok := strings.Cut(args[0], "/"); ok {
		if _, err := parseKind(kind); err != nil {
			return nil, err
		}
		return t.parseSlashed(args)
	}
	var kinds []string
	for _, w := range strings.Split(args[0], ",") {
		kind, err := parseKind(w)
		if err != nil {
			return nil, err
		}
		kinds = append(kinds, kind)
	}
	var out []target
	for _, kind := range kinds {
		if len(args) == 1 {
			out = append(out, t.target(kind, ""))
		}
		for _, name := range args[1:] {
			if head, _, ok := strings.Cut(name, "/"); ok {
				if _, err := parseKind(head); err == nil {
					return nil, usagef("%q names a kind again: write either `%s NAME...` or `%s/NAME ...`", name, word(kind), word(kind))
				}
			}
			out = append(out, t.target(kind, name))
		}
	}
	return out, nil
}

func (t *tool) parseSlashed(args []string) ([]target, error) {
	var out []target
	for i, a := range args {
		head, name, ok := strings.Cut(a, "/")
		if !ok || name == "" {
			like := ""
			if i > 0 {
				like = ", like the arguments before it"
			}
			return nil, usagef("%q: want TYPE/NAME, such as service/web%s", a, like)
		}
		kind, err := parseKind(head)
		if err != nil {
			return nil, err
		}
		out = append(out, t.target(kind, name))
	}
	return out, nil
}

// spaceless tells whether objects of a kind are in no namespace.
func spaceless(kind string) bool {
	return kind == api.KindNode || kind == api.KindVerdict || kind == api.KindFleet
}

// target completes a name: "shop/web" carries its namespace; nodes have none.
func (t *tool) target(kind, name string) target {
	x := target{kind: kind, name: name, namespace: t.space()}
	if spaceless(kind) {
		x.namespace = ""
		return x
	}
	if ns, rest, ok := strings.Cut(name, "/"); ok {
		x.namespace, x.name = ns, rest
	}
	return x
}
