package server

import (
	_ "embed"
	"net/http"
	"strconv"
)

// openAPI describes the interface. A test holds it to the routes, and to what
// they answer.
//
//go:embed openapi.yaml
var openAPI []byte

var openAPITag = entityTag(string(openAPI))

// describeInterface answers with the description of the interface: GET /openapi.yaml.
func describeInterface(w http.ResponseWriter, r *http.Request) {
	if notModified(w, r, openAPITag, "no-cache") {
		return
	}
	w.Header().Set("Content-Type", "application/yaml")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Length", strconv.Itoa(len(openAPI)))
	_, _ = w.Write(openAPI) // who is gone needs no answer
}
