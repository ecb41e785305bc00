package main

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
)

func TestExitCodes(t *testing.T) {
	for _, test := range []struct {
		args           []string
		code           int
		stdout, stderr string
	}{
		{nil, exitOK, "Usage:", ""},
		{[]string{"--help"}, exitOK, "publish", ""},
		{[]string{"version"}, exitOK, "rejoin ", ""},
		{[]string{"version", "x"}, exitUsage, "", "unknown command"},
		{[]string{"sevre"}, exitUsage, "", `rejoin: unknown command "sevre"`},
		{[]string{"serve", "--listne", "x"}, exitUsage, "", "rejoin: unknown flag: --listne\n"},
		{[]string{"serve", "--store", "x"}, exitUsage, "", "store.url: "},
		{[]string{"tail"}, exitUsage, "", "--feed: "},
		{[]string{"tail", "--feed", "log", "--from", "yesterday"}, exitUsage, "", "--from: "},
		{[]string{"tail", "--feed", "log", "--last-event-id", "007"}, exitUsage, "", "--last-event-id: "},
		{[]string{"tail", "--feed", "log", "--last-event-id", "7", "--from", "start"}, exitUsage, "", "both say where to start"},
		{[]string{"tail", "--feed", "log", "--silence", "1s"}, exitUsage, "", "--silence: "},
		{[]string{"tail", "--feed", "log", "--url", "ftp://x"}, exitUsage, "", "--url "},
		{[]string{"health", "--url", "x"}, exitUsage, "", "--url "},
		{[]string{"health", "--url", "http://127.0.0.1:1"}, exitFailed, "", "connection refused"},
	} {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), test.args, nil, &stdout, &stderr)
		if code != test.code || !strings.Contains(stdout.String(), test.stdout) || !strings.Contains(stderr.String(), test.stderr) {
			t.Errorf("%q: exit %d, %q, %q", test.args, code, stdout.String(), stderr.String())
		}
		if code != exitOK && stdout.Len() > 0 {
			t.Errorf("%q: an error writes to standard output: %q", test.args, stdout.String())
		}
	}
}

func TestVersion(t *testing.T) {
	var stdout bytes.Buffer
	run(t.Context(), []string{"version"}, nil, &stdout, nil)
	if !regexp.MustCompile(`^rejoin \S+ go1\.\S+ \w+/\w+\n$`).MatchString(stdout.String()) {
		t.Errorf("got %q", stdout.String())
	}
	t.Cleanup(func() { version = "" })
	version = "v1.2.3"
	stdout.Reset()
	run(t.Context(), []string{"version"}, nil, &stdout, nil)
	if !strings.HasPrefix(stdout.String(), "rejoin v1.2.3 go") {
		t.Errorf("got %q", stdout.String())
	}
}
