package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// TestStartLog: the log says what a node works with, in a few lines.
func TestStartLog(t *testing.T) {
	t.Setenv("REJOIN_RETENTION", "feeds=chat:* age=30d events=1000, feeds=news events=5")
	t.Setenv("REJOIN_CORS_ORIGINS", "https://a.example")
	ctx, stop := context.WithCancel(t.Context())
	db := filepath.Join(t.TempDir(), "rejoin.db")
	r := runServe(t, ctx, db)
	stop()
	if code := <-r.exit; code != 0 {
		t.Errorf("exit code %d", code)
	}
	first := startLines(t, db)
	if len(first) > 6 {
		t.Errorf("%d lines: %q", len(first), first)
	}
	want := map[string]map[string]string{
		"the store is open": {"store": "sqlite:" + db, "version": `^SQLite 3\.\d+\.\d+$`, "bus": "memory"},
		"serving":           {"auth": "none", "origins": "https://a.example", "retention": `^chat:\*: 720h0m0s 1000 events; news: 5 events$`},
		"listening":         {"url": `^http://127\.0\.0\.1:\d+$`, "version": "."},
	}
	for _, line := range first {
		msg, _ := line["msg"].(string)
		for key, value := range want[msg] {
			if got, _ := line[key].(string); got != value && !regexp.MustCompile(value).MatchString(got) {
				t.Errorf("%s: %s is %q, want %s", msg, key, got, value)
			}
		}
		if _, again := line["migrated"]; msg == "the store is open" && again {
			t.Errorf("a second start migrates: %v", line)
		}
		delete(want, msg)
	}
	if len(want) > 0 {
		t.Errorf("there is no line %v", want)
	}
}

// startLines starts a server again, and returns what it logs until it has stopped.
func startLines(t *testing.T, db string) (lines []map[string]any) {
	t.Helper()
	t.Setenv("REJOIN_LOG_FORMAT", "json")
	ctx, stop := context.WithCancel(t.Context())
	var log lockedBuffer
	done := make(chan int)
	go func() {
		done <- run(ctx, []string{"serve", "--listen", "127.0.0.1:0", "--store", "sqlite:" + db}, nil, &log, &log)
	}()
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(log.String(), `"listening"`); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(log.String())
		}
	}
	stop()
	<-done
	for text := range strings.Lines(log.String()) {
		var line map[string]any
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatalf("%v in %q", err, text)
		}
		lines = append(lines, line)
	}
	return lines
}

// lockedBuffer collects lines that are written whole, and can be read meanwhile.
type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

// TestRisks: a setting is warned of where it is unsafe, and only there.
func TestRisks(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Config)
		want   []string // words of each risk
	}{
		{"the default", func(*Config) {}, nil},
		{"open to others", func(c *Config) { c.Listen, c.Auth.Written = "0.0.0.0:80", true }, []string{"auth.mode is none"}},
		{"open to pages", func(c *Config) { c.CORS.Origins = []string{"*"} }, []string{"cors.origins is *"}},
		{"tokens, open to pages", func(c *Config) { c.Auth.Mode, c.CORS.Origins = "jwt", []string{"*"} }, nil},
		{"tokens without TLS", func(c *Config) { c.Auth.Mode, c.Listen = "jwt", ":80" }, []string{"unencrypted"}},
		{"tokens on this machine", func(c *Config) { c.Auth.Mode = "jwt" }, nil},
		{"tokens with TLS", func(c *Config) { c.Auth.Mode, c.Listen, c.TLS.Cert = "jwt", ":443", "x" }, nil},
		{"tokens behind a proxy", func(c *Config) { c.Auth.Mode, c.Listen, c.Server.TrustedProxies = "jwt", ":80", []string{"10.0.0.0/8"} }, nil},
		{"keys without TLS", func(c *Config) { c.Auth.Mode, c.Auth.JWT.JWKSURL = "jwt", "http://keys.example/" }, []string{"jwks_url is not https"}},
		{"keys with TLS", func(c *Config) { c.Auth.Mode, c.Auth.JWT.JWKSURL = "jwt", "https://keys.example/" }, nil},
		{"keys of this machine, by address", func(c *Config) { c.Auth.Mode, c.Auth.JWT.JWKSURL = "jwt", "http://127.0.0.1:1/" }, nil},
		{"keys of this machine", func(c *Config) { c.Auth.Mode, c.Auth.JWT.JWKSURL = "jwt", "http://localhost/" }, nil},
		{"operators from anywhere", func(c *Config) { c.Admin.Listen = ":9090" }, []string{"admin.listen"}},
		{"operators of this machine", func(c *Config) { c.Admin.Listen = "127.0.0.1:9090" }, nil},
		{"everybody is a proxy", func(c *Config) { c.Server.TrustedProxies = []string{"0.0.0.0/0", "10.0.0.0/8"} }, []string{"trusted_proxies has 0.0.0.0/0"}},
	} {
		config := DefaultConfig()
		c.change(&config)
		got := config.risks()
		if len(got) != len(c.want) {
			t.Errorf("%s: %q", c.name, got)
			continue
		}
		for i, words := range c.want {
			if !strings.Contains(got[i], words) {
				t.Errorf("%s: %q", c.name, got)
			}
		}
	}
}

// TestNoSecretAtStart: what the start log has of a configuration has no secret in it.
func TestNoSecretAtStart(t *testing.T) {
	c := AuthConfig{Mode: "jwt", JWT: JWTConfig{JWKSURL: "https://user:hunter2@keys.example/jwks?x=hunter2"}}
	if got := c.describe(); got != "jwt, with the keys of keys.example" {
		t.Error(got)
	}
	c.JWT = JWTConfig{Key: "hunter2"}
	if got := c.describe(); got != "jwt, with a key" {
		t.Error(got)
	}
	if got := retained(make([]feed.Rule, 7)); !strings.HasSuffix(got, "; 2 more") {
		t.Error(got)
	}
}

// TestTerminalLog: on a terminal, a line is for a reader, and obeys nobody.
func TestTerminalLog(t *testing.T) {
	var out bytes.Buffer
	logger := slog.New(newLogHandler(LogConfig{Level: "info", Format: "text"}, terminal{&out}))
	logger.Debug("hidden")
	logger = logger.With("store", "sqlite:x.db").WithGroup("g")
	logger.Info("the store is open", "took", time.Second, "error", errors.New("a b=\x1b[2J"), slog.Group("of", "n", 3), "none", "")
	logger.Error("oh\x1b[2J")
	want := regexp.MustCompile(`^\d\d:\d\d:\d\d INFO  the store is open  store=sqlite:x\.db  g\.took=1s  g\.error="a b=\\x1b\[2J"  g\.of\.n=3  g\.none=""\n` +
		`\d\d:\d\d:\d\d ERROR oh\\x1b\[2J  store=sqlite:x\.db\n$`)
	if !want.MatchString(out.String()) {
		t.Errorf("%q", out.String())
	}
	out.Reset()
	slog.New(newLogHandler(LogConfig{Level: "info", Format: "json"}, terminal{&out})).Info("x")
	if !strings.HasPrefix(out.String(), "{") {
		t.Errorf("%q", out.String())
	}
}

// TestHTTPLog: connections that fail are no flood, and a panic is always logged.
func TestHTTPLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := newHTTPLog(slog.New(slog.NewTextHandler(&out, nil)))
		for i := range 100 {
			log.Printf("http: TLS handshake error from 192.0.2.1:%d: EOF", i)
		}
		log.Print("http: panic serving 192.0.2.1:1: oh")
		time.Sleep(httpLogEvery)
		log.Print("http: TLS handshake error from 192.0.2.1:100: EOF")
		lines := strings.Split(out.String(), "\n")
		if len(lines) != 4 || !strings.Contains(lines[0], "192.0.2.1:0: EOF") || !strings.Contains(lines[1], "level=ERROR msg=\"http: panic") || !strings.HasSuffix(lines[2], ":100: EOF\" more=99") {
			t.Errorf("%q", lines)
		}
	})
}
