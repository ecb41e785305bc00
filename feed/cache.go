package feed

import "sync"

// logCost is what a log takes in memory without its events, roughly.
const logCost = 768

// cache is the segments of all logs of a hub, the oldest first. When the logs hold
// more than their share of the node's memory, it drops the oldest, whichever log
// they are of: their subscribers read from the store.
type cache struct {
	memory *Memory
	perLog int // the most bytes that a single log holds

	mu             sync.Mutex
	oldest, newest *segment
}

func newCache(m *Memory) *cache {
	return &cache{memory: m, perLog: min(logMemory, int(m.Limit(HoldLogs)/4))}
}

// add takes in a segment that a log has begun.
func (c *cache) add(s *segment) {
	c.memory.hold(HoldLogs, s.bytes)
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.older = c.newest; s.older != nil {
		s.older.newer = s
	} else {
		c.oldest = s
	}
	c.newest = s
}

// remove lets go of a segment that its log no longer has.
func (c *cache) remove(s *segment) {
	c.memory.Give(HoldLogs, s.bytes+s.leave())
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.older != nil {
		s.older.newer = s.newer
	} else {
		c.oldest = s.newer
	}
	if s.newer != nil {
		s.newer.older = s.older
	} else {
		c.newest = s.older
	}
	s.older, s.newer = nil, nil
}

// shrink drops the oldest segments until the logs hold no more than their share.
// The caller holds no lock.
func (c *cache) shrink() {
	for c.memory.over(HoldLogs) {
		c.mu.Lock()
		s := c.oldest
		c.mu.Unlock()
		if s == nil {
			return
		}
		s.log.drop(s)
	}
}
