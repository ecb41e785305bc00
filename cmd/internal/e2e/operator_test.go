package e2e

import (
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestOperator looks after feeds of a server that needs tokens, as its operator does.
func TestOperator(t *testing.T) {
	t.Parallel()
	binary, db := built(t, false), filepath.Join(t.TempDir(), "rejoin.db")
	p := serve(t, binary, db, "REJOIN_AUTH_MODE=jwt", "REJOIN_AUTH_JWT_KEY="+tokenSecret)
	admin := makeTokenWith(t, binary, "--admin")
	reader := makeTokenWith(t, binary, "--subscribe", "*", "--publish", "*")
	for _, step := range []struct {
		token, command string
		code           int
		stdout, stderr string // that it prints among others
	}{
		{reader, "publish chat hello", exitOK, "1\n", ""},
		{reader, "publish chat again", exitOK, "2\n", ""},
		{admin, "feeds", exitOK, "\nchat  1      2     no ", ""},
		{reader, "feeds", exitFailed, "", "rejoin: list feeds: "},
		{reader, "feed chat", exitOK, "\nlast         2\n", ""},
		{admin, "feed chat", exitFailed, "", "rejoin: describe chat: not allowed: the token may not subscribe to chat (status 403)"},
		{admin, "trim chat --before 2", exitOK, "", "below 2 are deleted"},
		{"", "trim chat --before 2", exitFailed, "", "rejoin: trim chat: a token is needed (status 401)"},
		{reader, "close chat", exitOK, "", "rejoin: chat is closed\n"},
		{reader, "tail chat --from start --id", exitOK, "2\tagain\n", ""},
		{reader, "delete chat --yes", exitFailed, "", "rejoin: delete chat: "},
		{admin, "delete chat --yes", exitOK, "", "rejoin: all events of chat are deleted\n"},
		{admin, "feeds --json", exitOK, `{"feed":"chat","first":3,"last":2,"closed":true,`, ""},
	} {
		_, wait := startCommand(t, time.Minute, []string{"REJOIN_TOKEN=" + step.token}, append(strings.Fields(step.command), "--url", p.url)...)
		o := wait()
		if o.code != step.code || !strings.Contains(o.stdout, step.stdout) || !strings.Contains(o.stderr, step.stderr) {
			t.Errorf("%s: exit %d, %q, %q", step.command, o.code, o.stdout, o.stderr)
		}
	}
}

// TestServeTwice: a second server asks whether one is running, on the same address or
// with the same file.
func TestServeTwice(t *testing.T) {
	t.Parallel()
	db := filepath.Join(t.TempDir(), "rejoin.db")
	p := serve(t, built(t, false), db)
	for name, args := range map[string][]string{
		"address": {"--listen", strings.TrimPrefix(p.url, "http://"), "--store", "sqlite:" + db + "2"},
		"file":    {"--listen", "127.0.0.1:0", "--store", "sqlite:" + db},
	} {
		o := runCommand(t, append([]string{"serve"}, args...)...)
		if o.code != exitFailed || !strings.Contains(o.stderr, "is Rejoin running already?") {
			t.Errorf("the same %s: exit %d, %q", name, o.code, o.stderr)
		}
	}
}
