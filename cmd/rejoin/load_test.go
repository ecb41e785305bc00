package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/viper"

	"github.com/rejoin/rejoin/feed"
)

// load loads a configuration from a file, if it has content, and flags.
func load(t *testing.T, content string, flags ...string) (Config, error) {
	t.Helper()
	if content != "" {
		// Faults name the file, and t.TempDir would name it after the test.
		dir, err := os.MkdirTemp("", "rejoin-config-")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		path := filepath.Join(dir, "any-name")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		flags = append(flags, "--config", path)
	}
	cmd := newServeCommand()
	if err := cmd.ParseFlags(flags); err != nil {
		t.Fatal(err)
	}
	return Load(cmd.Flags())
}

// TestShippedConfig compares config.yaml with the defaults. Only auth.mode is
// commented out, because an operator has to choose it.
func TestShippedConfig(t *testing.T) {
	text, err := os.ReadFile("../../config.yaml")
	if err != nil {
		t.Fatal(err)
	}
	got, err := load(t, string(text))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(DefaultConfig(), got); diff != "" {
		t.Errorf("config.yaml is not the defaults:\n%s", diff)
	}

	full := strings.Replace(string(text), "\n  # mode: none", "\n  mode: none", 1)
	v := viper.New()
	v.SetConfigType("yaml")
	if err := v.ReadConfig(strings.NewReader(full)); err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, k := range new(Config).keys() {
		keys = append(keys, k.name)
	}
	slices.Sort(keys)
	if diff := cmp.Diff(keys, slices.Sorted(slices.Values(v.AllKeys()))); diff != "" {
		t.Errorf("config.yaml does not have every key:\n%s", diff)
	}

	want := DefaultConfig()
	want.Auth.Written = true
	if got, err = load(t, full); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("config.yaml with auth.mode:\n%s", diff)
	}
}

func TestPrecedence(t *testing.T) {
	const file = "listen: 127.0.0.1:1\nstore: {url: 'sqlite:file.db'}\nsubscribe:\n  heartbeat: 1s\n"
	for _, test := range []struct {
		name      string
		file      string
		env       map[string]string
		flags     []string
		listen    string
		store     string
		heartbeat time.Duration
	}{
		{"defaults", "", nil, nil, "127.0.0.1:8080", "sqlite:rejoin.db", 15 * time.Second},
		{"file", file, nil, nil, "127.0.0.1:1", "sqlite:file.db", time.Second},
		{"environment wins over file", file, map[string]string{"REJOIN_LISTEN": "127.0.0.1:2", "REJOIN_SUBSCRIBE_HEARTBEAT": "2s"}, nil,
			"127.0.0.1:2", "sqlite:file.db", 2 * time.Second},
		{"flag wins over environment", file, map[string]string{"REJOIN_LISTEN": "127.0.0.1:2", "REJOIN_STORE_URL": "sqlite:env.db"},
			[]string{"--listen", "127.0.0.1:3"}, "127.0.0.1:3", "sqlite:env.db", time.Second},
		{"a flag with the default's value wins too", file, nil, []string{"--listen", "127.0.0.1:8080"}, "127.0.0.1:8080", "sqlite:file.db", time.Second},
		{"an empty variable counts as absent", file, map[string]string{"REJOIN_LISTEN": ""}, nil, "127.0.0.1:1", "sqlite:file.db", time.Second},
		{"a key without a value too", "listen:\nsubscribe:\n", nil, nil, "127.0.0.1:8080", "sqlite:rejoin.db", 15 * time.Second},
		{"the case of a key does not matter", "LISTEN: 127.0.0.1:1\nSubscribe: {HeartBeat: 3s}", nil, nil, "127.0.0.1:1", "sqlite:rejoin.db", 3 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			for name, value := range test.env {
				t.Setenv(name, value)
			}
			c, err := load(t, test.file, test.flags...)
			if err != nil {
				t.Fatal(err)
			}
			if c.Listen != test.listen || c.Store.URL != test.store || c.Subscribe.Heartbeat != test.heartbeat {
				t.Errorf("got %s, %s and %v, want %s, %s and %v", c.Listen, c.Store.URL, c.Subscribe.Heartbeat, test.listen, test.store, test.heartbeat)
			}
		})
	}
}

// TestEveryKeyFromTheEnvironment: viper binds a variable only to keys that it
// knows, which is easily forgotten for a new one.
func TestEveryKeyFromTheEnvironment(t *testing.T) {
	values := map[string]string{
		"listen": "0.0.0.0:1", "store.url": "sqlite:/x.db", "bus.url": "redis://h", "bus.verify": "2s",
		"admin.listen": "127.0.0.1:2", "server.hosts": "rejoin.example, ::1", "server.trusted_proxies": "10.0.0.0/8,::1", "server.base_path": "/rejoin/", "server.demo": "true", "server.http2": "nethttp", "bus.prefix": "p", "bus.shards": "3", "bus.stream_length": "4",
		"subscribe.heartbeat": "3s", "subscribe.retry": "4s", "subscribe.write_timeout": "5s", "subscribe.max_age": "6s",
		"limits.event_bytes": "7", "limits.batch_events": "8", "limits.batch_bytes": "9", "limits.feeds_per_subscription": "10", "limits.subscribers": "11", "limits.subscribers_per_address": "12", "limits.memory": "64MiB", "limits.publish_idle": "14s", "limits.publishes_per_second": "15", "idempotency.window": "10s", "retention": "feeds=chat:* age=8h events=9", "auth.mode": "none", "auth.jwt.key": "s", "auth.jwt.key_file": "f", "auth.jwt.jwks_url": "u",
		"auth.jwt.algorithms": "HS256, ES256", "auth.jwt.issuer": "i", "auth.jwt.audience": "a", "tls.cert": "c", "tls.key": "k",
		"auth.forward.url": "unix:/run/app.sock:/rejoin", "auth.forward.ca_file": "ca.pem", "auth.forward.timeout": "11s", "auth.forward.cache": "12s", "auth.forward.recheck": "13s", "auth.forward.grace": "14s", "auth.forward.concurrency": "15",
		"cors.origins": "https://a.example,https://b.example,", "drain.delay": "3s", "drain.window": "8s", "log.level": "warn", "log.format": "json", "log.access": "true",
	}
	for _, k := range new(Config).keys() {
		t.Setenv(variable(k.name), values[k.name])
	}
	got, err := load(t, "")
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Listen:      "0.0.0.0:1",
		Admin:       AdminConfig{"127.0.0.1:2"},
		Server:      ServerConfig{[]string{"rejoin.example", "::1"}, []string{"10.0.0.0/8", "::1"}, "/rejoin/", true, "nethttp"},
		Store:       StoreConfig{"sqlite:/x.db"},
		Bus:         BusConfig{"redis://h", "p", 3, 4, 2 * time.Second},
		Subscribe:   SubscribeConfig{3 * time.Second, 4 * time.Second, 5 * time.Second, 6 * time.Second},
		Limits:      LimitsConfig{7, 8, 9, 10, 11, 12, 64 << 20, 14 * time.Second, 15},
		Idempotency: IdempotencyConfig{10 * time.Second},
		Retention:   []feed.Rule{{Feeds: "chat:*", Age: 8 * time.Hour, Events: 9}},
		Auth: AuthConfig{"none", true, JWTConfig{"s", "f", "u", []string{"HS256", "ES256"}, "i", "a"},
			ForwardConfig{"unix:/run/app.sock:/rejoin", "ca.pem", 11 * time.Second, 12 * time.Second, 13 * time.Second, 14 * time.Second, 15}},
		TLS:   TLSConfig{"c", "k"},
		CORS:  CORSConfig{[]string{"https://a.example", "https://b.example"}},
		Drain: DrainConfig{3 * time.Second, 8 * time.Second},
		Log:   LogConfig{"warn", "json", true},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got.Log.SlogLevel().String() != "WARN" {
		t.Errorf("level %s", got.Log.SlogLevel())
	}
}

// TestLists: a list is a YAML list in the file, and has commas elsewhere.
func TestLists(t *testing.T) {
	for _, test := range []struct {
		file, env string
		want      []string
	}{
		{"", "", nil},
		{"cors: {origins: []}", "", nil},
		{"cors: {origins: ['*']}", "", []string{"*"}},
		{"cors:\n  origins:\n    - https://a.example\n    - https://b.example\n", "", []string{"https://a.example", "https://b.example"}},
		{"cors: {origins: 'https://a.example, https://b.example'}", "", []string{"https://a.example", "https://b.example"}},
		{"cors: {origins: ['*']}", "https://c.example,https://d.example", []string{"https://c.example", "https://d.example"}},
	} {
		t.Setenv("REJOIN_CORS_ORIGINS", test.env)
		c, err := load(t, test.file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(test.want, c.CORS.Origins); diff != "" {
			t.Errorf("%s, %s: %s", test.file, test.env, diff)
		}
	}
}

// wantFaults checks that err is a usage error with exactly these faults, each
// given by words of it.
func wantFaults(t *testing.T, err error, faults ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("accepted, want %q", faults)
	}
	if _, ok := err.(usageError); !ok {
		t.Errorf("%T is not a usage error", err)
	}
	lines := strings.Split(err.Error(), "\n")[1:]
	if len(lines) != len(faults) {
		t.Errorf("got %d faults, want %d: %v", len(lines), len(faults), err)
	}
	for _, fault := range faults {
		if text := err.Error(); !strings.Contains(text, "\n"+fault) && !strings.Contains(text, ": "+fault) {
			t.Errorf("got %v, want %q in it", err, fault)
		}
	}
}

func TestFaults(t *testing.T) {
	for file, fault := range map[string]string{
		"listn: x":                                      "listn: no such key",
		"subscribe: {heartbeet: 1s}":                    "subscribe.heartbeet: no such key",
		"a: {b: {c: 1}}":                                "a.b.c: no such key",
		"tls: {cert: x}":                                "tls.key: tls.cert needs one",
		"tls: {key: x}":                                 "tls.cert: tls.key needs one",
		"tls: {cert: [x]}":                              "tls.cert: it takes one value",
		"subscribe: 5s":                                 "subscribe: has keys below it",
		"listen: {address: x}":                          "listen.address: no such key\nlisten: it takes one value",
		"listen: [a]":                                   "listen: it takes one value",
		"listen: 8080":                                  `listen: "8080" is not an address`,
		"listen: 127.0.0.1:http":                        `listen: "127.0.0.1:http" does not end in a port`,
		"listen: 127.0.0.1:65536":                       `listen: "127.0.0.1:65536" does not end in a port`,
		"subscribe: {heartbeat: abc}":                   `subscribe.heartbeat: "abc" is not a duration such as 15s`,
		"subscribe: {heartbeat: 15}":                    `subscribe.heartbeat: "15" is not a duration such as 15s`,
		"subscribe: {heartbeat: 0s}":                    "subscribe.heartbeat: 0s is not from 100ms to 10m0s",
		"subscribe: {retry: -1s}":                       "subscribe.retry: -1s is not from",
		"subscribe: {write_timeout: 1h}":                "subscribe.write_timeout: 1h0m0s is not from",
		"subscribe: {max_age: 10ms}":                    "subscribe.max_age: 10ms is not from",
		"bus: {verify: 0s}":                             "bus.verify: 0s is not from",
		"bus: {url: 'kafka://:hunter2@h'}":              "bus.url: it is memory, postgres, or a redis:// URL",
		"bus: {prefix: 'a{b}'}":                         `bus.prefix: "a{b}"`,
		"bus: {shards: 0}":                              "bus.shards: 0 is not from 1 to 1024",
		"bus: {stream_length: 0}":                       "bus.stream_length: 0 is not from",
		"admin: {listen: 'on'}":                         `admin.listen: "on" is not an address`,
		"store: {url: rejoin.db}":                       "store.url: it begins with sqlite:",
		"store: {url: 'mysql://u:hunter2@h/d'}":         "store.url: it begins with sqlite:",
		"store: {url: 'sqlite:'}":                       "store.url: sqlite: is not followed by a file name",
		"store: {url: 'sqlite://h/rejoin.db'}":          "store.url: sqlite: is followed by a path",
		"store: {url: 'sqlite::memory:'}":               "store.url: sqlite: is followed by a plain file name",
		"store: {url: 'sqlite:a.db?mode=memory'}":       "store.url: sqlite: is followed by a plain file name",
		"limits: {event_bytes: 60001}":                  "limits.event_bytes: 60001 is not from 1 to 60000",
		"limits: {event_bytes: 0}":                      "limits.event_bytes: 0 is not from",
		"limits: {event_bytes: 1.5}":                    `limits.event_bytes: "1.5" is not a whole number`,
		"limits: {batch_events: 0}":                     "limits.batch_events: 0 is not from 1 to 10000",
		"limits: {batch_bytes: 67108865}":               "limits.batch_bytes: 67108865 is not from 1 to 67108864",
		"limits: {memory: 31MiB}":                       "limits.memory: 32505856 is not from 33554432 to 1099511627776",
		"limits: {publish_idle: 99ms}":                  "limits.publish_idle: 99ms is not from 100ms to 24h0m0s",
		"limits: {memory: 64 MB}":                       `limits.memory: "64 MB" is not a size such as 256MiB`,
		"limits: {memory: -1}":                          `limits.memory: "-1" is not a size such as 256MiB`,
		"limits: {memory: 9999999999GiB}":               `limits.memory: "9999999999GiB" is not a size such as 256MiB`,
		"limits: {memory: 32MiB, batch_bytes: 4194305}": "limits.memory: 33554432 is less than eight times limits.batch_bytes (4194305)",
		"limits: {batch_bytes: 4 MiB}":                  `limits.batch_bytes: "4 MiB" is not a whole number`,
		"limits: {feeds_per_subscription: 0}":           "limits.feeds_per_subscription: 0 is not from 1 to 1000",
		"limits: {subscribers: -1}":                     "limits.subscribers: -1 is not from 0 to 10000000",
		"limits: {subscribers_per_address: -1}":         "limits.subscribers_per_address: -1 is not from 0",
		"idempotency: {window: 999ms}":                  "idempotency.window: 999ms is not from 1s to",
		"idempotency: {window: 8761h}":                  "idempotency.window: 8761h0m0s is not from 1s to",
		"limits: {event_bytes: lots}":                   `limits.event_bytes: "lots" is not a whole number`,
		"auth: {mode: basic}":                           `auth.mode: "basic" is not one of none, jwt`,
		"auth: {mode: jwt}":                             "auth.jwt.key: there is no key to verify tokens with",
		"auth: {jwt: {key: x}}":                         "auth.mode: auth.jwt is set, but only auth.mode: jwt checks tokens",
		"auth: {jwt: 5}":                                "auth.jwt: has keys below it",
		"auth: {mode: jwt, jwt: {key: hunter2}}":        "auth.jwt.key: a secret of 7 bytes is too short",
		"auth: {mode: jwt, jwt: {key_file: a, jwks_url: 'https://hunter2@h'}}":               "auth.jwt.key_file: only one of key_file, jwks_url",
		"auth: {mode: jwt, jwt: {key: hunter2, jwks_url: hunter2, algorithms: [HS1, x]}}":    "auth.jwt.key: only one of\nauth.jwt.algorithms: \"HS1\"\nauth.jwt.algorithms: \"x\"\nauth.jwt.jwks_url: it is not\nauth.jwt.key: a secret of 7",
		"auth: {mode: jwt, jwt: {jwks_url: 'https://h/', algorithms: [[a], b]}}":             "auth.jwt.algorithms: it takes a list of single values",
		"auth: {mode: jwt, jwt: {jwks_url: 'https://h/', algorithms: {a: b}}}":               "auth.jwt.algorithms.a: no such key\nauth.jwt.algorithms: it takes one value",
		"cors: {origins: ['https://a.example/']}":                                            `cors.origins: "https://a.example/" is not an origin`,
		"server: {hosts: ['https://a.example']}":                                             `server.hosts: "https://a.example" is not a host`,
		"server: {hosts: ['a.example:8080']}":                                                `server.hosts: "a.example:8080" is not a host such as rejoin.example, without scheme and port`,
		"server: {demo: true}\nauth: {mode: forward, forward: {url: 'http://127.0.0.1:9/'}}": `server.demo: the demo (--demo) needs auth.mode none, and it is forward: its pages publish and subscribe without a token`,
		"server: {base_path: /v1/rejoin}":                                                    `server.base_path: "/v1/rejoin" begins with /v1, which is one of the server's own paths`,
		"server: {trusted_proxies: [proxy.internal]}":                                        `server.trusted_proxies: "proxy.internal" is not a network such as 10.0.0.0/8, and not an address`,
		"server: {hosts: '*'}":                                                               `server.hosts: "*" is not a host`,
		"cors: {origins: ['*', 'https://a.example']}":                                        "cors.origins: * cannot be combined with other origins",
		"auth: {mode: forward}":                                                              "auth.forward.url: the address to ask is missing",
		"auth: {mode: forward, forward: {url: 'ftp://a'}}":                                   "auth.forward.url: it is not an address such as http://127.0.0.1:3000/rejoin",
		"auth: {mode: forward, forward: {url: 'http://user:hunter2@a/'}}":                    "auth.forward.url: it must not have a user and a password",
		"auth: {mode: forward, forward: {url: 'http://a/#b'}}":                               "auth.forward.url: it must not have a fragment",
		"auth: {mode: forward, forward: {url: 'unix:/run/app.sock'}}":                        "auth.forward.url: it begins with unix:, and is not like",
		"auth: {mode: forward, forward: {url: 'http://a', ca_file: ca.pem}}":                 "auth.forward.ca_file: it is for a url that begins with https",
		"auth: {mode: forward, forward: {url: 'http://a', timeout: 0s}}":                     "auth.forward.timeout: 0s is not from",
		"auth: {mode: forward, forward: {url: 'http://a', cache: -1s}}":                      "auth.forward.cache: -1s is not from",
		"auth: {mode: forward, forward: {url: 'http://a', recheck: 0s}}":                     "auth.forward.recheck: 0s is not from",
		"auth: {mode: forward, forward: {url: 'http://a', grace: -1s}}":                      "auth.forward.grace: -1s is not from",
		"auth: {mode: forward, forward: {url: 'http://a', concurrency: 0}}":                  "auth.forward.concurrency: 0 is not from",
		"auth: {forward: {url: 'http://a'}}":                                                 "auth.mode: auth.forward is set, but only auth.mode: forward asks the application",
		"drain: {delay: -1s}":                                                                "drain.delay: -1s is not from",
		"drain: {window: 11m}":                                                               "drain.window: 11m0s is not from",
		"log: {level: loud}":                                                                 `log.level: "loud" is not one of debug, info, warn, error`,
		"log: {format: xml}":                                                                 `log.format: "xml" is not one of text, json`,
	} {
		t.Run(file, func(t *testing.T) {
			_, err := load(t, file)
			wantFaults(t, err, strings.Split(fault, "\n")...)
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the password is printed: %v", err)
			}
		})
	}
}

func TestFaultsAreJoined(t *testing.T) {
	t.Setenv("REJOIN_STORE_URLL", "postgres://u:hunter2@h/db")
	t.Setenv("REJOIN_BUS_VERIFY", "soon")
	_, err := load(t, "listn: x\nlog: {level: loud}\nlimits: {event_bytes: -1, subscribers: -2}", "--store", "rejoin.db", "--listen", "nowhere")
	wantFaults(t, err, "listn: no such key", "REJOIN_STORE_URLL: the environment variable belongs to no key", `bus.verify: "soon"`,
		"listen: ", "store.url: ", "limits.event_bytes: -1", "limits.subscribers: -2", "log.level: ")
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the value of an unknown variable is printed: %v", err)
	}
}

func TestConfigFile(t *testing.T) {
	for content, fault := range map[string]string{
		"listen: a: b":                         "read configuration file: ",
		"listen: 127.0.0.1:1\nlisten: 1.2.3.4": "already defined",
		"just words":                           "line 1: a key with its value is wanted here",
	} {
		if _, err := load(t, content); err == nil || !strings.Contains(err.Error(), fault) {
			t.Errorf("%q: got %v, want %q", content, err, fault)
		}
	}
	if _, err := load(t, "", "--config", filepath.Join(t.TempDir(), "none.yaml")); err == nil || !strings.Contains(err.Error(), "none.yaml") {
		t.Errorf("a file that is not there: %v", err)
	}
	path := filepath.Join(t.TempDir(), "named.yaml")
	if err := os.WriteFile(path, []byte("listen: 127.0.0.1:7"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("REJOIN_CONFIG", path)
	if c, err := load(t, ""); err != nil || c.Listen != "127.0.0.1:7" {
		t.Errorf("REJOIN_CONFIG: %s, %v", c.Listen, err)
	}
	if c, err := load(t, "listen: 127.0.0.1:8"); err != nil || c.Listen != "127.0.0.1:8" {
		t.Errorf("--config beside REJOIN_CONFIG: %s, %v", c.Listen, err)
	}
}

// TestPlaces: a fault names the line of the file, the variable or the flag that it is in,
// and the nearest key to one that does not exist.
func TestPlaces(t *testing.T) {
	path := filepath.Join(t.TempDir(), "production.yaml")
	content := "# operations\nstor:\n  url: sqlite:a.db\nlog: {level: loud}\nheartbeat: 1s\nlimits:\n  memory: 1\n" +
		"  wrong: 5\nbus:\n  verify: hunter2\nretention:\n  - {feeds: a, events: 1}\n  - feeds: b\n    age: never\n  - {events: 1}\n"
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("REJOIN_DRAIN_DELAY", "soon")
	t.Setenv("REJOIN_DRAIN_WINDOWS", "1s")
	t.Setenv("REJOIN_BUS_VERIFY", "later")
	_, err := load(t, "", "--config", path, "--listen", "nowhere")
	want := []string{
		path + ":5: heartbeat: no such key; did you mean subscribe.heartbeat?",
		path + ":8: limits.wrong: no such key",
		path + ":3: stor.url: no such key; did you mean store.url?",
		"REJOIN_DRAIN_WINDOWS: the environment variable belongs to no key; did you mean REJOIN_DRAIN_WINDOW?",
		`REJOIN_BUS_VERIFY: bus.verify: "later" is not a duration such as 15s`,
		path + `:14: retention[1].age: "never" is not a duration such as 15s`,
		path + `:15: retention[2].feeds: it is missing, a feed or the beginning of feeds and *, such as "chat:*"`,
		`REJOIN_DRAIN_DELAY: drain.delay: "soon" is not a duration such as 15s`,
		`--listen: listen: "nowhere" is not an address such as 127.0.0.1:8080`,
		path + ":7: limits.memory: 1 is not from 33554432 to 1099511627776",
		path + `:4: log.level: "loud" is not one of debug, info, warn, error`,
	}
	if err == nil {
		t.Fatal("accepted")
	}
	if diff := cmp.Diff(want, strings.Split(err.Error(), "\n")[1:]); diff != "" {
		t.Error(diff)
	}

	t.Setenv("REJOIN_RETENTION", "feeds=a age=never")
	_, err = load(t, "retention: [{feeds: a, events: 0}]", "--listen", "127.0.0.1:0")
	wantFaults(t, err, `REJOIN_RETENTION: retention[0].age: "never"`, "REJOIN_DRAIN_WINDOWS", "REJOIN_BUS_VERIFY", "REJOIN_DRAIN_DELAY")
}

func TestDurations(t *testing.T) {
	const day = 24 * time.Hour
	for text, want := range map[string]time.Duration{
		"30d": 30 * day, "1d12h": 36 * time.Hour, "0d1s": time.Second, "15s": 15 * time.Second, "-1s": -time.Second, "100000d": 100000 * day,
		"d": -1, "1.5d": -1, "1d-1h": -1, "1d25h": -1, "1h1d": -1, "106751d": -1, "999999d": -1, "9999999d": -1, "1d1": -1, "": -1, "30D": -1,
	} {
		got, err := parseDuration(text)
		if err != nil {
			got = -1
		}
		if got != want {
			t.Errorf("%q is %v, want %v", text, got, want)
		}
	}
	c, err := load(t, "retention: [{feeds: a, age: 30d}]\nidempotency: {window: 2d}")
	if err != nil || c.Retention[0].Age != 30*day || c.Idempotency.Window != 2*day {
		t.Errorf("%v, %v, %v", c.Retention, c.Idempotency.Window, err)
	}
}

// TestEnvironment: typos are refused, but not the variables that Kubernetes sets for
// a Service named rejoin or rejoin-redis.
func TestEnvironment(t *testing.T) {
	for entry, refused := range map[string]bool{
		"REJOIN_LISTEN=x":                                false,
		"REJOIN_CONFIG=x":                                false,
		"REJOIN_TOKEN=x":                                 false,
		"REJOIN_TEST_POSTGRES=x":                         false,
		"REJOINED=x":                                     false,
		"PATH=x":                                         false,
		"REJOIN_SERVICE_HOST=10.0.0.1":                   false,
		"REJOIN_SERVICE_PORT=80":                         false,
		"REJOIN_SERVICE_PORT_HTTP=80":                    false,
		"REJOIN_PORT=tcp://10.0.0.1:80":                  false,
		"REJOIN_PORT_80_TCP=tcp://10.0.0.1:80":           false,
		"REJOIN_PORT_80_TCP_ADDR=10.0.0.1":               false,
		"REJOIN_PORT_80_TCP_PORT=80":                     false,
		"REJOIN_PORT_80_TCP_PROTO=tcp":                   false,
		"REJOIN_REDIS_SERVICE_HOST=10.0.0.2":             false,
		"REJOIN_REDIS_PORT=tcp://10.0.0.2:6379":          false,
		"REJOIN_REDIS_PORT_6379_TCP=tcp://10.0.0.2:6379": false,
		"REJOIN_REDIS_SERVICE_PORT_REDIS=6379":           false,
		"REJOIN_PORT=9090":                               true, // an operator's wish, not Kubernetes
		"REJOIN_STORE_URLL=x":                            true,
		"REJOIN_STORE=x":                                 true,
		"REJOIN_=x":                                      true,
		"REJOIN_listen=x":                                true,
		"REJOIN_AUTH_JWT_KEY=x":                          false,
		"REJOIN_AUTH_JWT=x":                              true,
		"REJOIN_SERVICE_HOSTS=x":                         true,
		"REJOIN_PORT_HTTP=80":                            true,
	} {
		if faults := checkEnvironment([]string{entry}, new(Config).keys()); (len(faults) > 0) != refused {
			t.Errorf("%s: refused is %t, want %t", entry, !refused, refused)
		}
	}
}

// TestOpenToOthers: an operator has to decide that anyone who reaches a server may do
// everything.
func TestOpenToOthers(t *testing.T) {
	for listen, open := range map[string]bool{
		"127.0.0.1:0": false, "127.9.9.9:80": false, "localhost:80": false, "[::1]:80": false, "[::ffff:127.0.0.1]:80": false,
		":0": true, ":8080": true, "0.0.0.0:80": true, "[::]:80": true, "192.0.2.1:80": true, "example.com:80": true,
		"localhost.example.com:80": true, "[fe80::1%eth0]:80": true,
	} {
		_, err := load(t, "", "--listen", listen)
		if open {
			wantFaults(t, err, "auth.mode: ")
		} else if err != nil {
			t.Errorf("%s: %v", listen, err)
		}
		if _, err := load(t, "auth: {jwt: {key: "+tokenSecret+"}}", "--listen", listen, "--auth", "jwt"); err != nil {
			t.Errorf("%s with tokens: %v", listen, err)
		}
		for _, how := range []string{"file", "environment", "flag"} {
			t.Run(listen+" by "+how, func(t *testing.T) {
				file, flags := "", []string{"--listen", listen}
				switch how {
				case "file":
					file = "auth: {mode: none}"
				case "environment":
					t.Setenv("REJOIN_AUTH_MODE", "none")
				case "flag":
					flags = append(flags, "--auth", "none")
				}
				if _, err := load(t, file, flags...); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// TestNotYAML: the error names the file and the line, so that an operator can mend
// it. It does not repeat the contents of the file.
func TestNotYAML(t *testing.T) {
	for content, fault := range map[string]string{
		"listen: 127.0.0.1:1\nstore:\n\turl: x\n": "line 3: found character that cannot start any token",
		"hunter2\nhunter2":                        "line 1: a key with its value is wanted here, such as listen: 127.0.0.1:8080",
		"- hunter2":                               "line 1: a key with its value is wanted here, such as listen: 127.0.0.1:8080",
		"listen: a\nlisten: b":                    `line 2: mapping key "listen" already defined at line 1`,
		"\x80\x81":                                "invalid leading UTF-8 octet",
	} {
		path := filepath.Join(t.TempDir(), "production.yaml")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := load(t, "", "--config", path)
		if want := "read configuration file: " + path + ": " + fault; err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %q", content, err, want)
		}
	}
}
