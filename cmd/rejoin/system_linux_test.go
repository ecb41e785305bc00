package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/rejoin/rejoin/feed/client/clienttest"
)

// TestGiveUpAfter: the accepted sockets must have the option. That the listening
// socket has it proves nothing.
func TestGiveUpAfter(t *testing.T) {
	listener, err := listen(t.Context(), "127.0.0.1:0", 12*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	client, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for _, option := range []struct{ level, name, want int }{
		{syscall.IPPROTO_TCP, tcpUserTimeout, 11_000},
		{syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1},
		{syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, 15},
		{syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL, 15},
	} {
		var got int
		var failed error
		err = raw.Control(func(fd uintptr) { got, failed = syscall.GetsockoptInt(int(fd), option.level, option.name) })
		if err != nil || failed != nil || got != option.want {
			t.Errorf("option %d of %d is %d, want %d: %v, %v", option.name, option.level, got, option.want, err, failed)
		}
	}
}

// TestTimerSlack looks at all threads of this process, because the slack is for a
// thread of the runtime, which exists before any Go code runs.
func TestTimerSlack(t *testing.T) {
	t.Parallel()
	runtime.LockOSThread() // only root may look at another thread
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

// pseudoterminal opens a terminal, and the end from which it is seen.
func pseudoterminal(t *testing.T) (seen, terminal *os.File) {
	t.Helper()
	seen, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { seen.Close() })
	var unlock, number int32
	for request, arg := range map[uintptr]*int32{syscall.TIOCSPTLCK: &unlock, syscall.TIOCGPTN: &number} {
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, seen.Fd(), request, uintptr(unsafe.Pointer(arg))); errno != 0 {
			t.Fatal(errno)
		}
	}
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { terminal.Close() })
	return seen, terminal
}

// TestTailTerminal: a terminal shows the text of publishers and of their servers, but
// obeys none of it. A pipe gets every byte.
func TestTailTerminal(t *testing.T) {
	t.Parallel()
	const evil = "\x1b]0;owned\x07a\tb\u009b2J\u202e\x9b\rc"
	const shown = `\x1b]0;owned\x07a` + "\tb" + `\u009b2J\u202e\x9b\x0dc`
	gap := control("gap", `{"feed":"chat","after":"1","resumes":3,"reason":"\u001b]0;gap\u0007"}`, "2")
	script := &clienttest.Script{Answers: []http.HandlerFunc{
		breaks(opened(0), sent(1, evil), gap),
		func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, `{"detail":"no \u001b[31mentry"}`)
		},
	}}
	wantNotes := []string{`(\x1b]0;gap\x07)`, `no \x1b[31mentry (status 403)`}
	for _, onTerminal := range []bool{true, false} {
		script.Visits = nil
		server := httptest.NewServer(script)
		args := []string{"tail", "--url", server.URL, "--feed", "chat", "--from", "start"}
		var out, notes string
		if onTerminal {
			seen, terminal := pseudoterminal(t)
			if code := run(t.Context(), args, nil, terminal, terminal); code != exitFailed {
				t.Errorf("exit %d", code)
			}
			terminal.Close()
			all, _ := io.ReadAll(seen) // up to the EIO of a terminal that no process has open
			out = strings.ReplaceAll(string(all), "\r\n", "\n")
			notes = out
		} else {
			var stdout, stderr strings.Builder
			if code := run(t.Context(), args, nil, &stdout, &stderr); code != exitFailed {
				t.Errorf("exit %d", code)
			}
			out, notes = stdout.String(), stderr.String()
			wantNotes = []string{"(\x1b]0;gap\x07)", "no \x1b[31mentry (status 403)"}
		}
		server.Close()
		want := evil + "\n"
		if onTerminal {
			want = shown + "\n"
		}
		if first, _, _ := strings.Cut(out, "rejoin: "); first != want {
			t.Errorf("on a terminal %t: %q, want %q", onTerminal, first, want)
		}
		for _, want := range wantNotes {
			if !strings.Contains(notes, want) {
				t.Errorf("on a terminal %t: %q does not have %q", onTerminal, notes, want)
			}
		}
		if onTerminal && strings.ContainsAny(out, "\x1b\x07\r\u009b\u202e") {
			t.Errorf("the terminal obeys something in %q", out)
		}
	}
}

// TestColours: only a terminal that allows it gets colours, and it obeys nothing but
// them.
func TestColours(t *testing.T) {
	const evil = "\x1b[31mred"
	server := httptest.NewServer(sends(openedAt("chat=0,news=0"), wrapped("chat", 1, `"\u001b[31mred"`, "chat=1,news=0"),
		control("closed", `{"feed":"chat","last":1}`, "chat=1,news=0"), control("closed", `{"feed":"news","last":0}`, "chat=1,news=0")))
	defer server.Close()
	const coloured = "\x1b[36mchat\x1b[0m\t\x1b[2m1\x1b[0m\t\\x1b[31mred\n"
	for _, test := range []struct {
		name       string
		onTerminal bool
		env, flag  string
		want       string
	}{
		{"terminal", true, "", "", coloured},
		{"--no-color", true, "", "--no-color", "chat\t1\t\\x1b[31mred\n"},
		{"NO_COLOR", true, "NO_COLOR=1", "", "chat\t1\t\\x1b[31mred\n"},
		{"dumb", true, "TERM=dumb", "", "chat\t1\t\\x1b[31mred\n"},
		{"pipe", false, "", "", "chat\t1\t" + evil + "\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Setenv("NO_COLOR", "")
			t.Setenv("TERM", "xterm")
			if name, value, ok := strings.Cut(test.env, "="); ok {
				t.Setenv(name, value)
			}
			args := strings.Fields("tail chat news --from start --id --url " + server.URL + " " + test.flag)
			var stdout strings.Builder
			got := &stdout
			if test.onTerminal {
				seen, terminal := pseudoterminal(t)
				if code := run(t.Context(), args, nil, terminal, io.Discard); code != exitOK {
					t.Errorf("exit %d", code)
				}
				terminal.Close()
				all, _ := io.ReadAll(seen) // up to the EIO of a terminal that no process has open
				got.WriteString(strings.ReplaceAll(string(all), "\r\n", "\n"))
			} else if code := run(t.Context(), args, nil, &stdout, io.Discard); code != exitOK {
				t.Errorf("exit %d", code)
			}
			if got.String() != test.want {
				t.Errorf("%q, want %q", got.String(), test.want)
			}
		})
	}
}
