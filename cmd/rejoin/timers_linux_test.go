package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// TestTimerSlack looks at all threads of this process, since the one that the
// slack is for is the runtime's own and has been there before any Go code.
func TestTimerSlack(t *testing.T) {
	t.Parallel()
	runtime.LockOSThread() // who is not root may look at its own thread only
	defer runtime.UnlockOSThread()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	read := 0
	for _, task := range tasks {
		slack, err := os.ReadFile(filepath.Join("/proc", task.Name(), "timerslack_ns"))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			continue // the thread has ended, or is another one
		}
		if err != nil {
			t.Fatal(err)
		}
		read++
		if got := strings.TrimSpace(string(slack)); got != "1000000" {
			t.Errorf("thread %s has %s ns of slack, want 1000000", task.Name(), got)
		}
	}
	if read == 0 {
		t.Error("no thread's slack could be read")
	}
}
