package testserver

import (
	"os/exec"
	"runtime"
	"testing"
	"time"
)

// TestLaunch: a server that is to end with this process does not end with the
// thread that asked for it.
func TestLaunch(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("sleep", "60")
	dieWithParent(cmd)
	var exited <-chan struct{}
	var err error
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		runtime.LockOSThread() // and never unlocks it: the thread ends, too
		exited, err = launch(cmd)
	}()
	if <-asked; err != nil {
		t.Fatal(err)
	}
	select {
	case <-exited:
		t.Fatalf("the server ended: %v", cmd.ProcessState)
	case <-time.After(200 * time.Millisecond): // for the kernel to end it
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-exited
}
