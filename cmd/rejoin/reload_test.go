package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// reloads is a reloader whose server only notes what it is given.
type reloads struct {
	*reloader
	t       *testing.T
	dir     string
	log     bytes.Buffer
	applied Config
	newKeys bool
	fails   error // what applying returns
}

func newReloads(t *testing.T, content string, flags ...string) *reloads {
	t.Helper()
	r := &reloads{t: t, dir: t.TempDir()}
	r.write("config", content)
	cmd := newServeCommand()
	if err := cmd.ParseFlags(append(flags, "--config", filepath.Join(r.dir, "config"))); err != nil {
		t.Fatal(err)
	}
	r.reloader = &reloader{flags: cmd.Flags(), logger: slog.New(slog.NewTextHandler(&r.log, nil))}
	r.apply = func(_ context.Context, c Config, newKeys bool) error {
		if r.fails == nil {
			r.applied, r.newKeys = c, newKeys
		}
		return r.fails
	}
	if err := r.load(); err != nil {
		t.Fatal(err)
	}
	return r
}

// write writes a file, with the directory in place of DIR.
func (r *reloads) write(name, content string) {
	r.t.Helper()
	content = strings.ReplaceAll(content, "DIR", r.dir)
	if err := os.WriteFile(filepath.Join(r.dir, name), []byte(content), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// logs reloads, and demands that the log then has these parts, each in a line.
func (r *reloads) logs(parts ...string) {
	r.t.Helper()
	r.log.Reset()
	r.attempt(r.t.Context())
	for _, part := range parts {
		if !strings.Contains(r.log.String(), part) {
			r.t.Errorf("want %q in the log:\n%s", part, r.log.String())
		}
	}
	if lines := strings.Count(r.log.String(), "\n"); lines != len(parts) {
		r.t.Errorf("want %d lines in the log:\n%s", len(parts), r.log.String())
	}
}

// TestReloadCompares: the same value in other words is no change. A key that needs a
// restart is named again until there is one.
func TestReloadCompares(t *testing.T) {
	r := newReloads(t, "listen: 127.0.0.1:1\nlimits: {memory: 64MiB}\ncors: {origins: 'http://a,http://b'}\n", "--auth", "none")
	r.write("config", "limits: {memory: 67108864}\ncors: {origins: [http://a, http://b]}\nauth: {mode: jwt, jwt: {key: "+strings.Repeat("k", 32)+"}}\nbus: {verify: 2s}\n")
	r.logs(`changed=auth.jwt.key`, `keys="listen, bus.verify, auth.mode (overridden by --auth)"`)
	if r.applied.Listen != "127.0.0.1:1" || r.applied.Bus.Verify != DefaultConfig().Bus.Verify || r.applied.Auth.Mode != "none" {
		t.Errorf("applied %+v", r.applied)
	}
	r.write("config", "limits: {memory: 96MiB}\n")
	r.logs(`changed="limits.memory, auth.jwt.key, cors.origins"`, `keys="listen, auth.mode (overridden by --auth)"`)
	r.logs(`changed=nothing`, `keys=listen`)
}

// TestReloadIsWhole: keys that do not fit those that need a restart change nothing.
func TestReloadIsWhole(t *testing.T) {
	r := newReloads(t, "listen: 0.0.0.0:1\nauth: {mode: none}\n")
	r.write("config", "listen: 127.0.0.1:1\nlog: {level: debug}\n")
	r.logs("auth.mode: ")
	if r.applied.Listen != "" {
		t.Errorf("applied %+v", r.applied)
	}
	r.logs() // each fault once
}

// TestReloadKeyFiles: the contents of a file with keys count like a value.
func TestReloadKeyFiles(t *testing.T) {
	const config = "auth: {mode: jwt, jwt: {key_file: DIR/key}}\n"
	r := newReloads(t, config+"tls: {cert: a, key: b}\n")
	if before := r.look(); before["auth.jwt.key_file"] == "" {
		t.Errorf("the file is not looked at: %v", before)
	}
	r.write("key", strings.Repeat("k", 32))
	r.logs("changed=auth.jwt.key_file")
	if !r.newKeys {
		t.Error("the keys are not new")
	}
	r.write("config", config+"tls: {cert: a, key: b}\nlog: {level: warn}\n")
	r.logs("changed=log.level")
	if r.newKeys {
		t.Error("the keys are new")
	}
	r.write("key", "short")
	r.fails = errors.New("auth.jwt.key_file: too short")
	r.logs("config:1: auth.jwt.key_file: too short")
	r.fails = nil
	r.logs("changed=auth.jwt.key_file")
}
