package auth_test

import (
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/rejoin/rejoin/server/auth"
)

// TestLongTokensAreCheap: parsing a token of a megabyte takes several megabytes, and
// anyone can send one.
func TestLongTokensAreCheap(t *testing.T) {
	v := open(t, auth.Options{Key: secret})
	wantBad(t, v, strings.Repeat("A", 8<<10+1), "it is too long")
	wantBad(t, v, strings.Repeat("A", 8<<10), "it cannot be read")
	requests := map[string]string{"dots": strings.Repeat(".", 1<<20), "one part": strings.Repeat("A", 1<<20)}
	for name, token := range requests {
		r := bearing(token)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		const tries = 100
		for range tries {
			if _, err := v.Grant(r); !errors.Is(err, auth.ErrBadToken) {
				t.Fatal(err)
			}
		}
		runtime.ReadMemStats(&after)
		if each := (after.TotalAlloc - before.TotalAlloc) / tries; each > 4<<10 {
			t.Errorf("%s: %d bytes for each", name, each)
		}
	}
}

// FuzzToken: no token is valid without the secret, and no input makes the verifier
// panic.
func FuzzToken(f *testing.F) {
	v, err := auth.Open(f.Context(), auth.Options{Key: secret})
	if err != nil {
		f.Fatal(err)
	}
	good := sign("HS256", []byte(secret), good())
	parts := strings.Split(good, ".")
	for _, token := range []string{
		"", ".", "..", "a.b.c", good + ".", parts[0] + "..", parts[0] + "." + parts[1] + ".", "." + parts[1] + "." + parts[2],
		sign("HS256", []byte("x"+secret), nil), sign("RS256", rsaKey(), nil, "kid", "a"),
	} {
		f.Add(token)
	}
	f.Fuzz(func(t *testing.T, token string) {
		if strings.TrimSpace(token) == good {
			return
		}
		grant, err := v.Grant(bearing(token))
		if err == nil || grant.MaySubscribe("chat:1") || grant.Admin() {
			t.Errorf("%q is good: %+v", token, grant)
		}
	})
}
