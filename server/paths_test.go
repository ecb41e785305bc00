package server_test

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// streamTests are the tests of streams over HTTP/1.1, which the engine carries, or
// net/http where there is no engine. Each has to pass over both, and over TLS.
var streamTests = []string{
	"BareContract", "BareCutAtEveryByte", "BareEnds", "BareGapLater", "BareOnTheWire", "BareStatus", "BareTokenExpires",
	"BreakTakesTheConnection", "ComingBackToAClosedFeed", "DescriptorReuse", "Drain", "DrainAtOnce", "DrainSpreads",
	"EndAtOnce", "ForwardExpiry", "ForwardGrace", "ForwardHolds", "ForwardRevokes", "GapFails", "GapFailsLater", "HiddenCursorUnderEphemeralEvents", "LastRequest",
	"ManyContract", "ManyDrain", "ManyHiddenCursors", "MaxAge", "MuchAtOnce", "NextRequest", "Pipelined", "PoolOfConnections", "QuietClient",
	"SlowReaderOfMany", "SlowReaderOfManyDrained", "StalledReader", "StoreAway", "StreamOnTheWire",
	"SubscribeContract", "TokenExpires", "TokenExpiresAndTheNextRequest", "WhereAStreamStarts",
}

// TestOverNetHTTP runs these tests again in a process whose streams net/http carries:
// the contract is the same for both carriers. How stores differ is a matter of other
// tests, so the events are in memory.
func TestOverNetHTTP(t *testing.T) { passAgain(t, "-net-http") }

// TestOverTLS runs them over TLS and HTTP/1.1, carried by the engine.
func TestOverTLS(t *testing.T) { passAgain(t, "-over-tls") }

// TestOverHTTP2 runs them over HTTP/2, carried by the engine, except for the requests
// that a test writes byte by byte.
func TestOverHTTP2(t *testing.T) { passAgain(t, "-over-tls", "-http2") }

// passAgain demands that the tests pass in a process with the flags, and reports the
// failures alone: the whole output is longer than what CI shows. HTTP/2 by net/http
// passes them as well (-net-http -over-tls -http2), which no change here can affect.
func passAgain(t *testing.T, way ...string) {
	if *netHTTP || *overTLS {
		return // as all others do in this process
	}
	t.Parallel()
	var timeout time.Duration // none
	if deadline, ok := t.Deadline(); ok {
		timeout = time.Until(deadline) - 10*time.Second // so that its report still comes through
	}
	// They wait most of the time, for clocks and for each other.
	cmd := exec.Command(os.Args[0], append([]string{"-test.v", "-test.timeout=" + timeout.String(), "-test.parallel=16",
		"-test.run=^Test(" + strings.Join(streamTests, "|") + ")$", "-in-memory", "-reuse=1s"}, way...)...)
	out, err := cmd.CombinedOutput()
	passed, failures := judge(string(out))
	var missing []string
	for _, name := range streamTests {
		if !passed["Test"+name] {
			missing = append(missing, "Test"+name)
		}
	}
	if err != nil || len(missing) > 0 {
		t.Errorf("with %s: %v; not passed: %s\n%s", way, err, strings.Join(missing, " "), failures)
	}
}

var (
	ofTest  = regexp.MustCompile(`^=== (?:RUN|PAUSE|CONT|NAME) +(\S+)$`)
	outcome = regexp.MustCompile(`^ *--- (PASS|FAIL): (\S+) \(`)
)

// judge returns which tests passed, and what explains the others, from the output of a
// verbose run: the lines that each failed test wrote itself, each data race and a panic.
func judge(out string) (passed map[string]bool, failures string) {
	passed = make(map[string]bool)
	wrote := make(map[string]string)
	var failed []string
	var broken strings.Builder // the races and the panic
	test, racing, panicked := "", false, false
	for line := range strings.Lines(out) {
		text := strings.TrimSuffix(line, "\n")
		racing = racing || strings.HasPrefix(text, "WARNING: DATA RACE")
		panicked = panicked || strings.HasPrefix(text, "panic: ") || strings.HasPrefix(text, "fatal error: ")
		if racing || panicked {
			broken.WriteString(line)
			racing = racing && !strings.HasPrefix(text, "=====")
		} else if m := ofTest.FindStringSubmatch(text); m != nil {
			test = m[1]
		} else if m := outcome.FindStringSubmatch(text); m == nil && strings.HasPrefix(text, "    ") {
			wrote[test] += line
		} else if m != nil && m[1] == "PASS" {
			passed[m[2]] = true
		} else if m != nil {
			failed = append(failed, m[2])
		}
	}
	for _, name := range failed {
		failures += "--- FAIL: " + name + "\n" + wrote[name]
	}
	return passed, failures + broken.String()
}

// TestJudge: the failures of a verbose run are few lines of it, however long it is.
func TestJudge(t *testing.T) {
	t.Parallel()
	passed, failures := judge(`=== RUN   TestA
=== PAUSE TestA
=== RUN   TestB
2026/11/30 21:02:44 INFO feed trimmed before=3
    b_test.go:7: 3 streams
--- PASS: TestB (0.01s)
=== CONT  TestA
=== RUN   TestA/one
=== NAME  TestA
    a_test.go:3: no event:
        none at all
=== NAME  TestA/one
    a_test.go:5: too late
==================
WARNING: DATA RACE
Read at 0x1 by goroutine 2:
==================
--- FAIL: TestA (0.02s)
    --- FAIL: TestA/one (0.01s)
=== RUN   TestC
panic: test timed out

goroutine 1 [running]:
`)
	want := `--- FAIL: TestA
    a_test.go:3: no event:
        none at all
--- FAIL: TestA/one
    a_test.go:5: too late
WARNING: DATA RACE
Read at 0x1 by goroutine 2:
==================
panic: test timed out

goroutine 1 [running]:
`
	if diff := cmp.Diff(want, failures); diff != "" || len(passed) != 1 || !passed["TestB"] {
		t.Errorf("passed: %v; (-want +got)\n%s", passed, diff)
	}
}
