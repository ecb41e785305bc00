package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server"
	"github.com/rejoin/rejoin/server/auth"
)

func newServeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve feeds",
		Long: `Serve serves feeds until it gets an interrupt or SIGTERM.

A file can set everything: config.yaml has every key, its default and its meaning.
So can the environment: REJOIN_ and the key in capitals with _ for the dot, such
as REJOIN_STORE_URL. The environment overrides the file, and flags override both.
A running server reads a changed file again, and at SIGHUP; docs/running.md lists the
keys that then count.

Without settings, it listens on 127.0.0.1:8080, needs no tokens and keeps its events
in rejoin.db in this directory. The console is at the address that it listens on.`,
		Example: `  rejoin serve
  rejoin serve --demo
  rejoin serve --listen 127.0.0.1:9000 --store sqlite:/var/lib/rejoin/events.db
  rejoin serve --store postgres://rejoin@db.internal/rejoin --bus postgres
  rejoin serve --config /etc/rejoin.yaml`,
		SuggestFor: []string{"server", "start", "run"},
		Args:       noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r := &reloader{flags: cmd.Flags()}
			if err := r.load(); err != nil {
				return err
			}
			return runNode(cmd.Context(), r, newLogHandler(r.running.config.Log, cmd.ErrOrStderr()))
		},
	}
	configFlags(cmd)
	cmd.Flags().Bool("demo", DefaultConfig().Server.Demo, "serve the demo at /demo (server.demo)")
	return cmd
}

// configFlags adds the flags that [Load] reads.
func configFlags(cmd *cobra.Command) {
	defaults := DefaultConfig()
	flags := cmd.Flags()
	flags.String("config", "", "the configuration file (or REJOIN_CONFIG)")
	flags.String("listen", defaults.Listen, "the address to listen on; port 0 picks a free one")
	flags.String("store", defaults.Store.URL, "where events are kept: sqlite:PATH or a postgres URL (store.url)")
	flags.String("bus", defaults.Bus.URL, "how nodes notify each other of events: memory, postgres or a redis URL (bus.url)")
	flags.String("auth", defaults.Auth.Mode, "who decides about requests: none, jwt or forward (auth.mode)")
}

// serving is one run of rejoin serve. It listens, opens a node once the store can
// be reached, and in the end drains and closes.
type serving struct {
	config   Config // at the start
	logs     *logHandler
	logger   *slog.Logger
	security security
	retired  sync.WaitGroup // authorizers that are about to be closed
	risks    []string       // that have been warned of
	refusals *server.Refusals

	public, admin *endpoint            // admin is nil if it is off
	node          *node                // nil until the store has been reached
	opened        atomic.Pointer[node] // the same, for connections
}

// runNode serves until ctx ends and the requests in progress are answered.
func runNode(ctx context.Context, r *reloader, logs *logHandler) error {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	c, logger := r.running.config, slog.New(logs)
	// A thread that waits for the disk in fdatasync, as SQLite's does, holds its
	// processor until the runtime takes it away. With one, every stream waits for
	// the disk. Where nothing waits so, a second one on one core only costs.
	if runtime.GOMAXPROCS(0) < 2 && strings.HasPrefix(c.Store.URL, "sqlite:") {
		runtime.GOMAXPROCS(2)
	}
	secured, err := openSecurity(ctx, c, logger)
	if err != nil {
		return err
	}
	s := &serving{config: c, logs: logs, logger: logger, security: secured, refusals: server.NewRefusals(logger, c.Server.proxies())}
	defer func() { s.security.close() }()
	store, absent := openStore(ctx, c, logger)
	if absent != nil && !isNotYet(absent) {
		return absent
	}
	if err := s.listen(ctx); err != nil {
		if store != nil {
			err = errors.Join(err, store.Close())
		}
		return err
	}
	if store != nil {
		if err := s.open(ctx, store); err != nil {
			return errors.Join(err, s.close())
		}
	}
	r.logger, r.apply = logger, s.reconfigure
	return s.run(ctx, absent, func(ctx context.Context) { r.run(ctx, hangups) })
}

// listen opens the addresses. Until a node is open, [server.Waiting] answers.
func (s *serving) listen(ctx context.Context) error {
	c := s.config
	listener, err := listen(ctx, c.Listen, c.Subscribe.WriteTimeout)
	if err != nil {
		return err
	}
	s.public = newEndpoint(listener, s.logger)
	s.setPublic(c, server.Waiting(server.Options{
		BasePath: c.Server.basePath(), Console: pages(c), Origins: c.CORS.Origins, Refusals: s.refusals,
	}))
	s.security.secure(s.public.server, c.Subscribe.WriteTimeout)
	if s.security.certificate == nil && c.Server.HTTP2 == "engine" {
		server.AcceptHTTP2(s.public.server, s.takeHTTP2)
	}
	if c.Admin.Listen == "off" {
		return nil
	}
	if listener, err = listen(ctx, c.Admin.Listen, c.Subscribe.WriteTimeout); err != nil {
		return errors.Join(fmt.Errorf("admin: %w", err), s.public.close())
	}
	s.admin = newEndpoint(listener, s.logger)
	s.admin.set(adminHandler(server.Metrics(server.Sources{Refusals: s.refusals, Version: currentVersion()})))
	s.admin.server.Handler = c.adminHosts(listener.Addr(), s.refusals, s.admin)
	return nil
}

// setPublic installs the handler of the public address.
func (s *serving) setPublic(c Config, handler http.Handler) {
	s.public.set(c.publicHosts(s.public.listener.Addr(), s.refusals, handler))
}

// open opens a node on store, which it owns from here on, and installs its handlers.
func (s *serving) open(ctx context.Context, store feed.Store) error {
	n, err := openNode(ctx, store, s.config, s.security.authorizer, s.refusals, s.logger)
	if err != nil {
		return err
	}
	s.node = n
	s.pace(s.config.Limits.Memory)
	if s.admin != nil {
		s.admin.set(adminHandler(server.Metrics(n.sources())))
	}
	s.setPublic(s.config, n.server)
	s.logNode()
	s.opened.Store(n)
	return nil
}

func (s *serving) pace(memory int) {
	paceCollector(memory, s.node.server.Subscribers)
}

// authorizerGrace is how long the requests in progress may still need an authorizer that
// has been replaced: longer than a fetch of keys takes.
const authorizerGrace = 15 * time.Second

// reconfigure takes over from c what a running server can. It changes nothing if it
// returns an error. If newKeys is set, the keys may have changed that verify tokens.
func (s *serving) reconfigure(ctx context.Context, c Config, newKeys bool) error {
	authorizer := s.security.authorizer
	if newKeys {
		if c.Auth.Mode == "jwt" {
			// At a start, the server waits for keys. Here it has some that work.
			if err := auth.Check(ctx, c.Auth.JWT.options(s.logger)); err != nil {
				return fmt.Errorf(jwtKey+"%w", err)
			}
		}
		var err error
		if authorizer, err = openAuthorizer(ctx, c.Auth, s.logger); err != nil {
			return err
		}
	}
	if err := s.node.reconfigure(c, authorizer, s.logger); err != nil {
		return err
	}
	s.setPublic(c, s.node.server)
	s.logs.configure(c.Log)
	s.pace(c.Limits.Memory)
	s.warnRisks(c)
	if !newKeys {
		return nil
	}
	old := s.security.authorizer
	s.security.authorizer = authorizer
	s.retired.Go(func() {
		select {
		case <-time.After(authorizerGrace):
		case <-ctx.Done():
		}
		closeAuthorizer(old)
	})
	return nil
}

// run answers requests until ctx ends and those in progress are answered. Without
// a node, it waits for the store; absent is why there is none. Once there is a node, it
// runs reload until ctx ends.
func (s *serving) run(ctx context.Context, absent error, reload func(context.Context)) error {
	s.logAddresses()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		return serveHTTP(s.public.server, s.security.over(s.public.listener, s.takeHTTP2, s.logger))
	})
	if s.admin != nil {
		group.Go(func() error { return serveHTTP(s.admin.server, s.admin.listener) })
	}
	group.Go(func() error {
		returnMemory(ctx)
		return nil
	})
	group.Go(func() (err error) {
		defer func() { err = errors.Join(err, s.close()) }()
		if s.node == nil {
			store, err := awaitStore(ctx, s.config, absent, s.logger)
			if err != nil {
				return ignoreEnd(ctx, err)
			}
			if err := s.open(ctx, store); err != nil {
				return err
			}
		}
		group.Go(func() error {
			s.logPeers(ctx)
			return nil
		})
		returned := s.node.server.Returned(s.public.server.IdleTimeout)
		group.Go(func() error { return serveHTTP(s.public.server, returned) })
		reload(ctx)
		s.retired.Wait()
		return s.drain()
	})
	return group.Wait()
}

// drainGrace is how long requests may still take when all streams have been ended:
// longer than a slow body may.
const drainGrace = 35 * time.Second

// drain breaks the streams off over the window, after the delay, and returns when
// every request has been answered. Connections are taken until the streams have
// ended: /readyz answers on them, and a client of a closed port learns nothing.
func (s *serving) drain() error {
	drain := s.config.Drain
	s.node.server.AnnounceDrain()
	s.logger.Info("stopping", "delay", drain.Delay, "window", drain.Window)
	defer s.logger.Info("stopped")
	time.Sleep(drain.Delay)
	ctx, cancel := context.WithTimeout(context.Background(), drain.Window+drainGrace)
	defer cancel()
	s.node.server.Drain(ctx, drain.Window)
	stopped := make(chan error, 1)
	go func() { stopped <- s.node.server.ShutdownHTTP2(ctx) }()
	err := s.public.server.Shutdown(ctx)
	if err = errors.Join(err, <-stopped); err != nil {
		return errors.Join(fmt.Errorf("stop http: %w", err), s.public.server.Close())
	}
	return nil
}

// close closes the node with its store, and then the addresses.
func (s *serving) close() (err error) {
	if s.node != nil {
		err = s.node.close()
	}
	if s.admin != nil {
		err = errors.Join(err, s.admin.close())
	}
	return errors.Join(err, s.public.close())
}

// endpoint is an address and its server, whose handler may change.
type endpoint struct {
	listener net.Listener
	server   *http.Server
	handler  atomic.Pointer[http.Handler]
}

func newEndpoint(listener net.Listener, logger *slog.Logger) *endpoint {
	e := &endpoint{listener: listener}
	e.server = newHTTPServer(e, logger)
	return e
}

func (e *endpoint) set(handler http.Handler) { e.handler.Store(&handler) }

func (e *endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	(*e.handler.Load()).ServeHTTP(w, r)
}

// close also closes a listener that the server has not served yet.
func (e *endpoint) close() error {
	err := e.server.Close()
	if lerr := e.listener.Close(); !errors.Is(lerr, net.ErrClosed) {
		err = errors.Join(err, lerr)
	}
	return err
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
		ErrorLog:          newHTTPLog(logger),
	}
}

// takeHTTP2 lets the node serve an HTTP/2 connection. It reports false if net/http has to.
func (s *serving) takeHTTP2(conn net.Conn) bool {
	n := s.opened.Load()
	return s.config.Server.HTTP2 == "engine" && n != nil && n.server.ServeHTTP2(s.public.server, conn)
}

func serveHTTP(s *http.Server, listener net.Listener) error {
	if err := s.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve http: %w", err)
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

// listen listens on address. A peer that stops acknowledging what it is sent,
// because it is gone without a word, is closed after timeout; the kernel
// alone would take a quarter of an hour.
func listen(ctx context.Context, address string, timeout time.Duration) (net.Listener, error) {
	config := net.ListenConfig{Control: giveUpAfter(timeout), KeepAlive: acceptedKeepAlive}
	// Multipath TCP, Go's default, does not have the option.
	config.SetMultipathTCP(false)
	listener, err := config.Listen(ctx, "tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("listen: %w; is Rejoin running already?", err)
	case err != nil:
		return nil, fmt.Errorf("listen: %w", err)
	}
	return listener, nil
}
