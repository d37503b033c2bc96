package logs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"unicode"
)

// lastBytes of a file are looked through for its last lines: what stands before them
// is older than anybody wants who asks for a few.
const lastBytes = 64 << 10

// Last gives the last whole lines that a run wrote, on both streams, at most limit
// bytes of them, joined by newlines. A last line that is longer is cut. Control
// characters, which would play tricks on a terminal, are left out. "" means that it
// wrote nothing, or nothing lately. A missing file is fs.ErrNotExist.
func Last(file, run string, limit int) (string, error) {
	b, err := tail(file)
	if err != nil {
		return "", fmt.Errorf("read log %s: %w", file, err)
	}
	var ours, before []string // before: of the run that had begun before b does
	d := &decoder{parts: map[string][]byte{}}
	d.emit = func(l Line) error {
		switch {
		case l.Stream == "orch":
		case l.Run == run:
			ours = append(ours, plain(l.Text))
		case l.Run == "":
			before = append(before, plain(l.Text))
		}
		return nil
	}
	if err := d.feed(b); err != nil {
		return "", fmt.Errorf("read log %s: %w", file, err)
	}
	if d.starts == 0 {
		ours = before
	}
	return lastOf(ours, limit), nil
}

// lastOf joins as many of the last lines as limit allows.
func lastOf(lines []string, limit int) string {
	size, first := -1, len(lines)
	for first > 0 && size+1+len(lines[first-1]) <= limit {
		first--
		size += 1 + len(lines[first])
	}
	if first == len(lines) && first > 0 {
		return strings.ToValidUTF8(lines[first-1][:limit], "")
	}
	return strings.Join(lines[first:], "\n")
}

// tail reads the end of a log, from the beginning of a record, over a rotation.
func tail(file string) ([]byte, error) {
	b, whole, err := tailOf(file, lastBytes)
	if err != nil && !errors.Is(err, fs.ErrNotExist) || err == nil && !whole {
		return b, err
	}
	older, _, olderErr := tailOf(file+".1", lastBytes-int64(len(b)))
	if errors.Is(olderErr, fs.ErrNotExist) {
		return b, err
	}
	return append(older, b...), olderErr
}

// tailOf reads the end of one file, and tells whether that is all of it.
func tailOf(file string, limit int64) (b []byte, whole bool, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, false, err
	}
	from := max(0, st.Size()-limit)
	b, err = io.ReadAll(io.NewSectionReader(f, from, st.Size()-from))
	if err != nil {
		return nil, false, err
	}
	if from > 0 {
		_, b, _ = bytes.Cut(b, []byte("\n"))
	}
	return b, from == 0, nil
}

// plain makes a line safe to be shown and to be sent.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' {
			return ' '
		}
		if unicode.IsControl(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}
