package main

import (
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/orchctl/orch/agent/ctrd"
	"github.com/orchctl/orch/internal/daemon"
	"github.com/orchctl/orch/internal/metrics"
	"github.com/orchctl/orch/internal/network"
	"github.com/orchctl/orch/internal/pki"
	"github.com/orchctl/orch/internal/preflight"
)

func checkCommand() *cobra.Command {
	var f flags
	var output string
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Look whether this machine can be a node, and say what to do where it cannot",
		Long: `Look whether this machine can be a node, with the settings that the agent would
have: kernel, cgroups, containerd, CNI plugins, ports, clock, disk, ranges, controllers.
Nothing is changed. It ends with 1 if anything fails; warnings do not count.`,
		Example: "  agent check\n  agent check --join 10.0.0.1:7070 -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "" && output != "json" {
				return daemon.Usagef("-o %s: want json, or nothing for a table", output)
			}
			return check(cmd.Context(), f, output, cmd.OutOrStdout())
		},
	}
	daemon.Prepare(cmd, os.LookupEnv)
	f.addTo(cmd.Flags())
	cmd.Flags().StringVarP(&output, "output", "o", "", "json, or a table")
	return cmd
}

func check(ctx context.Context, f flags, output string, out io.Writer) error {
	var r preflight.Report
	s, err := f.check()
	switch {
	case len(f.join) == 0:
		r = append(r, preflight.Finding{Check: "settings", Level: preflight.Warn, What: "no controllers to join", Remedy: "say --join, or join: in the file that --config names"})
	case err != nil:
		r = append(r, preflight.Finding{Check: "settings", Level: preflight.Fail, What: err.Error(), Remedy: "mend the flag, or the line of the file that --config names"})
	}
	_, err = pki.Files{Dir: filepath.Join(f.data, "pki")}.Load()
	joined := err == nil
	facts := preflight.Look(ctx, preflight.Ask{
		Node: true, CNIBin: f.cniBin, Data: f.data, Reach: f.join, Routes: true, Ports: f.ports(s.addr),
		Runtime: func(ctx context.Context) (string, error) { return ctrd.Probe(ctx, f.containerd) },
	})
	return append(r, preflight.Agent(f.preflight(joined), facts)...).Print(out, output)
}

// preflight is what the agent's settings mean for the machine.
func (f flags) preflight(joined bool) preflight.AgentSettings {
	s := preflight.AgentSettings{Name: f.name, Joined: joined, ImagesFull: uint64(max(0, f.imageGCHigh))}
	if !joined { // afterwards routes in them are orch's, and the agent knows what the ranges are
		usual := network.DefaultCluster()
		s.Ranges = []netip.Prefix{usual.Nodes, usual.Services}
	}
	return s
}

// ports are those that the agent will listen at.
func (f flags) ports(own netip.Addr) []preflight.Port {
	var out []preflight.Port
	if f.gossipPort != 0 {
		host := ""
		if own.IsValid() {
			host = own.String()
		}
		at := net.JoinHostPort(host, strconv.Itoa(f.gossipPort))
		out = append(out, preflight.Port{What: "gossip", Network: "tcp", Address: at, Flag: "--gossip-port"},
			preflight.Port{What: "gossip", Network: "udp", Address: at, Flag: "--gossip-port"})
	}
	if f.metricsAddr != metrics.Off {
		out = append(out, preflight.Port{What: "metrics", Network: "tcp", Address: f.metricsAddr, Flag: "--metrics-addr"})
	}
	for _, x := range []struct {
		what string
		port int
	}{{"names", 53}, {"orchctl net check", network.CheckPort}} {
		for _, kind := range []string{"tcp", "udp"} {
			out = append(out, preflight.Port{What: x.what, Network: kind, Address: net.JoinHostPort("", strconv.Itoa(x.port)), Everywhere: true})
		}
	}
	return out
}
