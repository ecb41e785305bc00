package main

import (
	"context"
	"fmt"
	"net/http"
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
		Args:  usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return health(cmd.Context(), server, ready)
		},
	}
	cmd.Flags().StringVar(&server, "url", defaultURL, "the server")
	cmd.Flags().BoolVar(&ready, "ready", false, "check that it is ready for traffic: its store answers and it is not stopping")
	return cmd
}

func health(ctx context.Context, server string, ready bool) error {
	c, err := newClient(server, client.Options{})
	if err != nil {
		return err
	}
	path := "healthz"
	if ready {
		path = "readyz"
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.URL(path).String(), nil)
	if err != nil {
		return fmt.Errorf("ask for health: %w", err)
	}
	resp, err := c.HTTP().Do(req)
	if err != nil {
		return fmt.Errorf("ask for health: %s", reach.Reason(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("ask for health: /%s answers %s", path, resp.Status)
	}
	return nil
}
