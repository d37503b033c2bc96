package orchctl

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

type scaling struct {
	replicas, current int32
	wait              bool
	timeout           time.Duration
}

func (t *tool) scaleCmd() *cobra.Command {
	var s scaling
	cmd := &cobra.Command{
		Use:   "scale service/NAME --replicas N",
		Short: "Change how many replicas a service has",
		Example: `  orchctl scale service/web --replicas 5
  orchctl scale service/web --replicas 5 --current-replicas 3   # only if it has 3 now
  orchctl scale service/web --replicas 5 --wait`,
		ValidArgsFunction: beginning(t.completeTargets(api.KindService)),
		Args: func(cmd *cobra.Command, words []string) error {
			if len(words) == 0 {
				return usagef("an argument is missing\nusage: %s", cmd.UseLine())
			}
			return bareNumber(words)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			x, err := t.oneService(args, aboutScale)
			if err != nil {
				return err
			}
			if !cmd.Flags().Changed("replicas") {
				return usagef("say how many with --replicas, as in `orchctl scale %s --replicas=3`", strings.Join(args, " "))
			}
			if s.replicas < 0 {
				return usagef("--replicas %d: want 0 or more", s.replicas)
			}
			if cmd.Flags().Changed("current-replicas") && s.current < 0 {
				return usagef("--current-replicas %d: want 0 or more", s.current)
			}
			return t.scale(cmd.Context(), x, s)
		},
	}
	f := cmd.Flags()
	f.Int32Var(&s.replicas, "replicas", 0, "how many replicas to have")
	f.Int32Var(&s.current, "current-replicas", -1, "fail unless it has this many now")
	f.BoolVar(&s.wait, "wait", false, "wait until that many are ready")
	f.DurationVar(&s.timeout, "timeout", waitTimeout, "how long to wait; 0 for no limit")
	return cmd
}

// bareNumber answers who gives the number without its flag: `scale service/web 2`.
func bareNumber(words []string) error {
	last := len(words) - 1
	if _, err := strconv.Atoi(words[last]); err != nil || last == 0 {
		return nil
	}
	if kind, err := parseKind(words[0]); err == nil && kind == api.KindService && last == 1 {
		return nil // `scale service 2`: that is its name
	}
	return usagef("unexpected argument %q: say how many with --replicas, as in `orchctl scale %s --replicas=%s`", words[last], strings.Join(words[:last], " "), words[last])
}

func (t *tool) scale(ctx context.Context, x target, s scaling) error {
	client, err := t.connect(ctx, "scale "+x.String(), true)
	if err != nil {
		return err
	}
	request := &orchv1.ScaleRequest{Namespace: x.namespace, Name: x.name, Replicas: s.replicas, CurrentReplicas: s.current, RequestId: t.RequestID()}
	send := func() (*orchv1.ApplyResponse, error) {
		answer, err := change(ctx, t, "scale "+x.String(), operator, func(ctx context.Context) (*orchv1.ApplyResponse, error) { return client.Scale(ctx, request) })
		for _, a := range answer.GetApplied() {
			if a.Outcome == "configured" {
				a.Outcome = "scaled"
			}
		}
		return answer, err
	}
	if s.wait {
		return t.applyAndWait(ctx, client, listsOf([]string{x.namespace}), s.timeout, send)
	}
	answer, err := send()
	if err != nil {
		return t.unsure(ctx, err, "scale "+x.String())
	}
	for _, a := range answer.GetApplied() {
		to := " to "
		if a.GetOutcome() == "unchanged" {
			to = ": it has "
		}
		if err := t.printf("%s %s%s%s\n", x, a.GetOutcome(), to, count(int(s.replicas), "replica")); err != nil {
			return err
		}
	}
	return nil
}
