package orchctl

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
	screen *block
}

// look takes in what is there before the change; it does not wait long for it,
// for the change matters more than its times.
func (w *waiting) look(ctx context.Context, f *feed) error {
	return f.all(ctx, time.After(firstLook), func(s sighting) {
		w.early = append(w.early, s)
		w.before[s.o.key()] = true
	})
}

// begin makes a track of everything applied.
func (w *waiting) begin(answer *orchv1.ApplyResponse, began, committed time.Time) error {
	for _, x := range answer.GetApplied() {
		o, err := decode(x.GetObject())
		if err != nil {
			return err
		}
		s, ok := o.value.(*api.Service)
		if !ok {
			continue
		}
		w.add(s, x.GetOutcome(), began, committed)
		for _, line := range x.GetPlan() { // nothing of it is a plan but in a dry run
			w.t.warnf("service/%s: %s", s.Metadata.Name, cleanText(line))
		}
	}
	w.start(committed)
	return nil
}

func (w *waiting) add(s *api.Service, outcome string, began, committed time.Time) {
	w.tracks = append(w.tracks, newTrack(s, outcome, began, committed, w.before))
}

// start gives the tracks their labels and what was seen before.
func (w *waiting) start(now time.Time) {
	several := slices.ContainsFunc(w.tracks, func(x *track) bool { return x.key.Namespace != w.tracks[0].key.Namespace })
	for _, x := range w.tracks {
		x.label = x.key.Name
		if several {
			x.label = x.key.String()
		}
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
}

func (w *waiting) see(s sighting, now time.Time) {
	for _, x := range w.tracks {
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
	if left > 0 {
		return false, nil
	}
	if w.screen != nil {
		w.screen.clear()
		for _, x := range w.tracks {
			if x.fate.failed != "" {
				continue
			}
			if err := w.conclude(x); err != nil {
				return false, err
			}
		}
	}
	if len(failed) > 0 {
		return false, errors.New(strings.Join(failed, "\n"))
	}
	return true, nil
}

func (w *waiting) conclude(x *track) error {
	x.told = true
	return w.t.printf("%s\n", x.conclusion(w.t.Now()))
}

// show tells what changed since the last time.
func (w *waiting) show() error {
	now := w.t.Now()
	if w.screen != nil {
		return w.screen.draw(w.tracks, now)
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
	return nil
}

// stopped ends the wait without success and says how things stand.
func (w *waiting) stopped(why string) error {
	if w.screen != nil {
		w.screen.clear()
	}
	var b strings.Builder
	b.WriteString(why)
	var names []string
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
		names = append(names, x.label)
		fmt.Fprintf(&b, "\n  service/%s", x.label)
		if x.outcome != "" {
			b.WriteString(" " + x.outcome + ";")
		}
		b.WriteString(" " + x.summary())
		for _, r := range foldReasons(x.reasons()) {
			b.WriteString("\n    " + cleanText(r))
		}
	}
	if len(names) > 0 {
		describe := "orchctl describe service " + w.tracks[0].key.Name
		for _, x := range w.tracks {
			if x.label == names[0] {
				describe = "orchctl describe service " + x.key.Name + " -n " + x.key.Namespace
			}
		}
		fmt.Fprintf(&b, "\nwhat was applied stays, and orch goes on with it; `%s` tells more", describe)
	}
	return fmt.Errorf("%s", b.String())
}
