package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/rejoin/rejoin/cmd/internal/verify"
	"github.com/rejoin/rejoin/feed/client"
	"github.com/rejoin/rejoin/feed/feedtest"
)

// whisperer publishes events that are not stored, one after another through one
// node. They may be lost.
type whisperer struct {
	*verify.Publisher
	node *client.Client

	mu   *sync.Mutex // of all whisperers
	sent *[]whisper
}

// whisper is an ephemeral event, and when it was answered.
type whisper struct {
	feedtest.Ephemeral
	answered time.Time
}

// startWhisperers starts one for each node.
func (s *schedule) startWhisperers(ctx context.Context) {
	for i, c := range s.clientsOf(clientHTTP1, s.urls()) {
		w := &whisperer{Publisher: s.publisher(400+i, s.feeds), node: c, mu: &s.mu, sent: &s.whispers}
		w.Pause = 60 * time.Millisecond * slower()
		s.publishing([]*client.Client{c}, func() error { return w.run(ctx) })
	}
}

func (w *whisperer) run(ctx context.Context) error {
	for series := 1; ctx.Err() == nil; series++ {
		if err := w.one(ctx, fmt.Sprintf("%s-series%d", w.Name, series)); err != nil {
			return err
		}
	}
	return nil
}

// one publishes until an event is not accepted: what became of that one, and
// when, nobody knows, so those after it are of another series.
func (w *whisperer) one(ctx context.Context, series string) error {
	name := w.Feeds[w.Random.IntN(len(w.Feeds))]
	for n := 1; ctx.Err() == nil; n++ {
		e := feedtest.Ephemeral{Feed: name, Type: tortureTypes[w.Random.IntN(len(tortureTypes))], Series: series, Number: n}
		data := fmt.Sprintf("%s whispers %d%s", series, n, strings.Repeat("!", w.Random.IntN(50)))
		e.Sum = feedtest.SumOf(e.Type, data)
		accepted, err := w.whisper(ctx, e, data)
		if err != nil {
			return err
		}
		said := whisper{Ephemeral: e}
		if accepted {
			said.answered = time.Now()
		}
		w.mu.Lock()
		*w.sent = append(*w.sent, said)
		w.mu.Unlock()
		_ = sleep(ctx, w.Pause) // the loop looks at ctx
		if !accepted {
			return nil
		}
	}
	return nil
}

func (w *whisperer) whisper(ctx context.Context, e feedtest.Ephemeral, data string) (accepted bool, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), w.Attempt)
	defer cancel()
	to := w.node.URL("v1", "feeds", e.Feed, "events")
	to.RawQuery = url.Values{"ephemeral": {"true"}, "type": {e.Type}}.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to.String(), strings.NewReader(data))
	if err != nil {
		return false, err
	}
	req.Header.Set("Content-Type", "text/plain")
	resp, err := w.node.HTTP().Do(req)
	if err != nil {
		return false, nil
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusAccepted {
		_, err := io.Copy(io.Discard, resp.Body)
		return err == nil, nil
	}
	if problem := client.ReadProblem(resp); !problem.Temporary() {
		return false, fmt.Errorf("publish an ephemeral event: %w", problem)
	}
	return false, nil
}
