package storagetest

import (
	"os/exec"
	"runtime"
)

// launch starts a server, and closes exited when it has ended, however.
//
// The kernel ends servers with the thread that started them, where it is asked to
// end them with the process. So that thread has to live as long as they do, and is
// nobody else's meanwhile.
func launch(cmd *exec.Cmd) (exited <-chan struct{}, err error) {
	started, ended := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is in its log
			close(ended)
		}
	}()
	return ended, <-started
}
