package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/rejoin/rejoin/feed"
)

func newTailCommand() *cobra.Command {
	var server, from, cursor string
	t := &tailer{}
	cmd := &cobra.Command{
		Use:   "tail --feed NAME",
		Short: "Print the events of a feed as they come, across every broken connection",
		Long: `Tail prints the data of each event and a line feed. It comes back by itself
when the connection breaks and goes on where it was: no event is printed twice,
none is left out, or tail fails and says so.

It ends when the feed is closed, when it is interrupted, and when the server
refuses it for good.

A server that asks for a token gets the one in REJOIN_TOKEN.`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cursor != "" && cmd.Flags().Changed("from") {
				return usageError{errors.New("--from and --last-event-id both say where to start")}
			}
			if err := t.aim(server, from, cursor); err != nil {
				return err
			}
			t.client, t.out, t.notes = newClient(), cmd.OutOrStdout(), cmd.ErrOrStderr()
			return t.follow(cmd.Context())
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&t.feed, "feed", "", "the feed")
	flags.StringVar(&server, "url", defaultURL, "the server")
	flags.StringVar(&from, "from", "now", "where to start: now, start, -N (the newest N events) or a time such as 2026-01-31T09:30:00Z")
	flags.StringVar(&cursor, "last-event-id", "", "start after the event with this id, as a client does that comes back")
	flags.BoolVar(&t.json, "json", false, `print each event as a line {"feed","id","type","data"}`)
	flags.DurationVar(&t.silence, "silence", 45*time.Second, "take a connection for dead that carries nothing, not even a keep-alive, for so long")
	return cmd
}

// tailer follows one feed over as many connections as it takes.
type tailer struct {
	feed    string
	url     *url.URL
	from    string // where to start while there is no cursor
	json    bool
	silence time.Duration // after which a connection counts as dead
	client  *http.Client
	out     io.Writer // events
	notes   io.Writer // everything else

	cursor    feed.Cursor // of the last event printed
	started   bool        // the cursor is known
	connected bool        // there was a connection
	lost      bool        // that there is none now has been noted
	retry     backoff
}

// aim sets where to start, or returns a usage error.
func (t *tailer) aim(server, from, cursor string) (err error) {
	if t.url, err = eventsURL(server, t.feed); err != nil {
		return err
	}
	if t.silence < 6*time.Second {
		return usageError{errors.New("--silence: at least 6s, because keep-alives come no closer than 2s")}
	}
	if _, err := feed.ParseFrom(from); err != nil {
		return usageError{fmt.Errorf("--from: %w", err)}
	}
	t.from = from
	if cursor == "" {
		return nil
	}
	t.started = true
	if t.cursor, err = feed.ParseCursor(cursor); err != nil {
		return usageError{fmt.Errorf("--last-event-id: %w", err)}
	}
	return nil
}

// How a tail ends for good.
var (
	errClosed  = errors.New("the feed is closed")
	errBroken  = errors.New("the server broke its promise")
	errNoWrite = errors.New("write standard output")
)

// follow tails until the feed is closed, ctx ends or there is no going on.
func (t *tailer) follow(ctx context.Context) error {
	for {
		err := t.connect(ctx)
		refused, _ := errors.AsType[*refusal](err)
		switch {
		case ctx.Err() != nil, errors.Is(err, errClosed):
			return nil
		case errors.Is(err, errNoWrite) && (errors.Is(err, syscall.EPIPE) || errors.Is(err, io.ErrClosedPipe)):
			return nil // whoever was reading, such as head, has enough
		case errors.Is(err, errNoWrite), errors.Is(err, errBroken), refused != nil && !temporary(refused.status):
			return fmt.Errorf("tail %s: %w", t.feed, err)
		}
		t.noteLoss(err)
		var asked time.Duration
		if refused != nil {
			asked = refused.wait
		}
		if sleep(ctx, t.retry.next(asked)) != nil {
			return nil
		}
	}
}

// temporary says whether the same request may succeed later.
func temporary(status int) bool {
	return status == http.StatusTooManyRequests || status == http.StatusRequestTimeout || status >= 500 && status != http.StatusNotImplemented
}

func (t *tailer) request(ctx context.Context) (*http.Request, error) {
	u := *t.url
	query := url.Values{}
	if !t.started {
		query.Set("from", t.from)
	}
	// Three keep-alives have to go missing before a connection counts as
	// dead, however the server is configured.
	query.Set("heartbeat", (t.silence / 3).String())
	u.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "text/event-stream")
	if t.started {
		req.Header.Set("Last-Event-ID", t.cursor.String())
	}
	return req, nil
}

func (t *tailer) noteLoss(err error) {
	if t.lost {
		return
	}
	t.lost = true
	if t.connected {
		t.note("lost the connection after event %d (%s), reconnecting", t.cursor, reason(err))
	} else {
		t.note("cannot follow %s yet (%s), trying again", t.feed, reason(err))
	}
}

func (t *tailer) noteReturn() {
	if t.lost {
		t.note("connected, going on after event %d", t.cursor)
	}
	t.lost, t.connected = false, true
}

func (t *tailer) note(format string, args ...any) {
	// Notes are a courtesy: a tail without a reader of its notes goes on.
	_, _ = fmt.Fprintf(t.notes, "rejoin: "+format+"\n", args...)
}

// print writes one event. The cursor moves after it, not before.
func (t *tailer) print(id feed.Cursor, eventType, data string) error {
	line := []byte(data + "\n")
	if t.json {
		var b bytes.Buffer
		encoder := json.NewEncoder(&b)
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(struct {
			Feed string      `json:"feed"`
			ID   feed.Cursor `json:"id"`
			Type string      `json:"type"`
			Data string      `json:"data"`
		}{t.feed, id, cmp.Or(eventType, "message"), data}); err != nil {
			return fmt.Errorf("%w: %w", errNoWrite, err)
		}
		line = b.Bytes()
	}
	if _, err := t.out.Write(line); err != nil {
		return fmt.Errorf("%w: %w", errNoWrite, err)
	}
	t.cursor = id
	return nil
}

// isControl says whether an event is about the feed instead of in it.
func isControl(eventType string) bool { return strings.HasPrefix(eventType, "feed.") }
