// Package tracing ties together what different parts do for one request. A request has
// one id: a UUID that callers get as x-amzn-requestid, that audit records and logs bear,
// and whose 32 hexadecimal digits are the trace id of OpenTelemetry. Whoever has one of
// them finds the others.
//
// Spans are made with OpenTelemetry's API. Without a provider they are nothing, and the
// ids stay.
package tracing

import (
	"context"
	"crypto/rand"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// NewID returns the id of a new request.
func NewID() string {
	var id uuid.UUID
	// All bits are random, unlike a version 4 UUID's: samplers decide by them.
	rand.Read(id[:])
	return id.String()
}

type requestKey struct{}

// WithRequest returns a context in which a new trace has the id of the request.
func WithRequest(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, requestKey{}, id)
}

// IDs makes the ids of traces and spans: a trace that begins in a context of WithRequest
// has the request's id. It implements the SDK's IDGenerator.
type IDs struct{}

// NewIDs returns the ids of a new trace and its first span.
func (IDs) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	id, _ := ctx.Value(requestKey{}).(string)
	t := traceID(id)
	if !t.IsValid() {
		rand.Read(t[:])
	}
	return t, IDs{}.NewSpanID(ctx, t)
}

// NewSpanID returns the id of another span.
func (IDs) NewSpanID(context.Context, trace.TraceID) (s trace.SpanID) {
	rand.Read(s[:])
	return s
}

// traceID is a request's id as that of a trace, invalid for what is no UUID.
func traceID(request string) trace.TraceID {
	id, err := uuid.Parse(request)
	if err != nil {
		return trace.TraceID{}
	}
	return trace.TraceID(id)
}

var w3c propagation.TraceContext

// header is the one member of W3C's Trace Context that goes to others.
const header = "traceparent"

// Parent returns the value of W3C's traceparent that says where ctx is in its trace, to
// be sent along; in a context without a span, one that only names the request.
func Parent(ctx context.Context, request string) string {
	if !trace.SpanContextFromContext(ctx).IsValid() {
		t, s := IDs{}.NewIDs(WithRequest(ctx, request))
		ctx = trace.ContextWithSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{TraceID: t, SpanID: s}))
	}
	carrier := propagation.MapCarrier{}
	w3c.Inject(ctx, carrier)
	return carrier[header]
}

// Continue returns a context whose spans go on where a traceparent says, and the id of
// its request. What is no traceparent changes nothing and has no id.
func Continue(ctx context.Context, parent string) (context.Context, string) {
	sc := trace.SpanContextFromContext(w3c.Extract(context.Background(), propagation.MapCarrier{header: parent}))
	if !sc.IsValid() {
		return ctx, ""
	}
	return trace.ContextWithRemoteSpanContext(ctx, sc), uuid.UUID(sc.TraceID()).String()
}

// RequestOf returns the id of the request that a traceparent names, or "".
func RequestOf(parent string) string {
	_, id := Continue(context.Background(), parent)
	return id
}
