package main

import (
	"context"
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
	var feeds, types []string
	t := &tailer{}
	cmd := &cobra.Command{
		Use:   "tail --feed NAME[,NAME]...",
		Short: "Print the events of one feed or several as they come, across every broken connection",
		Long: `Tail prints the data of each event and a line feed. It comes back by itself
when the connection breaks and goes on where it was: no event is printed twice,
none is left out, or tail fails and says so.

Several feeds, as --feed chat,news or --feed chat --feed news, come over one
connection, each in its own order. Every line then begins with the name of its
feed and a tab, also where the data has several lines: what grep '^chat' finds is
of chat, and cut -f2- leaves the data.

With --json, each event is one line whatever its data:
{"feed","id","type","time","data"}. Its data is the JSON that was published, or
else a string. An event that is not stored has no id.

On a terminal, control characters other than tabs and line feeds, those that turn
the direction of text around, and bytes that are not UTF-8 are shown, as in \x1b
or \u202e: whoever may publish could otherwise have the terminal do things. In a
pipe or a file, every byte is as it was published.

It ends when all its feeds are closed, when it is interrupted, when the token's
time is up, and when the server refuses it for good.

A server that asks for a token gets the one in REJOIN_TOKEN.`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if t.types, err = typesOf(types); err != nil {
				return err
			}
			if err := t.aim(server, feeds, from, cursor); err != nil {
				return err
			}
			if cmd.Flags().Changed("from") && t.at.known() {
				return usageError{errors.New("--from and --last-event-id both say where to start")}
			}
			t.client, t.out, t.notes = newClient(), cmd.OutOrStdout(), cmd.ErrOrStderr()
			return t.follow(cmd.Context())
		},
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&feeds, "feed", nil, "the feed; several with commas between them, or one a flag")
	flags.StringVar(&server, "url", defaultURL, "the server")
	flags.StringVar(&from, "from", "now", "where to start: now, start, -N (the newest N events of each feed) or a time such as 2026-01-31T09:30:00Z")
	flags.StringVar(&cursor, "last-event-id", "", "start after this event, as a client does that comes back; of several feeds as in chat=42,news=7, where one that is left out starts at --from")
	flags.StringArrayVar(&types, "types", nil, "print only events of these types, with commas between them; message is the type of those that have none")
	flags.BoolVar(&t.json, "json", false, `print each event as a line {"feed","id","type","time","data"}`)
	flags.DurationVar(&t.silence, "silence", 45*time.Second, "take a connection for dead that carries nothing, not even a keep-alive, for so long")
	return cmd
}

// namesIn returns what the values of a flag name, each once: the flag may be
// repeated, and a value may hold several names.
func namesIn(values []string) (names []string) {
	seen := make(map[string]bool)
	for _, value := range values {
		for name := range strings.SplitSeq(value, ",") {
			if name = strings.TrimSpace(name); !seen[name] {
				seen[name] = true
				names = append(names, name)
			}
		}
	}
	return names
}

// typesOf returns what --types says as the server reads it. The error is a
// usage error.
func typesOf(values []string) (string, error) {
	types := namesIn(values)
	for _, t := range types {
		if t == "" {
			return "", usageError{errors.New("--types: it has an empty type in it; events without a type are those of the type message")}
		}
		if err := feed.CheckType(t); err != nil {
			return "", usageError{fmt.Errorf("--types: %w", err)}
		}
	}
	return strings.Join(types, ","), nil
}

// tailer follows feeds over as many connections as it takes.
type tailer struct {
	at      places
	url     *url.URL
	from    string // where feeds start that have no cursor
	types   string // of the events to follow, with commas between them; empty for all
	json    bool
	silence time.Duration // after which a connection counts as dead
	client  *http.Client
	out     io.Writer // events
	notes   io.Writer // everything else

	connected bool // there was a connection
	lost      bool // that there is none now has been noted
	retry     backoff
	asked     time.Duration // what the server last asked to wait
}

// aim sets what to follow and where to start, or returns a usage error.
func (t *tailer) aim(server string, feeds []string, from, cursor string) (err error) {
	if t.url, err = serverURL(server); err != nil {
		return err
	}
	if t.at, err = newPlaces(namesIn(feeds)); err != nil {
		return err
	}
	if t.at.many {
		t.url = t.url.JoinPath("v1", "events")
	} else {
		t.url = t.url.JoinPath("v1", "feeds", url.PathEscape(t.at.all[0].feed), "events")
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
	if err := t.at.start(cursor); err != nil {
		return usageError{fmt.Errorf("--last-event-id: %w", err)}
	}
	return nil
}

// How a tail ends for good.
var (
	errClosed  = errors.New("all is delivered, and closed")
	errExpired = errors.New("the token's time is up")
	errBroken  = errors.New("the server broke its promise")
	errNoWrite = errors.New("write standard output")
)

// follow tails until all feeds are closed, ctx ends or there is no going on.
func (t *tailer) follow(ctx context.Context) error {
	for {
		t.asked = 0
		err := t.connect(ctx)
		refused, _ := errors.AsType[*refusal](err)
		switch {
		case ctx.Err() != nil, errors.Is(err, errClosed):
			return nil
		case errors.Is(err, errNoWrite) && (errors.Is(err, syscall.EPIPE) || errors.Is(err, io.ErrClosedPipe)):
			return nil // whoever was reading, such as head, has enough
		case errors.Is(err, errExpired):
			return fmt.Errorf("tail %s: %w after %s", t.at.names(), err, t.at)
		case errors.Is(err, errNoWrite), errors.Is(err, errBroken), refused != nil && !temporary(refused.status):
			return fmt.Errorf("tail %s: %w", t.at.names(), err)
		}
		t.noteLoss(err)
		if refused != nil {
			t.asked = refused.wait
		}
		if sleep(ctx, t.retry.next(t.asked)) != nil {
			return nil
		}
	}
}

// temporary says whether the same request may succeed later.
func temporary(status int) bool {
	return status == http.StatusTooManyRequests || status == http.StatusRequestTimeout || status >= 500 && status != http.StatusNotImplemented
}

func (t *tailer) request(ctx context.Context) (*http.Request, error) {
	query := url.Values{}
	if t.at.many {
		for _, p := range t.at.all {
			query.Add("feed", p.feed)
		}
	} else if t.json {
		query.Set("envelope", "true")
	}
	if !t.at.known() {
		query.Set("from", t.from)
	}
	if t.types != "" {
		query.Set("types", t.types)
	}
	// Three keep-alives have to go missing before a connection counts as
	// dead, however the server is configured.
	query.Set("heartbeat", (t.silence / 3).String())
	u := *t.url
	u.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "text/event-stream")
	if cursor := t.at.cursor(); cursor != "" {
		req.Header.Set("Last-Event-ID", cursor)
	}
	return req, nil
}

func (t *tailer) noteLoss(err error) {
	if t.lost {
		return
	}
	t.lost = true
	if t.connected {
		t.note("lost the connection after %s (%s), reconnecting", t.at, reason(err))
	} else {
		t.note("cannot follow %s yet (%s), trying again", t.at.names(), reason(err))
	}
}

func (t *tailer) noteReturn() {
	if t.lost {
		t.note("connected, going on after %s", t.at)
	}
	t.lost, t.connected = false, true
}

func (t *tailer) note(format string, args ...any) {
	// Notes are a courtesy: a tail without a reader of its notes goes on.
	_, _ = fmt.Fprintf(t.notes, "rejoin: "+format+"\n", args...)
}
