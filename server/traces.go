package server

import (
	"context"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/rejoin/rejoin/feed"
)

// Traces makes spans of publishes and, as a [feed.Tracer], of what becomes of their
// events: all of one publish belong to its trace, on every node that its event reaches.
// A nil Traces makes none.
type Traces struct {
	tracer trace.Tracer
}

// NewTraces returns traces whose spans go to provider.
func NewTraces(provider trace.TracerProvider) *Traces {
	return &Traces{tracer: provider.Tracer("github.com/rejoin/rejoin")}
}

const traceparent = "traceparent"

// w3c reads and writes contexts as the W3C's Trace Context has them. A trace state is
// not passed on.
var w3c propagation.TraceContext

// publishes makes a span of each request that next answers, below the span that the
// client names.
func (t *Traces) publishes(next http.Handler) http.Handler {
	if t == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := w3c.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
		ctx, span := t.tracer.Start(ctx, "publish", trace.WithSpanKind(trace.SpanKindServer))
		defer span.End()
		next.ServeHTTP(w, r.WithContext(ctx))
		if counted, ok := w.(*countedResponse); ok && span.IsRecording() {
			span.SetAttributes(attribute.Int("http.response.status_code", counted.status))
			if counted.status >= http.StatusInternalServerError {
				span.SetStatus(codes.Error, http.StatusText(counted.status))
			}
		}
	})
}

// traceOf returns the span of the request as traceparent has it. It is empty without one,
// and if the span is not sampled.
func traceOf(ctx context.Context) string {
	if !trace.SpanContextFromContext(ctx).IsSampled() {
		return ""
	}
	carrier := propagation.MapCarrier{}
	w3c.Inject(ctx, carrier)
	return carrier.Get(traceparent)
}

// Trace implements [feed.Tracer].
func (t *Traces) Trace(stage feed.Stage, e *feed.Event, began time.Time, err error) {
	ctx := w3c.Extract(context.Background(), propagation.MapCarrier{traceparent: e.Trace})
	if !trace.SpanContextFromContext(ctx).IsValid() {
		return // another program has written it
	}
	now := time.Now()
	if began.After(now) {
		began = now // by the clock of the store
	}
	_, span := t.tracer.Start(ctx, string(stage), trace.WithTimestamp(began), trace.WithAttributes(
		attribute.String("rejoin.feed", e.Feed), attribute.Int64("rejoin.event", int64(e.ID))))
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
	}
	span.End(trace.WithTimestamp(now))
}
