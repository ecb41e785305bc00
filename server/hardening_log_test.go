package server_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/rejoin/rejoin/feed/feedtest"
	"github.com/rejoin/rejoin/server"
	"github.com/rejoin/rejoin/server/auth"
)

// TestNoSecretIsLogged: wherever a token comes, and whatever becomes of the request, the
// log has neither the token nor the query, and no data of events.
func TestNoSecretIsLogged(t *testing.T) {
	t.Parallel()
	var book logbook
	options := server.Options{Logger: book.logger(), AccessLog: true}
	verifier, err := auth.Open(t.Context(), auth.Options{Key: secret, Logger: book.logger()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(verifier.Close)
	options.Auth = verifier
	failing := feedtest.NewStore().Through(func(context.Context, feedtest.Call) error { return errors.New("the disk burns") })
	nodes := []*node{start(t, options, nil), startOn(t, failing, options)}
	good := tokenFor(t, everything)
	data, query := "the-data-of-an-event", "part-of-a-query"
	for _, n := range nodes {
		n.LogEach()
		for _, token := range []string{good, good + "x", tokenFor(t, auth.Rights{})} {
			for _, where := range []map[string]string{
				{"Authorization": "Bearer " + token}, {"Authorization": token}, {"Cookie": "rejoin_token=" + token}, {},
				{"Authorization": "Bearer " + token, "Event-Type": token, "Idempotency-Key": token + " ", "Last-Event-ID": token, "If-Match": token, "Content-Type": "x/" + token, "Content-Encoding": token},
				{"X-Request-Id": token + token, "X-Forwarded-For": token, "Forwarded": "for=" + token, "Origin": "https://" + query, "Cookie": "rejoin_token=" + token + "; other=" + token},
			} {
				for _, path := range []string{
					events, events + "/1", "/v1/events", "/v1/feeds/chat", "/v1/feeds", "/nowhere", events + "&access_token=" + token, "/v1/feeds/chat/close&access_token=" + token,
				} {
					for _, more := range []string{"", "?access_token=" + token, "?limit=" + token + "&type=" + token + "&from=" + token + "&feed=" + token + "%20&x=" + query, "?access_token=" + token + "&access_token=" + token, "?%zz" + query} {
						for _, method := range []string{"GET", "POST", "PUT"} {
							r := n.request(method, path+more, where, data+"\x00")
							r.Body.Close()
						}
					}
				}
			}
		}
	}
	for _, n := range nodes {
		header := bearer(good)
		n.do("POST", events+"?access_token="+good, header, data)
		n.do("POST", events, map[string]string{"Authorization": "Bearer " + good, "Content-Type": "application/x-ndjson"}, `{"data":"`+data+`"}`+"\n{"+data)
		n.do("POST", events, map[string]string{"Authorization": "Bearer " + good, "Content-Type": "text/event-stream"}, "data: "+data+"\n\ndata: "+data+"\xff\n\n")
		n.do("POST", events, map[string]string{"Authorization": "Bearer " + good, "Content-Type": "application/json"}, "["+data)
	}
	text := book.String()
	if !strings.Contains(text, "the disk burns") || !strings.Contains(text, `"msg":"request"`) {
		t.Fatal("nothing is in the log")
	}
	payload := strings.Split(good, ".")[1]
	for _, never := range []string{payload, strings.Split(good, ".")[2], "access_token", data, query, secret} {
		if i := strings.Index(text, never); i >= 0 {
			t.Errorf("%q is in the log: %s", never, text[max(0, i-300):min(len(text), i+300)])
		}
	}
}
