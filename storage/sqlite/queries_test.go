package sqlite

import (
	"testing"

	"github.com/rejoin/rejoin/storage/storagetest"
)

func TestQueries(t *testing.T) { storagetest.Queries(t, statements) }
