package queries

import (
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

func TestRead(t *testing.T) {
	files := fstest.MapFS{
		"queries/a.sql": {Data: []byte("-- About this file.\n\n-- name: one\nSELECT 1 -- name: not a name\n\n-- name: two\n-- Why.\nSELECT\n\t2\n")},
		"queries/b.sql": {Data: []byte("-- name: three\nSELECT 3")},
		"other/c.sql":   {Data: []byte("-- name: four\nSELECT 4")},
	}
	want := Statements{"one": "SELECT 1 -- name: not a name", "two": "-- Why.\nSELECT\n\t2", "three": "SELECT 3"}
	got := Read(files)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("statements (-want +got):\n%s", diff)
	}
	if one := got.Get("one"); one != want["one"] {
		t.Errorf("one is %q", one)
	}
	defer func() {
		if recover() == nil {
			t.Error("there is a statement that no file has")
		}
	}()
	got.Get("four")
}
