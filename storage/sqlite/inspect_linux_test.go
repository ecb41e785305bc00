package sqlite

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rejoin/rejoin/storage/testserver"
)

// files returns the files of a directory with their sizes.
func files(t *testing.T, dir string) map[string]int64 {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	sizes := make(map[string]int64)
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		sizes[e.Name()] = info.Size()
	}
	return sizes
}

// Inspect and Status change nothing, whatever they find, and Migrate does what is pending.
func TestInspect(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "store.db")
	all, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		t.Fatal(err)
	}
	for i := range all {
		all[i] = migrationName(all[i])
	}
	for _, test := range []struct {
		name    string
		prepare func()
		want    Schema
	}{
		{"none", func() {}, Schema{Newest: newest, Pending: all}},
		{"empty", func() { write(t, path) }, Schema{Newest: newest, Pending: all}},
		{"old", func() { oldFile(t, path, 1) }, Schema{Version: 1, Newest: newest, Pending: all[1:]}},
		{"new", func() {
			if ran, err := Migrate(t.Context(), path); err != nil || !slices.Equal(ran, all[1:]) {
				t.Errorf("migrated %q, %v", ran, err)
			}
			if ran, err := Migrate(t.Context(), path); err != nil || len(ran) > 0 {
				t.Errorf("migrated %q again, %v", ran, err)
			}
		}, Schema{Version: newest, Newest: newest}},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.prepare()
			before := files(t, dir)
			i, err := Inspect(t.Context(), path)
			if err != nil || i.Free <= 0 {
				t.Fatalf("got %+v, %v", i, err)
			}
			s, err := Status(t.Context(), path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, i.Schema) + cmp.Diff(test.want, s); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(before, files(t, dir)); diff != "" {
				t.Errorf("the files have changed: %s", diff)
			}
		})
	}
	s := openStore(t, path)
	_, err = Inspect(t.Context(), path)
	wantError(t, err, "in use")
	_, err = Migrate(t.Context(), path)
	wantError(t, err, "in use")
	goesOn(t, s)
	closeStore(t, s)
}

func write(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestInspectRefuses(t *testing.T) {
	dir, ok := testserver.SmallDisk(t, "16m")
	if !ok {
		return
	}
	i, err := Inspect(t.Context(), filepath.Join(dir, "store.db"))
	if err != nil || i.Free <= 0 || i.Free > 16<<20 {
		t.Errorf("a small disk: got %+v, %v", i, err)
	}
	other := filepath.Join(dir, "other.db")
	if err := os.WriteFile(other, []byte("not a database, but long enough to be the header of one: it has a hundred bytes at least, as they all do"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = Inspect(t.Context(), other)
	wantError(t, err, other, "not an SQLite database")
	_, err = Inspect(t.Context(), filepath.Join(dir, "none", "store.db"))
	wantError(t, err, "find its directory")
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	_, err = Inspect(t.Context(), filepath.Join(dir, "store.db"))
	wantError(t, err, "must be able to write the directory "+dir)
}
