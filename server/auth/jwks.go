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
)

const (
	fetchTimeout = 10 * time.Second
	fetchBytes   = 256 << 10
	// refreshEvery is how long a key that was taken out of the set is good for.
	refreshEvery = 10 * time.Minute
	// fetchPause is the least time between two fetches that tokens with unknown
	// keys cause: anyone can send such tokens.
	fetchPause = 10 * time.Second
	// firstRetry and lastRetry are the times between tries that fail.
	firstRetry, lastRetry = time.Second, time.Minute
	// maxMissed bounds what is remembered of unknown keys.
	maxMissed = 1000
)

// keySet is a JSON Web Key Set that is fetched over HTTP, every so often and
// when a token names a key that is not in it. Fetches are its own, not those of
// the requests that wait for them: one serves all, and none is ended by a
// client that leaves.
type keySet struct {
	url        string
	algorithms []string // empty for all that the keys allow
	client     *http.Client
	logger     *slog.Logger
	cancel     context.CancelFunc
	stopped    chan struct{} // closed when nothing fetches any more
	wanted     chan struct{} // wakes run for a flight

	mu     sync.Mutex
	known  []key           // nil until the first fetch succeeds
	flight *flight         // in progress or about to be, or nil
	asked  time.Time       // when a token last caused a fetch
	missed map[string]bool // keys that were asked for and are not in the set
}

// flight is one fetch. Its error is to be read when it is done.
type flight struct {
	done chan struct{}
	err  error
}

func openKeySet(ctx context.Context, o Options) *keySet {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s := &keySet{
		url:        o.JWKSURL,
		algorithms: o.Algorithms,
		client: &http.Client{
			Transport: o.Transport,
			// Where the keys come from is the operator's word alone.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		logger:  cmp.Or(o.Logger, slog.Default()),
		cancel:  cancel,
		stopped: make(chan struct{}),
		wanted:  make(chan struct{}, 1),
		missed:  make(map[string]bool),
	}
	s.begin() // tokens that are early wait for the first fetch
	go s.run(ctx)
	return s
}

func (s *keySet) close() {
	s.cancel()
	<-s.stopped
}

// run fetches the set every so often, and when it is wanted, until ctx ends.
func (s *keySet) run(ctx context.Context) {
	defer close(s.stopped)
	retry := firstRetry
	for ctx.Err() == nil {
		f := s.begin()
		known, err := s.fetch(ctx)
		if err != nil && ctx.Err() == nil {
			s.logger.Warn("the keys to check tokens with cannot be fetched (auth.jwt.jwks_url)", "error", err)
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

// keys implements keySource. A token without a kid may be signed with any key.
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

// look returns the keys that kid names, or else the flight that may bring them:
// nil if it is too soon for one.
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
		default: // run is about to look in any case
		}
	}
	return nil, s.flight
}

// unknown judges a key for which it is too soon to look. It may be one that is
// new: that is no reason to turn a client away for good, unless somebody asked
// for it before.
func (s *keySet) unknown(kid string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.missed[kid] {
		return errNoKey
	}
	return ErrUnavailable
}

// find needs mu.
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
	req.Close = true // minutes pass until the next one
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

// withoutURL: the address may hold a password.
func withoutURL(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

// parseKeySet returns the keys that can verify tokens. Keys that it cannot use
// are passed over, as RFC 7517, section 5, wants it; a set without a usable one
// is an error, since it is more likely a mistake than meant.
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
