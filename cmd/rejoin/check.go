package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/rejoin/rejoin/server/auth"
)

func newCheckCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check what a server needs, without starting one",
		Long: `Check reads the configuration as serve does, and looks at everything that a server
with it would use: limits of the system, certificates, keys, the store and the bus.
It changes nothing. It prints one line for each check: "ok", or "PROBLEM" with what
would not work, why, and what to do. The exit code is 1 if there is a problem.

Run it as the same user, on the same machine and with the same limits as the server.`,
		Example: `  rejoin check --config /etc/rejoin.yaml
  rejoin check --store postgres://rejoin@db.internal/rejoin --bus postgres
  rejoin check --json | grep '"problem"'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			k := &checker{out: cmd.OutOrStdout(), asJSON: asJSON, proc: "/proc"}
			c, err := Load(cmd.Flags())
			if err == nil {
				k.ok("configuration", configFile(cmd.Flags()), "every key and value is good")
				k.all(cmd.Context(), c)
			} else {
				k.configuration(err)
			}
			return k.end()
		},
	}
	configFlags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print each line as JSON")
	return cmd
}

// look is one line of the output.
type look struct {
	Look   string `json:"look"`
	Status string `json:"status"`           // ok, problem
	At     string `json:"at,omitempty"`     // a file, or hosts and ports, without secrets
	Found  string `json:"found,omitempty"`  // if ok
	Breaks string `json:"breaks,omitempty"` // what would not work
	Why    string `json:"why,omitempty"`
	Do     string `json:"do,omitempty"`
}

func (l look) String() string {
	status, text := "ok     ", l.Found
	if l.Status != "ok" {
		status, text = "PROBLEM", l.Breaks+": "+strings.TrimSuffix(l.Why, "?")+". To do: "+l.Do
	}
	if l.At != "" {
		text = l.At + ": " + text
	}
	// Errors may have several lines.
	return fmt.Sprintf("%s  %-13s  %s", status, l.Look, strings.Join(strings.Fields(text), " "))
}

// checker looks at what a server would use, and prints what it finds.
type checker struct {
	out      io.Writer
	asJSON   bool
	proc     string // where /proc is
	problems int
	failed   error // of writing
}

func (k *checker) ok(name, at, found string) {
	k.print(look{Look: name, Status: "ok", At: at, Found: found})
}

func (k *checker) problem(name, at, breaks, why, do string) {
	k.problems++
	k.print(look{Look: name, Status: "problem", At: at, Breaks: breaks, Why: why, Do: do})
}

func (k *checker) print(l look) {
	line := l.String()
	if k.asJSON {
		text, err := json.Marshal(l)
		k.failed = errors.Join(k.failed, err)
		line = string(text)
	}
	_, err := fmt.Fprintln(k.out, line)
	k.failed = errors.Join(k.failed, err)
}

func (k *checker) end() error {
	switch {
	case k.failed != nil:
		return fmt.Errorf("write standard output: %w", k.failed)
	case k.problems == 1:
		return errors.New("check: 1 problem")
	case k.problems > 1:
		return fmt.Errorf("check: %d problems", k.problems)
	}
	return nil
}

// noStart is what most problems break.
const noStart = "the server would not start"

// configuration prints every fault of a configuration that cannot be loaded.
func (k *checker) configuration(err error) {
	faults := []error{err}
	if several, ok := errors.AsType[configFaults](err); ok {
		faults = several
	}
	for _, fault := range faults {
		k.problem("configuration", "", noStart, fault.Error(), "correct it; config.yaml in the repository describes every key")
	}
}

// lookTimeout bounds each look.
const lookTimeout = 15 * time.Second

func (k *checker) all(ctx context.Context, c Config) {
	k.descriptors(c.Limits)
	k.backlog()
	k.certificate(c.TLS, time.Now())
	for _, look := range []func(context.Context, Config){k.auth, k.store, k.bus} {
		if ctx.Err() != nil {
			k.problem("check", "", "the rest was not looked at", ctx.Err().Error(), "run it again")
			return
		}
		ctx, cancel := context.WithTimeout(ctx, lookTimeout)
		look(ctx, c)
		cancel()
	}
}

// ownDescriptors is how many a node uses, roughly, for everything but clients, and
// fewClients the clients that it should have room for at least.
const ownDescriptors, fewClients = 100, 1000

func (k *checker) descriptors(c LimitsConfig) {
	limit, known := descriptorLimit()
	if !known {
		return
	}
	need, key := uint64(fewClients), "about a thousand clients"
	if c.Subscribers > 0 {
		need, key = uint64(c.Subscribers), fmt.Sprintf("limits.subscribers (%d)", c.Subscribers)
	}
	need += ownDescriptors
	if limit < need {
		k.problem("descriptors", "", fmt.Sprintf("the server would refuse connections from about %d clients on", limit-min(limit, ownDescriptors)),
			fmt.Sprintf("it may have %d files and connections open, and needs %d for %s", limit, need, key),
			fmt.Sprintf("raise the limit to %d or more: LimitNOFILE= in systemd, --ulimit nofile= in Docker, or ulimit -Hn", need))
		return
	}
	k.ok("descriptors", "", fmt.Sprintf("%d, room for about %d clients", limit, limit-ownDescriptors))
}

// leastBacklog is the backlog of connections that reconnecting clients need: the
// kernel's default since Linux 5.4.
const leastBacklog = 4096

func (k *checker) backlog() {
	file := k.proc + "/sys/net/core/somaxconn"
	text, err := os.ReadFile(file)
	if err != nil {
		return // not Linux
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err == nil && n < leastBacklog {
		k.problem("somaxconn", "", "clients that all reconnect at once would wait for seconds, or fail",
			fmt.Sprintf("the kernel queues %d new connections at most", n), fmt.Sprintf("sysctl -w net.core.somaxconn=%d", leastBacklog))
		return
	}
	k.ok("somaxconn", "", strings.TrimSpace(string(text)))
}

// renewWithin is how long before its end a certificate is a finding.
const renewWithin = 14 * 24 * time.Hour

func (k *checker) certificate(c TLSConfig, now time.Time) {
	if c.Cert == "" {
		return
	}
	at := c.Cert + ", " + c.Key
	pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
	if err != nil {
		k.problem("tls", at, noStart, err.Error(), "make both files readable for this user, and set tls.key to the key of tls.cert")
		return
	}
	end := pair.Leaf.NotAfter.UTC().Format(time.RFC3339)
	switch {
	case now.After(pair.Leaf.NotAfter):
		k.problem("tls", at, "clients would refuse the server", "the certificate expired at "+end, "renew it")
	case now.Before(pair.Leaf.NotBefore):
		k.problem("tls", at, "clients would refuse the server", "the certificate is valid only from "+pair.Leaf.NotBefore.UTC().Format(time.RFC3339), "correct the clock of this machine, or use another certificate")
	case now.Add(renewWithin).After(pair.Leaf.NotAfter):
		k.problem("tls", at, "clients would soon refuse the server", "the certificate expires at "+end, "renew it; the server reads the new files by itself")
	default:
		k.ok("tls", at, "the key matches; valid until "+end)
	}
}

func (k *checker) auth(ctx context.Context, c Config) {
	switch c.Auth.Mode {
	case "jwt":
		k.keys(ctx, c)
	case "forward":
		k.application(ctx, c.Auth.Forward)
	default:
		k.ok("auth", "", "off: auth.mode is "+c.Auth.Mode)
	}
}

// application asks whether somebody without credentials may follow a feed.
func (k *checker) application(ctx context.Context, c ForwardConfig) {
	o := c.options(slog.New(slog.DiscardHandler))
	answer, err := auth.CheckForward(ctx, o)
	if err != nil {
		breaks := "every request would get 503, and event streams would wait"
		if strings.HasPrefix(err.Error(), "ca_file") {
			breaks = noStart
		}
		k.problem("auth", o.Place(), breaks, forwardKey+err.Error(), "let the application answer 2xx, 401 or 403 at auth.forward.url, and make it reachable from this machine")
		return
	}
	k.ok("auth", o.Place(), "the application answers; a client without cookie and token is "+answer)
}

func (k *checker) keys(ctx context.Context, c Config) {
	at, breaks := "auth.jwt.key", noStart
	do := "correct the file, or make it readable for this user"
	switch jwt := c.Auth.JWT; {
	case jwt.KeyFile != "":
		at = jwt.KeyFile
	case jwt.JWKSURL != "":
		u, err := url.Parse(jwt.JWKSURL)
		if err != nil { // the configuration is good, so it does not happen
			u = new(url.URL)
		}
		at, breaks = u.Host, "every request with a token would get 503"
		do = "make the key set reachable from this machine, or correct auth.jwt.jwks_url"
	}
	if err := auth.Check(ctx, c.Auth.JWT.options(slog.New(slog.DiscardHandler))); err != nil {
		k.problem("auth", at, breaks, jwtKey+err.Error(), do)
		return
	}
	k.ok("auth", at, "there are keys to verify tokens with")
}

// skew is how far two clocks may be apart.
const skew = 2 * time.Second

// clocks compares the clock of a server with that of this machine at the same moment.
func (k *checker) clocks(at string, server, here time.Time) {
	apart := server.Sub(here).Round(time.Millisecond)
	if apart.Abs() > skew {
		k.problem("clock", at, "times of events, ages in retention and expiries of tokens and keys would differ between machines",
			fmt.Sprintf("its clock is %v away from that of this machine", apart), "synchronize both clocks, with chrony or systemd-timesyncd")
		return
	}
	k.ok("clock", at, "less than 2s away from that of this machine")
}
