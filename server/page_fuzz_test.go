package server_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/rejoin/rejoin/feed"
)

// FuzzPage asks for pages with any query: the answer is a page that keeps the contract,
// or names the error in the request.
func FuzzPage(f *testing.F) {
	for _, query := range []string{
		"", "after=3&limit=2", "before=9&limit=3", "after=1&before=2", "wait=1m&after=9", "wait=30", "gap=fail&after=1", "gap=fail&after=99",
		"from=-2&wait=1s", "from=start", "from=2026-01-31T09:30:00Z", "from=now", "lastEventId=4&access_token=secret", "last_event_id=x",
		"before=9223372036854775807&limit=1000", "after=9223372036854775807", "limit=%zz", "types=a", "after=3;before=4", "limit=1&limit=2",
	} {
		f.Add("open", query, "", "")
		f.Add("closed", query, "4", `"x"`)
	}
	s := fuzzedServer(f)
	s.Drain(f.Context(), 0) // so that nothing waits

	f.Fuzz(func(t *testing.T, name, query, lastEventID, known string) {
		r := httptest.NewRequest("GET", "/v1/feeds/x/events", nil)
		r.URL.Path, r.URL.RawQuery = "/v1/feeds/"+name+"/events", query
		r.Header = http.Header{"Accept": {"application/json"}, "Last-Event-ID": {lastEventID}, "If-None-Match": {known}}
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		switch w.Code {
		case http.StatusOK:
			checkAnyPage(t, w)
		case http.StatusNotModified:
			if w.Body.Len() > 0 {
				t.Errorf("304 with %q", w.Body)
			}
		case http.StatusBadRequest, http.StatusGone, http.StatusNotFound:
		default:
			t.Errorf("%d %s", w.Code, w.Body)
		}
		if strings.Contains(w.Header().Get("Link"), "access_token") {
			t.Errorf("Link: %s", w.Header().Get("Link"))
		}
	})
}

// checkAnyPage checks what holds for every page of a feed that keeps at most the
// events 4 to 12.
func checkAnyPage(t *testing.T, w *httptest.ResponseRecorder) {
	t.Helper()
	p := page{links: links(t, w.Result())}
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		t.Fatalf("%v in %s", err, w.Body)
	}
	cursor, err := feed.ParseCursor(p.Cursor)
	if err != nil {
		t.Error(err)
	}
	low, high := p.ids(t)
	if len(p.Events) > 0 && (low < p.First || high > p.Last || cursor != high || len(p.Events) > 1000) {
		t.Errorf("%d to %d: %s", low, high, w.Body)
	}
	if (p.links["next"] != "") != (len(p.Events) > 0 && high < p.Last || len(p.Events) == 0 && p.Last > 0 && cursor < p.Last) {
		t.Errorf("next is %q for %s", p.links["next"], w.Body)
	}
	if (p.links["prev"] != "") != (len(p.Events) > 0 && low > p.First || len(p.Events) == 0 && p.Last > 0 && cursor >= p.First) {
		t.Errorf("prev is %q for %s", p.links["prev"], w.Body)
	}
	if w.Header().Get("Content-Length") != strconv.Itoa(w.Body.Len()) {
		t.Errorf("Content-Length %s for %d bytes", w.Header().Get("Content-Length"), w.Body.Len())
	}
}
