package main

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/feedtest"
	"github.com/rejoin/rejoin/server"
	"github.com/rejoin/rejoin/storage/sqlite"
)

func TestRetention(t *testing.T) {
	want := []feed.Rule{{Feeds: "chat:*", Age: 720 * time.Hour, Events: 100000}, {Feeds: "news", Events: 1000}, {Feeds: "*", Age: time.Second}}
	for _, file := range []string{
		`retention: [{feeds: "chat:*", age: 720h, events: 100000}, {feeds: news, events: 1000}, {feeds: "*", age: 1s}]`,
		"retention:\n  - feeds: chat:*\n    age: 720h\n    events: 100000\n  - feeds: news\n    events: '1000'\n  - {feeds: '*', age: 1000ms}",
		`retention: "feeds=chat:* age=720h events=100000, feeds=news events=1000,feeds=* age=1s"`,
	} {
		c, err := load(t, file)
		if err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(want, c.Retention); diff != "" {
			t.Errorf("%s: %s", file, diff)
		}
	}
	for _, file := range []string{"", "retention: []", "retention:"} {
		if c, err := load(t, file); err != nil || c.Retention != nil {
			t.Errorf("%s: %v, %v", file, c.Retention, err)
		}
	}
	t.Setenv("REJOIN_RETENTION", "events=5   feeds=a")
	c, err := load(t, "retention: [{feeds: b, events: 6}]")
	if diff := cmp.Diff([]feed.Rule{{Feeds: "a", Events: 5}}, c.Retention); diff != "" || err != nil {
		t.Errorf("the environment wins over the file: %v, %s", err, diff)
	}
}

func TestRetentionFaults(t *testing.T) {
	for file, fault := range map[string]string{
		"retention: 5":                   "retention: it is a list of rules",
		"retention: {feeds: a, age: 1h}": "retention.age: no such key\nretention.feeds: no such key\nretention: it is a list of rules",
		"retention: [a]":                 "retention[0]: it is a section",
		"retention: [[a]]":               "retention[0]: it is a section",
		"retention: [{feeds: a, events: 1}, {feeds: b, age: 1}]":  `retention[1].age: "1" is not a duration`,
		"retention: [{feeds: a, age: -1h}]":                       "retention[0].age: -1h0m0s is less than 1s",
		"retention: [{feeds: a, age: 0s}]":                        "retention[0].age: 0s is less than 1s",
		"retention: [{feeds: a, age: 30 d}]":                      `retention[0].age: "30 d" is not a duration`,
		"retention: [{feeds: a, age: [1h]}]":                      "retention[0].age: it takes one value",
		"retention: [{feeds: a, events: -1}]":                     `retention[0].events: "-1" is not a whole number from 1`,
		"retention: [{feeds: a, events: 0}]":                      `retention[0].events: "0" is not a whole number from 1`,
		"retention: [{feeds: a, events: 1.5}]":                    `retention[0].events: "1.5" is not a whole number from 1`,
		"retention: [{feeds: a, events: 99999999999999999999}]":   "retention[0].events: ",
		"retention: [{feeds: a, events: }]":                       "retention[0].events: it takes one value",
		"retention: [{feeds: a}]":                                 "retention[0]: it has neither age nor events",
		"retention: [{events: 1}]":                                "retention[0].feeds: it is missing",
		"retention: [{}]":                                         "retention[0].feeds: it is missing\nretention[0]: it has neither",
		"retention: [{feeds: 'a*b', events: 1}]":                  "retention[0].feeds: a pattern is a feed name",
		"retention: [{feeds: '**', events: 1}]":                   "retention[0].feeds: a pattern is a feed name",
		"retention: [{feeds: 'a, b', events: 1}]":                 "retention[0].feeds: a pattern is a feed name",
		"retention: [{feed: a, events: 1}]":                       "retention[0].feed: no such member",
		"retention: [{feeds: a, max: 1, age: x}]":                 "retention[0].age:\nretention[0].max: no such member",
		"retention: [{feeds: -a, events: 1}, {feeds: b, age: 1}]": "retention[0].feeds:\nretention[1].age:",
		"retention: feeds=a age=1h,":                              "retention[1].feeds: it is missing\nretention[1]: it has neither",
		"retention: feeds=a 1h":                                   `retention[0]: "1h" is not a member`,
		"retention: feeds=a age=1h age=2h":                        `retention[0]: "age=2h" is not a member such as age=30d, given once`,
		"retention: feeds=a;age=1h":                               "retention[0].feeds: a pattern\nretention[0]: it has neither",
	} {
		t.Run(file, func(t *testing.T) {
			_, err := load(t, file)
			wantFaults(t, err, strings.Split(fault, "\n")...)
		})
	}
}

// TestRetentionRuns: a node trims its feeds by their rules, and leaves a feed without
// a rule alone.
func TestRetentionRuns(t *testing.T) {
	t.Parallel() // it waits for a round of the retention
	store, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "rejoin.db"), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	c := DefaultConfig()
	c.Retention = []feed.Rule{{Feeds: "chat:*", Events: 3}}
	n, err := openNode(t.Context(), store, c, nil, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := n.close(); err != nil {
			t.Error(err)
		}
	}()
	for _, name := range []string{"chat:42", "news"} {
		for range 10 {
			if _, err := n.feeds.Publisher.Publish(t.Context(), feed.Draft{Feed: name, Data: "x"}); err != nil {
				t.Fatal(err)
			}
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		bounds, err := store.Bounds(ctx, []string{"chat:42", "news"})
		if err != nil {
			t.Fatal(err)
		}
		if bounds[0].First == 8 {
			if bounds[1].First != 1 {
				t.Errorf("a feed without a rule was trimmed: %+v", bounds[1])
			}
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("not looked after within 30s: %+v", bounds)
		}
		time.Sleep(50 * time.Millisecond) // until the next round
	}
}

func TestStoreWithoutRetention(t *testing.T) {
	store := struct{ feed.Store }{feedtest.NewStore()}
	_, err := openNode(t.Context(), store, DefaultConfig(), nil, nil, slog.New(slog.DiscardHandler))
	if !errors.Is(err, errors.ErrUnsupported) || !strings.HasPrefix(err.Error(), "start feeds: ") {
		t.Errorf("got %v", err)
	}
}

// TestRetentionOfTheDemo: the rule of the demo's feeds precedes the configured ones.
func TestRetentionOfTheDemo(t *testing.T) {
	n, c := &node{appends: server.NewAppends()}, DefaultConfig()
	c.Retention = []feed.Rule{{Feeds: "*", Age: 24 * time.Hour}}
	for on, want := range map[bool]string{false: "*", true: "demo:*"} {
		c.Server.Demo = on
		if rules := n.feedOptions(c, slog.New(slog.DiscardHandler)).Rules; rules[0].Feeds != want || rules[len(rules)-1].Feeds != "*" {
			t.Errorf("with server.demo %t, the rules are %+v", on, rules)
		}
	}
}
