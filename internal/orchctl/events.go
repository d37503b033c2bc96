package orchctl

import (
	"github.com/spf13/cobra"

	"github.com/orchctl/orch/api"
)

func (t *tool) eventsCmd() *cobra.Command {
	var l listing
	var about string
	cmd := &cobra.Command{
		Use:   "events [--for TYPE/NAME]",
		Short: "Show what happened, the newest last",
		Example: `  orchctl events
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
	f.StringVarP(&l.output, "output", "o", "", "wide, yaml, json or name; a table without it")
	f.BoolVarP(&l.all, "all-namespaces", "A", false, "of all namespaces, and of nodes")
	f.BoolVarP(&l.watch, "watch", "w", false, "go on and print what happens")
	t.complete(cmd, "output", cobra.FixedCompletions(outputs, cobra.ShellCompDirectiveNoFileComp))
	t.complete(cmd, "for", t.completeSlashed)
	return cmd
}
