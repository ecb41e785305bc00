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

// ID implements [feed.Store]. It belongs to the server of the newest connection, and
// changes with every start of that server, because its data may then have been set
// back, or be a copy.
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

// identify reads the id on a new connection. If it has changed, the older connections
// lead to another server, and are closed.
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
	return []*pgxpool.Pool{s.publish, s.replay, s.verify, s.keep, s.news, s.queue}
}

// String returns the location of the store.
func (s *Store) String() string { return location(s.config) }

// Location returns the location of the database of a URL for [Open], without names
// and passwords.
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
		// A host appears twice if TLS is tried first.
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
