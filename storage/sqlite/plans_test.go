package sqlite

import (
	"slices"
	"strings"
	"testing"
)

// Statements find their rows by an index, to its last column, and do not sort. Their
// cost must not grow with the store, nor with the number of trimmed events.
func TestPlans(t *testing.T) {
	s := newStore(t)
	w := <-s.writing
	defer func() { s.writing <- w }()
	for name, want := range map[string][]string{
		"page":          {"SEARCH f USING INDEX (name=?)", "SEARCH e USING INDEX (feed=? AND seq>?)"},
		"list":          {"SEARCH feeds USING INDEX (name>?)"},
		"get_feed":      {"SEARCH feeds USING INDEX (name=?)"},
		"get_bounds":    {"SEARCH feeds USING INDEX (name=?)"},
		"get_time":      {"SEARCH events USING INDEX (feed=? AND seq=?)"},
		"get_key":       {"SEARCH keys USING INDEX (feed=? AND name=?)"},
		"trim":          {"SEARCH feeds USING INDEX (name=?)"},
		"get_unswept":   {"SCAN feeds USING INDEX feeds_unswept"},
		"size_events":   {"SEARCH events USING INDEX (feed=? AND seq>? AND seq<?)"},
		"delete_events": {"SEARCH events USING INDEX (feed=? AND seq>? AND seq<?)"},
		"set_swept":     {"SEARCH feeds USING INTEGER PRIMARY KEY (rowid=?)"},
		"grow_feed":     {"SEARCH feeds USING INTEGER PRIMARY KEY (rowid=?)"},
		"delete_keys": {
			"SEARCH keys USING INTEGER PRIMARY KEY (rowid=?)", "LIST SUBQUERY", "SEARCH keys USING COVERING INDEX keys_time (time<?)",
		},
	} {
		if got := plan(t, w.conn, name); !slices.EqualFunc(got, want, follows) {
			t.Errorf("%s: got the plan %q, want %q", name, got, want)
		}
	}
}

// plan returns the steps of the statement's query plan.
func plan(t *testing.T, c *conn, name string) (steps []string) {
	t.Helper()
	s, err := c.Prepare(query(name))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	args := make([]any, s.NumInput())
	for i := range args {
		args[i] = int64(i)
	}
	rows, err := c.Query("EXPLAIN QUERY PLAN "+query(name), drivers(args))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	row := drivers(make([]any, len(rows.Columns())))
	for rows.Next(row) == nil {
		steps = append(steps, row[len(row)-1].(string))
	}
	if err := rows.Close(); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return steps
}

// follows reports whether the words of want are in the step, in order.
func follows(step, want string) bool {
	for word := range strings.FieldsSeq(want) {
		var found bool
		if _, step, found = strings.Cut(step, word); !found {
			return false
		}
	}
	return true
}
