package main

import (
	"bytes"
	"os"
	"path/filepath"
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

func TestAppendVisible(t *testing.T) {
	for text, want := range map[string]string{
		"plain \ttabs\nand lines\n":       "plain \ttabs\nand lines\n",
		"Grüße, 世界, שלום\u200f, 👩\u200d🚀": "Grüße, 世界, שלום\u200f, 👩\u200d🚀",
		"\x1b]0;title\x07\x1b[2J":         `\x1b]0;title\x07\x1b[2J`,
		"over\rwritten\b\x7f\x00\v\f":     `over\x0dwritten\x08\x7f\x00\x0b\x0c`,
		"\u009b31m\u0080\u009f\u00a0":     `\u009b31m\u0080\u009f` + "\u00a0",
		"\x9b31m\xff\xc0\x80":             `\x9b31m\xff\xc0\x80`,
		"a\u202eb\u2066c\u2069\u2028":     `a\u202eb\u2066c\u2069\u2028`,
		"cut \xe4\xb8":                    `cut \xe4\xb8`,
		"\ufffd":                          "\ufffd",
	} {
		if got := string(appendVisible(nil, []byte(text))); got != want {
			t.Errorf("%q is shown as %q, want %q", text, got, want)
		}
	}
}

// TestHarmless: only output to a terminal is escaped.
func TestHarmless(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if harmless(file) != file || harmless(w) != w {
		t.Error("a file or a pipe is taken for a terminal")
	}
	var out bytes.Buffer
	if n, err := (terminal{&out}).Write([]byte("\x1b!")); n != 2 || err != nil || out.String() != `\x1b!` {
		t.Errorf("%d, %v, %q", n, err, out.String())
	}
}
