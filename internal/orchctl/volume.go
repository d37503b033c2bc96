package orchctl

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/orchctl/orch/api"
)

func (t *tool) volumeCmd() *cobra.Command {
	return group("volume", "Show and remove the volumes of services",
		`  orchctl volume ls
  orchctl volume rm data.db-0`,
		t.volumeListCmd(), t.volumeRemoveCmd())
}

func (t *tool) volumeListCmd() *cobra.Command {
	var l listing
	cmd := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "Show where volumes are, and what uses them",
		Example: `  orchctl volume ls
  orchctl volume ls -A`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			targets := []target{t.target(api.KindVolume, "")}
			if err := l.check(targets); err != nil {
				return err
			}
			return t.get(cmd.Context(), l, targets)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&l.output, "output", "o", "", "wide, yaml, json or name; a table without it")
	f.BoolVarP(&l.all, "all-namespaces", "A", false, "of all namespaces")
	t.complete(cmd, "output", cobra.FixedCompletions(outputs, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (t *tool) volumeRemoveCmd() *cobra.Command {
	var d deleting
	cmd := &cobra.Command{
		Use:     "rm NAME...",
		Aliases: []string{"remove", "delete"},
		Short:   "Remove volumes and what is in them, for good",
		Long: `Remove volumes and what is in them, for good; on a terminal it asks first. One that is
in use is refused: delete its service, or scale it down below the volume's slot. That of
a slot whose node is dead is given up: the slot begins anew elsewhere, without what is in
it.`,
		Example: `  orchctl volume rm data.db-0
  orchctl volume rm data.db-0 data.db-1 --wait=false`,
		Args:              usageArgs(cobra.MinimumNArgs(1)),
		ValidArgsFunction: beginning(t.completeNames(api.KindVolume)),
		RunE: func(cmd *cobra.Command, args []string) error {
			var targets []target
			for _, a := range args {
				kind, name, ok := cutKind(a)
				if ok && kind != api.KindVolume || name == "" {
					return usagef("%q is no volume: they are named VOLUME.SERVICE-SLOT, such as data.db-0", a)
				}
				if !ok {
					name = a
				}
				if err := isVolumeName(name); err != nil {
					return err
				}
				targets = append(targets, t.target(api.KindVolume, name))
			}
			return t.removeVolumes(cmd.Context(), targets, d)
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&d.yes, "yes", "y", false, "do not ask on a terminal")
	f.BoolVar(&d.dryRun, "dry-run", false, "say whether they would be removed, and remove nothing")
	f.BoolVar(&d.wait, "wait", true, "wait until they are gone from their nodes")
	f.DurationVar(&d.timeout, "timeout", waitTimeout, "how long to wait; 0 for no limit")
	return cmd
}

// removeVolumes deletes volumes, all or none.
func (t *tool) removeVolumes(ctx context.Context, targets []target, d deleting) error {
	client, err := t.connect(ctx, "volume rm", true)
	if err != nil {
		return err
	}
	_, missing, err := t.fetch(ctx, client, listing{}, targets)
	if err != nil {
		return err
	}
	if missing != nil {
		t.report(missing)
		return errors.New("nothing was removed")
	}
	return t.deleteTargets(ctx, client, targets, d)
}
