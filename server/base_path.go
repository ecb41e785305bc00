package server

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
)

// aBasePath matches parts that no proxy and no browser writes in another way.
var aBasePath = regexp.MustCompile(`^(/[A-Za-z0-9._~:@-]+)+$`)

// ownPaths are the first parts of this server's paths. A base path does not begin with one
// of them: a proxy may have removed the base path, and the server would remove more.
var ownPaths = []string{"v1", "feeds", "console", "demo", "healthz", "readyz", "openapi.yaml"}

// ParseBasePath returns a base path in the form for [Options]: as it is written, without
// the slash at its end.
func ParseBasePath(text string) (string, error) {
	base := strings.TrimSuffix(text, "/")
	if base == "" && len(text) <= 1 {
		return "", nil
	}
	parts := strings.Split(base, "/")
	switch {
	case !aBasePath.MatchString(base), slices.Contains(parts, "."), slices.Contains(parts, ".."), len(base) > 255:
		return "", fmt.Errorf("%.100q is not a path such as /rejoin: it begins with / and is made of letters, digits and . _ ~ : @ -, without query and without . or .. between slashes", text)
	case slices.Contains(ownPaths, parts[1]):
		return "", fmt.Errorf("%.100q begins with /%s, which is one of the server's own paths", text, parts[1])
	}
	return base, nil
}

type basePathKey struct{}

// basePathOf returns the path under which the client sees the server, without a slash at
// its end. The addresses in answers begin with it.
func basePathOf(r *http.Request) string {
	base, _ := r.Context().Value(basePathKey{}).(string)
	return base
}

// withoutBasePath returns the request without the base path, under which it may have come,
// or not if a proxy removes it. The path of the base path itself becomes empty.
func withoutBasePath(r *http.Request, base string) *http.Request {
	if base == "" {
		return r
	}
	inner := r.WithContext(context.WithValue(r.Context(), basePathKey{}, base))
	u := *r.URL
	// Twice: some clients put their own base in front of a Location, which has it already.
	for range 2 {
		path, under := cutBasePath(u.Path, base)
		raw, rawUnder := cutBasePath(u.RawPath, base)
		if !under || !rawUnder && u.RawPath != "" {
			break
		}
		u.Path, u.RawPath = path, raw
	}
	inner.URL = &u
	return inner
}

func cutBasePath(path, base string) (string, bool) {
	rest, ok := strings.CutPrefix(path, base)
	if !ok || rest != "" && rest[0] != '/' {
		return path, false
	}
	return rest, true
}
