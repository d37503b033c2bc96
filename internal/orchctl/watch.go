package orchctl

import (
	"context"
	"slices"
	"strings"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/manifests"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// watch prints what is there, then each row that changes.
func (t *tool) watch(ctx context.Context, l listing, targets []target) error {
	x := targets[0]
	client, err := t.connect(ctx, "watch "+words(x.kind), false)
	if err != nil {
		return err
	}
	switch {
	case x.kind == api.KindEndpoint && x.name != "":
		about, err := t.endpointsAbout(ctx, client, x)
		if err != nil {
			return err
		}
		l.about, x.namespace, x.name = about.ref(), about.namespace, ""
	case x.name != "":
		if x.name, err = t.fullName(ctx, client, x); err != nil {
			return err
		}
	}
	if t.isLive(l, x.kind) {
		return t.watchLive(ctx, client, l, x)
	}
	cols := slices.DeleteFunc(columnsOf(x.kind, l.output == "wide", l.all), func(c column) bool { return c.title == "MODE" }) // it hardly ever changes
	w := &watcher{t: t, l: l, cols: cols, table: newSteadyTable(cols), shown: map[string]string{}}
	err = t.follow(ctx, client, l.request(x), func(n news, o object) error {
		if n != synced && (x.name != "" && o.name() != x.name || !l.events.wants(o)) {
			return nil
		}
		if n == gone && x.kind == api.KindEvent {
			return nil // its time is over: that is no news
		}
		return w.take(n, o, func() { t.none(x.kind, l, x.namespace) })
	})
	if ctx.Err() != nil {
		return nil // an interrupt is how a watch ends
	}
	return err
}

// fullName asks the controller which object a shortened name means.
func (t *tool) fullName(ctx context.Context, client orchv1.OrchClient, x target) (string, error) {
	found, missing, err := t.fetch(ctx, client, listing{}, []target{x})
	if err != nil {
		return "", err
	}
	if missing != nil {
		return "", missing
	}
	return found[0].name(), nil
}

// watcher prints changes.
type watcher struct {
	t       *tool
	l       listing
	cols    []column
	table   *table
	inStep  bool
	told    bool              // something was printed before the first synced
	waiting []object          // before the first synced
	shown   map[string]string // by object, its row as printed, without ages
}

func (w *watcher) take(n news, o object, none func()) error {
	switch {
	case n == synced && !w.inStep:
		w.inStep = true
		slices.SortStableFunc(w.waiting, compareObjects)
		if len(w.waiting) == 0 && !w.told {
			none()
		}
		var rows [][]string
		for _, o := range w.waiting {
			if row := w.row(o); row != nil {
				rows = append(rows, row)
			}
		}
		w.waiting = nil
		if len(rows) == 0 {
			return nil
		}
		return w.table.print(w.t.Out, "", rows...)
	case n == synced:
		return nil
	case !w.inStep:
		if n == put && w.plain() {
			w.waiting = append(w.waiting, o)
			return nil
		}
	}
	if !w.plain() {
		w.told = true
		return w.whole(n, o)
	}
	if n == gone {
		delete(w.shown, o.key())
		row := make([]string, len(w.cols))
		for i, c := range w.cols {
			switch c.title {
			case "NAMESPACE", "NAME":
				row[i] = c.cell(o, w.t.Now())
			}
		}
		row[slices.IndexFunc(w.cols, func(c column) bool { return c.title == "NAME" })+1] = "(gone)"
		return w.table.print(w.t.Out, "", row)
	}
	if row := w.row(o); row != nil {
		return w.table.print(w.t.Out, "", row)
	}
	return nil
}

func (w *watcher) plain() bool { return w.l.output == "" || w.l.output == "wide" }

// passing are the columns that change by themselves.
var passing = []string{"AGE", "LAST", "CHANGED", "DURATION", "FINISHED"}

// row gives an object's row, nil where the same one was printed last: an age
// alone is no change.
func (w *watcher) row(o object) []string {
	row := cells(w.cols, o, w.t.Now())
	var b strings.Builder
	for i, c := range w.cols {
		if !slices.Contains(passing, c.title) {
			b.WriteString(row[i] + "\x00")
		}
	}
	if w.shown[o.key()] == b.String() {
		return nil
	}
	w.shown[o.key()] = b.String()
	return row
}

// whole prints an object for -o name, yaml and json; a departure has only a name.
func (w *watcher) whole(n news, o object) error {
	if n == gone {
		if w.l.output == "name" {
			return w.t.printf("%s/%s gone\n", word(o.kind), cleanText(o.name()))
		}
		return nil
	}
	switch w.l.output {
	case "name":
		return w.t.showNames([]object{o})
	case "json":
		return w.t.writeJSON(o.raw)
	}
	text, err := manifests.Marshal(o.raw)
	if err != nil {
		return err
	}
	return w.t.printf("---\n%s", text)
}
