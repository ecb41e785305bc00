package server_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
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

// passAgain demands that the tests pass in a process with the flags. HTTP/2 by net/http
// passes them as well (-net-http -over-tls -http2), which no change here can affect.
func passAgain(t *testing.T, way ...string) {
	if *netHTTP || *overTLS {
		return // as all others do in this process
	}
	t.Parallel()
	// They wait most of the time, for clocks and for each other.
	cmd := exec.Command(os.Args[0], append([]string{"-test.v", "-test.timeout=4m", "-test.parallel=16",
		"-test.run=^Test(" + strings.Join(streamTests, "|") + ")$", "-in-memory", "-reuse=1s"}, way...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v:\n%s", err, out)
	}
	for _, name := range streamTests {
		if !strings.Contains(string(out), fmt.Sprintf("\n--- PASS: Test%s (", name)) {
			t.Errorf("Test%s has not passed with %s", name, way)
		}
	}
}
