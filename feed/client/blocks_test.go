package client

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestBlockReader(t *testing.T) {
	r := newBlockReader(strings.NewReader(strings.Join([]string{
		"retry: 2143", "event: feed.open", "data: {}", "id: 1", "",
		":", ": keep-alive", "data:x", "data:  y", "data", "",
		"event: dropped", "id: 7", "", // no data, no event
		"unknown: field", "retry: soon", "retry: 1e3", "data: z\r", "id:\r", "\r",
		"data: cut", "id: 9",
	}, "\n")))
	var got []block
	var err error
	for err == nil {
		var b block
		if b, err = r.next(); err == nil {
			got = append(got, b)
		}
	}
	want := []block{
		{kind: "feed.open", data: "{}", id: "1", hasID: true},
		{data: "x\n y\n"},
		{data: "z", hasID: true},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(block{})); diff != "" {
		t.Error(diff)
	}
	if err != io.EOF || r.retry != 2143*time.Millisecond {
		t.Errorf("ended with %v, to come back after %v", err, r.retry)
	}
}

// TestBlockReaderIsBounded: a server other than Rejoin may send without end.
func TestBlockReaderIsBounded(t *testing.T) {
	for name, endless := range map[string]string{
		"a line":           strings.Repeat("x", 2*blockBytes),
		"lines of a block": strings.Repeat("data: "+strings.Repeat("x", 1000)+"\n", blockBytes/500),
	} {
		if _, err := newBlockReader(strings.NewReader(endless)).next(); !errors.Is(err, errBlockTooLong) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
