//go:build unix && !linux

package testserver

import (
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

func dieWithParent(*exec.Cmd) {}

// attributes keeps the signals of a terminal from a server.
func (h *postgresHome) attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setsid: true, Credential: h.user}
}

// children returns the processes that pid has started.
func children(pid int) []int {
	var pids []int
	for _, f := range processes() {
		if f[1] == strconv.Itoa(pid) {
			if n, err := strconv.Atoi(f[0]); err == nil {
				pids = append(pids, n)
			}
		}
	}
	return pids
}

// zombie reports whether the process has ended and waits for its parent to notice.
func zombie(pid int) bool {
	for _, f := range processes() {
		if f[0] == strconv.Itoa(pid) {
			return strings.HasPrefix(f[2], "Z")
		}
	}
	return false
}

// processes returns the pid, the parent and the state of every process.
func processes() [][]string {
	out, _ := exec.Command("ps", "-A", "-o", "pid=,ppid=,stat=").Output()
	var all [][]string
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) == 3 {
			all = append(all, f)
		}
	}
	return all
}
