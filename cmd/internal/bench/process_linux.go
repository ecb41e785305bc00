package bench

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// CheckProcesses returns an error for a process that is not there.
func CheckProcesses(pids []int) error {
	for _, pid := range pids {
		if _, err := parentOf(pid); err != nil {
			return fmt.Errorf("--pid: there is no process %d", pid)
		}
	}
	return nil
}

// withChildren adds the processes that these have started, and so on.
func withChildren(pids []int) []int {
	all := slices.Clone(pids)
	entries, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return all
	}
	for added := true; added; {
		added = false
		for _, entry := range entries {
			pid, err := strconv.Atoi(filepath.Base(entry))
			if err != nil || slices.Contains(all, pid) {
				continue
			}
			if parent, err := parentOf(pid); err == nil && slices.Contains(all, parent) {
				all, added = append(all, pid), true
			}
		}
	}
	return all
}

func parentOf(pid int) (parent int, err error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name stands in parentheses and may have any in it.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 2 {
		return 0, fmt.Errorf("read /proc/%d/stat: it is cut off", pid)
	}
	return strconv.Atoi(fields[1])
}

// cpuOf returns the CPU time that the processes have used. One that has ended
// counts for nothing.
func cpuOf(pids []int) (total time.Duration) {
	for _, pid := range pids {
		// The process CPU clock of a process id, see clock_getcpuclockid(3).
		clock := int32(^pid<<3 | 2)
		var now syscall.Timespec
		_, _, errno := syscall.Syscall(syscall.SYS_CLOCK_GETTIME, uintptr(clock), uintptr(unsafe.Pointer(&now)), 0)
		if errno == 0 {
			total += time.Duration(now.Nano())
		}
	}
	return total
}

// memoryOf returns how many bytes of memory the processes occupy.
func memoryOf(pids []int) (total int64) {
	for _, pid := range pids {
		statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
		if err != nil {
			continue
		}
		var size, resident int64
		if _, err := fmt.Sscan(string(statm), &size, &resident); err == nil {
			total += resident * int64(os.Getpagesize())
		}
	}
	return total
}
