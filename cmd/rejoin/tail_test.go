package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rejoin/rejoin/feed/client"
	"github.com/rejoin/rejoin/feed/client/clienttest"
)

// The answers and the blocks of scripts, under short names.
var (
	sends, breaks, fails  = clienttest.Sends, clienttest.Breaks, clienttest.Fails
	vanishes, delivered   = clienttest.Vanishes, clienttest.Delivered
	opened, sent, control = clienttest.Opened, clienttest.Sent, clienttest.Control
	openedAt, wrapped     = clienttest.OpenedAt, clienttest.Wrapped
	gap, closed           = clienttest.Gap, clienttest.Closed
)

// newNetworkClient returns a client that reaches the server of the network.
func newNetworkClient(t *testing.T, network *clienttest.Network, o client.Options) *client.Client {
	t.Helper()
	transport := client.NewTransport()
	transport.DialContext = network.Dial
	t.Cleanup(transport.CloseIdleConnections)
	o.Transport = transport
	c, err := newClient("http://rejoin.test", o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// tailed is the outcome of a tail.
type tailed struct {
	out, notes string
	err        error
}

// tailScript tails against the answers in a bubble of its own.
func tailScript(t *testing.T, change func(*tailer), answers ...http.HandlerFunc) (got tailed, script *clienttest.Script) {
	t.Helper()
	script = &clienttest.Script{Answers: answers}
	synctest.Test(t, func(t *testing.T) {
		var out, notes bytes.Buffer
		tail := newScriptTail(t, script, &out, &notes)
		if change != nil {
			change(tail)
		}
		got.err = tail.follow(t.Context())
		got.out, got.notes = out.String(), notes.String()
	})
	return got, script
}

func newScriptTail(t *testing.T, handler http.Handler, out, notes io.Writer) *tailer {
	t.Helper()
	tail := &tailer{out: out, notes: notes}
	tail.subscription.Silence = 45 * time.Second
	tail.client = newNetworkClient(t, clienttest.Serve(t, handler), client.Options{Retrying: tail.noteLoss})
	if err := tail.aim([]string{"chat"}, "start", ""); err != nil {
		t.Fatal(err)
	}
	return tail
}

// startsAfter makes a tail start after a cursor.
func startsAfter(cursor string) func(*tailer) {
	return func(tail *tailer) { tail.subscription.Cursor = cursor }
}

func TestTailResumes(t *testing.T) {
	got, script := tailScript(t, nil,
		// Cut in mid-event, before and after the id.
		breaks(opened(0), sent(1, "one"), sent(2, "two"), "data: thr"),
		breaks(opened(2), "data: three\nid: 3\n"),
		breaks(opened(2), sent(3, "three"), "data: four\nid: 4"),
		sends(opened(3), sent(4, "fo\nur")), // some proxies end cleanly
		fails(503, nil),
		fails(429, nil),
		vanishes,
		// As one write, with keep-alives and the server's farewell.
		breaks(opened(4)+":\n:\n"+sent(5, "")+":\n"+"event: edited\n"+sent(6, "six")+"event: feed.cursor\ndata: {}\nretry: 9\nid: 6\n\n"),
		sends(opened(6), sent(7, "seven"), closed("chat", 7, "7")),
	)
	if got.err != nil {
		t.Error(got.err)
	}
	if diff := cmp.Diff("one\ntwo\nthree\nfo\nur\n\nsix\nseven\n", got.out); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"start", "2", "2", "3", "4", "4", "4", "4", "6"}, script.Cursors()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(strings.Join([]string{
		"rejoin: lost the connection after event 2 (unexpected EOF), reconnecting",
		"rejoin: connected, going on after event 2",
		"rejoin: lost the connection after event 2 (unexpected EOF), reconnecting",
		"rejoin: connected, going on after event 2",
		"rejoin: lost the connection after event 3 (unexpected EOF), reconnecting",
		"rejoin: connected, going on after event 3",
		"rejoin: lost the connection after event 4 (the stream ended), reconnecting",
		"rejoin: connected, going on after event 4",
		"rejoin: lost the connection after event 6 (unexpected EOF), reconnecting",
		"rejoin: connected, going on after event 6",
	}, "\n")+"\n", got.notes); diff != "" {
		t.Error(diff)
	}
}

func TestTailGaps(t *testing.T) {
	got, script := tailScript(t, startsAfter("3"),
		breaks(opened(3), gap("chat", 3, 10, "trimmed", "9"), sent(10, "ten")),
		breaks(opened(10), gap("chat", 10, 5, "ahead", "4")),
		breaks(opened(4), sent(5, "five")),
		delivered)
	if got.err != nil || got.out != "ten\nfive\n" {
		t.Errorf("got %q, %v", got.out, got.err)
	}
	if diff := cmp.Diff([]string{"3", "10", "4", "5"}, script.Cursors()); diff != "" {
		t.Error(diff)
	}
	for _, words := range []string{"events 4 to 9 of chat are no longer kept; going on with event 10", "chat ends at event 4, before event 10"} {
		if !strings.Contains(got.notes, words) {
			t.Errorf("%q does not say %q", got.notes, words)
		}
	}
}

// TestTailNotesOnce: a server in trouble must not flood the terminal with notes.
func TestTailNotesOnce(t *testing.T) {
	got, _ := tailScript(t, nil, breaks("retry: 9000\n"), fails(503, nil), vanishes, breaks(opened(0)), fails(503, nil), fails(429, nil), delivered)
	if diff := cmp.Diff(strings.Join([]string{
		"rejoin: cannot follow chat yet (unexpected EOF), trying again",
		"rejoin: connected, going on after event 0",
		"rejoin: lost the connection after event 0 (unexpected EOF), reconnecting",
	}, "\n")+"\n", got.notes); diff != "" || got.err != nil {
		t.Error(diff, got.err)
	}
}

// TestTailHoldsServerToItsPromise: tail prints everything before a broken promise,
// and not a line more.
func TestTailHoldsServerToItsPromise(t *testing.T) {
	got, _ := tailScript(t, nil, breaks(opened(0), sent(1, "one"), sent(2, "two")), breaks(opened(2), sent(4, "four")), delivered)
	if !errors.Is(got.err, client.ErrViolation) || got.out != "one\ntwo\n" ||
		got.err.Error() != "tail chat: the server broke its promise: event 4 of chat came after event 2, without those between them" {
		t.Errorf("got %q and %v", got.out, got.err)
	}
}

func TestTailJSON(t *testing.T) {
	want := []string{
		`{"feed":"chat","id":1,"type":"message","time":"2026-01-31T09:30:00.000Z","data":"a\n<b>"}`,
		`{"feed":"chat","type":"typing","time":"2026-01-31T09:30:00.000Z","data":"ann"}`,
		`{"feed":"chat","id":2,"type":"edited","time":"2026-01-31T09:30:00.000Z","data":{"x": 12345678901234567890}}`,
	}
	got, script := tailScript(t, func(tail *tailer) { tail.json, tail.subscription.Envelopes = true, true },
		breaks(opened(0), sent(1, want[0]), "event: typing\ndata: "+want[1]+"\n\n", "event: edited\n"+sent(2, want[2])), delivered)
	if diff := cmp.Diff(strings.Join(want, "\n")+"\n", got.out); diff != "" || got.err != nil {
		t.Error(got.err, diff)
	}
	if diff := cmp.Diff([]string{"start", "2"}, script.Cursors()); diff != "" {
		t.Error(diff)
	}
}

// fullDisk is an output that takes nothing.
type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

func TestTailOutputFails(t *testing.T) {
	reader, writer := io.Pipe()
	reader.Close()
	if got, _ := tailScript(t, func(tail *tailer) { tail.out = writer }, sends(opened(0), sent(1, "x"))); got.err != nil || got.notes != "" {
		t.Errorf("nobody reads any more: %v %s", got.err, got.notes)
	}
	if got, _ := tailScript(t, func(tail *tailer) { tail.out = fullDisk{} }, sends(opened(0), sent(1, "x"))); !errors.Is(got.err, errNoWrite) {
		t.Errorf("the disk is full: %v", got.err)
	}
}

func TestTailInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		waits := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			sends(opened(0))(w, r)
			<-r.Context().Done()
		})
		ctx, interrupt := context.WithTimeout(t.Context(), time.Second)
		defer interrupt()
		begin := time.Now()
		if err := newScriptTail(t, waits, io.Discard, io.Discard).follow(ctx); err != nil || time.Since(begin) != time.Second {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
	})
}

// TestTailRefused is about final refusals: each has an exit code and the server's
// message.
func TestTailRefused(t *testing.T) {
	page := func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>welcome") }
	moved := func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "https://example.com/x", http.StatusFound)
	}
	for _, test := range []struct {
		name   string
		answer http.HandlerFunc
		code   int
		words  string
	}{
		{"204", delivered, exitOK, ""},
		{"400", fails(400, nil), exitFailed, "rejoin: tail chat: the detail of 400 (status 400)"},
		{"401", fails(401, nil), exitFailed, "the detail of 401"},
		{"403", fails(403, nil), exitFailed, "the detail of 403"},
		{"404", fails(404, nil), exitFailed, "the detail of 404"},
		{"410", fails(410, nil), exitFailed, "the detail of 410"},
		{"501", fails(501, nil), exitFailed, "the detail of 501"},
		{"a page", page, exitFailed, "not an event stream"},
		{"elsewhere", moved, exitFailed, "https://example.com/x"},
	} {
		t.Run(test.name, func(t *testing.T) {
			srv := httptest.NewServer(test.answer)
			defer srv.Close()
			var stdout, stderr bytes.Buffer
			code := run(t.Context(), []string{"tail", "--feed", "chat", "--url", srv.URL}, nil, &stdout, &stderr)
			if code != test.code || !strings.Contains(stderr.String(), test.words) || stdout.String() != "" {
				t.Errorf("exit %d, %q, %q", code, stdout.String(), stderr.String())
			}
		})
	}
}
