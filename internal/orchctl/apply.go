package orchctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/manifests"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

const (
	// waitTimeout is the default of --timeout: a large image over a slow line.
	waitTimeout = 5 * time.Minute
	// firstLook bounds how long an apply waits for the picture before it.
	firstLook = 2 * time.Second
)

type applying struct {
	files   []string
	dryRun  bool
	wait    bool
	timeout time.Duration
	prune   pruning
}

func (t *tool) applyCmd() *cobra.Command {
	var a applying
	cmd := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Create or change what manifests declare, and wait until it is ready",
		Long: `Create or change what manifests declare: all of it in one transaction, or nothing.

apply waits until every service is ready and every job has ended, and shows how far it
is: what each replica waits for, of a new revision and of the one that it replaces.
Where a rollout fails, apply tells why, with what the container wrote last, and ends with
the rollback; where it waits for ` + "`orchctl rollout resume`" + `, apply says so and ends.
When it is interrupted or its time is over, what was applied stays, and orch goes on with
it. A job that fails fails the apply. Other values of a config or secret make a new
revision of each service that takes them, which apply follows too, also where its own
manifest is in no file.

--prune also deletes what is in none of the files: services, jobs, configs and secrets
that -l chooses, in the namespaces that the files name. It says which and asks first,
and deletes them when all that was applied is ready (with --wait=false: when it was
accepted); of an apply that fails it deletes nothing.

Where OTEL_EXPORTER_OTLP_ENDPOINT names a collector of traces (such as
http://127.0.0.1:4317, OTLP over gRPC), the apply is a trace there, and its id is told.`,
		Example: `  orchctl apply -f web.yaml
  orchctl apply -f services/ -f extra.yaml     # a folder and a file, all or nothing
  orchctl apply -f - < web.yaml
  orchctl apply -f web.yaml --dry-run          # what would change?
  orchctl apply -f web.yaml --wait=false
  orchctl apply -f services/ --prune -l app=shop --dry-run   # what would be deleted?
  orchctl apply -f services/ --prune -l app=shop --yes       # delete it without asking`,
		Args: func(cmd *cobra.Command, words []string) error {
			if len(words) > 0 {
				return usagef("unexpected argument %q: name manifests with -f, such as `orchctl apply -f %s`", words[0], words[0])
			}
			if len(a.files) == 0 {
				return usagef("name a manifest with -f: a file, a folder, or - for standard input")
			}
			return a.prune.check()
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return t.apply(cmd.Context(), a) },
	}
	f := cmd.Flags()
	f.StringArrayVarP(&a.files, "filename", "f", nil, "manifest: a file, a folder, or - for standard input; repeatable")
	f.BoolVar(&a.dryRun, "dry-run", false, "say what would change, change nothing")
	f.BoolVar(&a.wait, "wait", true, "wait until every service is ready and every job has ended")
	f.DurationVar(&a.timeout, "timeout", waitTimeout, "how long to wait until all is ready and has ended, and then until what is pruned is gone; 0 for no limit")
	f.BoolVar(&a.prune.on, "prune", false, "also delete what -l chooses and is in none of the files")
	f.StringVarP(&a.prune.selector, "selector", "l", "", "labels of what --prune may delete, such as app=shop")
	f.BoolVarP(&a.prune.yes, "yes", "y", false, "prune without asking")
	return cmd
}

// loadManifests reads and checks files; undone says what a problem prevents.
func (t *tool) loadManifests(files []string, undone string) (manifests.Docs, error) {
	bad := func(err error) error {
		var p manifests.Problems
		if errors.As(err, &p) {
			return manifestError{p, undone}
		}
		return err
	}
	sources, err := manifests.FromPaths(files, t.In)
	if err != nil {
		return nil, bad(err)
	}
	opts := []manifests.Option{manifests.InNamespace(t.namespace)}
	if t.namespace == "" {
		opts = append(opts, manifests.DefaultNamespace(t.space()))
	}
	docs, err := manifests.Load(sources, opts...)
	return docs, bad(err)
}

// onWire encodes what is to be applied.
func onWire(o api.Object) (*orchv1.Object, error) {
	text, err := json.Marshal(o)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", api.Ref{Kind: o.ObjectKind(), Key: o.GetMetadata().Key()}, err)
	}
	return &orchv1.Object{Kind: o.ObjectKind(), Json: text}, nil
}

// withDocs tells a call's error in which documents its fields stand.
func withDocs(err error, docs manifests.Docs) error {
	var failed *callError
	if errors.As(err, &failed) {
		failed.docs = docs
	}
	return err
}

func (t *tool) apply(ctx context.Context, a applying) error {
	_, load := part(ctx, "load manifests")
	docs, err := t.loadManifests(a.files, "nothing was applied")
	load.SetInt("orch.objects", int64(len(docs)))
	load.Fail(err)
	load.End()
	if err != nil {
		return err
	}
	if a.prune.on {
		if err := a.prune.covers(docs); err != nil {
			return err
		}
	}
	request := &orchv1.ApplyRequest{DryRun: a.dryRun, RequestId: t.RequestID()}
	for _, d := range docs {
		o, err := onWire(d.Object)
		if err != nil {
			return err
		}
		request.Objects = append(request.Objects, o)
	}
	client, err := t.connect(ctx, "apply", true)
	if err != nil {
		return err
	}
	send := func() (*orchv1.ApplyResponse, error) {
		answer, err := change(ctx, t, "apply", operator, func(ctx context.Context) (*orchv1.ApplyResponse, error) { return client.Apply(ctx, request) })
		return answer, withDocs(err, docs)
	}
	var surplus []object
	if a.prune.on {
		if surplus, err = t.surplus(ctx, client, a.prune, docs); err != nil {
			return err
		}
	}
	if a.dryRun {
		if err := t.applyAtOnce(ctx, a, send); err != nil {
			return err
		}
		return t.printf("%s", t.pruneLines("would be deleted", surplus))
	}
	if err := t.confirm(ctx, a, surplus); err != nil {
		return err
	}
	if err := t.applyDocs(ctx, client, a, docs, send); err != nil {
		return t.kept(err, surplus)
	}
	return t.prune(ctx, client, a, docs, surplus)
}

// applyAtOnce sends an apply and prints its outcome, without waiting for more.
func (t *tool) applyAtOnce(ctx context.Context, a applying, send func() (*orchv1.ApplyResponse, error)) error {
	answer, err := send()
	if err != nil {
		return t.unsure(ctx, err, "apply")
	}
	return t.applied(answer, a.dryRun)
}

// applyDocs sends an apply, and waits if it is to.
func (t *tool) applyDocs(ctx context.Context, client orchv1.OrchClient, a applying, docs manifests.Docs, send func() (*orchv1.ApplyResponse, error)) error {
	if !a.wait {
		return t.applyAtOnce(ctx, a, send)
	}
	var namespaces []string
	kinds := []string{api.KindService, api.KindReplica}
	for _, d := range docs {
		namespaces = append(namespaces, d.Key().Namespace)
		if d.Kind() == api.KindJob && !slices.Contains(kinds, api.KindJob) {
			kinds = append(kinds, api.KindJob)
		}
	}
	return t.applyAndWait(ctx, client, listsOf(namespaces, kinds...), a.timeout, send)
}

// unsure tells, where an interrupt came before the answer, that the change may
// have been made.
func (t *tool) unsure(ctx context.Context, err error, doing string) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s: interrupted before the controller's answer: whether it was done is not known; see `orchctl get services`", doing)
	}
	return err
}

// applied prints what was, or would be, done at once.
func (t *tool) applied(answer *orchv1.ApplyResponse, dryRun bool) error {
	list, err := appliedObjects(answer)
	if err != nil {
		return err
	}
	for _, x := range list {
		suffix := ""
		if dryRun {
			suffix = " (dry run)"
		}
		if err := t.printf("%s%s\n", x.outcomeLine(), suffix); err != nil {
			return err
		}
		for _, line := range x.plan {
			if err := t.printf("  %s\n", cleanText(line)); err != nil {
				return err
			}
		}
	}
	if dryRun { // the plan says it
		return nil
	}
	for _, r := range revisedBy(list) {
		if err := t.printf("%s\n", r); err != nil {
			return err
		}
	}
	return nil
}

// applyAndWait looks at what is there, sends the change, and watches it until
// every service is ready and every job has ended. The watch begins before the change, so that the
// times of its phases are seen and not guessed.
func (t *tool) applyAndWait(ctx context.Context, client orchv1.OrchClient, lists []*orchv1.ListRequest, timeout time.Duration, send func() (*orchv1.ApplyResponse, error)) error {
	watching, stop := context.WithCancel(ctx)
	feed := t.feed(watching, client, lists)
	defer feed.wait()
	defer stop()
	w := &waiting{t: t, client: client, before: map[string]bool{}}
	if err := w.look(ctx, feed); err != nil {
		return err
	}
	began := t.Now()
	answer, err := send()
	if err != nil {
		return t.unsure(ctx, err, "apply")
	}
	if err := w.begin(ctx, answer, began, t.Now()); err != nil {
		return err
	}
	ctx, wait := part(ctx, "wait until ready")
	err = w.run(ctx, feed, timeout)
	wait.Fail(err)
	wait.End()
	return err
}
