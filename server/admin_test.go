package server

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/rejoin/rejoin/server/auth"
)

// TestMayAdmin: a delete needs a token with admin. A token in a cookie counts only
// from a page of this origin. The handler behind the check sees the grant.
func TestMayAdmin(t *testing.T) {
	const secret = "0123456789abcdef0123456789abcdef"
	v, err := auth.Open(t.Context(), auth.Options{Key: secret})
	if err != nil {
		t.Fatal(err)
	}
	token := func(rights auth.Rights) string {
		token, err := auth.Sign(auth.Options{Key: secret}, rights, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	admin := token(auth.Rights{Admin: true})
	all := token(auth.Rights{Subscribe: []string{"*"}, Publish: []string{"*"}})
	for _, test := range []struct {
		name   string
		v      *auth.Verifier
		header []string
		status int
	}{
		{"nobody is asked", nil, nil, 200},
		{"a foreign page", nil, []string{"Sec-Fetch-Site", "cross-site"}, 403},
		{"no token", v, nil, 401},
		{"all but admin", v, []string{"Authorization", "Bearer " + all}, 403},
		{"admin", v, []string{"Authorization", "Bearer " + admin}, 200},
		{"admin by cookie", v, []string{"Cookie", "rejoin_token=" + admin}, 200},
		{"admin by cookie from a foreign page", v, []string{"Cookie", "rejoin_token=" + admin, "Sec-Fetch-Site", "cross-site"}, 403},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := Options{}
			if test.v != nil {
				o.Auth = test.v
			}
			s := New(newHub(t), nil, o)
			router := chi.NewRouter()
			router.With(s.authenticate, s.mayAdmin).Delete("/v1/feeds/{feed}", func(w http.ResponseWriter, r *http.Request) {
				grant := grantOf(r.Context())
				if !grant.Admin() || grant.FromCookie() != strings.HasPrefix(r.Header.Get("Cookie"), "rejoin_token") || grant.Expires().IsZero() != (test.v == nil) {
					t.Errorf("the grant is %+v", grant)
				}
				_, _ = io.WriteString(w, "gone")
			})
			r := httptest.NewRequest("DELETE", "/v1/feeds/chat", nil)
			for i := 0; i < len(test.header); i += 2 {
				r.Header.Set(test.header[i], test.header[i+1])
			}
			w := httptest.NewRecorder()
			router.ServeHTTP(w, r.WithContext(&requestContext{Context: r.Context(), route: chi.NewRouteContext()}))
			if w.Code != test.status || (w.Body.String() == "gone") != (test.status == 200) {
				t.Errorf("%d %s, want %d", w.Code, w.Body, test.status)
			}
		})
	}
	if grantOf(t.Context()).Admin() {
		t.Error("without a middleware, everything is granted")
	}
}
