package orchctl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// awaited are the conditions of `wait`, and the kinds that can meet them.
var awaited = map[string][]string{
	"complete": {api.KindJob},
	"failed":   {api.KindJob},
	"ready":    {api.KindService},
	"deleted":  {api.KindService, api.KindJob, api.KindConfig, api.KindSecret, api.KindVolume},
}

func (t *tool) waitCmd() *cobra.Command {
	var condition string
	timeout := waitTimeout
	cmd := &cobra.Command{
		Use:   "wait TYPE/NAME... --for CONDITION",
		Short: "Wait until jobs are complete, services are ready, or something is deleted",
		Long: `Wait until all that is named meets a condition: complete or failed of jobs, ready of
services, deleted of anything.

Exit codes: 0 it does, 1 it does not within --timeout, or never will.`,
		Example: `  orchctl wait job/migrate --for complete
  orchctl wait service/web service/api --for ready --timeout 2m
  orchctl wait service/old --for deleted`,
		ValidArgsFunction: beginning(t.completeTargets(deletableKinds...)),
		RunE: func(cmd *cobra.Command, args []string) error {
			targets, err := t.parseTargets(args)
			if err != nil {
				return err
			}
			condition = strings.TrimPrefix(strings.ToLower(condition), "condition=")
			if condition == "delete" {
				condition = "deleted"
			}
			kinds, ok := awaited[condition]
			if !ok && condition == "" {
				return usagef("say what to wait for: --for complete, failed, ready or deleted")
			}
			if !ok {
				return usagef("--for %q: want complete, failed, ready or deleted", condition)
			}
			for _, x := range targets {
				if x.name == "" {
					return usagef("name what to wait for, such as %s/web", word(x.kind))
				}
				if !slices.Contains(kinds, x.kind) {
					return usagef("a %s does not become %s: --for %s is of a %s", word(x.kind), condition, condition, word(kinds[0]))
				}
			}
			return t.await(cmd.Context(), targets, condition, timeout)
		},
	}
	f := cmd.Flags()
	f.StringVar(&condition, "for", "", "what to wait for: complete, failed, ready or deleted")
	f.DurationVar(&timeout, "timeout", waitTimeout, "how long to wait for all; 0 for no limit")
	t.complete(cmd, "for", cobra.FixedCompletions([]string{"complete", "failed", "ready", "deleted"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (t *tool) await(ctx context.Context, targets []target, condition string, timeout time.Duration) error {
	client, err := t.connect(ctx, "wait", false)
	if err != nil {
		return err
	}
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	for _, x := range targets {
		last, err := t.awaitOne(ctx, client, x, condition)
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			err = fmt.Errorf("%s is not %s within %s%s", x, condition, short(timeout), last)
		} else if ctx.Err() != nil {
			err = fmt.Errorf("interrupted: %s is not %s yet%s", x, condition, last)
		}
		if err != nil {
			return err
		}
		if err := t.printf("%s is %s\n", x, condition); err != nil {
			return err
		}
	}
	return nil
}

// errMet ends a watch that has seen its condition met.
var errMet = errors.New("met")

// awaitOne returns when the condition is met; last tells how far it was.
func (t *tool) awaitOne(ctx context.Context, client orchv1.OrchClient, x target, condition string) (last string, err error) {
	there := false
	err = t.follow(ctx, client, &orchv1.ListRequest{Kind: x.kind, Namespace: x.namespace}, func(n news, o object) error {
		switch {
		case n == synced && there, n != synced && o.name() != x.name:
			return nil
		case n == synced || n == gone:
			there = false
			if condition == "deleted" {
				return errMet
			}
			return fmt.Errorf("%s is not there", x)
		}
		there = true
		met, how, never := meets(o, condition)
		last = ": " + how
		switch {
		case met:
			return errMet
		case never:
			return fmt.Errorf("%s %s", x, how)
		}
		return nil
	})
	if errors.Is(err, errMet) {
		err = nil
	}
	return last, err
}

// meets tells whether an object meets a condition, how far it is, and whether it never
// will.
func meets(o object, condition string) (met bool, how string, never bool) {
	switch v := o.value.(type) {
	case *api.Job:
		how = fmt.Sprintf("%d/%d done", v.Status.Succeeded, v.Spec.Want())
		switch {
		case condition == "deleted":
		case v.Status.State == api.JobFailed:
			return condition == "failed", "failed: " + whyText(v.Status.Why), true
		case v.Status.State == api.JobComplete:
			return condition == "complete", "is complete", true
		}
	case *api.Service:
		st, want := v.Status, wanted(v)
		how = fmt.Sprintf("%d/%d ready", st.UpdatedReady, want)
		switch {
		case condition == "deleted":
		case st.Rollout.State == api.RolloutFailed:
			return false, fmt.Sprintf("revision %d could not be rolled out: %s", st.Revision, whyText(st.Rollout.Why)), true
		case st.Rollout.State == "" || st.Rollout.State == api.RolloutComplete:
			return st.UpdatedReady >= want && st.Ready >= want, how, false
		}
	default:
		how = "it is still there"
	}
	return false, how, false
}
