// Package demo is the server's part of the demo (rejoin serve --demo): answers that it
// writes word by word into feeds of their own. The pages are in package web.
package demo

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/web"
)

// Prefix begins the names of all feeds of the demo.
const Prefix = "demo:"

// Rules keep the feeds of the demo small. They come before the configured ones. An hour
// after its last event, a feed is empty. Its name, its last id and whether it is closed
// stay, as those of a deleted feed do: an id is never used twice.
var Rules = []feed.Rule{{Feeds: Prefix + "*", Age: time.Hour, Events: 1000}}

// How many answers may be written at one time.
const (
	answersPerVisitor = 2
	answersInAll      = 20
)

// Options configures a demo. The zero value has the defaults.
type Options struct {
	// Pause is the time between two words; 0 means 120 ms.
	Pause time.Duration
	// Visitor returns who sends a request, such as its address; nil means that all are
	// one.
	Visitor func(*http.Request) string
	// Logger receives messages for operators; nil means slog.Default.
	Logger *slog.Logger
}

// Demo writes answers. Its handler is for a server's Console.
type Demo struct {
	publisher  *feed.Publisher
	options    Options
	sameOrigin *http.CrossOriginProtection

	ctx    context.Context
	cancel context.CancelFunc
	writes sync.WaitGroup

	mu      sync.Mutex
	answers map[string]int // under way, by visitor
	all     int
}

// New returns a demo that publishes to publisher. The caller ends it with Close.
func New(publisher *feed.Publisher, o Options) *Demo {
	o.Pause = cmp.Or(o.Pause, 120*time.Millisecond)
	o.Logger = cmp.Or(o.Logger, slog.Default())
	d := &Demo{publisher: publisher, options: o, sameOrigin: http.NewCrossOriginProtection(), answers: make(map[string]int)}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	return d
}

// Close ends the answers that are being written, closes their feeds, and returns when
// that is done.
func (d *Demo) Close() {
	d.mu.Lock()
	d.cancel()
	d.mu.Unlock()
	d.writes.Wait()
}

// Handler returns a handler that begins an answer on POST /demo/answers, and leaves all
// else to pages.
func (d *Demo) Handler(pages http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/demo/answers" && r.Method == http.MethodPost {
			d.answer(w, r)
			return
		}
		pages.ServeHTTP(w, r)
	})
}

// answer begins an answer, and returns the name of its feed once the first word is
// stored.
func (d *Demo) answer(w http.ResponseWriter, r *http.Request) {
	if err := d.sameOrigin.Check(r); err != nil {
		web.Refuse(w, http.StatusForbidden, "pages of other origins cannot ask the demo")
		return
	}
	visitor := ""
	if d.options.Visitor != nil {
		visitor = d.options.Visitor(r)
	}
	if detail := d.begin(visitor); detail != "" {
		w.Header().Set("Retry-After", "5")
		web.Refuse(w, http.StatusTooManyRequests, detail)
		return
	}
	name := Prefix + "answer:" + strings.ToLower(rand.Text())
	words := strings.SplitAfter(text, " ")
	if err := d.say(r.Context(), name, 0, words[0]); err != nil {
		d.end(visitor)
		d.options.Logger.Warn("the demo cannot begin an answer", "feed", name, "error", err)
		w.Header().Set("Retry-After", "5")
		web.Refuse(w, http.StatusServiceUnavailable, "the answer cannot be stored right now")
		return
	}
	go func() {
		defer d.end(visitor)
		d.write(name, words)
	}()
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(http.StatusCreated)
	fmt.Fprintf(w, "{\"feed\":%q}\n", name) // an error means that the client has gone
}

// begin makes room for an answer, or returns why there is none.
func (d *Demo) begin(visitor string) (detail string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.ctx.Err() != nil:
		return "the server is stopping"
	case d.answers[visitor] >= answersPerVisitor:
		return fmt.Sprintf("%d answers are being written for you: stop one, or wait until it is complete", answersPerVisitor)
	case d.all >= answersInAll:
		return fmt.Sprintf("%d answers are being written for all visitors: wait until one is complete", answersInAll)
	}
	d.answers[visitor]++
	d.all++
	d.writes.Add(1)
	return ""
}

func (d *Demo) end(visitor string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.answers[visitor]--; d.answers[visitor] == 0 {
		delete(d.answers, visitor)
	}
	d.all--
	d.writes.Done()
}

// write publishes the words after the first, and closes the feed. It stops early if a
// visitor closes the feed, if the store is away for long, and when the demo is closed.
func (d *Demo) write(name string, words []string) {
	ticker := time.NewTicker(d.options.Pause)
	defer ticker.Stop()
	for i, word := range words[1:] {
		select {
		case <-ticker.C:
		case <-d.ctx.Done():
		}
		err := d.ctx.Err()
		if err == nil {
			err = d.say(d.ctx, name, i+1, word)
		}
		if errors.Is(err, feed.ErrClosed) {
			return
		}
		if err != nil {
			d.options.Logger.Debug("the demo ends an answer early", "feed", name, "error", err)
			break
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if _, err := d.publisher.PublishBatch(ctx, feed.Publication{Feed: name, Close: true}); err != nil {
		d.options.Logger.Warn("the demo cannot close an answer", "feed", name, "error", err)
	}
}

// patience is how long an answer waits for its store.
const patience = 10 * time.Second

// say publishes a word until it is stored. The key makes sure that it is stored once.
func (d *Demo) say(ctx context.Context, name string, i int, word string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		_, err := d.publisher.PublishBatch(ctx, feed.Publication{
			Feed: name, Drafts: []feed.Draft{{Feed: name, Data: word}}, Key: fmt.Sprint("word-", i),
		})
		if !errors.Is(err, feed.ErrUnavailable) && !errors.Is(err, feed.ErrUncertain) && !errors.Is(err, feed.ErrOverloaded) {
			return err
		}
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
}

const text = "A program on the server writes this answer, one word at a time. " +
	"Each word is an event of a feed: it is stored, gets the next number, and goes to everybody who reads the feed. " +
	"Reload this page now, in the middle of the sentence. " +
	"The page asks for the feed from its start, gets every word that is there already, and goes on with those that come. " +
	"Or open the address of this page in another window: both read the same feed, and neither slows the other down. " +
	"The program does not know who reads, and does not wait for anybody. " +
	"If you press Stop, the feed is closed: its readers see the end, and the program learns it with its next word. " +
	"After the last word, the program closes the feed itself. " +
	"Whoever comes later gets the whole answer, and the end."
