package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server"
	"github.com/rejoin/rejoin/storage/memory"
	"github.com/rejoin/rejoin/storage/testserver"
)

// attempt is one publish, and its status over HTTP. SQL refuses it with the SQLSTATE
// RJ and that number.
type attempt struct {
	feed, typ, data string
	json            bool
	key             string
	ifLast          string
	close           bool
	want            int
}

func nested(open, end string, depth int) string {
	return strings.Repeat(open, depth) + strings.Repeat(end, depth)
}

var attempts = []attempt{
	// Names.
	{feed: "a", want: 201}, {feed: "A0._:@~-", want: 201}, {feed: strings.Repeat("x", 255), want: 201},
	{feed: strings.Repeat("x", 256), want: 400}, {feed: ".a", want: 400}, {feed: "-", want: 400}, {feed: "a b", want: 400},
	{feed: "a*", want: 400}, {feed: "ä", want: 400}, {feed: "aä", want: 400}, {feed: "a\n", want: 400}, {feed: "a%", want: 400},
	{feed: "\u017f", want: 400}, {feed: "\u212a", want: 400}, // which some locales take for s and K
	// Types.
	{feed: "t", typ: "order/paid.v2:x_y-z", want: 201}, {feed: "t", typ: "message", want: 201}, {feed: "t", typ: strings.Repeat("x", 100), want: 201},
	{feed: "t", typ: strings.Repeat("x", 101), want: 400}, {feed: "t", typ: "feed.gap", want: 400}, {feed: "t", typ: "feed.", want: 400},
	{feed: "t", typ: "feed", want: 201}, {feed: "t", typ: "feeds.x", want: 201}, {feed: "t", typ: "open", want: 400}, {feed: "t", typ: "error", want: 400},
	{feed: "t", typ: "Open", want: 201}, {feed: "t", typ: "a b", want: 400}, {feed: "t", typ: "a\n", want: 400}, {feed: "t", typ: "ä", want: 400}, {feed: "t", typ: "a~", want: 400},
	// Data as text.
	{feed: "d", data: "", want: 201}, {feed: "d", data: "a\r\nb\rc\n\rd", want: 201}, {feed: "d", data: "ä€𝒶", want: 201},
	{feed: "d", data: strings.Repeat("x", 60_000), want: 201}, {feed: "d", data: strings.Repeat("x", 60_001), want: 413},
	{feed: "d", data: strings.Repeat("\n", 60_000/7), want: 201}, {feed: "d", data: strings.Repeat("\n", 60_000/7+1), want: 413},
	{feed: "d", data: strings.Repeat("\r\n", 60_000/7), want: 201}, {feed: "d", data: strings.Repeat("\r\n", 60_000/7+1), want: 413},
	{feed: "d", data: strings.Repeat(`"`, 30_000), want: 201}, {feed: "d", data: strings.Repeat(`"`, 30_001), want: 413},
	{feed: "d", data: strings.Repeat(`\`, 30_001), want: 413}, {feed: "d", data: strings.Repeat("\t", 30_001), want: 413},
	{feed: "d", data: strings.Repeat("\b", 10_000), want: 201}, {feed: "d", data: strings.Repeat("\b", 10_001), want: 413},
	{feed: "d", data: strings.Repeat("\f", 10_001), want: 413}, {feed: "d", data: strings.Repeat("\x1f", 10_001), want: 413},
	{feed: "d", data: strings.Repeat("\x7f", 60_000), want: 201},
	{feed: "d", data: strings.Repeat("\u2028", 10_000), want: 201}, {feed: "d", data: strings.Repeat("\u2029", 10_001), want: 413},
	{feed: "d", data: strings.Repeat("x", 120_001), want: 413},
	// Data as JSON, in the spelling of jsonb.
	{feed: "j", json: true, data: `{"a": [1, null, "ä\n"]}`, want: 201}, {feed: "j", json: true, data: "null", want: 201}, {feed: "j", json: true, data: `""`, want: 201},
	{feed: "j", json: true, data: `"` + strings.Repeat("x", 59_998) + `"`, want: 201}, {feed: "j", json: true, data: `"` + strings.Repeat("x", 59_999) + `"`, want: 413},
	{feed: "j", json: true, data: `"` + strings.Repeat(`\"`, 29_999) + `"`, want: 201},
	{feed: "j", json: true, data: nested("[", "]", 500), want: 201}, {feed: "j", json: true, data: nested("[", "]", 501), want: 400},
	{feed: "j", json: true, data: nested(`{"a": `, "}", 501)[:6*500] + "{}" + strings.Repeat("}", 500), want: 400},
	{feed: "j", json: true, data: nested(`{"a": `, "}", 499)[:6*499] + "{}" + strings.Repeat("}", 499), want: 201},
	{feed: "j", json: true, data: `["` + strings.Repeat("[", 1000) + `"]`, want: 201},
	{feed: "j", json: true, data: `["` + strings.Repeat(`\"[`, 1000) + `\\", ` + nested("[", "]", 499) + `]`, want: 201},
	{feed: "j", json: true, data: `["` + strings.Repeat(`\"[`, 1000) + `\\", ` + nested("[", "]", 500) + `]`, want: 400},
	{feed: "j", json: true, data: "[" + strings.Repeat(`{"a": []}, `, 2000) + "1]", want: 201},
	{feed: "j", json: true, data: strings.Repeat("[[], ", 499) + "[]" + strings.Repeat("]", 499), want: 201},
	{feed: "j", json: true, data: strings.Repeat("[[], ", 500) + "[]" + strings.Repeat("]", 500), want: 400},
	{feed: "j", json: true, data: "[" + strings.Repeat(nested("[", "]", 499)+", ", 50) + nested("[", "]", 499) + "]", want: 201},
	{feed: "j", json: true, data: "[" + strings.Repeat(nested("[", "]", 499)+", ", 50) + nested("[", "]", 500) + "]", want: 400},
	// Idempotency keys.
	{feed: "k", data: "1", key: "!~", want: 201}, {feed: "k", data: "1", key: "!~", want: 201}, {feed: "k", data: "2", key: "!~", want: 422},
	{feed: "k", data: "1", typ: "x", key: "!~", want: 422}, {feed: "k", data: "1", json: true, key: "!~", want: 422}, {feed: "k", data: "1", key: "!~", close: true, want: 422},
	{feed: "k", data: "1", typ: "message", key: "!~", want: 201}, {feed: "k", data: "1", key: "!~", ifLast: "77", want: 201},
	{feed: "k", data: "2", key: strings.Repeat("k", 255), want: 201}, {feed: "k", data: "2", key: strings.Repeat("k", 256), want: 400},
	{feed: "k", data: "2", key: "a b", want: 400}, {feed: "k", data: "2", key: "ä", want: 400}, {feed: "k", data: "2", key: "\x7f", want: 400},
	{feed: "k2", data: "1", key: "!~", want: 201},                                                               // another feed
	{feed: "k", data: "3", key: "late", ifLast: "9", want: 412}, {feed: "k", data: "4", key: "late", want: 201}, // a refused one leaves no key
	// The last id.
	{feed: "l", ifLast: "1", want: 412}, {feed: "l", ifLast: "0", want: 201}, {feed: "l", ifLast: "0", want: 412}, {feed: "l", ifLast: "1", want: 201},
	{feed: "l", ifLast: "-1", want: 400}, {feed: "l", ifLast: "9223372036854775807", want: 412},
	// Closing.
	{feed: "c", data: "1", key: "end", close: true, want: 201}, {feed: "c", data: "2", want: 409}, {feed: "c", data: "2", close: true, want: 409},
	{feed: "c", data: "2", ifLast: "9", want: 409}, {feed: "c", data: "1", key: "end", close: true, want: 201}, {feed: "c", data: "2", key: "end", close: true, want: 422},
	{feed: "c", data: "2", key: "other", want: 409},
	// The order of the checks.
	{feed: "c", typ: "a b", want: 400}, {feed: "c", data: strings.Repeat("x", 60_001), want: 413},
}

// HTTP and SQL answer alike, and leave the same in the store.
func TestVerdictsOfHTTP(t *testing.T) {
	t.Parallel()
	p := testserver.SharedPostgres(t)
	overHTTP, inSQL := p.NewDatabase(t), p.NewDatabase(t)
	s, bySQL := start(t, overHTTP, Options{}), start(t, inSQL, Options{})
	serve := handler(t, s)
	c := connect(t, inSQL)
	for _, a := range attempts {
		name := fmt.Sprintf("%.60q", fmt.Sprint(a))
		got := serve(a)
		if got != a.want {
			t.Errorf("%s over HTTP: got %d", name, got)
		}
		var event int64
		err := c.QueryRow(t.Context(), a.sql("rejoin_append"), a.args()...).Scan(&event)
		if got := status(t, err, 201); got != a.want {
			t.Errorf("%s in SQL: got %v", name, err)
		}
		// The queue depends on no feed.
		want := a.want
		if want == 409 || want == 412 || want == 422 || a.ifLast == "-1" {
			want = 201
		}
		_, err = c.Exec(t.Context(), a.sql("rejoin_enqueue"), a.args()...)
		if got := status(t, err, 201); got != want {
			t.Errorf("%s in the queue: got %v", name, err)
		}
	}
	const all = `SELECT md5(string_agg(concat_ws(' ', f.name, f.closed, f.bytes, e.seq, e.json, e.type, e.data), ';' ORDER BY f.name, e.seq))
		FROM rejoin.feeds f JOIN rejoin.events e ON e.feed = f.id`
	if one, two := value(t, overHTTP, all), value(t, inSQL, all); one != two {
		t.Error("the stores differ")
	}
	const keys = `SELECT md5(string_agg(concat_ws(' ', f.name, k.key, k.print, k.firsts), ';' ORDER BY f.name, k.key)) FROM rejoin.feeds f JOIN rejoin.keys k ON k.feed = f.id`
	if one, two := value(t, overHTTP, keys), value(t, inSQL, keys); one != two {
		t.Error("the keys differ")
	}
	stored(t, bySQL, "j")
	sound(t, inSQL)
}

// handler returns a function that publishes over HTTP.
func handler(t *testing.T, s *Store) func(attempt) int {
	t.Helper()
	bus := memory.NewBus()
	node, err := feed.Open(s, bus, feed.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	h := server.New(node.Hub, node.Publisher, server.Options{Logger: slog.New(slog.DiscardHandler)})
	t.Cleanup(func() {
		h.Drain(context.Background(), 0)
		node.Close()
		h.Close()
		bus.Close()
	})
	return func(a attempt) int {
		query := url.Values{"type": {a.typ}}
		if a.close {
			query.Set("close", "true")
		}
		r := httptest.NewRequest("POST", "/v1/feeds/"+url.PathEscape(a.feed)+"/events?"+query.Encode(), strings.NewReader(a.data))
		r.Host = "localhost"
		r.Header.Set("Content-Type", "text/plain")
		if a.json {
			r.Header.Set("Content-Type", "application/json")
		}
		if a.key != "" {
			r.Header.Set("Idempotency-Key", a.key)
		}
		if a.ifLast != "" {
			r.Header.Set("If-Match", `"`+a.ifLast+`"`)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code
	}
}

func (a attempt) sql(function string) string {
	data := "$3::text"
	if a.json {
		data = "$3::text::jsonb"
	} else {
		function += "_text"
	}
	if strings.HasPrefix(function, "rejoin_append") {
		return "SELECT " + function + "($1, $2, " + data + ", idempotency_key => $4, if_last => $5, close => $6)"
	}
	return "SELECT " + function + "($1, $2, " + data + ", idempotency_key => $4, close => $6) WHERE $5::bigint IS NULL OR true"
}

func (a attempt) args() []any {
	var key *string
	if a.key != "" {
		key = &a.key
	}
	var ifLast *int64
	if a.ifLast != "" {
		n, _ := strconv.ParseInt(a.ifLast, 10, 64)
		ifLast = &n
	}
	return []any{a.feed, a.typ, a.data, key, ifLast, a.close}
}

// status returns the status of an error in SQL. Each error has a message without line
// breaks, and a hint.
func status(t *testing.T, err error, fine int) int {
	t.Helper()
	if err == nil {
		return fine
	}
	e, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || !strings.HasPrefix(e.Code, "RJ") {
		return http.StatusInternalServerError
	}
	if e.Hint == "" || !strings.HasSuffix(e.Hint, ".") || strings.ContainsAny(e.Message, "\n\r") || len(e.Message) > 400 {
		t.Errorf("an unfit message or hint: %q, %q", e.Message, e.Hint)
	}
	n, _ := strconv.Atoi(e.Code[2:])
	return n
}

// Arguments that only SQL has.
func TestRefusedArguments(t *testing.T) {
	t.Parallel()
	url := newDatabase(t)
	start(t, url, Options{})
	c := connect(t, url)
	runSQL(t, c, "SELECT rejoin_append_text('chat', NULL, 'x', NULL, NULL, NULL, NULL, NULL)", "SELECT rejoin_append_text('chat', '', 'x', idempotency_key => 'k', close => true)")
	for _, test := range []struct{ sql, state, says string }{
		{"SELECT rejoin_append(NULL, '', '1')", "RJ400", "feed is NULL"},
		{"SELECT rejoin_append('', '', '1')", "RJ400", `1 to 255 characters, not 0: ""`},
		{"SELECT rejoin_append('a', '', NULL)", "RJ400", "data is NULL"},
		{"SELECT rejoin_append_text('a', '', NULL)", "RJ400", "data is NULL"},
		{"SELECT rejoin_enqueue(NULL, '', '1')", "RJ400", "feed is NULL"},
		{"SELECT rejoin_enqueue_text('a', '', NULL)", "RJ400", "data is NULL"},
		{"SELECT rejoin_append('a', '', '1', idempotency_key => '')", "RJ400", "1 to 255 characters"},
		{"SELECT rejoin_append('a', '', '1', key => 'user:7')", "RJ400", `no keys: key is "user:7"`},
		{"SELECT rejoin_append('a', '', '1', key => '')", "RJ400", "no keys"},
		{"SELECT rejoin_append('a', '', '1', ttl => '30 s')", "RJ400", "00:00:30"},
		{"SELECT rejoin_enqueue('a', '', '1', key => 'user:7')", "RJ400", "no keys"},
		{"SELECT rejoin_enqueue_text('a', '', '1', ttl => '30 s')", "RJ400", "00:00:30"},
		{"SELECT rejoin_append('a', '', '1', if_last => -3)", "RJ400", "-3"},
		{"SELECT rejoin_append('a b', '', '1')", "RJ400", `character 2 of "a b" is not`},
		{"SELECT rejoin_append(repeat('x', 300), '', '1')", "RJ400", `not 300: "` + strings.Repeat("x", 40) + `"...`},
		{`SELECT rejoin_append(E'a"\n', '', '1')`, "RJ400", `character 2 of "a\"\n" is not`},
		{"SELECT rejoin_append('a', 'b c', '1')", "RJ400", `character 2 of "b c" is not`},
		{"SELECT rejoin_append('chat', '', '1')", "RJ409", "feed closed: chat"},
		{"SELECT rejoin_append('new', '', '1', if_last => 4)", "RJ412", "the feed's last event is 0, not 4: new"},
		{"SELECT rejoin_append_text('chat', '', 'y', idempotency_key => 'k')", "RJ422", `reused: "k"`},
		{"SELECT rejoin_append('a', '', '{')", "22P02", ""},
		{`SELECT rejoin_append('a', '', '"\u0000"')`, "22P05", ""},
	} {
		if e := failsWith(t, c, test.state, test.sql); !strings.Contains(e.Message, test.says) || strings.HasPrefix(test.state, "RJ") && e.Hint == "" {
			t.Errorf("%s: got %q with the hint %q, want %q in it", test.sql, e.Message, e.Hint, test.says)
		}
	}
	// The caller's settings and collations change nothing.
	runSQL(t, c, "CREATE COLLATION blind (provider = icu, locale = 'und-u-ks-level1', deterministic = false)",
		`CREATE TABLE words (feed text COLLATE blind, type text COLLATE blind, german text COLLATE "de-x-icu")`, "INSERT INTO words VALUES ('Words', 'OPEN', 'OPEN')",
		"SET standard_conforming_strings = off", "SET escape_string_warning = off",
		"SELECT rejoin_append_text(feed, type, E'a\\r\\n' || type, idempotency_key => type) FROM words",
		"SELECT rejoin_append_text(feed, german, 'x') FROM words", "SELECT rejoin_enqueue_text(feed, type, type) FROM words",
		"SELECT rejoin.rejoin_append(feed, type, to_jsonb(repeat('[\"\\\\', 600))) FROM words")
	if got := value(t, url, "SELECT string_agg(type || data, ',' ORDER BY seq) FROM rejoin.events WHERE data LIKE E'a\\n%'"); got != "OPENa\nOPEN" {
		t.Errorf("got %q", got)
	}
}

// A key that came over HTTP is known in SQL, and the other way round, until it expires.
func TestKeysAreShared(t *testing.T) {
	t.Parallel()
	url := newDatabase(t)
	s := start(t, url, Options{KeyWindow: time.Hour})
	bus := memory.NewBus()
	node, err := feed.Open(s, bus, feed.Options{KeyWindow: time.Hour, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { node.Close(); bus.Close() })
	c := connect(t, url)
	rng := rand.New(rand.NewPCG(3, 3))
	for i := range 200 {
		d := feed.Draft{Feed: fmt.Sprint("feed:", i%7), Type: pick(rng, "", "message", "a.b/c-d_e:f"), Data: random(rng, texts, 20), JSON: i%2 == 0}
		if d.JSON {
			d.Data = `{"a": [1, "ä\"\\"]}`
		}
		pub := feed.Publication{Feed: d.Feed, Drafts: []feed.Draft{d}, Key: fmt.Sprint("k", i)}
		a := attempt{feed: d.Feed, typ: d.Type, data: d.Data, json: d.JSON, key: pub.Key}
		first := i%3 == 0
		var result feed.Result
		var event int64
		sql := func() {
			if err := c.QueryRow(t.Context(), a.sql("rejoin_append"), a.args()...).Scan(&event); err != nil {
				t.Fatal(err)
			}
		}
		if first {
			sql()
		}
		if result, err = node.Publisher.PublishBatch(t.Context(), pub); err != nil {
			t.Fatal(err)
		}
		if !first {
			sql()
		}
		if got := result.Events[0]; event != int64(got.ID) || result.Replayed != first {
			t.Fatalf("%+v: SQL has id %d, HTTP %d, replayed %t", d, event, got.ID, result.Replayed)
		}
		d.Data += "x"
		if a.data += "x"; d.JSON {
			d.Data, a.data = "1", "1"
		}
		pub.Drafts[0] = d
		_, err := node.Publisher.PublishBatch(t.Context(), pub)
		wants(t, err, feed.ErrKeyReused)
		failsWith(t, c, "RJ422", a.sql("rejoin_append"), a.args()...)
	}
	// At the end of its window a key counts as new.
	runSQL(t, c, "SELECT rejoin_append_text('old', '', '1', idempotency_key => 'k')", "UPDATE rejoin.keys SET time = time - 3600000")
	if got := idFrom(t, c, "SELECT rejoin_append_text('old', '', '2', idempotency_key => 'k')"); got != 2 {
		t.Errorf("an expired key: got id %d, want 2", got)
	}
	if got := idFrom(t, c, "SELECT rejoin_append_text('old', '', '2', idempotency_key => 'k')"); got != 2 {
		t.Errorf("its successor: got id %d, want 2", got)
	}
	sound(t, url)
}
