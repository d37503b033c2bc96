package orchctl

import (
	"context"
	"fmt"
	"strings"

	"github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

func (t *tool) describeVolume(ctx context.Context, client orchv1.OrchClient, p *page, v *api.Volume) error {
	p.field(0, "In short", "%s", volumeInShort(v))
	p.metadata(v.Metadata)
	p.field(0, "Volume", "%s of service %s, slot %d", v.Spec.Volume, v.Spec.Service, v.Spec.Slot)
	node := v.Spec.Node
	if found, missing, err := t.fetch(ctx, client, listing{}, []target{{kind: api.KindNode, name: v.Spec.Node}}); err != nil {
		return err
	} else if missing != nil {
		node += ", which is no node of the fleet any more"
	} else if n, ok := found[0].value.(*api.Node); ok && nodeWord(n) != nodeReady {
		node += ", which is " + nodeWord(n)
	}
	p.field(0, "Node", "%s", node)
	status := volumeWord(v)
	if v.Status.Removing && v.Status.RemovedBy != "" {
		status += ", by " + v.Status.RemovedBy
	}
	p.field(0, "Status", "%s", status)
	p.list(0, "Used by", v.Status.UsedBy)
	return t.events(ctx, client, p, target{api.KindVolume, v.Metadata.Namespace, v.Metadata.Name}.ref())
}

// volumesOf gives the volumes of a service, or with a slot of 0 or more of that one.
func (t *tool) volumesOf(ctx context.Context, client orchv1.OrchClient, namespace, service string, slot int) ([]*api.Volume, error) {
	found, _, err := t.fetch(ctx, client, listing{}, []target{{api.KindVolume, namespace, ""}})
	if unknownKind(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []*api.Volume
	for _, o := range found {
		if v, ok := o.value.(*api.Volume); ok && v.Spec.Service == service && (slot < 0 || v.Spec.Slot == slot) {
			out = append(out, v)
		}
	}
	return out, nil
}

// serviceVolumes tells where a service's volumes are; nothing where it has none.
func (t *tool) serviceVolumes(ctx context.Context, client orchv1.OrchClient, p *page, s *api.Service) error {
	list, err := t.volumesOf(ctx, client, s.Metadata.Namespace, s.Metadata.Name, -1)
	if err != nil {
		return err
	}
	var rows [][]string
	for _, v := range list {
		rows = append(rows, []string{v.Metadata.Name, v.Spec.Node, volumeWord(v), orDash(strings.Join(v.Status.UsedBy, ", "))})
	}
	if len(rows) > 0 {
		p.table("Volumes", rows, "NAME", "NODE", "STATUS", "USED-BY")
	}
	return nil
}

// slotVolumes tells where the volumes of a replica's slot are.
func (t *tool) slotVolumes(ctx context.Context, client orchv1.OrchClient, p *page, r *api.Replica) error {
	list, err := t.volumesOf(ctx, client, r.Metadata.Namespace, r.Spec.Service, r.Spec.Slot)
	if err != nil {
		return err
	}
	var lines []string
	for _, v := range list {
		line := fmt.Sprintf("%s on %s", v.Metadata.Name, v.Spec.Node)
		if v.Status.Removing {
			line += ", being removed"
		}
		lines = append(lines, line)
	}
	p.list(0, "Volumes", lines)
	return nil
}
