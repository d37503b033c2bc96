package labcmd

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/orchctl/orch/internal/lab"
)

// hostCommands are those on whole nodes, and on one program's pause.
func (c *common) hostCommands() []*cobra.Command {
	var stunFor, pauseFor time.Duration
	kill := &cobra.Command{
		Use:     "kill NODE...",
		Short:   "Cut nodes' power: all processes and the link gone at once",
		Example: "  orchctl lab kill n2",
		Args:    args(cobra.MinimumNArgs(1)), ValidArgsFunction: c.completeNodes,
		RunE: func(cmd *cobra.Command, nodes []string) error {
			return c.each(cmd, nodes, "has lost its power", func(ctx context.Context, l *lab.Lab, n string) error { return l.KillNode(ctx, n) })
		},
	}
	start := &cobra.Command{
		Use:     "start NODE...",
		Short:   "Power nodes on: new boot id, old data",
		Example: "  orchctl lab start n2",
		Args:    args(cobra.MinimumNArgs(1)), ValidArgsFunction: c.completeNodes,
		RunE: func(cmd *cobra.Command, nodes []string) error {
			return c.each(cmd, nodes, "is on", func(ctx context.Context, l *lab.Lab, n string) error { return l.StartNode(ctx, n) })
		},
	}
	stun := &cobra.Command{
		Use:   "stun NODE",
		Short: "Freeze a node with its link down, as a virtual machine's pause does",
		Example: `  orchctl lab stun n2 --for 3s
  orchctl lab stun n2 --for 0 && orchctl lab resume n2`,
		Args: args(cobra.ExactArgs(1)), ValidArgsFunction: c.completeNodes,
		RunE: func(cmd *cobra.Command, words []string) error {
			return c.act(cmd, words[0]+after(stunFor, "is stunned", "was stunned for"), func(ctx context.Context, l *lab.Lab) error {
				return interruptible(ctx, func(ctx context.Context) error { return l.Stun(ctx, words[0], stunFor) })
			})
		},
	}
	stun.Flags().DurationVar(&stunFor, "for", 5*time.Second, "how long; 0 means until 'orchctl lab resume'")
	pause := &cobra.Command{
		Use:     "pause NODE agent|containerd",
		Short:   "Stop one program of a node for a while (SIGSTOP, SIGCONT)",
		Example: "  orchctl lab pause n1 agent --for 3s",
		Args:    args(cobra.ExactArgs(2)), ValidArgsFunction: c.completeNodes,
		RunE: func(cmd *cobra.Command, words []string) error {
			return c.act(cmd, words[1]+" of "+words[0]+after(pauseFor, "is paused", "was paused for"), func(ctx context.Context, l *lab.Lab) error {
				return interruptible(ctx, func(ctx context.Context) error { return l.Pause(ctx, words[0], words[1], pauseFor) })
			})
		},
	}
	pause.Flags().DurationVar(&pauseFor, "for", 5*time.Second, "how long; 0 means until 'orchctl lab resume'")
	resume := &cobra.Command{
		Use:   "resume NODE...",
		Short: "End nodes' stuns and pauses",
		Args:  args(cobra.MinimumNArgs(1)), ValidArgsFunction: c.completeNodes,
		RunE: func(cmd *cobra.Command, nodes []string) error {
			return c.each(cmd, nodes, "goes on", func(ctx context.Context, l *lab.Lab, n string) error { return l.Resume(ctx, n) })
		},
	}
	return []*cobra.Command{kill, start, stun, pause, resume}
}

// interruptible lets an interrupt end a wait early, rather than end orchctl
// and leave the node broken.
func interruptible(ctx context.Context, f func(context.Context) error) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	return f(ctx)
}

func after(d time.Duration, lasting, timed string) string {
	if d == 0 {
		return " " + lasting
	}
	return " " + timed + " " + d.String()
}

// networkCommands are those on the network between hosts.
func (c *common) networkCommands() []*cobra.Command {
	var oneWay bool
	cut := &cobra.Command{
		Use:   "cut NODE [PEER]",
		Short: "Drop all frames between a node and a peer, or everybody",
		Example: `  orchctl lab cut n1               # from everybody
  orchctl lab cut n1 controller    # from the controller alone
  orchctl lab cut n1 n2 --one-way  # n2 does not hear n1`,
		Args: args(cobra.RangeArgs(1, 2)), ValidArgsFunction: c.completeNodes,
		RunE: func(cmd *cobra.Command, words []string) error {
			f := lab.Fault{Node: words[0], OneWay: oneWay}
			if len(words) == 2 {
				f.Peer = words[1]
			}
			return c.act(cmd, f.String(), func(ctx context.Context, l *lab.Lab) error { return l.Cut(ctx, f.Node, f.Peer, f.OneWay) })
		},
	}
	cut.Flags().BoolVar(&oneWay, "one-way", false, "drop only what NODE sends")
	heal := &cobra.Command{
		Use:   "heal [NODE...]",
		Short: "End cuts and losses, of the named nodes or all",
		Args:  cobra.ArbitraryArgs, ValidArgsFunction: c.completeNodes,
		RunE: func(cmd *cobra.Command, nodes []string) error {
			done := "the network is whole"
			if len(nodes) > 0 {
				done = "the network of " + strings.Join(nodes, ", ") + " is whole"
			}
			return c.act(cmd, done, func(ctx context.Context, l *lab.Lab) error { return l.Heal(ctx, nodes...) })
		},
	}
	loss := &cobra.Command{
		Use:     "loss NODE PERCENT",
		Short:   "Lose a share of a node's frames, each way",
		Example: "  orchctl lab loss n1 30\n  orchctl lab loss n1 0",
		Args:    args(cobra.ExactArgs(2)), ValidArgsFunction: c.completeNodes,
		RunE: func(cmd *cobra.Command, words []string) error {
			percent, err := strconv.Atoi(strings.TrimSuffix(words[1], "%"))
			if err != nil || percent < 0 || percent > 100 {
				return UsageError{fmt.Errorf("percent %q: want 0 to 100", words[1])}
			}
			return c.act(cmd, fmt.Sprintf("%s loses %d %% of its frames each way", words[0], percent),
				func(ctx context.Context, l *lab.Lab) error { return l.Loss(ctx, words[0], percent) })
		},
	}
	return []*cobra.Command{cut, heal, loss}
}

// programCommands end and start single programs: agents, containerds, the
// controller.
func (c *common) programCommands() []*cobra.Command {
	var all []*cobra.Command
	for _, program := range []string{"agent", "containerd"} {
		var sig string
		kill := &cobra.Command{
			Use:     "kill-" + program + " NODE...",
			Short:   "End a node's " + program + "; nothing starts it again by itself",
			Example: "  orchctl lab kill-" + program + " n1\n  orchctl lab kill-" + program + " n1 --signal TERM",
			Args:    args(cobra.MinimumNArgs(1)), ValidArgsFunction: c.completeNodes,
			RunE: func(cmd *cobra.Command, nodes []string) error {
				s, err := parseSignal(sig)
				if err != nil {
					return err
				}
				return c.each(cmd, nodes, "has lost its "+program, func(ctx context.Context, l *lab.Lab, n string) error {
					return l.KillProcess(ctx, n, program, s)
				})
			},
		}
		kill.Flags().StringVarP(&sig, "signal", "s", "KILL", "signal to send, by name or number")
		start := &cobra.Command{
			Use:   "start-" + program + " NODE...",
			Short: "Start a node's " + program + " again",
			Args:  args(cobra.MinimumNArgs(1)), ValidArgsFunction: c.completeNodes,
			RunE: func(cmd *cobra.Command, nodes []string) error {
				return c.each(cmd, nodes, "has its "+program+" again", func(ctx context.Context, l *lab.Lab, n string) error {
					return l.StartProcess(ctx, n, program)
				})
			},
		}
		all = append(all, kill, start)
	}
	var sig string
	kill := &cobra.Command{
		Use:   "kill-controller",
		Short: "End the controller; nothing starts it again by itself",
		Args:  args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := parseSignal(sig)
			if err != nil {
				return err
			}
			return c.act(cmd, "the controller is killed", func(ctx context.Context, l *lab.Lab) error { return l.StopController(ctx, s) })
		},
	}
	kill.Flags().StringVarP(&sig, "signal", "s", "KILL", "signal to send, by name or number")
	start := &cobra.Command{
		Use:   "start-controller",
		Short: "Start the controller again",
		Args:  args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.act(cmd, "the controller answers", func(ctx context.Context, l *lab.Lab) error { return l.StartController(ctx) })
		},
	}
	return append(all, kill, start)
}

// parseSignal reads "KILL", "SIGKILL" or "9".
func parseSignal(word string) (syscall.Signal, error) {
	if n, err := strconv.Atoi(word); err == nil && n > 0 && n < 65 {
		return syscall.Signal(n), nil
	}
	name := strings.ToUpper(word)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if s := unix.SignalNum(name); s != 0 {
		return s, nil
	}
	return 0, UsageError{fmt.Errorf("--signal %q: no such signal", word)}
}

// exec runs a program in the lab; its exit code becomes orchctl's.
func (c *common) exec() *cobra.Command {
	var node string
	cmd := &cobra.Command{
		Use:   "exec [--node NODE] -- COMMAND [ARG...]",
		Short: "Run a program in the lab's network, or on a node",
		Example: `  orchctl lab exec -- curl http://10.200.0.11:8080/
  orchctl lab exec --node n1 -- ctr -n orch containers ls`,
		DisableFlagsInUseLine: true,
		Args: func(cmd *cobra.Command, words []string) error {
			if len(words) == 0 {
				return UsageError{fmt.Errorf("a command is missing: name a program after --\nusage: %s", cmd.UseLine())}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, words []string) error {
			l, err := c.open()
			if err != nil {
				return err
			}
			if node == "" {
				if err := nodeForProgram(cmd.Context(), l, words); err != nil {
					return err
				}
			}
			// An interrupt is the program's to handle: it has the terminal too.
			// Caught, not ignored: the program would inherit that.
			interrupts := make(chan os.Signal, 1)
			signal.Notify(interrupts, os.Interrupt)
			defer signal.Stop(interrupts)
			program, err := l.Command(context.WithoutCancel(cmd.Context()), node, words...)
			if err != nil {
				return err
			}
			program.Stdin, program.Stdout, program.Stderr = cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr()
			return program.Run()
		},
	}
	cmd.Flags().StringVar(&node, "node", "", "node whose namespaces to enter (default: the outer network, this machine otherwise)")
	return cmd
}

// nodeForProgram refuses a node's name where a program should stand: that there is no
// program n1 would help nobody.
func nodeForProgram(ctx context.Context, l *lab.Lab, words []string) error {
	if _, err := exec.LookPath(words[0]); err == nil {
		return nil
	}
	state, err := l.Status(ctx)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(state.Nodes, func(n lab.HostStatus) bool { return n.Name == words[0] }) {
		return nil
	}
	program := "COMMAND"
	if len(words) > 1 {
		program = strings.Join(words[1:], " ")
	}
	return UsageError{fmt.Errorf("%s is a node, not a program: write `orchctl lab exec --node %s -- %s`", words[0], words[0], program)}
}
