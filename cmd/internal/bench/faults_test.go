package bench

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed/client"
)

// faultyServer speaks as much HTTP as a run needs, and does not always
// do what it should.
type faultyServer struct {
	// send returns what subscribers get once the event is published: each with the
	// number of the event whose data it has, and with an id.
	send func(id int) []sentEvent
	// answer returns the status and the id with which a publish is answered.
	answer func(id int) (status int, told int)
	endsAt int // the event behind which streams end; 0 for none

	mu    sync.Mutex
	feeds map[string]*faultyFeed
}

type sentEvent struct {
	id   string
	data int
}

type faultyFeed struct {
	data    []string
	streams []chan string
}

// asItShould sends an event as it is.
func asItShould(id int) []sentEvent { return []sentEvent{{fmt.Sprint(id), id}} }

// instead sends something else in the place of event 5.
func instead(sent ...sentEvent) func(int) []sentEvent {
	return func(id int) []sentEvent {
		if id == 5 {
			return sent
		}
		return asItShould(id)
	}
}

func accepts(id int) (int, int) { return http.StatusCreated, id }

func (f *faultyServer) feed(name string) *faultyFeed {
	if f.feeds == nil {
		f.feeds = make(map[string]*faultyFeed)
	}
	if f.feeds[name] == nil {
		f.feeds[name] = &faultyFeed{}
	}
	return f.feeds[name]
}

func (f *faultyServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost {
		f.publish(w, r)
		return
	}
	stream := make(chan string, 1000)
	f.mu.Lock()
	feed := f.feed(r.URL.Path)
	feed.streams = append(feed.streams, stream)
	f.mu.Unlock()
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(http.StatusOK)
	for {
		if err := http.NewResponseController(w).Flush(); err != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case block, ok := <-stream:
			if !ok {
				return
			}
			io.WriteString(w, block)
		}
	}
}

func (f *faultyServer) publish(w http.ResponseWriter, r *http.Request) {
	data, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	feed := f.feed(r.URL.Path)
	id := len(feed.data) + 1
	status, told := f.answer(id)
	if status == http.StatusCreated {
		feed.data = append(feed.data, string(data))
		for _, sent := range f.send(id) {
			for _, stream := range feed.streams {
				stream <- fmt.Sprintf("data: %s\nid: %s\n\n", feed.data[sent.data-1], sent.id)
			}
		}
		if id == f.endsAt {
			for _, stream := range feed.streams {
				close(stream)
			}
			feed.streams = nil
		}
	}
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"feed":"x","id":%d}`, told)
}

// optionsFor returns the options of a short run with two subscribers and one
// publisher.
func optionsFor(t *testing.T, url string) Options {
	t.Helper()
	transport := client.NewTransport()
	t.Cleanup(transport.CloseIdleConnections) // or the server would wait for its handlers
	c, err := client.New(url, client.Options{Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	peer, ok := PeerCalled("rejoin")
	if !ok {
		t.Fatal("there is no peer called rejoin")
	}
	return Options{
		Client: c, Peer: peer, Prefix: "bench", Size: 120, Drain: 500 * time.Millisecond,
		Subscribers: 2, Feeds: 1, Publishers: 1, Batch: 1, Rate: 200, Duration: 100 * time.Millisecond,
	}
}

// TestRunNoticesFaults: a run counts each fault of a server under its kind, once for
// each of the two subscribers.
func TestRunNoticesFaults(t *testing.T) {
	failing := func(status int) func(int) (int, int) {
		first := true
		return func(id int) (int, int) {
			if id == 5 && first {
				first = status/100 == 4
				return status, 0
			}
			return accepts(id)
		}
	}
	five, four, six := sentEvent{"5", 5}, sentEvent{"4", 4}, sentEvent{"6", 6}
	type counts struct{ lost, repeated, reordered, strays, ended, failed int64 }
	for _, test := range []struct {
		name   string
		server *faultyServer
		mode   Mode
		counts counts
		err    string
	}{
		{name: "nothing wrong", server: &faultyServer{}},
		{
			name: "an event is not sent", server: &faultyServer{send: instead()},
			counts: counts{lost: 2}, err: "2 lost, 0 repeated, 0 reordered",
		},
		{
			name: "the last events are not sent", server: &faultyServer{send: func(id int) []sentEvent { return asItShould(id)[min(id/19, 1):] }},
			counts: counts{lost: 4}, err: "4 lost",
		},
		{
			name: "an event is sent twice", server: &faultyServer{send: instead(five, five)},
			counts: counts{repeated: 2}, err: "0 lost, 2 repeated, 0 reordered",
		},
		{
			name: "an old event is sent again", server: &faultyServer{send: instead(four, five)},
			counts: counts{repeated: 2}, err: "2 repeated",
		},
		{
			name: "an event is sent late",
			server: &faultyServer{send: func(id int) []sentEvent {
				switch id {
				case 5:
					return nil
				case 6:
					return []sentEvent{six, five}
				}
				return asItShould(id)
			}},
			counts: counts{reordered: 2}, err: "0 lost, 0 repeated, 2 reordered",
		},
		{
			name: "an id is sent with other data", server: &faultyServer{send: instead(sentEvent{"5", 4})},
			counts: counts{repeated: 2, lost: 2}, err: "2 lost, 2 repeated",
		},
		{
			name: "an event is sent without an id", server: &faultyServer{send: instead(sentEvent{"", 5})},
			counts: counts{strays: 2, lost: 2}, err: "2 events are not of this run, or have no id",
		},
		{
			name: "streams end", server: &faultyServer{endsAt: 5},
			counts: counts{ended: 2, lost: 30}, err: "2 times: a stream ended early",
		},
		{
			name: "a publish is refused for now", server: &faultyServer{answer: failing(http.StatusServiceUnavailable)},
			counts: counts{failed: 1}, err: "a publish failed: the server answers 503 Service Unavailable",
		},
		{
			name: "publishes are refused for good", server: &faultyServer{answer: failing(http.StatusConflict)},
			counts: counts{failed: 1}, err: "publish: the server answers 409 Conflict",
		},
		{
			name: "an id is given twice", mode: Publish,
			server: &faultyServer{answer: func(id int) (int, int) { return http.StatusCreated, id - id/5 }},
			counts: counts{repeated: 4}, err: "4 repeated",
		},
		{
			name: "an id is left out", mode: Publish,
			server: &faultyServer{answer: func(id int) (int, int) { return http.StatusCreated, id + id/5 }},
			counts: counts{lost: 4}, err: "4 lost",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if test.server.send == nil {
				test.server.send = asItShould
			}
			if test.server.answer == nil {
				test.server.answer = accepts
			}
			server := httptest.NewServer(test.server)
			t.Cleanup(server.Close)
			o := optionsFor(t, server.URL)
			mode := Fanout
			if test.mode == Publish {
				mode, o.Subscribers = Publish, 0
			}
			result, err := Run(t.Context(), mode, o, nil)
			if result == nil {
				t.Fatal(err)
			}
			got := counts{result.Lost, result.Repeated, result.Reordered, result.Strays, result.Ended, result.Failed}
			if got != test.counts {
				t.Errorf("got %+v, want %+v", got, test.counts)
			}
			if (err != nil) != (test.counts != counts{}) || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("got the error %v, want %q", err, test.err)
			}
		})
	}
}

// TestRunRefusesOtherAnswers: a run does not wait on an answer that is not an event
// stream.
func TestRunRefusesOtherAnswers(t *testing.T) {
	for _, test := range []struct {
		name, want string
		answer     http.HandlerFunc
	}{
		{"a page", "is not an event stream", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<p>") }},
		{"nothing there", "404 Not Found", http.NotFound},
		{"no HTTP", "is not HTTP/1.1", func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				io.WriteString(conn, "220 mail.example.com\r\n")
				conn.Close()
			}
		}},
	} {
		server := httptest.NewServer(test.answer)
		t.Cleanup(server.Close)
		result, err := Run(t.Context(), Fanout, optionsFor(t, server.URL), nil)
		if result != nil || err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, %v", test.name, result, err)
		}
	}
}
