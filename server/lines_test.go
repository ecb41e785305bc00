package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/rejoin/rejoin/feed"
)

func TestParseLines(t *testing.T) {
	for _, test := range []struct {
		body string
		want []feed.Draft
	}{
		{`{"data":"x"}`, []feed.Draft{{Feed: "chat", Data: "x"}}},
		{`{"data":""}`, []feed.Draft{{Feed: "chat"}}},
		{`{"type":"","data":"x"}`, []feed.Draft{{Feed: "chat", Data: "x"}}},
		{`{"data":"x","feed":"chat","type":"t"}`, []feed.Draft{{Feed: "chat", Type: "t", Data: "x"}}},
		{`{"d\u0061ta":1}`, []feed.Draft{{Feed: "chat", Data: "1", JSON: true}}},
		{"\n \t\r\n" + `{"data":1}` + "\r\n\r\n" + `{"data":[]}` + "\n\n", []feed.Draft{{Feed: "chat", Data: "1", JSON: true}, {Feed: "chat", Data: "[]", JSON: true}}},
		// The data is kept byte for byte.
		{`{"data": {"b":1.0,"a":1e2, "a":"\ud800\u0000\/<"} }`, []feed.Draft{{Feed: "chat", Data: `{"b":1.0,"a":1e2, "a":"\ud800\u0000\/<"}`, JSON: true}}},
		{`{"data":123456789012345678901234567890.10}`, []feed.Draft{{Feed: "chat", Data: "123456789012345678901234567890.10", JSON: true}}},
		{`{"data":null}`, []feed.Draft{{Feed: "chat", Data: "null", JSON: true}}},
		{`{"data":false}`, []feed.Draft{{Feed: "chat", Data: "false", JSON: true}}},
		// Text.
		{`{"data":"\ud83d\ude80\\ud800\n\"\ufffd` + "\uFFFD" + `"}`, []feed.Draft{{Feed: "chat", Data: "🚀\\ud800\n\"\uFFFD\uFFFD"}}},
		{`{"data":"\u0000"}`, []feed.Draft{{Feed: "chat", Data: "\x00"}}}, // for the publisher to refuse
	} {
		got, err := parseLines([]byte(test.body), "chat", 10)
		if diff := cmp.Diff(test.want, got.drafts); diff != "" || err != nil {
			t.Errorf("%s: %v\n%s", test.body, err, diff)
		}
	}
}

// TestBadLines: the server refuses each with an error that names the line and the
// mistake.
func TestBadLines(t *testing.T) {
	for body, words := range map[string]string{
		"":                      "no events",
		"\n \n":                 "no events",
		`x`:                     "line 1: it is not JSON",
		`{"data":1`:             "line 1: it is not JSON",
		`{"data":1,}`:           "line 1: it is not JSON",
		`{"data":1} x`:          "line 1: it is not JSON",
		`{"data":1}{"data":2}`:  "line 1: it is not JSON",
		`{"data":NaN}`:          "line 1: it is not JSON",
		`{"data":01}`:           "line 1: it is not JSON",
		"\uFEFF" + `{"data":1}`: "line 1: it is not JSON",
		"{\"data\":\"a\tb\"}":   "line 1: it is not JSON",
		"{\"data\":\n1}":        "line 1: it is not JSON",
		`{"data":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + `}`: "line 1: it is not JSON",
		"{\"data\":\"\xff\"}":                   "line 1: it is not UTF-8",
		"{\"data\":{\"a\":\"\xed\xa0\x80\"}}":   "line 1: it is not UTF-8",
		`[]`:                                    "line 1: it is not a JSON object",
		`null`:                                  "line 1: it is not a JSON object",
		`"data"`:                                "line 1: it is not a JSON object",
		`{}`:                                    `line 1: the member "data" is missing`,
		`{"type":"t"}`:                          `line 1: the member "data" is missing`,
		`{"data":1,"id":2}`:                     `line 1: the member "id" is unknown`,
		`{"Data":1}`:                            `line 1: the member "Data" is unknown`,
		`{"data":1,"":2}`:                       `line 1: the member "" is unknown`,
		`{"data":1,"\ud800":2}`:                 "line 1: the member \"\uFFFD\" is unknown",
		`{"data":1,"data":1}`:                   `line 1: the member "data" occurs twice`,
		`{"data":null,"data":1}`:                `line 1: the member "data" occurs twice`,
		`{"type":"a","t\u0079pe":"a","data":1}`: `line 1: the member "type" occurs twice`,
		`{"type":null,"data":1}`:                `line 1: the member "type" is not a string`,
		`{"type":7,"data":1}`:                   `line 1: the member "type" is not a string`,
		`{"feed":["chat"],"data":1}`:            `line 1: the member "feed" is not a string`,
		`{"feed":"news","data":1}`:              `line 1: it is for the feed "news"`,
		`{"feed":"","data":1}`:                  `line 1: it is for the feed ""`,
		`{"data":"\ud800"}`:                     `line 1: the member "data" has an escape for half a character`,
		`{"data":"\udc00\ud800"}`:               `line 1: the member "data" has an escape for half a character`,
		`{"data":"\ud800\n\udc00"}`:             `line 1: the member "data" has an escape for half a character`,
		`{"data":"\\\ud83dx\ude80"}`:            `line 1: the member "data" has an escape for half a character`,
		`{"type":"\uD800","data":1}`:            `line 1: the member "type" has an escape for half a character`,
		"{\"data\":1}\n\n\r\nx":                 "line 4: it is not JSON",
		strings.Repeat("{\"data\":1}\n", 11):    "the batch has more than 10 events",
	} {
		l, err := parseLines([]byte(body), "chat", 10)
		if err == nil || !strings.Contains(detailOf(err), words) || !errors.Is(err, feed.ErrInvalid) && !errors.Is(err, feed.ErrTooLarge) {
			t.Errorf("%.60q: %v and %v, want %q", body, l, err, words)
		}
	}
}

// FuzzParseLines compares accepted lines with what encoding/json returns.
func FuzzParseLines(f *testing.F) {
	f.Add([]byte(`{"data":"x"}`), false)
	f.Add([]byte("{\"feed\":\"chat\",\"type\":\"t\",\"data\":{\"a\":[1,null]}}\r\n\n{\"feed\":\"b\",\"data\":\"\\ud83d\\ude80\"}"), true)
	f.Add([]byte(`{"data":"\ud800\\u0000"}`), false)
	f.Add([]byte(`{"d\u0061ta":1,"data":2}`), false)
	f.Fuzz(func(t *testing.T, body []byte, many bool) {
		name := "chat"
		if many {
			name = ""
		}
		l, err := parseLines(body, name, 5)
		if err != nil {
			if len(l.drafts) > 0 || !errors.Is(err, feed.ErrInvalid) && !errors.Is(err, feed.ErrTooLarge) {
				t.Fatalf("%v with %v", l, err)
			}
			return
		}
		if len(l.drafts) == 0 || len(l.drafts) > 5 || len(l.numbers) != len(l.drafts) {
			t.Fatalf("%v", l)
		}
		all := bytes.Split(body, []byte("\n"))
		spoken := make(map[int]bool)
		for i, d := range l.drafts {
			spoken[l.numbers[i]] = true
			if err := sameDraft(d, all[l.numbers[i]-1], name); err != nil {
				t.Fatalf("%+v of %q: %v", d, all[l.numbers[i]-1], err)
			}
		}
		for i, line := range all {
			if !spoken[i+1] && len(bytes.TrimSpace(line)) > 0 {
				t.Fatalf("line %d was dropped: %q", i+1, line)
			}
		}
	})
}

func sameDraft(d feed.Draft, line []byte, name string) error {
	var object struct {
		Feed *string
		Type string
		Data json.RawMessage
	}
	strict := json.NewDecoder(bytes.NewReader(line))
	strict.DisallowUnknownFields()
	if err := strict.Decode(&object); err != nil {
		return err
	}
	if object.Feed != nil {
		name = *object.Feed
	}
	switch {
	case d.Feed != name, d.Type != object.Type:
		return fmt.Errorf("want feed %q and type %q", name, object.Type)
	case d.JSON:
		if d.Data != string(object.Data) || d.Data[0] == '"' || !bytes.Contains(line, []byte(d.Data)) {
			return fmt.Errorf("want %s", object.Data)
		}
		return nil
	case !utf8.ValidString(d.Data):
		return errors.New("it is not UTF-8")
	}
	var text string
	if err := json.Unmarshal(object.Data, &text); err != nil || text != d.Data {
		return fmt.Errorf("want %q, %v", text, err)
	}
	written := strings.Count(string(line), "\uFFFD") + strings.Count(strings.ToLower(string(line)), `\ufffd`)
	if strings.Count(text, "\uFFFD") > written {
		return errors.New("half a character became another")
	}
	return nil
}

func BenchmarkParseLines(b *testing.B) {
	body := []byte(strings.Repeat(`{"type":"message.edited","data":{"text":"`+strings.Repeat("x", 80)+`"}}`+"\n", 1000))
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		if _, err := parseLines(body, "chat", 1000); err != nil {
			b.Fatal(err)
		}
	}
}
