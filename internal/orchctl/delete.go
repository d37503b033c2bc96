package orchctl

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

type deleting struct {
	files         []string
	ignoreMissing bool
	wait          bool
	timeout       time.Duration
}

func (t *tool) deleteCmd() *cobra.Command {
	var d deleting
	cmd := &cobra.Command{
		Use:     "delete service NAME... | service/NAME... | -f FILE",
		Aliases: []string{"rm"},
		Short:   "Delete services, and wait until nothing of them runs",
		Example: `  orchctl delete service web
  orchctl delete service/web service/api
  orchctl delete -f web.yaml --ignore-not-found`,
		ValidArgsFunction: beginning(t.completeTargets(api.KindService)),
		Args: func(cmd *cobra.Command, words []string) error {
			if len(words) > 0 == (len(d.files) > 0) {
				return usagef("say what to delete: either service/NAME, or a manifest with -f\nusage: %s", cmd.UseLine())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return t.delete(cmd.Context(), d, args) },
	}
	f := cmd.Flags()
	f.StringArrayVarP(&d.files, "filename", "f", nil, "delete what this manifest declares: a file, a folder, or -; repeatable")
	f.BoolVar(&d.ignoreMissing, "ignore-not-found", false, "what is not there is no failure")
	f.BoolVar(&d.wait, "wait", true, "wait until every replica is gone")
	f.DurationVar(&d.timeout, "timeout", waitTimeout, "how long to wait; 0 for no limit")
	return cmd
}

// deletable gives the targets; only services are deleted.
func (t *tool) deletable(d deleting, args []string) ([]target, error) {
	var targets []target
	if len(d.files) > 0 {
		docs, err := t.loadManifests(d.files, "nothing was deleted")
		if err != nil {
			return nil, err
		}
		for _, doc := range docs {
			targets = append(targets, target{doc.Kind(), doc.Key().Namespace, doc.Key().Name})
		}
		return targets, nil
	}
	targets, err := t.parseTargets(args)
	if err != nil {
		return nil, err
	}
	for _, x := range targets {
		switch {
		case x.kind == api.KindReplica:
			return nil, usagef("a replica belongs to its service, which would replace it: scale the service, as in `orchctl scale service/web --replicas 2`")
		case x.kind == api.KindNode:
			return nil, usagef("a node is taken out with `orchctl node remove NAME`")
		case x.kind != api.KindService:
			return nil, usagef("only services are deleted")
		case x.name == "":
			return nil, usagef("name the services to delete, such as service/web")
		}
	}
	return targets, nil
}

func (t *tool) delete(ctx context.Context, d deleting, args []string) error {
	targets, err := t.deletable(d, args)
	if err != nil {
		return err
	}
	client, err := t.connect(ctx, "delete", true)
	if err != nil {
		return err
	}
	request := &orchv1.DeleteRequest{RequestId: t.RequestID(), IgnoreMissing: d.ignoreMissing}
	for _, x := range targets {
		request.Refs = append(request.Refs, x.ref())
	}
	return t.deleteAll(ctx, client, request, d.wait, d.timeout)
}

// deleteAll deletes and, if it is to, waits until nothing is left.
func (t *tool) deleteAll(ctx context.Context, client orchv1.OrchClient, request *orchv1.DeleteRequest, wait bool, timeout time.Duration) error {
	tries, quiet := 0, request.IgnoreMissing
	answer, err := change(ctx, t, "delete", operator, func(ctx context.Context) (*orchv1.DeleteResponse, error) {
		if tries++; tries > 1 {
			request.IgnoreMissing = true // the try before may have done it
		}
		return client.Delete(ctx, request)
	})
	if err != nil {
		return t.unsure(ctx, err, "delete")
	}
	if !quiet {
		for _, r := range answer.GetMissing() {
			if err := t.printf("%s is not there any more, or never was\n", t.named(r.GetKind(), r.GetNamespace(), r.GetName())); err != nil {
				return err
			}
		}
	}
	if !wait {
		for _, r := range answer.GetDeleted() {
			if err := t.printf("%s is being deleted\n", t.named(r.GetKind(), r.GetNamespace(), r.GetName())); err != nil {
				return err
			}
		}
		return nil
	}
	return t.awaitGone(ctx, client, answer.GetDeleted(), timeout)
}

// errGone ends a watch that has seen what it was for.
var errGone = errors.New("gone")

// awaitGone waits until the services are no longer there.
func (t *tool) awaitGone(ctx context.Context, client orchv1.OrchClient, refs []*orchv1.Ref, timeout time.Duration) error {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, fmt.Errorf("not gone within %s", short(timeout)))
		defer cancel()
	}
	for _, r := range refs {
		last, err := t.awaitOneGone(ctx, client, r)
		if err != nil {
			if ctx.Err() == nil {
				return err
			}
			why := "interrupted"
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				why = context.Cause(ctx).Error()
			}
			var b strings.Builder
			fmt.Fprintf(&b, "%s: %s is still being deleted", why, t.named(r.GetKind(), r.GetNamespace(), r.GetName()))
			if last != nil {
				for _, reason := range last.Status.Reasons {
					b.WriteString("\n  " + cleanText(reason))
				}
			}
			fmt.Fprintf(&b, "\nits delete stays, and orch goes on with it; `orchctl get replicas -n %s` shows what is left", r.GetNamespace())
			return errors.New(b.String())
		}
		if err := t.printf("%s deleted\n", t.named(r.GetKind(), r.GetNamespace(), r.GetName())); err != nil {
			return err
		}
	}
	return nil
}

func (t *tool) awaitOneGone(ctx context.Context, client orchv1.OrchClient, r *orchv1.Ref) (last *api.Service, err error) {
	err = t.follow(ctx, client, &orchv1.ListRequest{Kind: api.KindService, Namespace: r.GetNamespace()}, func(n news, o object) error {
		s, ok := o.value.(*api.Service)
		switch {
		case n == synced && last == nil:
			return errGone
		case !ok || s.Metadata.Name != r.GetName():
		case n == gone || s.Metadata.DeletedAt.IsZero(): // or made anew already
			return errGone
		default:
			last = s
		}
		return nil
	})
	if errors.Is(err, errGone) {
		err = nil
	}
	return last, err
}
