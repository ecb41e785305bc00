// Package web is the console: the pages at /feeds/{names}, each of which follows
// a feed or several and publishes to them, and the page at / that leads to them.
// Its files are embedded, so the server needs nothing beside its binary.
//
// [Handler] serves /, /feeds/{names} and everything below /console/, and nothing
// else. [HandlerWithDemo] serves /demo as well. The pages need the API on the same
// origin; their links are relative, so a proxy may serve all of it below a path of its
// own.
package web

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"sync"
	"time"
)

//go:embed index.html feed.html console
var files embed.FS

// policy lets the page load its own files and talk to its own origin. Trusted
// Types make the browser refuse any string that would be parsed as HTML: what a
// feed carries comes from strangers. The one policy that the pages may make lets
// the address of the shared worker through, and nothing else.
const policy = "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; " +
	"require-trusted-types-for 'script'; trusted-types rejoin"

// contentTypes is spelled out because the mime package also asks the host, whose
// answer differs from one machine to the next.
var contentTypes = map[string]string{
	".html": "text/html; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".svg":  "image/svg+xml",
}

// asset is one file as it is served.
type asset struct {
	body, compressed         []byte // compressed with gzip
	etag, etagWhenCompressed string
	contentType              string
}

func newAsset(name string, body []byte) (asset, error) {
	contentType, ok := contentTypes[path.Ext(name)]
	if !ok {
		return asset{}, fmt.Errorf("serve %s: no content type is known for it", name)
	}
	var compressed bytes.Buffer
	z := gzip.NewWriter(&compressed)
	_, err := z.Write(body)
	if err = errors.Join(err, z.Close()); err != nil {
		return asset{}, fmt.Errorf("compress %s: %w", name, err)
	}
	return asset{body, compressed.Bytes(), entityTag(body), entityTag(compressed.Bytes()), contentType}, nil
}

func entityTag(body []byte) string {
	sum := sha256.Sum256(body)
	return `"` + hex.EncodeToString(sum[:16]) + `"`
}

// feedPages is where feed.html is served, for every name below it.
const feedPages = "/feeds/"

// isFeedPage accepts /feeds/ and one more part. The page itself looks at the name.
func isFeedPage(escaped string) bool {
	name, ok := strings.CutPrefix(escaped, feedPages)
	return ok && !strings.Contains(name, "/")
}

// Handler returns the handler of the console: index.html at /, feed.html at
// /feeds/{names}, their assets below /console/. It answers GET and HEAD, 405 to
// other methods and 404 to any other path.
func Handler() http.Handler { return handler(load()) }

// load returns the files of the console, by the path that each is served at. Nobody
// changes the map.
var load = sync.OnceValue(readFiles)

func handler(assets map[string]asset) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		target := r.URL.Path
		if isFeedPage(r.URL.EscapedPath()) {
			target = feedPages
		}
		found, ok := assets[target]
		switch {
		case !ok:
			Refuse(w, http.StatusNotFound, fmt.Sprintf("there is nothing at %.100s", r.URL.Path))
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			w.Header().Set("Allow", "GET, HEAD")
			Refuse(w, http.StatusMethodNotAllowed, fmt.Sprintf("%.20s is not possible here", r.Method))
		default:
			found.serve(w, r)
		}
	})
}

func (a asset) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", a.contentType)
	h.Set("Vary", "Accept-Encoding")
	body, etag := a.body, a.etag
	if takesGzip(r) {
		body, etag = a.compressed, a.etagWhenCompressed
		h.Set("Content-Encoding", "gzip")
	}
	h.Set("ETag", etag)
	// The names carry no version, so the browser has to ask each time; the ETag
	// makes that a 304.
	h.Set("Cache-Control", "no-cache")
	h.Set("Content-Security-Policy", policy)
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
}

// takesGzip reports whether the client accepts gzip by its name (RFC 9110, section
// 12.5.3).
func takesGzip(r *http.Request) bool {
	for part := range strings.SplitSeq(r.Header.Get("Accept-Encoding"), ",") {
		name, weight, _ := strings.Cut(part, ";")
		if strings.EqualFold(strings.TrimSpace(name), "gzip") {
			q, weighed := strings.CutPrefix(strings.ReplaceAll(weight, " ", ""), "q=")
			return !weighed || strings.Trim(q, "0.") != ""
		}
	}
	return false
}

// Refuse answers with status as a problem (RFC 9457), as the API does.
func Refuse(w http.ResponseWriter, status int, detail string) {
	problem, err := json.Marshal(struct {
		Title  string `json:"title"`
		Status int    `json:"status"`
		Detail string `json:"detail"`
	}{http.StatusText(status), status, detail})
	if err != nil {
		panic(fmt.Errorf("encode problem: %w", err)) // strings and a number: it cannot fail
	}
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	// An error here is the client gone.
	_, _ = w.Write(append(problem, '\n'))
}

// readFiles reads the embedded files. It panics on a file that cannot be served, which a
// test would have met first.
func readFiles() map[string]asset {
	assets := make(map[string]asset)
	err := fs.WalkDir(files, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		body, err := files.ReadFile(name)
		if err != nil {
			return err
		}
		served := "/" + strings.TrimSuffix(name, "index.html")
		if name == "feed.html" {
			served = feedPages
		}
		assets[served], err = newAsset(name, body)
		return err
	})
	if err != nil {
		panic(fmt.Errorf("load console: %w", err))
	}
	return assets
}
