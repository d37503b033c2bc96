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

apply waits until every service is ready and shows how far it is: what each replica
waits for, of a new revision and of the one that it replaces. Where a rollout fails,
apply tells why, with what the container wrote last, and ends with the rollback; where
it waits for ` + "`orchctl rollout resume`" + `, apply says so and ends. When it is interrupted or
its time is over, what was applied stays, and orch goes on with it.

--prune also deletes what is in none of the files: services that -l chooses, in the
namespaces that the files name. It says which and asks first, and deletes them when
all that was applied is ready (with --wait=false: when it was accepted); of an apply
that fails it deletes nothing.`,
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
	f.BoolVar(&a.wait, "wait", true, "wait until every service is ready")
	f.DurationVar(&a.timeout, "timeout", waitTimeout, "how long to wait until all is ready, and then until what is pruned is gone; 0 for no limit")
	f.BoolVar(&a.prune.on, "prune", false, "also delete services that -l chooses and that are in none of the files")
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

// withDocs tells a call's error in which documents its fields stand.
func withDocs(err error, docs manifests.Docs) error {
	var failed *callError
	if errors.As(err, &failed) {
		failed.docs = docs
	}
	return err
}

func (t *tool) apply(ctx context.Context, a applying) error {
	docs, err := t.loadManifests(a.files, "nothing was applied")
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
		text, err := json.Marshal(d.Object)
		if err != nil {
			return fmt.Errorf("encode service %s: %w", d.Key(), err)
		}
		request.Objects = append(request.Objects, &orchv1.Object{Kind: d.Kind(), Json: text})
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
	for _, d := range docs {
		namespaces = append(namespaces, d.Key().Namespace)
	}
	return t.applyAndWait(ctx, client, namespaces, a.timeout, send)
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
	for _, x := range answer.GetApplied() {
		o, err := decode(x.GetObject())
		if err != nil {
			return err
		}
		suffix := ""
		if dryRun {
			suffix = " (dry run)"
		}
		if err := t.printf("%s/%s %s%s\n", word(o.kind), o.name(), x.GetOutcome(), suffix); err != nil {
			return err
		}
		for _, line := range x.GetPlan() {
			if err := t.printf("  %s\n", cleanText(line)); err != nil {
				return err
			}
		}
	}
	return nil
}

// applyAndWait looks at what is there, sends the change, and watches it until
// every service is ready. The watch begins before the change, so that the
// times of its phases are seen and not guessed.
func (t *tool) applyAndWait(ctx context.Context, client orchv1.OrchClient, namespaces []string, timeout time.Duration, send func() (*orchv1.ApplyResponse, error)) error {
	watching, stop := context.WithCancel(ctx)
	feed := t.feed(watching, client, listsOf(namespaces))
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
	if err := w.begin(answer, began, t.Now()); err != nil {
		return err
	}
	return w.run(ctx, feed, timeout)
}

// sighting is one piece of news from a feed.
type sighting struct {
	news news
	o    object
	err  error
}

// feed merges what several watches tell.
type feed struct {
	ch   chan sighting
	n    int // watches
	done chan struct{}
}

// wait returns when every watch has ended; end their context first.
func (f *feed) wait() { <-f.done }

// all tells see what is there, until each watch has told all of it or enough comes;
// nil waits for all.
func (f *feed) all(ctx context.Context, enough <-chan time.Time, see func(sighting)) error {
	for left := f.n; left > 0; {
		select {
		case s := <-f.ch:
			switch {
			case s.err != nil:
				return s.err
			case s.news == synced:
				left--
			default:
				see(s)
			}
		case <-enough:
			return nil
		case <-ctx.Done():
			return errors.New("interrupted: nothing was sent to the controller")
		}
	}
	return nil
}

// listsOf are the services and replicas of some namespaces.
func listsOf(namespaces []string) []*orchv1.ListRequest {
	var out []*orchv1.ListRequest
	for _, ns := range slices.Compact(slices.Sorted(slices.Values(namespaces))) {
		for _, kind := range []string{api.KindService, api.KindReplica} {
			out = append(out, &orchv1.ListRequest{Kind: kind, Namespace: ns})
		}
	}
	return out
}

// feed watches several lists.
func (t *tool) feed(ctx context.Context, client orchv1.OrchClient, lists []*orchv1.ListRequest) *feed {
	f := &feed{ch: make(chan sighting), n: len(lists), done: make(chan struct{})}
	ended := make(chan struct{})
	for _, list := range lists {
		go func() {
			defer func() { ended <- struct{}{} }()
			tell := func(s sighting) error {
				select {
				case f.ch <- s:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			err := t.follow(ctx, client, list, func(n news, o object) error { return tell(sighting{n, o, nil}) })
			if ctx.Err() == nil {
				_ = tell(sighting{err: err})
			}
		}()
	}
	go func() {
		for range f.n {
			<-ended
		}
		close(f.done)
	}()
	return f
}
