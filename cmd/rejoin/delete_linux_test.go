package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestDeleteAsks: on a terminal, only the name of the feed deletes it.
func TestDeleteAsks(t *testing.T) {
	deleted := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodDelete:
			deleted++
			w.WriteHeader(http.StatusNoContent)
		case strings.HasSuffix(r.URL.Path, "chat"):
			_, _ = io.WriteString(w, `{"feed":"chat","first":2,"last":7,"closed":false,"updated":"2026-01-31T09:30:00.000Z"}`)
		case strings.HasSuffix(r.URL.Path, "secret"):
			fails(http.StatusForbidden, nil)(w, r)
		default:
			fails(http.StatusNotFound, nil)(w, r)
		}
	}))
	defer server.Close()
	for _, test := range []struct {
		feed, typed string
		code        int
		says        string
	}{
		{"chat", "chat\n", exitOK, "This deletes all events (6) of chat. Type the name of the feed to go on: rejoin: all events of chat are deleted\n"},
		{"chat", "yes\n", exitFailed, "rejoin: delete chat: the name was not typed; nothing was done\n"},
		{"chat", "\x04", exitFailed, "rejoin: delete chat: the name was not typed; nothing was done\n"},
		{"secret", "secret\n", exitOK, "This deletes all events of secret. Type"},
		{"none", "none\n", exitFailed, "rejoin: delete none: the detail of 404 (status 404)\n"},
	} {
		keyboard, terminal := pseudoterminal(t)
		if _, err := keyboard.WriteString(test.typed); err != nil {
			t.Fatal(err)
		}
		deleted = 0
		var stderr strings.Builder
		code := run(t.Context(), []string{"delete", test.feed, "--url", server.URL}, terminal, io.Discard, &stderr)
		if code != test.code || !strings.Contains(stderr.String(), test.says) || (deleted == 1) != (test.code == exitOK) {
			t.Errorf("%s, %q: exit %d, %q, deleted %d times", test.feed, test.typed, code, stderr.String(), deleted)
		}
	}
}
