package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/client"
)

func newTrimCommand() *cobra.Command {
	var server, before string
	var keep uint64
	cmd := &cobra.Command{
		Use:   "trim FEED (--before ID | --keep N)",
		Short: "Delete the oldest events of a feed",
		Long: `Trim deletes the events of a feed below the id of --before, or all but the newest
--keep events. Nothing brings them back. The other events keep their ids, and a
subscriber that misses deleted ones gets a feed.gap event.

To trim by rules, without a command, see retention in config.yaml. To delete all
events, see rejoin delete.

If the server needs tokens, the one in REJOIN_TOKEN has to allow administration, and
for --keep also reading the feed.`,
		Example: `  rejoin trim chat --before 43
  rejoin trim chat --keep 1000`,
		Args: oneFeed,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := newClient(server, client.Options{})
			if err != nil {
				return err
			}
			var to feed.ID
			switch byID, byCount := cmd.Flags().Changed("before"), cmd.Flags().Changed("keep"); {
			case byID == byCount:
				return usageError{errors.New("give either --before, the id of the oldest event to keep, or --keep, how many events to keep")}
			case byCount && keep < 1:
				return usageError{errors.New("--keep: at least 1; rejoin delete deletes all events")}
			case byID:
				if to, err = feed.ParseCursor(before); err != nil {
					return usageError{fmt.Errorf("--before: %q is not the id of an event, such as 43", before)}
				}
			}
			return trimFeed(cmd.Context(), c, args[0], to, feed.ID(keep), cmd.ErrOrStderr())
		},
	}
	cmd.Flags().StringVar(&server, "url", defaultURL, "the `URL` of the server")
	cmd.Flags().StringVar(&before, "before", "", "delete the events below this `ID`")
	cmd.Flags().Uint64Var(&keep, "keep", 0, "delete all but the newest `N` events")
	return cmd
}

// trimFeed deletes the events of a feed below before or, if that is 0 and keep is
// not, all but the newest keep.
func trimFeed(ctx context.Context, c *client.Client, name string, before, keep feed.ID, notes io.Writer) error {
	if keep > 0 {
		info, err := c.Feed(ctx, name)
		if err != nil {
			return failed(ctx, "trim "+name, err)
		}
		if kept := info.Last + 1 - info.First; kept <= keep {
			_, _ = fmt.Fprintf(notes, "rejoin: %s has %s; nothing is deleted\n", name, events(kept))
			return nil
		}
		before = info.Last + 1 - keep
	}
	if err := c.Trim(ctx, name, before); err != nil {
		return failed(ctx, "trim "+name, err)
	}
	_, _ = fmt.Fprintf(notes, "rejoin: the events of %s below %d are deleted\n", name, before)
	return nil
}

// events writes a number of events.
func events(n feed.ID) string {
	if n == 1 {
		return "1 event"
	}
	return strconv.FormatUint(uint64(n), 10) + " events"
}
