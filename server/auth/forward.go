package auth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"github.com/rejoin/rejoin/feed"
)

// Forward asks the application that a visitor is logged in to, as nginx does with
// auth_request. It shares answers: see [ForwardOptions].
//
// It asks a question once, however many callers need the answer at the same time. A few
// goroutines send the questions. Until then a question costs little memory, and if its
// callers have left, it is not sent.
type Forward struct {
	options ForwardOptions
	url     *url.URL
	client  *http.Client

	outage    feed.Outage
	questions [verdictKinds]atomic.Uint64
	hits      atomic.Uint64
	seconds   feed.Durations

	mu          sync.Mutex
	kept        answerCache
	calls       map[digest]*call // that others may join
	queue       []*call          // that wait to be sent
	queueBytes  int
	running     int           // goroutines of run
	idle        chan struct{} // if not nil, closed when none is running
	credentials map[digest]weak.Pointer[credentials]
}

// Bounds of the questions that wait to be sent. Beyond these, there is no answer.
const (
	queueMost      = 4096
	queueBytesMost = 16 << 20
)

// call is a question of the application that is waiting or under way. verdict and err may
// be read once done is closed.
type call struct {
	part    *part
	done    chan struct{}
	verdict *verdict
	err     error

	// Under Forward.mu.
	users  int                // callers that wait for it
	cancel context.CancelFunc // once it is under way
}

// OpenForward returns a Forward, or an error that begins with the name of a wrong option.
// It asks nothing yet.
func OpenForward(o ForwardOptions) (*Forward, error) {
	if err := errors.Join(o.Faults()...); err != nil {
		return nil, err
	}
	o = o.withDefaults()
	u, socket, err := o.parse()
	if err != nil {
		return nil, err
	}
	transport, err := o.transport(socket)
	if err != nil {
		return nil, err
	}
	return &Forward{
		options: o,
		url:     u,
		client: &http.Client{
			Transport:     transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		calls:       make(map[digest]*call),
		credentials: make(map[digest]weak.Pointer[credentials]),
	}, nil
}

// Close waits for questions under way. Open streams can still be asked about.
func (f *Forward) Close() {
	f.mu.Lock()
	var idle chan struct{}
	if f.running > 0 {
		if f.idle == nil {
			f.idle = make(chan struct{})
		}
		idle = f.idle
	}
	f.mu.Unlock()
	if idle != nil {
		<-idle
	}
	f.client.CloseIdleConnections()
}

// errNoAnswer is the error while the application does not answer.
var errNoAnswer = &textError{"the application that decides about this does not answer right now", ErrUnavailable}

// answer returns the answer to p: one that counts still, or that of a question under way,
// or that of a new one.
func (f *Forward) answer(ctx context.Context, p *part) (*verdict, error) {
	v, c := f.join(p)
	if v == nil && c == nil {
		return nil, errNoAnswer
	}
	if v != nil {
		f.hits.Add(1)
		return v, nil
	}
	timeout := time.NewTimer(f.options.Timeout)
	defer timeout.Stop()
	for c != nil {
		if err := f.wait(ctx, c, timeout.C); err != nil {
			return nil, err
		}
		if !f.revokedSince(p.credentials, c.verdict.asked) {
			return c.verdict, nil
		}
		if v, c = f.join(p); v != nil {
			return v, nil
		}
	}
	return nil, errNoAnswer
}

// askAgain returns the answer to a new question, which nobody joins.
func (f *Forward) askAgain(ctx context.Context, p *part) (*verdict, error) {
	timeout := time.NewTimer(f.options.Timeout)
	defer timeout.Stop()
	f.mu.Lock()
	c := f.begin(p)
	f.mu.Unlock()
	if c == nil {
		return nil, errNoAnswer
	}
	if err := f.wait(ctx, c, timeout.C); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.verdict.refusal != nil {
		p.credentials.revoked = time.Now()
	} else {
		f.keep(p, c.verdict)
	}
	return c.verdict, nil
}

// join returns an answer that counts still, or else a call that is under way, or that it
// begins. It returns neither if too many are waiting.
func (f *Forward) join(p *part) (*verdict, *call) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if v := f.kept.get(p.key, time.Now()); v != nil && !p.credentials.revokedSince(v.asked) {
		return v, nil
	}
	if c := f.calls[p.key]; c != nil {
		c.users++
		return nil, c
	}
	c := f.begin(p)
	if c != nil {
		f.calls[p.key] = c
	}
	return nil, c
}

// begin begins a call with one user, or returns nil if too many are waiting. The caller
// holds mu.
func (f *Forward) begin(p *part) *call {
	size := p.size()
	if f.queueFull(size) {
		f.dropUnwanted()
		if f.queueFull(size) {
			return nil
		}
	}
	c := &call{part: p, done: make(chan struct{}), users: 1}
	f.queue = append(f.queue, c)
	f.queueBytes += size
	if f.running < f.options.Concurrency {
		f.running++
		go f.run()
	}
	return c
}

func (f *Forward) queueFull(size int) bool {
	return len(f.queue) >= queueMost || f.queueBytes+size > queueBytesMost
}

// dropUnwanted removes the calls without users from the queue. The caller holds mu.
func (f *Forward) dropUnwanted() {
	wanted := f.queue[:0]
	f.queueBytes = 0
	for _, c := range f.queue {
		if c.users > 0 {
			wanted = append(wanted, c)
			f.queueBytes += c.part.size()
		}
	}
	clear(f.queue[len(wanted):])
	f.queue = wanted
}

// wait waits for the end of a call, and leaves it. The error is that of the call or of
// ctx, or errNoAnswer.
func (f *Forward) wait(ctx context.Context, c *call, timeout <-chan time.Time) (err error) {
	gone := false
	select {
	case <-c.done:
		err = c.err
	case <-timeout:
		err = errNoAnswer // the call's own time ends soon
	case <-ctx.Done():
		err, gone = ctx.Err(), true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.users--; c.users > 0 {
		return err
	}
	if c.cancel == nil || gone {
		f.unshare(c)
		if c.cancel != nil {
			c.cancel()
		}
	}
	return err
}

// unshare lets nobody join the call any more. The caller holds mu.
func (f *Forward) unshare(c *call) {
	if f.calls[c.part.key] == c {
		delete(f.calls, c.part.key)
	}
}

// run sends the questions that wait, until there are none.
func (f *Forward) run() {
	for {
		ctx, c := f.next()
		if c == nil {
			return
		}
		v, err := f.ask(ctx, c.part)
		f.finish(c, v, err)
	}
}

// next returns the next call that somebody waits for, with the context of its request.
// If there is none, the caller ends.
func (f *Forward) next() (context.Context, *call) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.queue) > 0 {
		c := f.queue[0]
		f.queue[0] = nil
		f.queue = f.queue[1:]
		f.queueBytes -= c.part.size()
		if c.users > 0 {
			ctx, cancel := context.WithTimeout(context.Background(), f.options.Timeout)
			c.cancel = cancel
			return ctx, c
		}
	}
	f.queue = nil
	if f.running--; f.running == 0 && f.idle != nil {
		close(f.idle)
		f.idle = nil
	}
	return nil, nil
}

// finish ends a call.
func (f *Forward) finish(c *call, v *verdict, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c.cancel()
	if err != nil {
		c.err = errNoAnswer
	} else if c.verdict = v; f.calls[c.part.key] == c {
		f.keep(c.part, v)
	}
	f.unshare(c)
	close(c.done)
}

// refusalTime is how long a refusal is kept at most.
const refusalTime = time.Second

// keep keeps an answer for as long as it counts. The caller holds mu.
func (f *Forward) keep(p *part, v *verdict) {
	until := v.asked.Add(f.options.Cache)
	if v.refusal != nil && f.options.Cache > refusalTime {
		until = v.asked.Add(refusalTime)
	}
	if !v.expires.IsZero() && v.expires.Before(until) {
		until = v.expires
	}
	now := time.Now()
	if now.Before(until) && !p.credentials.revokedSince(v.asked) {
		f.kept.put(&keptAnswer{key: p.key, verdict: v, until: until, credentials: p.credentials}, now)
	}
}

// ask sends a question and reads its answer. It counts the answer, and logs when the
// application stops answering, and when it answers again.
func (f *Forward) ask(ctx context.Context, p *part) (*verdict, error) {
	asked := time.Now()
	v, err := f.exchange(ctx, p, asked)
	if errors.Is(ctx.Err(), context.Canceled) {
		return v, err // nobody waits for it
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) && err != nil {
		err = fmt.Errorf("no answer within %v", f.options.Timeout)
	}
	f.seconds.Since(asked)
	f.questions[kindOf(v, err)].Add(1)
	switch f.outage.Note(err) {
	case feed.OutageBegan:
		f.options.Logger.Error("the application does not answer who may do what (auth.forward.url)", "application", f.options.Place(), "error", err)
	case feed.OutageChanged:
		f.options.Logger.Error("the application still does not answer (auth.forward.url)", "application", f.options.Place(), "error", err)
	case feed.OutageEnded:
		f.options.Logger.Info("the application answers again (auth.forward.url)", "application", f.options.Place(), "after", f.outage.Lasted())
	}
	return v, err
}

func (f *Forward) exchange(ctx context.Context, p *part, asked time.Time) (*verdict, error) {
	resp, err := f.client.Do(p.request(ctx, f.url))
	if err != nil {
		return nil, withoutURL(err)
	}
	defer resp.Body.Close()
	return readAnswer(resp, p, asked)
}

// CheckForward asks the application once, without credentials, about a feed that is
// unlikely to exist. It returns what the application has answered. Its errors contain no
// secret, and begin with the name of the option.
func CheckForward(ctx context.Context, o ForwardOptions) (answer string, err error) {
	f, err := OpenForward(o)
	if err != nil {
		return "", err
	}
	defer f.Close()
	who := &visitor{forward: f, method: http.MethodGet, facts: Facts{
		Scheme: "http", Host: "localhost", Address: "127.0.0.1", URI: "/v1/feeds/rejoin-check/events",
	}, credentials: &credentials{}}
	ctx, cancel := context.WithTimeout(ctx, f.options.Timeout)
	defer cancel()
	v, err := f.exchange(ctx, who.part(Subscribe, []string{"rejoin-check"}), time.Now())
	if err != nil {
		return "", prefix("url", err)
	}
	return [verdictKinds]string{"allowed", "refused: not logged in", "refused"}[kindOf(v, nil)], nil
}
