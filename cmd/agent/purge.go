package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/orchctl/orch/agent"
	"github.com/orchctl/orch/agent/ctrd"
	"github.com/orchctl/orch/agent/netdev"
	"github.com/orchctl/orch/agent/netdev/netfilter"
	"github.com/orchctl/orch/internal/daemon"
)

func purgeCommand() *cobra.Command {
	var f flags
	var yes, volumes bool
	cmd := &cobra.Command{
		Use:   "purge",
		Short: "Take everything that orch made from this node, after it was removed",
		Long: `Take everything that orch made from this node: its containers, which are given
their grace, networks, routes and rules, and the agent's folder with its identity.
Images stay, and so do volumes unless --volumes says otherwise. Drain the node, stop its agent and say "orchctl node remove" before.`,
		Example: "  agent purge --yes",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return purge(cmd.Context(), f, yes, volumes, cmd.OutOrStdout())
		},
	}
	daemon.Prepare(cmd, os.LookupEnv)
	p := cmd.Flags()
	p.StringVar(&f.data, "data", defaultData, "folder of the agent's own")
	p.StringVar(&f.containerd, "containerd", defaultContainerd, "containerd's socket")
	p.StringVar(&f.shim, "shim", "", "path of the shim program; default: beside the agent")
	p.StringVar(&f.cniBin, "cni-bin", "", "folder of the CNI plugins; default: /usr/lib/cni or /opt/cni/bin")
	p.BoolVar(&volumes, "volumes", false, "delete volumes, too, with what is in them")
	p.BoolVar(&yes, "yes", false, "do it; without it, say what would be done")
	return cmd
}

func purge(ctx context.Context, f flags, yes, volumes bool, out io.Writer) error {
	s := settings{flags: f}
	var err error
	if s.data, err = filepath.Abs(f.data); err != nil {
		return daemon.Usagef("--data: %w", err)
	}
	if err := s.findPrograms(); err != nil {
		return err
	}
	if err := os.MkdirAll(s.data, 0o700); err != nil {
		return fmt.Errorf("make data folder: %w", err)
	}
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	runtime, err := ctrd.Dial(ctx, ctrd.Config{Address: s.containerd, ShimPath: s.shim, LogDir: filepath.Join(s.data, "logs"), Logger: logger})
	if err != nil {
		return fmt.Errorf("%w; is containerd running? --containerd says where its socket is", err)
	}
	defer runtime.Close()
	l := agent.Leftovers{Data: s.data, Volumes: volumes, Runtime: runtime, Memory: runtime, Rules: netfilter.New(localnetMarker), Say: func(format string, args ...any) { fmt.Fprintf(out, format+"\n", args...) }}
	if !yes {
		list, err := l.Containers(ctx)
		if err != nil {
			return err
		}
		for _, o := range list {
			l.Say("container %s", o.ID)
		}
		but := " but for its volumes"
		if volumes {
			but = " with its volumes"
		}
		return daemon.Usagef("this would end these %d containers, take replicas' networks, routes and rules from the kernel, and empty %s%s: say --yes", len(list), s.data, but)
	}
	l.Network = func() (agent.Leaver, error) { // the node's own address is of no account: nothing is configured
		return netdev.New(netdev.Config{CNIBin: s.cniBin, StateDir: filepath.Join(s.data, "net"), NetNSDir: netnsDir, Address: netip.AddrFrom4([4]byte{127, 0, 0, 1}), Logger: logger})
	}
	return l.Purge(ctx)
}
