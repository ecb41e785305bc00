package feed

import "sync"

// logCost is what a log takes in memory without its events, roughly.
const logCost = 768

// cache is the segments of all logs of a hub, the oldest first. When the logs hold
// more than their share of the node's memory, it drops the oldest, whichever log
// they are of: their subscribers read from the store. It spares what is small and
// all that a log has, so that a flood of large events does not drive the
// subscribers of other feeds to the store.
type cache struct {
	memory *Memory
	perLog int // the most bytes that a single log holds

	mu             sync.Mutex
	oldest, newest *segment
	segments       int
}

func newCache(m *Memory) *cache {
	return &cache{memory: m, perLog: min(logMemory, int(m.Limit(HoldLogs)/4))}
}

// add takes in a segment that a log has begun.
func (c *cache) add(s *segment) {
	c.memory.hold(HoldLogs, s.bytes)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.append(s)
}

// append makes s the newest. The caller holds mu.
func (c *cache) append(s *segment) {
	if s.older = c.newest; s.older != nil {
		s.older.newer = s
	} else {
		c.oldest = s
	}
	c.newest = s
	c.segments++
}

// remove lets go of a segment that its log no longer has.
func (c *cache) remove(s *segment) {
	c.memory.Give(HoldLogs, s.bytes+s.detach())
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut(s)
}

// spare makes a segment the newest, as if its log had begun it now.
func (c *cache) spare(s *segment) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut(s)
	c.append(s)
}

// cut takes s out. The caller holds mu.
func (c *cache) cut(s *segment) {
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
			// Nothing but small ones is left. They go before what has just come.
			c.cut(newest)
			c.append(newest)
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
