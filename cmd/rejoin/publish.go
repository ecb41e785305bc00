package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/rejoin/rejoin/feed"
)

func newPublishCommand() *cobra.Command {
	var server, name string
	var mend bool
	p := &sender{}
	cmd := &cobra.Command{
		Use:   "publish --feed NAME [DATA]",
		Short: "Publish DATA as one event, or each line of standard input as an event",
		Long: `With DATA, publish stores one event and prints its id.

Without, each line of standard input becomes an event, as soon as it is there
and in order; at the end, standard error says how many. A line ends with LF or
CR LF; an empty line is an event with empty data.

What is surely not stored, because the server cannot be reached or says so, is
tried again: for 30 seconds with DATA, for as long as it takes with standard
input. When it cannot be known whether an event was stored, publish fails and
names the line.

A server that asks for a token gets the one in REJOIN_TOKEN.`,
		Args: usageArgs(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if p.url, err = eventsURL(server, name); err != nil {
				return err
			}
			if err := feed.CheckType(p.eventType); err != nil {
				return usageError{fmt.Errorf("--type: %w", err)}
			}
			p.client, p.notes = newClient(), cmd.ErrOrStderr()
			if len(args) == 1 {
				return publishOne(cmd.Context(), p, args[0], mend, cmd.OutOrStdout())
			}
			lines := &lineReader{in: cmd.InOrStdin(), mend: mend}
			return publishLines(cmd.Context(), p, name, lines)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&name, "feed", "", "the feed")
	flags.StringVar(&server, "url", defaultURL, "the server")
	flags.StringVar(&p.eventType, "type", "", "the type of the events")
	flags.BoolVar(&p.json, "json", false, "the data is JSON")
	flags.BoolVar(&mend, "mend", false, "publish what is not UTF-8 or holds NUL with U+FFFD in the place of such bytes, instead of failing")
	return cmd
}

// oneEventPatience is how long a single event is tried: whoever waits for its
// id wants to know. Lines of a pipe can wait in the pipe.
const oneEventPatience = 30 * time.Second

func publishOne(ctx context.Context, p *sender, data string, mend bool, stdout io.Writer) error {
	data, err := checkData(data, mend)
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	p.patience = oneEventPatience
	id, err := p.publish(ctx, data)
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	if _, err := fmt.Fprintln(stdout, id); err != nil {
		return fmt.Errorf("write standard output (event %d is stored): %w", id, err)
	}
	return nil
}

// publishLines publishes until the lines end or ctx does, and says what was
// stored, however it ends.
func publishLines(ctx context.Context, p *sender, name string, lines *lineReader) error {
	var total tally
	err := total.publish(ctx, p, lines)
	summary := total.String() + " to " + name
	if total.events > 0 {
		summary += ", " + total.ids()
	}
	if lines.mended > 0 {
		summary += fmt.Sprintf("; %d of them mended", lines.mended)
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
	for line := range lines.all(ctx) {
		if line.err != nil {
			return fmt.Errorf("publish: line %d: %w", line.number, line.err)
		}
		id, err := p.publish(ctx, line.data)
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

// The ways in which an event does not get stored.
var (
	errUncertain   = errors.New("it may or may not have been stored")
	errInterrupted = errors.New("interrupted; it was not stored")
)
