package auth_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/rejoin/rejoin/server/auth"
)

// TestForwardCache: an answer counts for the same question, and for no other. An answer to
// somebody else's question would be somebody else's rights.
func TestForwardCache(t *testing.T) {
	a := newAuthority(t, nil)
	f := openForward(t, auth.ForwardOptions{URL: a.url, Cache: time.Hour})
	other := facts
	other.Address = "192.0.2.8"
	for _, test := range []struct {
		name   string
		r      *http.Request
		action auth.Action
		feeds  []string
		facts  auth.Facts
		asks   bool
	}{
		{"nobody", visit("GET", "/"), auth.Subscribe, []string{"chat"}, facts, true},
		{"nobody again", visit("GET", "/"), auth.Subscribe, []string{"chat"}, facts, false},
		{"an empty cookie is not none", visit("GET", "/", "Cookie", ""), auth.Subscribe, []string{"chat"}, facts, true},
		{"an empty Authorization is not none", visit("GET", "/", "Authorization", ""), auth.Subscribe, []string{"chat"}, facts, true},
		{"a cookie", visit("GET", "/", "Cookie", "a=1; b=2"), auth.Subscribe, []string{"chat"}, facts, true},
		{"the same cookie", visit("GET", "/", "Cookie", "a=1; b=2"), auth.Subscribe, []string{"chat"}, facts, false},
		{"the same in two headers, which is sent alike", visit("GET", "/", "Cookie", "a=1", "Cookie", "b=2"), auth.Subscribe, []string{"chat"}, facts, false},
		{"in another order", visit("GET", "/", "Cookie", "b=2; a=1"), auth.Subscribe, []string{"chat"}, facts, true},
		{"two headers in another order", visit("GET", "/", "Cookie", "b=2", "Cookie", "a=1; "), auth.Subscribe, []string{"chat"}, facts, true},
		{"the cookie as a token", visit("GET", "/", "Authorization", "a=1; b=2"), auth.Subscribe, []string{"chat"}, facts, true},
		{"with a token as well", visit("GET", "/", "Cookie", "a=1; b=2", "Authorization", "Bearer x"), auth.Subscribe, []string{"chat"}, facts, true},
		{"with that token in the query, which is sent alike", visit("GET", "/?access_token=x", "Cookie", "a=1; b=2"), auth.Subscribe, []string{"chat"}, facts, false},
		// Who may read may not always write.
		{"another action", visit("GET", "/", "Cookie", "a=1; b=2"), auth.Publish, []string{"chat"}, facts, true},
		{"another method", visit("HEAD", "/", "Cookie", "a=1; b=2"), auth.Subscribe, []string{"chat"}, facts, true},
		{"another feed", visit("GET", "/", "Cookie", "a=1; b=2"), auth.Subscribe, []string{"news"}, facts, true},
		{"one more feed", visit("GET", "/", "Cookie", "a=1; b=2"), auth.Subscribe, []string{"chat", "news"}, facts, true},
		{"from another address", visit("GET", "/", "Cookie", "a=1; b=2"), auth.Subscribe, []string{"chat"}, other, true},
	} {
		before := a.count()
		identity, err := f.Identify(test.r, test.facts)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := identity.Grant(t.Context(), test.action, test.feeds...); err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		if asks := a.count() > before; asks != test.asks {
			t.Errorf("%s: it asks: %v", test.name, asks)
		}
	}
	if got := f.Stats(); got.Hits != 4 || got.Questions["allowed"] != uint64(a.count()) {
		t.Errorf("the counts are %+v after %d questions", got, a.count())
	}
}

// TestForwardCacheTimes: refusals are kept for a moment only, and answers no longer than
// they say.
func TestForwardCacheTimes(t *testing.T) {
	t.Parallel()
	again := func(t *testing.T, cache time.Duration, answer http.HandlerFunc) (asksAtOnce, asksLater, slow bool) {
		t.Helper()
		a := newAuthority(t, answer)
		f := openForward(t, auth.ForwardOptions{URL: a.url, Cache: cache})
		began := time.Now()
		_, _ = ask(t, f, visit("GET", "/"), auth.Subscribe, "chat")
		_, _ = ask(t, f, visit("GET", "/"), auth.Subscribe, "chat")
		asksAtOnce, slow = a.count() > 1, time.Since(began) > 900*time.Millisecond
		time.Sleep(1100 * time.Millisecond)
		before := a.count()
		_, _ = ask(t, f, visit("GET", "/"), auth.Subscribe, "chat")
		return asksAtOnce, a.count() > before, slow
	}
	t.Run("a refusal", func(t *testing.T) {
		t.Parallel()
		if now, later, slow := again(t, time.Hour, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) }); now && !slow || !later {
			t.Errorf("it asks at once: %v, a second later: %v", now, later)
		}
	})
	t.Run("no answer", func(t *testing.T) {
		t.Parallel()
		if now, _, _ := again(t, time.Hour, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }); !now {
			t.Error("it does not ask at once")
		}
	})
	t.Run("never", func(t *testing.T) {
		t.Parallel()
		if now, later, _ := again(t, 0, nil); !now || !later {
			t.Errorf("it asks at once: %v, a second later: %v", now, later)
		}
	})
	t.Run("an answer that ends", func(t *testing.T) {
		t.Parallel()
		if _, later, _ := again(t, time.Hour, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"exp":%d,"rejoin":{"subscribe":["*"]}}`, time.Now().Unix()+1)
		}); !later {
			t.Error("it counts for too long")
		}
	})
}

// TestForwardOnce: many who ask the same at once cost one question, and no more than the
// limit are under way.
func TestForwardOnce(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	var mu sync.Mutex
	under, most := 0, 0
	a := newAuthority(t, func(http.ResponseWriter, *http.Request) {
		mu.Lock()
		under++
		most = max(most, under)
		mu.Unlock()
		<-release
		mu.Lock()
		under--
		mu.Unlock()
	})
	f := openForward(t, auth.ForwardOptions{URL: a.url, Concurrency: 3, Timeout: time.Minute})
	var all, begun sync.WaitGroup
	begun.Add(500)
	for user := range 10 {
		for range 50 {
			all.Go(func() {
				begun.Done()
				if _, err := ask(t, f, visit("GET", "/", "Cookie", fmt.Sprint("user=", user)), auth.Subscribe, "chat"); err != nil {
					t.Error(err)
				}
			})
		}
	}
	for range 3 {
		<-a.received
	}
	begun.Wait()
	time.Sleep(50 * time.Millisecond) // for those that have not joined yet
	close(release)
	all.Wait()
	if a.count() > 30 || most != 3 {
		t.Errorf("%d questions, %d of them at once", a.count(), most)
	}
}

// TestForwardWaitingIsBounded: while the application hangs, what waits is bounded in
// number and in bytes, and a question that nobody waits for is not sent.
func TestForwardWaitingIsBounded(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	a := newAuthority(t, func(http.ResponseWriter, *http.Request) { <-release })
	f := openForward(t, auth.ForwardOptions{URL: a.url, Concurrency: 1, Timeout: time.Minute})
	waiting, leave := context.WithCancel(t.Context())
	defer leave()
	results := make(chan error, 10_000)
	start := func(ctx context.Context, user string) {
		identity, err := f.Identify(visit("GET", "/", "Cookie", user), facts)
		if err != nil {
			t.Error(err)
		}
		go func() {
			_, err := identity.Grant(ctx, auth.Subscribe, "chat")
			results <- err
		}()
	}
	start(t.Context(), "first")
	<-a.received
	const many = 5000
	for i := range many {
		start(waiting, fmt.Sprint("user=", i))
	}
	for range many - 4096 {
		if err := <-results; !errors.Is(err, auth.ErrUnavailable) {
			t.Fatalf("one too many gets %v", err)
		}
	}
	leave()
	for range 4096 {
		if err := <-results; !errors.Is(err, context.Canceled) {
			t.Fatalf("one that leaves gets %v", err)
		}
	}
	start(t.Context(), "last") // takes the place of those that have left
	close(release)
	for range 2 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	if a.count() != 2 {
		t.Errorf("%d questions were sent", a.count())
	}
}

// TestForwardRevokes: once the application has refused an open stream, nothing that it
// answered before, or was asked before, counts for these credentials.
func TestForwardRevokes(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, nil)
	f := openForward(t, auth.ForwardOptions{URL: a.url, Cache: time.Hour})
	open := func(feed string) (auth.Grant, error) {
		return ask(t, f, visit("GET", "/", "Cookie", "user=1"), auth.Subscribe, feed)
	}
	chat, err := open("chat")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := open("news"); err != nil {
		t.Fatal(err)
	}
	// A question about a third feed is under way, and will be answered with yes.
	arrived, release := make(chan struct{}), make(chan struct{})
	a.set(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Rejoin-Feeds") == "late" {
			close(arrived)
			<-release
			return
		}
		w.WriteHeader(401)
	})
	late := make(chan error, 1)
	go func() {
		_, err := open("late")
		late <- err
	}()
	<-arrived
	question, _ := chat.Question()
	if question.Clone().Key() != question.Key() {
		t.Error("a clone is another question")
	}
	if _, err := question.Clone().Again(t.Context()); !errors.Is(err, auth.ErrBadToken) {
		t.Fatalf("asked again: %v", err)
	}
	if !chat.Revoked() {
		t.Error("the grant is still good")
	}
	a.set(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) })
	close(release)
	if err := <-late; !errors.Is(err, auth.ErrBadToken) {
		t.Errorf("the answer to an earlier question counts: %v", err)
	}
	for _, feed := range []string{"chat", "news", "late"} {
		if _, err := open(feed); !errors.Is(err, auth.ErrBadToken) {
			t.Errorf("an earlier answer counts for %s: %v", feed, err)
		}
	}
	// Another visitor is not concerned, and this one may come back.
	a.set(nil)
	if g, err := ask(t, f, visit("GET", "/", "Cookie", "user=2"), auth.Subscribe, "chat"); err != nil || g.Revoked() {
		t.Error(err)
	}
	if g, err := open("back"); err != nil || g.Revoked() {
		t.Errorf("after a new login: %v", err)
	}
}
