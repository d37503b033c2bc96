package orchctl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/manifests"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// listing is what `get` was asked for.
type listing struct {
	output, selector string
	all, watch       bool
	about            *orchv1.Ref // of events, verdicts and revisions
	node             string      // --node, of verdicts
	job              string      // --job, of outcomes
	events           eventFilter // of events
	live             bool        // -w draws the table over itself, where that can be
	revision         int64       // --revision of a service; 0: not asked for
}

var outputs = []string{"wide", "yaml", "json", "name"}

func (t *tool) getCmd() *cobra.Command {
	var l listing
	cmd := &cobra.Command{
		Use:     "get TYPE [NAME...] | TYPE/NAME...",
		Aliases: []string{"list", "ls"},
		Short:   "Show services, jobs, replicas, configs, secrets, volumes, nodes, events and the like",
		Long: `Show objects as a table, or as what they are with -o yaml or json.

Types: service (services, svc), job (jobs), replica (replicas), config (configs,
cfg), secret (secrets), volume (volumes, vol), outcome (outcomes), endpoint
(endpoints, ep), node (nodes), event (events), verdict (verdicts), fleet; several
with commas. A replica may be named by an unambiguous beginning, and by name and epoch
(web-0@17). An outcome is how one index of a job ended; it is named by both
(migrate@3). The values of a secret are shown nowhere. An endpoint is the address of a
replica that gets traffic; endpoints are named by their service, or by their replica. A
verdict is one change of what is held of a node; it is named by node and number (n2/17).`,
		Example: `  orchctl get services
  orchctl get service/web -o yaml > web.yaml    # apply -f reads it back
  orchctl get service/web --revision 3 -o yaml  # as its third revision had it
  orchctl get replicas -o wide -w               # print what changes, as it changes
  orchctl get replicas -l app=web -A
  orchctl get endpoints web                     # who gets the service's traffic
  orchctl get jobs -w
  orchctl get outcomes --job migrate            # how each index ended; of all jobs without --job
  orchctl get configs,secrets,volumes
  orchctl get nodes -o wide
  orchctl get verdicts --node n2                # what was held of it, why, by whose word
  orchctl get fleet -w                          # nodes by verdict, spares, freezes`,
		ValidArgsFunction: beginning(t.completeTargets(allKinds...)),
		RunE: func(cmd *cobra.Command, args []string) error {
			targets, err := t.parseTargets(args)
			if err != nil {
				return err
			}
			if err := l.check(targets); err != nil {
				return err
			}
			if l.node != "" {
				l.about = target{kind: api.KindNode, name: strings.TrimPrefix(l.node, "node/")}.ref()
			}
			if l.job != "" {
				l.about = t.target(api.KindJob, strings.TrimPrefix(l.job, "job/")).ref()
			}
			if cmd.Flags().Changed("revision") {
				if l.revision < 1 {
					return usagef("--revision %d: they count from 1", l.revision)
				}
				return t.getRevision(cmd.Context(), l, targets[0])
			}
			if l.watch {
				return t.watch(cmd.Context(), l, targets)
			}
			return t.get(cmd.Context(), l, targets)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&l.output, "output", "o", "", "wide, yaml, json or name; a table without it")
	f.StringVarP(&l.selector, "selector", "l", "", "labels that must match, such as app=web,tier!=test")
	f.BoolVarP(&l.all, "all-namespaces", "A", false, "of all namespaces")
	f.BoolVarP(&l.watch, "watch", "w", false, "go on and print what changes")
	f.BoolVar(&l.live, "live", false, "with -w on a terminal: draw the table over itself as it changes, instead of appending rows")
	f.StringVar(&l.node, "node", "", "of verdicts: those on this node")
	f.StringVar(&l.job, "job", "", "of outcomes: those of this job")
	f.Int64Var(&l.revision, "revision", 0, "of a service: as this revision had it")
	t.complete(cmd, "node", t.completeNames(api.KindNode))
	t.complete(cmd, "job", t.completeNames(api.KindJob))
	t.complete(cmd, "revision", t.completeRevisions)
	t.complete(cmd, "output", cobra.FixedCompletions(outputs, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (l listing) check(targets []target) error {
	if l.output != "" && !slices.Contains(outputs, l.output) {
		return usagef("-o %s: want %s", l.output, strings.Join(outputs, ", "))
	}
	if _, err := api.ParseSelector(l.selector); err != nil {
		return usageError{err}
	}
	named := targets[0].name != ""
	switch {
	case named && l.selector != "":
		return usagef("name objects or select them with -l, not both")
	case named && l.all:
		return usagef("a name is looked up in one namespace: leave out -A")
	case l.revision != 0 && (len(targets) > 1 || !named || targets[0].kind != api.KindService || l.watch):
		return usagef("--revision is of one service, such as `orchctl get service/web --revision %d -o yaml`", l.revision)
	case l.watch && len(targets) > 1:
		return usagef("-w watches one type or one object")
	}
	for _, x := range targets {
		if x.kind == api.KindEvent && x.name != "" {
			return usagef("events have no names: use `orchctl events --for TYPE/NAME`")
		}
		if x.kind == api.KindVerdict && x.name != "" && !strings.Contains(x.name, "/") {
			return usagef("verdicts are named NODE/NUMBER, such as %s/17; all on that node: `orchctl get verdicts --node %s`", x.name, x.name)
		}
		if l.node != "" && (x.kind != api.KindVerdict || x.name != "") {
			return usagef("--node is for all verdicts on a node, such as `orchctl get verdicts --node %s`", l.node)
		}
		if l.job != "" && (x.kind != api.KindOutcome || x.name != "") {
			return usagef("--job is for the outcomes of a job, such as `orchctl get outcomes --job %s`", l.job)
		}
		if x.kind == api.KindOutcome && x.name != "" && !strings.Contains(x.name, "@") {
			return usagef("outcomes are named JOB@INDEX, such as %s@0; all of that job: `orchctl get outcomes --job %s`", x.name, x.name)
		}
		if l.selector != "" && slices.Contains(unlabelled, x.kind) {
			return usagef("-l: %s have no labels", words(x.kind))
		}
	}
	return nil
}

// unlabelled are the kinds whose objects have no labels.
var unlabelled = []string{api.KindEvent, api.KindVerdict, api.KindFleet, api.KindOutcome, api.KindVolume}

// request makes the call for all of a target's kind.
func (l listing) request(x target) *orchv1.ListRequest {
	r := &orchv1.ListRequest{Kind: x.kind, Namespace: x.namespace, Selector: l.selector, About: l.about}
	if x.kind == api.KindOutcome && l.about != nil {
		r.Namespace = l.about.Namespace
	}
	if l.all {
		r.Namespace = ""
	}
	return r
}

// fetch gets what the targets name; what is not found is gathered in missing.
func (t *tool) fetch(ctx context.Context, client orchv1.OrchClient, l listing, targets []target) (found []object, missing error, err error) {
	for _, x := range targets {
		if x.name == "" {
			answer, err := read(ctx, t, "get "+words(x.kind), viewer, func(ctx context.Context) (*orchv1.ListResponse, error) {
				return client.List(ctx, l.request(x))
			})
			if err != nil {
				return nil, nil, err
			}
			if at := answer.GetStaleSince(); at != nil {
				t.warnf("no leader answers: what runs was last known %s ago", age(t.Now(), at.AsTime()))
			}
			list, err := decodeAll(answer.GetObjects())
			if err != nil {
				return nil, nil, err
			}
			list = slices.DeleteFunc(list, func(o object) bool { return !l.events.wants(o) })
			slices.SortStableFunc(list, compareObjects)
			found = append(found, list...)
			continue
		}
		if x.kind == api.KindEndpoint {
			list, err := t.endpoints(ctx, client, x)
			if notFound(err) {
				missing = t.alsoMissing(missing, err)
			} else if err != nil {
				return nil, nil, err
			}
			found = append(found, list...)
			continue
		}
		answer, err := read(ctx, t, "get "+x.String(), viewer, func(ctx context.Context) (*orchv1.Object, error) {
			return client.Get(ctx, &orchv1.GetRequest{Ref: x.ref()})
		})
		if notFound(err) {
			missing = t.alsoMissing(missing, err)
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		o, err := decode(answer)
		if err != nil {
			return nil, nil, err
		}
		found = append(found, o)
	}
	return found, missing, nil
}

// alsoMissing tells an earlier failure at once and keeps the newest, so that
// one missing name does not hide the others.
func (t *tool) alsoMissing(before, now error) error {
	if before != nil {
		t.report(before)
	}
	return now
}

func (t *tool) get(ctx context.Context, l listing, targets []target) error {
	client, err := t.connect(ctx, "get "+words(targets[0].kind), false)
	if err != nil {
		return err
	}
	found, missing, err := t.fetch(ctx, client, l, targets)
	if err != nil {
		return err
	}
	if l.node != "" && len(found) == 0 {
		// A node that was never heard and a name that was mistyped are not the same.
		if _, missing, err := t.fetch(ctx, client, listing{}, []target{{kind: api.KindNode, name: l.node}}); err != nil || missing != nil {
			return errors.Join(err, missing)
		}
	}
	if l.job != "" && len(found) == 0 { // nor are a job without an outcome yet and a name that was mistyped
		if _, missing, err := t.fetch(ctx, client, listing{}, []target{{api.KindJob, l.about.Namespace, l.about.Name}}); err != nil || missing != nil {
			return errors.Join(err, missing)
		}
	}
	if err := t.show(l, targets, found); err != nil {
		return err
	}
	return missing
}

// show prints objects in the form that -o asks for.
func (t *tool) show(l listing, targets []target, found []object) error {
	switch l.output {
	case "yaml":
		return t.showYAML(found)
	case "json":
		return t.showJSON(found, len(targets) == 1 && targets[0].name != "" && targets[0].kind != api.KindEndpoint) // those of a service are a list, also of one
	case "name":
		return t.showNames(found)
	}
	for i, kind := range kindsOf(targets) {
		var rows [][]string
		cols := columnsOf(kind, l.output == "wide", l.all)
		for _, o := range found {
			if o.kind == kind {
				rows = append(rows, cells(cols, o, t.Now()))
			}
		}
		if len(rows) == 0 {
			if targets[0].name == "" {
				t.none(kind, l, targets[0].namespace)
			}
			continue
		}
		if i > 0 {
			if err := t.printf("\n"); err != nil {
				return err
			}
		}
		cols, rows = cut(cols, rows)
		if err := newTable(titles(cols)...).print(t.Out, "", rows...); err != nil {
			return err
		}
	}
	return nil
}

func kindsOf(targets []target) []string {
	var kinds []string
	for _, x := range targets {
		if !slices.Contains(kinds, x.kind) {
			kinds = append(kinds, x.kind)
		}
	}
	return kinds
}

// none says on Err that there is nothing, so that Out stays parseable.
func (t *tool) none(kind string, l listing, namespace string) {
	where := " in namespace " + namespace
	if l.all || spaceless(kind) {
		where = ""
	}
	if l.selector != "" {
		where += " with labels " + l.selector
	}
	if l.about != nil {
		where = fmt.Sprintf(" about %s/%s%s", word(l.about.Kind), l.about.Name, where)
	}
	fmt.Fprintf(t.Err, "No %s%s.\n", words(kind), where)
}

func (t *tool) showYAML(found []object) error {
	var all []any
	for _, o := range found {
		all = append(all, o.raw)
	}
	if len(all) == 0 {
		return nil
	}
	text, err := manifests.Marshal(all...)
	if err != nil {
		return err
	}
	_, err = t.Out.Write(text)
	return err
}

func (t *tool) showJSON(found []object, one bool) error {
	var v any
	if one && len(found) == 1 {
		v = found[0].raw
	} else {
		items := []json.RawMessage{}
		for _, o := range found {
			items = append(items, o.raw)
		}
		v = struct {
			APIVersion string            `json:"apiVersion"`
			Kind       string            `json:"kind"`
			Items      []json.RawMessage `json:"items"`
		}{api.Version, "List", items}
	}
	return t.writeJSON(v)
}

func (t *tool) writeJSON(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := json.Indent(&b, text, "", "  "); err != nil {
		return err
	}
	b.WriteByte('\n')
	_, err = t.Out.Write(b.Bytes())
	return err
}

// showNames prints type/name; two fillings of a slot are told apart by epoch.
func (t *tool) showNames(found []object) error {
	times := map[string]int{}
	for _, o := range found {
		times[o.kind+"/"+o.namespace()+"/"+o.name()]++
	}
	for _, o := range found {
		name := word(o.kind) + "/" + o.name()
		if r, ok := o.value.(*api.Replica); ok && r.Spec.Epoch != 0 && times[o.kind+"/"+o.namespace()+"/"+o.name()] > 1 {
			name = fmt.Sprintf("%s@%d", name, r.Spec.Epoch)
		}
		if err := t.printf("%s\n", cleanText(name)); err != nil {
			return err
		}
	}
	return nil
}
