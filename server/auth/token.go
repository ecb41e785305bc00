package auth

import (
	"net/http"
	"strings"
)

const (
	// maxToken limits the length of a token. 8 KiB have room for hundreds of
	// patterns.
	maxToken = 8 << 10

	cookieName = "rejoin_token"
	queryName  = "access_token"
)

// findToken returns the token of r, and whether it came in a cookie. The header
// Authorization wins over the cookie, the cookie over the query. Two tokens in one place
// are refused, so that an attacker who can add one cannot replace the other.
func findToken(r *http.Request) (token string, cookie bool, err error) {
	if token, err = headerToken(r.Header); token != "" || err != nil {
		return token, false, err
	}
	if token, err = cookieToken(r); token != "" || err != nil {
		return token, true, err
	}
	if token, err = queryToken(r); token == "" && err == nil {
		err = ErrNoToken
	}
	return token, false, err
}

// queryToken returns the token in the query; empty if there is none.
func queryToken(r *http.Request) (string, error) {
	if !strings.Contains(r.URL.RawQuery, queryName) {
		return "", nil
	}
	values := r.URL.Query()[queryName]
	switch len(values) {
	case 0:
		return "", nil
	case 1:
		return values[0], nil
	}
	return "", bad("there are several in the query")
}

// headerToken ignores other schemes: a proxy may demand a password.
func headerToken(header http.Header) (string, error) {
	values := header["Authorization"]
	switch {
	case len(values) == 0:
		return "", nil
	case len(values) > 1:
		return "", bad("there are several headers Authorization")
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", nil
	}
	if token = strings.TrimSpace(token); token == "" {
		return "", bad("it is empty")
	}
	return token, nil
}

// cookieToken refuses cookies with different tokens: a sibling domain can set a second
// cookie of the same name.
func cookieToken(r *http.Request) (string, error) {
	token := ""
	for _, c := range r.CookiesNamed(cookieName) {
		if token != "" && c.Value != "" && c.Value != token {
			return "", bad("there are several cookies with different ones")
		}
		if c.Value != "" {
			token = c.Value
		}
	}
	return token, nil
}
