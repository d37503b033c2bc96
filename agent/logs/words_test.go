package logs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
)

func wordsOf(epoch uint64, container, text string) Words {
	return Words{Replica: api.ReplicaKey{Namespace: "default", Service: "web", Epoch: epoch}, Container: container,
		Exit: &api.Exit{Code: 1, Reason: api.ExitError, FinishedAt: t0}, Lines: []Line{{Time: t0, Stream: "stdout", Text: text, Run: "r0"}}}
}

func TestArchive(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "words")
	a := NewArchive(dir)
	if _, err := a.Find(wordsOf(1, "", "").Replica, ""); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing was kept: %v", err)
	}
	for _, w := range []Words{wordsOf(1, "main", "old"), wordsOf(1, "main", "one"), wordsOf(1, "proxy", "two"), wordsOf(12, "main", "three")} {
		if err := a.Keep(w); err != nil {
			t.Fatal(err)
		}
	}
	a = NewArchive(dir) // the next life of the agent
	for _, c := range []struct {
		epoch           uint64
		container, want string
	}{{1, "main", "one"}, {1, "proxy", "two"}, {1, "", "one"}, {12, "", "three"}, {2, "", ""}, {1, "other", ""}, {12, "../x", ""}} {
		w, err := a.Find(wordsOf(c.epoch, "", "").Replica, c.container)
		if c.want == "" {
			if !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%d %q: %v, %v", c.epoch, c.container, w, err)
			}
			continue
		}
		if want := wordsOf(c.epoch, w.Container, c.want); err != nil || !reflect.DeepEqual(w, want) {
			t.Errorf("%d %q: %+v, %v; want %+v", c.epoch, c.container, w, err, want)
		}
	}
	torn := filepath.Join(dir, wordsName(wordsOf(1, "", "").Replica, "main"))
	if err := os.WriteFile(torn, []byte(`{"repl`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Find(wordsOf(1, "", "").Replica, "main"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("torn: %v", err)
	}
}

func TestArchiveIsBounded(t *testing.T) {
	for _, c := range []struct {
		name    string
		bytes   int64
		entries int
		want    []uint64
	}{{"by count", 1 << 20, 3, []uint64{8, 9, 10}}, {"by size", 2500, 100, []uint64{9, 10}}, {"one that is too large", 10, 100, []uint64{10}}} {
		a := NewArchive(t.TempDir())
		a.bytes, a.entries = c.bytes, c.entries
		for epoch := range uint64(11) {
			w := wordsOf(epoch, "main", strings.Repeat("x", 900))
			if err := a.Keep(w); err != nil {
				t.Fatal(err)
			}
			at := t0.Add(time.Duration(epoch) * time.Second) // whatever the file system's clock can tell apart
			if err := os.Chtimes(filepath.Join(a.dir, wordsName(w.Replica, "main")), at, at); err != nil {
				t.Fatal(err)
			}
		}
		var got []uint64
		for epoch := range uint64(11) {
			if _, err := a.Find(wordsOf(epoch, "", "").Replica, "main"); err == nil {
				got = append(got, epoch)
			}
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v are left, want %v", c.name, got, c.want)
		}
	}
}

func TestLastLines(t *testing.T) {
	text := func(file string) string {
		t.Helper()
		lines, err := LastLines(file)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, l := range lines {
			out = append(out, l.Text)
		}
		return strings.Join(out, " ")
	}
	if got := text(write(t, at(0, "start F r0")+at(1, "stdout F one"), at(2, "start F r1")+at(3, "stdout F two")+at(4, "stderr F three"))); got != "two three" {
		t.Errorf("the newest run: %q", got)
	}
	if got := text(write(t, at(0, "start F r0")+at(1, "stdout F one")+at(2, "start F r1"))); got != "" {
		t.Errorf("the newest run wrote nothing: %q", got)
	}
	if got := text(write(t, at(0, "start F r0")+at(1, "stdout F one"), at(2, "stdout F two"))); got != "one two" {
		t.Errorf("over a rotation: %q", got)
	}
	var many, short strings.Builder
	for i := range 1000 {
		fmt.Fprint(&many, at(i, fmt.Sprintf("stdout F %03d%s", i, strings.Repeat("x", 97))))
		fmt.Fprint(&short, at(i, "stdout F x"))
	}
	if got := text(write(t, many.String())); len(got) > WordsBytes || len(got) < WordsBytes-200 || !strings.HasPrefix(got[len(got)-100:], "999") {
		t.Errorf("%d bytes, ends with %q", len(got), got[len(got)-100:])
	}
	if lines, err := LastLines(write(t, short.String())); err != nil || len(lines) != wordsLines {
		t.Errorf("%d lines, %v", len(lines), err)
	}
	if _, err := LastLines(filepath.Join(t.TempDir(), "none.log")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}
