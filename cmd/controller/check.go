package main

import (
	"context"
	"io"
	"net/netip"
	"os"

	"github.com/spf13/cobra"

	"github.com/orchctl/orch/internal/daemon"
	"github.com/orchctl/orch/internal/metrics"
	"github.com/orchctl/orch/internal/preflight"
	"github.com/orchctl/orch/internal/store/etcd"
)

func checkCommand() *cobra.Command {
	c, output := &config{}, ""
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Look whether this machine can run a controller, and say what to do where it cannot",
		Long: `Look whether this machine can run a controller, with the settings that the
controller would have: data folder, speed of its disk, ports, clock, ranges, open files.
Nothing is changed. It ends with 1 if anything fails; warnings do not count.`,
		Example: "  controller check\n  controller check --data /srv/orch -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "" && output != "json" {
				return daemon.Usagef("-o %s: want json, or nothing for a table", output)
			}
			return c.check(cmd.Context(), output, cmd.OutOrStdout())
		},
	}
	daemon.Prepare(cmd, os.LookupEnv)
	c.addTo(cmd.Flags())
	cmd.Flags().StringVarP(&output, "output", "o", "", "json, or a table")
	return cmd
}

func (c *config) check(ctx context.Context, output string, out io.Writer) error {
	var r preflight.Report
	if err := c.complete(); err != nil {
		r = append(r, preflight.Finding{Check: "settings", Level: preflight.Fail, What: err.Error(), Remedy: "mend the flag, or the line of the file that --config names"})
	}
	facts := preflight.Look(ctx, preflight.Ask{Data: c.data, Routes: true, Ports: c.ports()})
	r = append(r, preflight.Controller(c.preflight(), facts)...)
	if c.etcd.external() {
		r = append(r, c.etcd.look(ctx)...)
	}
	return r.Print(out, output)
}

// preflight is what the controller's settings mean for the machine.
func (c *config) preflight() preflight.ControllerSettings {
	return preflight.ControllerSettings{Name: c.name, External: c.etcd.external(), Quota: etcd.QuotaDefault,
		Ranges: []netip.Prefix{c.network.cluster.Nodes, c.network.cluster.Services}}
}

// ports are those that the controller will listen at.
func (c *config) ports() []preflight.Port {
	out := []preflight.Port{{What: "agents and users", Network: "tcp", Address: c.listen, Flag: "--listen"}}
	if c.gossipAddr != "" && c.gossipAddr != gossipOff {
		out = append(out, preflight.Port{What: "gossip", Network: "tcp", Address: c.gossipAddr, Flag: "--gossip-addr"},
			preflight.Port{What: "gossip", Network: "udp", Address: c.gossipAddr, Flag: "--gossip-addr"})
	}
	if c.metricsAddr != metrics.Off {
		out = append(out, preflight.Port{What: "metrics", Network: "tcp", Address: c.metricsAddr, Flag: "--metrics-addr"})
	}
	return out
}
