package logs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
)

var t0 = time.Date(2026, 11, 21, 14, 0, 0, 0, time.UTC)

// at is a record of second s.
func at(s int, rest string) string {
	return t0.Add(time.Duration(s)*time.Second).Format(time.RFC3339Nano) + " " + rest + "\n"
}

// write makes log files in a temporary folder, oldest first, and returns the
// current one's path.
func write(t *testing.T, files ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "main.log")
	for i, text := range files {
		name := file
		if n := len(files) - 1 - i; n > 0 {
			name += fmt.Sprintf(".%d", n)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return file
}

func read(t *testing.T, file string, o Options) []string {
	t.Helper()
	var got []string
	if err := Read(t.Context(), file, o, func(l Line) error {
		got = append(got, fmt.Sprintf("%d %s %s %s", l.Time.Sub(t0)/time.Second, l.Run, l.Stream, l.Text))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return got
}

func TestRead(t *testing.T) {
	oldest := at(0, "start F r0") + at(1, "stdout F one") + at(2, "stderr F two") + at(3, "stdout P th")
	older := at(3, "stderr F between") + at(4, "stdout F ree") + at(5, "start F r1") + at(6, "stdout F ")
	now := "torn record\n" + at(7, "orch F 3 lines lost: no space left on device") + at(8, "start F r2") + at(9, "stdout F  last  one ") + "2026-11-21T14:00:10Z stdout F unfinished"
	file := write(t, oldest, older, now)
	all := []string{"1 r0 stdout one", "2 r0 stderr two", "3 r0 stderr between", "4 r0 stdout three", "6 r1 stdout ", "7 r1 orch 3 lines lost: no space left on device", "9 r2 stdout  last  one "}
	for _, c := range []struct {
		name string
		o    Options
		want []string
	}{
		{"all", Options{}, all},
		{"tail", Options{Tail: 3}, all[4:]},
		{"tail over all", Options{Tail: 100}, all},
		{"since", Options{Since: t0.Add(4 * time.Second)}, all[3:]},
		{"since and tail", Options{Since: t0.Add(4 * time.Second), Tail: 2}, all[5:]},
		{"since the future", Options{Since: t0.Add(time.Hour)}, nil},
		{"previous", Options{Previous: true}, all[4:6]},
		{"previous, tail", Options{Previous: true, Tail: 1}, all[5:6]},
		{"previous, the newest has ended", Options{Previous: true, Ended: true}, all[6:]},
	} {
		if got := read(t, file, c.o); !slices.Equal(got, c.want) {
			t.Errorf("%s:\n%q\nwant\n%q", c.name, got, c.want)
		}
	}
}

func TestReadErrors(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none.log")
	emit := func(Line) error { return nil }
	if err := Read(t.Context(), none, Options{}, emit); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	file := write(t, at(0, "start F r0")+at(1, "stdout F x"))
	if err := Read(t.Context(), file, Options{Previous: true}, emit); !errors.Is(err, ErrNoPrevious) {
		t.Errorf("no previous run: %v", err)
	}
	if got := read(t, file, Options{Previous: true, Ended: true}); !slices.Equal(got, []string{"1 r0 stdout x"}) {
		t.Errorf("the first run has ended: %q", got)
	}
	rotated := write(t, at(1, "stdout F x")+at(2, "start F r7")+at(3, "stdout F y"))
	if got := read(t, rotated, Options{Previous: true}); !slices.Equal(got, []string{"1  stdout x"}) {
		t.Errorf("a run whose beginning was rotated away: %q", got)
	}
	mine := errors.New("mine")
	for _, o := range []Options{{}, {Tail: 1}, {Follow: true}} {
		if err := Read(t.Context(), file, o, func(Line) error { return mine }); err != mine {
			t.Errorf("emit's error with %+v: %v", o, err)
		}
	}
}

func TestLineLimit(t *testing.T) {
	part := strings.Repeat("x", 16<<10)
	var b strings.Builder
	for range 100 {
		b.WriteString(at(1, "stdout P "+part))
	}
	b.WriteString(at(1, "stdout F end"))
	total := 0
	lines := 0
	if err := Read(t.Context(), write(t, b.String()), Options{}, func(l Line) error {
		lines++
		total += len(l.Text)
		if len(l.Text) > maxLine+len(part) {
			t.Errorf("a line of %d bytes", len(l.Text))
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if lines != 2 || total != 100*len(part)+3 {
		t.Errorf("%d lines, %d bytes", lines, total)
	}
}

// TestFollow writes while reading: into a file that does not exist yet, over
// partly written records and over two rotations at once.
func TestFollow(t *testing.T) {
	file := filepath.Join(t.TempDir(), "sub", "main.log")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	lines := make(chan string)
	done := make(chan error, 1)
	go func() {
		done <- Read(ctx, file, Options{Follow: true}, func(l Line) error { lines <- l.Text; return nil })
	}()
	want := func(texts ...string) {
		t.Helper()
		for _, text := range texts {
			select {
			case got := <-lines:
				if got != text {
					t.Fatalf("got %q, want %q", got, text)
				}
			case err := <-done:
				t.Fatalf("ended: %v", err)
			case <-time.After(10 * time.Second):
				t.Fatalf("no line %q", text)
			}
		}
	}
	add := func(text string) {
		t.Helper()
		f, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err == nil {
			_, err = f.WriteString(text)
			f.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	rotate := func() {
		t.Helper()
		os.Rename(file+".1", file+".2")
		if err := os.Rename(file, file+".1"); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	add(at(0, "start F r0") + at(1, "stdout F one"))
	want("one")
	record := at(2, "stdout F two")
	add(record[:20])
	add(record[20:] + at(3, "stdout F three"))
	want("two", "three")
	add(at(4, "stdout F four"))
	rotate()
	add(at(5, "stdout F five"))
	rotate()
	add(at(6, "stdout F six"))
	want("four", "five", "six")
	add(at(7, "stdout F seven"))
	want("seven")
	cancel()
	if err := <-done; err != nil {
		t.Errorf("end of following: %v", err)
	}
}

// TestFollowOver: what is over is read to its end, however late it was written.
func TestFollowOver(t *testing.T) {
	over := make(chan struct{})
	close(over)
	for name, file := range map[string]string{"written": write(t, at(1, "stdout F one")+at(2, "stdout F two")), "never": filepath.Join(t.TempDir(), "none.log")} {
		var got []string
		err := Read(t.Context(), file, Options{Follow: true, Over: over}, func(l Line) error { got = append(got, l.Text); return nil })
		if want := map[string]int{"written": 2, "never": 0}[name]; err != nil || len(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestFollowAfterTail(t *testing.T) {
	file := write(t, at(1, "stdout F one")+at(2, "stdout F two"))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var got []string
	err := Read(ctx, file, Options{Follow: true, Tail: 1}, func(l Line) error {
		got = append(got, l.Text)
		if len(got) == 1 {
			f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.WriteString(at(3, "stdout F three") + at(4, "stdout F four"))
			return err
		}
		if l.Text == "four" {
			cancel()
		}
		return nil
	})
	if err != nil || !slices.Equal(got, []string{"two", "three", "four"}) {
		t.Errorf("%q, %v", got, err)
	}
}

func TestFile(t *testing.T) {
	k := api.ReplicaKey{Namespace: "prod", Service: "web", Slot: 3, Epoch: 17}
	if got := File("/var/log/orch", k, "main"); got != "/var/log/orch/prod/web-3@17/main.log" {
		t.Error(got)
	}
}

func FuzzDecoder(f *testing.F) {
	f.Add([]byte(at(1, "stdout P a") + at(2, "stdout F b")))
	f.Add([]byte("x y z\n\n   \n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		// Cut anywhere, the lines are the same.
		whole, halves := decode(b), decode(b[:len(b)/2], b[len(b)/2:])
		if !slices.Equal(whole, halves) {
			t.Errorf("%q whole, %q in halves", whole, halves)
		}
	})
}

func decode(parts ...[]byte) (lines []Line) {
	d := &decoder{parts: map[string][]byte{}, emit: func(l Line) error { lines = append(lines, l); return nil }}
	for _, p := range parts {
		d.feed(p)
	}
	return lines
}
