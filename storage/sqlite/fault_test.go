package sqlite

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// numberedStore makes a store with events of the feed chat whose data differs, and
// opens it again, so that none of it is in memory. It also returns the contents of
// the file.
func numberedStore(t *testing.T) (s *Store, content []byte) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "store.db")
	s = openStore(t, path)
	mustPut(t, s, "sound", "x")
	var data []string
	for i := range 2000 {
		data = append(data, fmt.Sprintf("needle-%04d", i+1))
	}
	mustPut(t, s, "chat", data...)
	closeStore(t, s)
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s = openStore(t, path)
	t.Cleanup(func() { closeStore(t, s) })
	return s, content
}

// pageOf returns the offset of the page that has the event.
func pageOf(content []byte, data string) int64 {
	return int64(bytes.Index(content, []byte(data))) / 4096 * 4096
}

// overwrite writes to the store's file behind its back.
func overwrite(t *testing.T, s *Store, offset int64, data []byte) {
	t.Helper()
	if err := command(t, "overwrite", fmt.Sprintf("%d:%x:%s", offset, data, s.path)).Run(); err != nil {
		t.Fatal(err)
	}
}

// overwriteChild is a process of its own, as closing the file drops the locks that
// SQLite has on it.
func overwriteChild(args string, _ io.Writer) error {
	var offset int64
	part := strings.SplitN(args, ":", 3)
	data, err := hex.DecodeString(part[1])
	if err != nil {
		return err
	}
	if _, err := fmt.Sscan(part[0], &offset); err != nil {
		return err
	}
	f, err := os.OpenFile(part[2], os.O_RDWR, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, offset)
	return errors.Join(err, f.Close())
}

var everything = feed.Limit{Events: 1 << 20, Bytes: 1 << 30}

// damaged demands an error that names the damaged file.
func damaged(t *testing.T, s *Store, err error) {
	t.Helper()
	if !errors.Is(err, feed.ErrUnavailable) {
		t.Errorf("got %v, want %v", err, feed.ErrUnavailable)
	}
	wantError(t, err, s.path, "damaged")
}

// A damaged page fails every call that needs it, and Ping until the page is sound
// again. All other calls work.
func TestDamagedPage(t *testing.T) {
	s, content := numberedStore(t)
	at := pageOf(content, "needle-1000")
	overwrite(t, s, at, make([]byte, 4096))
	mustPing(t, s) // no read has met it yet
	_, err := s.Read(t.Context(), "chat", 0, everything)
	damaged(t, s, err)
	damaged(t, s, s.Ping(t.Context()))
	checkFeed(t, s, "sound", map[feed.ID]string{1: "x"})
	mustPut(t, s, "sound", "y")
	damaged(t, s, s.Ping(t.Context()))
	overwrite(t, s, at, content[at:at+4096])
	mustPing(t, s)
	mustPing(t, s)
	if page, err := s.Read(t.Context(), "chat", 0, everything); err != nil || len(page.Events) != 2000 {
		t.Errorf("got %d events, %v; want 2000", len(page.Events), err)
	}
}

// A write that has met damage cannot be tried again like a read.
func TestDamageMetByASweep(t *testing.T) {
	s, content := numberedStore(t)
	overwrite(t, s, pageOf(content, "needle-1000"), make([]byte, 4096))
	if err := s.Trim(t.Context(), "chat", 2001); err != nil {
		t.Fatal(err)
	}
	var err error
	for more := true; more && err == nil; {
		more, err = s.Sweep(t.Context(), 500, time.Hour)
	}
	damaged(t, s, err)
	mustPut(t, s, "sound", "y")
	damaged(t, s, s.Ping(t.Context()))
}

// Damage that SQLite does not see must not bring the process down.
func TestDamagedRow(t *testing.T) {
	s, content := numberedStore(t)
	// In front of the data are the time, of 6 bytes, and the types of the columns:
	// 13 and twice the length for a text, one less for a blob.
	text := byte(13 + 2*len("needle-1000"))
	at := bytes.LastIndexByte(content[:bytes.Index(content, []byte("needle-1000"))], text)
	overwrite(t, s, int64(at), []byte{text - 1})
	_, err := s.Read(t.Context(), "chat", 990, everything)
	damaged(t, s, err)
	damaged(t, s, s.Ping(t.Context()))
	checkFeed(t, s, "sound", map[feed.ID]string{1: "x"})
}
