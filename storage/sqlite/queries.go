package sqlite

import (
	"embed"

	"github.com/rejoin/rejoin/storage/queries"
)

const (
	beginRead      = "BEGIN"
	beginWrite     = "BEGIN IMMEDIATE"
	beginExclusive = "BEGIN EXCLUSIVE"
	commit         = "COMMIT"
	rollback       = "ROLLBACK"
)

//go:embed queries/*.sql
var queryFiles embed.FS

var statements = queries.Read(queryFiles)

// query returns the statement of this name.
func query(name string) string { return statements.Get(name) }
