package sqlite

import (
	"database/sql/driver"
	"fmt"
)

// feedRow is what the writer knows of a feed's row, with what the transaction
// under way has changed.
type feedRow struct {
	id, last, time int64 // id is 0 as long as there is no row
	closed         bool
	bytes          int64 // that the transaction adds
	changed        bool  // by the transaction
}

// feedRows is the rows of the feeds that the writer met lately. As long as
// nobody else writes, they are what the file says: a transaction that fails
// forgets them all, and one that sees that somebody did write begins with none.
type feedRows struct {
	rows    map[string]*feedRow
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
		f.rows, f.version = make(map[string]*feedRow), version
	}
	return nil
}
