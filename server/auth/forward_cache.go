package auth

import (
	"container/list"
	"runtime"
	"time"
	"weak"
)

// answerCacheBytes limits the answers that are kept.
const answerCacheBytes = 8 << 20

// answerCache holds answers of the application. When it is full, the answer goes that has
// not been used for longest. The zero value is ready for use. Forward.mu guards it.
type answerCache struct {
	entries map[digest]*list.Element // of *keptAnswer
	used    list.List                // the last used first
	bytes   int
}

// keptAnswer is the answer to one question.
type keptAnswer struct {
	key         digest
	verdict     *verdict
	until       time.Time
	credentials *credentials // so that they live as long as the answer
}

func (c *answerCache) get(key digest, now time.Time) *verdict {
	e := c.entries[key]
	if e == nil {
		return nil
	}
	kept := e.Value.(*keptAnswer)
	if !now.Before(kept.until) {
		c.remove(e)
		return nil
	}
	c.used.MoveToFront(e)
	return kept.verdict
}

func (c *answerCache) put(kept *keptAnswer, now time.Time) {
	if e := c.entries[kept.key]; e != nil {
		if e.Value.(*keptAnswer).verdict.asked.After(kept.verdict.asked) {
			return
		}
		c.remove(e)
	}
	if c.entries == nil {
		c.entries = make(map[digest]*list.Element)
	}
	c.entries[kept.key] = c.used.PushFront(kept)
	c.bytes += kept.size()
	for e := c.used.Back(); e != nil && (c.bytes > answerCacheBytes || !now.Before(e.Value.(*keptAnswer).until)); e = c.used.Back() {
		c.remove(e)
	}
}

func (c *answerCache) remove(e *list.Element) {
	kept := c.used.Remove(e).(*keptAnswer)
	delete(c.entries, kept.key)
	c.bytes -= kept.size()
}

func (k *keptAnswer) size() int { return 256 + k.verdict.size() }

// credentials are those of one visitor. They live for as long as a request, an open
// stream or a kept answer refers to them, and so for as long as an answer exists that
// their revocation concerns.
type credentials struct {
	revoked time.Time // when the application last refused an open stream; under Forward.mu
}

// revokedSince reports whether an answer that was asked for at that time no longer counts.
func (c *credentials) revokedSince(asked time.Time) bool {
	return !c.revoked.IsZero() && !asked.After(c.revoked)
}

func (f *Forward) revokedSince(c *credentials, asked time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return c.revokedSince(asked)
}

// credentialsOf returns the credentials with this digest.
func (f *Forward) credentialsOf(key digest) *credentials {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.credentials[key].Value(); c != nil {
		return c
	}
	c := &credentials{}
	f.credentials[key] = weak.Make(c)
	runtime.AddCleanup(c, f.forget, key)
	return c
}

// forget removes credentials that nothing refers to.
func (f *Forward) forget(key digest) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.credentials[key].Value() == nil {
		delete(f.credentials, key)
	}
}
