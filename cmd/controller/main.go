package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/orchctl/orch/internal/audit"
	"github.com/orchctl/orch/internal/daemon"
	"github.com/orchctl/orch/internal/metrics"
	"github.com/orchctl/orch/internal/registry"
	"github.com/orchctl/orch/internal/tracing"
	"github.com/orchctl/orch/internal/version"
)

// defaultData is where a controller keeps its things if nothing is said.
const defaultData = "/var/lib/orch/controller"

func main() { daemon.Main(command()) }

// config is what the flags say.
type config struct {
	data, listen, socket, advertise, name, cluster string
	adminContext, contextName, nodeTokenFile       string
	secretsKey                                     string
	gossipAddr, pprofAddr, metricsAddr, logLevel   string
	clusterSaid                                    bool // --cluster was given
	etcd                                           etcdFlags
	auditLog                                       string
	auditRequired                                  bool
	registryConfig, registryAuth                   string
	insecureRegistries                             []string
	limits                                         limits
	network                                        networkFlags
	trace                                          tracing.Flags
}

func command() *cobra.Command {
	c := &config{}
	cmd := &cobra.Command{
		Use:     "controller",
		Short:   "Run orch's control plane",
		Long:    "Run orch's control plane. Every flag can also be given as an environment variable (--node-token-file is " + daemon.EnvPrefix + "NODE_TOKEN_FILE) or as a key of the file that --config names (node-token-file: ...).",
		Version: version.String(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			level := slog.LevelInfo
			if err := level.UnmarshalText([]byte(c.logLevel)); err != nil {
				return daemon.Usagef("--log-level %q: want debug, info, warn or error", c.logLevel)
			}
			log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
			c.clusterSaid = cmd.Flags().Changed("cluster")
			if err := c.complete(); err != nil {
				return daemon.Usagef("%w", err)
			}
			return run(cmd.Context(), c, cmd.OutOrStdout(), log)
		},
	}
	cmd.SetVersionTemplate("controller {{.Version}}\n")
	daemon.Prepare(cmd, os.LookupEnv)
	cmd.CompletionOptions.DisableDefaultCmd = true
	cmd.AddCommand(limitsCommand(), checkCommand(), restoreCommand())
	c.addTo(cmd.Flags())
	daemon.ConfigFile(cmd, "/etc/orch/controller.yaml")
	return cmd
}

// addTo defines the flags.
func (c *config) addTo(f *pflag.FlagSet) {
	hostname, _ := os.Hostname()
	f.StringVar(&c.data, "data", defaultData, "`folder` of etcd's data, keys and images")
	f.StringVar(&c.listen, "listen", ":7070", "`address` to serve users and agents at")
	f.StringVar(&c.socket, "socket", "", "also serve at this unix socket `file`")
	f.StringVar(&c.advertise, "advertise", "", "`host:port` where others reach this controller (default: from --listen and the host's addresses)")
	f.StringVar(&c.name, "name", strings.ToLower(hostname), "this controller's `name`, unique among controllers")
	f.StringVar(&c.cluster, "cluster", "orch", "`name` of the cluster, at its first start")
	f.StringVar(&c.adminContext, "write-admin-context", "", "`file` to write the admin's context to (default ~/.config/orch/config.yaml)")
	f.StringVar(&c.contextName, "context-name", "", "`name` of that context (default: the cluster's)")
	f.StringVar(&c.nodeTokenFile, "node-token-file", "", "`file` to write a join token for nodes to (default <data>/node-token)")
	f.StringVar(&c.secretsKey, "secrets-key", "", "`file` of the keys that Secrets are encrypted with, made at the first start (default <data>/secrets.key)")
	f.StringVar(&c.gossipAddr, "gossip-addr", "", "`address` for gossip, or \"off\" (default: the advertised host, port 7946)")
	c.etcd.addTo(f)
	f.StringVar(&c.auditLog, "audit-log", "", "`file` for a line of JSON of every change and every refused attempt; \"-\" is standard output, \"off\" none (default <data>/audit.log)")
	f.BoolVar(&c.auditRequired, "audit-required", false, "refuse changes that cannot be written to the audit log")
	f.StringVar(&c.logLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&c.pprofAddr, "pprof-addr", "", "serve profiles at this loopback `address`")
	f.StringVar(&c.metricsAddr, "metrics-addr", "127.0.0.1:7073", "`address` to serve /metrics, /healthz and /readyz at, in plain HTTP, or \"off\"")
	f.StringSliceVar(&c.insecureRegistries, "insecure-registry", nil, "`registry` that may be asked without TLS, as host:port")
	f.StringVar(&c.registryConfig, "registry-config", registry.DefaultHostsDir, "`folder` with registries' settings: HOST/hosts.toml as containerd reads it, or HOST/*.crt, *.cert and *.key")
	f.StringVar(&c.registryAuth, "registry-auth", "/etc/orch/registry-auth.json", "`file` with logins to registries, as docker login writes it; need not exist")
	c.limits.addTo(f)
	c.network.addTo(f)
	c.trace.AddTo(f)
}

// complete checks what flags say together and fills in what they leave out.
func (c *config) complete() (err error) {
	if c.data, err = filepath.Abs(c.data); err != nil {
		return err
	}
	if c.socket != "" {
		if c.socket, err = filepath.Abs(c.socket); err != nil {
			return err
		}
		if len(c.socket) > socketPathMax {
			return fmt.Errorf("--socket %s: %d bytes, the kernel takes %d: choose a shorter path", c.socket, len(c.socket), socketPathMax)
		}
	}
	if c.nodeTokenFile == "" {
		c.nodeTokenFile = filepath.Join(c.data, "node-token")
	}
	if c.secretsKey == "" {
		c.secretsKey = filepath.Join(c.data, "secrets.key")
	}
	switch c.auditLog {
	case "":
		c.auditLog = filepath.Join(c.data, "audit.log")
	case audit.Off:
		if c.auditRequired {
			return errors.New("--audit-required and --audit-log off exclude each other")
		}
	}
	if err := c.etcd.check(); err != nil {
		return err
	}
	if err := metrics.CheckAddress("--metrics-addr", c.metricsAddr); err != nil {
		return err
	}
	if err := registry.CheckInsecure(c.insecureRegistries); err != nil {
		return daemon.Usagef("--insecure-registry %w", err)
	}
	if err := c.limits.check(); err != nil {
		return err
	}
	if err := c.network.complete(); err != nil {
		return err
	}
	return c.completeAddresses()
}
