package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/client"
)

func newFeedsCommand() *cobra.Command {
	var server string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "feeds [PREFIX]",
		Short: "List the feeds, or those whose names begin with PREFIX",
		Long: `Feeds prints a line for each feed, by name: the oldest event that is kept, the
newest id ever given, whether the feed is closed, and the time of the newest event
in UTC. FIRST is LAST + 1 if no event is kept.

With --json, each line is an object: {"feed","first","last","closed","updated"}.

If the server needs tokens, the one in REJOIN_TOKEN has to allow administration.`,
		Example: `  rejoin feeds
  rejoin feeds chat:
  rejoin feeds --json | jq -r 'select(.closed) | .feed'
  REJOIN_TOKEN=$(rejoin token --admin) rejoin feeds`,
		SuggestFor: []string{"list", "ls"},
		Args: func(cmd *cobra.Command, args []string) error {
			switch len(args) {
			case 0:
				return nil
			case 1:
				return checkFeed(args[0])
			}
			return usageError{fmt.Errorf("%s takes one PREFIX, but was given %q, too", inRoot(cmd), args[1])}
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := newClient(server, client.Options{})
			if err != nil {
				return err
			}
			prefix := ""
			if len(args) > 0 {
				prefix = args[0]
			}
			printed, err := listFeeds(cmd.Context(), c, prefix, asJSON, cmd.OutOrStdout())
			if err == nil && printed == 0 && !asJSON {
				none := "there are no feeds"
				if prefix != "" {
					none += " whose names begin with " + prefix
				}
				_, _ = fmt.Fprintln(cmd.ErrOrStderr(), "rejoin:", none)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&server, "url", defaultURL, "the `URL` of the server")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print each feed as a line of JSON")
	return cmd
}

// feedsAligned is how many feeds share the widths of the columns, and wait for each
// other to be printed.
const feedsAligned = 1000

// listFeeds prints the feeds as they come, and returns their number.
func listFeeds(ctx context.Context, c *client.Client, prefix string, asJSON bool, out io.Writer) (printed int, err error) {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	lines := json.NewEncoder(out)
	lines.SetEscapeHTML(false)
	for info, err := range c.Feeds(ctx, prefix) {
		if err != nil {
			return printed, errors.Join(table.Flush(), failed(ctx, "list feeds", err))
		}
		if asJSON {
			err = lines.Encode(newFeedLine(info))
		} else {
			if printed == 0 {
				_, _ = fmt.Fprintln(table, "FEED\tFIRST\tLAST\tCLOSED\tUPDATED") // Flush returns its error
			}
			_, err = fmt.Fprintf(table, "%s\t%d\t%d\t%s\t%s\n", info.Feed, info.First, info.Last, yesNo(info.Closed), info.Updated.UTC().Format(timeFormat))
			if (printed+1)%feedsAligned == 0 && err == nil {
				err = table.Flush()
			}
		}
		if printed++; err != nil {
			return printed, fmt.Errorf("%w: %w", errNoWrite, err)
		}
	}
	if err := table.Flush(); err != nil {
		return printed, fmt.Errorf("%w: %w", errNoWrite, err)
	}
	return printed, nil
}

// feedLine is a feed as --json prints it: as the server does.
type feedLine struct {
	Feed    string  `json:"feed"`
	First   feed.ID `json:"first"`
	Last    feed.ID `json:"last"`
	Closed  bool    `json:"closed"`
	Updated string  `json:"updated"`
}

func newFeedLine(info client.FeedInfo) feedLine {
	return feedLine{info.Feed, info.First, info.Last, info.Closed, info.Updated.UTC().Format(timeFormat)}
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// failed returns the error of a request about feeds, whose words begin with what it
// was to do.
func failed(ctx context.Context, what string, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s: interrupted", what)
	}
	return fmt.Errorf("%s: %w", what, err)
}
