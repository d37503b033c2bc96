package labcmd

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/orchctl/orch/internal/lab"
)

// common are the flags that every subcommand takes.
type common struct {
	name, dir string
}

// New makes the command `lab` with its subcommands, to be hung into orchctl's
// tree. Errors are returned, not printed.
func New() *cobra.Command {
	c := new(common)
	root := &cobra.Command{
		Use:   "lab",
		Short: "Make a fleet on this machine, and break it",
		Long: `Make a whole fleet on this machine, and break it.

A lab is a controller and nodes, each with namespaces, a containerd and an
agent of its own, in a network that leads nowhere else. It needs Linux and
root, survives the command that made it, and leaves nothing behind when it is
taken down.`,
		Example: `  # three nodes, then the loss of one
  orchctl lab up --nodes 3
  orchctl lab kill n2
  orchctl lab start n2

  # the network fails
  orchctl lab cut n1 n3
  orchctl lab heal

  # take it down
  orchctl lab down`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          noSuchCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return UsageError{fmt.Errorf("%w\nusage: %s", err, cmd.UseLine())}
	})
	root.PersistentFlags().StringVar(&c.name, "name", lab.DefaultName, "the lab's name")
	root.PersistentFlags().StringVar(&c.dir, "dir", "", "the lab's own folder (default $ORCH_LAB_DIR/NAME or "+lab.DefaultDir+"/NAME)")
	root.AddCommand(c.up(), c.down(), list(), c.status(), c.add())
	root.AddCommand(c.hostCommands()...)
	root.AddCommand(c.networkCommands()...)
	root.AddCommand(c.programCommands()...)
	root.AddCommand(c.exec())
	return root
}

// open finds the lab that the flags name.
func (c *common) open() (*lab.Lab, error) {
	if c.dir != "" {
		return lab.Open(c.dir)
	}
	return lab.Open(c.name)
}

// act opens the lab, does something to it, and says so.
func (c *common) act(cmd *cobra.Command, done string, do func(context.Context, *lab.Lab) error) error {
	l, err := c.open()
	if err != nil {
		return err
	}
	if err := do(cmd.Context(), l); err != nil {
		return err
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), done)
	return err
}

// each does something to each named node and goes on after a failure: the
// others were named as well.
func (c *common) each(cmd *cobra.Command, nodes []string, done string, do func(context.Context, *lab.Lab, string) error) error {
	var all error
	for _, node := range nodes {
		err := c.act(cmd, node+" "+done, func(ctx context.Context, l *lab.Lab) error { return do(ctx, l, node) })
		all = errors.Join(all, err)
	}
	return all
}

// completeNodes offers the lab's nodes to the shell.
func (c *common) completeNodes(cmd *cobra.Command, given []string, _ string) ([]string, cobra.ShellCompDirective) {
	l, err := c.open()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	s, err := l.Status(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, n := range s.Nodes {
		if !slices.Contains(given, n.Name) {
			names = append(names, n.Name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
