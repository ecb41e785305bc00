package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rejoin/rejoin/cmd/internal/verify"
)

// TestVerify runs rejoin verify against a server, and looks at both of its
// reports and at what it leaves behind.
func TestVerify(t *testing.T) {
	t.Parallel()
	u := serve(t, built(t, false), filepath.Join(t.TempDir(), "rejoin.db")).url
	var o outcome
	var v verify.Report
	// A slow machine needs more time for as much.
	for long := 1500 * time.Millisecond; v.Acknowledged < 50 && long < time.Minute; long *= 2 {
		o = runCommand(t, "verify", "--json", "--for", long.String(), "--rate", "100", "--url", u, "--url", u, "--feeds", "2")
		v = verify.Report{}
		o.read(t, &v)
	}
	if o.code != exitOK || v.Violations > 0 || len(v.Findings) > 0 || v.Left != "" {
		t.Errorf("exit %d, %+v\n%s", o.code, v, o.stderr)
	}
	if v.Acknowledged < 50 || v.Deliveries < 5*v.Acknowledged || v.Subscribers != 12 || v.Connections < 12 || v.Unknown > 0 {
		t.Errorf("it has proven too little: %+v", v)
	}
	for left, err := range clientOf(t, u).Feeds(t.Context(), "rejoin-verify:") {
		if err != nil {
			t.Fatal(err)
		}
		if left.First != left.Last+1 {
			t.Errorf("there is something left: %+v", left)
		}
	}
	o = runCommand(t, "verify", "--url", u, "--for", "1s")
	if o.code != exitOK {
		t.Errorf("exit %d, %s", o.code, o.stderr)
	}
	for _, want := range []string{"acknowledged ", "deliveries to 12 subscribers", "violations     0\n"} {
		if !strings.Contains(o.stdout, want) {
			t.Errorf("the table lacks %q:\n%s", want, o.stdout)
		}
	}
}

// TestVerifyRights: without the right to delete, the feeds stay, which is
// reported; without the right to publish or to read, nothing is proven.
func TestVerifyRights(t *testing.T) {
	t.Parallel()
	p := serve(t, built(t, false), filepath.Join(t.TempDir(), "rejoin.db"), "REJOIN_AUTH_MODE=jwt", "REJOIN_AUTH_JWT_KEY="+tokenSecret)
	for _, test := range []struct {
		rights []string
		code   int
		note   string
	}{
		{[]string{"--subscribe", "rejoin-verify:*", "--publish", "rejoin-verify:*"}, exitOK, "* are left: "},
		{[]string{"--subscribe", "rejoin-verify:*", "--publish", "rejoin-verify:*", "--admin"}, exitOK, ""},
		{[]string{"--subscribe", "rejoin-verify:*"}, exitFailed, "status 403"},
		{[]string{"--publish", "rejoin-verify:*"}, exitFailed, "status 403"},
	} {
		token := makeTokenWith(t, built(t, false), test.rights...)
		_, wait := startCommand(t, time.Minute, []string{"REJOIN_TOKEN=" + token}, "verify", "--url", p.url, "--for", "1s")
		o := wait()
		if o.code != test.code || !strings.Contains(o.stderr, test.note) || test.note == "" && o.stderr != "" {
			t.Errorf("%q: exit %d, %s%s", test.rights, o.code, o.stdout, o.stderr)
		}
	}
}

// TestVerifyThroughRestarts kills the server under a verification, twice: the
// promise holds, and it is seen to.
func TestVerifyThroughRestarts(t *testing.T) {
	t.Parallel()
	db := filepath.Join(t.TempDir(), "rejoin.db")
	p := serve(t, built(t, false), db)
	address := strings.TrimPrefix(p.url, "http://")
	command, wait := startCommand(t, 2*time.Minute, nil, "verify", "--json", "--rate", "100", "--url", "http://"+address)
	for range 2 {
		awaitPublished(t, p.url, "rejoin-verify:", 50)
		p.kill()
		p = serveAt(t, built(t, false), address, "sqlite:"+db, "memory")
	}
	awaitPublished(t, p.url, "rejoin-verify:", 50)
	command.signal(os.Interrupt)
	o := wait()
	var v verify.Report
	o.read(t, &v)
	if o.code != exitOK || v.Violations > 0 {
		t.Errorf("exit %d, %+v\n%s", o.code, v, o.stderr)
	}
	if v.Acknowledged < 50 || v.Connections < 2*v.Subscribers {
		t.Errorf("it has proven too little: %+v", v)
	}
}
