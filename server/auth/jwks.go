package auth

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/MicahParks/keyfunc/v3"

	"github.com/rejoin/rejoin/feed"
)

const (
	fetchTimeout = 10 * time.Second
	fetchBytes   = 256 << 10
	// refreshEvery is how long a key stays valid after its removal from the set.
	refreshEvery = 10 * time.Minute
	// fetchPause is the least time between two fetches caused by tokens with unknown
	// keys, which any client can send.
	fetchPause = 10 * time.Second
	// The time between failed fetches grows from firstRetry to lastRetry.
	firstRetry, lastRetry = time.Second, time.Minute
	// maxMissed limits the unknown keys that are remembered.
	maxMissed = 1000
)

// keySet is a JSON Web Key Set that it fetches over HTTP, regularly and when a token
// names an unknown key. One goroutine fetches for all requests, so a client that leaves
// does not end a fetch.
type keySet struct {
	url        string
	algorithms []string // empty means all that the keys allow
	client     *http.Client
	logger     *slog.Logger
	outage     feed.Outage
	cancel     context.CancelFunc
	stopped    chan struct{} // closed when run has ended
	wanted     chan struct{} // wakes run for a fetch

	mu     sync.Mutex
	known  []key           // nil until the first fetch succeeds
	flight *flight         // the fetch in progress, or the one that run is about to start
	asked  time.Time       // the last time that a token caused a fetch
	missed map[string]bool // keys that tokens named and the set does not have
}

// flight is one fetch. Its error is valid after done is closed.
type flight struct {
	done chan struct{}
	err  error
}

func openKeySet(ctx context.Context, o Options) *keySet {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s := newKeySet(o)
	s.cancel = cancel
	s.begin() // early tokens wait for the first fetch
	go s.run(ctx)
	return s
}

func newKeySet(o Options) *keySet {
	return &keySet{
		url:        o.JWKSURL,
		algorithms: o.Algorithms,
		client: &http.Client{
			Transport: o.Transport,
			// The operator alone decides where the keys come from.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		logger:  cmp.Or(o.Logger, slog.Default()).With("keys", hostOf(o.JWKSURL)),
		stopped: make(chan struct{}),
		wanted:  make(chan struct{}, 1),
		missed:  make(map[string]bool),
	}
}

func (s *keySet) close() {
	s.cancel()
	<-s.stopped
}

// run fetches the set regularly, and when look wants it, until ctx ends.
func (s *keySet) run(ctx context.Context) {
	defer close(s.stopped)
	retry := firstRetry
	for ctx.Err() == nil {
		f := s.begin()
		known, err := s.fetch(ctx)
		if ctx.Err() == nil {
			s.note(err)
		}
		s.end(f, known, err)
		wait := refreshEvery
		if err != nil {
			wait, retry = retry, min(2*retry, lastRetry)
		} else {
			retry = firstRetry
		}
		select {
		case <-time.After(wait):
		case <-s.wanted:
		case <-ctx.Done():
		}
	}
}

// note logs when the set cannot be fetched, and when it can be again.
func (s *keySet) note(err error) {
	switch s.outage.Note(err) {
	case feed.OutageBegan:
		s.logger.Warn("the keys to check tokens with cannot be fetched (auth.jwt.jwks_url)", "error", err)
	case feed.OutageChanged:
		s.logger.Warn("the keys to check tokens with still cannot be fetched, for another reason", "error", err)
	case feed.OutageEnded:
		s.logger.Info("the keys to check tokens with can be fetched again", "after", s.outage.Lasted())
	}
}

// hostOf returns the host of a URL, which holds no secret.
func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Host
}

// begin returns the flight in progress, or a new one.
func (s *keySet) begin() *flight {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flight == nil {
		s.flight = &flight{done: make(chan struct{})}
	}
	return s.flight
}

func (s *keySet) end(f *flight, known []key, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.known = known
	}
	if err != nil || len(s.missed) >= maxMissed {
		clear(s.missed)
	}
	f.err, s.flight = err, nil
	close(f.done)
}

// keys implements keySource. Without a kid, any key may have signed the token.
func (s *keySet) keys(ctx context.Context, kid string) ([]key, error) {
	found, f := s.look(kid)
	switch {
	case len(found) > 0:
		return found, nil
	case f == nil:
		return nil, s.unknown(kid)
	}
	select {
	case <-f.done:
	case <-ctx.Done():
		return nil, ErrUnavailable
	case <-s.stopped:
		return nil, ErrUnavailable
	}
	if f.err != nil {
		return nil, ErrUnavailable
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if found = s.find(kid); len(found) > 0 {
		return found, nil
	}
	if len(s.missed) < maxMissed {
		s.missed[kid] = true
	}
	return nil, errNoKey
}

// look returns the keys that kid names, or the flight that may bring them, which is nil
// if it is too soon for one.
func (s *keySet) look(kid string) ([]key, *flight) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if found := s.find(kid); len(found) > 0 {
		return found, nil
	}
	if s.flight == nil && time.Since(s.asked) >= fetchPause {
		s.asked = time.Now()
		s.flight = &flight{done: make(chan struct{})}
		select {
		case s.wanted <- struct{}{}:
		default: // run is about to fetch anyway
		}
	}
	return nil, s.flight
}

// unknown returns the error for a key that look has no flight for. The key may be new,
// so the token is invalid only if a fetch has missed the key before.
func (s *keySet) unknown(kid string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.missed[kid] {
		return errNoKey
	}
	return ErrUnavailable
}

// find returns the keys that kid names. The caller holds mu.
func (s *keySet) find(kid string) []key {
	if kid == "" {
		return s.known
	}
	var found []key
	for _, k := range s.known {
		if k.id == kid {
			found = append(found, k)
		}
	}
	return found
}

func (s *keySet) fetch(ctx context.Context) ([]key, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return nil, withoutURL(err)
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	req.Close = true // the next fetch is minutes away
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, withoutURL(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the answer is %d, not 200", resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, fetchBytes+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the answer: %w", err)
	case len(body) > fetchBytes:
		return nil, fmt.Errorf("the answer has more than %d bytes", fetchBytes)
	}
	return parseKeySet(body, s.algorithms)
}

// withoutURL returns the error without the URL, which may contain a password.
func withoutURL(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

// parseKeySet returns the keys that can verify tokens. It skips the others, as RFC 7517,
// section 5, demands. A set without a usable key is an error: it is probably a mistake.
func parseKeySet(body []byte, algorithms []string) ([]key, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(body, &set); err != nil {
		return nil, errors.New("the answer is not a JSON Web Key Set")
	}
	var keys []key
	for _, raw := range set.Keys {
		k, err := parseJWK(raw)
		if err == nil && k.narrow(algorithms) == nil {
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("of the %d keys in the answer, none can be used", len(set.Keys))
	}
	return keys, nil
}

func parseJWK(raw json.RawMessage) (key, error) {
	var about struct {
		Kid, Alg, Use string
		KeyOps        []string `json:"key_ops"`
	}
	if err := json.Unmarshal(raw, &about); err != nil {
		return key{}, err
	}
	if about.Use != "" && about.Use != "sig" || about.KeyOps != nil && !slices.Contains(about.KeyOps, "verify") {
		return key{}, errors.New("it is for something else")
	}
	parsed, err := keyfunc.NewJWKJSON(bytes.Clone(raw))
	if err != nil {
		return key{}, err
	}
	material, err := parsed.VerificationKeySet(context.Background())
	if err != nil || len(material.Keys) != 1 {
		return key{}, errors.New("it cannot be read")
	}
	k, err := publicKey(material.Keys[0])
	if err != nil {
		return key{}, err
	}
	k.id = about.Kid
	if about.Alg != "" {
		err = k.narrow([]string{about.Alg})
	}
	return k, err
}
