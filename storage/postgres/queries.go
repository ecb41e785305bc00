package postgres

import (
	"embed"

	"github.com/rejoin/rejoin/storage/queries"
)

const (
	beginTransaction  = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
	commitTransaction = "COMMIT"
	abortTransaction  = "ROLLBACK"
)

//go:embed queries/*.sql
var queryFiles embed.FS

var statements = queries.Read(queryFiles)

// query returns the statement of this name.
func query(name string) string { return statements.Get(name) }
