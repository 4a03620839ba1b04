package member

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"sallyport.dev/internal/build"
	"sallyport.dev/tracing"
)

// Tracing says where spans go (OTLP over HTTP); without the block nowhere.
type Tracing struct {
	// Endpoint is the URL that spans are posted to, such as
	// https://otel.example.com:4318/v1/traces; plain http on loopback only.
	Endpoint string `hcl:"endpoint"`
	// Sample is the share of requests that are traced, from 0 to 1; all by default.
	Sample *float64 `hcl:"sample,optional"`
	// HeadersFile, of mode 0600, holds HTTP headers for the collector, NAME: VALUE in each
	// line.
	HeadersFile string `hcl:"headers_file,optional"`

	headers map[string]string
}

// spansWait bounds what waits to be sent; more is dropped, never waited for.
const (
	spansWait   = 4096
	spanTimeout = 5 * time.Second
)

func (t *Tracing) check() error {
	if t == nil {
		return nil
	}
	u, err := url.Parse(t.Endpoint)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil {
		return errors.New("tracing.endpoint: want a URL such as https://otel.example.com:4318/v1/traces")
	}
	if u.Scheme == "http" {
		host := u.Host
		if u.Port() == "" {
			host += ":80"
		}
		if err := loopbackOnly(host); err != nil {
			return fmt.Errorf("tracing.endpoint: %w", err)
		}
	}
	if t.Sample != nil && (*t.Sample < 0 || *t.Sample > 1) {
		return fmt.Errorf("tracing.sample: %v is not from 0 to 1", *t.Sample)
	}
	return t.readHeaders()
}

func (t *Tracing) readHeaders() error {
	if t.HeadersFile == "" {
		return nil
	}
	text, err := readSecret(t.HeadersFile)
	if err != nil {
		return fmt.Errorf("tracing.headers_file: %w", err)
	}
	t.headers = map[string]string{}
	for i, line := range strings.Split(text, "\n") {
		name, value, ok := strings.Cut(line, ":")
		if !ok || strings.TrimSpace(name) == "" {
			return fmt.Errorf("tracing.headers_file: line %d is not NAME: VALUE", i+1)
		}
		t.headers[strings.TrimSpace(name)] = strings.TrimSpace(value)
	}
	return nil
}

// startTracing makes what spans are given to. A collector that is away costs spans only.
func (m *Member) startTracing(ctx context.Context) error {
	m.tracer = noop.Tracer{}
	t := m.cfg.Tracing
	if t == nil {
		return nil
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { m.log.Warn("sending spans", "error", err) })) // one for a process
	exporter, err := otlptracehttp.New(ctx,
		otlptracehttp.WithEndpointURL(t.Endpoint), otlptracehttp.WithHeaders(t.headers), otlptracehttp.WithTimeout(spanTimeout))
	if err != nil {
		return fmt.Errorf("tracing: %w", err)
	}
	about := resource.NewSchemaless(
		attribute.String("service.name", "sallyportd"), attribute.String("service.version", build.Version()),
		attribute.String("service.instance.id", m.cfg.Member), attribute.String("cloud.region", m.cfg.Region))
	sample := 1.0
	if t.Sample != nil {
		sample = *t.Sample
	}
	m.spans = sdk.NewTracerProvider(
		sdk.WithBatcher(exporter, sdk.WithMaxQueueSize(spansWait), sdk.WithExportTimeout(spanTimeout)),
		sdk.WithIDGenerator(tracing.IDs{}), sdk.WithResource(about),
		sdk.WithSampler(sdk.ParentBased(sdk.TraceIDRatioBased(sample))))
	m.tracer = m.spans.Tracer("sallyport.dev")
	return nil
}

// closeTracing sends the spans that wait, for a moment.
func (m *Member) closeTracing(ctx context.Context) {
	if m.spans == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, spanTimeout)
	defer cancel()
	if err := m.spans.Shutdown(ctx); err != nil {
		m.log.Warn("sending the last spans", "error", err)
	}
}
