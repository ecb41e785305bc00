package server

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/rejoin/rejoin/feed"
)

// The reasons for refusals that are not in answers.
const (
	refusedToken        = "token"
	refusedPrecondition = "precondition"
	refusedUnknown      = "failed"
	refusedPath         = "path"
	refusedOrigin       = "origin"
	refusedHost         = "host"
	refusedMethod       = "method"
	refusedFormat       = "not_acceptable"
)

// Refusals counts and logs the requests that are refused, by reason. The first one of
// each reason is logged at once. After that, a reason has at most one line in ten
// seconds, which has the number of those that were not logged.
type Refusals struct {
	logger  *slog.Logger
	proxies Proxies
	every   time.Duration

	reasons map[string]*refusalLog
	closed  atomic.Bool
}

// refusalLog is what is known of the refusals for one reason.
type refusalLog struct {
	count atomic.Uint64

	mu     sync.Mutex
	logged time.Time // when the last line was
	level  slog.Level
	more   int         // that were not logged
	rest   *time.Timer // logs how many there were, if no other line does
}

// NewRefusals returns refusals that log to logger the addresses of clients as they are
// behind proxies.
func NewRefusals(logger *slog.Logger, proxies Proxies) *Refusals {
	f := &Refusals{logger: cmp.Or(logger, slog.Default()), proxies: proxies, every: 10 * time.Second, reasons: map[string]*refusalLog{}}
	for _, reason := range []string{refusedToken, refusedPrecondition, refusedUnknown, refusedPath, refusedHost, refusedMethod, refusedFormat} {
		f.reasons[reason] = &refusalLog{}
	}
	for _, a := range answers {
		if a.reason != "" {
			f.reasons[a.reason] = &refusalLog{}
		}
	}
	return f
}

// Close logs what has not been logged yet.
func (f *Refusals) Close() {
	f.closed.Store(true)
	for reason, one := range f.reasons {
		f.logRest(reason, one)
	}
}

// refusal is a request that is refused.
type refusal struct {
	reason string
	status int
	err    error // may be nil
}

// refusalOf returns the refusal that err is. Its reason is empty for an error that is
// none.
func refusalOf(err error) refusal {
	if _, ok := errors.AsType[*feed.LastError](err); ok {
		return refusal{refusedPrecondition, http.StatusPreconditionFailed, err}
	}
	for _, a := range answers {
		if errors.Is(err, a.err) {
			return refusal{a.reason, a.status, err}
		}
	}
	return refusal{refusedUnknown, http.StatusInternalServerError, err}
}

// level returns the level at which the refusal is logged: faults of the server above
// those of clients, and above what is part of the contract.
func (one refusal) level() slog.Level {
	switch {
	case one.reason == refusedUnknown:
		return slog.LevelError
	case errors.Is(one.err, errDraining), errors.Is(one.err, feed.ErrStopped):
		return slog.LevelInfo
	case errors.Is(one.err, context.Canceled):
		return slog.LevelDebug // the client has gone
	case one.status >= http.StatusInternalServerError, errors.Is(one.err, errAddressFull):
		return slog.LevelWarn
	}
	switch one.status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusMisdirectedRequest, http.StatusTooManyRequests:
		return slog.LevelInfo
	}
	return slog.LevelDebug
}

// refuse counts the refusal of r, and logs it unless it is one of many. It logs nothing
// that may be secret: neither the query nor, for mistakes in requests, the text of the
// error, which may repeat parts of them. f may be nil.
func (f *Refusals) refuse(w http.ResponseWriter, r *http.Request, one refusal) {
	if f == nil || one.reason == "" {
		return
	}
	kept := f.reasons[one.reason]
	kept.count.Add(1)
	level := one.level()
	if !f.logger.Enabled(r.Context(), level) {
		return
	}
	more, ok := f.admitLine(one.reason, kept, level)
	if !ok {
		return
	}
	client := f.proxies.Client(r)
	attrs := []slog.Attr{slog.String("reason", one.reason), slog.Int("status", one.status)}
	if level >= slog.LevelInfo && one.err != nil {
		attrs = append(attrs, slog.Any("error", one.err))
	}
	attrs = append(attrs, slog.String("method", r.Method), slog.String("path", pathOf(r)))
	attrs = appendOrigin(attrs, feedOf(r, one.err), grantOf(r.Context()).Subject(), client.Address, requestID(w))
	if more > 0 {
		attrs = append(attrs, slog.Int("more", more))
	}
	message := "request refused"
	if level == slog.LevelError {
		message = "request failed"
	}
	f.logger.LogAttrs(r.Context(), level, message, attrs...)
}

// admitLine reports whether a refusal is to be logged, and how many were not since the
// last line.
func (f *Refusals) admitLine(reason string, kept *refusalLog, level slog.Level) (more int, ok bool) {
	kept.mu.Lock()
	defer kept.mu.Unlock()
	now := time.Now()
	if now.Sub(kept.logged) >= f.every || f.closed.Load() {
		more, kept.more, kept.logged = kept.more, 0, now
		return more, true
	}
	kept.more++
	kept.level = level
	if kept.rest == nil {
		// Later than the next line would come, because that has more to tell.
		kept.rest = time.AfterFunc(2*f.every, func() { f.logRest(reason, kept) })
	}
	return 0, false
}

// logRest logs how many refusals had no line.
func (f *Refusals) logRest(reason string, kept *refusalLog) {
	kept.mu.Lock()
	defer kept.mu.Unlock()
	if kept.rest != nil {
		kept.rest.Stop()
		kept.rest = nil
	}
	if kept.more > 0 {
		f.logger.Log(context.Background(), kept.level, "more requests refused", "reason", reason, "more", kept.more)
		kept.more, kept.logged = 0, time.Now()
	}
}

func (f *Refusals) collect(m metricsChannel) {
	for reason, one := range f.reasons {
		m.counter(refusedDesc, one.count.Load(), reason)
	}
}

// feedError is an error about feeds that the path of the request does not name.
type feedError struct {
	feed string // or several, with commas
	err  error
}

func (e *feedError) Error() string { return e.err.Error() }
func (e *feedError) Unwrap() error { return e.err }

// about adds to err the feeds that a request for several names.
func (r subscribeRequest) about(err error) error {
	if err == nil || !r.many {
		return err
	}
	return &feedError{r.feeds(), err}
}

func (r subscribeRequest) feeds() string {
	names := make([]string, len(r.subscriptions))
	for i, s := range r.subscriptions {
		names[i] = s.Feed
	}
	return shortened(strings.Join(names, ","))
}

// feedOf returns the feed that a request is about. It is empty if that is unknown.
func feedOf(r *http.Request, err error) string {
	if about, ok := errors.AsType[*feedError](err); ok {
		return about.feed
	}
	if chi.RouteContext(r.Context()) == nil {
		return ""
	}
	if name, err := feedName(r); err == nil {
		return name
	}
	return ""
}

// loggedBytes limits what a client can put into one attribute of a line.
const loggedBytes = 300

func shortened(text string) string {
	if len(text) <= loggedBytes {
		return text
	}
	return strings.ToValidUTF8(text[:loggedBytes], "") + "…"
}

// pathOf returns the path for the log, without what may be a query that lacks its ?.
func pathOf(r *http.Request) string {
	path, _, _ := strings.Cut(r.URL.EscapedPath(), "access_token")
	return shortened(path)
}

// appendOrigin appends which feed a request is about, and where it came from.
func appendOrigin(attrs []slog.Attr, feed, subject string, address netip.Addr, id string) []slog.Attr {
	if feed != "" {
		attrs = append(attrs, slog.String("feed", feed))
	}
	if subject != "" {
		attrs = append(attrs, slog.String("subject", shortened(subject)))
	}
	if address.IsValid() {
		attrs = append(attrs, slog.String("address", address.String()))
	}
	return slices.Clip(append(attrs, slog.String("request_id", id)))
}
