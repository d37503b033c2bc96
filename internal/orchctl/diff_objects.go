package orchctl

import (
	"cmp"
	"context"
	"regexp"

	udiff "github.com/aymanbagabas/go-udiff"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/manifests"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// diffOf compares an object, as the controller would store it, with what is live; ""
// where they are the same.
func (t *tool) diffOf(ctx context.Context, client orchv1.OrchClient, want object, plan []string, docs manifests.Docs) (string, error) {
	x := target{want.kind, want.namespace(), want.name()}
	found, missing, err := t.fetch(ctx, client, listing{}, []target{x})
	if err != nil {
		return "", err
	}
	var live object
	if missing == nil {
		live = found[0]
	}
	var before, after []byte
	if want.kind == api.KindSecret {
		before, after, err = secretSides(live, declaredSecret(docs, x), plan)
	} else {
		before, after, err = sides(live, want)
	}
	if err != nil {
		return "", err
	}
	name := want.name() + ".yaml"
	if want.kind != api.KindService {
		name = word(want.kind) + "/" + name
	}
	name = want.namespace() + "/" + name
	text := udiff.Unified("live/"+name, "applied/"+name, string(before), string(after))
	for _, line := range plan { // what else comes of it: new revisions of services
		if text != "" && keyPlan.FindString(line) == "" && (want.kind == api.KindConfig || want.kind == api.KindSecret) {
			text += "# " + cleanText(line) + "\n"
		}
	}
	return text, nil
}

// sides gives what is live, nothing where there is none, and what would be.
func sides(live, want object) (before, after []byte, err error) {
	if live.value != nil {
		if before, err = manifests.Marshal(manifestOf(live)); err != nil {
			return nil, nil, err
		}
	}
	after, err = manifests.Marshal(manifestOf(want))
	return before, after, err
}

// keyPlan is how the controller's plan tells of one key of a Config or Secret.
var keyPlan = regexp.MustCompile(`^key (\S+) (changes|is new|goes)\b`)

// declaredSecret gives the secret as the documents declare it, with its values.
func declaredSecret(docs manifests.Docs, x target) *api.Config {
	for _, d := range docs {
		if c, ok := d.Object.(*api.Config); ok && d.Kind() == x.kind && d.Key() == (api.Key{Namespace: x.namespace, Name: x.name}) {
			return c
		}
	}
	return &api.Config{}
}

// secretSides gives a secret without its values: of each its size, and that it changes.
func secretSides(live object, want *api.Config, plan []string) (before, after []byte, err error) {
	changes := map[string]bool{}
	for _, line := range plan {
		if m := keyPlan.FindStringSubmatch(line); m != nil {
			changes[m[1]] = m[2] == "changes"
		}
	}
	plain := func(c *api.Config, sizes map[string]int, mark string) ([]byte, error) {
		out := declaredConfig(c)
		out.Data, out.BinaryData = map[string]string{}, nil
		for key, size := range sizes {
			out.Data[key] = "(" + count(size, "byte") + ")"
			if changes[key] {
				out.Data[key] = "(" + count(size, "byte") + mark + ")"
			}
		}
		return manifests.Marshal(out)
	}
	if c, ok := live.value.(*api.Config); ok {
		if before, err = plain(c, c.Status.Keys, ""); err != nil {
			return nil, nil, err
		}
	}
	after, err = plain(want, sizesOf(want), ", another value")
	return before, after, err
}

// sizesOf gives the size of each value in bytes.
func sizesOf(c *api.Config) map[string]int {
	out := map[string]int{}
	for key, text := range c.Data {
		out[key] = len(text)
	}
	for key, value := range c.BinaryData {
		out[key] = len(value)
	}
	return out
}

// manifestOf gives an object as a manifest declares it, without what the controller keeps
// about it.
func manifestOf(o object) any {
	switch v := o.value.(type) {
	case *api.Service:
		return asDeclared(v)
	case *api.Job:
		return &api.Job{TypeMeta: typeMeta(api.KindJob), Metadata: declaredMeta(v.Metadata), Spec: v.Spec}
	case *api.Config:
		return declaredConfig(v)
	}
	return o.raw
}

func declaredConfig(c *api.Config) *api.Config {
	return &api.Config{TypeMeta: typeMeta(c.ObjectKind()), Metadata: declaredMeta(c.Metadata), Data: c.Data, BinaryData: c.BinaryData}
}

// asDeclared gives a service as a manifest declares it.
func asDeclared(s *api.Service) *api.Service {
	return &api.Service{TypeMeta: typeMeta(api.KindService), Metadata: declaredMeta(s.Metadata), Spec: s.Spec}
}

func typeMeta(kind string) api.TypeMeta { return api.TypeMeta{APIVersion: api.Version, Kind: kind} }

func declaredMeta(m api.Metadata) api.Metadata {
	return api.Metadata{Name: m.Name, Namespace: cmp.Or(m.Namespace, api.DefaultNamespace), Labels: m.Labels, Annotations: m.Annotations}
}
