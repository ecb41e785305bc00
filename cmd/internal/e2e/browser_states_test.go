package e2e

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// consoleState is a state of a page of the console.
type consoleState struct {
	name   string
	always bool // whether TestConsoleScreens has it without -screens, too
	show   func(s *stage)
}

// longName is as long as the name of a feed can be; anyName has every character that one
// can have.
var (
	longName = strings.Repeat("long", 63) + "est"
	anyName  = "AZaz09._:@~-"
)

var consoleStates = []consoleState{
	{"overview-empty", false, func(s *stage) {
		s.visit(s.serve(), "/")
		s.await(`!document.getElementById("feeds-empty").hidden && ` + nodeStates + ` === "up"`)
	}},
	{"overview-busy", false, func(s *stage) {
		p := s.serve()
		s.busy(p, "orders", "payments", "user:7:inbox", "chat:42", "sensors.kitchen")
		s.subscribe(p, "orders")
		s.visit(p, "/")
		s.await(`/^[0-9]{3}\/s/.test(` + chartValues + `) && document.querySelectorAll('#feeds-list [data-grew="true"]').length === 5`)
		s.await(`document.querySelectorAll(".chart path.line-0[d*=L]").length === 5`)
	}},
	{"overview-many", false, func(s *stage) {
		p := s.serve()
		makeFeeds(s.t, p, 10000)
		if _, err := publish(http.DefaultClient, p.url, "zoo", "the last name, and the newest event"); err != nil {
			s.t.Fatal(err)
		}
		s.visit(p, "/")
		s.await(`document.querySelectorAll("#feeds-list li").length === 200 && document.getElementById("count").textContent === "10,001"`)
		s.await(`document.querySelector("#feeds-list .name").textContent === "zoo"`) // when nothing has come for a while
	}},
	{"overview-search", true, func(s *stage) {
		s.publish("orders", "", "first")
		s.publish("payments", "", "first")
		s.visit(s.open, "/")
		s.await(nodeStates + ` === "up" && document.querySelectorAll("#feeds-list li").length >= 2`)
		const names = `[...document.querySelectorAll("#feeds-list .name")].map(name => name.textContent).join()`
		s.do(chromedp.SendKeys(chromedp.CSS("#search"), "orders, pay"))
		s.await(names + ` === "payments"`)
		s.do(chromedp.SendKeys(chromedp.CSS("#search"), " no such"))
		s.await(`document.getElementById("feeds-empty").textContent === "No feed’s name begins with pay no such." && document.getElementById("count").textContent >= "2"`)
		s.await(nodeStates + ` + document.getElementById("notice-text").textContent === "up"`)
	}},
	{"overview-refused", false, func(s *stage) {
		s.visit(s.guarded, "/")
		s.useToken("--subscribe", "chat:*", "--for", "1h")
		s.await(`document.getElementById("notice-text").textContent.startsWith("Only an administrator")`)
	}},
	{"overview-token", false, func(s *stage) {
		s.visit(s.guarded, "/")
		s.await(`document.getElementById("token-box").open`)
	}},
	{"overview-away", false, func(s *stage) {
		p := s.serve()
		s.post(p, "/v1/feeds/orders/events", "text/plain", "first")
		s.visit(p, "/")
		s.await(nodeStates + ` === "up"`)
		p.kill()
		s.await(nodeStates + ` === "silent" && document.getElementById("notice-text").textContent.startsWith("The server")`)
	}},
	{"overview-trouble", false, func(s *stage) {
		c := newCluster(s.t)
		c.start(3)
		c.mustPublish(c.nodes[0], "orders", "first")
		s.visit(c.nodes[0], "/")
		s.await(nodeStates + ` === "up,up,up"`)
		c.nodes[2].kill()
		c.redis.Kill()
		s.await(nodeStates + ` === "trouble,silent,silent"`)
	}},
	{"overview-names", true, func(s *stage) {
		s.publish(longName, "", "first")
		s.publish(anyName, "", "first")
		s.publish(strings.Repeat("part.", 50)+"x", "", "first")
		s.visit(s.open, "/")
		s.await(`document.querySelectorAll("#feeds-list li").length >= 3`)
	}},

	{"feed-empty", false, func(s *stage) { s.follow("empty") }},
	{"feed-busy", false, func(s *stage) {
		p := s.serve()
		s.busy(p, "busy")
		s.visit(p, "/feeds/busy")
		s.await(`Number(document.getElementById("received").textContent.replace(",", "")) > 1000`)
	}},
	{"feed-cut", false, func(s *stage) {
		s.orders("cut")
		s.follow("cut")
		s.cut()
	}},
	{"feed-cut-waiting", false, func(s *stage) {
		s.orders("waiting")
		s.follow("waiting")
		s.cut()
		s.do(script(`document.getElementById("publish-away").click()`))
		s.await(`document.getElementById("notice-text").textContent.startsWith("3 waiting")`)
	}},
	{"feed-resumed", false, func(s *stage) {
		s.orders("resumed")
		s.follow("resumed")
		s.cut()
		s.orders("resumed")
		s.resume()
		s.publish("resumed", "order.placed", `{"order":1043}`)
		s.post(s.open, "/v1/feeds/resumed/events?ephemeral=true&type=typing", "text/plain", "Ada is typing")
		s.await(`document.querySelector('#events [data-how="ephemeral"]')`)
	}},
	{"feed-away", false, func(s *stage) {
		p := s.serve()
		s.post(p, "/v1/feeds/orders/events", "text/plain", "first")
		s.visit(p, "/feeds/orders")
		s.await(`document.body.dataset.state === "live" && document.querySelector("#events .event")`)
		p.kill()
		s.await(`document.body.dataset.state === "reconnecting" && document.getElementById("notice-text").textContent.startsWith("The server")`)
		// Each further attempt waits longer.
		s.await(`Number(/\d+/.exec(document.getElementById("notice-wait").textContent)) > 8`)
	}},
	{"feed-refused", false, func(s *stage) {
		s.visit(s.guarded, "/feeds/news")
		s.useToken("--subscribe", "chat:*", "--for", "1h")
		s.await(`document.getElementById("empty-title").textContent === "Not allowed"`)
	}},
	{"feed-token", false, func(s *stage) {
		s.visit(s.guarded, "/feeds/news")
		s.await(`document.getElementById("token-box").open`)
	}},
	{"feed-allowed", false, func(s *stage) {
		s.visit(s.guarded, "/feeds/chat:42")
		s.useToken("--subscribe", "chat:*", "--publish", "chat:42", "--for", "1h")
		s.await(`document.body.dataset.state === "live"`)
		s.do(script(`document.getElementById("token-box").open = true`))
	}},
	{"feed-closed", false, func(s *stage) {
		s.orders("closed")
		s.post(s.open, "/v1/feeds/closed/close", "", "")
		s.visit(s.open, "/feeds/closed")
		s.await(`document.body.dataset.state === "closed" && document.getElementById("publish-send").disabled`)
	}},
	{"feed-deleted", false, func(s *stage) {
		s.orders("deleted")
		s.request(s.open, http.MethodDelete, "/v1/feeds/deleted", "", "")
		s.follow("deleted")
	}},
	{"feed-bad-name", false, func(s *stage) {
		s.visit(s.open, "/feeds/bad%20name")
		s.await(`document.body.dataset.state === "failed"`)
	}},
	{"feed-names", true, func(s *stage) {
		long := strings.Repeat("type", 25)
		s.publish(longName, long, "first")
		s.publish(longName, strings.Repeat("a.", 49)+"ab", `{"order":1041}`)
		s.follow(longName)
		s.await(`document.querySelectorAll("#events .event").length >= 2 && document.querySelector("#types button")`)
		s.do(script(`document.querySelector("#events .id").click(); document.querySelector("#types button").click()`))
	}},
	{"feed-large", true, func(s *stage) {
		s.publish("large", "", strings.Repeat("unbroken", 7500))
		s.publish("large", "order.placed", `{"items":[`+strings.Repeat(`{"sku":"AX-7719","price":"12.90"},`, 1700)+`{}]}`)
		s.publish("large", "", "after both")
		s.follow("large")
		s.await(`document.querySelectorAll("#events .cut").length === 2`)
		s.do(script(`document.querySelector("#events .cut").click()`))
		s.await(`document.querySelector("#events .open .details") && document.querySelector("#events .open .data").tabIndex === 0`)
	}},
	{"feed-text", true, func(s *stage) {
		for _, text := range []string{
			"مرحبا بالعالم، هذا الطلب رقم 1041 من Rejoin.",
			"שלום עולם, הזמנה 1041 מ-Rejoin (שולמה).",
			"Order 1041 for مريم: ready.",
			`{"from":"مريم","text":"أهلاً يا Ada! (12:30)"}`,
			"<b>bold</b> <script>hit = 1</script> &amp; &lt;",
			"bell \a, escape \x1b[31mred\x1b[0m, override \u202edesrever, tab\tend, delete \x7f",
			"one\ntwo\n\n\tthree",
			" ", "",
		} {
			s.publish("text", "", text)
		}
		s.follow("text")
		s.await(`document.querySelectorAll("#events .event").length === 9`)
		got := s.ask(`[1, 3, 6].map(id => document.querySelector("#events [data-id='" + id + "'] .data")).map(data => getComputedStyle(data).direction + " " + data.textContent.slice(0, 9)).join()`)
		if got != `rtl مرحبا بال,ltr Order 104,ltr bell \x07` {
			s.t.Errorf("the texts are %q", got)
		}
	}},
	{"feed-gap", true, func(s *stage) {
		s.orders("gap")
		s.follow("gap")
		s.cut()
		s.orders("gap")
		s.request(s.open, http.MethodDelete, "/v1/feeds/gap/events?before=7", "", "")
		s.resume()
		s.await(`document.querySelector('#events [data-mark="gap"]')`)
	}},
	{"feed-details", false, func(s *stage) {
		s.orders("details")
		s.follow("details")
		s.do(script(`document.querySelector('#events [data-id="3"] .id').click()`))
		s.await(`document.querySelector("#events .details")`)
	}},
	{"feed-back", false, func(s *stage) {
		for range 60 {
			s.orders("back")
		}
		s.follow("back")
		s.do(script(`document.getElementById("goto-where").value = "100"; document.getElementById("goto").requestSubmit()`))
		s.await(`document.querySelector('#events .sought[data-id="100"]')`)
	}},
	{"feed-publish", false, func(s *stage) {
		s.follow("publish")
		s.do(script(`document.querySelector(".more").open = true; document.getElementById("publish-json").click()`))
		s.do(
			chromedp.SendKeys(chromedp.CSS("#publish-data"), `{"text":`),
			chromedp.Click(chromedp.CSS("#publish-send")),
			chromedp.WaitVisible(chromedp.CSS(`#publish-result[data-state="error"]`)),
			script(`document.getElementById("tab-go").click()`),
		)
	}},
	{"feed-dialog", false, func(s *stage) {
		s.orders("dialog")
		s.follow("dialog")
		s.do(script(`document.getElementById("manage-trim").click()`), chromedp.WaitVisible(chromedp.CSS("#confirm[open]")))
	}},
	{"feeds", false, func(s *stage) {
		names := []string{"orders:eu", "payments", "sensors.kitchen", "user:7:inbox"}
		s.orders(names...)
		s.post(s.open, "/v1/feeds/payments/close", "", "")
		s.follow(strings.Join(names, ","))
		s.await(`document.querySelector("#events .event")`)
	}},
	{"feeds-names", false, func(s *stage) {
		s.orders(longName, anyName)
		s.follow(longName + "," + anyName)
		s.cut()
	}},
}

// visit goes to a page.
func (s *stage) visit(p *process, path string) {
	s.t.Helper()
	s.do(chromedp.Navigate(p.url + path))
}

// follow goes to the page of feeds, and waits until they are live.
func (s *stage) follow(feeds string) {
	s.t.Helper()
	s.visit(s.open, "/feeds/"+feeds)
	s.await(`document.body.dataset.state === "live"`)
}

// cut cuts the connection, and stops the clock of the countdown.
func (s *stage) cut() {
	s.t.Helper()
	s.await(`document.body.dataset.state === "live"`)
	s.do(script(`document.getElementById("cut").click(); const now = performance.now(); performance.now = () => now`))
	s.await(`document.body.dataset.state === "cut"`)
}

func (s *stage) resume() {
	s.t.Helper()
	s.do(script(`document.getElementById("cut").click()`))
	s.await(`document.body.dataset.state === "live" && document.querySelector('#events [data-mark="caught-up"]')`)
}

// useToken gives the page a token.
func (s *stage) useToken(args ...string) {
	s.t.Helper()
	token := makeTokenWith(s.t, built(s.t, false), args...)
	s.await(`document.getElementById("token-box").open`)
	s.do(script(`document.getElementById("token").value = %q; document.getElementById("token-form").requestSubmit()`, token))
}

// orders publishes some events to each of the feeds.
func (s *stage) orders(feeds ...string) {
	s.t.Helper()
	for _, one := range orders[0] {
		for _, name := range feeds {
			s.publish(name, one[0], one[1])
		}
	}
}

// publish publishes an event to the open server, as JSON if it is some.
func (s *stage) publish(feed, kind, data string) {
	s.t.Helper()
	contentType := "text/plain"
	if strings.HasPrefix(data, "{") {
		contentType = "application/json"
	}
	s.post(s.open, "/v1/feeds/"+feed+"/events?type="+kind, contentType, data)
}

func (s *stage) post(p *process, path, contentType, body string) {
	s.t.Helper()
	s.request(p, http.MethodPost, path, contentType, body)
}

func (s *stage) request(p *process, method, path, contentType, body string) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, p.url+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		text, _ := io.ReadAll(resp.Body)
		s.t.Fatalf("%s %s: %s, %s", method, path, resp.Status, text)
	}
}

// subscribe follows a feed until the test ends.
func (s *stage) subscribe(p *process, feed string) {
	s.t.Helper()
	resp, err := http.Get(p.url + "/v1/feeds/" + feed + "/events")
	if err != nil {
		s.t.Fatal(err)
	}
	go io.Copy(io.Discard, resp.Body)
	s.t.Cleanup(func() { resp.Body.Close() })
}

// busy publishes 500 events a second to the feeds until the test ends.
func (s *stage) busy(p *process, feeds ...string) {
	s.t.Helper()
	publishSteadily(s.t, p, 500, feeds...)
}

// makeFeeds makes n feeds with an event each.
func makeFeeds(t testing.TB, p *process, n int) {
	t.Helper()
	for made := 0; made < n; {
		var lines strings.Builder
		for end := min(n, made+1000); made < end; made++ {
			fmt.Fprintf(&lines, "{\"feed\":\"user:%d:inbox\",\"data\":\"welcome\"}\n", made)
		}
		resp, err := http.Post(p.url+"/v1/events", "application/x-ndjson", strings.NewReader(lines.String()))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusCreated {
			t.Fatal(resp.Status)
		}
	}
}

// publishSteadily publishes so many events a second to the feeds until the test ends.
func publishSteadily(t testing.TB, p *process, rate int, feeds ...string) {
	t.Helper()
	const pace = 50 * time.Millisecond
	var publishing sync.WaitGroup
	done := make(chan struct{})
	publishing.Go(func() {
		began := time.Now()
		for n := 0; ; {
			select {
			case <-done:
				return
			case <-time.After(pace):
			}
			var lines strings.Builder
			for due := int(time.Since(began).Seconds() * float64(rate)); n < due; n++ {
				fmt.Fprintf(&lines, "{\"feed\":%q,\"type\":%q,\"data\":{\"order\":%d,\"state\":\"paid\"}}\n", feeds[n%len(feeds)], []string{"order.placed", "order.paid"}[n%2], n)
			}
			resp, err := http.Post(p.url+"/v1/events", "application/x-ndjson", strings.NewReader(lines.String()))
			if err != nil {
				t.Error(err)
				return
			}
			resp.Body.Close()
		}
	})
	t.Cleanup(func() {
		close(done)
		publishing.Wait()
	})
}
