package postgres

import (
	"embed"
	"io/fs"
	"strings"
)

const (
	beginTransaction  = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
	commitTransaction = "COMMIT"
	abortTransaction  = "ROLLBACK"
)

//go:embed queries/*.sql
var queryFiles embed.FS

var queries = readQueries()

// readQueries returns the statements in the files of queries, by name. A statement
// begins behind the line "-- name: x" and ends before the next such line.
func readQueries() map[string]string {
	all := make(map[string]string)
	names, err := fs.Glob(queryFiles, "queries/*.sql")
	if err != nil {
		panic(err) // the pattern is correct
	}
	for _, name := range names {
		text, err := queryFiles.ReadFile(name)
		if err != nil {
			panic(err) // the files are part of the program
		}
		for _, section := range strings.Split("\n"+string(text), "\n-- name: ")[1:] {
			name, statement, _ := strings.Cut(section, "\n")
			all[name] = strings.TrimSpace(statement)
		}
	}
	return all
}

// query returns the statement of this name.
func query(name string) string {
	text, ok := queries[name]
	if !ok {
		panic("no query " + name)
	}
	return text
}
