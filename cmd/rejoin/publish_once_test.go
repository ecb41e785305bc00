package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestPublishOnce: what may or may not be stored is sent until that is known,
// and is there once.
func TestPublishOnce(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"connection lost":        vanishes,
		"no answer":              func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"half an answer":         halfAnswer,
		"the store does not say": away("unknown"),
		"a proxy's 503":          fails(503, nil),
		"a proxy's 504":          fails(504, nil),
		"an error of the server": fails(500, nil),
		"slow bytes":             fails(408, nil),
	} {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, stored: %t", name, after), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					k := &keeper{answers: []http.HandlerFunc{nil, answer, answer, nil, answer, nil, answer}, after: after}
					p, notes, _ := newScriptSender(t, k)
					if err := publishLines(t.Context(), p, "log", &lineReader{in: strings.NewReader("a\nb\nc\n")}, true); err != nil {
						t.Fatal(err)
					}
					if diff := cmp.Diff([]string{"a", "b", "c"}, k.data()); diff != "" || k.asked != 8 || !k.closed {
						t.Errorf("asked %d times, closed: %t\n%s", k.asked, k.closed, diff)
					}
					if !strings.HasSuffix(notes.String(), "rejoin: published 3 events to log, ids 1 to 3; the feed is closed\n") {
						t.Error(notes)
					}
				})
			})
		}
	}
}

func halfAnswer(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", "100")
	w.WriteHeader(http.StatusCreated)
	fmt.Fprint(w, `{"id":`)
}

// TestPublishGivesUp: servers forget keys in the end, after which sending an
// event again could store it twice.
func TestPublishGivesUp(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		first  http.HandlerFunc
		err    error
		within time.Duration
	}{
		{"unknown", vanishes, errUncertain, 23 * time.Hour},
		{"not stored", away("no"), errInterrupted, 72 * time.Hour},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				answers := []http.HandlerFunc{test.first}
				for range 10_000 {
					answers = append(answers, func(w http.ResponseWriter, r *http.Request) {
						w.Header().Set("Retry-After", "50") // days of asking every few seconds take seconds even here
						away("no")(w, r)
					})
				}
				p, _, _ := newScriptSender(t, &keeper{answers: answers})
				ctx, interrupt := context.WithTimeout(t.Context(), 72*time.Hour)
				defer interrupt()
				begin := time.Now()
				err := publishLines(ctx, p, "log", &lineReader{in: strings.NewReader("a\n")}, true)
				if took := time.Since(begin); !errors.Is(err, test.err) || took > test.within || took < test.within-time.Minute {
					t.Errorf("%v after %v", err, took)
				}
			})
		})
	}
}

// TestPublishKeyAndClose: the key is the caller's, or one that nobody else has.
func TestPublishKeyAndClose(t *testing.T) {
	k := &keeper{}
	for _, args := range [][]string{{"--key", "mine", "x"}, {"--key", "mine", "x"}, {"y"}, {"y"}, {"--close", "z"}} {
		if k.closed {
			t.Errorf("closed before %q", args)
		}
		if code, _, stderr, _ := publishArgs(t, k, nil, append([]string{"--feed", "log"}, args...)...); code != exitOK {
			t.Fatalf("%q: %s", args, stderr)
		}
	}
	if diff := cmp.Diff([]string{"x", "y", "y", "z"}, k.data()); diff != "" || !k.closed || k.keys[0] != "mine" {
		t.Errorf("keys %q, closed: %t\n%s", k.keys, k.closed, diff)
	}
	k = &keeper{}
	for range 2 {
		if code, _, stderr, _ := publishArgs(t, k, strings.NewReader("x\nx\n"), "--feed", "log"); code != exitOK || k.closed {
			t.Fatal(stderr)
		}
	}
	if diff := cmp.Diff([]string{"x", "x", "x", "x"}, k.data()); diff != "" {
		t.Error(diff)
	}
	if code, _, stderr, _ := publishArgs(t, k, strings.NewReader(""), "--feed", "log", "--close"); code != exitOK || !k.closed || stderr != "rejoin: published 0 events to log; the feed is closed\n" {
		t.Errorf("exit %d, closed: %t, %s", code, k.closed, stderr)
	}
}
