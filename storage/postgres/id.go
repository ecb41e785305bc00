package postgres

import (
	"context"
	"fmt"
	"hash/fnv"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// ID implements [feed.Store]. It is that of the server that the newest connection
// leads to, and another after every start of that server: what it holds may have
// been set back, or be a copy.
func (s *Store) ID() string { return *s.id.Load() }

// row is the result of the query get_store_id.
type row interface{ Scan(dest ...any) error }

// readID returns the id of the store in a database, different for each copy.
func readID(r row) (string, error) {
	var id, mark string
	if err := r.Scan(&id, &mark); err != nil {
		return "", fmt.Errorf("read store id: %w", err)
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(mark))
	return id + "-" + strconv.FormatUint(h.Sum64(), 36), nil
}

// identify reads the id on a new connection. If it has changed, the connections
// that are there lead elsewhere, and are given up.
func (s *Store) identify(ctx context.Context, c *pgx.Conn) error {
	id, err := readID(c.QueryRow(ctx, query("get_store_id"), pgx.QueryExecModeSimpleProtocol))
	if err != nil {
		return err
	}
	if before := s.id.Swap(&id); *before != id {
		s.epoch.Add(1)
		for _, pool := range s.pools() {
			pool.Reset()
		}
	}
	return nil
}

func (s *Store) pools() []*pgxpool.Pool {
	return []*pgxpool.Pool{s.publish, s.replay, s.verify, s.keep}
}

// String returns where the store is.
func (s *Store) String() string { return location(s.config) }

// Location returns where the database of a URL for [Open] is, without names and
// passwords.
func Location(url string) string {
	config, err := parse(url, Options{}.withDefaults())
	if err != nil {
		return "postgres"
	}
	return location(config.ConnConfig)
}

func location(c *pgx.ConnConfig) string {
	hosts := []string{hostPort(c.Host, c.Port)}
	for _, f := range c.Fallbacks {
		// A host is there twice if TLS is tried first.
		if h := hostPort(f.Host, f.Port); h != hosts[len(hosts)-1] {
			hosts = append(hosts, h)
		}
	}
	return "postgres://" + strings.Join(hosts, ",") + "/" + url.PathEscape(c.Database)
}

func hostPort(host string, port uint16) string {
	if strings.HasPrefix(host, "/") {
		return url.PathEscape(host) + ":" + strconv.Itoa(int(port)) // of a socket
	}
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}
