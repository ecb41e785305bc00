package auth

import (
	"net/http"
	"strings"
)

const (
	// maxToken bounds a token. 8 KiB are room for hundreds of patterns.
	maxToken = 8 << 10

	cookieName = "rejoin_token"
	queryName  = "access_token"
)

// findToken returns the token of r, and whether a cookie brought it. The header
// Authorization wins over the cookie, the cookie over the query. What is there
// twice is refused: whoever added the second one must not decide which counts.
func findToken(r *http.Request) (token string, cookie bool, err error) {
	if token, err = headerToken(r.Header); token != "" || err != nil {
		return token, false, err
	}
	if token, err = cookieToken(r); token != "" || err != nil {
		return token, true, err
	}
	if !strings.Contains(r.URL.RawQuery, queryName) {
		return "", false, ErrNoToken
	}
	values := r.URL.Query()[queryName]
	switch {
	case len(values) > 1:
		return "", false, bad("there are several in the query")
	case len(values) == 0 || values[0] == "":
		return "", false, ErrNoToken
	}
	return values[0], false, nil
}

// headerToken passes over other schemes: a proxy may ask for a password.
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

// cookieToken: a sibling domain can set a second cookie of the same name, with
// a token of its own choice.
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
