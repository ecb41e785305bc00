package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// heldStore makes the commits of a SQLite node stand still, as a disk does that
// no longer answers: a library that is loaded into the node holds each call of
// fdatasync for as long as a file is there.
type heldStore struct {
	t       testing.TB
	library string
	file    string

	mu    sync.Mutex
	times []stillness
}

// stillness is a time in which nothing could be committed.
type stillness struct{ from, until time.Time }

const holdSource = `
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

static int held(const char *name, int fd) {
	const char *file = getenv("REJOIN_TEST_HOLD");
	while (file != NULL && access(file, F_OK) == 0)
		usleep(5000);
	return ((int (*)(int))dlsym(RTLD_NEXT, name))(fd);
}

int fdatasync(int fd) { return held("fdatasync", fd); }
int fsync(int fd) { return held("fsync", fd); }
`

// newHeldStore builds the library. The C compiler is the one that builds SQLite.
func newHeldStore(t testing.TB) *heldStore {
	t.Helper()
	dir := t.TempDir()
	s := &heldStore{t: t, library: filepath.Join(dir, "hold.so"), file: filepath.Join(dir, "hold")}
	source := filepath.Join(dir, "hold.c")
	if err := os.WriteFile(source, []byte(holdSource), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cc", "-shared", "-fPIC", "-o", s.library, source, "-ldl").CombinedOutput(); err != nil {
		t.Fatalf("cc: %v\n%s", err, out)
	}
	t.Cleanup(func() { _ = os.Remove(s.file) }) // or the node cannot end
	return s
}

func (s *heldStore) env() []string {
	return []string{"LD_PRELOAD=" + s.library, "REJOIN_TEST_HOLD=" + s.file}
}

// hold has the store stand still until it is let go.
func (s *heldStore) hold() (letGo func()) {
	from := time.Now()
	if err := os.WriteFile(s.file, nil, 0o600); err != nil {
		s.t.Error(err)
	}
	return func() {
		if err := os.Remove(s.file); err != nil {
			s.t.Error(err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.times = append(s.times, stillness{from, time.Now()})
	}
}

// stood reports whether the store stood still at any time between two, or had just
// begun to work off what was waiting for it.
func (s *heldStore) stood(from, until time.Time) bool {
	const settles = time.Second
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, still := range s.times {
		if still.from.Before(until) && still.until.Add(settles).After(from) {
			return true
		}
	}
	return false
}
