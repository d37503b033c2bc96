package orchctl

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/orchctl/orch/internal/clientconfig"
	"github.com/orchctl/orch/internal/drill"
	"github.com/orchctl/orch/internal/lab/labcmd"
	"github.com/orchctl/orch/internal/version"
)

// requestTimeout is the default of --request-timeout: an election takes about a
// second, a controller's restart a few.
const requestTimeout = 30 * time.Second

// tool is one run of orchctl.
type tool struct {
	Env
	config, context, namespace string
	timeout                    time.Duration
	// started is set when a command line was understood: what fails after it is
	// no bad usage.
	started bool
	args    []string
	warned  bool // of a certificate that ends soon
	cluster *Cluster
	// endTrace ends what beginTrace began; nil: nothing.
	endTrace func(error)
	close    []func() error
}

func requestID() string { return "orchctl-" + rand.Text() }

// Run runs one command line and gives the exit code.
func Run(ctx context.Context, env Env, args []string) int {
	t := &tool{Env: env, args: args}
	root := t.tree()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if t.endTrace != nil {
		t.endTrace(err)
	}
	for _, c := range t.close {
		_ = c() // nothing more is asked of the connection
	}
	return t.report(err)
}

// Main runs the process's own command line; a second interrupt ends it at once.
func Main() int {
	ctx, stop := interrupts(context.Background())
	defer stop()
	return Run(ctx, FromOS(), os.Args[1:])
}

// tree makes the commands.
func (t *tool) tree() *cobra.Command {
	root := &cobra.Command{
		Use:   "orchctl",
		Short: "Run containers on a fleet of servers",
		Long: `orchctl tells an orch cluster what to run, and shows what runs.

Exit codes: 0 done, 1 failed, 2 bad usage or manifest; of run, exec and attach those of
the command.`,
		Example: `  orchctl apply -f web.yaml          # make it so, and wait until it is ready
  orchctl get services               # what is declared, and how much of it is ready
  orchctl get replicas -o wide       # what runs where
  orchctl run --rm busybox:1.36 -- echo hello   # once, as a job
  orchctl describe service web       # why something is not ready
  orchctl logs -f service/web        # what it prints`,
		Version:       version.String(),
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          noSuchCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			t.started = true
			t.beginTrace(cmd)
			return nil
		},
	}
	root.SetIn(t.In)
	root.SetOut(t.Out)
	root.SetErr(t.Err)
	root.SetFlagErrorFunc(t.flagError)
	f := root.PersistentFlags()
	f.StringVar(&t.config, "config", "", "context file (default $"+clientconfig.EnvPath+" or ~/.config/orch/config.yaml)")
	f.StringVar(&t.context, "context", "", "context of that file to use (default: its current one)")
	f.StringVarP(&t.namespace, "namespace", "n", "", "namespace (default: the context's, else default)")
	f.DurationVar(&t.timeout, "request-timeout", requestTimeout, "time that one request may take, its repetitions included; 0 for no limit")
	t.complete(root, "context", t.completeContexts)

	root.AddGroup(&cobra.Group{ID: "use", Title: "Services, jobs and what runs:"}, &cobra.Group{ID: "fleet", Title: "The fleet:"}, &cobra.Group{ID: "other", Title: "This program:"})
	add := func(group string, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add("use", t.applyCmd(), t.createCmd(), t.deleteCmd(), t.getCmd(), t.describeCmd(), t.runCmd(), t.logsCmd(), t.execCmd(), t.attachCmd(), t.portForwardCmd(), t.waitCmd(), t.scaleCmd(), t.eventsCmd(), t.rolloutCmd(), t.historyCmd(), t.diffCmd(), t.volumeCmd(), t.secretCmd())
	add("fleet", t.wordCmd("", "cordon"), t.drainCmd(), t.wordCmd("", "uncordon"), t.rebalanceCmd(), t.topCmd(), t.netCmd(), t.nodeCmd(), t.fleetCmd(), t.imageCmd(), t.tokenCmd(), t.userCmd(), t.caCmd(), t.gossipCmd(), t.backupCmd(), labcmd.New(), drill.Command())
	add("other", t.configCmd(), t.schemaCmd(), t.versionCmd())
	root.SetHelpCommandGroupID("other")
	root.SetCompletionCommandGroupID("other")
	return root
}

// group makes a command that only holds others.
func group(use, short, example string, subs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Example: example, Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(subs...)
	return cmd
}

// suggestWithin is how many letters may differ for a word to be meant.
const suggestWithin = 2

// foreignCommands are words of other systems, some behind the command they are given to, and
// what does it here.
var foreignCommands = map[string]string{
	"ps":              "did you mean `orchctl get replicas`?",
	"status":          "did you mean `orchctl get services`?",
	"services":        "did you mean `orchctl get services`?",
	"jobs":            "did you mean `orchctl get jobs`?",
	"nodes":           "did you mean `orchctl get nodes`?",
	"inspect":         "did you mean `orchctl describe`?",
	"edit":            "use `orchctl get TYPE/NAME -o yaml`, and `orchctl apply -f` what you edited",
	"rollback":        "did you mean `orchctl rollout undo service/NAME`?",
	"history":         "did you mean `orchctl history service/NAME`?",
	"undo":            "did you mean `orchctl rollout undo service/NAME`?",
	"restart":         "did you mean `orchctl rollout restart service/NAME`?",
	"stop":            "did you mean `orchctl scale service/NAME --replicas 0`, or `orchctl delete`?",
	"cordon":          "did you mean `orchctl cordon NODE`?",
	"uncordon":        "did you mean `orchctl uncordon NODE`?",
	"drain":           "did you mean `orchctl drain NODE`?",
	"forward":         "did you mean `orchctl port-forward`?",
	"ping":            "did you mean `orchctl net check`?",
	"thaw":            "did you mean `orchctl fleet thaw`?",
	"unfreeze":        "did you mean `orchctl fleet thaw`?",
	"freeze":          "verdicts freeze by themselves when many nodes vanish at once; `orchctl describe fleet` shows it",
	"verdicts":        "did you mean `orchctl get verdicts --node NODE`?",
	"config ls":       "did you mean `orchctl get configs`?",
	"config list":     "did you mean `orchctl get configs`?",
	"config create":   "did you mean `orchctl create config`?",
	"secret ls":       "did you mean `orchctl get secrets`?",
	"secret list":     "did you mean `orchctl get secrets`?",
	"secret create":   "did you mean `orchctl create secret`?",
	"create job":      "use `orchctl run IMAGE`, or `orchctl apply -f` with a manifest",
	"configmap":       "did you mean `orchctl create config`?",
	"cm":              "did you mean `orchctl create config`?",
	"job":             "did you mean `orchctl get jobs`, or `orchctl run`?",
	"stats":           "did you mean `orchctl top replicas`?",
	"top pods":        "did you mean `orchctl top replicas`?",
	"top pod":         "did you mean `orchctl top replicas`?",
	"top services":    "use `orchctl top replicas NAME`: what a service uses is what its replicas use",
	"top service":     "use `orchctl top replicas NAME`: what a service uses is what its replicas use",
	"top jobs":        "use `orchctl top replicas NAME`: what a job uses is what its tries use",
	"top job":         "use `orchctl top replicas NAME`: what a job uses is what its tries use",
	"top containers":  "did you mean `orchctl top replicas --containers`?",
	"current-context": "did you mean `orchctl config get-contexts`?",
}

// noSuchCommand refuses arguments of a command that only holds others.
func noSuchCommand(cmd *cobra.Command, words []string) error {
	if len(words) == 0 {
		return nil
	}
	cmd.SuggestionsMinimumDistance = suggestWithin
	ours, ok := foreignCommands[cmd.Name()+" "+words[0]]
	if !ok {
		ours, ok = foreignCommands[words[0]]
	}
	if ok {
		return usagef("unknown command %q for %q; %s", words[0], cmd.CommandPath(), ours)
	}
	if near := cmd.SuggestionsFor(words[0]); len(near) > 0 {
		return usagef("unknown command %q for %q; did you mean %q?", words[0], cmd.CommandPath(), near[0])
	}
	return usagef("unknown command %q for %q; `%s --help` lists them", words[0], cmd.CommandPath(), cmd.CommandPath())
}

// useCluster finds the cluster once.
func (t *tool) useCluster() (*Cluster, error) {
	if t.cluster != nil {
		return t.cluster, nil
	}
	c, err := t.Cluster(t.config, t.context)
	if err != nil {
		return nil, err
	}
	t.cluster = &c
	return t.cluster, nil
}

// space is the namespace that is meant where an argument names none.
func (t *tool) space() string {
	if t.namespace != "" {
		return t.namespace
	}
	if c, err := t.useCluster(); err == nil && c.Namespace != "" {
		return c.Namespace
	}
	return "default"
}

// printf writes to Out.
func (t *tool) printf(format string, args ...any) error {
	_, err := fmt.Fprintf(t.Out, format, args...)
	return err
}

// warnf tells on Err what is no failure.
func (t *tool) warnf(format string, args ...any) {
	fmt.Fprintf(t.Err, "orchctl: "+format+"\n", args...)
}
