package auth_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/rejoin/rejoin/server/auth"
)

// secret is as long as HS512 requires.
var secret = strings.Repeat("0123456789abcdef", 4)

// Making an RSA key takes a while.
var rsaKey = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func ecKey(curve elliptic.Curve) *ecdsa.PrivateKey {
	return must(ecdsa.GenerateKey(curve, rand.Reader))
}

func open(t *testing.T, o auth.Options) *auth.Verifier {
	t.Helper()
	v, err := auth.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	return v
}

// file writes a file and returns its name.
func file(t *testing.T, content string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func publicPEM(key crypto.Signer) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: must(x509.MarshalPKIXPublicKey(key.Public()))}))
}

func privatePEM(key crypto.Signer) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(key))}))
}

// sign makes a token without the checks of auth.Sign.
func sign(algorithm string, key any, claims jwt.MapClaims, header ...string) string {
	token := jwt.NewWithClaims(jwt.GetSigningMethod(algorithm), claims)
	for i := 0; i < len(header); i += 2 {
		token.Header[header[i]] = header[i+1]
	}
	return must(token.SignedString(key))
}

// good returns the claims of a valid token.
func good(more ...any) jwt.MapClaims {
	claims := jwt.MapClaims{"exp": in(time.Hour), "rejoin": map[string]any{"subscribe": []string{"chat:*"}}}
	for i := 0; i < len(more); i += 2 {
		if name := more[i].(string); more[i+1] == nil {
			delete(claims, name)
		} else {
			claims[name] = more[i+1]
		}
	}
	return claims
}

func in(d time.Duration) int64 { return time.Now().Add(d).Unix() }

// bearing returns a request with the token.
func bearing(token string) *http.Request {
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	return r
}

// wantBad demands that the token is refused for this reason, and that the error
// repeats no part of the token.
func wantBad(t *testing.T, v *auth.Verifier, token, why string) {
	t.Helper()
	grant, err := v.Grant(bearing(token))
	if !errors.Is(err, auth.ErrBadToken) || !strings.Contains(err.Error(), why) {
		t.Fatalf("got %v, want a bad token: %s", err, why)
	}
	if grant.MaySubscribe("chat:1") || grant.MayPublish("chat:1") || grant.Admin() {
		t.Error("a bad token grants something")
	}
	for part := range strings.SplitSeq(token, ".") {
		if len(part) > 3 && strings.Contains(err.Error(), part) {
			t.Errorf("%q repeats the token", err)
		}
	}
}

func wantGood(t *testing.T, v *auth.Verifier, token string) auth.Grant {
	t.Helper()
	grant, err := v.Grant(bearing(token))
	if err != nil {
		t.Fatal(err)
	}
	if !grant.MaySubscribe("chat:1") {
		t.Error("a good token grants nothing")
	}
	return grant
}

func TestNobodyAsks(t *testing.T) {
	var v *auth.Verifier
	grant, err := v.Grant(bearing("nonsense"))
	if err != nil || !grant.MaySubscribe("a") || !grant.MayPublish("a") || !grant.Admin() || !grant.Expires().IsZero() || grant.FromCookie() {
		t.Errorf("%+v, %v", grant, err)
	}
	v.Close()
	var nothing auth.Grant
	if nothing.MaySubscribe("") || nothing.MayPublish("") || nothing.Admin() {
		t.Error("the zero grant grants something")
	}
}

func TestGrant(t *testing.T) {
	v := open(t, auth.Options{Key: secret})
	token := sign("HS256", []byte(secret), jwt.MapClaims{"exp": 4102444800, "rejoin": map[string]any{
		"subscribe": []string{"chat:*", "news"}, "publish": []string{"chat:42"}, "more": "of a later version",
	}})
	grant, err := v.Grant(bearing(token))
	if err != nil {
		t.Fatal(err)
	}
	for feed, may := range map[string][2]bool{
		"chat:42": {true, true}, "chat:421": {true, false}, "chat:": {true, false}, "chat": {false, false},
		"news": {true, false}, "news2": {false, false}, "CHAT:42": {false, false}, "": {false, false}, "chat:*": {true, false},
	} {
		if got := [2]bool{grant.MaySubscribe(feed), grant.MayPublish(feed)}; got != may {
			t.Errorf("%s: subscribe, publish: %v, want %v", feed, got, may)
		}
	}
	if grant.Admin() || grant.FromCookie() || !grant.Expires().Equal(time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("%+v", grant)
	}

	token = sign("HS256", []byte(secret), good("rejoin", map[string]any{"publish": []string{"*"}, "admin": true}))
	if grant, err = v.Grant(bearing(token)); err != nil {
		t.Fatal(err)
	}
	if grant.MaySubscribe("a") || !grant.MayPublish("a") || !grant.Admin() {
		t.Errorf("%+v", grant)
	}
}

// TestClaims: a claim that cannot be understood must not grant less than was meant,
// nor more.
func TestClaims(t *testing.T) {
	v := open(t, auth.Options{Key: secret})
	for name, claim := range map[string]any{
		"none":       nil,
		"empty":      map[string]any{},
		"nulls":      map[string]any{"subscribe": nil, "publish": nil, "admin": nil},
		"other case": map[string]any{"Subscribe": []string{"*"}, "ADMIN": true},
	} {
		grant, err := v.Grant(bearing(sign("HS256", []byte(secret), good("rejoin", claim))))
		if err != nil || grant.MaySubscribe("a") || grant.MayPublish("a") || grant.Admin() {
			t.Errorf("%s: %+v, %v", name, grant, err)
		}
	}
	for name, claim := range map[string]any{
		"a string":         "admin",
		"a list":           []string{"admin"},
		"no list":          map[string]any{"subscribe": "chat:*"},
		"a number":         map[string]any{"publish": []any{1}},
		"null in a list":   map[string]any{"publish": []any{nil}},
		"admin in words":   map[string]any{"admin": "false"},
		"a star inside":    map[string]any{"subscribe": []string{"chat:*:1"}},
		"two stars":        map[string]any{"subscribe": []string{"**"}},
		"an empty pattern": map[string]any{"subscribe": []string{""}},
		"a space":          map[string]any{"subscribe": []string{"a b"}},
		"one of several":   map[string]any{"subscribe": []string{"a"}, "publish": []string{"a", "/"}},
	} {
		t.Run(name, func(t *testing.T) {
			wantBad(t, v, sign("HS256", []byte(secret), good("rejoin", claim)), "its claim rejoin")
		})
	}
	wantBad(t, v, sign("HS256", []byte(secret), jwt.MapClaims{"EXP": in(time.Hour)}), "it has no exp")
}

// TestTimes: a token is good from 30 seconds before nbf, as clocks differ,
// until exp, and not a moment longer.
func TestTimes(t *testing.T) {
	v := open(t, auth.Options{Key: secret})
	token := func(more ...any) string { return sign("HS256", []byte(secret), good(more...)) }
	wantGood(t, v, token("nbf", in(20*time.Second), "iat", in(20*time.Second)))
	wantBad(t, v, token("exp", in(-time.Second)), "it has expired")
	wantBad(t, v, token("exp", in(0)), "it has expired")
	wantBad(t, v, token("exp", 0), "it has expired")
	wantBad(t, v, token("exp", nil), "it has no exp")
	wantBad(t, v, token("exp", "soon"), "it cannot be read")
	wantBad(t, v, token("exp", true), "it cannot be read")
	wantBad(t, v, token("nbf", in(40*time.Second)), "it is not valid yet")
	wantBad(t, v, token("iat", in(40*time.Second)), "it was issued in the future")
}

func TestIssuerAndAudience(t *testing.T) {
	v := open(t, auth.Options{Key: secret, Issuer: "https://id.example", Audience: "rejoin"})
	token := func(more ...any) string { return sign("HS256", []byte(secret), good(more...)) }
	wantGood(t, v, token("iss", "https://id.example", "aud", "rejoin"))
	wantGood(t, v, token("iss", "https://id.example", "aud", []string{"other", "rejoin"}))
	wantBad(t, v, token("iss", "https://id.example"), "lacks the iss or aud")
	wantBad(t, v, token("aud", "rejoin"), "lacks the iss or aud")
	wantBad(t, v, token("iss", "https://id.example", "aud", "Rejoin"), "another audience")
	wantBad(t, v, token("iss", "https://id.example/", "aud", "rejoin"), "another issuer")
	wantBad(t, v, token("iss", []string{"https://id.example"}, "aud", "rejoin"), "it cannot be read")
}

// TestWhereTheTokenIs: the verifier looks in the header, the cookie and the query, in
// this order. It refuses two tokens in one place.
func TestWhereTheTokenIs(t *testing.T) {
	v := open(t, auth.Options{Key: secret})
	token := func(feed string) string {
		return sign("HS256", []byte(secret), good("rejoin", map[string]any{"subscribe": []string{feed}}))
	}
	header, cookie, query := token("header"), token("cookie"), token("query")
	for _, test := range []struct {
		name    string
		headers []string
		cookies []string
		query   string
		feed    string // that it grants
		err     error
	}{
		{"nowhere", nil, nil, "", "", auth.ErrNoToken},
		{"header", []string{"Bearer " + header}, nil, "", "header", nil},
		{"any case of the scheme", []string{"bEARER  " + header}, nil, "", "header", nil},
		{"cookie", nil, []string{cookie}, "", "cookie", nil},
		{"query", nil, nil, "access_token=" + query, "query", nil},
		{"escaped", nil, nil, "a=b&access%5Ftoken=x&access_token=" + strings.ReplaceAll(query, ".", "%2E"), "", auth.ErrBadToken},
		{"header first", []string{"Bearer " + header}, []string{cookie}, "access_token=" + query, "header", nil},
		{"cookie second", nil, []string{cookie}, "access_token=" + query, "cookie", nil},
		{"a bad one is not passed over", []string{"Bearer x"}, []string{cookie}, "access_token=" + query, "", auth.ErrBadToken},
		{"a bad cookie neither", nil, []string{"x"}, "access_token=" + query, "", auth.ErrBadToken},
		{"a password is for a proxy", []string{"Basic dTpw"}, []string{cookie}, "", "cookie", nil},
		{"empty bearer", []string{"Bearer"}, []string{cookie}, "", "", auth.ErrBadToken},
		{"blank bearer", []string{"Bearer  "}, nil, "", "", auth.ErrBadToken},
		{"two headers", []string{"Bearer " + header, "Bearer " + header}, nil, "", "", auth.ErrBadToken},
		{"two tokens", []string{"Bearer " + header + ", " + header}, nil, "", "", auth.ErrBadToken},
		{"two cookies", nil, []string{cookie, header}, "", "", auth.ErrBadToken},
		{"a cookie twice", nil, []string{cookie, cookie}, "", "cookie", nil},
		{"an empty cookie is none", nil, []string{""}, "", "", auth.ErrNoToken},
		{"an empty parameter is none", nil, nil, "access_token=", "", auth.ErrNoToken},
		{"two in the query", nil, nil, "access_token=" + query + "&access_token=" + query, "", auth.ErrBadToken},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/?"+test.query, nil)
			r.Header["Authorization"] = test.headers
			for _, value := range test.cookies {
				r.AddCookie(&http.Cookie{Name: "rejoin_token", Value: value})
			}
			grant, err := v.Grant(r)
			if !errors.Is(err, test.err) {
				t.Fatalf("got %v, want %v", err, test.err)
			}
			if test.err == nil && (!grant.MaySubscribe(test.feed) || grant.FromCookie() != (test.feed == "cookie")) {
				t.Errorf("%+v, want that of the %s", grant, test.feed)
			}
		})
	}
	if _, err := v.Grant(&http.Request{URL: &url.URL{RawQuery: "access_token=%zz;"}}); !errors.Is(err, auth.ErrNoToken) {
		t.Errorf("a query that cannot be read: %v", err)
	}
}

// TestImpossibleTimes: an exp in milliseconds is a common mistake. A date beyond the
// range of clocks must not become one that has passed, or one that never comes.
func TestImpossibleTimes(t *testing.T) {
	v := open(t, auth.Options{Key: secret})
	token := func(claims ...any) string { return sign("HS256", []byte(secret), good(claims...)) }
	number := func(text string) json.Number { return json.Number(text) }
	const last = 253402300799 // 9999-12-31T23:59:59Z

	for _, name := range []string{"exp", "nbf", "iat"} {
		for _, value := range []any{
			time.Now().Add(time.Hour).UnixMilli(), time.Now().Add(time.Hour).UnixMicro(), time.Now().Add(time.Hour).UnixNano(),
			last + 1, -last - 1, number("253402300799.5"), number("9223372036854775807"), number("9223372036854775808"), number("-9223372036854775809"),
			number("1e300"), number("-1e300"), number("1e400"), number("-1e400"), fmt.Sprint(time.Now().UnixMilli()),
		} {
			wantBad(t, v, token(name, value), "its "+name+" is too far away to be a time in seconds; it may be in milliseconds")
		}
		for _, value := range []any{"NaN", "Infinity", "", "0x7fffffff", "1 ", []any{1}, map[string]any{}} {
			wantBad(t, v, token(name, value), "it cannot be read")
		}
	}
	wantBad(t, v, token("exp", -1), "it has expired")
	wantBad(t, v, token("exp", -last), "it has expired")
	wantBad(t, v, token("exp", number("-0.5")), "it has expired")
	wantBad(t, v, token("nbf", last), "it is not valid yet")
	wantBad(t, v, token("iat", last), "it was issued in the future")
	wantGood(t, v, token("nbf", -last, "iat", number("-1.5")))

	for _, value := range []any{4102444800, number("4102444800.9"), number("4.1024448e9"), "4102444800"} {
		if got := wantGood(t, v, token("exp", value)).Expires(); got.Unix() != 4102444800 || got.Nanosecond() != 0 {
			t.Errorf("exp %v is %v", value, got)
		}
	}
	if got := wantGood(t, v, token("exp", last)).Expires().UTC(); got.Year() != 9999 {
		t.Errorf("the last possible exp is %v", got)
	}
}
