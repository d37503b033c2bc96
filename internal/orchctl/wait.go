package orchctl

import (
	"context"
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
	// reasonAfter is how long a reason must stand before it is worth a line:
	// most pass by themselves.
	reasonAfter = time.Second
)

// waiting follows services from their change until they are ready.
type waiting struct {
	t      *tool
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
		w.tracks = append(w.tracks, newTrack(s, x.GetOutcome(), began, committed, w.before))
	}
	several := slices.ContainsFunc(w.tracks, func(x *track) bool { return x.key.Namespace != w.tracks[0].key.Namespace })
	for _, x := range w.tracks {
		x.label = x.key.Name
		if several {
			x.label = x.key.String()
		}
	}
	for _, s := range w.early {
		w.see(s, committed)
	}
	w.early = nil
	for _, x := range w.tracks {
		x.already = x.outcome == "unchanged" && x.ready(committed)
	}
	return nil
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
		if done, err := w.finished(); done || err != nil {
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

// finished prints the last line of each service that is ready.
func (w *waiting) finished() (bool, error) {
	now, left := w.t.Now(), 0
	for _, x := range w.tracks {
		switch {
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
			if err := w.conclude(x); err != nil {
				return false, err
			}
		}
	}
	return true, nil
}

func (w *waiting) conclude(x *track) error {
	x.told = true
	return w.t.printf("%s\n", x.conclusion())
}

// show tells what changed since the last time.
func (w *waiting) show() error {
	now := w.t.Now()
	if w.screen != nil {
		return w.screen.draw(w.tracks, now)
	}
	for _, x := range w.tracks {
		if x.told && x.isReady() {
			continue
		}
		if s := x.summary(); s != x.shown {
			x.shown = s
			if err := w.t.printf("%s: %s\n", x.label, s); err != nil {
				return err
			}
		}
		for _, reason := range x.newReasons(now) {
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
		fmt.Fprintf(&b, "\n  service/%s %s; %s", x.label, x.outcome, x.summary())
		for _, r := range x.reasons() {
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
