package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/rejoin/rejoin/cmd/internal/reach"
	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/client"
)

func newTailCommand() *cobra.Command {
	var server, from, cursor string
	var feeds, types []string
	var plain bool
	t := &tailer{}
	cmd := &cobra.Command{
		Use:   "tail FEED...",
		Short: "Follow one feed or several, and print their events, across every broken connection",
		Example: `  rejoin tail chat
  rejoin tail chat news --from -10 --time --id
  rejoin tail log --from start | grep error
  rejoin tail chat --last-event-id 42 --json`,
		SuggestFor: []string{"follow", "subscribe", "watch"},
		Long: `Tail prints the data of each event and a line feed. It begins with the next event
that is published; --from and --last-event-id begin with stored ones.

When the connection breaks, tail reconnects by itself and resumes: it prints no
event twice and leaves none out. If an event is missing, it fails and names it.

Several feeds use one connection, each in its own order. Every line then begins
with the name of its feed and a tab, even if the data has several lines:
grep '^chat' finds the lines of chat, and cut -f2- leaves the data. Feeds may also
be named as chat,news or by --feed.

With --time and --id, every line has the time and the id of its event before the
data, each followed by a tab. The time is in UTC, and --from takes it. An event
that is not stored has the id -.

With --bare, it prints the data alone, of several feeds too. Data of several lines
is printed as it is: nothing then marks where an event ends.

With --json, each event is one line whatever its data:
{"feed","id","type","time","data"}. Its data is the JSON that was published, or
else a string. An event that is not stored has no id.

On a terminal, tail shows control characters other than tabs and line feeds,
characters that change the direction of text, and bytes that are not UTF-8 as in
\x1b or \u202e: a publisher could otherwise control the terminal. It colours what
stands before the data, unless --no-color, NO_COLOR or TERM=dumb forbids that. In a
pipe or a file, there are no colours, and every byte is as it was published.

Tail ends when all its feeds are closed, on an interrupt, when the token expires,
or when the server refuses the request permanently.

Tail sends the token in REJOIN_TOKEN, if there is one.`,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if feeds = append(args, feeds...); len(feeds) == 0 {
				return usageError{errWhichFeed(cmd)}
			}
			if t.subscription.Types, err = typesIn(types); err != nil {
				return err
			}
			if t.bare && t.json {
				return usageError{errors.New("--bare and --json both say how to print an event")}
			}
			if (t.bare || t.json) && (t.time || t.id) {
				return usageError{errors.New("--time and --id are columns before the data: --bare prints none, and with --json an event has both")}
			}
			if t.client, err = newClient(server, client.Options{Retrying: t.noteLoss}); err != nil {
				return err
			}
			if err := t.aim(feeds, from, cursor); err != nil {
				return err
			}
			if resumes, _ := t.subscription.Resumes(); resumes && cmd.Flags().Changed("from") {
				return usageError{errors.New("--from and --last-event-id both say where to start")}
			}
			t.out, t.notes = cmd.OutOrStdout(), cmd.ErrOrStderr()
			t.colours = !plain && showsColours(t.out)
			return t.follow(cmd.Context())
		},
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&feeds, "feed", nil, "a feed `NAME`, beside those in the arguments; separate several with commas, or repeat the flag")
	flags.StringVar(&server, "url", defaultURL, "the `URL` of the server")
	flags.StringVar(&from, "from", "now", "`WHERE` to start: now, start, -N (the newest N events of each feed) or a time such as 2026-01-31T09:30:00Z")
	flags.StringVar(&cursor, "last-event-id", "", "resume after the event with this `ID`; for several feeds as in chat=42,news=7, where a feed that is not named starts at --from")
	flags.StringArrayVar(&types, "types", nil, "print only events of these `TYPES`, separated by commas; message stands for events without a type")
	flags.BoolVar(&t.bare, "bare", false, "print the data of each event alone, without the names of several feeds")
	flags.BoolVar(&t.time, "time", false, "print the time of each event before its data")
	flags.BoolVar(&t.id, "id", false, "print the id of each event before its data")
	flags.BoolVar(&plain, "no-color", false, "do not colour what stands before the data on a terminal")
	flags.BoolVar(&t.json, "json", false, `print each event as a line {"feed","id","type","time","data"}`)
	flags.DurationVar(&t.subscription.Silence, "silence", 45*time.Second, "reconnect if nothing, not even a keep-alive, arrives for this long")
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

// typesIn returns the types that --types names. The error is a usage error.
func typesIn(values []string) ([]string, error) {
	types := namesIn(values)
	for _, t := range types {
		if t == "" {
			return nil, usageError{errors.New("--types: it has an empty type in it; events without a type are those of the type message")}
		}
		if err := feed.CheckType(t); err != nil {
			return nil, usageError{fmt.Errorf("--types: %w", err)}
		}
	}
	return types, nil
}

// tailer prints what a subscription brings.
type tailer struct {
	subscription client.Subscription
	json, bare   bool
	time, id     bool           // columns before the data
	colours      bool           // of the columns; out is then a terminal
	client       *client.Client // calls noteLoss before it tries again
	out          io.Writer      // events
	notes        io.Writer      // everything else

	cursor    string // behind the last event that was printed
	connected bool   // there was a connection
	lost      bool   // that there is none now has been noted
}

// aim sets what to follow and where to start, or returns a usage error.
func (t *tailer) aim(feeds []string, from, cursor string) error {
	s := &t.subscription
	s.Feeds, s.From, s.Cursor = namesIn(feeds), from, cursor
	s.Envelopes = t.json || t.time // nothing else has the time
	for _, name := range s.Feeds {
		if err := checkFeed(name); err != nil {
			return err
		}
	}
	if s.Silence < 6*time.Second {
		return usageError{errors.New("--silence: at least 6s, because keep-alives come no closer than 2s")}
	}
	if _, err := feed.ParseFrom(from); err != nil {
		return usageError{fmt.Errorf("--from: %w", err)}
	}
	if _, err := s.Resumes(); err != nil {
		return usageError{fmt.Errorf("--last-event-id: %w", err)}
	}
	return nil
}

func (t *tailer) many() bool { return len(t.subscription.Feeds) > 1 }

var errNoWrite = errors.New("write standard output")

// follow tails until all feeds are closed, ctx ends or there is no going on.
func (t *tailer) follow(ctx context.Context) error {
	names := strings.Join(t.subscription.Feeds, ",")
	for e, err := range t.client.Follow(ctx, t.subscription) {
		if err == nil {
			err = t.take(e)
		}
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, errNoWrite) && (errors.Is(err, syscall.EPIPE) || errors.Is(err, io.ErrClosedPipe)):
			return nil // the reader, such as head, has enough
		case errors.Is(err, client.ErrExpired):
			return fmt.Errorf("tail %s: %w after %s", names, err, t.at())
		default:
			return fmt.Errorf("tail %s: %w", names, err)
		}
	}
	return nil
}

// take prints an event, or notes what one about the feeds says.
func (t *tailer) take(e client.Event) error {
	switch e.Kind {
	case client.KindEvent, client.KindEphemeral:
		if err := t.print(e); err != nil {
			return err
		}
	case client.KindGap:
		t.noteGap(e)
	case client.KindClosed:
		if t.many() {
			t.note("%s is closed at event %d", e.Feed, e.ID)
		}
	}
	t.cursor = e.Cursor
	if e.Kind == client.KindOpen {
		t.noteReturn()
	}
	return nil
}

// print writes one event: its data, or the whole of it, which the server has
// put on one line.
func (t *tailer) print(e client.Event) error {
	var lines []byte
	out := t.out
	switch {
	case t.json:
		lines = append(append(lines, e.Raw...), '\n')
	case !t.bare && (t.many() || t.time || t.id):
		columns := t.columns(e)
		if t.colours {
			out = out.(terminal).Writer // which has to obey the columns, and nothing else
		}
		for line := range strings.SplitSeq(e.Data, "\n") {
			lines = append(lines, columns...)
			if t.colours {
				lines = appendVisible(lines, []byte(line))
			} else {
				lines = append(lines, line...)
			}
			lines = append(lines, '\n')
		}
	default:
		lines = append(append(lines, e.Data...), '\n')
	}
	if _, err := out.Write(lines); err != nil {
		return fmt.Errorf("%w: %w", errNoWrite, err)
	}
	return nil
}

// timeFormat is that of the server.
const timeFormat = "2006-01-02T15:04:05.000Z"

// columns returns what stands before the data of an event.
func (t *tailer) columns(e client.Event) (columns []byte) {
	add := func(colour, text string) {
		if t.colours {
			columns = appendColoured(columns, colour, text)
		} else {
			columns = append(columns, text...)
		}
		columns = append(columns, '\t')
	}
	if t.many() {
		add(colourOf(slices.Index(t.subscription.Feeds, e.Feed)), e.Feed)
	}
	if t.time {
		add(faint, e.Time.UTC().Format(timeFormat))
	}
	if t.id {
		id := "-" // it is not stored
		if e.Kind == client.KindEvent {
			id = e.ID.String()
		}
		add(faint, id)
	}
	return columns
}

// noteGap says in words what is missing.
func (t *tailer) noteGap(e client.Event) {
	switch gap := e.Gap; {
	case gap.Reason == feed.Trimmed:
		t.note("gap: events %d to %d of %s are no longer kept; going on with event %d", gap.After+1, gap.Cursor(), e.Feed, gap.Resumes)
	case gap.Reason == feed.Ahead && gap.Resumes > gap.After:
		t.note("gap: the store of %s was replaced by an older one, which has grown since: other events than those seen up to %d may stand under their ids; going on with event %d", e.Feed, gap.After, gap.Resumes)
	case gap.Reason == feed.Ahead:
		t.note("gap: %s ends at event %d, before event %d, which was seen: its store was replaced by an older one; what comes next has the id %d", e.Feed, gap.Cursor(), gap.After, gap.Resumes)
	default:
		t.note("gap: after event %d of %s comes event %d (%s)", gap.After, e.Feed, gap.Resumes, gap.Reason)
	}
}

// at describes the position of the tail, for people.
func (t *tailer) at() string {
	if t.many() {
		return t.cursor
	}
	return "event " + t.cursor
}

func (t *tailer) noteLoss(err error, _ time.Duration) {
	if t.lost {
		return
	}
	t.lost = true
	if t.connected {
		t.note("lost the connection after %s (%s), reconnecting", t.at(), reach.Reason(err))
	} else {
		t.note("cannot follow %s yet (%s), trying again", strings.Join(t.subscription.Feeds, ","), reach.Reason(err))
	}
}

func (t *tailer) noteReturn() {
	if t.lost {
		t.note("connected, going on after %s", t.at())
	}
	t.lost, t.connected = false, true
}

func (t *tailer) note(format string, args ...any) {
	// Notes are a courtesy: a tail without a reader of its notes goes on.
	_, _ = fmt.Fprintf(t.notes, "rejoin: "+format+"\n", args...)
}
