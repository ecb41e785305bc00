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
		{[]string{"version", "x"}, exitUsage, "", "rejoin: version takes no arguments, but was given \"x\"\n"},
		{[]string{"--version"}, exitOK, versionLine() + "\n", ""},
		{[]string{"sevre"}, exitUsage, "", "rejoin: unknown command \"sevre\" for rejoin; did you mean serve?\n"},
		{[]string{"subscribe"}, exitUsage, "", "did you mean tail?"},
		{[]string{"xyzzy"}, exitUsage, "", "; rejoin --help lists the commands\n"},
		{[]string{"bench", "fanuot"}, exitUsage, "", `for rejoin bench; did you mean fanout?`},
		{[]string{"serve", "--listne", "x"}, exitUsage, "", "rejoin: unknown flag: --listne; did you mean --listen?\n"},
		{[]string{"tail", "chat", "-feed", "x"}, exitUsage, "", "did you mean --feed?"},
		{[]string{"tail", "chat", "--form=start"}, exitUsage, "", "did you mean --from?"},
		{[]string{"tail", "--xyzzy"}, exitUsage, "", "unknown flag: --xyzzy; rejoin tail --help lists the flags\n"},
		{[]string{"serve", "--store", "x"}, exitUsage, "", "store.url: "},
		{[]string{"tail"}, exitUsage, "", "rejoin: which feed? Name it, as in: rejoin tail chat\n"},
		{[]string{"tail", "log", "--from", "yesterday"}, exitUsage, "", "--from: "},
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

// TestHelp: each command has a description and an example.
func TestHelp(t *testing.T) {
	commands := newRootCommand().Commands()
	for i := 0; i < len(commands); i++ {
		commands = append(commands, commands[i].Commands()...)
		cmd := commands[i]
		if name := cmd.CommandPath(); cmd.Long == "" || !strings.Contains(cmd.Example, name) {
			t.Errorf("%s lacks a description or an example", name)
		}
		for line := range strings.Lines(cmd.Long) {
			if len(line) > 86 {
				t.Errorf("%s: the line is longer than a terminal: %s", cmd.CommandPath(), line)
			}
		}
	}
}
