package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed/feedtest"
)

// verified runs rejoin verify and returns its report.
func verified(t *testing.T, args ...string) (v verdict, code int, notes string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	args = append([]string{"verify", "--json", "--for", "1500ms", "--rate", "100"}, args...)
	code = run(t.Context(), args, nil, &stdout, &stderr)
	if err := json.Unmarshal(stdout.Bytes(), &v); err != nil {
		t.Fatalf("exit %d, %v: %q, %s", code, err, stdout.String(), stderr.String())
	}
	return v, code, stderr.String()
}

func TestVerify(t *testing.T) {
	t.Parallel()
	u := serve(t, built(t, false), filepath.Join(t.TempDir(), "rejoin.db")).url
	v, code, notes := verified(t, "--url", u, "--url", u, "--feeds", "2")
	if code != exitOK || v.Violations > 0 || len(v.Findings) > 0 || v.Left != "" {
		t.Errorf("exit %d, %+v\n%s", code, v, notes)
	}
	if v.Acknowledged < 50 || v.Deliveries < 5*v.Acknowledged || v.Subscribers != 12 || v.Connections < 12 || v.Unknown > 0 {
		t.Errorf("it has proven too little: %+v", v)
	}
	var left struct {
		Feeds []struct{ First, Last uint64 }
	}
	if err := getJSON(t.Context(), http.DefaultClient, u+"/v1/feeds?prefix=rejoin-verify:", &left); err != nil {
		t.Fatal(err)
	}
	for _, f := range left.Feeds {
		if f.First != f.Last+1 {
			t.Errorf("there is something left: %+v", left)
		}
	}
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"verify", "--url", u, "--for", "1s"}, nil, &stdout, &stderr); code != exitOK {
		t.Errorf("exit %d, %s", code, stderr.String())
	}
	for _, want := range []string{"acknowledged ", "deliveries to 12 subscribers", "violations     0\n"} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, stdout.String())
		}
	}
}

func TestVerifyUsage(t *testing.T) {
	for _, args := range [][]string{
		{"--url", "ftp://x"}, {"--feeds", "0"}, {"--feeds", "101"}, {"--subscribers", "0"}, {"--rate", "0"}, {"--for", "1ms"},
		{"--patience", "0s"}, {"--prefix", "no spaces"}, {"name"},
	} {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), append([]string{"verify"}, args...), nil, &stdout, &stderr); code != exitUsage || stdout.Len() > 0 {
			t.Errorf("%q: exit %d, %q, %q", args, code, stdout.String(), stderr.String())
		}
	}
}

// TestVerifyFindsNobody: what could not be tried is not proven.
func TestVerifyFindsNobody(t *testing.T) {
	t.Parallel()
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), []string{"verify", "--url", "http://127.0.0.1:1", "--for", "1s", "--patience", "1s"}, nil, &stdout, &stderr)
	if code != exitFailed || !strings.Contains(stderr.String(), "connection refused") {
		t.Errorf("exit %d, %s%s", code, stdout.String(), stderr.String())
	}
}

// TestVerifyRights: without the right to delete, the feeds stay, which is said;
// without the right to publish, there is no proof.
func TestVerifyRights(t *testing.T) {
	t.Setenv("REJOIN_AUTH_MODE", "jwt")
	t.Setenv("REJOIN_AUTH_JWT_KEY", "hunter2hunter2hunter2hunter2hunter2")
	u := attack(t, false).url()
	for _, test := range []struct {
		rights []string
		code   int
		note   string
	}{
		{[]string{"--subscribe", "rejoin-verify:*", "--publish", "rejoin-verify:*"}, exitOK, "* are left: "},
		{[]string{"--subscribe", "rejoin-verify:*", "--publish", "rejoin-verify:*", "--admin"}, exitOK, ""},
		{[]string{"--subscribe", "rejoin-verify:*"}, exitFailed, "status 403"},
		{[]string{"--publish", "rejoin-verify:*"}, exitFailed, "status 403"},
	} {
		var token, stdout, stderr bytes.Buffer
		if code := run(t.Context(), append([]string{"token"}, test.rights...), nil, &token, &stderr); code != exitOK {
			t.Fatalf("exit %d, %s", code, stderr.String())
		}
		t.Setenv(tokenVariable, strings.TrimSpace(token.String()))
		code := run(t.Context(), []string{"verify", "--url", u, "--for", "1s"}, nil, &stdout, &stderr)
		if code != test.code || !strings.Contains(stderr.String(), test.note) || test.note == "" && stderr.Len() > 0 {
			t.Errorf("%q: exit %d, %s%s", test.rights, code, stdout.String(), stderr.String())
		}
	}
}

// liars are servers that break their promise, each in its own way.
var liars = []struct {
	name     string
	findings []string                           // of which there has to be one
	event    func(n int64, block string) string // what becomes of an event's block
	answer   func(n int64, body string) string  // and of an acknowledgement
	forgets  bool                               // idempotency keys
}{
	{name: "loses", findings: []string{feedtest.Skipped}, event: func(n int64, block string) string {
		if n%20 == 0 {
			return ""
		}
		return block
	}},
	{name: "repeats", findings: []string{feedtest.Repeated}, event: func(n int64, block string) string {
		if n%20 == 0 {
			return block + block
		}
		return block
	}},
	{name: "garbles", findings: []string{feedtest.WrongBytes}, event: func(n int64, block string) string {
		if n%20 == 0 {
			return strings.ReplaceAll(block, "publisher-", "publisher_")
		}
		return block
	}},
	// That one may be there, or not.
	{name: "acknowledges the wrong event", findings: []string{feedtest.WrongBytes, feedtest.LostAcknowledged}, answer: func(n int64, body string) string {
		if n%20 == 0 {
			return strings.Replace(body, `"id":`, `"id":1`, 1)
		}
		return body
	}},
	{name: "forgets keys", findings: []string{feedtest.KeyTwice}, forgets: true},
}

// TestVerifyFindsLiars puts each of them in front of a server that is right.
func TestVerifyFindsLiars(t *testing.T) {
	u, err := url.Parse(attack(t, false).url())
	if err != nil {
		t.Fatal(err)
	}
	for _, liar := range liars {
		t.Run(liar.name, func(t *testing.T) {
			t.Parallel() // they wait for what does not come
			var events, answers atomic.Int64
			proxy := &httputil.ReverseProxy{
				FlushInterval: -1,
				Rewrite: func(r *httputil.ProxyRequest) {
					r.SetURL(u)
					if liar.forgets {
						r.Out.Header.Del("Idempotency-Key")
					}
				},
				ModifyResponse: func(resp *http.Response) error {
					stream := strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream")
					switch {
					case stream && liar.event != nil:
						resp.Body = lieInStream(resp.Body, func(block string) string { return liar.event(events.Add(1), block) })
					case resp.StatusCode == http.StatusCreated && liar.answer != nil:
						body, err := io.ReadAll(resp.Body)
						if err != nil {
							return err
						}
						lie := liar.answer(answers.Add(1), string(body))
						resp.Header.Del("Content-Length")
						resp.Body, resp.ContentLength = io.NopCloser(strings.NewReader(lie)), int64(len(lie))
					}
					return nil
				},
			}
			front := httptest.NewServer(proxy)
			defer front.Close()
			v, code, notes := verified(t, "--url", front.URL, "--patience", "2s", "--for", "4s")
			if code != exitFailed || v.Violations == 0 || !strings.Contains(notes, "violations") {
				t.Errorf("exit %d, %+v\n%s", code, v, notes)
			}
			kinds := make(map[string]int)
			for _, f := range v.Findings {
				kinds[f.Kind]++
			}
			if !slices.ContainsFunc(liar.findings, func(kind string) bool { return kinds[kind] > 0 }) {
				t.Errorf("%v is not found, but %v", liar.findings, kinds)
			}
		})
	}
}

// lieInStream passes a stream on, block by block, and lets lie have the events.
func lieInStream(body io.ReadCloser, lie func(string) string) io.ReadCloser {
	out, in := io.Pipe()
	go func() {
		block := ""
		buf := make([]byte, 4096)
		for {
			n, err := body.Read(buf)
			block += string(buf[:n])
			for {
				whole, rest, ok := strings.Cut(block, "\n\n")
				if !ok {
					break
				}
				if whole += "\n\n"; !strings.Contains(whole, "event: feed.") {
					whole = lie(whole)
				}
				if _, err := io.WriteString(in, whole); err != nil {
					return
				}
				block = rest
			}
			if err != nil {
				in.CloseWithError(err)
				return
			}
		}
	}()
	return closesBoth{out, body}
}

type closesBoth struct {
	io.Reader
	body io.Closer
}

func (c closesBoth) Close() error {
	c.Reader.(*io.PipeReader).Close()
	return c.body.Close()
}

// TestVerifyThroughRestarts kills the server under a verification, twice: the
// promise holds, and it is seen to.
func TestVerifyThroughRestarts(t *testing.T) {
	t.Parallel()
	db := filepath.Join(t.TempDir(), "rejoin.db")
	p := serve(t, built(t, false), db)
	address := strings.TrimPrefix(p.url, "http://")
	var stdout, stderr bytes.Buffer
	exit := make(chan int)
	go func() {
		exit <- run(t.Context(), []string{"verify", "--json", "--for", "4s", "--rate", "100", "--url", "http://" + address}, nil, &stdout, &stderr)
	}()
	for range 2 {
		time.Sleep(time.Second) // of publishing
		p.kill()
		p = serveAt(t, built(t, false), address, "sqlite:"+db, "memory")
	}
	code := <-exit
	var v verdict
	if err := json.Unmarshal(stdout.Bytes(), &v); err != nil || code != exitOK || v.Violations > 0 {
		t.Errorf("exit %d, %v, %+v\n%s", code, err, v, stderr.String())
	}
	if v.Acknowledged < 50 || v.Connections < 2*v.Subscribers {
		t.Errorf("it has proven too little: %+v", v)
	}
}
