package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strconv"
	"time"

	"github.com/rejoin/rejoin/feed/client"
	"github.com/rejoin/rejoin/feed/feedtest"
)

// collect reads what the feeds hold, once all is published, and waits until
// every subscriber has it, or until patience ends.
func (v *verification) collect(ctx context.Context) error {
	patience, cancel := context.WithTimeout(ctx, v.patience)
	defer cancel()
	for _, w := range v.witnesses {
		w.hurry.Store(true)
	}
	for known := map[string]uint64(nil); ; {
		last, err := v.readAll(ctx, patience)
		if err != nil {
			return err
		}
		if maps.Equal(last, known) {
			return nil // who has not arrived is found out by the judge
		}
		// What was given up may still be on its way into the store.
		known = last
		for !v.arrived(last) && sleep(patience, 50*time.Millisecond) == nil {
		}
		if sleep(patience, 200*time.Millisecond) != nil {
			return nil
		}
	}
}

// readAll reads all feeds, and returns their last ids. Patience is for servers that
// do not answer: one that does is heard out.
func (v *verification) readAll(ctx, patience context.Context) (map[string]uint64, error) {
	last := make(map[string]uint64)
	for _, name := range v.names {
		var err error
		if last[name], err = v.read(ctx, patience, name); err != nil {
			return nil, fmt.Errorf("read what %s holds: %w", name, err)
		}
	}
	return last, nil
}

func (v *verification) arrived(last map[string]uint64) bool {
	for _, w := range v.witnesses {
		for _, f := range w.log.Feeds() {
			if w.log.Reached(f) < last[f] {
				return false
			}
		}
	}
	return true
}

// read reads all of a feed into the recording, from any of the servers.
func (v *verification) read(ctx, patience context.Context, name string) (last uint64, err error) {
	for attempt := 0; ; attempt++ {
		last, err = holdings(ctx, v.clients[attempt%len(v.clients)], name, v.recording)
		problem, _ := errors.AsType[*client.Problem](err)
		if err == nil || problem != nil && !problem.Temporary() {
			return last, err
		}
		if sleep(patience, time.Second/2) != nil {
			return 0, err
		}
	}
}

// holdings reads a feed by pages.
func holdings(ctx context.Context, c *client.Client, name string, to *feedtest.Recording) (last uint64, err error) {
	for after := uint64(0); ; {
		var page struct {
			Events      []client.Event
			First, Last uint64
			Closed      bool
		}
		u := c.URL("v1", "feeds", name, "events")
		u.RawQuery = "limit=1000&after=" + strconv.FormatUint(after, 10)
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
		return errors.New(reason(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return client.ReadProblem(resp)
	}
	return json.NewDecoder(resp.Body).Decode(to)
}

// delete deletes the feeds, and notes why they are left if it may not.
func (v *verification) delete(ctx context.Context, patience time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for _, name := range v.names {
		if err := v.deleteOne(ctx, name); err != nil {
			v.left = reason(err)
			v.note("the feeds %s* are left: %s", v.prefix, v.left)
			return
		}
	}
}

func (v *verification) deleteOne(ctx context.Context, name string) (err error) {
	for _, c := range v.clients {
		req, err2 := http.NewRequestWithContext(ctx, http.MethodDelete, c.URL("v1", "feeds", name).String(), nil)
		if err2 != nil {
			return err2
		}
		resp, err2 := c.HTTP().Do(req)
		if err = err2; err != nil {
			continue // another may be up
		}
		if resp.StatusCode == http.StatusNoContent || resp.StatusCode == http.StatusNotFound {
			resp.Body.Close()
			return nil
		}
		err = client.ReadProblem(resp)
		_, _ = io.Copy(io.Discard, resp.Body) // the connection may carry the next
		resp.Body.Close()
	}
	return err
}
