package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rejoin/rejoin/feed/client"
)

func newDeleteCommand() *cobra.Command {
	var server string
	var yes bool
	cmd := &cobra.Command{
		Use:   "delete FEED",
		Short: "Delete all events of a feed",
		Long: `Delete deletes all events of a feed. Nothing brings them back. The next event gets
the id after the last one, and a closed feed stays closed.

On a terminal, delete asks for the name of the feed. Elsewhere it needs --yes, and
a feed that does not exist is then no failure.

If the server needs tokens, the one in REJOIN_TOKEN has to allow administration.`,
		Example: `  rejoin delete chat
  rejoin delete chat --yes`,
		SuggestFor: []string{"remove", "rm"},
		Args:       oneFeed,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := newClient(server, client.Options{})
			if err != nil {
				return err
			}
			if !yes {
				file, ok := cmd.InOrStdin().(*os.File)
				if !ok || !isTerminal(file) {
					return usageError{fmt.Errorf("standard input is not a terminal, to confirm that all events of %s go; --yes deletes them unasked", args[0])}
				}
				if err := confirmDelete(cmd.Context(), c, args[0], file, cmd.ErrOrStderr()); err != nil {
					return fmt.Errorf("delete %s: %w", args[0], err)
				}
			}
			if err := c.Delete(cmd.Context(), args[0]); err != nil {
				return failed(cmd.Context(), "delete "+args[0], err)
			}
			_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "rejoin: all events of %s are deleted\n", args[0])
			return nil
		},
	}
	cmd.Flags().StringVar(&server, "url", defaultURL, "the `URL` of the server")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// confirmDelete returns nil if the name of the feed is typed.
func confirmDelete(ctx context.Context, c *client.Client, name string, terminal io.Reader, prompt io.Writer) error {
	what := "all events"
	info, err := c.Feed(ctx, name)
	if problem, ok := errors.AsType[*client.Problem](err); ok && problem.Status == http.StatusNotFound {
		return err
	}
	if err == nil { // or the token allows deleting, but not reading
		what = fmt.Sprintf("all events (%d)", info.Last+1-info.First)
	}
	_, _ = fmt.Fprintf(prompt, "This deletes %s of %s. Type the name of the feed to go on: ", what, name)
	typed := make(chan string, 1)
	// A read from a terminal cannot be called off: it ends with the process.
	go func() {
		line, _ := bufio.NewReader(terminal).ReadString('\n') // an error leaves the line incomplete
		typed <- strings.TrimSpace(line)
	}()
	select {
	case <-ctx.Done():
		return errInterrupted
	case line := <-typed:
		if line != name {
			return errors.New("the name was not typed; nothing was done")
		}
	}
	return nil
}
