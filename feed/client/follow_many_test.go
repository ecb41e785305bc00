package client

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rejoin/rejoin/feed/client/clienttest"
)

func TestFollowMany(t *testing.T) {
	got, script := followScript(t, both,
		fails(503, nil),
		breaks(openedAt("chat=0,news=41"), wrapped("chat", 1, `"one"`, "chat=1,news=41"), wrapped("news", 42, `"n\nd"`, "chat=1,news=42"), "data: {"),
		breaks(openedAt("chat=1,news=42"), "data: "+`{"feed":"chat","type":"typing","time":"2026-01-31T09:30:00.000Z","data":"ann"}`+"\n\n",
			wrapped("chat", 2, `{"a": [1]}`, "news=42,chat=2"), closed("chat", 2, "chat=2,news=42")),
		// On each connection, the server repeats that a feed is closed.
		breaks(openedAt("chat=2,news=42"), closed("chat", 2, "chat=2,news=42"),
			wrapped("news", 43, `""`, "chat=2,news=43"), control("cursor", `{"feed":"chat","cursor":"2"}`, "chat=2,news=43")),
		sends(openedAt("chat=2,news=43"), control("live", "{}", ""), control("later", "{}", ""), closed("news", 43, "chat=2,news=43")),
	)
	if got.err != nil {
		t.Error(got.err)
	}
	if diff := cmp.Diff([]string{
		`chat 1 ":one" at chat=1,news=41`, `news 42 ":n\nd" at chat=1,news=42`,
		`chat "typing:ann" at chat=1,news=42`, `chat 2 ":{\"a\": [1]}" at news=42,chat=2`, "feed.closed chat 2 at chat=2,news=42",
		`news 43 ":" at chat=2,news=43`, "feed.cursor at chat=2,news=43",
		"feed.live at chat=2,news=43", "feed.later at chat=2,news=43", "feed.closed news 43 at chat=2,news=43",
	}, got.lines); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"start", "start", "chat=1,news=42", "chat=2,news=42", "chat=2,news=43"}, script.Cursors()); diff != "" {
		t.Error(diff)
	}
}

// TestFollowManyHoldsServerToItsPromise: the client refuses an event at the wrong
// place in its feed. It also refuses a cursor that contradicts the events, with which
// the next connection would lose some.
func TestFollowManyHoldsServerToItsPromise(t *testing.T) {
	for name, blocks := range map[string][]string{
		"another cursor":                 {openedAt("chat=1,news=3")},
		"half a cursor":                  {openedAt("chat=1")},
		"the cursor of one feed":         {openedAt("1")},
		"a feed twice":                   {openedAt("chat=1,news=2,news=2")},
		"a feed more":                    {openedAt("chat=1,news=2,x=0")},
		"an event again":                 {openedAt("chat=1,news=2"), wrapped("news", 2, `"x"`, "chat=1,news=2")},
		"an event left out":              {openedAt("chat=1,news=2"), wrapped("news", 4, `"x"`, "chat=1,news=4")},
		"an envelope of another id":      {openedAt("chat=1,news=2"), wrapped("news", 4, `"x"`, "chat=1,news=3")},
		"an envelope of another feed":    {openedAt("chat=1,news=2"), wrapped("x", 3, `"x"`, "chat=1,news=3")},
		"a cursor that stays":            {openedAt("chat=1,news=2"), wrapped("news", 3, `"x"`, "chat=1,news=2")},
		"no cursor":                      {openedAt("chat=1,news=2"), "data: " + clienttest.Envelope("news", 3, `"x"`) + "\n\n"},
		"no id":                          {openedAt("chat=1,news=2"), "data: {\"feed\":\"news\",\"data\":1}\nid: chat=1,news=3\n\n"},
		"no envelope":                    {openedAt("chat=1,news=2"), "data: x\nid: chat=1,news=3\n\n"},
		"the other feed moves":           {openedAt("chat=1,news=2"), wrapped("news", 3, `"x"`, "chat=2,news=3")},
		"the other feed moves back":      {openedAt("chat=1,news=2"), wrapped("news", 3, `"x"`, "chat=0,news=3")},
		"a cursor moves":                 {openedAt("chat=1,news=2"), control("cursor", `{"feed":"chat","cursor":"2"}`, "chat=2,news=2")},
		"a cursor without an id":         {openedAt("chat=1,news=2"), control("cursor", `{"feed":"chat","cursor":"1"}`, "")},
		"a gap of no feed":               {openedAt("chat=1,news=2"), control("gap", `{"after":"2","resumes":4,"reason":"trimmed"}`, "chat=1,news=3")},
		"a gap that moves the other":     {openedAt("chat=1,news=2"), gap("news", 2, 4, "trimmed", "chat=2,news=3")},
		"a feed closed with more left":   {openedAt("chat=1,news=2"), closed("news", 3, "chat=1,news=3")},
		"a feed goes on that was closed": {openedAt("chat=1,news=2"), closed("news", 2, "chat=1,news=2"), wrapped("news", 3, `"x"`, "chat=1,news=3")},
	} {
		t.Run(name, func(t *testing.T) {
			first := breaks(openedAt("chat=0,news=2"), wrapped("chat", 1, `"one"`, "chat=1,news=2"))
			got, _ := followScript(t, both.at("chat=0,news=2"), first, breaks(blocks...), delivered)
			if !errors.Is(got.err, ErrViolation) || got.lines[0] != `chat 1 ":one" at chat=1,news=2` {
				t.Errorf("got %q and %v", got.lines, got.err)
			}
			for _, line := range got.lines[1:] {
				if line != "feed.closed news 2 at chat=1,news=2" {
					t.Errorf("got %q", line)
				}
			}
		})
	}
}

func TestFollowManyGap(t *testing.T) {
	got, script := followScript(t, both.at("chat=9,news=2"),
		breaks(openedAt("chat=9,news=2"), closed("chat", 9, "chat=9,news=2"), gap("news", 2, 6, "trimmed", "chat=9,news=5"), wrapped("news", 6, `"six"`, "chat=9,news=6")),
		breaks(openedAt("chat=9,news=6"), gap("chat", 9, 4, "ahead", "chat=3,news=6"), wrapped("chat", 4, `"four"`, "chat=4,news=6")),
		delivered)
	if diff := cmp.Diff([]string{
		"feed.closed chat 9 at chat=9,news=2", "gap of news, trimmed: after 2, resumes 6 at chat=9,news=5", `news 6 ":six" at chat=9,news=6`,
		"gap of chat, ahead: after 9, resumes 4 at chat=3,news=6", `chat 4 ":four" at chat=4,news=6`,
		"feed.closed chat 4 at chat=4,news=6", "feed.closed news 6 at chat=4,news=6",
	}, got.lines); diff != "" || got.err != nil {
		t.Error(diff, got.err)
	}
	if diff := cmp.Diff([]string{"chat=9,news=2", "chat=9,news=6", "chat=4,news=6"}, script.Cursors()); diff != "" {
		t.Error(diff)
	}
}
