package main

import (
	"bytes"
	"context"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rejoin/rejoin/server/auth"
)

const tokenSecret = "0123456789abcdef0123456789abcdef"

func TestToken(t *testing.T) {
	config := filepath.Join(t.TempDir(), "config.yaml")
	// The rest of the configuration is for the server to judge.
	if err := os.WriteFile(config, []byte("listen: 0.0.0.0:80\nauth: {jwt: {key: "+tokenSecret+", issuer: me}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	args := []string{"token", "--config", config, "--subscribe", "chat:*,news", "--subscribe", "log", "--publish", "chat:42", "--for", "2h"}
	if code := run(t.Context(), args, nil, &stdout, &stderr); code != exitOK || stderr.Len() > 0 {
		t.Fatalf("exit %d, %s", code, stderr.String())
	}
	token, rest, _ := strings.Cut(stdout.String(), "\n")
	if rest != "" {
		t.Errorf("more than the token: %q", rest)
	}
	v, err := auth.Open(t.Context(), auth.Options{Key: tokenSecret, Issuer: "me"})
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	grant, err := v.Grant(r)
	if err != nil {
		t.Fatal(err)
	}
	if !grant.MaySubscribe("chat:1") || !grant.MaySubscribe("news") || !grant.MaySubscribe("log") || !grant.MayPublish("chat:42") || grant.MayPublish("news") || grant.Admin() {
		t.Errorf("%+v", grant)
	}
	if left := time.Until(grant.Expires()); left < 119*time.Minute || left > 2*time.Hour {
		t.Errorf("it is good for %v", left)
	}
}

// TestTokenPrivateKey: for a server that has only the public key.
func TestTokenPrivateKey(t *testing.T) {
	files := certificateFiles(t)
	writeCertificate(t, files)
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"token", "--admin", "--private-key", files.Key}, nil, &stdout, &stderr); code != exitOK || strings.Count(stdout.String(), ".") != 2 {
		t.Errorf("exit %d, %s%s", code, stdout.String(), stderr.String())
	}
}

func TestTokenRefuses(t *testing.T) {
	public := filepath.Join(t.TempDir(), "public.pem")
	if err := os.WriteFile(public, []byte("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		key  string
		args []string
		want string
	}{
		{"", []string{"--admin"}, "auth.jwt.key: there is no key to sign tokens with"},
		{"hunter2", []string{"--admin"}, "auth.jwt.key: a secret of 7 bytes is too short"},
		{tokenSecret, nil, "it would allow nothing"},
		{tokenSecret, []string{"--admin", "--for", "0s"}, "--for: 0s is not a second or more"},
		{tokenSecret, []string{"--admin", "--for", "forever"}, "invalid argument"},
		{tokenSecret, []string{"--publish", "a*b"}, `the pattern "a*b"`},
		{tokenSecret, []string{"--admin", "--private-key", public}, "--private-key: key_file: it has a PEM block of type \"PUBLIC KEY\""},
		{tokenSecret, []string{"--admin", "chat"}, "unknown command"},
	} {
		t.Setenv("REJOIN_AUTH_JWT_KEY", test.key)
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), append([]string{"token"}, test.args...), nil, &stdout, &stderr)
		if code != exitUsage || stdout.Len() > 0 || !strings.Contains(stderr.String(), test.want) {
			t.Errorf("%q: exit %d, %s%s, want %q", test.args, code, stdout.String(), stderr.String(), test.want)
		}
		if strings.Contains(stderr.String(), "hunter2") || strings.Contains(stderr.String(), tokenSecret) {
			t.Errorf("the secret is printed: %s", stderr.String())
		}
	}
}

// TestTokenInUse: publish and tail show the token of the environment.
func TestTokenInUse(t *testing.T) {
	t.Setenv("REJOIN_AUTH_JWT_KEY", tokenSecret)
	ctx, signal := context.WithCancel(t.Context())
	srv := runServe(t, ctx, filepath.Join(t.TempDir(), "rejoin.db"), "--auth", "jwt")
	command := func(args ...string) (int, string, string) {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), args, strings.NewReader("x"), &stdout, &stderr)
		return code, strings.TrimSpace(stdout.String()), stderr.String()
	}
	publish := []string{"publish", "--feed", "log", "--url", srv.url, "x"}
	if code, _, stderr := command(publish...); code != exitFailed || !strings.Contains(stderr, "a token is needed (status 401)") {
		t.Errorf("without a token: exit %d, %s", code, stderr)
	}
	_, token, _ := command("token", "--publish", "log")
	t.Setenv("REJOIN_TOKEN", token)
	if code, id, stderr := command(publish...); code != exitOK || id != "1" {
		t.Errorf("exit %d, %s %s", code, id, stderr)
	}
	if code, _, stderr := command("tail", "--feed", "log", "--url", srv.url); code != exitFailed || !strings.Contains(stderr, "the token may not subscribe to log (status 403)") || strings.Contains(stderr, token) {
		t.Errorf("exit %d, %s", code, stderr)
	}
	signal()
	srv.await(t, "stopped")
	if code := <-srv.exit; code != exitOK {
		t.Errorf("exit %d", code)
	}
}
