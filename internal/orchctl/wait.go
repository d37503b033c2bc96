package orchctl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

const (
	// showEvery bounds how often progress is shown: more lines tell no more.
	showEvery = 100 * time.Millisecond
	// sparse is how much longer a wait must have become, as a share of it, until one
	// more line tells of its progress: a long one is not told by the second.
	sparse = 3
	// reasonAfter is how long a reason must stand before it is worth a line:
	// most pass by themselves.
	reasonAfter = time.Second
)

// waiting follows services from their change until they are ready.
type waiting struct {
	t      *tool
	client orchv1.OrchClient
	before map[string]bool // replicas that were there before the change
	early  []sighting      // seen before the change
	tracks []*track
	jobs   []*jobTrack
	order  []conclusive // both, as they are told in the end
	screen *block
	// configs are those that the change gave new versions.
	configs []*api.Config
}

// conclusive is what ends in a line, or in a failure.
type conclusive interface {
	// conclusion is its last line; failure is "" but of one that failed.
	conclusion(now time.Time) string
	failure() string
	tell()
}

// look takes in what is there before the change; it does not wait long for it,
// for the change matters more than its times.
func (w *waiting) look(ctx context.Context, f *feed) error {
	return f.all(ctx, time.After(firstLook), func(s sighting) {
		w.early = append(w.early, s)
		w.before[s.o.key()] = true
	})
}

// begin makes a track of everything that was applied and takes its time; of the rest it
// prints what became of it.
func (w *waiting) begin(ctx context.Context, answer *orchv1.ApplyResponse, began, committed time.Time) error {
	list, err := appliedObjects(answer)
	if err != nil {
		return err
	}
	for _, x := range list {
		switch v := x.value.(type) {
		case *api.Service:
			w.add(v, x.outcome, began, committed)
		case *api.Job:
			w.addJob(v, x.outcome, began, committed)
		default:
			if c, ok := v.(*api.Config); ok && x.outcome == "configured" {
				w.configs = append(w.configs, c)
			}
			if err := w.t.printf("%s\n", x.outcomeLine()); err != nil {
				return err
			}
		}
		for _, line := range x.plan { // nothing of it is a plan but in a dry run
			w.t.warnf("%s/%s: %s", word(x.kind), x.name(), cleanText(line))
		}
	}
	for _, r := range revisedBy(list) {
		if err := w.t.printf("%s\n", r); err != nil {
			return err
		}
		if err := w.follow(ctx, r, began, committed); err != nil {
			return err
		}
	}
	w.start(committed)
	return nil
}

func (w *waiting) add(s *api.Service, outcome string, began, committed time.Time) {
	x := newTrack(s, outcome, began, committed, w.before)
	w.tracks, w.order = append(w.tracks, x), append(w.order, x)
}

func (w *waiting) addJob(j *api.Job, outcome string, began, committed time.Time) {
	x := newJobTrack(j, outcome, began, committed)
	w.jobs, w.order = append(w.jobs, x), append(w.order, x)
}

// several tells whether what is followed is in more than one namespace.
func (w *waiting) several() bool {
	of := map[string]bool{}
	for _, x := range w.tracks {
		of[x.key.Namespace] = true
	}
	for _, x := range w.jobs {
		of[x.key.Namespace] = true
	}
	return len(of) > 1
}

// start gives the tracks their labels and what was seen before.
func (w *waiting) start(now time.Time) {
	label := func(key api.Key) string { return key.Name }
	if w.several() {
		label = api.Key.String
	}
	for _, x := range w.tracks {
		x.label = label(x.key)
	}
	for _, x := range w.jobs {
		x.label = label(x.key)
	}
	for _, s := range w.early {
		if v, ok := s.o.value.(*api.Service); ok && s.news == put {
			for _, x := range w.tracks {
				if v.Metadata.Key() == x.key {
					x.prior = &v.Status.Rollout
				}
			}
		}
		w.see(s, now)
	}
	w.early = nil
	for _, x := range w.tracks {
		x.already = x.outcome == "unchanged" && x.ready(now)
	}
	for _, x := range w.jobs {
		x.already = x.outcome != "created" && x.ended()
	}
}

func (w *waiting) see(s sighting, now time.Time) {
	for _, x := range w.tracks {
		x.see(s, now)
	}
	for _, x := range w.jobs {
		x.see(s, now)
	}
}

// run shows progress until every service is ready.
func (w *waiting) run(ctx context.Context, f *feed, timeout time.Duration) error {
	var over <-chan time.Time
	if timeout > 0 {
		over = time.After(timeout)
	}
	tick := time.NewTicker(showEvery)
	defer tick.Stop()
	if _, _, ok := w.t.Screen(); ok {
		w.screen = &block{t: w.t}
		defer w.screen.clear()
	}
	for {
		if done, err := w.finished(ctx); done || err != nil {
			return err
		}
		select {
		case s := <-f.ch:
			if s.err != nil {
				return w.stopped(fmt.Sprintf("the progress cannot be followed any more: %v", s.err))
			}
			w.see(s, w.t.Now())
		case <-tick.C:
			if err := w.show(); err != nil {
				return err
			}
		case <-over:
			return w.stopped("not ready within " + short(timeout))
		case <-ctx.Done():
			return w.stopped("interrupted")
		}
	}
}

// finished prints the last line of each service that is ready. The error tells of all
// that failed, when nothing is left to wait for.
func (w *waiting) finished(ctx context.Context) (bool, error) {
	now, left := w.t.Now(), 0
	var failed []string
	for _, x := range w.tracks {
		if err := w.judge(ctx, x, now); err != nil {
			return false, w.stopped(fmt.Sprintf("the progress cannot be followed any more: %v", err))
		}
		w.learn(ctx, x, now)
		switch {
		case x.fate.failed != "":
			failed = append(failed, x.fate.failed)
		case x.fate.held && !x.told && w.screen == nil:
			if err := w.conclude(x); err != nil {
				return false, err
			}
		case x.fate.held:
		case x.gone && !x.told:
			return false, w.stopped(fmt.Sprintf("service/%s was deleted meanwhile", x.label))
		case !x.ready(now) || !x.steady(now): // not yet, or not any more
			left++
		case x.told || w.screen != nil: // on a screen all at the end, below each other
		default:
			if err := w.conclude(x); err != nil {
				return false, err
			}
		}
	}
	for _, x := range w.jobs {
		switch {
		case x.failure() != "":
			failed = append(failed, x.failure())
		case x.ended() && (x.told || w.screen != nil):
		case x.ended():
			if err := w.conclude(x); err != nil {
				return false, err
			}
		case x.gone:
			return false, w.stopped(fmt.Sprintf("job/%s was deleted meanwhile", x.label))
		default:
			left++
		}
	}
	if left > 0 {
		return false, nil
	}
	if w.screen != nil {
		w.screen.clear()
		for _, x := range w.order {
			if x.failure() != "" {
				continue
			}
			if err := w.conclude(x); err != nil {
				return false, err
			}
		}
	}
	if failed = append(failed, w.leftBehind()...); len(failed) > 0 {
		return false, errors.New(strings.Join(failed, "\n"))
	}
	return true, nil
}

func (w *waiting) conclude(x conclusive) error {
	x.tell()
	return w.t.printf("%s\n", x.conclusion(w.t.Now()))
}

// show tells what changed since the last time.
func (w *waiting) show() error {
	now := w.t.Now()
	if w.screen != nil {
		return w.screen.draw(w.tracks, w.jobs, now)
	}
	for _, x := range w.tracks {
		if x.told && x.isReady() || x.fate.failed != "" || x.fate.held {
			continue
		}
		// A pause that goes by is told once, not with each second of it.
		if s := x.stateLine(now); sameReason(s) != x.shownState {
			x.shownState = sameReason(s)
			if s != "" {
				if err := w.t.printf("%s: %s\n", x.label, s); err != nil {
					return err
				}
			}
		}
		if s := x.summary(); sameReason(s) != sameReason(x.shown) && now.Sub(x.shownAt) >= now.Sub(x.began)/sparse {
			x.shown, x.shownAt = s, now
			if err := w.t.printf("%s: %s\n", x.label, s); err != nil {
				return err
			}
		}
		for _, reason := range x.standing.news(x.reasons(), now) {
			if err := w.t.printf("%s: %s\n", x.label, cleanText(reason)); err != nil {
				return err
			}
		}
	}
	for _, x := range w.jobs {
		for _, line := range x.news(now) {
			if err := w.t.printf("%s: %s\n", x.label, line); err != nil {
				return err
			}
		}
	}
	return nil
}

// stopped ends the wait without success and says how things stand.
func (w *waiting) stopped(why string) error {
	if w.screen != nil {
		w.screen.clear()
	}
	var b strings.Builder
	b.WriteString(why)
	describe := ""
	for _, x := range w.tracks {
		if x.fate.failed != "" {
			fmt.Fprintf(&b, "\n  %s", strings.ReplaceAll(x.fate.failed, "\n", "\n  "))
			continue
		}
		switch was := x.ready(w.t.Now()); {
		case was && !x.isReady():
			x.outcome += ", was ready"
		case was:
			if !x.told {
				_ = w.conclude(x) // the failure is what matters now
			}
			continue
		}
		describe = cmp.Or(describe, describing(api.KindService, x.key))
		fmt.Fprintf(&b, "\n  service/%s", x.label)
		if x.outcome != "" {
			b.WriteString(" " + x.outcome + ";")
		}
		b.WriteString(" " + x.summary())
		for _, r := range foldReasons(x.reasons()) {
			b.WriteString("\n    " + cleanText(r))
		}
	}
	for _, x := range w.jobs {
		switch {
		case x.failure() != "":
			fmt.Fprintf(&b, "\n  %s", strings.ReplaceAll(x.failure(), "\n", "\n  "))
			continue
		case x.ended():
			if !x.told {
				_ = w.conclude(x) // the failure is what matters now
			}
			continue
		}
		describe = cmp.Or(describe, describing(api.KindJob, x.key))
		fmt.Fprintf(&b, "\n  job/%s %s; %s", x.label, x.outcome, x.summary())
		for _, r := range foldReasons(x.reasons()) {
			b.WriteString("\n    " + cleanText(r))
		}
	}
	for _, line := range w.leftBehind() {
		b.WriteString("\n" + line)
	}
	if describe != "" {
		fmt.Fprintf(&b, "\nwhat was applied stays, and orch goes on with it; `%s` tells more", describe)
	}
	return fmt.Errorf("%s", b.String())
}

// describing is the command that tells more of a service or job.
func describing(kind string, key api.Key) string {
	return fmt.Sprintf("orchctl describe %s %s -n %s", word(kind), key.Name, key.Namespace)
}
