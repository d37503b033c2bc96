package labcmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/orchctl/orch/internal/lab"
)

func (c *common) up() *cobra.Command {
	config := lab.Config{}
	var subnet, replicas string
	var labels []string
	var containerdOnly, empty, quiet bool
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Make a lab",
		Long: `Make a lab and return when its controller and every containerd answer and every
node has joined. On a failure, or when interrupted before, nothing is left behind;
a lab whose nodes do not join stays, for its logs.`,
		Example: `  orchctl lab up --nodes 3
  orchctl lab up --name small --nodes 2 --capacity cpu=2,memory=4Gi
  orchctl lab up --nodes 3 --label n1:zone=a --label n2:zone=b
  orchctl lab up --nodes 4 --routes vxlan
  orchctl lab up --nodes 4 --limit dead-after=10s --limit mass-min=3`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			config.Name, config.Dir = c.name, c.dir
			if config.Subnet, err = netip.ParsePrefix(subnet); err != nil {
				return UsageError{fmt.Errorf("--subnet: %w", err)}
			}
			if config.Replicas, err = netip.ParsePrefix(replicas); err != nil {
				return UsageError{fmt.Errorf("--replica-network: %w", err)}
			}
			if config.Labels, err = parseLabels(labels); err != nil {
				return UsageError{err}
			}
			if config.BinDir == "" {
				self, err := os.Executable()
				if err != nil {
					return err
				}
				config.BinDir = filepath.Dir(self)
			}
			switch {
			case containerdOnly && empty:
				return UsageError{errors.New("--containerd-only and --empty exclude each other")}
			case containerdOnly:
				config.Daemons = lab.ContainerdOnly
			case empty:
				config.Daemons = lab.Empty
			}
			out := cmd.OutOrStdout()
			if !quiet {
				config.Progress = func(step string) { fmt.Fprintln(out, step) }
			}
			began := time.Now()
			var l *lab.Lab
			err = interruptible(cmd.Context(), func(ctx context.Context) (err error) {
				if l, err = lab.Up(ctx, config); err != nil || config.Daemons != lab.All {
					return err
				}
				return awaitNodes(ctx, l, config.Nodes)
			})
			if err != nil {
				return err
			}
			fmt.Fprintf(out, "lab %s is up: %d nodes in %.2fs\n", l.Name(), config.Nodes, time.Since(began).Seconds())
			if config.Daemons == lab.All {
				fmt.Fprintf(out, "\nto use it:\n  export ORCH_CONFIG=%s\n", l.AdminContext())
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.IntVar(&config.Nodes, "nodes", 3, "how many nodes, n1 to nN")
	f.StringVar(&config.BinDir, "bin-dir", "", "folder of controller, agent and shim (default: that of orchctl)")
	f.StringVar(&subnet, "subnet", "10.200.0.0/24", "the nodes' network; labs may use the same one")
	f.StringVar(&replicas, "replica-network", "10.64.0.0/16", "where nodes' replica subnets come from, a /24 each")
	f.StringVar(&config.Routes, "routes", "", "how replicas' packets get from node to node, `auto|direct|vxlan` (default auto: direct, as the nodes share a segment)")
	f.StringVar(&config.Containerd, "containerd", "", "containerd to run (default: the one in PATH)")
	f.StringVar(&config.CNIBin, "cni-bin", "", "folder of the CNI plugins (default /usr/lib/cni or /opt/cni/bin)")
	f.StringVar(&config.Capacity, "capacity", "", "what each node says to have, as in cpu=2,memory=4Gi (default: what the machine has)")
	f.StringArrayVar(&labels, "label", nil, "label of a node, NODE:KEY=VALUE; may be repeated")
	f.StringArrayVar(&config.Limits, "limit", nil, "limit for the controller, `name=value`; may be repeated; \"controller limits\" lists them")
	f.StringArrayVar(&config.AgentArgs, "agent-arg", nil, "further argument for each agent; may be repeated")
	f.StringArrayVar(&config.ControllerArgs, "controller-arg", nil, "further argument for the controller; may be repeated")
	f.BoolVar(&containerdOnly, "containerd-only", false, "start neither controller nor agents")
	f.BoolVar(&empty, "empty", false, "start nothing: nodes are servers to install orch on, with an /etc, /usr/local and /root of their own")
	f.BoolVarP(&quiet, "quiet", "q", false, "do not tell each step")
	return cmd
}

// parseLabels reads NODE:KEY=VALUE.
func parseLabels(words []string) (map[string]map[string]string, error) {
	out := map[string]map[string]string{}
	for _, word := range words {
		node, label, ok := strings.Cut(word, ":")
		key, value, ok2 := strings.Cut(label, "=")
		if !ok || !ok2 || node == "" || key == "" {
			return nil, fmt.Errorf("--label %q: want NODE:KEY=VALUE", word)
		}
		if out[node] == nil {
			out[node] = map[string]string{}
		}
		out[node][key] = value
	}
	return out, nil
}

func (c *common) down() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Take a lab down and leave nothing of it",
		Long: `Take a lab down: its processes, namespaces, links, cgroups and folder with all
data. It works as well for a lab that was half made or whose maker crashed, and
for one that does not exist.`,
		Example: `  orchctl lab down
  orchctl lab down --all`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			names := []string{c.name}
			switch {
			case all && (c.dir != "" || cmd.Flags().Changed("name")):
				return UsageError{fmt.Errorf("--all takes no --name or --dir")}
			case all:
				var err error
				if names, err = lab.List(); err != nil {
					return err
				}
			case c.dir != "" && !cmd.Flags().Changed("name"):
				if l, err := lab.Open(c.dir); err == nil {
					names[0] = l.Name()
				}
			}
			for _, name := range names {
				// An empty folder means the one by the name.
				if err := lab.Remove(cmd.Context(), name, c.dir); err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "lab %s is down\n", name)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "every lab that `orchctl lab list` shows")
	return cmd
}

func list() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the labs on this machine, whole or in part",
		Args:  args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			names, err := lab.List()
			if err != nil {
				return err
			}
			for _, name := range names {
				fmt.Fprintln(cmd.OutOrStdout(), name)
			}
			return nil
		},
	}
}

func (c *common) add() *cobra.Command {
	return &cobra.Command{
		Use:   "add",
		Short: "Add a node and start it",
		Args:  args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := c.open()
			if err != nil {
				return err
			}
			name, err := l.AddNode(cmd.Context())
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s added\n", name)
			return nil
		},
	}
}

func (c *common) status() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what runs in the lab and what is broken",
		Args:  args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "" && output != "json" {
				return UsageError{fmt.Errorf("--output %q: want json, or none for a table", output)}
			}
			l, err := c.open()
			if err != nil {
				return err
			}
			s, err := l.Status(cmd.Context())
			if err != nil {
				return err
			}
			if output == "json" {
				e := json.NewEncoder(cmd.OutOrStdout())
				e.SetIndent("", "  ")
				return e.Encode(s)
			}
			return table(cmd.OutOrStdout(), s)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "json, or a table")
	return cmd
}

func table(out io.Writer, s *lab.Status) error {
	w := tabwriter.NewWriter(out, 0, 8, 3, ' ', 0)
	fmt.Fprintln(w, "HOST\tPOWER\tADDRESS\tPROCESSES")
	hosts := s.Nodes
	if s.Controller != nil {
		hosts = append([]lab.HostStatus{*s.Controller}, hosts...)
	}
	for _, h := range hosts {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", h.Name, h.Power, h.Address, processes(h.Processes))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, f := range s.Faults {
		if _, err := fmt.Fprintln(out, "fault:", f); err != nil {
			return err
		}
	}
	return nil
}

func processes(all []lab.ProcessStatus) string {
	var words []string
	for _, p := range all {
		word := p.Name
		switch {
		case p.Paused:
			word += " (paused)"
		case p.Pid != 0:
		case p.Ended != "":
			word += " (" + p.Ended + ")"
		default:
			word += " (not started)"
		}
		words = append(words, word)
	}
	if len(words) == 0 {
		return "-"
	}
	return strings.Join(words, ", ")
}
