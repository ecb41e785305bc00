package web

import (
	"io/fs"
	"net/http"
	"net/http/httptest"
	"path"
	"regexp"
	"strings"
	"testing"
)

// demoSources returns the files of the demo by their names.
func demoSources(t *testing.T) map[string]string {
	t.Helper()
	sources := make(map[string]string)
	err := fs.WalkDir(demoFiles, "demo", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := demoFiles.ReadFile(name)
		sources[path.Base(name)] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return sources
}

func TestTheDemoIsOffByDefault(t *testing.T) {
	for _, target := range []string{"/demo", "/demo/demo.js", "/demo/", "/demo/answers"} {
		if got := served(t, http.MethodGet, target, nil).StatusCode; got != http.StatusNotFound {
			t.Errorf("GET %s: status %d, want 404", target, got)
		}
	}
	for _, target := range []string{"/", "/feeds/orders"} {
		if strings.Contains(body(t, served(t, http.MethodGet, target, nil)), `"to-demo"`) {
			t.Errorf("%s leads to a demo that is off", target)
		}
	}
}

func TestTheDemoIsServed(t *testing.T) {
	handler := HandlerWithDemo()
	for target, want := range map[string]string{
		"/demo": `data-source="chat.js"`, "/demo/chat.js": "export function follow", "/demo/demo.css": ".messages",
		"/": `<a class="to-demo" href="demo">`, "/feeds/orders": `<a class="to-demo" href="../demo">`, "/console/feed.js": "import",
	} {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, target, nil))
		if got := w.Body.String(); w.Code != http.StatusOK || !strings.Contains(got, want) {
			t.Errorf("GET %s: status %d without %q", target, w.Code, want)
		}
		if w.Header().Get("Content-Security-Policy") != policy {
			t.Errorf("GET %s: the policy is missing", target)
		}
	}
	if found := loadWithDemo()["/"].etag; found == load()["/"].etag {
		t.Error("the page with a link to the demo has the ETag of the one without")
	}
}

// TestTheDemoHoldsTogether: its page and modules refer to what is served, keep to the
// policy, handle what a feed carries as text, and are small.
func TestTheDemoHoldsTogether(t *testing.T) {
	sources, assets, size := demoSources(t), loadWithDemo(), 0
	unsafe := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|<style|\sstyle=|\son[a-z]+="|javascript:|https?://`)
	for name, text := range sources {
		size += len(text)
		if found := unsafe.FindString(text); found != "" {
			t.Errorf("%s has %q", name, found)
		}
	}
	if size > 40_000 {
		t.Errorf("the demo has %d bytes, want 40,000 at most", size)
	}
	for _, match := range regexp.MustCompile(`(?:href|src)="([^"]+)"`).FindAllStringSubmatch(sources["index.html"], -1) {
		if target := path.Join("/", match[1]); assets[target].body == nil && !isFeedPage(target) {
			t.Errorf("the page refers to %s, which is not served", target)
		}
	}
	for name, text := range sources {
		for _, match := range regexp.MustCompile(`(?:from|import) "\./([a-z-]+\.js)"`).FindAllStringSubmatch(text, -1) {
			if sources[match[1]] == "" {
				t.Errorf("%s imports %s, which there is not", name, match[1])
			}
		}
	}
	// What is shown is what the parts of the page run, and no more than a reader copies.
	for shown, runs := range map[string]string{"chat.js": "chat-panes.js", "answer.js": "answer-pane.js"} {
		if !strings.Contains(sources["index.html"], `data-source="`+shown+`"`) || !strings.Contains(sources[runs], `from "./`+shown+`"`) {
			t.Errorf("the page does not show %s, which %s runs", shown, runs)
		}
		lines := strings.Split(strings.TrimSuffix(sources[shown], "\n"), "\n")
		if len(lines) > 14 {
			t.Errorf("%s has %d lines, want 14 at most", shown, len(lines))
		}
		for n, line := range lines {
			if len(line) > 76 {
				t.Errorf("%s: line %d has %d columns, want 76 at most", shown, n+1, len(line))
			}
		}
		if strings.Contains(sources[runs], "EventSource(") || strings.Contains(sources[runs], "fetch(") {
			t.Errorf("%s goes to the server without %s", runs, shown)
		}
	}
}
