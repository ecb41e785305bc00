package postgres

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/storage/testserver"
)

// The server dies again and again, in the midst of appends, in every way that it can.
// Each acknowledged event is there, once. No refused event is there. The store works
// again by itself.
func TestServerDies(t *testing.T) {
	p := testserver.StartPostgres(t)
	url := p.NewDatabase(t)
	s := start(t, url, Options{})
	ways := map[string]func(){
		"kill -9":        func() { p.Kill(t); p.Start(t) },
		"immediate stop": func() { p.Stop(t, testserver.Immediate); p.Start(t) },
		"fast restart":   func() { p.Stop(t, testserver.Fast); p.Start(t) },
		"sessions ended": func() {
			p.Exec(t, "postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'rejoin%'")
		},
	}
	for name, die := range ways {
		t.Run(name, func(t *testing.T) { appendThrough(t, s, die, name) })
	}
}

// appendThrough keeps appending while the server dies twice.
func appendThrough(t *testing.T, s *Store, die func(), how string) {
	ctx, stop := context.WithCancel(t.Context())
	writers := make([]*ledger, 3)
	acknowledged := make(chan struct{}, 1000)
	var writing sync.WaitGroup
	for w := range writers {
		writers[w] = newLedger()
		writing.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				b := batch(how+"/"+fmt.Sprint(w), fmt.Sprint(n, "a"), fmt.Sprint(n, "b"))
				results, err := s.Append(context.Background(), b)
				if err := writers[w].enter(b[0], results, err); err != nil {
					t.Errorf("an append failed with %v", err)
				}
				if err == nil {
					select {
					case acknowledged <- struct{}{}:
					default:
					}
				} else {
					time.Sleep(time.Millisecond) // a publisher's callers do not return at once
				}
			}
		})
	}
	for range 2 {
		for range 50 {
			<-acknowledged
		}
		die()
		for len(acknowledged) > 0 {
			<-acknowledged
		}
		began := time.Now()
		<-acknowledged
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("the store worked again after %v", took)
		}
	}
	stop()
	writing.Wait()
	for w, told := range writers {
		if err := told.check(stored(t, s, how+"/"+fmt.Sprint(w))); err != nil {
			t.Errorf("writer %d: %v", w, err)
		}
		t.Logf("writer %d: %d acknowledged, %d refused, %d unknown", w, len(told.acknowledged), len(told.refused), told.unknown)
		if told.unknown > 0 {
			t.Errorf("writer %d: the outcome of %d events is unknown", w, told.unknown)
		}
	}
}

// A restart while nothing goes on leaves every pooled connection dead. No call
// may fail for that.
func TestDeadConnections(t *testing.T) {
	t.Parallel()
	p := testserver.StartPostgres(t)
	s := start(t, p.NewDatabase(t), Options{})
	restart := map[string]func(){
		"fast":      func() { p.Stop(t, testserver.Fast); p.Start(t) },
		"immediate": func() { p.Stop(t, testserver.Immediate); p.Start(t) },
		"kill -9":   func() { p.Kill(t); p.Start(t) },
	}
	everything := func() {
		var calls sync.WaitGroup
		for i := range 12 {
			name := fmt.Sprintf("chat:%d", i)
			calls.Go(func() {
				if _, err := s.Append(t.Context(), batch(name, "x")); err != nil {
					t.Error(err)
				}
			})
			calls.Go(func() {
				if _, err := s.Read(t.Context(), name, 0, feed.Limit{Events: 10, Bytes: 1000}); err != nil {
					t.Error(err)
				}
			})
			calls.Go(func() {
				if _, err := s.Bounds(t.Context(), []string{name}); err != nil {
					t.Error(err)
				}
			})
		}
		calls.Wait()
	}
	for name, again := range restart {
		t.Run(name, func(t *testing.T) {
			everything() // fills the pools
			again()
			everything()
		})
	}
}

// While the server is down, calls fail at once, with an error that shows that they
// may be repeated.
func TestServerDown(t *testing.T) {
	p := testserver.StartPostgres(t)
	url := p.NewDatabase(t)
	s := start(t, url, Options{})
	publish(t, s, "chat", "1")
	p.Stop(t, testserver.Fast)
	began := time.Now()
	_, err := s.Append(t.Context(), batch("chat", "2"))
	wants(t, err, feed.ErrUnavailable)
	_, err = s.Read(t.Context(), "chat", 0, feed.Limit{Events: 1, Bytes: 1})
	wants(t, err, feed.ErrUnavailable)
	_, err = s.Bounds(t.Context(), []string{"chat"})
	wants(t, err, feed.ErrUnavailable)
	_, err = s.Seek(t.Context(), "chat", time.Now())
	wants(t, err, feed.ErrUnavailable)
	_, err = Open(t.Context(), url, Options{})
	wants(t, err, feed.ErrUnavailable)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("five calls took %v", took)
	}
	p.Start(t)
	publish(t, s, "chat", "3")
	if got := stored(t, s, "chat"); len(got) != 2 {
		t.Errorf("got %v", got)
	}
}

// A frozen server answers nothing and closes no connection. Calls end nevertheless,
// and their answers still hold when it goes on.
func TestServerFrozen(t *testing.T) {
	t.Parallel()
	p := testserver.StartPostgres(t)
	s := start(t, p.NewDatabase(t), Options{
		LockTimeout: time.Second, StatementTimeout: time.Second, ConnectTimeout: time.Second, OutcomeTimeout: time.Second,
	})
	told := newLedger()
	try := func(ctx context.Context, data string) error {
		b := batch("chat", data)
		results, err := s.Append(ctx, b)
		if err := told.enter(b[0], results, err); err != nil {
			t.Error(err)
		}
		return err
	}
	if err := try(t.Context(), "before"); err != nil {
		t.Fatal(err)
	}
	p.Pause(t)
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := s.Bounds(ctx, []string{"chat"})
	wants(t, err, feed.ErrUnavailable)
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("bounds took %v after its context ended", took)
	}
	if err := try(t.Context(), "frozen"); err == nil {
		t.Error("an append was acknowledged by a frozen server")
	}
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("the calls took %v", took)
	}
	p.Resume(t)
	until(t, func() bool { return try(t.Context(), fmt.Sprint("after", time.Now().UnixNano())) == nil })
	if err := told.check(stored(t, s, "chat")); err != nil {
		t.Error(err)
	}
}

// A storm of replays holds every connection for replays, and appends and bounds
// go on.
func TestReplaysDoNotStarve(t *testing.T) {
	t.Parallel()
	url := newDatabase(t)
	s := start(t, url, Options{ReplayConns: 2})
	publish(t, s, "chat", "1")
	var replays sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	for range 2 {
		c, err := s.replay.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Release()
	}
	for range 50 {
		replays.Go(func() {
			_, err := s.Read(ctx, "chat", 0, feed.Limit{Events: 1, Bytes: 1})
			wants(t, err, feed.ErrUnavailable)
		})
	}
	publish(t, s, "chat", "2")
	if b := bounds(t, s, "chat"); b.Last != 2 {
		t.Errorf("got %v", b)
	}
	cancel()
	replays.Wait()
}
