package logs

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestLast(t *testing.T) {
	many := at(0, "start F r0")
	for range 3000 {
		many += at(1, "stdout F a line of a run that has written more than anybody looks through")
	}
	long := strings.Repeat("é", 100)
	for _, c := range []struct {
		name, text string
		run        string
		limit      int
		want       string
	}{
		{"both streams", at(0, "start F r0") + at(1, "stdout F one") + at(2, "stderr F two"), "r0", 100, "one\ntwo"},
		{"whole lines", at(0, "start F r0") + at(1, "stdout F one") + at(2, "stderr F two"), "r0", 6, "two"},
		{"exactly", at(0, "start F r0") + at(1, "stdout F one") + at(2, "stderr F two"), "r0", 7, "one\ntwo"},
		{"parts", at(0, "start F r0") + at(1, "stdout P on") + at(2, "stdout F e"), "r0", 100, "one"},
		{"the run before it", at(0, "start F r0") + at(1, "stdout F one") + at(2, "start F r1") + at(3, "stdout F two"), "r1", 100, "two"},
		{"a newer run", at(0, "start F r0") + at(1, "stdout F one") + at(2, "start F r1") + at(3, "stdout F two"), "r0", 100, "one"},
		{"another run", at(0, "start F r0") + at(1, "stdout F one"), "r7", 100, ""},
		{"after a rotation", at(1, "stdout F one"), "r0", 100, "one"},
		{"nothing", at(0, "start F r0"), "r0", 100, ""},
		{"remarks of orch", at(0, "start F r0") + at(1, "stdout F one") + at(2, "orch F 3 lines lost: disk full"), "r0", 100, "one"},
		{"a long line", at(0, "start F r0") + at(1, "stdout F "+long), "r0", 9, "éééé"},
		{"control characters", at(0, "start F r0") + at(1, "stdout F \x1b[31mred\ttext\r"), "r0", 100, "[31mred text"},
		{"no UTF-8", at(0, "start F r0") + at(1, "stdout F a\xffb"), "r0", 100, "a?b"},
		{"far behind its beginning", many + at(2, "stderr F cannot open database"), "r0", 25, "cannot open database"},
	} {
		got, err := Last(write(t, c.text), c.run, c.limit)
		if err != nil || got != c.want {
			t.Errorf("%s: %q, %v; want %q", c.name, got, err, c.want)
		}
		if len(got) > c.limit || !utf8.ValidString(got) {
			t.Errorf("%s: %q has %d bytes, limit %d", c.name, got, len(got), c.limit)
		}
	}
	if got, err := Last(write(t, at(0, "start F r0")+at(1, "stdout F one"), at(2, "stdout F two")), "r0", 100); got != "one\ntwo" || err != nil {
		t.Errorf("over a rotation: %q, %v", got, err)
	}
	if _, err := Last(filepath.Join(t.TempDir(), "none.log"), "r0", 10); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}
