package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/storage/testserver"
)

// ignoresSettings is the line that makes a PgBouncer pass over the settings of a session,
// which it cannot pass on.
const ignoresSettings = "ignore_startup_parameters = extra_float_digits, statement_timeout, lock_timeout, idle_in_transaction_session_timeout," +
	" tcp_keepalives_idle, tcp_keepalives_interval, tcp_keepalives_count, tcp_user_timeout, plan_cache_mode, jit," +
	" enable_seqscan, enable_bitmapscan, enable_hashjoin, enable_mergejoin, synchronous_commit"

// TestPooler starts nodes whose store or bus is behind a PgBouncer in transaction mode.
// They end at once, and their errors name it, the key of the configuration, and what to
// do. An application can go through it.
func TestPooler(t *testing.T) {
	t.Parallel()
	p := testserver.StartPostgres(t)
	for name, settings := range map[string][]string{"settings refused": nil, "settings ignored": {ignoresSettings}} {
		t.Run(name, func(t *testing.T) {
			pooler := testserver.StartPgBouncer(t, p, settings...)
			t.Run("store", func(t *testing.T) {
				store := p.NewDatabase(t)
				demandEnds(t, pooler.URL(store), "memory", "store", "PgBouncer", "connect to Postgres itself")
			})
			t.Run("bus", func(t *testing.T) {
				store := p.NewDatabase(t)
				demandEnds(t, store, pooler.URL(store), "bus.url", "PgBouncer", "connect to Postgres itself")
			})
		})
	}
	t.Run("application", func(t *testing.T) {
		c := newClusterOn(t, p.NewDatabase(t))
		testPooledApplication(t, c, testserver.StartPgBouncer(t, p, ignoresSettings).URL(c.store))
	})
}

// demandEnds demands of a node that it ends by itself, with an error that has the words.
func demandEnds(t *testing.T, store, bus string, words ...string) {
	t.Helper()
	cmd := exec.Command(built(t, false), "serve", "--listen", "127.0.0.1:0", "--store", store, "--bus", bus)
	cmd.Env = os.Environ()
	p := launch(t, cmd)
	if err := p.wait(); err == nil {
		t.Error("the node ended without an error")
	}
	lines := p.log.lines()
	for _, word := range words {
		if len(lines) == 0 || !strings.Contains(lines[len(lines)-1], word) {
			t.Errorf("the error does not name %q:\n%s", word, p.log)
		}
	}
	t.Logf("%s", p.log)
}

// testPooledApplication appends and enqueues through a pooler that the nodes do not use.
func testPooledApplication(t *testing.T, c *cluster, pooled string) {
	c.start(2, "REJOIN_BUS_VERIFY=1m")
	c.follow("chat", 1, c.nodes...)
	config, err := pgx.ParseConfig(pooled)
	if err != nil {
		t.Fatal(err)
	}
	config.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol // what a pooler in transaction mode wants
	app, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close(context.Background())
	began := time.Now()
	for i := 1; i <= 20; i += 2 {
		var id feed.ID
		if err := app.QueryRow(t.Context(), "SELECT rejoin_append_text('chat', NULL, $1)", fmt.Sprintf("%d appended", i)).Scan(&id); err != nil {
			t.Fatal(err)
		}
		if id != feed.ID(i) {
			t.Errorf("rejoin_append returned %d, want %d", id, i)
		}
		if _, err := app.Exec(t.Context(), "SELECT rejoin_enqueue_text('chat', NULL, $1)", fmt.Sprintf("%d enqueued", i+1)); err != nil {
			t.Fatal(err)
		}
		c.await("chat", feed.ID(i+1), promptly)
	}
	// A node that is not notified looks at the queue every five seconds.
	if took := time.Since(began); took > 25*time.Second {
		t.Errorf("ten events, one after the other, took %v", took)
	}
	if f := c.verdict("chat"); f.reconnects > 0 {
		t.Errorf("streams were cut: %v", f)
	}
	for i, e := range c.readFeed("chat").Events {
		if !strings.HasPrefix(e.Data, fmt.Sprintf("%d ", i+1)) {
			t.Errorf("event %d is %q", i+1, e.Data)
		}
	}
}
