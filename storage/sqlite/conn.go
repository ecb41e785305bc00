package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"runtime"

	"github.com/mattn/go-sqlite3"
)

// conn is a connection of the driver, used by one goroutine at a time. It bypasses
// database/sql, with which an insert takes half as long again.
type conn struct {
	*sqlite3.SQLiteConn
	stmts []*stmt
}

func dial(dsn string) (*conn, error) {
	c, err := (&sqlite3.SQLiteDriver{}).Open(dsn)
	if err != nil {
		return nil, err
	}
	return &conn{SQLiteConn: c.(*sqlite3.SQLiteConn)}, nil
}

// prepare prepares the statements, which c closes.
func (c *conn) prepare(stmts map[**stmt]string) error {
	for dst, text := range stmts {
		s, err := c.Prepare(text)
		if err != nil {
			return fmt.Errorf("prepare %q: %w", text, err)
		}
		*dst = &stmt{SQLiteStmt: s.(*sqlite3.SQLiteStmt)}
		c.stmts = append(c.stmts, *dst)
	}
	return nil
}

func (c *conn) Close() error {
	var errs []error
	for _, s := range c.stmts {
		errs = append(errs, s.Close())
	}
	return errors.Join(append(errs, c.SQLiteConn.Close())...)
}

// stmt is a prepared statement.
type stmt struct {
	*sqlite3.SQLiteStmt
	args []driver.NamedValue
	row  []driver.Value
}

// each runs the statement and calls f with each row until f returns false. The row is
// valid only until f returns. No cursor stays open.
//
// It takes no context: every statement here is short, and the driver would watch a
// context that can end at each step.
func (s *stmt) each(f func(row []driver.Value) bool, args ...driver.Value) (err error) {
	s.args = s.args[:0]
	for i, a := range args {
		s.args = append(s.args, driver.NamedValue{Ordinal: i + 1, Value: a})
	}
	rows, err := s.QueryContext(context.Background(), s.args)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, rows.Close())
		switch p := recover().(type) {
		case nil:
		case *runtime.TypeAssertionError: // in f, on a column of a damaged file
			err = errors.Join(fmt.Errorf("%w: %w", errDamaged, p), err)
		default:
			panic(p)
		}
	}()
	if s.row == nil {
		s.row = make([]driver.Value, len(rows.Columns()))
	}
	for {
		switch err := rows.Next(s.row); {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
		if !f(s.row) {
			return nil
		}
	}
}

// number runs the statement and returns the first column of its row, a number.
func (s *stmt) number() (n int64, err error) {
	err = s.each(func(row []driver.Value) bool {
		n = row[0].(int64)
		return true
	})
	return n, err
}

// exec runs the statement and ignores its rows.
func (s *stmt) exec(args ...driver.Value) error {
	return s.each(func([]driver.Value) bool { return true }, args...)
}
