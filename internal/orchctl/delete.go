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

type deleting struct {
	files         []string
	ignoreMissing bool
	wait          bool
	timeout       time.Duration
	all           bool // of the kinds that are named, in the namespace
	yes           bool // nobody is asked
	dryRun        bool
}

func (t *tool) deleteCmd() *cobra.Command {
	var d deleting
	cmd := &cobra.Command{
		Use:     "delete TYPE NAME... | TYPE/NAME... | TYPE --all | -f FILE",
		Aliases: []string{"rm"},
		Short:   "Delete services, jobs, configs, secrets and volumes, and wait until nothing of them is left",
		Long: `Delete services, jobs, configs, secrets and volumes, and wait until nothing of them
is left: all of them or, where one is missing or still used by what stays, none.

A service's volumes outlive it: a service of that name has them again. Deleting a
volume deletes what is in it, for good: on a terminal it asks first, as --all does.`,
		Example: `  orchctl delete service web
  orchctl delete service/web job/migrate config/web
  orchctl delete volume data.db-0
  orchctl delete jobs --all            # all in the namespace
  orchctl delete config app --dry-run  # would it go, or what uses it?
  orchctl delete -f web.yaml --ignore-not-found`,
		ValidArgsFunction: beginning(t.completeTargets(deletableKinds...)),
		Args: func(cmd *cobra.Command, words []string) error {
			if len(words) > 0 == (len(d.files) > 0) || d.all && len(words) == 0 {
				return usagef("say what to delete: either TYPE/NAME, or a manifest with -f\nusage: %s", cmd.UseLine())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return t.delete(cmd.Context(), d, args) },
	}
	f := cmd.Flags()
	f.StringArrayVarP(&d.files, "filename", "f", nil, "delete what this manifest declares: a file, a folder, or -; repeatable")
	f.BoolVar(&d.ignoreMissing, "ignore-not-found", false, "what is not there is no failure")
	f.BoolVar(&d.all, "all", false, "all of that type in the namespace")
	f.BoolVarP(&d.yes, "yes", "y", false, "do not ask")
	f.BoolVar(&d.dryRun, "dry-run", false, "say what would be deleted or why not, and delete nothing")
	f.BoolVar(&d.wait, "wait", true, "wait until nothing is left")
	f.DurationVar(&d.timeout, "timeout", waitTimeout, "how long to wait; 0 for no limit")
	return cmd
}

// deletableKinds are those that somebody makes; what belongs to them goes with them.
var deletableKinds = []string{api.KindService, api.KindJob, api.KindConfig, api.KindSecret, api.KindVolume}

// deletable gives the targets.
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
		case x.kind == api.KindOutcome:
			return nil, usagef("an outcome goes with its job: delete that")
		case !slices.Contains(deletableKinds, x.kind):
			return nil, usagef("%s are not deleted: only services, jobs, configs, secrets and volumes are", words(x.kind))
		case d.all && x.name != "":
			return nil, usagef("--all is of a type, as in `orchctl delete %s --all`: leave out %q", words(x.kind), x.name)
		case d.all:
		case x.name == "":
			return nil, usagef("name the %s to delete, such as %s/web, or give --all", words(x.kind), word(x.kind))
		case x.kind == api.KindVolume:
			if err := isVolumeName(x.name); err != nil {
				return nil, err
			}
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
	if d.all {
		if targets, err = t.everyOne(ctx, client, targets); err != nil || len(targets) == 0 {
			return err
		}
	}
	return t.deleteTargets(ctx, client, targets, d)
}

// everyOne names all objects of the targets' kinds in their namespaces.
func (t *tool) everyOne(ctx context.Context, client orchv1.OrchClient, kinds []target) ([]target, error) {
	var out []target
	for _, k := range kinds {
		found, _, err := t.fetch(ctx, client, listing{}, []target{k})
		if err != nil {
			return nil, err
		}
		if len(found) == 0 {
			t.none(k.kind, listing{}, k.namespace)
		}
		for _, o := range found {
			out = append(out, target{k.kind, o.namespace(), o.name()})
		}
	}
	return out, nil
}

// sure asks on a terminal before what cannot be undone is lost, or all of a type. Where
// nobody can be asked, --all wants --yes; a volume that is named goes.
func (t *tool) sure(ctx context.Context, targets, volumes []target, lost string, d deleting) error {
	if d.yes || d.dryRun || !d.all && len(volumes) == 0 {
		return nil
	}
	var text strings.Builder
	for _, x := range targets {
		fmt.Fprintf(&text, "  %s\n", cleanText(t.named(x.kind, x.namespace, x.name)))
	}
	if lost != "" {
		fmt.Fprintf(&text, "what is in %s will be lost\n", lost)
	}
	if !t.Asks() {
		if !d.all {
			return nil
		}
		return usagef("--all needs --yes where nobody can be asked; nothing was deleted\n%s", strings.TrimSuffix(text.String(), "\n"))
	}
	what := "it"
	if len(targets) > 1 {
		what = fmt.Sprintf("these %d", len(targets))
	}
	return t.yes(ctx, fmt.Sprintf("%sdelete %s? [y/N] ", text.String(), what), "nothing was deleted")
}

// wouldDelete asks the controller whether all of it may go, and tells so.
func (t *tool) wouldDelete(ctx context.Context, client orchv1.OrchClient, targets []target, d deleting) error {
	request := &orchv1.DeleteRequest{IgnoreMissing: d.ignoreMissing, DryRun: true}
	if slices.ContainsFunc(targets, func(x target) bool { return x.kind != api.KindVolume }) {
		targets = slices.DeleteFunc(slices.Clone(targets), func(x target) bool {
			if x.kind == api.KindVolume { // they are deleted when that is done, which may be what uses them
				t.warnf("%s would be deleted afterwards, if nothing uses it then", t.named(x.kind, x.namespace, x.name))
			}
			return x.kind == api.KindVolume
		})
	}
	for _, x := range targets {
		request.Refs = append(request.Refs, x.ref())
	}
	answer, err := read(ctx, t, "delete", operator, func(ctx context.Context) (*orchv1.DeleteResponse, error) { return client.Delete(ctx, request) })
	if err != nil {
		return err
	}
	for _, r := range answer.GetDeleted() {
		if err := t.printf("%s would be deleted\n", t.named(r.GetKind(), r.GetNamespace(), r.GetName())); err != nil {
			return err
		}
	}
	for _, r := range answer.GetMissing() {
		if err := t.printf("%s is not there\n", t.named(r.GetKind(), r.GetNamespace(), r.GetName())); err != nil {
			return err
		}
	}
	return nil
}

// deleteTargets deletes all at once, but volumes after services and jobs: they are refused
// as long as something may have them mounted.
func (t *tool) deleteTargets(ctx context.Context, client orchv1.OrchClient, targets []target, d deleting) error {
	var first, volumes []target
	for _, x := range targets {
		if x.kind == api.KindVolume {
			volumes = append(volumes, x)
		} else {
			first = append(first, x)
		}
	}
	lost := ""
	if len(volumes) > 0 {
		found, missing, err := t.fetch(ctx, client, listing{}, volumes)
		if err != nil {
			return err
		}
		if missing != nil && len(first) > 0 && !d.ignoreMissing { // all or nothing, as far as can be told before
			t.report(missing)
			return errors.New("nothing was deleted")
		}
		lost = lostWith(found)
	}
	if d.dryRun {
		return t.wouldDelete(ctx, client, targets, d)
	}
	if err := t.sure(ctx, targets, volumes, lost, d); err != nil {
		return err
	}
	kept := t.keeping(volumes)
	for _, wave := range [][]target{first, volumes} {
		if len(wave) == 0 {
			continue
		}
		request := &orchv1.DeleteRequest{RequestId: t.RequestID(), IgnoreMissing: d.ignoreMissing}
		for _, x := range wave {
			request.Refs = append(request.Refs, x.ref())
		}
		if err := t.deleteAll(ctx, client, request, kept, d); err != nil {
			return err
		}
	}
	if lost != "" {
		t.warnf("what was in %s is lost", lost)
	}
	return nil
}

// deleteAll deletes and, if it is to, waits until nothing is left.
func (t *tool) deleteAll(ctx context.Context, client orchv1.OrchClient, request *orchv1.DeleteRequest, kept *keeping, d deleting) error {
	answer, err := t.deleteRefs(ctx, client, request)
	if err != nil {
		return err
	}
	if !d.wait {
		for _, r := range answer.GetDeleted() {
			done := "is being deleted"
			if atOnce(r.GetKind()) {
				done = "deleted"
			}
			if err := t.printf("%s %s%s\n", t.named(r.GetKind(), r.GetNamespace(), r.GetName()), done, kept.words(ctx, client, r)); err != nil {
				return err
			}
		}
		return nil
	}
	return t.awaitGone(ctx, client, answer.GetDeleted(), kept, d.timeout)
}

// deleteRefs deletes, and tells what was not there.
func (t *tool) deleteRefs(ctx context.Context, client orchv1.OrchClient, request *orchv1.DeleteRequest) (*orchv1.DeleteResponse, error) {
	tries, quiet := 0, request.IgnoreMissing
	answer, err := change(ctx, t, "delete", operator, func(ctx context.Context) (*orchv1.DeleteResponse, error) {
		if tries++; tries > 1 {
			request.IgnoreMissing = true // the try before may have done it
		}
		return client.Delete(ctx, request)
	})
	if err != nil {
		return nil, t.unsure(ctx, err, "delete")
	}
	if !quiet {
		for _, r := range answer.GetMissing() {
			if err := t.printf("%s is not there any more, or never was\n", t.named(r.GetKind(), r.GetNamespace(), r.GetName())); err != nil {
				return nil, err
			}
		}
	}
	return answer, nil
}

// atOnce tells whether nothing is left of an object of a kind when its delete is done.
func atOnce(kind string) bool { return kind == api.KindConfig || kind == api.KindSecret }

// errGone ends a watch that has seen what it was for.
var errGone = errors.New("gone")

// awaitGone waits until the objects are no longer there.
func (t *tool) awaitGone(ctx context.Context, client orchv1.OrchClient, refs []*orchv1.Ref, kept *keeping, timeout time.Duration) error {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, fmt.Errorf("not gone within %s", short(timeout)))
		defer cancel()
	}
	for _, r := range refs {
		name := t.named(r.GetKind(), r.GetNamespace(), r.GetName())
		if waits, err := t.waitsForNode(ctx, client, r); err != nil {
			return err
		} else if waits != "" {
			if err := t.printf("%s is given up; %s\n", name, waits); err != nil {
				return err
			}
			continue
		}
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
			fmt.Fprintf(&b, "%s: %s is still being deleted", why, name)
			for _, reason := range reasonsOf(last) {
				b.WriteString("\n  " + cleanText(reason))
			}
			left := "replicas"
			if r.GetKind() == api.KindVolume {
				left = "volumes"
			}
			fmt.Fprintf(&b, "\nits delete stays, and orch goes on with it; `orchctl get %s -n %s` shows what is left", left, r.GetNamespace())
			return errors.New(b.String())
		}
		if err := t.printf("%s deleted%s\n", name, kept.words(ctx, client, r)); err != nil {
			return err
		}
	}
	return nil
}

// reasonsOf are what the controller says of a service or a job.
func reasonsOf(o object) []string {
	switch v := o.value.(type) {
	case *api.Service:
		return v.Status.Reasons
	case *api.Job:
		return v.Status.Reasons
	}
	return nil
}

// waitsForNode says of a volume that is being removed why nothing is to be waited for:
// what is in it goes when its node is back. It is "" of all else.
func (t *tool) waitsForNode(ctx context.Context, client orchv1.OrchClient, r *orchv1.Ref) (string, error) {
	if r.GetKind() != api.KindVolume {
		return "", nil
	}
	found, missing, err := t.fetch(ctx, client, listing{}, []target{{r.GetKind(), r.GetNamespace(), r.GetName()}})
	if err != nil || missing != nil {
		return "", err
	}
	v, ok := found[0].value.(*api.Volume)
	if !ok || !v.Status.Removing {
		return "", nil
	}
	found, missing, err = t.fetch(ctx, client, listing{}, []target{{kind: api.KindNode, name: v.Spec.Node}})
	if err != nil || missing != nil {
		return "", err
	}
	if n, ok := found[0].value.(*api.Node); ok && n.Status.Verdict == api.VerdictDead {
		return fmt.Sprintf("%s is Dead, and removes what is in it when it is back", v.Spec.Node), nil
	}
	return "", nil
}

// beingDeleted tells whether an object is on its way out.
func beingDeleted(o object) bool {
	if v, ok := o.value.(*api.Volume); ok && v.Status.Removing {
		return true
	}
	m := o.metadata()
	return m != nil && !m.DeletedAt.IsZero()
}

func (t *tool) awaitOneGone(ctx context.Context, client orchv1.OrchClient, r *orchv1.Ref) (last object, err error) {
	if atOnce(r.GetKind()) {
		return object{}, nil
	}
	err = t.follow(ctx, client, &orchv1.ListRequest{Kind: r.GetKind(), Namespace: r.GetNamespace()}, func(n news, o object) error {
		switch {
		case n == synced && last.value == nil:
			return errGone
		case n == synced || o.name() != r.GetName():
		case n == gone || !beingDeleted(o): // or made anew already
			return errGone
		default:
			last = o
		}
		return nil
	})
	if errors.Is(err, errGone) {
		err = nil
	}
	return last, err
}
