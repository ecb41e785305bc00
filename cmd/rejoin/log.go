package main

import (
	"context"
	"io"
	"log/slog"
	"sync/atomic"
)

// logHandler is a slog.Handler whose level and format can change.
type logHandler struct {
	text, json slog.Handler
	*logSettings
}

// logSettings are shared by a handler and those made from it.
type logSettings struct {
	level  slog.LevelVar
	asJSON atomic.Bool
}

func newLogHandler(c LogConfig, w io.Writer) *logHandler {
	settings := &logSettings{}
	options := &slog.HandlerOptions{Level: &settings.level}
	h := &logHandler{slog.NewTextHandler(w, options), slog.NewJSONHandler(w, options), settings}
	if _, ok := w.(terminal); ok {
		h.text = terminalLog{out: &lockedWriter{w: w}}
	}
	h.configure(c)
	return h
}

func (h *logHandler) configure(c LogConfig) {
	h.level.Set(c.SlogLevel())
	h.asJSON.Store(c.Format == "json")
}

func (h *logHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= h.level.Level()
}

func (h *logHandler) Handle(ctx context.Context, r slog.Record) error {
	if h.asJSON.Load() {
		return h.json.Handle(ctx, r)
	}
	return h.text.Handle(ctx, r)
}

func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &logHandler{h.text.WithAttrs(attrs), h.json.WithAttrs(attrs), h.logSettings}
}

func (h *logHandler) WithGroup(name string) slog.Handler {
	return &logHandler{h.text.WithGroup(name), h.json.WithGroup(name), h.logSettings}
}
