package feed

import "sync"

// logCost is what a log takes in memory without its events, roughly.
const logCost = 768

// cache holds the segments of all logs of a hub, the oldest first. When the logs hold
// more than their share of the node's memory, the cache drops the oldest segments,
// whichever logs they are of: their subscribers read from the store. It spares a
// segment that is small and all that its log has, so that a flood of large events
// does not drive the subscribers of other feeds to the store.
type cache struct {
	memory *Memory
	tracer Tracer // nil for none
	most   int    // bytes that a single log holds, where there is much memory

	mu             sync.Mutex
	oldest, newest *segment
	segments       int
}

func newCache(m *Memory, t Tracer) *cache {
	return &cache{memory: m, tracer: t, most: logMemory}
}

// perLog returns the most bytes that a single log holds.
func (c *cache) perLog() int { return min(c.most, int(c.memory.Limit(HoldLogs)/4)) }

// add adds a segment that a log has begun.
func (c *cache) add(s *segment) {
	c.memory.hold(HoldLogs, s.bytes)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.link(s)
}

// link makes s the newest. The caller holds mu.
func (c *cache) link(s *segment) {
	if s.older = c.newest; s.older != nil {
		s.older.newer = s
	} else {
		c.oldest = s
	}
	c.newest = s
	c.segments++
}

// remove removes a segment that its log no longer has.
func (c *cache) remove(s *segment) {
	c.memory.Give(HoldLogs, s.bytes+s.detach())
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unlink(s)
}

// spare makes a segment the newest, as if its log had begun it now.
func (c *cache) spare(s *segment) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unlink(s)
	c.link(s)
}

// unlink takes s out of the list. The caller holds mu.
func (c *cache) unlink(s *segment) {
	c.segments--
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

// mostSpared is how many segments one call of shrink spares.
const mostSpared = 256

// shrink drops segments until the logs hold no more than their share. The caller
// holds no lock.
func (c *cache) shrink() {
	if !c.memory.over(HoldLogs) {
		return
	}
	c.mu.Lock()
	newest := c.newest
	c.mu.Unlock()
	for spared := 0; c.memory.over(HoldLogs); {
		c.mu.Lock()
		if newest == c.oldest && newest != nil && spared > 0 {
			// Only small segments are left. They go before those that are newer.
			c.unlink(newest)
			c.link(newest)
			spared = mostSpared
		}
		s, small := c.oldest, 0
		if c.segments > 0 && spared < mostSpared {
			small = int(c.memory.Limit(HoldLogs)) / c.segments / 2
		}
		c.mu.Unlock()
		if s == nil {
			return
		}
		if !s.log.drop(s, small) {
			spared++
		}
	}
}
