package auth_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rejoin/rejoin/server/auth"
)

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// jwk is the public half of the RSA key.
func jwk(kid string, more ...string) map[string]any {
	return with(map[string]any{
		"kty": "RSA", "kid": kid, "n": encode(rsaKey().N.Bytes()), "e": encode(big.NewInt(int64(rsaKey().E)).Bytes()),
	}, more...)
}

func ecJWK(kid string, key *ecdsa.PrivateKey) map[string]any {
	point := must(key.PublicKey.Bytes())[1:]
	return map[string]any{
		"kty": "EC", "crv": key.Params().Name, "kid": kid,
		"x": encode(point[:len(point)/2]), "y": encode(point[len(point)/2:]),
	}
}

func with(key map[string]any, more ...string) map[string]any {
	for i := 0; i < len(more); i += 2 {
		key[more[i]] = more[i+1]
	}
	return key
}

func setOf(keys ...map[string]any) string {
	return string(must(json.Marshal(map[string]any{"keys": keys})))
}

// issuer serves a key set that can change.
type issuer struct {
	*httptest.Server
	body    atomic.Pointer[string] // 503 while nil
	fetches atomic.Int32
}

func newIssuer(t *testing.T, body string) *issuer {
	i := new(issuer)
	i.serve(body)
	i.Server = httptest.NewServer(i)
	t.Cleanup(i.Close)
	return i
}

func (i *issuer) serve(body string) { i.body.Store(&body) }

func (i *issuer) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	i.fetches.Add(1)
	body := i.body.Load()
	if body == nil {
		http.Error(w, "away", http.StatusServiceUnavailable)
		return
	}
	_, _ = io.WriteString(w, *body)
}

var quiet = slog.New(slog.DiscardHandler)

func TestKeySet(t *testing.T) {
	p256 := ecKey(elliptic.P256())
	srv := newIssuer(t, setOf(
		jwk("rsa"), jwk("ps", "alg", "PS256"), ecJWK("ec", p256),
		jwk("sealing", "use", "enc"),
		map[string]any{"kty": "oct", "kid": "oct", "k": encode([]byte(secret))},
		map[string]any{"kty": "of tomorrow", "kid": "new"},
		with(ecJWK("off", p256), "x", encode(make([]byte, 32))),
	))
	v := open(t, auth.Options{JWKSURL: srv.URL, Logger: quiet})
	for _, test := range []struct{ algorithm, kid string }{{"RS256", "rsa"}, {"PS512", "rsa"}, {"PS256", "ps"}, {"ES256", "ec"}} {
		var key any = rsaKey()
		if test.algorithm == "ES256" {
			key = p256
		}
		wantGood(t, v, sign(test.algorithm, key, good(), "kid", test.kid))
		wantGood(t, v, sign(test.algorithm, key, good())) // any key of the set
	}
	// A key is valid only for the algorithm and the use that the set gives it.
	wantBad(t, v, sign("RS256", rsaKey(), good(), "kid", "ps"), "not accepted here")
	wantBad(t, v, sign("RS256", rsaKey(), good(), "kid", "ec"), "not accepted here")
	wantBad(t, v, sign("RS256", rsaKey(), good(), "kid", "sealing"), "not accepted here")
	// A set is public: a secret in it is known to all.
	wantBad(t, v, sign("HS256", []byte(secret), good(), "kid", "oct"), "not accepted here")
	wantBad(t, v, sign("HS256", []byte(secret), good()), "not accepted here")

	narrow := open(t, auth.Options{JWKSURL: srv.URL, Algorithms: []string{"ES256", "PS256"}, Logger: quiet})
	wantGood(t, narrow, sign("PS256", rsaKey(), good(), "kid", "rsa"))
	wantBad(t, narrow, sign("RS256", rsaKey(), good(), "kid", "rsa"), "not accepted here")
}

// TestRotation: the first token that names a new key makes the verifier fetch it, for
// all tokens that come at the same time. A token with a removed key is refused.
func TestRotation(t *testing.T) {
	old, next := ecKey(elliptic.P256()), ecKey(elliptic.P384())
	srv := newIssuer(t, setOf(ecJWK("old", old)))
	v := open(t, auth.Options{JWKSURL: srv.URL, Logger: quiet})
	wantGood(t, v, sign("ES256", old, good(), "kid", "old"))

	srv.serve(setOf(ecJWK("new", next)))
	token := sign("ES384", next, good(), "kid", "new")
	var crowd sync.WaitGroup
	for range 50 {
		crowd.Go(func() {
			if _, err := v.Grant(bearing(token)); err != nil {
				t.Error(err)
			}
		})
	}
	crowd.Wait()
	if n := srv.fetches.Load(); n != 2 {
		t.Errorf("the set was fetched %d times, want twice", n)
	}
	if _, err := v.Grant(bearing(sign("ES256", old, good(), "kid", "old"))); err == nil {
		t.Error("a key that is gone is still good")
	}
}

// TestUnusableSet: an answer that is not a key set must not replace the set.
func TestUnusableSet(t *testing.T) {
	for name, body := range map[string]string{
		"HTML":            "<html>welcome",
		"empty":           "",
		"no keys":         "{}",
		"an error":        `{"error":"try later"}`,
		"a secret":        setOf(map[string]any{"kty": "oct", "k": encode([]byte(secret))}),
		"nothing usable":  setOf(jwk("a", "use", "enc")),
		"another kind":    `{"keys":{"a":1}}`,
		"too long":        setOf(jwk("a")) + strings.Repeat(" ", 300<<10),
		"a list of words": `{"keys":["a"]}`,
	} {
		t.Run(name, func(t *testing.T) {
			key := ecKey(elliptic.P256())
			srv := newIssuer(t, setOf(ecJWK("a", key)))
			v := open(t, auth.Options{JWKSURL: srv.URL, Logger: quiet})
			wantGood(t, v, sign("ES256", key, good(), "kid", "a"))
			srv.serve(body)
			if _, err := v.Grant(bearing(sign("ES256", key, good(), "kid", "b"))); !errors.Is(err, auth.ErrUnavailable) {
				t.Errorf("an unknown key: %v", err)
			}
			if srv.fetches.Load() != 2 {
				t.Error("the set was not fetched again")
			}
			wantGood(t, v, sign("ES256", key, good(), "kid", "a"))
		})
	}
}

// TestRedirect: a server that answers for the address once must not be able to name
// another address.
func TestRedirect(t *testing.T) {
	key := ecKey(elliptic.P256())
	other := newIssuer(t, setOf(ecJWK("a", key)))
	srv := httptest.NewServer(http.RedirectHandler(other.URL, http.StatusFound))
	defer srv.Close()
	v := open(t, auth.Options{JWKSURL: srv.URL, Logger: quiet})
	if _, err := v.Grant(bearing(sign("ES256", key, good(), "kid", "a"))); !errors.Is(err, auth.ErrUnavailable) || other.fetches.Load() != 0 {
		t.Errorf("%v after %d fetches", err, other.fetches.Load())
	}
}

// script answers fetches in the time of a synctest bubble.
type script struct {
	body    atomic.Pointer[string] // an error while nil
	slow    time.Duration
	fetches atomic.Int32
}

func (s *script) RoundTrip(r *http.Request) (*http.Response, error) {
	s.fetches.Add(1)
	select {
	case <-time.After(s.slow):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	body := s.body.Load()
	if body == nil {
		return nil, errors.New("connection refused")
	}
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(*body))}, nil
}

func (s *script) serve(body string) { s.body.Store(&body) }

// inBubble runs a test with a verifier whose fetches s answers.
func inBubble(t *testing.T, s *script, log io.Writer, test func(t *testing.T, v *auth.Verifier)) {
	rsaKey()
	synctest.Test(t, func(t *testing.T) {
		v, err := auth.Open(t.Context(), auth.Options{
			JWKSURL: "https://user:hunter2@id.example/keys?token=hunter2", Transport: s,
			Logger: slog.New(slog.NewTextHandler(log, nil)),
		})
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		test(t, v)
	})
}

// TestSetIsAway: the verifier waits for an issuer that cannot be reached. Until then a
// token is neither valid nor invalid; refusing it would stop a browser.
func TestSetIsAway(t *testing.T) {
	s, log := new(script), new(bytes.Buffer)
	inBubble(t, s, log, func(t *testing.T, v *auth.Verifier) {
		token := func() string { return sign("RS256", rsaKey(), good(), "kid", "a") }
		for range 300 {
			if _, err := v.Grant(bearing(token())); !errors.Is(err, auth.ErrUnavailable) {
				t.Fatalf("while it is away: %v", err)
			}
			time.Sleep(time.Second)
		}
		// Retries come 1, 2, 4 … 60 seconds apart, and the tokens cause one every ten
		// seconds.
		if n := s.fetches.Load(); n < 25 || n > 50 {
			t.Errorf("%d fetches in five minutes", n)
		}
		s.serve(setOf(jwk("a")))
		time.Sleep(10 * time.Second)
		wantGood(t, v, token())
		// From here on, the issuer can be away again.
		s.body.Store(nil)
		time.Sleep(time.Hour)
		wantGood(t, v, token())
	})
	if strings.Contains(log.String(), "hunter2") || !strings.Contains(log.String(), "connection refused") {
		t.Errorf("the log: %s", log)
	}
}

// TestRefresh: a key that was taken out of the set is good for ten minutes.
func TestRefresh(t *testing.T) {
	s := new(script)
	s.serve(setOf(jwk("a")))
	inBubble(t, s, io.Discard, func(t *testing.T, v *auth.Verifier) {
		wantGood(t, v, sign("RS256", rsaKey(), good(), "kid", "a"))
		s.serve(setOf(jwk("b")))
		time.Sleep(10*time.Minute + time.Second)
		wantBad(t, v, sign("RS256", rsaKey(), good(), "kid", "a"), "not accepted here")
		wantGood(t, v, sign("RS256", rsaKey(), good(), "kid", "b"))
	})
}

// TestUnknownKeys: anyone can make up keys. The issuer must not be asked for
// each, and a token that names one which is really new must not be refused
// because of them.
func TestUnknownKeys(t *testing.T) {
	s := new(script)
	s.serve(setOf(jwk("a")))
	inBubble(t, s, io.Discard, func(t *testing.T, v *auth.Verifier) {
		wantGood(t, v, sign("RS256", rsaKey(), good(), "kid", "a"))
		before := s.fetches.Load()
		made := sign("RS256", rsaKey(), good(), "kid", "made up")
		wantBad(t, v, made, "not accepted here")
		s.serve(setOf(jwk("a"), jwk("new")))
		for range 1000 {
			wantBad(t, v, made, "not accepted here")
			if _, err := v.Grant(bearing(sign("RS256", rsaKey(), good(), "kid", "new"))); !errors.Is(err, auth.ErrUnavailable) {
				t.Fatalf("a key that may be new: %v", err)
			}
		}
		if n := s.fetches.Load() - before; n != 1 {
			t.Errorf("%d fetches for made up keys", n)
		}
		time.Sleep(10 * time.Second)
		wantGood(t, v, sign("RS256", rsaKey(), good(), "kid", "new"))
		wantBad(t, v, made, "not accepted here")
		// A token whose algorithm is refused anyway causes no fetch.
		time.Sleep(20 * time.Second)
		before = s.fetches.Load()
		wantBad(t, v, sign("HS256", []byte(secret), good(), "kid", "x"), "not accepted here")
		if s.fetches.Load() != before {
			t.Error("a token with a secret made it fetch")
		}
	})
}

// TestSlowIssuer: a fetch ends after ten seconds; a client that leaves does not end it,
// and Close does not wait for it.
func TestSlowIssuer(t *testing.T) {
	s := &script{slow: 9 * time.Second}
	s.serve(setOf(jwk("a")))
	inBubble(t, s, io.Discard, func(t *testing.T, v *auth.Verifier) {
		token := sign("RS256", rsaKey(), good(), "kid", "a")
		begin := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := v.Grant(bearing(token).WithContext(ctx)); !errors.Is(err, auth.ErrUnavailable) || time.Since(begin) != time.Second {
			t.Errorf("a client that leaves: %v after %v", err, time.Since(begin))
		}
		wantGood(t, v, token)
		if time.Since(begin) != 9*time.Second || s.fetches.Load() != 1 {
			t.Errorf("%d fetches, %v", s.fetches.Load(), time.Since(begin))
		}
	})
	s = &script{slow: time.Hour}
	inBubble(t, s, io.Discard, func(t *testing.T, v *auth.Verifier) {
		begin := time.Now()
		token := sign("RS256", rsaKey(), good("exp", in(3*time.Hour)))
		if _, err := v.Grant(bearing(token)); !errors.Is(err, auth.ErrUnavailable) || time.Since(begin) != 10*time.Second {
			t.Errorf("a fetch without end: %v after %v", err, time.Since(begin))
		}
		v.Close()
		if _, err := v.Grant(bearing(token)); !errors.Is(err, auth.ErrUnavailable) || time.Since(begin) != 10*time.Second {
			t.Errorf("after the end: %v after %v", err, time.Since(begin))
		}
	})
}
