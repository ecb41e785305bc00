package postgres

import (
	"context"
	"errors"
	"maps"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// How long a server may be silent before its connection counts as dead.
const silence = 30 * time.Second

// parse parses the URL. Its errors do not repeat any of the URL: a password may be
// anywhere in one that cannot be parsed.
func parse(url string, o Options) (*pgxpool.Config, error) {
	if _, rest, ok := strings.Cut(url, "://"); ok {
		// A part of the password would be taken for a host or a database, which errors
		// name.
		authority := rest[:max(0, strings.IndexAny(rest+"/", "/?#"))]
		if strings.Count(rest, "@") != strings.Count(authority, "@") || strings.Count(authority, "@") > 1 {
			return nil, errors.New("the URL has an @ where none can be: in a name or a password write %40 for @, %2F for /, %3F for ?")
		}
	}
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, errors.New("the URL, or a file that it names, cannot be read; a URL looks like postgres://user:password@host:5432/database?sslmode=verify-full")
	}
	c := config.ConnConfig
	c.ConnectTimeout = o.ConnectTimeout
	c.DialFunc = dial
	// Results are decoded in the binary format of prepared statements, so the URL
	// cannot choose another mode.
	c.DefaultQueryExecMode, c.StatementCacheCapacity = pgx.QueryExecModeCacheStatement, 128
	// A standby answers with old rows and does not report that.
	c.ValidateConnect = refuseStandby
	if c.RuntimeParams["application_name"] == "" {
		c.RuntimeParams["application_name"] = "rejoin"
	}
	maps.Copy(c.RuntimeParams, map[string]string{
		"client_encoding":                     "UTF8",
		"statement_timeout":                   milliseconds(o.StatementTimeout),
		"lock_timeout":                        milliseconds(o.LockTimeout),
		"idle_in_transaction_session_timeout": milliseconds(o.LockTimeout + 5*time.Second),
		// With these, the server notices that this node has vanished.
		"tcp_keepalives_idle":     "10",
		"tcp_keepalives_interval": "5",
		"tcp_keepalives_count":    "4",
		"tcp_user_timeout":        milliseconds(silence),
	})
	return config, nil
}

// poolConfig returns the configuration of one of the pools.
func (s *Store) poolConfig(base *pgxpool.Config, conns int, name string) *pgxpool.Config {
	config := base.Copy()
	config.ConnConfig.RuntimeParams["application_name"] += " " + name
	// Every statement here follows an index, and planning one again would take as long as
	// running it. Left to itself, the planner, which knows each table as it was last
	// analyzed, sometimes reads all of a feed to return one page.
	maps.Copy(config.ConnConfig.RuntimeParams, map[string]string{
		"plan_cache_mode": "force_generic_plan", "jit": "off",
		"enable_seqscan": "off", "enable_bitmapscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off",
	})
	if name == "news" {
		// A notification holds a lock of the whole server until it is committed, and there is
		// nothing else in these transactions to lose.
		config.ConnConfig.RuntimeParams["synchronous_commit"] = "off"
	}
	if name == "queue" {
		config.ConnConfig.RuntimeParams["idle_in_transaction_session_timeout"] = milliseconds(drainIdle)
	}
	config.MaxConns = int32(conns)
	config.MinConns, config.MinIdleConns = 0, 0
	config.MaxConnLifetime, config.MaxConnLifetimeJitter = time.Hour, 10*time.Minute
	config.MaxConnIdleTime = 10 * time.Minute
	// A connection that died while idle fails at its first use, which is then repeated:
	// a ping before each use would cost a round trip.
	config.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return false }
	config.AfterConnect = func(ctx context.Context, c *pgx.Conn) error {
		if name == "publish" || name == "keep" || name == "queue" {
			if _, err := c.Exec(ctx, query("keep_commits_durable"), pgx.QueryExecModeSimpleProtocol); err != nil {
				return err
			}
		}
		return s.identify(ctx, c)
	}
	return config
}

// refuseStandby refuses a server that is in recovery.
func refuseStandby(ctx context.Context, c *pgconn.PgConn) error {
	switch c.ParameterStatus("in_hot_standby") {
	case "off":
		return nil
	case "on":
		return pgconn.ErrStandbyConnection
	default: // before version 14
		return pgconn.ValidateConnectTargetSessionAttrsPrimary(ctx, c)
	}
}

// dial makes a network connection that notices within the time silence that the other
// side has vanished, whether it is reading or writing.
func dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 4},
	}
	if strings.HasPrefix(network, "tcp") {
		d.Control = limitSilence
	}
	return d.DialContext(ctx, network, address)
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(max(1, d.Milliseconds()), 10) }
