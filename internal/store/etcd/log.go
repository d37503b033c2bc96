package etcd

import (
	"context"
	"log/slog"
	"sort"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// benign are warnings that etcd gives at each start about settings that we chose.
var benign = map[string]bool{
	"Running http and grpc server on single port. This is not recommended for production.": true, // we serve no HTTP
	"simple token is not cryptographically signed":                                         true, // etcd's own users are not used
}

// slogCore hands etcd's log to slog.
type slogCore struct {
	log    *slog.Logger
	fields []zapcore.Field
}

// zapLogger makes the logger that etcd wants. What etcd holds to be fatal
// panics instead of exiting, so that a start can be reported as an error.
func zapLogger(log *slog.Logger) *zap.Logger {
	return zap.New(&slogCore{log: log}, zap.WithFatalHook(zapcore.WriteThenPanic))
}

// Enabled passes warnings and worse: etcd's information is about etcd.
func (c *slogCore) Enabled(l zapcore.Level) bool {
	return l >= zapcore.WarnLevel && c.log.Enabled(context.Background(), level(l))
}

func (c *slogCore) With(f []zapcore.Field) zapcore.Core {
	return &slogCore{log: c.log, fields: append(append([]zapcore.Field(nil), c.fields...), f...)}
}

func (c *slogCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) && !benign[e.Message] {
		return ce.AddCore(e, c)
	}
	return ce
}

func (c *slogCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range c.fields {
		f.AddTo(enc)
	}
	for _, f := range fields {
		f.AddTo(enc)
	}
	names := make([]string, 0, len(enc.Fields))
	for n := range enc.Fields {
		names = append(names, n)
	}
	sort.Strings(names)
	attrs := make([]slog.Attr, 0, len(names))
	for _, n := range names {
		attrs = append(attrs, slog.Any(n, enc.Fields[n]))
	}
	c.log.LogAttrs(context.Background(), level(e.Level), "etcd: "+e.Message, attrs...)
	return nil
}

func (c *slogCore) Sync() error { return nil }

func level(l zapcore.Level) slog.Level {
	switch {
	case l >= zapcore.ErrorLevel:
		return slog.LevelError
	case l == zapcore.WarnLevel:
		return slog.LevelWarn
	case l == zapcore.InfoLevel:
		return slog.LevelInfo
	}
	return slog.LevelDebug
}
