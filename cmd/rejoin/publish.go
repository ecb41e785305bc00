package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/client"
)

func newPublishCommand() *cobra.Command {
	var server string
	p := &linePublisher{}
	cmd := &cobra.Command{
		Use:   "publish FEED [DATA]",
		Short: "Publish DATA as one event, or each line of standard input as an event",
		Example: `  rejoin publish chat 'hello, world'
  rejoin publish chat --type message.edited --json '{"id":7,"text":"hi"}'
  tail -F some.log | rejoin publish log
  rejoin publish answer:42 --stream --close < answer.txt`,
		SuggestFor: []string{"post", "send"},
		Long: `With DATA, publish stores one event and prints its id.

Without DATA, it publishes each line of standard input as an event, in order and
as soon as the line is complete. At the end it prints their number to standard
error. A line ends with LF or CR LF; an empty line is an event with empty data.

Publish repeats each event until the server confirms that it is stored: for 30
seconds with DATA, without a limit with standard input. Each event has an
idempotency key of its own, so the server stores it once, however often it is
sent.

With --stream, all of standard input travels in few requests, which the server
stores as it arrives. That costs much less where there are many events. Publish
comes back after a broken connection, and sends again what is not known to be
stored: each event is stored once, and they keep their order. --stream=sse reads
Server-Sent Events from standard input instead of lines.

The first event creates the feed. With --feed NAME, DATA is the only argument.

Publish sends the token in REJOIN_TOKEN, if there is one.`,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if args, err = p.takeFeed(cmd, args); err != nil {
				return err
			}
			if err := p.aim(cmd.Flags().Changed("key"), len(args)); err != nil {
				return err
			}
			p.notes = cmd.ErrOrStderr()
			o := client.Options{Retrying: p.noteWaiting}
			if len(args) == 1 {
				o.Patience = oneEventPatience
			}
			if p.client, err = newClient(server, o); err != nil {
				return err
			}
			if p.stream != "" {
				return publishStream(cmd.Context(), p, cmd.InOrStdin())
			}
			if len(args) == 1 {
				return publishOne(cmd.Context(), p, args[0], cmd.OutOrStdout())
			}
			if file, ok := cmd.InOrStdin().(*os.File); ok && isTerminal(file) {
				p.note("publishing each line that you type to %s; Ctrl-D ends", p.feed)
			}
			return publishLines(cmd.Context(), p, cmd.InOrStdin())
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&p.feed, "feed", "", "the `NAME` of the feed, instead of FEED")
	flags.StringVar(&server, "url", defaultURL, "the `URL` of the server")
	flags.StringVar(&p.eventType, "type", "", "the `TYPE` of the events")
	flags.StringVar(&p.key, "key", "", "the idempotency `KEY` of DATA: repeating it stores nothing and prints the same id; with --stream, the beginning of the events' keys")
	flags.StringVar(&p.stream, "stream", "", "publish standard input by one request: its lines, or with --stream=sse its Server-Sent Events")
	flags.Lookup("stream").NoOptDefVal = "lines"
	flags.BoolVar(&p.json, "json", false, "the data is JSON")
	flags.BoolVar(&p.close, "close", false, "close the feed after the last event; a closed feed stays closed")
	flags.BoolVar(&p.mend, "mend", false, "replace NUL and bytes that are not UTF-8 with U+FFFD, instead of failing")
	return cmd
}

// linePublisher publishes events to one feed, one after another.
type linePublisher struct {
	feed, eventType, key string
	stream               string // lines, sse; empty for a request for each event
	json, mend, close    bool
	client               *client.Client // calls noteWaiting before it tries again
	notes                io.Writer
	waiting              bool // that events have to wait has been noted
}

// takeFeed takes the feed from the arguments, unless --feed has named it, and
// returns the others: DATA, or none. The error is a usage error.
func (p *linePublisher) takeFeed(cmd *cobra.Command, args []string) ([]string, error) {
	if !cmd.Flags().Changed("feed") {
		if len(args) == 0 {
			return nil, usageError{fmt.Errorf("%w hello", errWhichFeed(cmd))}
		}
		p.feed, args = args[0], args[1:]
	}
	if len(args) > 1 {
		return nil, usageError{fmt.Errorf("DATA is one argument, but %q follows it; put quotes around DATA that has spaces", args[1])}
	}
	return args, checkFeed(p.feed)
}

// aim checks the flags. The error is a usage error.
func (p *linePublisher) aim(withKey bool, args int) error {
	if err := feed.CheckType(p.eventType); err != nil {
		return usageError{fmt.Errorf("--type: %w", err)}
	}
	switch {
	case p.stream == "":
	case args > 0:
		return usageError{errors.New("--stream publishes standard input, not DATA; its value, if any, follows an equals sign: --stream=sse")}
	case p.stream != "lines" && p.stream != "sse":
		return usageError{fmt.Errorf("--stream: %q is neither lines nor sse", p.stream)}
	case p.stream == "sse" && p.json:
		return usageError{errors.New("--json is for lines: the data of Server-Sent Events is text")}
	}
	if !withKey {
		return nil
	}
	if args == 0 && p.stream == "" {
		return usageError{errors.New("--key is for a single event, with DATA, or for --stream")}
	}
	if err := feed.CheckKey(p.key); err != nil {
		return usageError{fmt.Errorf("--key: %w", err)}
	}
	return nil
}

// oneEventPatience bounds the attempts to publish a single event, for whose id a
// caller waits. Lines of a pipe can wait in the pipe.
const oneEventPatience = 30 * time.Second

func publishOne(ctx context.Context, p *linePublisher, data string, stdout io.Writer) error {
	data, err := checkData(data, p.mend)
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	event := p.event(data)
	event.Key, event.Close = p.key, p.close
	result, err := p.publish(ctx, event)
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	if _, err := fmt.Fprintln(stdout, result.IDs[0]); err != nil {
		return fmt.Errorf("write standard output (event %d is stored): %w", result.IDs[0], err)
	}
	return nil
}

// publishLines publishes until the lines end or ctx does, and reports what was
// stored, however it ends. It may have to close the feed behind them.
func publishLines(ctx context.Context, p *linePublisher, stdin io.Reader) error {
	lines := &lineReader{in: stdin, mend: p.mend}
	var total tally
	err := total.publish(ctx, p, lines)
	if err == nil && p.close {
		if _, err = p.publish(ctx, client.Publication{Feed: p.feed, Close: true}); err != nil {
			err = fmt.Errorf("publish: close the feed: %w", err)
		}
	}
	summary := total.String() + " to " + p.feed
	if total.events > 0 {
		summary += ", " + total.ids()
	}
	if lines.mended > 0 {
		summary += fmt.Sprintf("; %d of them mended", lines.mended)
	}
	if err == nil && p.close {
		summary += "; the feed is closed"
	}
	p.note("%s", summary)
	return err
}

func (p *linePublisher) event(data string) client.Publication {
	return client.Publication{Feed: p.feed, Drafts: []feed.Draft{{Type: p.eventType, Data: data, JSON: p.json}}}
}

var errInterrupted = errors.New("interrupted; nothing was done")

// publish publishes until it is known what became of it. An error that wraps
// feed.ErrUncertain is for an outcome that did not become known in time.
func (p *linePublisher) publish(ctx context.Context, what client.Publication) (client.Result, error) {
	result, err := p.client.Publish(ctx, what)
	switch {
	case result.Outcome == client.Stored:
		p.noteReturn()
	case result.Outcome == client.Unknown && result.Key != "":
		err = fmt.Errorf("%w; sent with --key %s, it is stored once in any case", err, result.Key)
	case result.Outcome == client.Refused && ctx.Err() != nil && errors.Is(err, context.Cause(ctx)):
		err = errInterrupted
	}
	return result, err
}

// noteWaiting and noteReturn say once that events wait, and once that they no
// longer do.
func (p *linePublisher) noteWaiting(err error, _ time.Duration) {
	if !p.waiting {
		p.note("cannot publish yet (%s), trying again", err)
	}
	p.waiting = true
}

func (p *linePublisher) noteReturn() {
	if p.waiting {
		p.note("publishing again")
	}
	p.waiting = false
}

func (p *linePublisher) note(format string, args ...any) {
	// Notes are a courtesy: publishing goes on without a reader of them.
	_, _ = fmt.Fprintf(p.notes, "rejoin: "+format+"\n", args...)
}

// tally is what standard input has come to so far.
type tally struct {
	events      int
	first, last feed.ID // ids
}

func (t *tally) publish(ctx context.Context, p *linePublisher, lines *lineReader) error {
	for line := range lines.all(ctx) {
		if line.err != nil {
			return fmt.Errorf("publish: line %d: %w", line.number, line.err)
		}
		result, err := p.publish(ctx, p.event(line.data))
		if err != nil {
			return fmt.Errorf("publish: line %d: %w", line.number, err)
		}
		if t.last = result.IDs[0]; t.events == 0 {
			t.first = t.last
		}
		t.events++
	}
	return nil
}

func (t *tally) String() string {
	if t.events == 1 {
		return "published 1 event"
	}
	return fmt.Sprintf("published %d events", t.events)
}

func (t *tally) ids() string {
	if t.events == 1 {
		return fmt.Sprintf("id %d", t.first)
	}
	return fmt.Sprintf("ids %d to %d", t.first, t.last)
}

// line is a line of standard input without its end, or why there is none.
type line struct {
	number int // from 1
	data   string
	err    error
}

// lineReader reads events from lines of text.
type lineReader struct {
	in     io.Reader
	mend   bool // replace what no event can hold
	mended int  // how many lines had something replaced; for after all
}

// all yields each line as soon as it has been read, until the input ends or ctx
// does. An error is the last thing it yields.
func (r *lineReader) all(ctx context.Context) iter.Seq[line] {
	return func(yield func(line) bool) {
		lines := make(chan line)
		done := make(chan struct{})
		defer close(done)
		// A read from a terminal or a pipe cannot be called off: when ctx
		// ends in one, the reader is left to end with the process.
		go func() {
			defer close(lines)
			r.read(func(l line) bool {
				select {
				case lines <- l:
					return true
				case <-done:
					return false
				}
			})
		}()
		for ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case l, ok := <-lines:
				if !ok {
					return
				}
				r.check(&l)
				if ctx.Err() != nil {
					return // with the line: nothing would be sent of it
				}
				if !yield(l) || l.err != nil {
					return
				}
			}
		}
	}
}

// read hands lines to give until the input ends or give is not interested.
func (r *lineReader) read(give func(line) bool) {
	// Room for the largest line, its CR LF, and one byte to tell that it is
	// too long.
	buffered := bufio.NewReaderSize(r.in, feed.DefaultEventBytes+3)
	for number := 1; ; number++ {
		text, err := buffered.ReadSlice('\n')
		if err == io.EOF && len(text) == 0 {
			return
		}
		text = bytes.TrimSuffix(text, []byte("\n"))
		if err == nil {
			text = bytes.TrimSuffix(text, []byte("\r"))
		}
		switch {
		case len(text) > feed.DefaultEventBytes:
			err = fmt.Errorf("it has more than the %d bytes that an event can have", feed.DefaultEventBytes)
		case err == io.EOF:
			err = nil // the last line may lack its end; the next read returns the error again
		case err != nil:
			err = fmt.Errorf("read standard input: %w", err)
		}
		if !give(line{number, string(text), err}) || err != nil {
			return
		}
	}
}

func (r *lineReader) check(l *line) {
	if l.err != nil {
		return
	}
	data, err := checkData(l.data, r.mend)
	if err == nil && data != l.data {
		r.mended++
	}
	l.data, l.err = data, err
}

// checkData returns data if an event can hold it. With mend, it puts U+FFFD
// where it cannot.
func checkData(data string, mend bool) (string, error) {
	if utf8.ValidString(data) && strings.IndexByte(data, 0) < 0 {
		return data, nil
	}
	if !mend {
		// An event cannot be taken back, so it is not changed unasked.
		return "", errors.New("it is not UTF-8 text, or holds NUL; --mend publishes it with U+FFFD for such bytes")
	}
	return strings.ReplaceAll(strings.ToValidUTF8(data, "\uFFFD"), "\x00", "\uFFFD"), nil
}
