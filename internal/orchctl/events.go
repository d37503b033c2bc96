package orchctl

import (
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/orchctl/orch/api"
)

func (t *tool) eventsCmd() *cobra.Command {
	var l listing
	var about, since string
	var types []string
	cmd := &cobra.Command{
		Use:   "events [--for TYPE/NAME]",
		Short: "Show what happened, the newest last",
		Long: `Show what happened, the newest last: what orch decided and what nodes reported, with a
reason each. What happens again within ten minutes is counted, not told anew. What the
reasons mean and what to do about them is in docs/troubleshooting.md.`,
		Example: `  orchctl events
  orchctl events --types Warning --since 1h
  orchctl events --for service/web
  orchctl events --for node/n1 -w`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			x := t.target(api.KindEvent, "")
			if about != "" {
				named, err := t.parseSlashed([]string{about})
				if err != nil {
					return err
				}
				if k := named[0].kind; k == api.KindEvent || k == api.KindOutcome || k == api.KindVerdict || k == api.KindEndpoint {
					return usagef("--for %s: want a service, job, replica, config, secret, volume or node", about)
				}
				l.about = named[0].ref()
				x.namespace = named[0].namespace
			}
			for _, typ := range types {
				i := slices.IndexFunc(eventTypes, func(known string) bool { return strings.EqualFold(known, typ) })
				if i < 0 {
					return usagef("--types %s: want %s", typ, strings.Join(eventTypes, " or "))
				}
				l.events.types = append(l.events.types, eventTypes[i])
			}
			if since != "" {
				d, err := time.ParseDuration(since)
				if err != nil || d <= 0 {
					return usagef("--since %s: want a time back from now, such as 10m or 1h", since)
				}
				l.events.since = t.Now().Add(-d)
			}
			if err := l.check([]target{x}); err != nil {
				return err
			}
			if l.watch {
				return t.watch(cmd.Context(), l, []target{x})
			}
			return t.get(cmd.Context(), l, []target{x})
		},
	}
	f := cmd.Flags()
	f.StringVar(&about, "for", "", "only what happened to this, such as service/web")
	f.StringSliceVar(&types, "types", nil, "only of these types: Normal, Warning")
	f.StringVar(&since, "since", "", "only what happened within this time, such as 1h")
	t.complete(cmd, "types", cobra.FixedCompletions(eventTypes, cobra.ShellCompDirectiveNoFileComp))
	f.StringVarP(&l.output, "output", "o", "", "wide, yaml, json or name; a table without it")
	f.BoolVarP(&l.all, "all-namespaces", "A", false, "of all namespaces, and of nodes")
	f.BoolVarP(&l.watch, "watch", "w", false, "go on and print what happens")
	t.complete(cmd, "output", cobra.FixedCompletions(outputs, cobra.ShellCompDirectiveNoFileComp))
	t.complete(cmd, "for", t.completeSlashed)
	return cmd
}

var eventTypes = []string{api.EventNormal, api.EventWarning}

// eventFilter is which events are shown; zero: all.
type eventFilter struct {
	types []string
	since time.Time
}

func (f eventFilter) wants(o object) bool {
	e, ok := o.value.(*api.Event)
	if !ok {
		return true
	}
	return (len(f.types) == 0 || slices.Contains(f.types, e.Type)) && !e.Time.Before(f.since)
}
