package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/rejoin/rejoin/feed/client"
)

func newCloseCommand() *cobra.Command {
	var server string
	cmd := &cobra.Command{
		Use:   "close FEED",
		Short: "Close a feed for ever: it takes no more events",
		Long: `Close closes a feed. The server refuses to store any more events in it, and ends
the streams of its subscribers when they have all events. The events stay, and can
be read. A closed feed cannot be opened again, not even by deleting it.

Closing a closed feed changes nothing. Closing a feed that does not exist creates
it without events. To publish a last event and close the feed in one step, see
rejoin publish --close.

Close repeats the request for up to 30 seconds until the server confirms it. If the
server needs tokens, the one in REJOIN_TOKEN has to allow publishing to the feed or
closing it.`,
		Example: `  rejoin close answer:42`,
		Args:    oneFeed,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, name, waiting := cmd.Context(), args[0], false
			note := func(format string, args ...any) {
				_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "rejoin: "+format+"\n", args...)
			}
			c, err := newClient(server, client.Options{Patience: oneEventPatience, Retrying: func(err error, _ time.Duration) {
				if !waiting && ctx.Err() == nil {
					note("cannot close %s yet (%s), trying again", name, err)
				}
				waiting = true
			}})
			if err != nil {
				return err
			}
			result, err := c.Publish(ctx, client.Publication{Feed: name, Close: true})
			switch {
			case err == nil:
				note("%s is closed", name)
				return nil
			case result.Outcome == client.Refused && ctx.Err() != nil && errors.Is(err, context.Cause(ctx)):
				err = errInterrupted
			}
			return fmt.Errorf("close %s: %w", name, err)
		},
	}
	cmd.Flags().StringVar(&server, "url", defaultURL, "the `URL` of the server")
	return cmd
}
