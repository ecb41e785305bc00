package server_test

import (
	"bufio"
	"net/http"
	"strings"
	"testing"

	"github.com/rejoin/rejoin/server"
)

// TestLineLength: common client libraries fail at a line, or a block, of 64 KiB. They
// would come back and fail again. So no accepted event may become one, in any format of
// a stream, and all others must be accepted.
func TestLineLength(t *testing.T) {
	n := start(t, server.Options{}, nil)
	const most = 60_000
	name, kind := strings.Repeat("f", 255), strings.Repeat("t", 100)
	events := "/v1/feeds/" + name + "/events"
	largest := []struct {
		name, media, data, more string // more is one byte or character too many
	}{
		{"plain", "", strings.Repeat("x", most), "x"},
		{"line breaks", "", strings.Repeat("\n", most/7), "\n"},
		{"CR LF", "", strings.Repeat("\r\n", most/7), "\r\n"},
		{"control characters", "", strings.Repeat("\x01", most/6), "\x1f"},
		{"quotes", "", strings.Repeat(`"`, most/2), "x"},
		{"backslashes", "", strings.Repeat(`\`, most/2), `\`},
		{"tabs", "", strings.Repeat("\t", most/2), "\t"},
		{"line separators", "", strings.Repeat("\u2028", most/6), "\u2029"},
		{"letters of two bytes", "", strings.Repeat("ä", most/2), "ä"},
		{"JSON in text", "", strings.Repeat(`{"a":"\n"}`+"\t\x1b", most/23) + strings.Repeat("x", most%23), "x"}, // 12 bytes that become 23
		{"all in one", "", strings.Repeat("\n\"\\\t\x01\u2028x", most/(7+2+2+2+6+6+1)), strings.Repeat("\"", most/2)},
		{"a string in JSON", "application/json", `"` + strings.Repeat("x", most-2) + `"`, " "},
		{"quotes in JSON", "application/json", `"` + strings.Repeat(`\"`, most/2-1) + `"`, " "},
		{"line breaks of JSON", "application/json", "[" + strings.Repeat("\n", most/7-1) + "        ]", " "},
		{"line separators in JSON", "application/json", `"` + strings.Repeat("\u2028", (most-2)/3) + `"`, "   "},
	}
	for _, test := range largest {
		header := map[string]string{"Content-Type": test.media, "Event-Type": kind}
		if r, body := n.do("POST", events, header, test.data); r.StatusCode != http.StatusCreated {
			t.Fatalf("%s: %s %s", test.name, r.Status, body)
		}
		r, body := n.do("POST", events, header, test.data+test.more)
		wantProblem(t, r, body, http.StatusRequestEntityTooLarge, "the limit is 60000")
	}
	lines := map[string]string{"Accept": "application/x-ndjson"}
	for _, form := range []struct {
		path   string
		header map[string]string
	}{
		{events + "?from=start", nil},
		{events + "?from=start&envelope=true", nil},
		{"/v1/events?from=start&feed=" + name, nil},
		{events + "?from=start", lines},
		{"/v1/events?from=start&feed=" + name, lines},
	} {
		r := n.request("GET", form.path, form.header, "")
		defer r.Body.Close()
		read := bufio.NewReader(r.Body)
		block, seen, longest := 0, 0, 0
		for seen < len(largest)+1 { // with feed.open
			line, err := read.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			if len(line) >= 64<<10 {
				t.Errorf("%.40s %v: event %d has a line of %d bytes", form.path, form.header, seen, len(line))
			}
			if !strings.HasPrefix(line, "id: ") { // which may be 4 KiB, and is another line
				block += len(line)
			}
			if line == "\n" || form.header != nil {
				if block >= 64<<10 {
					t.Errorf("%.40s %v: event %d has %d bytes", form.path, form.header, seen, block)
				}
				longest = max(longest, block)
				block = 0
				seen++
			}
		}
		if longest < most {
			t.Errorf("the longest event has %d bytes only", longest)
		}
	}
}
