package logs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/orchctl/orch/api"
)

// The limits of reading.
const (
	maxFiles    = 3                      // rotated files that are looked for, the current one among them
	maxLine     = 1 << 20                // bytes of one joined line; the rest is emitted as the next line
	readBytes   = 64 << 10               // bytes per read
	followEvery = 100 * time.Millisecond // a look at the file costs a stat; people notice no shorter delay
)

// Line is one line of output.
type Line struct {
	// Time is when the line was read from the container.
	Time time.Time
	// Stream is "stdout", "stderr", or "orch" for remarks on lost lines.
	Stream string
	// Text is the line without its newline.
	Text string
	// Run is the id of the container run that wrote it; empty if its
	// beginning was rotated away.
	Run string
}

// Options choose lines. The zero value gives all there are.
type Options struct {
	// Tail gives only the last n lines; 0 or less means all.
	Tail int
	// Since leaves out older lines; zero means none.
	Since time.Time
	// Follow goes on with new lines until the context ends, also when the
	// file does not exist yet.
	Follow bool
	// Over is closed when nobody writes any more: then Follow ends behind the last line.
	// Nil means never.
	Over <-chan struct{}
	// Previous gives only the newest run that has ended: the one before the newest, or
	// with Ended the newest itself. It excludes Follow.
	Previous, Ended bool
}

// Dir is the folder of one replica's logs.
func Dir(logDir string, k api.ReplicaKey) string {
	return filepath.Join(logDir, k.Namespace, k.Name()+"@"+strconv.FormatUint(k.Epoch, 10))
}

// File is the log of one container of a replica, over all its restarts.
func File(logDir string, k api.ReplicaKey, container string) string {
	return filepath.Join(Dir(logDir, k), container+".log")
}

// ErrNoPrevious says that the log holds nothing of a run that has ended.
var ErrNoPrevious = errors.New("no previous run")

// Read gives the lines of file to emit, in order. It ends with emit's error,
// at the end of the log, or, following, when ctx ends or the log is Over (then it
// returns nil).
// Without Follow a missing file is fs.ErrNotExist.
func Read(ctx context.Context, file string, o Options, emit func(Line) error) error {
	if o.Previous {
		o.Follow = false
	}
	set, err := openSet(file)
	if errors.Is(err, fs.ErrNotExist) && o.Follow {
		set, err = nil, nil
	}
	if err != nil {
		return fmt.Errorf("read log %s: %w", file, err)
	}
	defer func() { closeAll(set) }()

	want := func(l Line) bool { return o.Since.IsZero() || !l.Time.Before(o.Since) }
	d := &decoder{}
	if o.Previous {
		run, first, err := countRuns(ctx, set)
		if err != nil {
			return fmt.Errorf("read log %s: %w", file, err)
		}
		if !o.Ended {
			run--
		}
		if run < first {
			return fmt.Errorf("read log %s: %w", file, ErrNoPrevious)
		}
		since := want
		want = func(l Line) bool { return d.starts == run && since(l) }
	}

	out := emit
	var last *ring
	if o.Tail > 0 {
		last = &ring{n: o.Tail}
		out = last.add
	}
	d.emit = func(l Line) error {
		if !want(l) {
			return nil
		}
		return out(l)
	}
	for _, f := range set {
		if !o.Since.IsZero() && f.modified.Before(o.Since) && !o.Previous {
			continue
		}
		if err := d.readFile(ctx, f.File); err != nil {
			return quiet(ctx, o.Follow, file, err)
		}
	}
	if last != nil {
		if err := last.each(emit); err != nil {
			return err
		}
		out = emit
	}
	if !o.Follow {
		return nil
	}
	var current *os.File
	if len(set) > 0 {
		current = set[len(set)-1].File
		closeAll(set[:len(set)-1])
		set = set[len(set)-1:]
	}
	set = nil // follow closes current
	return quiet(ctx, true, file, follow(ctx, file, current, o.Over, d))
}

// quiet turns the end of a followed log by its reader into success.
func quiet(ctx context.Context, follow bool, file string, err error) error {
	if err == nil || (follow && ctx.Err() != nil) {
		return nil
	}
	var e emitError
	if errors.As(err, &e) {
		return e.error
	}
	return fmt.Errorf("read log %s: %w", file, err)
}

// follow reads on from f (nil: from the beginning, once there is a file), until over.
func follow(ctx context.Context, file string, f *os.File, over <-chan struct{}, d *decoder) error {
	defer func() {
		if f != nil {
			f.Close()
		}
	}()
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for last := false; ; {
		if f != nil {
			if err := d.readFile(ctx, f); err != nil {
				return err
			}
		}
		newer, err := newerThan(file, f)
		if err != nil {
			return err
		}
		if len(newer) > 0 {
			if f != nil { // what came between the last read and the rename
				if err := d.readFile(ctx, f); err != nil {
					closeAll(newer)
					return err
				}
				f.Close()
			}
			for i, n := range newer {
				f = n.File
				if i == len(newer)-1 {
					break
				}
				if err := d.readFile(ctx, f); err != nil {
					closeAll(newer[i+1:])
					return err
				}
				f.Close()
			}
			continue
		}
		if last {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-over:
			last = true // once more: what was written before it
		case <-tick.C:
		}
	}
}

// opened is a log file with the time of its last change.
type opened struct {
	*os.File
	modified time.Time
}

func closeAll(set []opened) {
	for _, f := range set {
		f.Close()
	}
}

// openSet opens the rotated files and the current one, oldest first. A rename
// in between may show one file twice; it is kept once.
func openSet(file string) ([]opened, error) {
	var set []opened
	for i := maxFiles - 1; i >= 0; i-- {
		name := file
		if i > 0 {
			name += "." + strconv.Itoa(i)
		}
		f, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			closeAll(set)
			return nil, err
		}
		st, err := f.Stat()
		if err != nil {
			f.Close()
			closeAll(set)
			return nil, err
		}
		if n := len(set); n > 0 {
			if before, err := set[n-1].Stat(); err == nil && os.SameFile(before, st) {
				f.Close()
				continue
			}
		}
		set = append(set, opened{f, st.ModTime()})
	}
	if len(set) == 0 {
		return nil, fs.ErrNotExist
	}
	return set, nil
}

// newerThan opens the files that came after f, oldest first; none when f is
// still the current one or when there is no file yet.
func newerThan(file string, f *os.File) ([]opened, error) {
	if f != nil {
		mine, err := f.Stat()
		if err != nil {
			return nil, err
		}
		now, err := os.Stat(file)
		if errors.Is(err, fs.ErrNotExist) || (err == nil && os.SameFile(mine, now)) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
	}
	set, err := openSet(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil || f == nil {
		return set, err
	}
	mine, err := f.Stat()
	if err != nil {
		closeAll(set)
		return nil, err
	}
	for i, s := range set {
		if st, err := s.Stat(); err == nil && os.SameFile(mine, st) {
			closeAll(set[:i+1])
			return set[i+1:], nil
		}
	}
	return set, nil // ours is rotated out altogether: all there is is newer
}

// countRuns gives the number of the newest run in set and of the first, and rewinds it.
// Runs are counted by their beginnings; 0 is one whose beginning was rotated away.
func countRuns(ctx context.Context, set []opened) (newest, first int, err error) {
	d := &decoder{}
	first = 1
	d.emit = func(Line) error {
		if d.starts == 0 {
			first = 0
		}
		return nil
	}
	for _, f := range set {
		if err := d.readFile(ctx, f.File); err != nil {
			return 0, 0, err
		}
		if _, err := f.Seek(0, 0); err != nil {
			return 0, 0, err
		}
	}
	return d.starts, first, nil
}

// ring keeps the last n lines.
type ring struct {
	n     int
	lines []Line
	next  int
}

func (r *ring) add(l Line) error {
	if len(r.lines) < r.n {
		r.lines = append(r.lines, l)
		return nil
	}
	r.lines[r.next] = l
	r.next = (r.next + 1) % r.n
	return nil
}

func (r *ring) each(emit func(Line) error) error {
	for i := range r.lines {
		if err := emit(r.lines[(r.next+i)%len(r.lines)]); err != nil {
			return err
		}
	}
	return nil
}

// emitError marks an error of the caller's, which is returned as it is.
type emitError struct{ error }

// decoder turns bytes into lines, over the ends of files.
type decoder struct {
	emit func(Line) error
	// starts counts beginnings of runs so far, run is the newest one's id.
	starts int
	run    string
	// rest is an unfinished record, parts the unfinished lines by stream.
	rest  []byte
	parts map[string][]byte
	buf   []byte
}

// readFile decodes f from where it stands to its end.
func (d *decoder) readFile(ctx context.Context, f *os.File) error {
	if d.buf == nil {
		d.buf = make([]byte, readBytes)
		d.parts = map[string][]byte{}
	}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := f.Read(d.buf)
		if n == 0 {
			return ignoreEOF(err)
		}
		if err := d.feed(d.buf[:n]); err != nil {
			return err
		}
	}
}

func (d *decoder) feed(b []byte) error {
	for {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			d.rest = append(d.rest, b...)
			return nil
		}
		record := b[:i]
		if len(d.rest) > 0 {
			d.rest = append(d.rest, record...)
			record = d.rest
		}
		if err := d.record(record); err != nil {
			return err
		}
		d.rest = d.rest[:0]
		b = b[i+1:]
	}
}

// record decodes "TIME STREAM F|P TEXT". What does not look like that (a torn
// record after a crash) is left out.
func (d *decoder) record(b []byte) error {
	fields := bytes.SplitN(b, []byte(" "), 4)
	if len(fields) != 4 || len(fields[2]) != 1 {
		return nil
	}
	t, err := time.Parse(time.RFC3339Nano, string(fields[0]))
	if err != nil {
		return nil
	}
	stream, text := string(fields[1]), fields[3]
	if stream == "start" {
		d.starts++
		d.run = string(text)
		clear(d.parts)
		return nil
	}
	part := d.parts[stream]
	if fields[2][0] == 'P' && len(part)+len(text) < maxLine {
		d.parts[stream] = append(part, text...)
		return nil
	}
	l := Line{Time: t, Stream: stream, Text: string(part) + string(text), Run: d.run}
	delete(d.parts, stream)
	if err := d.emit(l); err != nil {
		return emitError{err}
	}
	return nil
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
