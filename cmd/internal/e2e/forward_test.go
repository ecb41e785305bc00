package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// djangoApp starts the application of testdata/forward, which knows alice and bob, and
// returns its URL. Its pages follow feeds at rejoin.
func djangoApp(t *testing.T, address, rejoin string) string {
	t.Helper()
	const interpreter = "/usr/bin/python3"
	if exec.Command(interpreter, "-c", "import django").Run() != nil {
		t.Fatal("this test needs Django: apt-get install python3-django")
	}
	script, err := filepath.Abs("testdata/forward/app.py")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	p := launch(t, exec.Command(interpreter, "-W", "ignore", script, t.TempDir(), port, rejoin))
	base := "http://" + address
	awaitAnswer(t, p, base+"/login")
	return base
}

// freeAddress returns an address that nothing listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// awaitAnswer waits until a process answers.
func awaitAnswer(t *testing.T, p *process, address string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		resp, err := http.Get(address)
		if err == nil {
			resp.Body.Close()
			return
		}
		select {
		case <-p.done:
			t.Fatalf("it ended with %v:\n%s", p.err, p.log)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("%v:\n%s", err, p.log)
		}
	}
}

// asBackend publishes with the application's own token.
func asBackend(t *testing.T, rejoin, feed, data string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "POST", rejoin+"/v1/feeds/"+feed+"/events", strings.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer backend")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		t.Fatalf("publishing: %s", resp.Status)
	}
}

// TestForwardDjango: Django knows who is logged in, and a browser's EventSource sends its
// cookie. A user follows their own feed and no other. After a logout, the stream ends,
// and after the next login the page goes on where it was.
func TestForwardDjango(t *testing.T) {
	t.Parallel()
	app, at := freeAddress(t), freeAddress(t)
	rejoin := "http://" + at
	serveAt(t, built(t, false), at, "sqlite:"+filepath.Join(t.TempDir(), "rejoin.db"), "memory",
		"REJOIN_AUTH_MODE=forward", "REJOIN_AUTH_FORWARD_URL=http://"+app+"/rejoin", "REJOIN_AUTH_FORWARD_TIMEOUT=30s",
		"REJOIN_AUTH_FORWARD_RECHECK=1s", "REJOIN_CORS_ORIGINS=http://"+app)
	base := djangoApp(t, app, rejoin)
	asBackend(t, rejoin, "user:alice", "first")

	ctx := browser(t)
	login := func() {
		t.Helper()
		if err := chromedp.Do(ctx,
			chromedp.Navigate(base+"/login"),
			chromedp.SendKeys(chromedp.CSS("[name=username]"), "alice"),
			chromedp.SendKeys(chromedp.CSS("[name=password]"), "secret"),
			chromedp.Click(chromedp.CSS("button")),
			chromedp.WaitVisible(chromedp.CSS("#user")),
		); err != nil {
			t.Fatal(err)
		}
	}
	login()
	if err := chromedp.Do(ctx, chromedp.WaitVisible(chromedp.CSS("#e1"))); err != nil {
		t.Fatal(err)
	}
	asBackend(t, rejoin, "user:alice", "second")
	if err := chromedp.Do(ctx, chromedp.WaitVisible(chromedp.CSS("#e2"))); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"GET /v1/feeds/user:bob/events": "403", "GET /v1/events?feed=user:alice,user:bob": "403",
		"POST /v1/feeds/user:alice/events": "403", "GET /v1/feeds/user:alice": "200",
	} {
		method, path, _ := strings.Cut(path, " ")
		if got := inPage(t, ctx, fmt.Sprintf(`(await fetch(%q, {method: %q, credentials: "include"})).status`, rejoin+path, method)); got != want {
			t.Errorf("%s %s as alice: %s, want %s", method, path, got, want)
		}
	}

	inPage(t, ctx, `(await fetch("/logout")).status`)
	text := func(want string) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			got, err := chromedp.Run(ctx, chromedp.TextContent(chromedp.CSS("#state")))
			if err == nil && got == want {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("the state is %q (%v), want %q", got, err, want)
			}
		}
	}
	text("closed") // its return got 401
	for i := range 3 {
		asBackend(t, rejoin, "user:alice", fmt.Sprint("after the logout ", i))
	}
	if got := inPage(t, ctx, `document.querySelectorAll("li").length`); got != "2" {
		t.Errorf("after the logout, the page shows %s events", got)
	}
	login()
	if err := chromedp.Do(ctx, chromedp.WaitVisible(chromedp.CSS("#e5"))); err != nil {
		t.Fatal(err)
	}
	if got := inPage(t, ctx, `[...document.querySelectorAll("li")].map(e => e.id).join()`); got != "e3,e4,e5" {
		t.Errorf("after the next login, the page shows %s", got)
	}
}

// inPage evaluates an expression, which may await.
func inPage(t *testing.T, ctx context.Context, expression string) string {
	t.Helper()
	got, err := chromedp.Run(ctx, chromedp.Evaluate[string](`(async () => String(`+expression+`))()`, chromedp.EvalAwaitPromise))
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// nginxAuth starts nginx, which asks the application by auth_request for everything
// under /v1, and returns its URL.
func nginxAuth(t *testing.T, authority string) string {
	t.Helper()
	path := find(t, "nginx", "nginx-light")
	dir, address := t.TempDir(), freeAddress(t)
	config := fmt.Sprintf(`daemon off;
pid %[1]s/nginx.pid;
error_log stderr;
events {}
http {
	access_log off;
	client_body_temp_path %[1]s/a; proxy_temp_path %[1]s/b; fastcgi_temp_path %[1]s/c; uwsgi_temp_path %[1]s/d; scgi_temp_path %[1]s/e;
	map $request_uri $feed { "~^/v1/feeds/([^/?]+)/events" $1; }
	server {
		listen %[2]s;
		location = /ask {
			internal;
			proxy_pass %[3]s;
			proxy_pass_request_body off;
			proxy_set_header Content-Length "";
			proxy_set_header Rejoin-Action subscribe;
			proxy_set_header Rejoin-Feeds $feed;
			proxy_set_header X-Forwarded-For $remote_addr;
			proxy_set_header X-Forwarded-Uri $request_uri;
		}
		location /v1 {
			auth_request /ask;
			try_files /none =204;
		}
	}
}
`, dir, address, authority)
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	p := launch(t, exec.Command(path, "-e", "stderr", "-p", dir, "-c", file))
	awaitAnswer(t, p, "http://"+address+"/v1")
	return "http://" + address
}

// TestForwardNginx: the same application gives nginx's auth_request and Rejoin the same
// verdicts for the same 200 requests.
func TestForwardNginx(t *testing.T) {
	t.Parallel()
	app, at := freeAddress(t), freeAddress(t)
	authority := "http://" + app + "/rejoin"
	serveAt(t, built(t, false), at, "sqlite:"+filepath.Join(t.TempDir(), "rejoin.db"), "memory",
		"REJOIN_AUTH_MODE=forward", "REJOIN_AUTH_FORWARD_URL="+authority, "REJOIN_AUTH_FORWARD_TIMEOUT=30s")
	base, nginx := djangoApp(t, app, "http://"+at), nginxAuth(t, authority)
	cookies := []string{"", "sessionid=forged", "other=1"}
	for _, user := range []string{"alice", "bob"} {
		session := djangoLogin(t, base, user)
		cookies = append(cookies, session, "a=b; "+session, session+"; sessionid=forged", session[:len(session)-1])
	}
	verdict := func(base, feed, cookie, authorization string) int {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), "GET", base+"/v1/feeds/"+feed+"/events", nil)
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range map[string]string{"Cookie": cookie, "Authorization": authorization} {
			if value != "" {
				req.Header.Set(name, value)
			}
		}
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode < 300 {
			return 200
		}
		return resp.StatusCode
	}
	seen := map[int]int{}
	for i := range 200 {
		feed := []string{"user:alice", "user:bob", "user:carol", "chat"}[i%4]
		cookie := cookies[i/4%len(cookies)]
		authorization := []string{"", "", "Bearer backend", "Bearer other", "Basic eDp5"}[i/44]
		want, got := verdict(nginx, feed, cookie, authorization), verdict("http://"+at, feed, cookie, authorization)
		if got != want {
			t.Errorf("%s with the cookie %q and %q: %d, and %d by nginx", feed, cookie, authorization, got, want)
		}
		seen[want]++
	}
	if len(seen) != 3 || seen[200] < 20 || seen[401] < 20 || seen[403] < 20 {
		t.Errorf("the verdicts are %v", seen)
	}
}

// csrfField matches the hidden field of Django's forms.
var csrfField = regexp.MustCompile(`name="csrfmiddlewaretoken" value="([^"]+)"`)

// djangoLogin returns the cookie of a new session.
func djangoLogin(t *testing.T, base, user string) string {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Get(base + "/login")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	token := csrfField.FindStringSubmatch(string(page))
	if token == nil {
		t.Fatal("the login page has no form")
	}
	resp, err = client.PostForm(base+"/login", url.Values{"username": {user}, "password": {"secret"}, "csrfmiddlewaretoken": {token[1]}})
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	for _, c := range resp.Cookies() {
		if c.Name == "sessionid" {
			return c.Name + "=" + c.Value
		}
	}
	t.Fatalf("the login of %s is answered with %s", user, strconv.Quote(resp.Status))
	return ""
}
