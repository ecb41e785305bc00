package auth_test

import (
	"crypto"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/rejoin/rejoin/server/auth"
)

// TestSign: the verifier accepts the tokens of Sign, with the other half of the key
// or with the same secret.
func TestSign(t *testing.T) {
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec := ecKey(elliptic.P384())
	ecPEM := string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: must(x509.MarshalECPrivateKey(ec))}))
	rsaPEM := string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(rsaKey())}))
	public := func(key crypto.Signer) auth.Options { return auth.Options{KeyFile: file(t, publicPEM(key))} }
	for _, test := range []struct {
		name         string
		sign, verify auth.Options
		algorithm    string
	}{
		{"secret", auth.Options{Key: secret}, auth.Options{Key: secret}, "HS256"},
		{"secret in a file", auth.Options{KeyFile: file(t, secret+"\n")}, auth.Options{Key: secret}, "HS256"},
		{"narrowed", auth.Options{Key: secret, Algorithms: []string{"HS512"}}, auth.Options{Key: secret, Algorithms: []string{"HS512"}}, "HS512"},
		{"RSA", auth.Options{KeyFile: file(t, privatePEM(rsaKey()))}, public(rsaKey()), "RS256"},
		{"RSA, the older form", auth.Options{KeyFile: file(t, rsaPEM), Algorithms: []string{"PS256"}}, public(rsaKey()), "PS256"},
		{"EC", auth.Options{KeyFile: file(t, privatePEM(ec))}, public(ec), "ES384"},
		{"EC, the older form", auth.Options{KeyFile: file(t, ecPEM)}, public(ec), "ES384"},
		{"Ed25519", auth.Options{KeyFile: file(t, privatePEM(edKey))}, public(edKey), "EdDSA"},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.sign.Issuer, test.sign.Audience = "me", "you"
			test.verify.Issuer, test.verify.Audience = "me", "you"
			token, err := auth.Sign(test.sign, auth.Rights{Subscribe: []string{"chat:*"}, Publish: []string{"chat:42"}, Admin: true}, time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			grant := wantGood(t, open(t, test.verify), token)
			if !grant.MayPublish("chat:42") || grant.MayPublish("chat:43") || !grant.Admin() {
				t.Errorf("%+v", grant)
			}
			if left := time.Until(grant.Expires()); left < 59*time.Minute || left > time.Hour {
				t.Errorf("it is good for %v", left)
			}
			parsed, _, err := jwt.NewParser().ParseUnverified(token, jwt.MapClaims{})
			if err != nil || parsed.Method.Alg() != test.algorithm {
				t.Errorf("signed with %s, %v", parsed.Method.Alg(), err)
			}
		})
	}
}

func TestSignRefuses(t *testing.T) {
	good := auth.Options{Key: secret}
	for _, test := range []struct {
		name     string
		o        auth.Options
		rights   auth.Rights
		lifetime time.Duration
		want     string
	}{
		{"no key", auth.Options{}, auth.Rights{}, time.Hour, "key: there is no key to"},
		{"a short secret", auth.Options{Key: "hunter2"}, auth.Rights{}, time.Hour, "key: a secret of 7 bytes"},
		{"a public key", auth.Options{KeyFile: file(t, publicPEM(rsaKey()))}, auth.Rights{}, time.Hour, "key_file: it has a PEM block of type \"PUBLIC KEY\""},
		{"another algorithm", auth.Options{KeyFile: file(t, privatePEM(rsaKey())), Algorithms: []string{"ES256"}}, auth.Rights{}, time.Hour, "key_file: it is a key for RS256"},
		{"broken PEM", auth.Options{KeyFile: file(t, "-----BEGIN PRIVATE KEY-----")}, auth.Rights{}, time.Hour, "key_file: it begins like PEM"},
		{"not DER inside", auth.Options{KeyFile: file(t, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")}, auth.Rights{}, time.Hour, "key_file: its private key cannot be read"},
		{"no file", auth.Options{KeyFile: "/nowhere/key"}, auth.Rights{}, time.Hour, "key_file: open"},
		{"no time", good, auth.Rights{}, 0, "the lifetime of a token has to be positive"},
		{"a bad pattern", good, auth.Rights{Publish: []string{"a*b"}}, time.Hour, `the pattern "a*b" is neither`},
	} {
		t.Run(test.name, func(t *testing.T) {
			token, err := auth.Sign(test.o, test.rights, test.lifetime)
			if err == nil || token != "" || !strings.HasPrefix(err.Error(), test.want) {
				t.Errorf("got %q, %v, want %q", token, err, test.want)
			}
		})
	}
}
