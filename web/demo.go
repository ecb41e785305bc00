package web

import (
	"bytes"
	"embed"
	"fmt"
	"maps"
	"net/http"
)

// The demo is one page with its own modules. It shows the source of two of them, so
// what a visitor reads is what runs.
//
//go:embed demo
var demoFiles embed.FS

// demoPage is where the page is. Its addresses are relative to the root.
const demoPage = "/demo"

// HandlerWithDemo returns the handler of the console with the demo at /demo, to which
// the other pages lead. The demo needs a server that answers POST /demo/answers.
func HandlerWithDemo() http.Handler { return handler(loadWithDemo()) }

// loadWithDemo is load with the files of the demo. It panics on what cannot be served,
// which a test would have met first.
func loadWithDemo() map[string]asset {
	assets := maps.Clone(load())
	for served, link := range map[string]string{"/": "demo", feedPages: "../demo"} {
		assets[served] = mustAsset("page.html", linked(assets[served].body, link))
	}
	entries, err := demoFiles.ReadDir("demo")
	if err != nil {
		panic(fmt.Errorf("load demo: %w", err))
	}
	for _, entry := range entries {
		name := "demo/" + entry.Name()
		body, err := demoFiles.ReadFile(name)
		if err != nil {
			panic(fmt.Errorf("load demo: %w", err))
		}
		served := "/" + name
		if entry.Name() == "index.html" {
			served = demoPage
		}
		assets[served] = mustAsset(name, body)
	}
	return assets
}

// linked returns a page of the console with a link to the demo at the end of its header.
func linked(page []byte, link string) []byte {
	const headEnd, headerEnd = "</head>", "</header>"
	if bytes.Count(page, []byte(headEnd)) != 1 || bytes.Count(page, []byte(headerEnd)) != 1 {
		panic("load demo: a page of the console has no place for a link to it")
	}
	style := `  <link rel="stylesheet" href="` + link + `/link.css">` + "\n"
	page = bytes.Replace(page, []byte(headEnd), []byte(style+headEnd), 1)
	anchor := `  <a class="to-demo" href="` + link + `">Demo</a>` + "\n  "
	return bytes.Replace(page, []byte(headerEnd), []byte(anchor+headerEnd), 1)
}

func mustAsset(name string, body []byte) asset {
	a, err := newAsset(name, body)
	if err != nil {
		panic(fmt.Errorf("load demo: %w", err))
	}
	return a
}
