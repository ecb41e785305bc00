package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/rejoin/rejoin/cmd/internal/reach"
	"github.com/rejoin/rejoin/feed/client"
)

func newHealthCommand() *cobra.Command {
	var server string
	var ready bool
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Check that a server is alive; fail if it is not",
		Long: `Health asks a server whether it is alive, within 5 seconds. The exit code is 0 if
it is, and 1 if not. With --ready, it asks whether the server is ready for traffic,
and prints what is down.`,
		Example: `  rejoin health
  rejoin health --ready --url https://events.example.com
  until rejoin health --ready; do sleep 1; done`,
		SuggestFor: []string{"status", "ping"},
		Args:       noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return health(cmd.Context(), server, ready, cmd.ErrOrStderr())
		},
	}
	cmd.Flags().StringVar(&server, "url", defaultURL, "the `URL` of the server")
	cmd.Flags().StringVar(&server, "server", defaultURL, "another name of --url")
	_ = cmd.Flags().MarkHidden("server") // the flag is there
	cmd.Flags().BoolVar(&ready, "ready", false, "check that it is ready for traffic: its store answers and it is not stopping")
	return cmd
}

// healthPatience is how long a server may take to answer.
const healthPatience = 5 * time.Second

func health(ctx context.Context, server string, ready bool, notes io.Writer) error {
	c, err := newClient(server, client.Options{})
	if err != nil {
		return err
	}
	path := "healthz"
	if ready {
		path = "readyz"
	}
	ctx, cancel := context.WithTimeoutCause(ctx, healthPatience, fmt.Errorf("no answer within %v", healthPatience))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.URL(path).String(), nil)
	if err != nil {
		return fmt.Errorf("ask for health: %w", err)
	}
	resp, err := c.HTTP().Do(req)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("ask for health: %w", context.Cause(ctx))
	case err != nil:
		return fmt.Errorf("ask for health: %s", reach.Reason(err))
	}
	defer resp.Body.Close()
	if ready {
		return readiness(resp, notes)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("ask for health: /%s answers %s", path, resp.Status)
	}
	return nil
}

// readiness judges an answer of /readyz. A bus that is down costs no event, so it is
// only noted.
func readiness(resp *http.Response, notes io.Writer) error {
	var state struct {
		Ready, Draining bool
		Store, Bus      string
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(&state); err != nil || state.Store == "" {
		return fmt.Errorf("ask for health: /readyz answers %s, without the state of the server", resp.Status)
	}
	if resp.StatusCode == http.StatusOK {
		if state.Bus != "up" {
			_, _ = fmt.Fprintln(notes, "rejoin: the bus is down: no event is lost, but events of other nodes come later")
		}
		return nil
	}
	var why []string
	if state.Draining {
		why = append(why, "the server is stopping")
	}
	if state.Store != "up" {
		why = append(why, "the store is down")
	}
	if state.Bus != "up" {
		why = append(why, "the bus is down")
	}
	return fmt.Errorf("not ready: %s (/readyz answers %s)", strings.Join(why, ", "), resp.Status)
}
