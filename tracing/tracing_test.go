package tracing

import (
	"strings"
	"testing"

	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
)

// A request's id is its trace's, here and where the trace goes on.
func TestOneID(t *testing.T) {
	spans := tracetest.NewInMemoryExporter()
	provider := trace.NewTracerProvider(trace.WithSyncer(spans), trace.WithIDGenerator(IDs{}))
	tracer := provider.Tracer("test")
	id := NewID()

	ctx, span := tracer.Start(WithRequest(t.Context(), id), "here")
	parent := Parent(ctx, id)
	there, request := Continue(t.Context(), parent)
	_, child := tracer.Start(there, "there")
	child.End()
	span.End()

	if request != id {
		t.Errorf("request where the trace goes on: got %s, want %s", request, id)
	}
	got := spans.GetSpans()
	if len(got) != 2 {
		t.Fatalf("got %d spans, want 2", len(got))
	}
	for _, s := range got {
		if want := strings.ReplaceAll(id, "-", ""); s.SpanContext.TraceID().String() != want {
			t.Errorf("%s: trace id %s, want %s", s.Name, s.SpanContext.TraceID(), want)
		}
	}
	if got[0].Parent.SpanID() != got[1].SpanContext.SpanID() {
		t.Errorf("span there has parent %s, want %s", got[0].Parent.SpanID(), got[1].SpanContext.SpanID())
	}
}

// Without tracing the id goes along all the same, and nobody is asked to trace.
func TestIDWithoutTracing(t *testing.T) {
	id := NewID()
	parent := Parent(t.Context(), id)
	if got := RequestOf(parent); got != id {
		t.Errorf("request: got %q, want %q", got, id)
	}
	if !strings.HasSuffix(parent, "-00") {
		t.Errorf("traceparent %q asks for sampling", parent)
	}
}

// What others send as traceparent is taken as such or not at all.
func TestNoTraceparent(t *testing.T) {
	for _, bad := range []string{
		"", "x", "00-0-0-01", "00-00000000000000000000000000000000-0000000000000000-01",
		"ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", strings.Repeat("-", 1<<20),
	} {
		if got := RequestOf(bad); got != "" {
			t.Errorf("%.40q: got request %q", bad, got)
		}
	}
}

// Every request has another id.
func TestNewID(t *testing.T) {
	if a, b := NewID(), NewID(); a == b {
		t.Errorf("two requests have the id %s", a)
	}
}
