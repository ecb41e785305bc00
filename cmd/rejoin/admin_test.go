package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestAdmin: the address for operators has an index whose links lead somewhere, and the
// public address has none of it.
func TestAdmin(t *testing.T) {
	t.Setenv("REJOIN_ADMIN_LISTEN", "127.0.0.1:0")
	t.Setenv("REJOIN_LOG_FORMAT", "json")
	t.Setenv("REJOIN_DRAIN_WINDOW", "10ms")
	ctx, signal := context.WithCancel(t.Context())
	stderr, log := io.Pipe()
	exit := make(chan int, 1)
	go func() {
		exit <- run(ctx, []string{"serve", "--listen", "127.0.0.1:0", "--store", "sqlite:" + filepath.Join(t.TempDir(), "rejoin.db")}, nil, io.Discard, log)
		log.Close()
	}()
	var public, admin string
	lines := bufio.NewScanner(stderr)
	for admin == "" && lines.Scan() {
		var entry struct{ Msg, URL, Address string }
		if err := json.Unmarshal(lines.Bytes(), &entry); err != nil {
			t.Fatalf("%v in %q", err, lines.Text())
		}
		switch entry.Msg {
		case "listening":
			public = entry.URL
		case "listening for operators":
			admin = "http://" + entry.Address
		}
	}
	go func() { _, _ = io.Copy(io.Discard, stderr) }()
	get := func(url string) (int, string, string) {
		t.Helper()
		resp, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, resp.Header.Get("Content-Type"), string(body)
	}

	status, media, index := get(admin + "/")
	links := regexp.MustCompile(`href="([^"]*)"`).FindAllStringSubmatch(index, -1)
	if status != http.StatusOK || media != "text/html; charset=utf-8" || len(links) < 4 {
		t.Fatalf("%d %s %s", status, media, index)
	}
	paths := []string{"/debug/pprof/cmdline", "/debug/pprof/symbol", "/debug/pprof/trace?seconds=0.01"}
	for _, link := range links {
		paths = append(paths, strings.Replace(link[1], "seconds=10", "seconds=1", 1))
	}
	for _, path := range paths {
		if status, _, body := get(admin + path); status != http.StatusOK || body == "" {
			t.Errorf("%s: %d %s", path, status, body)
		}
		if status, _, body := get(public + path); status != http.StatusNotFound {
			t.Errorf("the public address has %s: %d %s", path, status, body)
		}
	}
	if status, _, _ := get(admin + "/other"); status != http.StatusNotFound {
		t.Errorf("/other: %d", status)
	}
	signal()
	if code := <-exit; code != exitOK {
		t.Errorf("exit %d", code)
	}
}
