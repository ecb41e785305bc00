package main

import (
	"html"
	"io"
	"net/http"
	"net/http/pprof"
)

// adminHandler serves what operators look at, on its own address. The public address
// has none of it.
func adminHandler(metrics http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", adminIndex)
	mux.Handle("GET /metrics", metrics)
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}

// adminIndex answers with a page that leads to everything else: GET /.
func adminIndex(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Security-Policy", "default-src 'none'")
	_, _ = io.WriteString(w, `<!doctype html>
<html lang="en">
<title>Rejoin, for operators</title>
<h1>Rejoin `+html.EscapeString(currentVersion())+`</h1>
<ul>
<li><a href="/metrics">Metrics</a> for Prometheus
<li><a href="/debug/pprof/">Profiles</a> of this process: <a href="/debug/pprof/heap?debug=1">memory</a>,
<a href="/debug/pprof/goroutine?debug=1">goroutines</a>, <a href="/debug/pprof/profile?seconds=10">CPU, for 10 seconds</a>
</ul>
</html>
`) // an error means that the client has gone
}
