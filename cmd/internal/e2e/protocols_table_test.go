package e2e

import "strings"

const (
	asAdmin  = "Authorization: Bearer {admin}\n"
	asReader = "Authorization: Bearer {reader}\n"
	asLines  = asAdmin + "Content-Type: application/x-ndjson\n"
	asPage   = asAdmin + "Accept: application/json\n"
)

// wholeTable is what clients ask for, in this order. The streams are of feeds that are
// closed, so that they end.
var wholeTable = []exchange{
	{"POST /v1/feeds/chat/events", 201, asAdmin, "first"},
	{"POST /v1/feeds/chat/events", 201, asAdmin + "Content-Type: application/json\nEvent-Type: t", `{"a": "é"}`},
	{"POST /v1/feeds/chat/events", 201, asAdmin + "Idempotency-Key: k", "line\nline"},
	{"POST /v1/feeds/chat/events", 201, asAdmin + "Idempotency-Key: k", "line\nline"},
	{"POST /v1/feeds/chat/events", 422, asAdmin + "Idempotency-Key: k", "other"},
	{"POST /v1/feeds/chat/events", 201, asAdmin + `If-Match: "3"`, "fourth"},
	{"POST /v1/feeds/chat/events", 412, asAdmin + `If-Match: "3"`, "fourth"},
	{"POST /v1/feeds/chat/events?ephemeral=true", 202, asAdmin, "typing"},
	{"POST /v1/feeds/chat/events", 201, asAdmin, ""},
	{"POST /v1/feeds/old/events", 201, asLines, "{\"data\":1}\n{\"type\":\"t\",\"data\":\"2\"}\n{\"data\":[3]}\n"},
	{"POST /v1/events", 201, asLines, "{\"feed\":\"old\",\"data\":4}\n{\"feed\":\"done\",\"data\":\"x\"}\n"},
	{"POST /v1/events", 400, asLines, "{\"feed\":\"old\",\"data\":5}\n{\"feed\":\"old\"}\n"},
	{"POST /v1/feeds/old/events?close=true&type=t", 201, asAdmin, "the end"},
	{"POST /v1/feeds/done/close", 204, asAdmin, ""},
	{"POST /v1/feeds/done/close", 204, asAdmin, ""},
	{"POST /v1/feeds/done/events", 409, asAdmin, "more"},
	{"POST /v1/feeds/chat/events", 400, asAdmin, "\xff"},
	{"POST /v1/feeds/chat/events", 413, asAdmin, strings.Repeat("x", 60_001)},
	{"POST /v1/feeds/chat/events", 413, asAdmin, strings.Repeat("x", 200_000)},
	{"POST /v1/feeds/chat/events", 415, asAdmin + "Content-Encoding: gzip", "x"},
	{"POST /v1/feeds/chat/events", 415, asAdmin + "Content-Type: text/plain; charset=latin1", "x"},
	{"POST /v1/events", 415, asAdmin, "x"},
	{"POST /v1/feeds/chat/events", 401, "", "x"},
	{"POST /v1/feeds/chat/events", 401, "Authorization: Bearer x", "x"},
	{"POST /v1/feeds/chat/events", 403, asReader, "x"},
	{"DELETE /v1/feeds/old/events?before=3", 204, asAdmin, ""},
	{"DELETE /v1/feeds/old", 403, asReader, ""},
	{"PUT /v1/feeds/chat/events", 405, asAdmin, ""},

	{"GET /v1/feeds/chat/events", 200, asPage, ""},
	{"GET /v1/feeds/chat/events?after=1&limit=2", 200, asPage, ""},
	{"GET /v1/feeds/chat/events?before=3&limit=1", 200, asPage, ""},
	{"GET /v1/feeds/chat/events", 304, asPage + "If-None-Match: *", ""},
	{"GET /v1/feeds/chat/events?after=9&wait=10ms", 200, asPage, ""},
	{"GET /v1/feeds/old/events?after=1&gap=fail", 410, asPage, ""},
	{"GET /v1/feeds/new/events", 200, asPage, ""},
	{"HEAD /v1/feeds/chat/events", 200, asPage, ""},
	{"GET /v1/feeds/chat/events/2", 200, asReader, ""},
	{"HEAD /v1/feeds/chat/events/2", 200, asReader, ""},
	{"GET /v1/feeds/chat/events/99", 404, asAdmin, ""},
	{"GET /v1/feeds/old/events/1", 410, asAdmin, ""},
	{"GET /v1/feeds/chat", 200, asAdmin, ""},
	{"GET /v1/feeds/new", 404, asAdmin, ""},
	{"GET /v1/feeds", 200, asAdmin, ""},
	{"GET /v1/feeds", 403, asReader, ""},
	{"GET /v1/nothing", 404, asAdmin, ""},
	{"GET /healthz", 200, "", ""},
	{"GET /readyz", 200, "", ""},
	{"GET /", 200, "", ""},

	{"GET /v1/feeds/old/events?from=start", 200, asAdmin, ""},
	{"GET /v1/feeds/old/events", 200, asAdmin + "Last-Event-ID: 0", ""},
	{"GET /v1/feeds/old/events", 200, asAdmin + "Last-Event-ID: 77", ""},
	{"GET /v1/feeds/old/events", 204, asAdmin + "Last-Event-ID: 5", ""},
	{"GET /v1/feeds/old/events", 204, asAdmin + "Accept: text/event-stream\nLast-Event-ID: 5", ""},
	{"GET /v1/feeds/old/events?gap=fail&lastEventId=0", 410, asAdmin, ""},
	{"GET /v1/feeds/old/events?from=start&types=message", 200, asAdmin, ""},
	{"GET /v1/feeds/old/events?from=start&envelope=true&control=live", 200, asAdmin, ""},
	{"GET /v1/feeds/old/events?from=start", 200, asAdmin + "Accept: application/x-ndjson", ""},
	{"GET /v1/events?feed=done&from=start", 200, asAdmin, ""},
	{"GET /v1/events?feed=old,done&lastEventId=old=5,done=1", 204, asAdmin, ""},
	{"GET /v1/events?feed=old", 406, asPage, ""},
	{"GET /v1/events?feed=chat,old", 403, asReader, ""},
	{"GET /v1/feeds/old/events", 400, asAdmin + "Last-Event-ID: x", ""},
	{"GET /v1/feeds/old/events", 401, "Accept: text/event-stream", ""},
	{"GET /v1/feeds/old/events", 403, asReader + "Accept: text/event-stream", ""},
	{"HEAD /v1/feeds/chat/events", 200, asAdmin, ""},
}
