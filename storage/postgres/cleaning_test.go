package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/storage/memory"
)

var (
	texts = []string{"\n", "\r", "\r\n", `"`, `\`, "\t", "\b", "\f", "\x01", "\x1f", " ", "x", "abcdefgh", "\x7f", "ä", "\u2027", "\u2028", "\u2029", "\u202a", "€", "𝒶", "\ufeff", "{", "["}
	jsons = []string{"1", `"a\"\\"`, "\"\u2028\"", "[]", "{}", "[\r\n1,\n2]", "\n", "\r\n", " ", `{"a":[null]}`, `"[[["`, "[1", "]"}
	names = []string{"a", "Z", "0", ".", "_", ":", "@", "~", "-", "/", " ", "feed.", "open", "error", "message", "ä", "\n", "\t", "!", strings.Repeat("x", 50)}
)

func pick(rng *rand.Rand, from ...string) string { return from[rng.IntN(len(from))] }

func random(rng *rand.Rand, pieces []string, most int) string {
	var b strings.Builder
	for range rng.IntN(most) {
		b.WriteString(pick(rng, pieces...))
	}
	return b.String()
}

func quoted(d feed.Draft) string { return fmt.Sprintf("%q %q %q %t", d.Feed, d.Type, d.Data, d.JSON) }

// recorder is a store that keeps the last draft.
type recorder struct {
	feed.Store
	last feed.Draft
}

func (r *recorder) ID() string { return "recorder" }

func (r *recorder) Append(_ context.Context, batches []feed.Batch) ([]feed.Result, error) {
	in := feed.AppendInput{Feeds: map[string]*feed.FeedRow{}}
	for _, b := range batches {
		r.last = b.Drafts[0]
		in.Feeds[r.last.Feed] = &feed.FeedRow{}
	}
	return feed.PlanAppend(batches, in).Results, nil
}

// Thousands of drafts are cleaned alike in Go and in SQL, or refused with the same
// words.
func TestCleaning(t *testing.T) {
	t.Parallel()
	const limit, rounds = 150, 6000
	url := newDatabase(t)
	start(t, url, Options{})
	c := connect(t, url)
	store, bus := &recorder{}, memory.NewBus()
	hub := feed.NewHub(store, bus, feed.HubOptions{Logger: slog.New(slog.DiscardHandler)})
	publisher := feed.NewPublisher(store, hub, bus, feed.PublisherOptions{EventBytes: limit})
	t.Cleanup(func() { publisher.Close(); hub.Close(); bus.Close() })
	rng := rand.New(rand.NewPCG(1, 2))
	refusals := map[string]int{}
	for range rounds {
		d := feed.Draft{Feed: "a", Data: "x"}
		key := ""
		switch rng.IntN(6) {
		case 0:
			d.Feed = random(rng, names, 8)
		case 1:
			d.Type = random(rng, names, 5)
		case 2:
			key = random(rng, names, 8)
		case 3:
			if d.JSON, d.Data = true, random(rng, jsons, 25); !feed.ValidJSON(d.Data) {
				continue // Postgres judges that
			}
		default:
			d.Data = random(rng, texts, 90)
		}
		_, err := publisher.PublishBatch(t.Context(), feed.Publication{Feed: d.Feed, Drafts: []feed.Draft{d}, Key: key})
		if d.Feed == "" {
			_, err = publisher.Publish(t.Context(), d)
		}
		var got feed.Draft
		var gotKey *string
		sqlErr := c.QueryRow(t.Context(), "SELECT rejoin.checked_feed($1), rejoin.clean_type($2), rejoin.clean_data($3, $4, $5), rejoin.checked_key(nullif($6, ''))",
			d.Feed, d.Type, d.Data, d.JSON, limit, key).Scan(&got.Feed, &got.Type, &got.Data, &gotKey)
		if err == nil {
			want := store.last
			want.JSON = false
			if sqlErr != nil || got != want {
				t.Fatalf("%s: got %s, %v; want %s", quoted(d), quoted(got), sqlErr, quoted(want))
			}
			continue
		}
		code, prefix := "RJ400", "invalid: "
		if errors.Is(err, feed.ErrTooLarge) {
			code, prefix = "RJ413", "too large: "
		}
		e, ok := errors.AsType[*pgconn.PgError](sqlErr)
		if !ok || e.Code != code {
			t.Fatalf("%s: got %v, want %v", quoted(d), sqlErr, err)
		}
		// Postgres quotes a refused value with other escapes, so only the text before
		// it is the same.
		want, _, _ := strings.Cut(strings.TrimPrefix(err.Error(), prefix), `"`)
		if !utf8.ValidString(e.Message) || !strings.HasPrefix(e.Message, strings.TrimSuffix(want, " ")) {
			t.Fatalf("%s: got %q, want %q", quoted(d), e.Message, want)
		}
		refusals[code]++
	}
	if refusals["RJ400"] < 500 || refusals["RJ413"] < 500 {
		t.Errorf("too few were refused: %v", refusals)
	}
}
