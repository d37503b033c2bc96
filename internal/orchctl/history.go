package orchctl

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/manifests"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// causeShown is how many characters of a cause a table has room for; the whole of it is
// told by -o wide.
const causeShown = 60

func (t *tool) historyCmd() *cobra.Command {
	var l listing
	cmd := &cobra.Command{
		Use:   "history service/NAME",
		Short: "Show a service's revisions: how each came about, what changed, and how it went",
		Long: `Show a service's revisions, the newest first: who made it and by what, what
changed against the one before, how its rollout went and how long that took.

A revision is made by apply where the template changes, by rollout restart, by
rollout undo, and by orch itself where it goes back after a failure.`,
		Example: `  orchctl history service/web
  orchctl history service/web -o wide           # whole causes, why it failed, digests
  orchctl get service/web --revision 3 -o yaml  # what it was
  orchctl rollout undo service/web --to-revision 3`,
		ValidArgsFunction: beginning(t.completeTargets(api.KindService)),
		Args:              usageArgs(cobra.RangeArgs(1, 2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			x, err := t.oneService(args, "has a history")
			if err != nil {
				return err
			}
			if l.output == "name" {
				return usagef("-o name: want wide, yaml, json")
			}
			if err := l.check([]target{x}); err != nil {
				return err
			}
			return t.history(cmd.Context(), l, x)
		},
	}
	cmd.Flags().StringVarP(&l.output, "output", "o", "", "wide, yaml or json; a table without it")
	t.complete(cmd, "output", cobra.FixedCompletions([]string{"wide", "yaml", "json"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// aboutScale ends what is said where something else than a service is to be scaled.
const aboutScale = "is scaled, one at a time"

// oneService reads the argument of a command that is about one service: web,
// service/web or service web. Does ends the sentence "only a service ...".
func (t *tool) oneService(args []string, does string) (target, error) {
	if len(args) == 1 && !strings.Contains(args[0], "/") { // what stands before one is a kind, not a namespace
		if _, err := parseKind(args[0]); err != nil {
			args = []string{"service", args[0]}
		}
	}
	targets, err := t.parseTargets(args)
	if err != nil {
		return target{}, err
	}
	if len(targets) == 1 && targets[0].kind == api.KindJob && targets[0].name != "" && does != aboutScale {
		return target{}, noRollouts(targets[0])
	}
	if len(targets) != 1 || targets[0].kind != api.KindService || targets[0].name == "" {
		return target{}, usagef("only a service %s: want service/NAME", does)
	}
	return targets[0], nil
}

// revisionName is the name of a service's revision: "web@3".
func revisionName(service string, number int64) string {
	return service + "@" + strconv.FormatInt(number, 10)
}

// revisions gets those of a service, the newest first.
func (t *tool) revisions(ctx context.Context, client orchv1.OrchClient, x target) ([]*api.Revision, error) {
	answer, err := read(ctx, t, "get revisions of "+x.String(), viewer, func(ctx context.Context) (*orchv1.ListResponse, error) {
		return client.List(ctx, &orchv1.ListRequest{Kind: api.KindRevision, Namespace: x.namespace, About: x.ref()})
	})
	if err != nil {
		return nil, err
	}
	list, err := decodeAll(answer.GetObjects())
	if err != nil {
		return nil, err
	}
	var out []*api.Revision
	for _, o := range list {
		if r, ok := o.value.(*api.Revision); ok {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b *api.Revision) int { return -cmp.Compare(a.Number, b.Number) })
	return out, nil
}

func (t *tool) history(ctx context.Context, l listing, x target) error {
	client, err := t.connect(ctx, "history of "+x.String(), false)
	if err != nil {
		return err
	}
	list, err := t.revisions(ctx, client, x)
	if err != nil {
		return err
	}
	if len(list) == 0 { // none is kept, or there is no such service
		_, missing, err := t.fetch(ctx, client, listing{}, []target{x})
		if err == nil && missing == nil {
			fmt.Fprintf(t.Err, "No revisions of %s.\n", x)
		}
		return cmp.Or(err, t.orJob(ctx, client, x, missing))
	}
	return t.showRevisions(l, list, list, false)
}

// revisionDoc is a revision as a document.
type revisionDoc struct {
	api.TypeMeta
	Service serviceRef `json:"service"`
	api.Revision
}

// serviceRef names a service in the words of manifests.
type serviceRef struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

// showRevisions prints some of a service's revisions; all are needed to tell what
// changed.
func (t *tool) showRevisions(l listing, some, all []*api.Revision, one bool) error {
	if l.output == "yaml" || l.output == "json" {
		var docs []any
		for _, r := range some {
			docs = append(docs, revisionDoc{api.TypeMeta{APIVersion: api.Version, Kind: api.KindRevision}, serviceRef(r.Service), *r})
		}
		if l.output == "json" {
			if one {
				return t.writeJSON(docs[0])
			}
			return t.writeJSON(map[string]any{"apiVersion": api.Version, "kind": "List", "items": docs})
		}
		text, err := manifests.Marshal(docs...)
		if err != nil {
			return err
		}
		_, err = t.Out.Write(text)
		return err
	}
	titles, rows := revisionRows(some, all, l.output == "wide", t.Now())
	return newTable(titles...).print(t.Out, "", rows...)
}

// revisionRows makes a table's rows. Where the one before is not kept any more, what
// changed is not known.
func revisionRows(some, all []*api.Revision, wide bool, now time.Time) (titles []string, rows [][]string) {
	titles = []string{"REVISION", "STATE", "AGE", "TOOK", "BY", "CAUSE", "CHANGE"}
	if wide {
		titles = append(titles, "IMAGES", "WHY")
	}
	for _, r := range some {
		cause, change := r.Cause, "-"
		if !wide {
			cause = clip(cleanText(cause), causeShown)
		}
		if i := slices.Index(all, r); i+1 < len(all) {
			change = changeWords(all[i+1], r)
		} else if r.Number == 1 {
			change = "first"
		}
		row := []string{strconv.FormatInt(r.Number, 10), orDash(string(r.Rollout.State)), age(now, r.CreatedAt), tookText(r.Rollout), orDash(r.By), orDash(cause), change}
		if wide {
			row = append(row, orDash(pinnedText(r)), orDash(r.Rollout.Why))
		}
		rows = append(rows, row)
	}
	return titles, rows
}

// tookText is how long a rollout took; of one that goes on nothing is known yet.
// instantly is less than any container needs to start: a revision that took no longer,
// as one that is gone back to while its replicas still run, had nothing to wait for.
const instantly = 50 * time.Millisecond

func tookText(r api.RolloutStatus) string {
	switch d := tookOf(r); {
	case d <= 0:
		return "-"
	case d < instantly:
		return "no time"
	default:
		return short(d)
	}
}

func tookOf(r api.RolloutStatus) time.Duration {
	if r.StartedAt.IsZero() || r.EndedAt.IsZero() {
		return 0
	}
	return max(r.EndedAt.Sub(r.StartedAt), time.Millisecond)
}

// pinnedText gives what the template's references meant: "web:1.0@sha256:0123456789ab".
func pinnedText(r *api.Revision) string {
	var out []string
	for _, c := range r.Template.AllContainers() {
		text := c.Image
		if digest := r.Images[c.Image]; digest != "" {
			text += "@" + shortDigest(digest)
		}
		if !slices.Contains(out, text) {
			out = append(out, text)
		}
	}
	return strings.Join(out, ",")
}

// getRevision shows a service as one of its revisions had it: with -o yaml or json as a
// manifest that apply reads.
func (t *tool) getRevision(ctx context.Context, l listing, x target) error {
	client, err := t.connect(ctx, "get "+x.String(), false)
	if err != nil {
		return err
	}
	found, missing, err := t.fetch(ctx, client, listing{}, []target{x})
	if err = cmp.Or(err, missing); err != nil {
		return err
	}
	all, err := t.revisions(ctx, client, x)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(all, func(r *api.Revision) bool { return r.Number == l.revision })
	if i < 0 {
		return noSuchRevision(x, l.revision, all)
	}
	s, ok := found[0].value.(*api.Service)
	if !ok {
		return fmt.Errorf("get %s: the controller answered with a %s", x, found[0].kind)
	}
	switch l.output {
	case "name":
		return t.printf("%s --revision %d\n", x, l.revision)
	case "", "wide":
		return t.showRevisions(l, all[i:i+1], all, true)
	}
	old := asDeclared(s)
	old.Spec.Template = all[i].Template
	if l.output == "json" {
		return t.writeJSON(old)
	}
	text, err := manifests.Marshal(old)
	if err != nil {
		return err
	}
	_, err = t.Out.Write(text)
	return err
}

func noSuchRevision(x target, number int64, kept []*api.Revision) error {
	if len(kept) == 0 {
		return fmt.Errorf("%s: no revision %d: none is kept", x, number)
	}
	return fmt.Errorf("%s: no revision %d: %d to %d are kept; `orchctl history %s -n %s` lists them", x, number, kept[len(kept)-1].Number, kept[0].Number, x, x.namespace)
}
