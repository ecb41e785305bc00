package sqlite

import (
	"database/sql/driver"
	"fmt"

	"github.com/rejoin/rejoin/feed"
)

// feedRows caches the rows of the feeds that were appended to lately. As long as no
// other connection writes, they equal those in the file. A transaction that fails
// drops them all, and so does one that finds that the file has changed.
type feedRows struct {
	rows    map[string]*feed.FeedRow
	version int64
}

// feedRowsMost is the most rows that are kept between two transactions.
const feedRowsMost = 1 << 14

func (f *feedRows) forget() { f.rows = nil }

// check drops the rows if they may differ from those in the file. It runs in a
// transaction.
func (f *feedRows) check(getVersion *stmt) error {
	version := f.version
	err := getVersion.each(func(row []driver.Value) bool {
		version = row[0].(int64)
		return true
	})
	if err != nil {
		return fmt.Errorf("get version: %w", err)
	}
	if f.rows == nil || version != f.version || len(f.rows) > feedRowsMost {
		f.rows, f.version = make(map[string]*feed.FeedRow), version
	}
	return nil
}
