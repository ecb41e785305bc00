package server_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server"
	"github.com/rejoin/rejoin/server/auth"
)

// Attacks, and the damage if one of them works.

var signingKey, otherKey = sync.OnceValue(newKey), sync.OnceValue(newKey)

func newKey() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
}

func publicPEM(t *testing.T, key *rsa.PrivateKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// forge returns a token that would be valid with the right key and without change.
func forge(t *testing.T, algorithm string, key any, change func(token *jwt.Token, claims jwt.MapClaims)) string {
	t.Helper()
	claims := jwt.MapClaims{
		"iss": "https://id.example", "aud": "rejoin", "exp": time.Now().Add(time.Hour).Unix(),
		"rejoin": map[string]any{"subscribe": []string{"*"}, "publish": []string{"*"}, "admin": true},
	}
	token := jwt.NewWithClaims(jwt.GetSigningMethod(algorithm), claims)
	if change != nil {
		change(token, claims)
	}
	signed, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func tokenWith(t *testing.T, algorithm string, key any, set func(claims jwt.MapClaims)) string {
	t.Helper()
	return forge(t, algorithm, key, func(_ *jwt.Token, claims jwt.MapClaims) {
		if set != nil {
			set(claims)
		}
	})
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// jwk is the public half of key, as a set or the header of a token has it.
func jwk(kid string, key *rsa.PrivateKey) map[string]any {
	return map[string]any{
		"kty": "RSA", "kid": kid, "n": encode(key.N.Bytes()), "e": encode(big.NewInt(int64(key.E)).Bytes()),
	}
}

// keySet serves keys for the length of the test.
func keySet(t *testing.T, keys ...map[string]any) string {
	t.Helper()
	body, err := json.Marshal(map[string]any{"keys": keys})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) }))
	t.Cleanup(srv.Close)
	return srv.URL
}

// wantRefused demands that every route refuses the token, with the same answer.
func (n *node) wantRefused(t *testing.T, token string) {
	t.Helper()
	for _, method := range []string{"GET", "HEAD", "POST"} {
		r, body := n.head(method, events, bearer(token), "x")
		if r.StatusCode != http.StatusUnauthorized || r.Header.Get("WWW-Authenticate") != `Bearer error="invalid_token"` {
			t.Errorf("%s: %s %v %s", method, r.Status, r.Header, body)
		}
		if len(body) > 1000 {
			t.Errorf("the answer repeats the token: %d bytes", len(body))
		}
	}
}

// TestForgedTokens tries them on a server that verifies with one RSA key.
func TestForgedTokens(t *testing.T) {
	public := publicPEM(t, signingKey())
	file := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(file, public, 0o600); err != nil {
		t.Fatal(err)
	}
	n := guarded(t, auth.Options{KeyFile: file, Issuer: "https://id.example", Audience: "rejoin"}, server.Options{})
	good := tokenWith(t, "RS256", signingKey(), nil)
	if r, body := n.do("POST", events, bearer(good), "x"); r.StatusCode != http.StatusCreated {
		t.Fatalf("the good token: %s %s", r.Status, body)
	}
	parts := strings.Split(good, ".")
	claims := func(set func(c jwt.MapClaims)) string { return tokenWith(t, "RS256", signingKey(), set) }
	header := func(name string, value any) string {
		return forge(t, "RS256", otherKey(), func(token *jwt.Token, _ jwt.MapClaims) { token.Header[name] = value })
	}
	stranger := strings.Split(tokenWith(t, "RS256", otherKey(), nil), ".")
	for _, attack := range []struct{ name, token string }{
		// Anyone could grant themselves everything.
		{"no signature", tokenWith(t, "none", jwt.UnsafeAllowNoneSignatureType, nil)},
		{"no signature, in another case", encode([]byte(`{"alg":"nOnE"}`)) + "." + parts[1] + "."},
		{"a signature that was cut off", parts[0] + "." + parts[1] + "."},
		{"one that never was", parts[0] + "." + parts[1]},
		{"signed by a stranger", strings.Join(stranger, ".")},
		// The public key is public: as a secret it would be known to all.
		{"the public key as a secret", tokenWith(t, "HS256", public, nil)},
		{"the same without its line break", tokenWith(t, "HS256", bytes.TrimSpace(public), nil)},
		{"its content as a secret", tokenWith(t, "HS512", signingKey().N.Bytes(), nil)},
		{"an empty secret", tokenWith(t, "HS256", []byte{}, nil)},
		// A token must not be verified with a key that it brings along.
		{"its own key", header("jwk", jwk("a", otherKey()))},
		{"its own key set", header("jku", keySet(t, jwk("a", otherKey())))},
		{"its own certificate", header("x5u", keySet(t))},
		{"a kid that is a path", header("kid", "../../dev/null")},
		// A signature is for the claims it was made for.
		{"claims of another token", parts[0] + "." + stranger[1] + "x." + parts[2]},
		{"a bit of the signature", parts[0] + "." + parts[1] + "." + flip(parts[2])},
		// Issued for another time, or another place.
		{"expired", claims(func(c jwt.MapClaims) { c["exp"] = time.Now().Add(-time.Second).Unix() })},
		{"good for ever", claims(func(c jwt.MapClaims) { delete(c, "exp") })},
		{"good for ever, in words", claims(func(c jwt.MapClaims) { c["exp"] = "never" })},
		{"good beyond all time", claims(func(c jwt.MapClaims) { c["exp"] = 1e300 })},
		{"not yet good", claims(func(c jwt.MapClaims) { c["nbf"] = time.Now().Add(time.Minute).Unix() })},
		{"issued in the future", claims(func(c jwt.MapClaims) { c["iat"] = time.Now().Add(time.Minute).Unix() })},
		{"for another service", claims(func(c jwt.MapClaims) { c["aud"] = "billing" })},
		{"for nobody", claims(func(c jwt.MapClaims) { delete(c, "aud") })},
		{"for an empty audience", claims(func(c jwt.MapClaims) { c["aud"] = []string{} })},
		{"of another issuer", claims(func(c jwt.MapClaims) { c["iss"] = "https://id.example.evil" })},
		{"of no issuer", claims(func(c jwt.MapClaims) { delete(c, "iss") })},
		// A part that cannot be understood may limit the grant.
		{"an extension that is critical", forge(t, "RS256", signingKey(), func(token *jwt.Token, _ jwt.MapClaims) { token.Header["crit"] = []string{"b64"} })},
		{"a pattern in the middle", claims(func(c jwt.MapClaims) { c["rejoin"] = map[string]any{"publish": []string{"a*b"}} })},
		{"words for a list", claims(func(c jwt.MapClaims) { c["rejoin"] = map[string]any{"publish": "*"} })},
		// Expensive to parse.
		{"a megabyte of dots", strings.Repeat(".", 1_000_000)},
		{"a megabyte of a token", good + strings.Repeat("A", 1_000_000)},
		{"a deep header", encode([]byte(strings.Repeat("[", 4000))) + "." + parts[1] + "." + parts[2]},
		{"too many parts", good + "." + good},
		{"not base64", "a.b.ü"},
		{"null for all", encode([]byte(`{"alg":"RS256"}`)) + "." + encode([]byte("null")) + "." + parts[2]},
		{"null for the header", encode([]byte("null")) + "." + parts[1] + "." + parts[2]},
	} {
		t.Run(attack.name, func(t *testing.T) { n.wantRefused(t, attack.token) })
	}
}

func flip(part string) string {
	b, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		panic(err)
	}
	b[0] ^= 1
	return encode(b)
}

// TestForgedKeys tries tokens on a server that has its keys from a key set.
func TestForgedKeys(t *testing.T) {
	url := keySet(t, jwk("good", signingKey()),
		map[string]any{"kty": "oct", "kid": "oct", "k": encode([]byte(secret))},
		map[string]any{"kty": "oct", "k": encode([]byte(secret))})
	n := guarded(t, auth.Options{JWKSURL: url}, server.Options{})
	token := func(algorithm string, key any, kid any) string {
		return forge(t, algorithm, key, func(token *jwt.Token, _ jwt.MapClaims) { token.Header["kid"] = kid })
	}
	if r, body := n.do("POST", events, bearer(token("RS256", signingKey(), "good")), "x"); r.StatusCode != http.StatusCreated {
		t.Fatalf("the good token: %s %s", r.Status, body)
	}
	for _, attack := range []struct{ name, token string }{
		// A key set can be read by everyone, and so can a secret in it.
		{"the secret of the set", token("HS256", []byte(secret), "oct")},
		{"the secret, unnamed", tokenWith(t, "HS256", []byte(secret), nil)},
		{"the secret by the name of a key", token("HS256", []byte(secret), "good")},
		{"the public key as a secret", token("HS256", publicPEM(t, signingKey()), "good")},
		// A stranger's key with the name of a valid one is not valid.
		{"a stranger by the name of a key", token("RS256", otherKey(), "good")},
		{"a stranger, unnamed", tokenWith(t, "RS256", otherKey(), nil)},
		{"a name that is none", token("RS256", signingKey(), 7)},
		{"a key that is not in the set", token("RS256", signingKey(), "wrong")},
	} {
		t.Run(attack.name, func(t *testing.T) { n.wantRefused(t, attack.token) })
	}
}

// TestCrossOriginCookie: a page that a user visits must not publish with the cookie
// that the browser adds by itself.
func TestCrossOriginCookie(t *testing.T) {
	n := guarded(t, auth.Options{Key: secret}, server.Options{Origins: []string{"https://app.example"}})
	token := tokenFor(t, auth.Rights{Subscribe: []string{"*"}, Publish: []string{"*"}})
	cookie := "rejoin_token=" + token
	host := strings.TrimPrefix(n.url, "http://")
	for _, test := range []struct {
		name   string
		header map[string]string
		status int
	}{
		{"curl", map[string]string{"Cookie": cookie}, 201},
		{"a page from here", map[string]string{"Cookie": cookie, "Sec-Fetch-Site": "same-origin", "Origin": "http://" + host}, 201},
		{"the address bar", map[string]string{"Cookie": cookie, "Sec-Fetch-Site": "none"}, 201},
		{"an old browser, from here", map[string]string{"Cookie": cookie, "Origin": "http://" + host}, 201},
		{"a trusted origin", map[string]string{"Cookie": cookie, "Sec-Fetch-Site": "cross-site", "Origin": "https://app.example"}, 201},
		{"another site", map[string]string{"Cookie": cookie, "Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}, 403},
		// On a shared host, a sibling domain belongs to another owner.
		{"a sibling domain", map[string]string{"Cookie": cookie, "Sec-Fetch-Site": "same-site", "Origin": "https://evil.app.example"}, 403},
		{"a frame without an origin", map[string]string{"Cookie": cookie, "Sec-Fetch-Site": "cross-site", "Origin": "null"}, 403},
		{"another site that hides", map[string]string{"Cookie": cookie, "Sec-Fetch-Site": "cross-site"}, 403},
		{"an old browser, from elsewhere", map[string]string{"Cookie": cookie, "Origin": "https://evil.example"}, 403},
		{"a name that begins like ours", map[string]string{"Cookie": cookie, "Origin": "http://" + host + ".evil.example"}, 403},
		// A page that knows the token needs no cookie.
		{"a token in the header", map[string]string{"Authorization": "Bearer " + token, "Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}, 201},
		{"with a cookie beside it", map[string]string{"Authorization": "Bearer " + token, "Cookie": cookie, "Sec-Fetch-Site": "cross-site"}, 201},
		// A second cookie may be the attacker's. Then the events would be the
		// attacker's, too.
		{"a cookie slipped in", map[string]string{"Cookie": cookie + "; rejoin_token=" + tokenFor(t, auth.Rights{Publish: []string{"chat"}})}, 401},
		{"a forged cookie", map[string]string{"Cookie": "rejoin_token=" + token[:len(token)-8] + "AAAAAAAA"}, 401},
		{"a cookie in quotes", map[string]string{"Cookie": `rejoin_token="` + token + `"`}, 201},
	} {
		t.Run(test.name, func(t *testing.T) {
			if r, body := n.head("POST", events, test.header, "x"); r.StatusCode != test.status {
				t.Errorf("%s %s, want %d", r.Status, body, test.status)
			}
			// Reading changes nothing. CORS keeps the page from seeing the answer.
			if test.status == 403 {
				if r, body := n.head("GET", events, test.header, ""); r.StatusCode != 200 {
					t.Errorf("GET: %s %s", r.Status, body)
				}
			}
		})
	}
	// All origins are allowed, but never with the cookie that the browser adds.
	open := guarded(t, auth.Options{Key: secret}, server.Options{Origins: []string{"*"}})
	r, body := open.head("POST", events, map[string]string{"Cookie": cookie, "Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}, "x")
	wantProblem(t, r, body, http.StatusForbidden, "pages of other origins")
}

// TestDriveBy: a server on loopback needs no tokens, because only this machine reaches
// it. A browser on this machine does, too, and publishes for any page: a text/plain
// POST needs no preflight.
func TestDriveBy(t *testing.T) {
	n := start(t, server.Options{Origins: []string{"https://app.example"}}, nil)
	for _, test := range []struct {
		header map[string]string
		status int
	}{
		{nil, 201},
		{map[string]string{"Sec-Fetch-Site": "same-origin"}, 201},
		{map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": "https://app.example"}, 201},
		{map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}, 403},
		{map[string]string{"Origin": "https://evil.example"}, 403},
	} {
		if r, body := n.head("POST", events, test.header, "x"); r.StatusCode != test.status {
			t.Errorf("%v: %s %s, want %d", test.header, r.Status, body, test.status)
		}
	}
	open := start(t, server.Options{Origins: []string{"*"}}, nil)
	if r, body := open.head("POST", events, map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": "https://c.example"}, "x"); r.StatusCode != 201 {
		t.Errorf("all origins are named: %s %s", r.Status, body)
	}
}

// TestRefusalsAlike: a refusal reveals nothing about a feed, or clients could find out
// which feeds exist.
func TestRefusalsAlike(t *testing.T) {
	n := guarded(t, auth.Options{Key: secret}, server.Options{})
	if _, err := n.publisher.Publish(t.Context(), feed.Draft{Feed: "there", Data: "x"}); err != nil {
		t.Fatal(err)
	}
	for _, header := range []map[string]string{
		nil, bearer("x"), bearer(tokenFor(t, auth.Rights{Subscribe: []string{"other"}, Publish: []string{"other"}})),
	} {
		for _, method := range []string{"GET", "HEAD", "POST"} {
			seen := func(name string) (int, string, string) {
				r, body := n.head(method, "/v1/feeds/"+name+"/events?from=start", header, "x")
				r.Header.Del("Date")
				r.Header.Del("X-Request-Id")
				var head bytes.Buffer
				_ = r.Header.Write(&head)
				return r.StatusCode, strings.ReplaceAll(head.String(), "\r", ""), strings.ReplaceAll(body, name, "NAME")
			}
			thereStatus, thereHead, thereBody := seen("there")
			goneStatus, goneHead, goneBody := seen("never")
			if thereStatus != goneStatus || thereHead != goneHead || thereBody != goneBody {
				t.Errorf("%s: %d %s%s and %d %s%s", method, thereStatus, thereHead, thereBody, goneStatus, goneHead, goneBody)
			}
			if thereStatus != 401 && thereStatus != 403 {
				t.Errorf("%s: %d", method, thereStatus)
			}
		}
	}
}

// TestTokensStayHidden: people who must not have the token read the logs and metrics,
// and these are kept in many places.
func TestTokensStayHidden(t *testing.T) {
	log := new(lockedBuffer)
	logger := slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	v, err := auth.Open(t.Context(), auth.Options{Key: secret, Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	n := start(t, server.Options{Auth: v, Logger: logger}, func(store feed.Store) feed.Store { return burning{store} })
	good := tokenFor(t, auth.Rights{Subscribe: []string{"chat"}, Publish: []string{"chat"}})
	forged := good[:len(good)-8] + "AAAAAAAA"
	var answers strings.Builder
	for _, token := range []string{good, forged, "hunter2hunter2"} {
		for _, path := range []string{events, bare, "/v1/feeds/news/events", "/v1/feeds/../events", "/v1/feeds//events", "/nowhere", "/healthz"} {
			for _, method := range []string{"GET", "HEAD", "POST", "PUT", "OPTIONS"} {
				for _, query := range []string{"?access_token=" + token, "?access_token=" + token + "&%zz", "?from=never&access_token=" + token} {
					r, body := n.head(method, path+query, nil, "x")
					_ = r.Header.Write(&answers)
					answers.WriteString(body)
				}
				for _, header := range []map[string]string{bearer(token), {"Cookie": "rejoin_token=" + token}} {
					r, body := n.head(method, path, header, "x")
					_ = r.Header.Write(&answers)
					answers.WriteString(body)
				}
			}
		}
	}
	scrape := httptest.NewRecorder()
	server.Metrics(server.Sources{Hub: n.hub, Publisher: n.publisher}).ServeHTTP(scrape, httptest.NewRequest("GET", "/metrics", nil))
	for place, text := range map[string]string{"log": log.String(), "metrics": scrape.Body.String(), "answers": answers.String()} {
		if len(text) < 100 {
			t.Errorf("%s: %q", place, text)
		}
		for _, part := range append(strings.Split(good, "."), "hunter2", "AAAAAAAA", secret, "access_token") {
			if strings.Contains(text, part) {
				t.Errorf("%s: %q is there", place, part)
			}
		}
	}
	if !strings.Contains(log.String(), "request failed") {
		t.Error("the log has no error that it could be in")
	}
}

// burning is a store that appends nothing, for a reason that gets logged.
type burning struct{ feed.Store }

func (burning) Append(context.Context, []feed.Batch) ([]feed.Result, error) {
	return nil, errors.New("the disk is on fire")
}

// lockedBuffer is a log that can be read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.String()
}
