package orchctl

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// completionTimeout bounds what a press of the tab key may wait for.
const completionTimeout = 2 * time.Second

var allKinds = []string{api.KindService, api.KindJob, api.KindReplica, api.KindConfig, api.KindSecret, api.KindVolume, api.KindOutcome, api.KindEndpoint, api.KindNode, api.KindEvent, api.KindVerdict, api.KindFleet}

type completer = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective)

// complete sets a flag's completion. The flag is ours: an error is a slip.
func (t *tool) complete(cmd *cobra.Command, flag string, f completer) {
	if err := cmd.RegisterFlagCompletionFunc(flag, beginning(f)); err != nil {
		panic(err)
	}
}

// beginning leaves only what begins with the word at hand: not every shell does.
func beginning(f completer) completer {
	return func(cmd *cobra.Command, given []string, part string) ([]string, cobra.ShellCompDirective) {
		all, directive := f(cmd, given, part)
		return slices.DeleteFunc(all, func(s string) bool { return !strings.HasPrefix(s, part) }), directive
	}
}

func without(all, given []string) []string {
	return slices.DeleteFunc(all, func(s string) bool { return slices.Contains(given, s) })
}

// names asks for the names of a kind; without an answer there are none.
func (t *tool) names(cmd *cobra.Command, kind string) []string {
	switch kind {
	case api.KindVerdict, api.KindOutcome: // a hundred per node, ten thousand per job: nobody looks through them
		return nil
	case api.KindEndpoint: // they are asked for by their service
		kind = api.KindService
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
	defer cancel()
	client, err := t.connect(ctx, "complete", false)
	if err != nil {
		return nil
	}
	answer, err := client.List(ctx, &orchv1.ListRequest{Kind: kind, Namespace: t.target(kind, "").namespace})
	if err != nil {
		return nil
	}
	list, err := decodeAll(answer.GetObjects())
	if err != nil {
		return nil
	}
	slices.SortFunc(list, compareObjects)
	var out []string
	for _, o := range list {
		out = append(out, o.name())
	}
	return slices.Compact(out)
}

// completeNames completes names of one kind.
func (t *tool) completeNames(kind string) completer {
	return func(cmd *cobra.Command, given []string, _ string) ([]string, cobra.ShellCompDirective) {
		return without(t.names(cmd, kind), given), cobra.ShellCompDirectiveNoFileComp
	}
}

// completeFirst completes the first argument only.
func (t *tool) completeFirst(kind string) completer {
	return func(cmd *cobra.Command, given []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(given) > 0 {
			return nil, cobra.ShellCompDirectiveDefault
		}
		return t.names(cmd, kind), cobra.ShellCompDirectiveNoFileComp
	}
}

// completeTargets completes `service web` and `service/web`.
func (t *tool) completeTargets(kinds ...string) completer {
	return func(cmd *cobra.Command, given []string, part string) ([]string, cobra.ShellCompDirective) {
		if head, _, ok := strings.Cut(part, "/"); ok {
			kind, err := parseKind(head)
			if err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return t.slashed(cmd, kind, head), cobra.ShellCompDirectiveNoFileComp
		}
		if len(given) == 0 {
			var out []string
			for _, k := range kinds {
				out = append(out, word(k), words(k))
			}
			return slices.Compact(out), cobra.ShellCompDirectiveNoFileComp
		}
		kind, err := parseKind(given[0])
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return without(t.names(cmd, kind), given), cobra.ShellCompDirectiveNoFileComp
	}
}

func (t *tool) slashed(cmd *cobra.Command, kind, head string) []string {
	var out []string
	for _, n := range t.names(cmd, kind) {
		out = append(out, head+"/"+n)
	}
	return out
}

// completeSlashed completes `service/web` alone.
func (t *tool) completeSlashed(cmd *cobra.Command, _ []string, part string) ([]string, cobra.ShellCompDirective) {
	if head, _, ok := strings.Cut(part, "/"); ok {
		if kind, err := parseKind(head); err == nil {
			return t.slashed(cmd, kind, head), cobra.ShellCompDirectiveNoFileComp
		}
	}
	var out []string
	for _, k := range []string{api.KindService, api.KindJob, api.KindReplica, api.KindConfig, api.KindSecret, api.KindVolume, api.KindNode} {
		out = append(out, word(k)+"/")
	}
	return out, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}

// completeReplicaOrService completes the argument of logs: a replica, or all of a
// service or a job.
func (t *tool) completeReplicaOrService(cmd *cobra.Command, given []string, part string) ([]string, cobra.ShellCompDirective) {
	if len(given) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	if strings.Contains(part, "/") {
		return t.completeSlashed(cmd, given, part)
	}
	out := append(t.names(cmd, api.KindReplica), t.slashed(cmd, api.KindService, "service")...)
	return append(out, t.slashed(cmd, api.KindJob, "job")...), cobra.ShellCompDirectiveNoFileComp
}

// completeContexts completes names of contexts.
func (t *tool) completeContexts(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	file, err := loadConfig(t.config)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for _, c := range file.Contexts {
		out = append(out, c.Name)
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}
