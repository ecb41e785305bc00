package e2e

import (
	"bytes"
	"context"
	"flag"
	"image/png"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

var pictures = flag.Bool("pictures", false, "whether TestConsolePicture makes the pictures of README.md anew, from a server on port 8080")

const pictureWidth, pictureHeight, pictureBytes = 1280, 800, 150_000

// orders are what the feed of the picture has: what came before the connection was cut,
// what was published while it was, and what came after.
var orders = [3][][2]string{
	{{"order.placed", `{"order":1041,"items":3,"total":"42.90"}`}, {"order.paid", `{"order":1041,"by":"card"}`}, {"order.placed", `{"order":1042,"items":1,"total":"9.50"}`}, {"order.packed", `{"order":1041,"parcels":1}`}},
	{{"order.paid", `{"order":1042,"by":"invoice"}`}, {"order.shipped", `{"order":1041,"parcel":"AX-7719"}`}, {"order.placed", `{"order":1043,"items":12,"total":"318.00"}`}},
	{{"order.packed", `{"order":1042,"parcels":1}`}, {"order.delivered", `{"order":1041,"parcel":"AX-7719"}`}},
}

// TestConsolePicture brings the console to the state of which README.md has a picture, and
// demands that the pictures are there. With -pictures it makes them.
func TestConsolePicture(t *testing.T) {
	t.Parallel()
	address := "127.0.0.1:0"
	if *pictures {
		address = "127.0.0.1:8080" // which the page shows
	}
	p := serveAt(t, built(t, false), address, "sqlite:"+filepath.Join(t.TempDir(), "rejoin.db"), "memory")
	ctx := browser(t, chromedp.Flag("force-prefers-reduced-motion", true))
	showOrders(t, ctx, p.url)
	for selector, want := range map[string]string{
		`#events [data-mark="cut"]`:       "Connection cut after event 4",
		`#events [data-mark="caught-up"]`: "Caught up: 3 events missed and delivered",
		"#cursor":                         "9",
		"#received":                       "5",
		"#reconnects":                     "1",
	} {
		if got := textOf(t, ctx, selector); got != want {
			t.Errorf("%s is %q, want %q", selector, got, want)
		}
	}
	for _, theme := range []string{"light", "dark"} {
		name := filepath.Join(root, "docs", "console-"+theme+".png")
		if *pictures {
			takePicture(t, ctx, theme, name)
		}
		picture, err := os.ReadFile(name)
		if err != nil {
			t.Fatalf("%v: go test ./cmd/internal/e2e -run TestConsolePicture -pictures makes it", err)
		}
		config, err := png.DecodeConfig(bytes.NewReader(picture))
		if err != nil || config.Width != pictureWidth || config.Height != pictureHeight || len(picture) > pictureBytes {
			t.Errorf("%s is %d by %d with %d bytes, want %d by %d with %d at most (%v)",
				name, config.Width, config.Height, len(picture), pictureWidth, pictureHeight, pictureBytes, err)
		}
	}
}

// showOrders lets the page miss events and come back for them.
func showOrders(t *testing.T, ctx context.Context, server string) {
	t.Helper()
	publishAll := func(events [][2]string) {
		t.Helper()
		for _, one := range events {
			resp, err := http.Post(server+"/v1/feeds/orders/events?type="+one[0], "application/json", strings.NewReader(one[1]))
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusCreated {
				t.Fatal(resp.Status)
			}
		}
	}
	state := func(name string) chromedp.CSS { return chromedp.CSS(`#status[data-state="` + name + `"]`) }
	publishAll(orders[0])
	if err := chromedp.Do(ctx,
		chromedp.EmulateViewport(pictureWidth, pictureHeight),
		chromedp.Navigate(server+"/feeds/orders"),
		chromedp.WaitVisible(state("live")),
		script(`document.getElementById("cut").click()`),
		chromedp.WaitVisible(state("cut")),
	); err != nil {
		t.Fatal(err)
	}
	publishAll(orders[1])
	if *pictures {
		time.Sleep(2500 * time.Millisecond) // for the picture, they wait as long as such events do
	}
	if err := chromedp.Do(ctx,
		script(`document.getElementById("cut").click()`),
		chromedp.WaitVisible(chromedp.CSS(`#events [data-mark="caught-up"]`)),
	); err != nil {
		t.Fatal(err)
	}
	publishAll(orders[2])
	if err := chromedp.Do(ctx, chromedp.WaitVisible(chromedp.CSS(`#events [data-id="9"][data-how="live"]`)), chromedp.WaitVisible(chromedp.CSS("#subscribers-fact"))); err != nil {
		t.Fatal(err)
	}
	missed, err := chromedp.Run(ctx, chromedp.Evaluate[string](`[...document.querySelectorAll('#events [data-how="missed"]')].map(row => row.dataset.id).join()`))
	if err != nil || missed != "5,6,7" {
		t.Errorf("the rows of missed events are %q, want 5,6,7 (%v)", missed, err)
	}
}

// takePicture writes what the page looks like in a theme, as small as PNG can be.
func takePicture(t *testing.T, ctx context.Context, theme, name string) {
	t.Helper()
	if err := chromedp.Do(ctx, script(`document.documentElement.dataset.theme = %q; document.activeElement?.blur()`, theme)); err != nil {
		t.Fatal(err)
	}
	raw, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		t.Fatal(err)
	}
	picture, err := png.Decode(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	var small bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&small, picture); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, small.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}
