package session

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"sallyport.dev/tracing"
)

// span is one that ends later than the function that began it; the zero value is none.
// The session's mu guards it.
type span struct{ on trace.Span }

func (sp *span) note(what string) {
	if sp.on != nil {
		sp.on.AddEvent(what)
	}
}

// end ends the span, once. A cause says that what it waited for did not come.
func (sp *span) end(cause *Cause) {
	if sp.on == nil {
		return
	}
	if cause != nil {
		sp.on.SetStatus(otelcodes.Error, cause.Reason)
	}
	sp.on.End()
	sp.on = nil
}

// traceEnds begins the spans of the ends' attaching: on the way to the node and back,
// and until the client is there.
func (s *live) traceEnds(ctx context.Context) {
	about := trace.WithAttributes(
		attribute.String("sallyport.session", s.row.ID), attribute.String("sallyport.node", s.row.NodeID),
		attribute.String("sallyport.document", s.row.Document), attribute.String("sallyport.principal", s.row.Owner))
	_, node := s.g.cfg.Tracer.Start(ctx, "start on node", about, trace.WithSpanKind(trace.SpanKindProducer))
	_, client := s.g.cfg.Tracer.Start(ctx, "await client", about)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.agentSpan, s.clientSpan = traced(node), traced(client)
}

// traced keeps a span that somebody looks at.
func traced(on trace.Span) span {
	if !on.IsRecording() {
		return span{}
	}
	return span{on}
}

// endSpans ends what still waits when the session ends.
func (s *live) endSpans(cause *Cause) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.agentSpan.end(cause)
	s.clientSpan.end(cause)
}

// audit appends a record about the session and reports whether that worked.
func (s *live) audit(ctx context.Context, event, reason string, details map[string]string) error {
	return s.g.audit(ctx, event, s.row, tracing.RequestOf(s.opts.Trace), reason, details)
}
