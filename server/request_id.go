package server

import (
	"crypto/rand"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
)

const requestIDHeader = "X-Request-Id"

// maxRequestID is the length of the longest id that a client can give its request.
const maxRequestID = 128

// identify sets the id of the request in the header of its answer: the client's own, if
// that can be an id, or a new one, in room. It changes nothing if there is an id already.
func identify(w http.ResponseWriter, r *http.Request, room *[1]string) {
	h := w.Header()
	if len(h[requestIDHeader]) > 0 {
		return
	}
	if given := r.Header[requestIDHeader]; len(given) == 1 && isRequestID(given[0]) {
		h[requestIDHeader] = given
		return
	}
	room[0] = newRequestID()
	h[requestIDHeader] = room[:]
}

// requestID returns the id that identify has set.
func requestID(w http.ResponseWriter) string {
	if id := w.Header()[requestIDHeader]; len(id) > 0 {
		return id[0]
	}
	return ""
}

func isRequestID(id string) bool {
	for i := range len(id) {
		c := id[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return 0 < len(id) && len(id) <= maxRequestID
}

var (
	requestsOfProcess = strings.ToLower(rand.Text()[:12]) + "-"
	requestCount      atomic.Uint64
)

// newRequestID returns an id that no other request has, on any node.
func newRequestID() string {
	id := append(make([]byte, 0, 40), requestsOfProcess...)
	return string(strconv.AppendUint(id, requestCount.Add(1), 10))
}
