package redis

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"

	goredis "github.com/redis/go-redis/v9"
)

// address is a parsed URL of Redis.
//
//	redis://user:password@host:6379/0
//	redis+sentinel://user:password@host1:26379,host2:26379/master/0
//	redis+cluster://user:password@host1:6379,host2:6379
//
// With rediss in place of redis, TLS is used throughout.
type address struct {
	kind    string // "", "sentinel" or "cluster"
	options goredis.UniversalOptions
}

// errURL does not repeat the URL: any part of one that cannot be parsed may belong to
// a password.
var errURL = errors.New("not a URL such as redis://user:password@host:6379/0 (special characters in a password are percent-encoded)")

func parseURL(raw string, config *tls.Config) (*address, error) {
	scheme, rest, ok := strings.Cut(raw, "://")
	if !ok {
		return nil, errURL
	}
	secure, kind, _ := strings.Cut(scheme, "+")
	if secure != "redis" && secure != "rediss" || kind != "" && kind != "sentinel" && kind != "cluster" || strings.HasSuffix(scheme, "+") {
		return nil, errors.New("unknown scheme: use redis or rediss, with +sentinel or +cluster if needed")
	}
	// net/url does not parse several hosts: one stands in for them.
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	at := strings.LastIndex(rest[:end], "@") + 1
	u, err := url.Parse("redis://" + rest[:at] + "host" + rest[end:])
	if err != nil || u.Fragment != "" || u.Host != "host" {
		return nil, errURL
	}
	a := &address{kind: kind}
	a.options.Username = u.User.Username()
	a.options.Password, _ = u.User.Password()
	if secure == "rediss" {
		a.options.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
		if config != nil {
			a.options.TLSConfig = config.Clone()
		}
	}
	if err := a.hosts(rest[at:end]); err != nil {
		return nil, err
	}
	if err := a.path(u.Path); err != nil {
		return nil, err
	}
	return a, a.query(u.Query())
}

// String returns the URL without names, passwords and parameters.
func (a *address) String() string {
	s := "redis"
	if a.options.TLSConfig != nil {
		s += "s"
	}
	if a.kind != "" {
		s += "+" + a.kind
	}
	s += "://" + strings.Join(a.options.Addrs, ",")
	if a.kind == "sentinel" {
		s += "/" + url.PathEscape(a.options.MasterName)
	}
	return s
}

func (a *address) hosts(list string) error {
	port := "6379"
	if a.kind == "sentinel" {
		port = "26379"
	}
	for host := range strings.SplitSeq(list, ",") {
		if h, p, err := net.SplitHostPort(host); err == nil {
			if n, err := strconv.ParseUint(p, 10, 16); err != nil || n == 0 || h == "" {
				return errURL
			}
		} else {
			host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
			if host == "" || strings.Contains(host, ":") && net.ParseIP(host) == nil {
				return errURL
			}
			host = net.JoinHostPort(host, port)
		}
		a.options.Addrs = append(a.options.Addrs, host)
	}
	if a.kind == "" && len(a.options.Addrs) > 1 {
		return errors.New("several hosts need the scheme redis+sentinel or redis+cluster")
	}
	return nil
}

// path reads the name of the master, for Sentinel, and the database.
func (a *address) path(path string) error {
	database := strings.Trim(path, "/")
	if a.kind == "sentinel" {
		a.options.MasterName, database, _ = strings.Cut(database, "/")
		if a.options.MasterName == "" {
			return errors.New("the name of the master is missing: redis+sentinel://host:26379/master")
		}
	}
	if database == "" {
		return nil
	}
	n, err := strconv.ParseUint(database, 10, 31)
	if err != nil {
		return errors.New("the database is not a number")
	}
	if a.kind == "cluster" && n != 0 {
		return errors.New("a cluster has no other database than 0")
	}
	a.options.DB = int(n)
	return nil
}

func (a *address) query(query url.Values) error {
	for key, values := range query {
		value := values[len(values)-1]
		switch {
		case key == "sentinel_username" && a.kind == "sentinel":
			a.options.SentinelUsername = value
		case key == "sentinel_password" && a.kind == "sentinel":
			a.options.SentinelPassword = value
		case key == "skip_verify" && a.options.TLSConfig != nil:
			skip, err := strconv.ParseBool(value)
			if err != nil {
				return errors.New("skip_verify is true or false")
			}
			a.options.TLSConfig.InsecureSkipVerify = skip
		default:
			return fmt.Errorf("unknown parameter %q", key)
		}
	}
	return nil
}
