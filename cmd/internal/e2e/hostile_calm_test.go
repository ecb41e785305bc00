package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// calm is those who behave: a publisher of small events, and subscribers that
// read what comes.
type calm struct {
	h      *hostile
	client *http.Client
	cancel context.CancelFunc // of the subscribers
	ready  sync.WaitGroup
	ended  sync.WaitGroup

	mu    sync.Mutex
	acked []time.Time           // by number
	came  [calmClients][]arrive // in the order in which they came
}

// arrive is the arrival of an event.
type arrive struct {
	number int
	at     time.Time
}

const (
	calmClients = 20
	calmPause   = 50 * time.Millisecond
)

func newCalm(h *hostile) *calm {
	ctx, cancel := context.WithCancel(context.Background())
	c := &calm{h: h, client: &http.Client{Transport: &http.Transport{}}, cancel: cancel}
	for i := range calmClients {
		c.ready.Add(1)
		c.ended.Go(func() { c.follow(ctx, i) })
	}
	c.ready.Wait()
	h.streams.Add(calmClients)
	return c
}

// run publishes until ctx ends.
func (c *calm) run(ctx context.Context) {
	for n := 0; ctx.Err() == nil; n++ {
		c.publish(n)
		_ = sleep(ctx, calmPause) // the loop looks at ctx
	}
}

// publish publishes an event until it is stored.
func (c *calm) publish(n int) {
	for {
		began := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		status, err := c.h.post(ctx, c.client, "/v1/feeds/calm/events", "text/plain", strconv.Itoa(n), fmt.Sprint("calm-", n))
		cancel()
		c.h.answers.add(status, time.Since(began), err)
		if status == http.StatusCreated {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.acked = append(c.acked, time.Now())
			return
		}
		if status == 0 {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.acked = append(c.acked, time.Time{})
			return // the node is gone; the others say why
		}
		time.Sleep(calmPause) // it is asked to come back later
	}
}

// follow reads one stream to its end.
func (c *calm) follow(ctx context.Context, i int) {
	opened := sync.OnceFunc(c.ready.Done)
	defer opened()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.h.p.url+"/v1/feeds/calm/events?from=start", nil)
	if err != nil {
		c.h.t.Error(err)
		return
	}
	resp, err := c.client.Do(req)
	if err != nil {
		c.h.t.Error(err)
		return
	}
	defer resp.Body.Close()
	kind := ""
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), ": ")
		switch {
		case name == "event":
			kind = value
		case name == "data" && kind == "feed.open":
			opened()
		case name == "data" && kind == "":
			if n, err := strconv.Atoi(value); err == nil {
				c.mu.Lock()
				c.came[i] = append(c.came[i], arrive{n, time.Now()})
				c.mu.Unlock()
			}
		case name == "":
			kind = ""
		}
	}
	if ctx.Err() == nil {
		c.h.t.Errorf("the stream of a subscriber that reads was ended")
	}
}

// close ends the streams, when all that was published has come.
func (c *calm) close() {
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		if _, missing := c.delays(); missing == 0 {
			break
		}
		time.Sleep(50 * time.Millisecond) // until it has come
	}
	c.cancel()
	c.ended.Wait()
	c.client.CloseIdleConnections()
	c.h.streams.Add(-calmClients)
}

// delays returns how long after their acknowledgement events came, outside the
// times at which the store stood still, and how many did not come at all.
func (c *calm) delays() (delays []time.Duration, missing int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.came {
		missing += len(c.acked) - len(c.came[i])
		for _, a := range c.came[i] {
			if a.number >= len(c.acked) || c.acked[a.number].IsZero() {
				continue // it came before its acknowledgement
			}
			acked := c.acked[a.number]
			if !c.h.store.stood(acked, a.at) {
				delays = append(delays, max(0, a.at.Sub(acked)))
			}
		}
	}
	return delays, missing
}

// post sends a request and returns the status of the answer, 0 for none.
func (h *hostile) post(ctx context.Context, client *http.Client, path, media, body, key string) (status int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.p.url+path, strings.NewReader(body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", media)
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}
