package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server"
	"github.com/rejoin/rejoin/storage/memory"
	"github.com/rejoin/rejoin/storage/sqlite"
	"github.com/rejoin/rejoin/web"
)

func newServeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve feeds",
		Long: `Serve serves feeds until it is interrupted.

Everything can be set in a file (config.yaml has every key and what it means),
and in the environment: REJOIN_ and the key in capitals with _ for the dot, such
as REJOIN_STORE_URL. Flags win, then the environment, then the file.`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := Load(cmd.Flags())
			if err != nil {
				return err
			}
			return runNode(cmd.Context(), c, newLogger(c.Log, cmd.ErrOrStderr()))
		},
	}
	defaults := DefaultConfig()
	flags := cmd.Flags()
	flags.String("config", "", "the configuration file (or REJOIN_CONFIG)")
	flags.String("listen", defaults.Listen, "the address to listen on; port 0 picks a free one")
	flags.String("store", defaults.Store.URL, "where events are kept (store.url)")
	flags.String("bus", defaults.Bus.URL, "how nodes tell each other of events (bus.url)")
	flags.String("auth", defaults.Auth.Mode, "who may read and publish (auth.mode)")
	return cmd
}

func newLogger(c LogConfig, w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: c.SlogLevel()}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// runNode runs one node until ctx ends, and stops it in order: what takes
// requests before what answers them, the store last.
func runNode(ctx context.Context, c Config, logger *slog.Logger) (err error) {
	// A thread that waits for the disk in fdatasync holds its processor until
	// the runtime takes it away. With one, every stream waits for the disk.
	if runtime.GOMAXPROCS(0) < 2 {
		runtime.GOMAXPROCS(2)
	}

	store, err := sqlite.Open(ctx, c.StorePath())
	if err != nil {
		return err
	}
	defer closing(&err, "store", store.Close)
	bus := memory.NewBus()
	defer closing(&err, "bus", bus.Close)
	hub := feed.NewHub(store, bus, feed.HubOptions{Verify: c.Bus.Verify, Logger: logger})
	defer hub.Close()
	publisher := feed.NewPublisher(store, hub, bus, feed.PublisherOptions{EventBytes: c.Limits.EventBytes, Logger: logger})
	defer publisher.Close()

	listener, err := listen(ctx, c.Listen, c.Subscribe.WriteTimeout)
	if err != nil {
		return err
	}
	return answer(ctx, listener, c, logger, server.New(hub, publisher, server.Options{
		Heartbeat:    c.Subscribe.Heartbeat,
		Retry:        c.Subscribe.Retry,
		WriteTimeout: c.Subscribe.WriteTimeout,
		MaxAge:       c.Subscribe.MaxAge,
		EventBytes:   c.Limits.EventBytes,
		Console:      web.Handler(),
		Logger:       logger,
	}))
}

// answer answers requests until ctx ends and those in progress are answered.
func answer(ctx context.Context, listener net.Listener, c Config, logger *slog.Logger, handler *server.Server) error {
	httpServer := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       120 * time.Second,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelWarn),
	}
	logger.Info("listening", "address", listener.Addr().String(), "url", urlOf(listener.Addr()), "version", currentVersion())
	if host, _, _ := net.SplitHostPort(c.Listen); !loopback(host) && c.Auth.Mode == "none" {
		logger.Warn("anyone who reaches this address may read and publish everything: auth.mode is none")
	}

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		if err := httpServer.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve http: %w", err)
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		logger.Info("stopping", "window", c.Drain.Window)
		defer logger.Info("stopped")
		return stop(httpServer, handler, c.Drain.Window)
	})
	return group.Wait()
}

// stopGrace is how long requests may still take when all streams were told to
// end: longer than a slow body may.
const stopGrace = 35 * time.Second

// stop takes no more connections, breaks the streams off over the window and
// returns when every request has been answered.
func stop(httpServer *http.Server, handler *server.Server, window time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), window+stopGrace)
	defer cancel()
	var group errgroup.Group
	group.Go(func() error {
		handler.Drain(ctx, window)
		return nil
	})
	group.Go(func() error {
		if err := httpServer.Shutdown(ctx); err != nil {
			return errors.Join(fmt.Errorf("stop http: %w", err), httpServer.Close())
		}
		return nil
	})
	return group.Wait()
}

// closing closes what, and adds what goes wrong to err.
func closing(err *error, what string, close func() error) {
	if failed := close(); failed != nil {
		*err = errors.Join(*err, fmt.Errorf("close %s: %w", what, failed))
	}
}

// urlOf returns an address to open in a browser on this machine.
func urlOf(addr net.Addr) string {
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return addr.String()
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return "http://" + net.JoinHostPort(host, port)
}
