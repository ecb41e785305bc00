package verify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"time"

	"github.com/rejoin/rejoin/cmd/internal/reach"
	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/client"
	"github.com/rejoin/rejoin/feed/feedtest"
)

// Collector compares what subscribers have with what the feeds hold.
type Collector struct {
	Clients     []*client.Client // any of them answers for the deployment
	Feeds       []string
	Subscribers []*Subscriber
	Recording   *feedtest.Recording // gets what the feeds hold
	Patience    time.Duration       // for servers to answer, and for subscribers to arrive
}

// Collect reads what the feeds hold, once all is published, and waits until
// every subscriber has it, or until patience ends.
func (c *Collector) Collect(ctx context.Context) error {
	patience, cancel := context.WithTimeout(ctx, c.Patience)
	defer cancel()
	for _, s := range c.Subscribers {
		s.Hurry.Store(true)
	}
	for known := map[string]feed.ID(nil); ; {
		last, err := c.readAll(ctx, patience)
		if err != nil {
			return err
		}
		if maps.Equal(last, known) {
			return nil // who has not arrived is found out by the judge
		}
		// An abandoned publish may still be on its way into the store.
		known = last
		for !c.arrived(last) && sleep(patience, 50*time.Millisecond) == nil {
		}
		if sleep(patience, 200*time.Millisecond) != nil {
			return nil
		}
	}
}

// readAll reads all feeds, and returns their last ids. Patience is for servers that
// do not answer: one that does is heard out.
func (c *Collector) readAll(ctx, patience context.Context) (map[string]feed.ID, error) {
	last := make(map[string]feed.ID)
	for _, name := range c.Feeds {
		var err error
		if last[name], err = c.read(ctx, patience, name); err != nil {
			return nil, fmt.Errorf("read what %s holds: %w", name, err)
		}
	}
	return last, nil
}

func (c *Collector) arrived(last map[string]feed.ID) bool {
	for _, s := range c.Subscribers {
		for _, f := range s.Log.Feeds() {
			if s.Log.Reached(f) < last[f] {
				return false
			}
		}
	}
	return true
}

// read reads all of a feed into the recording, from any of the servers.
func (c *Collector) read(ctx, patience context.Context, name string) (last feed.ID, err error) {
	for attempt := 0; ; attempt++ {
		last, err = Holdings(ctx, c.Clients[attempt%len(c.Clients)], name, c.Recording)
		problem, _ := errors.AsType[*client.Problem](err)
		if err == nil || problem != nil && !problem.Temporary() {
			return last, err
		}
		if sleep(patience, time.Second/2) != nil {
			return 0, err
		}
	}
}

// Holdings reads a feed by pages.
func Holdings(ctx context.Context, c *client.Client, name string, to *feedtest.Recording) (last feed.ID, err error) {
	for after := feed.ID(0); ; {
		var page struct {
			Events      []client.Event
			First, Last feed.ID
			Closed      bool
		}
		u := c.URL("v1", "feeds", name, "events")
		u.RawQuery = "limit=1000&after=" + after.String()
		if err := getJSON(ctx, c.HTTP(), u.String(), &page); err != nil {
			return 0, err
		}
		if after == 0 {
			to.Holds(name, page.First, page.Last)
			to.HeldClosed(name, page.Closed)
			last = page.Last
		}
		for _, e := range page.Events {
			if e.ID > last {
				continue // published meanwhile, by whom? The subscribers will know
			}
			to.Held(name, e.ID, feedtest.SumOf(e.Type, e.Data))
			after = e.ID
		}
		if len(page.Events) == 0 || after >= last {
			return last, nil
		}
	}
}

func getJSON(ctx context.Context, c *http.Client, from string, to any) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := c.Do(req)
	if err != nil {
		return errors.New(reach.Reason(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return client.ReadProblem(resp)
	}
	return json.NewDecoder(resp.Body).Decode(to)
}
