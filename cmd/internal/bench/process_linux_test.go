package bench

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// TestProcesses: the memory and the processor time of children count, too.
func TestProcesses(t *testing.T) {
	shell := exec.Command("sh", "-c", "sleep 60 & wait")
	shell.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := shell.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = syscall.Kill(-shell.Process.Pid, syscall.SIGKILL) // with its child
		_ = shell.Wait()
	}()
	var all []int
	for deadline := time.Now().Add(10 * time.Second); len(all) < 2 && time.Now().Before(deadline); {
		all = withChildren([]int{shell.Process.Pid})
	}
	if len(all) != 2 || memoryOf(all) <= memoryOf(all[1:]) || cpuOf(all) <= 0 {
		t.Errorf("%v use %d bytes and %v", all, memoryOf(all), cpuOf(all))
	}
	if err := errors.Join(CheckProcesses(all), CheckProcesses([]int{os.Getpid()})); err != nil {
		t.Error(err)
	}
}
