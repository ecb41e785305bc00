// Package queries reads the SQL statements of a store from files. In a file, a statement
// begins behind the line "-- name: x" and ends before the next such line.
package queries

import (
	"fmt"
	"io/fs"
	"strings"
)

// Statements are the statements of a store, by name.
type Statements map[string]string

// Read returns the statements in queries/*.sql, which are embedded in the program. It
// panics if they cannot be read.
func Read(files fs.FS) Statements {
	all := make(Statements)
	names, err := fs.Glob(files, "queries/*.sql")
	if err != nil {
		panic(err) // the pattern is correct
	}
	for _, name := range names {
		text, err := fs.ReadFile(files, name)
		if err != nil {
			panic(fmt.Errorf("read the statements: %w", err))
		}
		for _, section := range strings.Split("\n"+string(text), "\n-- name: ")[1:] {
			name, statement, _ := strings.Cut(section, "\n")
			all[name] = strings.TrimSpace(statement)
		}
	}
	return all
}

// Get returns the statement of this name. It panics if there is none.
func (s Statements) Get(name string) string {
	text, ok := s[name]
	if !ok {
		panic("no statement is named " + name)
	}
	return text
}
