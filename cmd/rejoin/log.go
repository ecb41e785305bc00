package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
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

// terminalLog is a [slog.Handler] for a person who watches a terminal: a time of the day,
// the message, then what belongs to it.
type terminalLog struct {
	out   *lockedWriter
	given string // attributes of all lines
	group string // before the names of further attributes
}

type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (h terminalLog) Enabled(context.Context, slog.Level) bool { return true }

func (h terminalLog) Handle(_ context.Context, r slog.Record) error {
	var line strings.Builder
	level := r.Level.String()
	line.WriteString(r.Time.Format(time.TimeOnly) + " " + level + strings.Repeat(" ", max(0, len("ERROR")-len(level))) + " " + r.Message)
	line.WriteString(h.given)
	r.Attrs(func(a slog.Attr) bool {
		line.WriteString(h.format(a))
		return true
	})
	line.WriteByte('\n')
	h.out.mu.Lock()
	defer h.out.mu.Unlock()
	_, err := io.WriteString(h.out.w, line.String())
	return err
}

func (h terminalLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	for _, a := range attrs {
		h.given += h.format(a)
	}
	return h
}

func (h terminalLog) WithGroup(name string) slog.Handler {
	if name != "" {
		h.group += name + "."
	}
	return h
}

func (h terminalLog) format(a slog.Attr) string {
	value := a.Value.Resolve()
	if value.Kind() == slog.KindGroup {
		if a.Key != "" {
			h.group += a.Key + "."
		}
		var all strings.Builder
		for _, member := range value.Group() {
			all.WriteString(h.format(member))
		}
		return all.String()
	}
	if a.Equal(slog.Attr{}) {
		return ""
	}
	text := fmt.Sprint(value.Any())
	if text == "" || strings.ContainsAny(text, " =\"\n\t") {
		text = strconv.Quote(text)
	}
	return "  " + h.group + a.Key + "=" + text
}

// httpLog takes what net/http logs. Any client can cause a line with each connection, so
// one line in httpLogEvery passes. A panic always does.
type httpLog struct {
	logger *slog.Logger

	mu     sync.Mutex
	logged time.Time // when the last line was
	more   int       // lines that were left out since
}

const httpLogEvery = 10 * time.Second

func newHTTPLog(logger *slog.Logger) *log.Logger { return log.New(&httpLog{logger: logger}, "", 0) }

func (l *httpLog) Write(line []byte) (int, error) {
	text := string(bytes.TrimSpace(line))
	if bytes.Contains(line, []byte("panic serving")) {
		l.logger.Error(text)
		return len(line), nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if now.Sub(l.logged) < httpLogEvery {
		l.more++
		return len(line), nil
	}
	l.logged = now
	var attrs []any
	if l.more > 0 {
		attrs = []any{"more", l.more}
		l.more = 0
	}
	l.logger.Warn(text, attrs...)
	return len(line), nil
}
