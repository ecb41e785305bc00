package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/client"
)

// publishStream publishes standard input as a stream, and reports what was stored,
// however it ends.
func publishStream(ctx context.Context, p *linePublisher, stdin io.Reader) error {
	input := &streamInput{p: p, in: stdin, drafts: make(chan feed.Draft)}
	reading, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		input.read(reading)
	}()
	// What cannot be published ends the input. What came before it is published, and
	// the feed stays open.
	result, err := p.client.PublishStream(ctx, client.PublishedStream{Feed: p.feed, Key: p.key}, input.drafts)
	stop()
	if p.stream == "lines" {
		<-ended // a reader of blocks may wait for its input, and ends with the process
	}
	mended := 0
	select {
	case <-ended:
		err, mended = errors.Join(err, input.err), input.lines.mended
	default:
	}
	if err == nil && p.close {
		_, err = p.publish(ctx, client.Publication{Feed: p.feed, Close: true})
	}
	total := tally{result.Events, result.First, result.Last}
	summary := total.String() + " to " + p.feed
	if total.events > 0 {
		summary += ", " + total.ids()
	}
	if result.Replayed > 0 {
		summary += fmt.Sprintf("; %d of them were stored before", result.Replayed)
	}
	if mended > 0 {
		summary += fmt.Sprintf("; %d of them mended", mended)
	}
	if err == nil && p.close {
		summary += "; the feed is closed"
	}
	p.note("%s", summary)
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	return nil
}

// streamInput turns standard input into drafts.
type streamInput struct {
	p      *linePublisher
	in     io.Reader
	drafts chan feed.Draft
	lines  lineReader
	err    error // that ended the input
}

// read gives drafts until the input or ctx ends.
func (s *streamInput) read(ctx context.Context) {
	defer close(s.drafts)
	give := func(d feed.Draft) bool {
		select {
		case s.drafts <- d:
			return true
		case <-ctx.Done():
			return false
		}
	}
	s.lines = lineReader{in: s.in, mend: s.p.mend}
	if s.p.stream == "lines" {
		for line := range s.lines.all(ctx) {
			if line.err != nil {
				s.err = fmt.Errorf("line %d: %w", line.number, line.err)
				return
			}
			if !give(s.p.event(line.data).Drafts[0]) {
				return
			}
		}
		return
	}
	for d, err := range client.Drafts(s.in) {
		if d.Type == "" {
			d.Type = s.p.eventType
		}
		if err == nil {
			line := line{data: d.Data}
			s.lines.check(&line)
			d.Data, err = line.data, line.err
		}
		if err != nil {
			s.err = err
			return
		}
		if !give(d) {
			return
		}
	}
}
