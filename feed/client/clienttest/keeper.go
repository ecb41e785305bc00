package clienttest

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
)

// Keeper is a server that stores publications, those with a key once for each key,
// after it has given the answers of its script.
type Keeper struct {
	Answers []http.HandlerFunc // nil stores; beyond the last, all do
	After   bool               // the script's answers come when the event is stored

	Asked  int // requests
	Events []Stored
	Keys   []string // of Events
	Closed bool
}

// Stored is a publication as the server received it.
type Stored struct {
	Path, ContentType, EventType, IfMatch, Data string
}

func (k *Keeper) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	k.Asked++
	scripted := k.Asked <= len(k.Answers) && k.Answers[k.Asked-1] != nil
	if scripted && !k.After {
		k.Answers[k.Asked-1](w, r)
		return
	}
	id := k.store(w, r, string(body))
	switch {
	case scripted:
		k.Answers[k.Asked-1](w, r)
	case id == 0:
		w.WriteHeader(http.StatusNoContent)
	case r.Header.Get("Content-Type") == "application/x-ndjson":
		w.WriteHeader(http.StatusCreated)
		fmt.Fprint(w, `{"events":[{"feed":"log","id":1},{"feed":"log","id":2}]}`)
	default:
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, `{"feed":"log","id":%d,"time":"2026-01-31T09:30:00.000Z"}`, id)
	}
}

// store returns the id of the event; 0 if the request has none.
func (k *Keeper) store(w http.ResponseWriter, r *http.Request, body string) int {
	if strings.HasSuffix(r.URL.Path, "/close") {
		k.Closed = true
		return 0
	}
	k.Closed = k.Closed || r.URL.Query().Get("close") == "true"
	key := r.Header.Get("Idempotency-Key")
	if i := slices.Index(k.Keys, key); i >= 0 && key != "" {
		w.Header().Set("Idempotency-Replayed", "true")
		return i + 1
	}
	k.Keys = append(k.Keys, key)
	k.Events = append(k.Events, Stored{r.URL.EscapedPath(), r.Header.Get("Content-Type"), r.Header.Get("Event-Type"), r.Header.Get("If-Match"), body})
	return len(k.Events)
}

// Data returns the data of each stored publication.
func (k *Keeper) Data() (data []string) {
	for _, e := range k.Events {
		data = append(data, e.Data)
	}
	return data
}
