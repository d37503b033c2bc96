package orchctl

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

const (
	// eventsShownMax is how many of the newest events a description ends with.
	eventsShownMax = 20
	// replicasAskedMax is how many unready replicas of a service are asked for
	// their events: more of them tell the same.
	replicasAskedMax = 5
)

func (t *tool) describeCmd() *cobra.Command {
	var l listing
	verdicts := verdictsShown
	cmd := &cobra.Command{
		Use:   "describe TYPE [NAME...] | TYPE/NAME...",
		Short: "Tell everything about services, jobs, replicas, nodes and the like, and why they are as they are",
		Example: `  orchctl describe service web     # its addresses, what is missing, and which nodes would take it
  orchctl describe replica web-0   # how its containers ended
  orchctl describe job/migrate     # how its indexes ended, the failed ones first
  orchctl describe config app      # its values, its versions, who takes them; of a secret no values
  orchctl describe node/n1         # also what was held of it, why and by whose word
  orchctl describe node n1 --verdicts 0
  orchctl describe fleet`,
		ValidArgsFunction: beginning(t.completeTargets(allKinds...)),
		RunE: func(cmd *cobra.Command, args []string) error {
			targets, err := t.parseTargets(args)
			if err != nil {
				return err
			}
			if err := l.check(targets); err != nil {
				return err
			}
			if verdicts < 0 {
				return usagef("--verdicts %d: want a number, or 0 for all", verdicts)
			}
			return t.describe(cmd.Context(), l, targets, verdicts)
		},
	}
	cmd.Flags().StringVarP(&l.selector, "selector", "l", "", "labels that must match, such as app=web")
	cmd.Flags().BoolVarP(&l.all, "all-namespaces", "A", false, "of all namespaces")
	cmd.Flags().IntVar(&verdicts, "verdicts", verdictsShown, "how many of a node's latest verdicts to tell; 0 for all")
	return cmd
}

func (t *tool) describe(ctx context.Context, l listing, targets []target, verdicts int) error {
	client, err := t.connect(ctx, "describe "+words(targets[0].kind), false)
	if err != nil {
		return err
	}
	found, missing, err := t.fetch(ctx, client, l, targets)
	if err != nil {
		return err
	}
	if len(found) == 0 && missing == nil {
		t.none(targets[0].kind, l, targets[0].namespace)
	}
	for i, o := range found {
		p := &page{now: t.Now(), verdicts: verdicts}
		if i > 0 {
			p.b.WriteString("\n\n")
		}
		if err := t.describeOne(ctx, client, p, o); err != nil {
			return err
		}
		if _, err := io.WriteString(t.Out, p.b.String()); err != nil {
			return err
		}
	}
	return missing
}

func (t *tool) describeOne(ctx context.Context, client orchv1.OrchClient, p *page, o object) error {
	switch v := o.value.(type) {
	case *api.Service:
		return t.describeService(ctx, client, p, v)
	case *api.Replica:
		return t.describeReplica(ctx, client, p, v)
	case *api.Job:
		return t.describeJob(ctx, client, p, v)
	case *api.Config:
		return t.describeConfig(ctx, client, p, v)
	case *api.Volume:
		return t.describeVolume(ctx, client, p, v)
	case *api.Outcome:
		return t.describeOutcome(ctx, client, p, v)
	case *api.Endpoint:
		p.endpoint(v)
	case *api.Node:
		return t.describeNode(ctx, client, p, v)
	case *api.Event:
		p.event(v)
	case *api.VerdictRecord:
		p.field(0, "Node", "%s", v.Node)
		p.field(0, "Verdict", "%s (%d)", verdictChange(v), v.Seq)
		p.verdict(0, v)
	case *api.Fleet:
		return t.describeFleet(ctx, client, p, v)
	}
	return nil
}

// page is a description being written.
type page struct {
	b   strings.Builder
	now time.Time
	// verdicts is how many of a node's verdicts are told; 0 means all.
	verdicts int
}

// fieldWidth is the column of values at the page's left edge.
const fieldWidth = 16

// field writes "Name:   value"; empty values are left out.
func (p *page) field(indent int, name, format string, args ...any) {
	value := cleanText(fmt.Sprintf(format, args...))
	if value == "" {
		return
	}
	fmt.Fprintf(&p.b, "%s%-*s %s\n", strings.Repeat(" ", indent), fieldWidth-indent, name+":", value)
}

// list writes a field of several lines.
func (p *page) list(indent int, name string, lines []string) {
	for i, l := range lines {
		if i == 0 {
			p.field(indent, name, "%s", l)
			continue
		}
		fmt.Fprintf(&p.b, "%s%s\n", strings.Repeat(" ", fieldWidth+1), cleanText(l))
	}
}

func (p *page) title(indent int, text string) {
	fmt.Fprintf(&p.b, "%s%s:\n", strings.Repeat(" ", indent), cleanText(text))
}

// table writes rows below a title, or says that there are none.
func (p *page) table(title string, rows [][]string, titles ...string) {
	if len(rows) == 0 {
		p.field(0, title, "none")
		return
	}
	p.title(0, title)
	_ = newTable(titles...).print(&p.b, "  ", rows...) // a Builder takes everything
}

// metadata writes what all objects have.
func (p *page) metadata(m api.Metadata) {
	p.field(0, "Name", "%s", m.Name)
	p.field(0, "Namespace", "%s", m.Namespace)
	p.list(0, "Labels", pairs(m.Labels))
	p.list(0, "Annotations", pairs(m.Annotations))
	if !m.CreatedAt.IsZero() {
		p.field(0, "Created", "%s", p.when(m.CreatedAt))
	}
	if !m.DeletedAt.IsZero() {
		p.field(0, "Being deleted", "since %s", age(p.now, m.DeletedAt))
	}
}

// when gives a time and its age.
func (p *page) when(at time.Time) string {
	return fmt.Sprintf("%s (%s ago)", at.UTC().Format(time.RFC3339), age(p.now, at))
}

func pairs(m map[string]string) []string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, k+"="+m[k])
	}
	return out
}

func (p *page) event(e *api.Event) {
	p.field(0, "Event", "%s %s", e.Type, e.Reason)
	p.field(0, "Object", "%s/%s", word(e.Kind), e.Name)
	p.field(0, "Namespace", "%s", e.Namespace)
	p.field(0, "Last", "%s", p.when(e.Time))
	p.field(0, "Count", "%d", max(1, e.Count))
	p.field(0, "Message", "%s", e.Message)
}

// events ends a description with what happened lately to the things named.
func (t *tool) events(ctx context.Context, client orchv1.OrchClient, p *page, about ...*orchv1.Ref) error {
	seen := map[uint64]bool{}
	var all []*api.Event
	for _, ref := range about {
		answer, err := read(ctx, t, "get events", viewer, func(ctx context.Context) (*orchv1.ListResponse, error) {
			return client.List(ctx, &orchv1.ListRequest{Kind: api.KindEvent, Namespace: ref.GetNamespace(), About: ref})
		})
		if err != nil {
			return err
		}
		list, err := decodeAll(answer.GetObjects())
		if err != nil {
			return err
		}
		for _, o := range list {
			if e, ok := o.value.(*api.Event); ok && !seen[e.Seq] {
				seen[e.Seq] = true
				all = append(all, e)
			}
		}
	}
	slices.SortFunc(all, func(a, b *api.Event) int { return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.Seq, b.Seq)) })
	all = all[max(0, len(all)-eventsShownMax):]
	cols := columnsOf(api.KindEvent, false, false)
	var rows [][]string
	for _, e := range all {
		rows = append(rows, cells(cols, object{kind: api.KindEvent, value: e}, p.now))
	}
	p.table("Events", rows, titles(cols)...)
	return nil
}
