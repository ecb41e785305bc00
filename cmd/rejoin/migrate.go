package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rejoin/rejoin/storage/postgres"
	"github.com/rejoin/rejoin/storage/sqlite"
)

func newMigrateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Show or run the migrations of the store",
		Long: `A server migrates its store when it starts. Migrate does the same before that, or
shows what a start would do. It reads the configuration as serve does.`,
		Example: `  rejoin migrate status --config /etc/rejoin.yaml
  rejoin migrate up --config /etc/rejoin.yaml`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	status := &cobra.Command{
		Use:   "status",
		Short: "Show the version of the schema, and which migrations are pending",
		Long: `Status shows the version of the store's schema, the newest one that this program
knows, and the migrations in between. It changes nothing.`,
		Example: `  rejoin migrate status --store postgres://rejoin@db.internal/rejoin`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := Load(cmd.Flags())
			if err != nil {
				return err
			}
			return migrateStatus(cmd.Context(), c, cmd.OutOrStdout())
		},
	}
	up := &cobra.Command{
		Use:   "up",
		Short: "Run the pending migrations",
		Long: `Up runs the pending migrations, and prints each. Several of them, and servers that
start at the same time, wait for each other in Postgres. With SQLite, no server may
have the file open.`,
		Example: `  rejoin migrate up --store postgres://rejoin@db.internal/rejoin`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := Load(cmd.Flags())
			if err != nil {
				return err
			}
			return migrateUp(cmd.Context(), c, cmd.OutOrStdout())
		},
	}
	configFlags(status)
	configFlags(up)
	cmd.AddCommand(status, up)
	return cmd
}

// schema compares the schema of a store with the migrations of this program.
type schema struct {
	Version, Newest int64
	Pending         []string
}

func readSchema(ctx context.Context, c Config) (schema, error) {
	if path, ok := strings.CutPrefix(c.Store.URL, "sqlite:"); ok {
		s, err := sqlite.Status(ctx, path)
		return schema(s), err
	}
	s, err := postgres.Status(ctx, c.Store.URL, postgresOptions(c, slog.New(slog.DiscardHandler)))
	return schema(s), err
}

func migrateStatus(ctx context.Context, c Config, out io.Writer) error {
	s, err := readSchema(ctx, c)
	if err != nil {
		return fmt.Errorf("migrate status: %w", err)
	}
	_, err = fmt.Fprintf(out, "store    %s\nschema   version %d\nprogram  knows versions up to %d\npending  %s\n",
		storeAt(c.Store.URL), s.Version, s.Newest, s.pending())
	return err
}

func (s schema) pending() string {
	if len(s.Pending) == 0 {
		return "nothing"
	}
	return strings.Join(s.Pending, ", ")
}

func migrateUp(ctx context.Context, c Config, out io.Writer) error {
	var ran []string
	var err error
	if path, ok := strings.CutPrefix(c.Store.URL, "sqlite:"); ok {
		ran, err = sqlite.Migrate(ctx, path)
	} else {
		ran, err = postgres.Migrate(ctx, c.Store.URL, postgresOptions(c, slog.New(slog.DiscardHandler)))
	}
	for _, name := range ran {
		fmt.Fprintln(out, "migrated", name)
	}
	if err != nil {
		return fmt.Errorf("migrate up: %w", err)
	}
	if len(ran) == 0 {
		fmt.Fprintln(out, "nothing to migrate")
	}
	return nil
}
