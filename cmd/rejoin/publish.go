package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/rejoin/rejoin/feed"
)

func newPublishCommand() *cobra.Command {
	var server, name, key string
	var mend, closing bool
	p := &sender{}
	cmd := &cobra.Command{
		Use:   "publish --feed NAME [DATA]",
		Short: "Publish DATA as one event, or each line of standard input as an event",
		Long: `With DATA, publish stores one event and prints its id.

Without, each line of standard input becomes an event, as soon as it is there
and in order; at the end, standard error says how many. A line ends with LF or
CR LF; an empty line is an event with empty data.

Each event is sent until the server says that it is stored: for 30 seconds with
DATA, for as long as it takes with standard input. It is stored once, however
often it has to be sent, by means of an idempotency key of its own.

A server that asks for a token gets the one in REJOIN_TOKEN.`,
		Args: usageArgs(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if p.url, err = eventsURL(server, name); err != nil {
				return err
			}
			if err := feed.CheckType(p.eventType); err != nil {
				return usageError{fmt.Errorf("--type: %w", err)}
			}
			withKey := cmd.Flags().Changed("key")
			if err := checkKey(key, withKey, len(args)); err != nil {
				return err
			}
			p.client, p.notes = newHTTPClient(), cmd.ErrOrStderr()
			if len(args) == 1 {
				if !withKey {
					key = rand.Text()
				}
				return publishOne(cmd.Context(), p, event{args[0], key, closing}, mend, cmd.OutOrStdout())
			}
			lines := &lineReader{in: cmd.InOrStdin(), mend: mend}
			return publishLines(cmd.Context(), p, name, lines, closing)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&name, "feed", "", "the feed")
	flags.StringVar(&server, "url", defaultURL, "the server")
	flags.StringVar(&p.eventType, "type", "", "the type of the events")
	flags.StringVar(&key, "key", "", "the idempotency key of DATA: the same again stores nothing and prints the same id")
	flags.BoolVar(&p.json, "json", false, "the data is JSON")
	flags.BoolVar(&closing, "close", false, "close the feed behind the last event, for good")
	flags.BoolVar(&mend, "mend", false, "publish what is not UTF-8 or holds NUL with U+FFFD in the place of such bytes, instead of failing")
	return cmd
}

func checkKey(key string, given bool, args int) error {
	if !given {
		return nil
	}
	if args == 0 {
		return usageError{errors.New("--key is for a single event: it comes with DATA")}
	}
	if err := feed.CheckKey(key); err != nil {
		return usageError{fmt.Errorf("--key: %w", err)}
	}
	return nil
}

// oneEventPatience is how long a single event is tried: whoever waits for its
// id wants to know. Lines of a pipe can wait in the pipe.
const oneEventPatience = 30 * time.Second

func publishOne(ctx context.Context, p *sender, e event, mend bool, stdout io.Writer) (err error) {
	if e.data, err = checkData(e.data, mend); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	p.patience = oneEventPatience
	id, err := p.publish(ctx, e)
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	if _, err := fmt.Fprintln(stdout, id); err != nil {
		return fmt.Errorf("write standard output (event %d is stored): %w", id, err)
	}
	return nil
}

// publishLines publishes until the lines end or ctx does, and says what was
// stored, however it ends. With closing, it closes the feed behind them.
func publishLines(ctx context.Context, p *sender, name string, lines *lineReader, closing bool) error {
	var total tally
	err := total.publish(ctx, p, lines)
	if err == nil && closing {
		err = p.closeFeed(ctx)
	}
	summary := total.String() + " to " + name
	if total.events > 0 {
		summary += ", " + total.ids()
	}
	if lines.mended > 0 {
		summary += fmt.Sprintf("; %d of them mended", lines.mended)
	}
	if err == nil && closing {
		summary += "; the feed is closed"
	}
	p.note("%s", summary)
	return err
}

// tally is what standard input has come to so far.
type tally struct {
	events      int
	first, last uint64 // ids
}

func (t *tally) publish(ctx context.Context, p *sender, lines *lineReader) error {
	run := rand.Text()
	for line := range lines.all(ctx) {
		if line.err != nil {
			return fmt.Errorf("publish: line %d: %w", line.number, line.err)
		}
		id, err := p.publish(ctx, event{data: line.data, key: fmt.Sprintf("%s-%d", run, line.number)})
		if err != nil {
			return fmt.Errorf("publish: line %d: %w", line.number, err)
		}
		if t.events++; t.events == 1 {
			t.first = id
		}
		t.last = id
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
