package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"
)

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
