package sqlite

import (
	"database/sql/driver"
	"fmt"

	"github.com/rejoin/rejoin/feed"
)

// feedRows caches the rows of the feeds that the writer met lately. As long as
// no other connection writes, they are equal to those in the file: a transaction
// that fails forgets them all, and so does one that finds that the file has
// changed.
type feedRows struct {
	rows    map[string]*feed.FeedRow
	version int64
}

// feedRowsMost is how many are kept between two transactions.
const feedRowsMost = 1 << 14

func (f *feedRows) forget() { f.rows = nil }

// check sees to it that the rows are those of the file. It runs in a transaction.
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
