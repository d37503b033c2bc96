package orchctl

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/orchctl/orch/api"
)

// changesMax is how many changes a summary names: it stands in a table.
const changesMax = 4

// changeWords says in a few words what a revision has that the one before it had not:
// "image 1.0 -> 2.0, env LOG". Containers are named where there is more than one.
func changeWords(old, now *api.Revision) string {
	words := append(templateChanges(old.Template, now.Template), pinChanges(old.Configs, now.Configs)...)
	if len(words) == 0 {
		words = movedTags(old, now)
	}
	if len(words) == 0 {
		return "same template"
	}
	if n := len(words); n > changesMax {
		words = append(words[:changesMax-1:changesMax-1], fmt.Sprintf("%d more", n-changesMax+1))
	}
	return strings.Join(words, ", ")
}

// pinChanges names the Configs and Secrets of which both take values, but in other
// versions; of others the template tells.
func pinChanges(old, now map[api.ConfigRef]int64) []string {
	var words []string
	for _, ref := range slices.Sorted(maps.Keys(now)) {
		if was, ok := old[ref]; ok && was != now[ref] {
			words = append(words, fmt.Sprintf("%s %d -> %d", ref, was, now[ref]))
		}
	}
	return words
}

func templateChanges(old, now api.Template) []string {
	var words []string
	several := len(old.AllContainers()) > 1 || len(now.AllContainers()) > 1
	for _, group := range []struct {
		kind     string
		old, now []api.Container
	}{{"container", old.Containers, now.Containers}, {"init container", old.InitContainers, now.InitContainers}, {"sidecar", old.Sidecars, now.Sidecars}} {
		words = append(words, groupChanges(group.kind, group.old, group.now, several)...)
	}
	a, b := fields(old), fields(now)
	for _, x := range []map[string]json.RawMessage{a, b} {
		for _, told := range []string{"containers", "initContainers", "sidecars"} {
			delete(x, told)
		}
	}
	return append(words, fieldChanges(a, b)...)
}

// groupChanges compares containers of one kind by their names.
func groupChanges(kind string, old, now []api.Container, several bool) []string {
	var words []string
	find := func(list []api.Container, name string) *api.Container {
		if i := slices.IndexFunc(list, func(c api.Container) bool { return c.Name == name }); i >= 0 {
			return &list[i]
		}
		return nil
	}
	var both []string
	for _, c := range now {
		before := find(old, c.Name)
		if before == nil {
			words = append(words, fmt.Sprintf("%s %s is new", kind, c.Name))
			continue
		}
		both = append(both, c.Name)
		for _, w := range containerChanges(*before, c) {
			if several {
				w = c.Name + ": " + w
			}
			words = append(words, w)
		}
	}
	var before []string
	for _, c := range old {
		if find(now, c.Name) == nil {
			words = append(words, fmt.Sprintf("%s %s is gone", kind, c.Name))
		} else {
			before = append(before, c.Name)
		}
	}
	if !slices.Equal(both, before) {
		words = append(words, "order of "+kind+"s")
	}
	return words
}

func containerChanges(old, now api.Container) []string {
	var words []string
	if old.Image != now.Image {
		words = append(words, imageChange(old.Image, now.Image))
	}
	if names := envChanges(old.Env, now.Env); len(names) > 0 {
		words = append(words, "env "+strings.Join(names, " "))
	}
	a, b := fields(old), fields(now)
	for _, told := range []string{"image", "env"} {
		delete(a, told)
		delete(b, told)
	}
	return append(words, fieldChanges(a, b)...)
}

// imageChange leaves out the repository where only the tag differs.
func imageChange(old, now string) string {
	repo, tag := cutTag(old)
	if repoNow, tagNow := cutTag(now); repo == repoNow && tag != "" && tagNow != "" {
		return fmt.Sprintf("image %s -> %s", tag, tagNow)
	}
	return fmt.Sprintf("image %s -> %s", shortDigest(old), shortDigest(now))
}

// cutTag cuts a reference before its tag, which may be a digest.
func cutTag(ref string) (repo, tag string) {
	if repo, digest, ok := strings.Cut(ref, "@"); ok {
		return repo, shortDigest(digest)
	}
	if i := strings.LastIndexByte(ref, ':'); i > strings.LastIndexByte(ref, '/') {
		return ref[:i], ref[i+1:]
	}
	return ref, ""
}

// digestShown is how many characters of a digest tell it from others.
const digestShown = 12

func shortDigest(s string) string {
	if head, hex, ok := strings.Cut(s, "sha256:"); ok && len(hex) > digestShown {
		return head + "sha256:" + hex[:digestShown]
	}
	return s
}

// envChanges names the variables that came, went or changed.
func envChanges(old, now []api.EnvVar) []string {
	a, b := map[string]string{}, map[string]string{}
	for m, list := range map[*map[string]string][]api.EnvVar{&a: old, &b: now} {
		for _, v := range list {
			text, _ := json.Marshal(v) // it came as JSON
			(*m)[v.Name] = string(text)
		}
	}
	var out []string
	all := maps.Clone(a)
	maps.Copy(all, b)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if a[name] != b[name] {
			out = append(out, name)
		}
	}
	return out
}

// fields gives a value's JSON by field; what newer types have is among them.
func fields(v any) map[string]json.RawMessage {
	text, _ := json.Marshal(v)
	out := map[string]json.RawMessage{}
	_ = json.Unmarshal(text, &out) // both are structs that came as JSON
	return out
}

func fieldChanges(a, b map[string]json.RawMessage) []string {
	all := maps.Clone(a)
	maps.Copy(all, b)
	var out []string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if string(a[name]) != string(b[name]) {
			out = append(out, name)
		}
	}
	return out
}

// movedTags names references that mean another image than they did.
func movedTags(old, now *api.Revision) []string {
	var out []string
	for _, ref := range slices.Sorted(maps.Keys(now.Images)) {
		if was := old.Images[ref]; was != "" && was != now.Images[ref] {
			out = append(out, fmt.Sprintf("%s means %s now", ref, shortDigest(now.Images[ref])))
		}
	}
	return out
}
