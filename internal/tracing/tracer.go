package tracing

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/spf13/pflag"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
)

const (
	// queueMax is how many spans may wait for the collector; more are dropped. It is what
	// an apply of some hundred replicas makes, and about a megabyte.
	queueMax = 2048
	// sendEvery is how long spans wait for others, to be sent together.
	sendEvery = time.Second
	// sendMax is how long a collector may take for some.
	sendMax = 5 * time.Second
	// redialMax is how soon a collector that is back is found.
	redialMax = 5 * time.Second
	// flushMax is how long the end of a program waits for it.
	flushMax = 2 * time.Second
	// complainEvery: a collector that is away is told of so often at most.
	complainEvery = 10 * time.Minute
)

// Flags of a daemon.
type Flags struct {
	Endpoint string
	Insecure bool
}

// AddTo defines them.
func (f *Flags) AddTo(flags *pflag.FlagSet) {
	flags.StringVar(&f.Endpoint, "trace-endpoint", "", "`host:port` of a collector of traces (OTLP over gRPC); default: what the OTEL_EXPORTER_OTLP_* variables say, else none")
	flags.BoolVar(&f.Insecure, "trace-insecure", false, "speak to that collector without TLS")
}

// Config says who traces, and to where.
type Config struct {
	// Service is "orch-controller", "orch-agent" or "orchctl"; Instance which of them.
	Service, Instance, Version string
	Flags
	// Lookup reads the environment: os.LookupEnv.
	Lookup func(string) (string, bool)
	// Logger is told, seldom, of a collector that is away; nil discards.
	Logger *slog.Logger
}

// Tracer makes spans. Nil makes none; all methods may be called of it.
type Tracer struct {
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
	close    sync.Once
}

// New makes a tracer, or nil where nothing says that one is wanted: neither the flag nor
// OTEL_EXPORTER_OTLP_ENDPOINT (or ..._TRACES_ENDPOINT), or that OTEL_SDK_DISABLED is true
// or OTEL_TRACES_EXPORTER none, or OTEL_EXPORTER_OTLP_PROTOCOL another one than grpc. Further
// OTEL_ variables are read as its specification has it. It does not wait for the collector.
func New(ctx context.Context, c Config) (*Tracer, error) {
	if !c.wanted() {
		return nil, nil
	}
	opts := []otlptracegrpc.Option{
		otlptracegrpc.WithTimeout(sendMax),
		otlptracegrpc.WithRetry(otlptracegrpc.RetryConfig{}), // what a collector misses is gone
		otlptracegrpc.WithDialOption(grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: sendMax,
			Backoff: backoff.Config{BaseDelay: time.Second, Multiplier: 1.6, Jitter: 0.2, MaxDelay: redialMax}})),
	}
	if c.Endpoint != "" {
		if _, port, err := net.SplitHostPort(c.Endpoint); err != nil || port == "" {
			return nil, fmt.Errorf("--trace-endpoint %q: want host:port, such as 127.0.0.1:4317", c.Endpoint)
		}
		opts = append(opts, otlptracegrpc.WithEndpoint(c.Endpoint))
		if !c.Insecure {
			opts = append(opts, otlptracegrpc.WithTLSCredentials(credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12})))
		}
	}
	if c.Insecure {
		opts = append(opts, otlptracegrpc.WithInsecure())
	}
	exporter, err := otlptracegrpc.New(ctx, opts...)
	if err != nil {
		return nil, fmt.Errorf("trace: %w", err)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return With(c, &quiet{SpanExporter: exporter, logger: c.Logger}), nil
}

func (c Config) wanted() bool {
	env := func(name string) string {
		if c.Lookup == nil {
			return ""
		}
		v, _ := c.Lookup(name)
		return v
	}
	if c.Endpoint != "" {
		return true
	}
	if env("OTEL_EXPORTER_OTLP_ENDPOINT") == "" && env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") == "" ||
		env("OTEL_SDK_DISABLED") == "true" || env("OTEL_TRACES_EXPORTER") == "none" {
		return false
	}
	protocol := cmp.Or(env("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"), env("OTEL_EXPORTER_OTLP_PROTOCOL"), "grpc")
	if protocol != "grpc" && c.Logger != nil {
		c.Logger.Warn("nothing is traced: OTEL_EXPORTER_OTLP_PROTOCOL wants another protocol than grpc, which is the only one here; --trace-endpoint names a collector that speaks it", "protocol", protocol)
	}
	return protocol == "grpc"
}

// With makes a tracer that hands its spans to an exporter, for tests.
func With(c Config, to sdktrace.SpanExporter) *Tracer {
	attrs := []attribute.KeyValue{attribute.String("service.name", c.Service), attribute.String("service.namespace", "orch")}
	if c.Instance != "" {
		attrs = append(attrs, attribute.String("service.instance.id", c.Instance))
	}
	if c.Version != "" {
		attrs = append(attrs, attribute.String("service.version", c.Version))
	}
	// What OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME say wins.
	about, err := resource.New(context.Background(), resource.WithAttributes(attrs...), resource.WithTelemetrySDK(), resource.WithFromEnv())
	if err != nil {
		about = resource.NewSchemaless(attrs...)
	}
	p := sdktrace.NewTracerProvider(sdktrace.WithResource(about),
		sdktrace.WithBatcher(to, sdktrace.WithMaxQueueSize(queueMax), sdktrace.WithBatchTimeout(sendEvery), sdktrace.WithExportTimeout(sendMax)))
	return &Tracer{provider: p, tracer: p.Tracer("github.com/orchctl/orch")}
}

// Close sends what waits, within flushMax, and ends the tracer.
func (t *Tracer) Close() {
	if t == nil {
		return
	}
	t.close.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), flushMax)
		defer cancel()
		_ = t.provider.Shutdown(ctx) // the exporter has complained itself
	})
}

// quiet keeps a collector that is away from filling logs.
type quiet struct {
	sdktrace.SpanExporter
	logger *slog.Logger

	mu   sync.Mutex
	told time.Time
	lost int
}

// ExportSpans never fails: nobody could do anything about it.
func (q *quiet) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := q.SpanExporter.ExportSpans(ctx, spans)
	if err == nil || errors.Is(err, context.Canceled) {
		return nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.lost += len(spans)
	if now := time.Now(); now.Sub(q.told) >= complainEvery {
		q.logger.Warn("spans do not reach the collector of traces, and are dropped: does it run, and speak OTLP over gRPC, with or without TLS as --trace-insecure says?", "lost", q.lost, "err", err)
		q.told, q.lost = now, 0
	}
	return nil
}
