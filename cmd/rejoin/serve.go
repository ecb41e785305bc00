package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server"
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
func runNode(ctx context.Context, c Config, logger *slog.Logger) error {
	// A thread that waits for the disk in fdatasync, as SQLite's does, holds its
	// processor until the runtime takes it away. With one, every stream waits for
	// the disk. Where nothing waits so, a second one on one core only costs.
	if runtime.GOMAXPROCS(0) < 2 && strings.HasPrefix(c.Store.URL, "sqlite:") {
		runtime.GOMAXPROCS(2)
	}
	guards, err := openGuards(ctx, c, logger)
	if err != nil {
		return err
	}
	defer guards.close()
	store, absent := openStore(ctx, c.Store.URL)
	if absent != nil && !isNotYet(absent) {
		return absent
	}
	listeners, err := listenAll(ctx, c)
	if err != nil {
		if store != nil {
			err = errors.Join(err, store.Close())
		}
		return err
	}
	return listeners.serve(ctx, store, absent, c, guards, logger)
}

// listeners is what a node listens with.
type listeners struct {
	public, admin net.Listener // admin may be nil
}

func listenAll(ctx context.Context, c Config) (l listeners, err error) {
	if l.public, err = listen(ctx, c.Listen, c.Subscribe.WriteTimeout); err != nil {
		return l, err
	}
	if c.Admin.Listen != "off" {
		if l.admin, err = listen(ctx, c.Admin.Listen, c.Subscribe.WriteTimeout); err != nil {
			return l, errors.Join(fmt.Errorf("admin: %w", err), l.public.Close())
		}
	}
	return l, nil
}

func (l listeners) close() error {
	err := l.public.Close()
	if l.admin != nil {
		err = errors.Join(err, l.admin.Close())
	}
	return err
}

// lateHandler is a handler that is known later than its address.
type lateHandler struct{ atomic.Pointer[http.Handler] }

func (h *lateHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	(*h.Load()).ServeHTTP(w, r)
}

func (h *lateHandler) set(handler http.Handler) { h.Store(&handler) }

// serve answers requests until ctx ends and those in progress are answered. If
// store is nil, it waits for it; absent is why it is.
func (l listeners) serve(ctx context.Context, store feed.Store, absent error, c Config, guards guards, logger *slog.Logger) error {
	var public, admin lateHandler
	public.set(server.Waiting(c.CORS.Origins))
	admin.set(adminHandler(nil))
	httpServer := newHTTPServer(c.publicHosts(l.public.Addr(), &public), logger)
	guards.secure(httpServer, c.Subscribe.WriteTimeout)
	adminServer := newHTTPServer(&admin, logger)
	if l.admin != nil {
		adminServer.Handler = c.adminHosts(l.admin.Addr(), &admin)
	}
	var n *node
	open := func(store feed.Store) (err error) {
		if n, err = openNode(store, c, guards.verifier, logger); err != nil {
			return err
		}
		paceCollector(c.Limits.Memory, func() int { return n.feeds.Hub.Stats().Subscribers })
		admin.set(adminHandler(server.Metrics(n.sources())))
		public.set(n.server)
		return nil
	}
	if store != nil {
		if err := open(store); err != nil {
			return errors.Join(err, l.close())
		}
	}
	logger.Info("listening", "address", l.public.Addr().String(), "url", c.TLS.scheme()+urlOf(l.public.Addr()), "version", currentVersion())
	if host, _, _ := net.SplitHostPort(c.Listen); !loopback(host) && c.Auth.Mode == "none" {
		logger.Warn("anyone who reaches this address may read and publish everything: auth.mode is none")
	}

	secure := guards.certificate != nil
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return serveHTTP(httpServer, l.public, secure) })
	if l.admin != nil {
		logger.Info("listening for operators", "address", l.admin.Addr().String(), "metrics", "http:"+urlOf(l.admin.Addr())+"/metrics")
		group.Go(func() error { return serveHTTP(adminServer, l.admin, false) })
	}
	group.Go(func() (err error) {
		defer func() { err = errors.Join(err, adminServer.Close(), httpServer.Close()) }()
		if n == nil {
			store, err := awaitStore(ctx, c.Store.URL, absent, logger)
			if err != nil {
				return ignoreEnd(ctx, err)
			}
			if err := open(store); err != nil {
				return err
			}
			logger.Info("the store is there")
		}
		defer func() { err = errors.Join(err, n.close()) }()
		if !secure { // or no connection is taken from it
			returned := n.server.Returned(httpServer.IdleTimeout)
			group.Go(func() error { return serveHTTP(httpServer, returned, false) })
		}
		<-ctx.Done()
		logger.Info("stopping", "delay", c.Drain.Delay, "window", c.Drain.Window)
		defer logger.Info("stopped")
		return stop(httpServer, n.server, c.Drain)
	})
	return group.Wait()
}

// ignoreEnd returns nil for an error that comes of ctx having ended.
func ignoreEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func newHTTPServer(handler http.Handler, logger *slog.Logger) *http.Server {
	return &http.Server{
		// That handler would wait for a body for ever.
		DisableGeneralOptionsHandler: true,

		Handler:           handler,
		ConnContext:       server.WithConn,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       120 * time.Second,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelWarn),
	}
}

// serveHTTP serves the listener, over TLS if secure: that s.TLSConfig is set says
// nothing once s has served another one.
func serveHTTP(s *http.Server, listener net.Listener, secure bool) error {
	serve := s.Serve
	if secure {
		serve = func(l net.Listener) error { return s.ServeTLS(l, "", "") }
	}
	if err := serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve http: %w", err)
	}
	return nil
}

// adminHandler serves what operators look at. Metrics are nil while there is
// nothing to measure.
func adminHandler(metrics http.Handler) http.Handler {
	mux := http.NewServeMux()
	if metrics != nil {
		mux.Handle("GET /metrics", metrics)
	}
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}

// stopGrace is how long requests may still take when all streams were told to
// end: longer than a slow body may.
const stopGrace = 35 * time.Second

// stop breaks the streams off over the window, after the delay, and returns when
// every request has been answered. Connections are taken until the streams have
// ended: /readyz answers on them, and who comes to a closed port learns nothing.
func stop(httpServer *http.Server, handler *server.Server, drain DrainConfig) error {
	handler.AnnounceDrain()
	time.Sleep(drain.Delay)
	ctx, cancel := context.WithTimeout(context.Background(), drain.Window+stopGrace)
	defer cancel()
	handler.Drain(ctx, drain.Window)
	if err := httpServer.Shutdown(ctx); err != nil {
		return errors.Join(fmt.Errorf("stop http: %w", err), httpServer.Close())
	}
	return nil
}

// urlOf returns an address to open in a browser on this machine, without its
// scheme.
func urlOf(addr net.Addr) string {
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return addr.String()
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return "//" + net.JoinHostPort(host, port)
}
