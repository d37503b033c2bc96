package orchctl

import (
	"context"
	"fmt"
	"strings"

	"github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// keptShownMax is how many volumes the line of a deleted service names.
const keptShownMax = 3

// lostWith names volumes and their nodes: "data.db-0 on n2".
func lostWith(volumes []object) string {
	var lost []string
	for _, o := range volumes {
		if v, ok := o.value.(*api.Volume); ok {
			lost = append(lost, fmt.Sprintf("%s on %s", v.Metadata.Name, v.Spec.Node))
		}
	}
	return cleanText(strings.Join(lost, ", "))
}

// keeping tells which volumes outlive the services that are deleted.
type keeping struct {
	t     *tool
	going map[target]bool          // deleted by the same command
	known map[string][]*api.Volume // by namespace, each asked for once
}

func (t *tool) keeping(going []target) *keeping {
	k := &keeping{t: t, going: map[target]bool{}, known: map[string][]*api.Volume{}}
	for _, x := range going {
		k.going[x] = true
	}
	return k
}

// words ends the line of a service that is deleted; "" where nothing of it is kept, or
// nobody could tell: the delete has gone well either way.
func (k *keeping) words(ctx context.Context, client orchv1.OrchClient, r *orchv1.Ref) string {
	if r.GetKind() != api.KindService {
		return ""
	}
	space := r.GetNamespace()
	if _, asked := k.known[space]; !asked {
		k.known[space] = nil
		found, _, err := k.t.fetch(ctx, client, listing{}, []target{{api.KindVolume, space, ""}})
		if err != nil {
			return ""
		}
		for _, o := range found {
			if v, ok := o.value.(*api.Volume); ok && !v.Status.Removing && !k.going[target{api.KindVolume, space, v.Metadata.Name}] {
				k.known[space] = append(k.known[space], v)
			}
		}
	}
	var names []string
	for _, v := range k.known[space] {
		if v.Spec.Service != r.GetName() {
			continue
		}
		name := v.Metadata.Name
		if space != k.t.space() {
			name = space + "/" + name
		}
		names = append(names, name)
	}
	more, verb := "", "its volumes are kept"
	switch n := len(names); {
	case n == 0:
		return ""
	case n == 1:
		verb = "its volume is kept"
	case n > keptShownMax:
		names, more = names[:keptShownMax], fmt.Sprintf(" and %d more", n-keptShownMax)
	}
	return cleanText(fmt.Sprintf("; %s: %s%s (orchctl volume rm)", verb, strings.Join(names, ", "), more))
}
