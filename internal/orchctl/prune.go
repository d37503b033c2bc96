package orchctl

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/manifests"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// prunableKinds are those of which apply --prune deletes what is in none of the files.
var prunableKinds = []string{api.KindService, api.KindJob, api.KindConfig, api.KindSecret}

// pruning is what an apply deletes: nothing where on is false.
type pruning struct {
	on, yes  bool
	selector string
}

// check refuses what makes no sense before anything is read.
func (p pruning) check() error {
	chosen, err := api.ParseSelector(p.selector)
	switch {
	case err != nil:
		return usageError{err}
	case !p.on && p.selector != "":
		return usagef("-l chooses what --prune may delete: give --prune too, or leave out -l")
	case !p.on && p.yes:
		return usagef("--yes is the answer to what --prune asks: give --prune too, or leave out --yes")
	case p.on && len(chosen) == 0:
		return usagef("--prune needs a selector (-l): without one it would delete everything that is not in the files")
	}
	return nil
}

// covers refuses documents that the selector does not choose: --prune would leave them
// for ever once they are in no file any more.
func (p pruning) covers(docs manifests.Docs) error {
	chosen, err := api.ParseSelector(p.selector)
	if err != nil {
		return usageError{err}
	}
	var bad manifests.Problems
	for _, d := range docs {
		if !chosen.Matches(d.Object.GetMetadata().Labels) {
			bad = append(bad, manifests.Problem{File: d.File, Doc: d.Index, Line: d.Line, Path: "metadata.labels",
				Message: fmt.Sprintf("%s/%s does not match -l %s, so that --prune would not delete it when it is in no file any more: give it these labels, or apply it by itself", word(d.Kind()), d.Key().Name, p.selector)})
		}
	}
	if len(bad) > 0 {
		return manifestError{bad, "nothing was applied"}
	}
	return nil
}

// surplus gives, in order, what the selector chooses in the documents' namespaces and
// what none of the documents declares. What is being deleted already is not among it.
func (t *tool) surplus(ctx context.Context, client orchv1.OrchClient, p pruning, docs manifests.Docs) ([]object, error) {
	declared, spaces := map[string]bool{}, []string{}
	for _, d := range docs {
		declared[d.Kind()+"/"+d.Key().String()] = true
		spaces = append(spaces, d.Key().Namespace)
	}
	var out []object
	for _, space := range slices.Compact(slices.Sorted(slices.Values(spaces))) {
		for _, kind := range prunableKinds {
			answer, err := read(ctx, t, "list what --prune would delete", viewer, func(ctx context.Context) (*orchv1.ListResponse, error) {
				answer, err := client.List(ctx, &orchv1.ListRequest{Kind: kind, Namespace: space, Selector: p.selector})
				if err == nil && answer.GetStaleSince() != nil {
					err = status.Error(codes.Unavailable, "no leader answers, and nothing is deleted by what was last known")
				}
				return answer, err
			})
			if err != nil {
				return nil, err
			}
			list, err := decodeAll(answer.GetObjects())
			if err != nil {
				return nil, err
			}
			out = append(out, slices.DeleteFunc(list, func(o object) bool { return declared[o.key()] || beingDeleted(o) })...)
		}
	}
	slices.SortStableFunc(out, compareObjects)
	return out, nil
}

// identity tells an object from another one of its name that was made later.
func identity(o object) string {
	if m := o.metadata(); m != nil {
		return o.key() + " " + m.UID
	}
	return o.key()
}

// named names an object as the command line reads it, with its namespace where that is
// not the one that is meant without.
func (t *tool) named(kind, namespace, name string) string {
	if !spaceless(kind) && namespace != t.space() {
		name = namespace + "/" + name
	}
	return cleanText(word(kind) + "/" + name)
}

// pruneLines says of each what it is, a line each.
func (t *tool) pruneLines(begin string, list []object) string {
	var b strings.Builder
	for _, o := range list {
		fmt.Fprintf(&b, "%s: %s", begin, t.named(o.kind, o.namespace(), o.name()))
		switch v := o.value.(type) {
		case *api.Service:
			fmt.Fprintf(&b, " (%s, %s)", count(wanted(v), "replica"), age(t.Now(), v.Metadata.CreatedAt))
		case *api.Job:
			fmt.Fprintf(&b, " (%s, %s)", jobWord(v), age(t.Now(), v.Metadata.CreatedAt))
		case *api.Config:
			fmt.Fprintf(&b, " (%s, %s)", count(len(v.Status.Keys), "key"), age(t.Now(), v.Metadata.CreatedAt))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// confirm lets somebody decide; no answer but yes is none. It is asked before the
// apply: who says no finds everything as it was.
func (t *tool) confirm(ctx context.Context, a applying, list []object) error {
	if len(list) == 0 || a.prune.yes {
		return nil
	}
	text := t.pruneLines("will be deleted", list)
	if !t.Asks() || slices.Contains(a.files, manifests.Stdin) { // the manifests come from where the answer would
		return usagef("--prune needs --yes where nobody can be asked; nothing was applied\n%s", strings.TrimSuffix(text, "\n"))
	}
	return t.yes(ctx, fmt.Sprintf("%sapply, and delete %s? [y/N] ", text, theseMany(list)), "nothing was applied, and nothing deleted")
}

// yes asks; no answer but yes is none, which leaves it as undone says.
func (t *tool) yes(ctx context.Context, question, undone string) error {
	fmt.Fprint(t.Err, question)
	answer := make(chan string, 1)
	go func() { // a read of a terminal cannot be ended; it ends with the process
		line, _ := bufio.NewReader(t.In).ReadString('\n') // an end without an answer is a no
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case said := <-answer:
		if said == "y" || said == "yes" {
			return nil
		}
		return errors.New("not confirmed: " + undone)
	case <-ctx.Done():
		fmt.Fprintln(t.Err)
		return errors.New("interrupted: " + undone)
	}
}

// theseMany gives "it", "these 2".
func theseMany(list []object) string {
	if len(list) == 1 {
		return "it"
	}
	return fmt.Sprintf("these %d", len(list))
}

// kept tells that an apply that failed has deleted nothing, and keeps its exit code.
func (t *tool) kept(err error, list []object) error {
	if err == nil || len(list) == 0 {
		return err
	}
	code := t.report(err)
	var names []string
	for _, o := range list {
		names = append(names, t.named(o.kind, o.namespace(), o.name()))
	}
	t.warnf("nothing was deleted: %s", strings.Join(names, ", "))
	return exitStatus(code)
}

// prune deletes what was chosen before the apply, as far as it is still there and
// still no document's.
func (t *tool) prune(ctx context.Context, client orchv1.OrchClient, a applying, docs manifests.Docs, chosen []object) error {
	if len(chosen) == 0 {
		return nil
	}
	left, err := t.surplus(ctx, client, a.prune, docs)
	if err != nil {
		return t.kept(err, chosen)
	}
	still := map[string]bool{}
	for _, o := range left {
		still[identity(o)] = true
	}
	var targets []target
	for _, o := range chosen {
		if !still[identity(o)] {
			t.warnf("%s is left alone: it was changed or deleted meanwhile", t.named(o.kind, o.namespace(), o.name()))
			continue
		}
		targets = append(targets, target{o.kind, o.namespace(), o.name()})
	}
	return t.deleteTargets(ctx, client, targets, deleting{ignoreMissing: true, wait: a.wait, timeout: a.timeout})
}
