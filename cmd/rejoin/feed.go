package main

import (
	"encoding/json"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/rejoin/rejoin/feed/client"
)

func newFeedCommand() *cobra.Command {
	var server string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "feed FEED",
		Short: "Describe a feed: its events, subscribers and size",
		Long: `Feed prints the oldest event of a feed that is kept, the newest id ever given,
whether the feed is closed, the time of its newest event in UTC, its subscribers on
all nodes, and the bytes of its data. The data of trimmed events counts until it is
swept from the disk.

With --json, it prints an object:
{"feed","first","last","closed","updated","subscribers","bytes"}.

If the server needs tokens, the one in REJOIN_TOKEN has to allow reading the feed.`,
		Example: `  rejoin feed chat
  rejoin feed chat --json | jq .last`,
		SuggestFor: []string{"info", "show", "describe"},
		Args:       oneFeed,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := newClient(server, client.Options{})
			if err != nil {
				return err
			}
			info, err := c.Feed(cmd.Context(), args[0])
			if err != nil {
				return failed(cmd.Context(), "describe "+args[0], err)
			}
			if asJSON {
				err = json.NewEncoder(cmd.OutOrStdout()).Encode(struct {
					feedLine
					Subscribers int   `json:"subscribers"`
					Bytes       int64 `json:"bytes"`
				}{newFeedLine(info), info.Subscribers, info.Bytes})
			} else {
				table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
				// Flush returns its error.
				_, _ = fmt.Fprintf(table, "feed\t%s\nfirst\t%d\nlast\t%d\nclosed\t%s\nupdated\t%s\nsubscribers\t%d\nbytes\t%d\n",
					info.Feed, info.First, info.Last, yesNo(info.Closed), info.Updated.UTC().Format(timeFormat), info.Subscribers, info.Bytes)
				err = table.Flush()
			}
			if err != nil {
				return fmt.Errorf("%w: %w", errNoWrite, err)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&server, "url", defaultURL, "the `URL` of the server")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the description as a line of JSON")
	return cmd
}
