package feedtest

import "github.com/rejoin/rejoin/feed"

// body is what tells events apart that are published with keys.
type body struct{ kind, data string }

// key is what is known of an idempotency key of a feed.
type key struct {
	tried  int
	answer []feed.Event // nil until there is one
	stored map[body]feed.ID
}

// Keyed notes that drafts are about to be published under a key of their feed:
// the same ones each time, and nowhere else are there any like them.
func (c *Checker) Keyed(name, keyName string, drafts ...feed.Draft) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.record(name)
	k := r.keys[keyName]
	if k == nil {
		k = &key{stored: make(map[body]feed.ID)}
		r.keys[keyName] = k
	}
	k.tried++
	for _, d := range drafts {
		r.keyOf[body{d.Type, d.Data}] = keyName
	}
}

// AckedKey notes that a publish under a key was answered with this result.
func (c *Checker) AckedKey(name, keyName string, result feed.Result) {
	c.mu.Lock()
	k := c.record(name).keys[keyName]
	known := k.answer
	if k.answer == nil {
		k.answer = append([]feed.Event{}, result.Events...)
	}
	switch {
	case known != nil && !result.Replayed:
		c.fault("%s: the key %s was new again", name, keyName)
	case result.Replayed && k.tried == 1:
		c.fault("%s: the key %s was known before it was used", name, keyName)
	}
	if known != nil && !equal(known, result.Events) {
		c.fault("%s: the key %s was answered with %d events and then with %d others", name, keyName, len(known), len(result.Events))
	}
	c.mu.Unlock()
	if known == nil {
		c.Acked(result.Events...)
	}
}

func equal(a, b []feed.Event) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !same(a[i], b[i]) {
			return false
		}
	}
	return true
}

// keepOnce notes under which id something is stored that has a key.
func (c *Checker) keepOnce(r *record, e feed.Event) {
	what := body{e.Type, e.Data}
	name, keyed := r.keyOf[what]
	if !keyed {
		return
	}
	stored := r.keys[name].stored
	if id, again := stored[what]; again && id != e.ID {
		c.fault("%s: the key %s is stored as event %d and as %d", e.Feed, name, id, e.ID)
	}
	stored[what] = e.ID
}

// forgetKeys takes back what a rollback to last has undone: of a key, all or
// nothing. One without events came with a close, which is undone in any case.
func (r *record) forgetKeys(last feed.ID) {
	for _, k := range r.keys {
		lost := len(k.stored) == 0
		for _, id := range k.stored {
			lost = lost || id > last
		}
		if lost {
			clear(k.stored)
			k.answer = nil
		}
	}
}
