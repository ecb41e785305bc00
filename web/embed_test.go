package web

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"path"
	"regexp"
	"strings"
	"testing"
)

// served asks the handler for one path and returns the answer.
func served(t *testing.T, method, target string, header http.Header) *http.Response {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, target, nil)
	for name, values := range header {
		r.Header[name] = values
	}
	w := httptest.NewRecorder()
	Handler().ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, response *http.Response) string {
	t.Helper()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// names lists the embedded files.
func names(t *testing.T) []string {
	t.Helper()
	var found []string
	err := fs.WalkDir(files, ".", func(name string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			found = append(found, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func source(t *testing.T, name string) string {
	t.Helper()
	text, err := files.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestHandlerServesThePageAndItsAssets(t *testing.T) {
	for target, want := range map[string]struct{ contentType, contains string }{
		"/":                  {"text/html; charset=utf-8", "<!doctype html>"},
		"/feeds/orders":      {"text/html; charset=utf-8", `id="events"`},
		"/feeds/a,b":         {"text/html; charset=utf-8", `id="events"`},
		"/feeds/bad%20name":  {"text/html; charset=utf-8", `id="events"`},
		"/feeds/a%2Fb":       {"text/html; charset=utf-8", `id="events"`},
		"/console/feed.js":   {"text/javascript; charset=utf-8", "import"},
		"/console/style.css": {"text/css; charset=utf-8", ":root"},
		"/console/icon.svg":  {"image/svg+xml", "<svg"},
	} {
		response := served(t, http.MethodGet, target, nil)
		if response.StatusCode != http.StatusOK {
			t.Errorf("GET %s: status %d", target, response.StatusCode)
		}
		if got := response.Header.Get("Content-Type"); got != want.contentType {
			t.Errorf("GET %s: Content-Type %q, want %q", target, got, want.contentType)
		}
		if text := body(t, response); !strings.Contains(text, want.contains) {
			t.Errorf("GET %s: %q is not in the answer", target, want.contains)
		}
	}
}

func TestEveryAnswerIsHardened(t *testing.T) {
	for target := range load() {
		h := served(t, http.MethodGet, target, nil).Header
		for name, want := range map[string]string{
			"Cache-Control":          "no-cache",
			"Referrer-Policy":        "no-referrer",
			"X-Content-Type-Options": "nosniff",
		} {
			if got := h.Get(name); got != want {
				t.Errorf("GET %s: %s %q, want %q", target, name, got, want)
			}
		}
		got := h.Get("Content-Security-Policy")
		for _, directive := range []string{
			"default-src 'none'", "script-src 'self'", "worker-src 'self'", "style-src 'self'", "connect-src 'self'", "base-uri 'none'",
			"form-action 'none'", "frame-ancestors 'none'", "require-trusted-types-for 'script'", "trusted-types rejoin",
		} {
			if !strings.Contains(got, directive) {
				t.Errorf("GET %s: the policy %q lacks %s", target, got, directive)
			}
		}
		if strings.Contains(got, "unsafe") || strings.Contains(got, "*") {
			t.Errorf("GET %s: the policy %q has a hole", target, got)
		}
	}
}

func TestETagFollowsTheContent(t *testing.T) {
	seen := make(map[string]string)
	for target := range load() {
		first := served(t, http.MethodGet, target, nil)
		etag := first.Header.Get("ETag")
		if !regexp.MustCompile(`^"[0-9a-f]{32}"$`).MatchString(etag) {
			t.Errorf("GET %s: ETag %s is not a strong one", target, etag)
		}
		if other, taken := seen[etag]; taken {
			t.Errorf("%s and %s share the ETag %s", target, other, etag)
		}
		seen[etag] = target

		for _, condition := range []string{etag, `"other", ` + etag, "W/" + etag, "*"} {
			again := served(t, http.MethodGet, target, http.Header{"If-None-Match": {condition}})
			if again.StatusCode != http.StatusNotModified || body(t, again) != "" {
				t.Errorf("GET %s with If-None-Match %s: status %d, want an empty 304", target, condition, again.StatusCode)
			}
			if got := again.Header.Get("ETag"); got != etag {
				t.Errorf("GET %s with If-None-Match %s: ETag %s, want %s", target, condition, got, etag)
			}
		}
		changed := served(t, http.MethodGet, target, http.Header{"If-None-Match": {`"other"`}})
		if changed.StatusCode != http.StatusOK {
			t.Errorf("GET %s with another ETag: status %d, want 200", target, changed.StatusCode)
		}
	}
}

func TestHeadAnswersTheHeadAlone(t *testing.T) {
	get := served(t, http.MethodGet, "/", nil)
	head := served(t, http.MethodHead, "/", nil)
	if head.StatusCode != http.StatusOK || body(t, head) != "" {
		t.Errorf("HEAD /: status %d with a body, want an empty 200", head.StatusCode)
	}
	for _, name := range []string{"Content-Length", "Content-Type", "ETag"} {
		if got, want := head.Header.Get(name), get.Header.Get(name); got != want || got == "" {
			t.Errorf("HEAD /: %s %q, GET has %q", name, got, want)
		}
	}
}

func TestOtherMethodsAndPathsAreRefused(t *testing.T) {
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions, http.MethodTrace} {
		response := served(t, method, "/", nil)
		if response.StatusCode != http.StatusMethodNotAllowed || response.Header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s /: status %d, Allow %q", method, response.StatusCode, response.Header.Get("Allow"))
		}
	}
	for _, target := range []string{
		"/index.html", "/console", "/console/", "/console/none.js", "/embed.go", "/console/../embed.go",
		"/console/%2e%2e/embed.go", "//", "/console//feed.js",
		"/feed.html", "/feeds", "/feeds/a/b", "/feeds//", "/favicon.ico", "/v1/feeds",
	} {
		response := served(t, http.MethodGet, target, nil)
		if response.StatusCode != http.StatusNotFound {
			t.Errorf("GET %s: status %d, want 404", target, response.StatusCode)
		}
		if got := response.Header.Get("Content-Type"); got != "application/problem+json" {
			t.Errorf("GET %s: Content-Type %q", target, got)
		}
		var problem struct {
			Title  string
			Status int
			Detail string
		}
		if err := json.Unmarshal([]byte(body(t, response)), &problem); err != nil {
			t.Errorf("GET %s: read problem: %v", target, err)
		}
		if problem.Title != "Not Found" || problem.Status != http.StatusNotFound || !strings.HasPrefix(problem.Detail, "there is nothing at /") {
			t.Errorf("GET %s: problem %+v", target, problem)
		}
	}
}

// A link to a file that is not embedded, or an import with a slip in it, would leave a page that does nothing.
func TestEveryReferenceIsServed(t *testing.T) {
	assets := load()
	reference := map[string]*regexp.Regexp{
		".html": regexp.MustCompile(`\b(?:href|src)="([^"]+)"`),
		".js":   regexp.MustCompile(`\b(?:from |import\(|new URL\()"((?:\./)?[a-z-]+\.[a-z]+)"`),
		".css":  regexp.MustCompile(`url\(([^)]+)\)|@import\s+(\S+)`),
	}
	for _, name := range names(t) {
		pattern, ok := reference[path.Ext(name)]
		if !ok {
			continue
		}
		for _, match := range pattern.FindAllStringSubmatch(source(t, name), -1) {
			target := path.Join("/", path.Dir(name), match[1])
			if _, ok := assets[target]; !ok && !isFeedPage(target) {
				t.Errorf("%s refers to %s, which is not served", name, match[1])
			}
		}
	}
}

// The policy would block what is inline and what comes from elsewhere, and the browser would say so only in its console.
func TestThePageKeepsToItsPolicy(t *testing.T) {
	for _, name := range []string{"index.html", "feed.html"} {
		page := source(t, name)
		for _, inline := range []string{`<style`, `\sstyle=`, `\son[a-z]+=`, `javascript:`, `<script(?:\s[^>]*)?>[^<]`, `<script>`} {
			if found := regexp.MustCompile(inline).FindString(page); found != "" {
				t.Errorf("%s has %q inline", name, found)
			}
		}
	}
	unsafe := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|setAttribute\("style"`)
	elsewhere := regexp.MustCompile(`(?:https?:)?//[a-z0-9-]+\.[a-z]{2,}`)
	for _, name := range names(t) {
		text := source(t, name)
		if found := unsafe.FindString(text); found != "" {
			t.Errorf("%s uses %s: what a feed carries goes through textContent", name, found)
		}
		// The SVG namespace is a name, never fetched.
		if found := elsewhere.FindString(strings.ReplaceAll(text, "http://www.w3.org/2000/svg", "")); found != "" {
			t.Errorf("%s refers to %s: nothing comes from elsewhere", name, found)
		}
	}
}

// A page that loads in a moment on a telephone stays small: on its way, and in the browser.
func TestTheConsoleIsSmall(t *testing.T) {
	sent, size := 0, 0
	for _, a := range load() {
		sent += len(a.compressed)
		size += len(a.body)
	}
	if sent > 62_000 || size > 170_000 {
		t.Errorf("the console has %d bytes, and %d compressed; want 170,000 and 62,000 at most", size, sent)
	}
}

// A browser gets every file compressed, and what it asks for again by its tag, not at all.
func TestCompression(t *testing.T) {
	get := func(target string, header http.Header) *http.Response {
		return served(t, http.MethodGet, target, header)
	}
	for target, a := range load() {
		resp := get(target, http.Header{"Accept-Encoding": {"br, gzip;q=0.5"}})
		if resp.Header.Get("Content-Encoding") != "gzip" || resp.Header.Get("Vary") != "Accept-Encoding" {
			t.Fatalf("GET %s: %v", target, resp.Header)
		}
		z, err := gzip.NewReader(resp.Body)
		if err != nil {
			t.Fatalf("GET %s: %v", target, err)
		}
		if body, err := io.ReadAll(z); err != nil || !bytes.Equal(body, a.body) {
			t.Errorf("GET %s: %d bytes, %v; want the %d of the file", target, len(body), err, len(a.body))
		}
		tag := resp.Header.Get("ETag")
		again := get(target, http.Header{"Accept-Encoding": {"gzip"}, "If-None-Match": {tag}})
		if tag == a.etag || again.StatusCode != http.StatusNotModified {
			t.Errorf("GET %s again with %s: %s; the file itself has %s", target, tag, again.Status, a.etag)
		}
		for _, none := range []string{"", "br", "gzip;q=0", "gzip; q=0.0, br", "xgzip"} {
			if got := get(target, http.Header{"Accept-Encoding": {none}}).Header.Get("Content-Encoding"); got != "" {
				t.Errorf("GET %s accepting %q: %s", target, none, got)
			}
		}
	}
}
