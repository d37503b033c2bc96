package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"gopkg.in/natefinch/lumberjack.v2"
)

const (
	// fileMax is the size at which a new file is begun, in MB, and filesKept how
	// many old ones are kept beside it: some millions of changes in 1.1 GB.
	fileMax, filesKept = 100, 10
	// Off and Stdout stand for a path.
	Off, Stdout = "off", "-"
	// complainEvery bounds how often the daemon's log is told that nothing can be
	// written here.
	complainEvery = 10 * time.Second
)

// Config of a Log.
type Config struct {
	// Path of the file, Stdout or Off.
	Path string
	// Required: a change is refused where its line cannot be written. Each change
	// then has a line before it is begun and another when it is over.
	Required bool
	// Out is what Stdout means; nil is os.Stdout.
	Out io.Writer
	// Now is the clock; nil is the system's.
	Now    func() time.Time
	Logger *slog.Logger
}

// Log writes lines. Make it with Open. Safe for concurrent use.
type Log struct {
	cfg      Config
	out      io.Writer // nil: off
	close    func() error
	requests *seen
	noise    *noise

	mu         sync.Mutex
	torn       bool // the last write failed: it may have left half a line
	written    uint64
	failed     uint64
	complained time.Time
}

// Open begins or goes on with a log, and makes sure that it can be written.
func Open(cfg Config) (*Log, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Out == nil {
		cfg.Out = os.Stdout
	}
	l := &Log{cfg: cfg, close: func() error { return nil }, requests: newSeen(), noise: newNoise()}
	switch cfg.Path {
	case Off:
		return l, nil
	case Stdout:
		l.out = cfg.Out
		return l, nil
	}
	// What is wrong with the path is known at the start, not at the first change.
	if err := os.MkdirAll(filepath.Dir(cfg.Path), 0o700); err != nil {
		return nil, fmt.Errorf("open audit log: %w; choose another with --audit-log", err)
	}
	f, err := os.OpenFile(cfg.Path, os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open audit log: %w; choose another with --audit-log", err)
	}
	l.torn, err = endsTorn(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("open audit log: %w", err)
	}
	file := &lumberjack.Logger{Filename: cfg.Path, MaxSize: fileMax, MaxBackups: filesKept}
	l.out, l.close = file, file.Close
	return l, nil
}

// endsTorn tells whether the last line has no end: the disk was full, or the power went.
func endsTorn(f *os.File) (bool, error) {
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() == 0 {
		return false, err
	}
	last := make([]byte, 1)
	_, err = f.ReadAt(last, info.Size()-1)
	return last[0] != '\n', err
}

// Close closes the file. Lines after it open it again.
func (l *Log) Close() error { return l.close() }

// Counts are the lines that were written, and those that could not be, since the start.
func (l *Log) Counts() (written, failed uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.written, l.failed
}

// Write appends a line. An error was told to the daemon's log already.
func (l *Log) Write(x Line) error {
	if l.out == nil {
		return nil
	}
	x.Time, x.Detail, x.Message = x.Time.UTC(), cut(x.Detail), cut(x.Message)
	data, err := json.Marshal(x)
	if err != nil { // plain texts and numbers
		panic(fmt.Sprintf("encode an audit line: %v", err))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.torn {
		data = append([]byte("\n"), data...)
	}
	_, err = l.out.Write(append(data, '\n'))
	l.torn = err != nil
	if err == nil {
		l.written++
		return nil
	}
	l.failed++
	if now := l.cfg.Now(); now.Sub(l.complained) >= complainEvery {
		l.complained = now
		l.cfg.Logger.Error("the audit log cannot be written: make room, or choose another with --audit-log", "file", l.cfg.Path,
			"error", err, "lines_lost", l.failed, "changes", map[bool]string{true: "refused", false: "go on"}[l.cfg.Required])
	}
	return fmt.Errorf("write audit log %s: %w", l.cfg.Path, err)
}
