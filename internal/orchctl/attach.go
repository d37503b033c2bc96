package orchctl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

func (t *tool) attachCmd() *cobra.Command {
	x := executing{stdin: true}
	cmd := &cobra.Command{
		Use:   "attach REPLICA | job/NAME",
		Short: "Attach to a job that waits for somebody",
		Long: `Attach to a replica of a job whose container has stdin: true: its command starts with
the first who attaches, and reads what is typed. orchctl ends with the command's exit
code. Who goes away takes standard input with him: the command gets SIGHUP.`,
		Example: `  orchctl attach job/shell
  orchctl attach shell-0
  orchctl attach job/import < data.csv`,
		Args:              usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: beginning(t.completeReplicaOrService),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !cmd.Flags().Changed("tty") {
				x.tty = t.isTerminal()
			}
			return t.attach(cmd.Context(), x, args[0])
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&x.stdin, "stdin", "i", true, "pass standard input")
	f.BoolVarP(&x.tty, "tty", "t", false, "give the command a terminal, as big as this one (default: if standard input is one)")
	f.StringVarP(&x.container, "container", "c", "", "container to attach to (default: the one that waits)")
	return cmd
}

// isTerminal tells whether standard input and output are one.
func (t *tool) isTerminal() bool {
	in, ok := t.In.(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return false
	}
	_, _, out := t.Screen()
	return out
}

func (t *tool) attach(ctx context.Context, x executing, arg string) error {
	kind, name, ok := cutKind(arg)
	if !ok {
		kind, name = api.KindReplica, arg
	}
	if kind != api.KindReplica && kind != api.KindJob {
		return usagef("only a job waits for somebody: want job/NAME or one of its replicas")
	}
	screen, err := t.terminal(x)
	if err != nil {
		return err
	}
	to := t.target(kind, name)
	doing := "attach to " + to.name
	client, err := t.connect(ctx, doing, false)
	if err != nil {
		return err
	}
	r, err := t.waitingReplica(ctx, client, to)
	if err != nil {
		return err
	}
	template, _, err := t.templateOf(ctx, client, r)
	if err != nil {
		return err
	}
	if x.container == "" && template != nil {
		if x.container = waitsForStdin(template); x.container == "" {
			return fmt.Errorf("%s: none of its containers waits for somebody: those of jobs with stdin: true do, such as those of `orchctl run -i`", doing)
		}
	}
	return t.session(ctx, client, attachTo(r, x.container), x, screen, doing)
}

// attachTo asks for the standard streams of a replica's container.
func attachTo(r *api.Replica, container string) *orchv1.ExecRequest {
	return &orchv1.ExecRequest{Namespace: r.Metadata.Namespace, Replica: fmt.Sprintf("%s@%d", r.Metadata.Name, r.Spec.Epoch), Container: container, Attach: true}
}

// waitsForStdin gives the container whose command waits for somebody; "": none does.
func waitsForStdin(x *api.Template) string {
	if i := slices.IndexFunc(x.Containers, func(c api.Container) bool { return c.Stdin }); i >= 0 {
		return x.Containers[i].Name
	}
	return ""
}

// waitingReplica gives the replica that is named, or the one of a job that runs.
func (t *tool) waitingReplica(ctx context.Context, client orchv1.OrchClient, to target) (*api.Replica, error) {
	found, missing, err := t.fetch(ctx, client, listing{}, []target{to})
	if err != nil || missing != nil {
		return nil, errors.Join(err, missing)
	}
	if r, ok := found[0].value.(*api.Replica); ok {
		return r, nil
	}
	list, err := t.replicasOf(ctx, client, api.Key{Namespace: to.namespace, Name: to.name})
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(r *api.Replica) bool { return r.Status.Phase != api.PhaseRunning })
	switch len(list) {
	case 0:
		return nil, fmt.Errorf("attach to %s: none of its replicas runs; `orchctl describe %s -n %s` tells more", to.name, to, to.namespace)
	case 1:
		return list[0], nil
	}
	var names []string
	for _, r := range list {
		names = append(names, r.Metadata.Name)
	}
	return nil, usagef("attach to %s: %d of its replicas run, name one of them: %s", to.name, len(list), strings.Join(names, ", "))
}
