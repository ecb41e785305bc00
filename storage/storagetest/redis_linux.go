package storagetest

import (
	"os/exec"
	"syscall"
)

// dieWithParent makes the process end with the test, even if that is killed.
func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
