package orchctl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

func (t *tool) rolloutCmd() *cobra.Command {
	return group("rollout", "Follow, pause, resume, undo or repeat a service's rollout",
		`  orchctl rollout status service/web
  orchctl rollout undo service/web`,
		t.rolloutStatusCmd(), t.rolloutWordCmd("pause"), t.rolloutWordCmd("resume"), t.rolloutWordCmd("undo"), t.rolloutWordCmd("restart"))
}

// resumed is the outcome of the word resume.
const resumed = "resumed"

// rolling is what a command about a rollout was asked for.
type rolling struct {
	word     string
	revision int64
	wait     bool
	timeout  time.Duration
}

func (t *tool) rolloutStatusCmd() *cobra.Command {
	r := rolling{wait: true}
	cmd := &cobra.Command{
		Use:   "status service/NAME",
		Short: "Follow a rollout until it is complete",
		Long: `Follow a rollout until it is complete, or has failed.

Exit codes: 0 the revision is rolled out (with --watch=false also: it is under
way), 1 it failed, was rolled back, or another took its place.`,
		Example: `  orchctl rollout status service/web
  orchctl rollout status service/web --timeout 2m
  orchctl rollout status service/web --watch=false
  orchctl rollout status service/web --revision 4   # how that one went`,
		ValidArgsFunction: beginning(t.completeTargets(api.KindService)),
		Args:              usageArgs(cobra.RangeArgs(1, 2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			x, err := t.oneService(args, "is rolled out")
			if err != nil {
				return err
			}
			if cmd.Flags().Changed("revision") && r.revision < 1 {
				return usagef("--revision %d: they count from 1", r.revision)
			}
			return t.rolloutStatus(cmd.Context(), x, r)
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&r.wait, "watch", "w", true, "go on until it is complete or has failed")
	f.Int64Var(&r.revision, "revision", 0, "of this revision (default: the newest)")
	f.DurationVar(&r.timeout, "timeout", 0, "how long to wait; 0 for no limit")
	t.complete(cmd, "revision", t.completeRevisions)
	return cmd
}

// rolloutTexts are the sentences and examples of the words.
var rolloutTexts = map[string]struct{ short, long, example string }{
	"pause": {"Hold a rollout where it is", "Hold a rollout where it is: replicas that have the new revision keep it, and no\nfurther ones get it. What is lost meanwhile is replaced, the deadline of the rollout stands\nstill, and a newer revision stays paused, too.",
		"  orchctl rollout pause service/web"},
	"resume": {"Let a paused rollout go on", "Let a rollout go on that was paused by hand, or that waits between two steps of its\ncanary; then follow it like apply does.",
		"  orchctl rollout resume service/web\n  orchctl rollout resume service/web --wait=false"},
	"undo": {"Go back to an earlier revision", "Go back to an earlier revision: the last one before the newest that was rolled out\nwell, or the one that --to-revision names. A new revision is made of its template and the\nvery images that it had, and is rolled out like any other.",
		"  orchctl rollout undo service/web\n  orchctl rollout undo service/web --to-revision 3"},
	"restart": {"Replace all replicas, with the same template", "Replace all replicas as a rollout does, with the same template. What its tags mean is\nasked anew.",
		"  orchctl rollout restart service/web"},
}

func (t *tool) rolloutWordCmd(word string) *cobra.Command {
	r := rolling{word: word}
	text := rolloutTexts[word]
	cmd := &cobra.Command{
		Use: word + " service/NAME", Short: text.short, Long: text.long, Example: text.example,
		ValidArgsFunction: beginning(t.completeTargets(api.KindService)),
		Args:              usageArgs(cobra.RangeArgs(1, 2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			x, err := t.oneService(args, "is rolled out")
			if err != nil {
				return err
			}
			if cmd.Flags().Changed("to-revision") && r.revision < 1 {
				return usagef("--to-revision %d: they count from 1", r.revision)
			}
			return t.rolloutWord(cmd.Context(), x, r)
		},
	}
	f := cmd.Flags()
	if word == "undo" {
		f.Int64Var(&r.revision, "to-revision", 0, "revision to go back to (default: the last one that was rolled out well)")
		t.complete(cmd, "to-revision", t.completeRevisions)
	}
	if word != "pause" {
		f.BoolVar(&r.wait, "wait", true, "wait until it is rolled out")
		f.DurationVar(&r.timeout, "timeout", waitTimeout, "how long to wait; 0 for no limit")
	}
	return cmd
}

// rolloutWord says a word and follows what comes of it.
func (t *tool) rolloutWord(ctx context.Context, x target, r rolling) error {
	doing := fmt.Sprintf("rollout %s %s", r.word, x)
	client, err := t.connect(ctx, doing, true)
	if err != nil {
		return err
	}
	request := &orchv1.RolloutRequest{Namespace: x.namespace, Name: x.name, Word: r.word, Revision: r.revision, RequestId: t.RequestID()}
	said := map[string]string{"pause": "paused", "resume": resumed, "undo": "goes back", "restart": "restarted"}[r.word]
	send := func() (*orchv1.ApplyResponse, error) {
		answer, err := change(ctx, t, doing, operator, func(ctx context.Context) (*orchv1.ApplyResponse, error) { return client.Rollout(ctx, request) })
		for _, a := range answer.GetApplied() {
			if a.Outcome == "configured" {
				a.Outcome = said
			}
		}
		return answer, err
	}
	if r.wait {
		return t.applyAndWait(ctx, client, listsOf([]string{x.namespace}), r.timeout, send)
	}
	answer, err := send()
	if err != nil {
		return t.unsure(ctx, err, doing)
	}
	return t.applied(answer, false)
}

// rolloutStatus follows what is under way, or tells how an older revision went.
func (t *tool) rolloutStatus(ctx context.Context, x target, r rolling) error {
	client, err := t.connect(ctx, "rollout status "+x.String(), false)
	if err != nil {
		return err
	}
	found, missing, err := t.fetch(ctx, client, listing{}, []target{x})
	if err != nil || missing != nil {
		return cmp.Or(err, t.orJob(ctx, client, x, missing))
	}
	s, ok := found[0].value.(*api.Service)
	if !ok {
		return fmt.Errorf("rollout status %s: the controller answered with a %s", x, found[0].kind)
	}
	if r.revision != 0 && r.revision != s.Status.Revision {
		return t.pastRollout(ctx, client, x, r.revision, s)
	}
	if !r.wait {
		text := rolloutLine(x.name, s, t.Now())
		if s.Status.Rollout.State == api.RolloutFailed {
			return errors.New(text)
		}
		return t.printf("%s\n", text)
	}
	return t.followRollout(ctx, client, s, r.timeout)
}

// followRollout follows what a service is doing, without having changed anything.
func (t *tool) followRollout(ctx context.Context, client orchv1.OrchClient, s *api.Service, timeout time.Duration) error {
	watching, stop := context.WithCancel(ctx)
	feed := t.feed(watching, client, listsOf([]string{s.Metadata.Namespace}))
	defer feed.wait()
	defer stop()
	w := &waiting{t: t, client: client, before: map[string]bool{}}
	if err := w.look(ctx, feed); err != nil {
		return err
	}
	now := t.Now()
	w.add(s, "", now, now)
	w.start(now)
	for _, x := range w.tracks {
		x.byState = true
	}
	return w.run(ctx, feed, timeout)
}

// pastRollout tells how the rollout of a revision went that is not the newest.
func (t *tool) pastRollout(ctx context.Context, client orchv1.OrchClient, x target, number int64, s *api.Service) error {
	r, err := t.revision(ctx, client, s.Metadata.Key(), number)
	if notFound(err) {
		return fmt.Errorf("%s: no revision %d is kept; the newest is %d", x, number, s.Status.Revision)
	}
	if err != nil {
		return err
	}
	switch ro := r.Rollout; ro.State {
	case api.RolloutComplete:
		took := ""
		if d := tookOf(ro); d > 0 {
			took = " in " + short(d)
		}
		return t.printf("%s revision %d was rolled out%s; the newest is %d now\n", x, number, took, s.Status.Revision)
	case api.RolloutRolledBack, api.RolloutFailed:
		return fmt.Errorf("%s", rolledBack(x.String(), r, s))
	case "":
		return fmt.Errorf("%s: how revision %d went is not known; the newest is %d", x, number, s.Status.Revision)
	}
	return fmt.Errorf("%s: revision %d was not rolled out: another took its place; the newest is %d", x, number, s.Status.Revision)
}

// revision gets one of a service's revisions.
func (t *tool) revision(ctx context.Context, client orchv1.OrchClient, key api.Key, number int64) (*api.Revision, error) {
	name := revisionName(key.Name, number)
	answer, err := read(ctx, t, "get revision "+name, viewer, func(ctx context.Context) (*orchv1.Object, error) {
		return client.Get(ctx, &orchv1.GetRequest{Ref: &orchv1.Ref{Kind: api.KindRevision, Namespace: key.Namespace, Name: name}})
	})
	if err != nil {
		return nil, err
	}
	o, err := decode(answer)
	if err != nil {
		return nil, err
	}
	r, ok := o.value.(*api.Revision)
	if !ok {
		return nil, status.Errorf(codes.Internal, "the controller answered with a %s", o.kind)
	}
	return r, nil
}

// rolledBack tells of a revision that failed and what took its place, with what its
// replicas wrote last.
func rolledBack(label string, r *api.Revision, s *api.Service) string {
	if r.Rollout.State == api.RolloutFailed {
		return fmt.Sprintf("%s revision %d could not be rolled out: %s", label, r.Number, whyText(r.Rollout.Why))
	}
	to := "an earlier template"
	if r.Rollout.From > 0 {
		to = fmt.Sprintf("revision %d's template", r.Rollout.From)
	}
	by := ""
	if s.Status.Revision == r.Number+1 {
		by = fmt.Sprintf(" (revision %d)", s.Status.Revision)
	}
	return fmt.Sprintf("%s was rolled back from revision %d to %s%s: %s", label, r.Number, to, by, whyText(r.Rollout.Why))
}

// whyText keeps the lines of a reason, for it may end in what a container wrote.
func whyText(why string) string {
	if why == "" {
		return "why is not known"
	}
	var lines []string
	for line := range strings.Lines(why) {
		if line = cleanText(strings.TrimRight(line, " \t\r\n")); line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n    ")
}

// wanted is how many replicas a service is to have: of a global one, as many as there
// are nodes for it.
func wanted(s *api.Service) int {
	if s.Spec.Mode == api.ModeGlobal {
		return s.Status.Replicas
	}
	return s.Spec.Want()
}

// endlessPause tells whether a rollout waits for an operator, and not for a time.
func endlessPause(s *api.Service) bool {
	r := s.Status.Rollout
	if r.State != api.RolloutPaused {
		return false
	}
	steps := s.Spec.Rollout.Canary
	return r.PausedBy != "" || r.Step < 1 || r.Step > len(steps) || steps[r.Step-1].Pause == nil
}

// stepText gives "step 1 of 3", "" where no step is under way.
func stepText(s *api.Service) string {
	if r := s.Status.Rollout; r.Step > 0 && len(s.Spec.Rollout.Canary) > 0 {
		return fmt.Sprintf("step %d of %d", r.Step, len(s.Spec.Rollout.Canary))
	}
	return ""
}

// pauseText says where a rollout is held, and by whom or until when.
func pauseText(s *api.Service, now time.Time) string {
	r, steps := s.Status.Rollout, s.Spec.Rollout.Canary
	var parts []string
	if step := stepText(s); step != "" {
		parts = append(parts, "at "+step)
	}
	switch {
	case r.PausedBy != "":
		parts = append(parts, "by "+r.PausedBy)
	case !endlessPause(s) && !r.StepAt.IsZero():
		left := r.StepAt.Add(time.Duration(*steps[r.Step-1].Pause)).Sub(now)
		parts = append(parts, "for "+short(max(time.Second, (left+time.Second-1).Truncate(time.Second)))+" more")
	}
	return strings.Join(append([]string{"paused"}, parts...), " ")
}

// rolloutLine tells in a sentence how far a service's rollout is.
func rolloutLine(label string, s *api.Service, now time.Time) string {
	st, want := s.Status, wanted(s)
	r := st.Rollout
	has := fmt.Sprintf("%d of %s have it, %d of them ready", min(st.Updated, want), count(want, "replica"), st.UpdatedReady)
	why := ""
	if r.Why != "" {
		why = "; " + cleanText(r.Why)
	}
	switch r.State {
	case api.RolloutComplete:
		line := rolledOut(label, s, tookOf(r))
		if r.PausedBy != "" {
			line += "; the next one is paused by " + r.PausedBy
		}
		for _, text := range slices.Sorted(maps.Values(stays(s))) {
			line += "\n  " + text
		}
		return line
	case api.RolloutFailed:
		return fmt.Sprintf("service/%s revision %d could not be rolled out: %s", label, st.Revision, whyText(r.Why))
	case api.RolloutPaused:
		hint := ""
		if endlessPause(s) {
			hint = fmt.Sprintf("; `orchctl rollout resume service/%s` goes on", s.Metadata.Name)
		}
		return fmt.Sprintf("service/%s: revision %d is %s: %s%s", label, st.Revision, pauseText(s, now), has, hint)
	case api.RolloutProgressing:
		since := ""
		if !r.StartedAt.IsZero() {
			since = " for " + age(now, r.StartedAt)
		}
		if step := stepText(s); step != "" {
			since += ", " + step
		}
		return fmt.Sprintf("service/%s: revision %d is being rolled out%s: %s%s", label, st.Revision, since, has, why)
	}
	return fmt.Sprintf("service/%s: revision %d: %s%s", label, st.Revision, has, why)
}

// rolledOut is the last line of a rollout that went well.
func rolledOut(label string, s *api.Service, took time.Duration) string {
	have := count(wanted(s), "replica")
	if n := wanted(s) - len(stays(s)); n < wanted(s) {
		have = fmt.Sprintf("%d of %s", n, have)
	}
	line := fmt.Sprintf("service/%s is rolled out: revision %d, %s", label, s.Status.Revision, have)
	if took > 0 {
		line += " in " + short(took)
	}
	return line
}

// completeRevisions completes the numbers of the revisions of the service that is named.
func (t *tool) completeRevisions(cmd *cobra.Command, given []string, _ string) ([]string, cobra.ShellCompDirective) {
	x, err := t.oneService(given, "has revisions")
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
	defer cancel()
	client, err := t.connect(ctx, "complete", false)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	answer, err := client.List(ctx, &orchv1.ListRequest{Kind: api.KindRevision, Namespace: x.namespace, About: x.ref()})
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	list, err := decodeAll(answer.GetObjects())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	slices.SortStableFunc(list, compareObjects)
	var out []string
	for _, o := range list {
		if r, ok := o.value.(*api.Revision); ok {
			out = append(out, fmt.Sprint(r.Number))
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
}
