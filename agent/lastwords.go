package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/orchctl/orch/agent/logs"
	"github.com/orchctl/orch/agent/plan"
	"github.com/orchctl/orch/agent/session"
	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// archiveFolder lies in the agent's data.
const archiveFolder = "lastwords"

// noteExit keeps how a container ended until its replica is gone.
func (d *driver) noteExit(o owner, e api.Exit) {
	if o.container != "" {
		d.exits[o] = e
	}
}

// part keeps what there is left to say of a replica that is gone, and has its output
// removed later. How its containers ended, and what they wrote last, may be behind by a
// moment.
func (d *driver) part(ctx context.Context, key api.ReplicaKey) {
	d.work.Go(func() {
		pause(ctx, outputLook)
		for _, name := range logged(d.cfg.LogDir, key) {
			d.settleLog(ctx, logs.File(d.cfg.LogDir, key, name))
		}
		var exits, told map[string]api.Exit
		if err := d.ask(ctx, func(c *plan.Core) { told = d.disown(c, key) }); err == nil {
			exits = told // else the agent ends, and its plan may still be about to answer
		}
		keepWords(d.cfg.LogDir, d.archive, key, exits, d.cfg.Logger)
		forgetLogs(d.cfg.LogDir, key, d.cfg.Logger)
	})
}

// disown forgets the containers of a replica and gives how they ended. Who follows its
// log comes to the end.
func (d *driver) disown(c *plan.Core, key api.ReplicaKey) map[string]api.Exit {
	exits := map[string]api.Exit{}
	for o, e := range d.exits {
		if o.replica == key {
			exits[o.container] = e
		}
	}
	if !c.Wants(key) { // it may be here again
		maps.DeleteFunc(d.exits, func(o owner, _ api.Exit) bool { return o.replica == key })
		maps.DeleteFunc(d.owners, func(_ string, o owner) bool { return o.replica == key })
		if followed := d.gone[key]; followed != nil {
			delete(d.gone, key)
			close(followed)
		}
	}
	return exits
}

// keepWords archives the last words of all containers of a replica.
func keepWords(logDir string, a *logs.Archive, key api.ReplicaKey, exits map[string]api.Exit, logger *slog.Logger) {
	names := logged(logDir, key)
	for _, name := range slices.Sorted(maps.Keys(exits)) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, name := range names {
		w := logs.Words{Replica: key, Container: name}
		if e, ok := exits[name]; ok {
			e.Output = "" // it is in the lines
			w.Exit = &e
		}
		var err error
		w.Lines, err = logs.LastLines(logs.File(logDir, key, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			logger.Warn("cannot read what a container wrote last", "replica", key, "container", name, "err", err)
		}
		if err := a.Keep(w); err != nil {
			logger.Warn("cannot keep the last words of a replica that is gone", "replica", key, "err", err)
		}
	}
}

// logged are the containers of a replica whose output lies there, by name.
func logged(logDir string, k api.ReplicaKey) []string {
	files, err := filepath.Glob(filepath.Join(logs.Dir(logDir, k), "*.log"))
	if err != nil {
		return nil
	}
	for i := range files {
		files[i] = strings.TrimSuffix(filepath.Base(files[i]), ".log")
	}
	slices.Sort(files)
	return files
}

// none says that there is no such output here and never will be.
func none(format string, args ...any) *orchv1.End {
	return &orchv1.End{ExitCode: -1, Error: fmt.Sprintf(format, args...), None: true}
}

// logsRelay is one relay of logs.
type logsRelay struct {
	relay   session.Relay
	replica *orchv1.ReplicaKey
	name    string // of the container
	begun   bool
}

func (l *logsRelay) send(line *orchv1.LogLine) error {
	line.Replica, line.Container = l.replica, l.name
	return l.relay.Send(&orchv1.Frame{Frame: &orchv1.Frame_Log{Log: line}})
}

// begin says once that there is something to read.
func (l *logsRelay) begin() error {
	if l.begun {
		return nil
	}
	l.begun = true
	return l.send(&orchv1.LogLine{Begun: true})
}

func (l *logsRelay) line(x logs.Line) error {
	if err := l.begin(); err != nil {
		return err
	}
	return l.send(&orchv1.LogLine{Time: wire.TimeToPB(x.Time), Stream: x.Stream, Text: []byte(x.Text)})
}

// relayLogs sends a container's output: from its log, or, where that is gone with its
// replica, its last words.
func (d *driver) relayLogs(ctx context.Context, req *orchv1.LogsOpen, r session.Relay) *orchv1.End {
	key := wire.KeyFromPB(req.GetReplica())
	l := &logsRelay{relay: r, replica: req.GetReplica(), name: req.GetContainer()}
	found, err := d.container(ctx, key, l.name)
	here := err == nil
	if here {
		l.name = found.Name
	} else if names := logged(d.cfg.LogDir, key); l.name == "" && len(names) > 0 {
		l.name = names[0] // it is gone, its output is not
	}
	if strings.ContainsAny(l.name+key.Namespace+key.Service, "/\x00") {
		return none("logs of %s: this node has none", key)
	}
	if !here {
		words, missing := d.archive.Find(key, l.name)
		if missing == nil {
			l.name = words.Container
			return d.relayGone(ctx, req, l, words)
		}
		if l.name == "" || !slices.Contains(logged(d.cfg.LogDir, key), l.name) {
			return none("%s", err)
		}
	}
	return d.relayFile(ctx, req, l, here, here && found.Running)
}

// relayFile sends what lies in the log of a container, which is here or was.
func (d *driver) relayFile(ctx context.Context, req *orchv1.LogsOpen, l *logsRelay, here, running bool) *orchv1.End {
	key := wire.KeyFromPB(req.GetReplica())
	opts := logs.Options{Tail: int(req.GetTail()), Since: wire.TimeFromPB(req.GetSince()), Follow: here && req.GetFollow(), Previous: req.GetPrevious(), Ended: !running}
	if opts.Follow && !opts.Previous { // it may be long until it writes
		over, err := d.over(ctx, key)
		if err != nil {
			return failed(err)
		}
		opts.Over = over
		if err := l.begin(); err != nil {
			return failed(err)
		}
	}
	each := l.line
	if opts.Tail == 0 {
		if opts.Follow {
			opts.Since = time.Now()
		} else {
			opts.Tail = 1
			each = func(logs.Line) error { return l.begin() }
		}
	}
	err := logs.Read(ctx, logs.File(d.cfg.LogDir, key, l.name), opts, each)
	switch {
	case req.GetPrevious() && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, logs.ErrNoPrevious)):
		return none("previous run of container %q in replica %s not found", l.name, key.Name())
	case errors.Is(err, fs.ErrNotExist):
		return failed(fmt.Errorf("logs of %s %s: it has not written anything", key, l.name))
	case err == nil:
		err = l.begin()
	}
	if err != nil {
		return failed(err)
	}
	return &orchv1.End{}
}

// over gives what is closed when nothing of a replica is left on this node.
func (d *driver) over(ctx context.Context, key api.ReplicaKey) (<-chan struct{}, error) {
	var c chan struct{}
	err := d.ask(ctx, func(p *plan.Core) {
		if c = d.gone[key]; c != nil {
			return
		}
		c = make(chan struct{})
		if _, err := p.Find(key, ""); err != nil {
			close(c) // it went just now
			return
		}
		d.gone[key] = c
	})
	return c, err
}

// relayGone sends the output of a replica that is gone: all of it as long as it lies
// there, else its last words.
func (d *driver) relayGone(ctx context.Context, req *orchv1.LogsOpen, l *logsRelay, w logs.Words) *orchv1.End {
	note := fmt.Sprintf("%s is gone from %s", w.Replica.Name(), d.cfg.Name)
	if e := w.Exit; e != nil {
		note += fmt.Sprintf(": container %s ended %s ago: %s", w.Container, max(0, time.Since(e.FinishedAt)).Round(time.Second), e.Words())
	}
	if slices.Contains(logged(d.cfg.LogDir, w.Replica), w.Container) {
		if err := errors.Join(l.begin(), l.send(&orchv1.LogLine{Note: note})); err != nil {
			return failed(err)
		}
		return d.relayFile(ctx, req, l, false, false)
	}
	note += fmt.Sprintf("; the last %d KiB that it wrote", logs.WordsBytes>>10)
	if err := errors.Join(l.begin(), l.send(&orchv1.LogLine{Note: note})); err != nil {
		return failed(err)
	}
	lines, since := w.Lines, wire.TimeFromPB(req.GetSince())
	lines = slices.DeleteFunc(lines, func(x logs.Line) bool { return !since.IsZero() && x.Time.Before(since) })
	if tail := int(req.GetTail()); tail >= 0 && tail < len(lines) {
		lines = lines[len(lines)-tail:]
	}
	for _, x := range lines {
		if err := l.line(x); err != nil {
			return failed(err)
		}
	}
	return &orchv1.End{}
}
