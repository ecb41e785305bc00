//go:build unix

package testserver

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
)

// home holds the directory in which the servers of this process keep their files, and
// the user that they run as. This is the current user, or another if that is root:
// Postgres refuses to run as root.
var home postgresHome

type postgresHome struct {
	mu   sync.Mutex
	dir  string
	user *syscall.Credential // nil for this user

	remover *exec.Cmd
	alive   io.Closer

	// A cluster as initdb leaves it, which takes longer to make than to copy.
	cluster  string
	password string
}

// seed makes the data of a server, and returns the password of its user.
func (h *postgresHome) seed(s *server) (password string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.cluster != "" {
		return h.password, s.run("cp", "-R", h.cluster, s.data())
	}
	cluster, password := filepath.Join(s.dir, "cluster"), rand.Text()
	secret := filepath.Join(s.dir, "password")
	if err := errors.Join(os.WriteFile(secret, []byte(password+"\n"), 0o600), h.give(secret)); err != nil {
		return "", err
	}
	// TCP needs a password, so that a test can try a wrong one and so that no other
	// user of this machine can connect. The sockets are in a directory of our own.
	if err := s.run(filepath.Join(s.bin, "initdb"), "-D", cluster, "-U", "postgres", "--no-sync", "--encoding=UTF8", "--locale=C",
		"--auth-local=trust", "--auth-host=scram-sha-256", "--pwfile="+secret); err != nil {
		return "", err
	}
	// Moved away from the files of this server, which may end before the next starts.
	h.cluster, h.password = filepath.Join(h.dir, "cluster"), password
	if err := os.Rename(cluster, h.cluster); err != nil {
		return "", err
	}
	return password, s.run("cp", "-R", h.cluster, s.data())
}

// newDir makes an empty directory for a server.
func (h *postgresHome) newDir() (string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.dir == "" {
		if err := h.enter(); err != nil {
			return "", err
		}
	}
	// The names are short because the path of a socket has to be.
	dir, err := os.MkdirTemp(h.dir, "")
	if err != nil {
		return "", err
	}
	return dir, h.give(dir)
}

// enter makes the home, and starts a process that removes it when this process ends,
// however it ends.
func (h *postgresHome) enter() error {
	if os.Getuid() == 0 {
		cred, err := otherUser()
		if err != nil {
			return err
		}
		h.user = cred
	}
	parent, err := h.parent()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(parent, "rejoin-postgres-")
	if err != nil {
		return err
	}
	// Other users may pass through to a path that they know, but cannot list it.
	if err := os.Chmod(dir, 0o711); err != nil {
		return err
	}
	// The remover reads until this process has closed its end of the pipe. It
	// may have to try more than once: the servers die at the same time.
	cmd := exec.Command("/bin/sh", "-c", `trap '' HUP INT TERM; cat >/dev/null
		n=0; until rm -rf "$1" 2>/dev/null || [ $n -gt 100 ]; do n=$((n+1)); sleep 0.1; done`, "sh", dir)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	h.dir, h.remover, h.alive = dir, cmd, pipe
	return nil
}

// leave removes the home.
func (h *postgresHome) leave() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.dir == "" {
		return
	}
	_ = h.alive.Close()
	_ = h.remover.Wait()
	h.dir, h.cluster = "", ""
}

// give makes the user that the servers run as the owner of path.
func (h *postgresHome) give(path string) error {
	if h.user == nil {
		return nil
	}
	return os.Chown(path, int(h.user.Uid), int(h.user.Gid))
}

// parent returns a directory for temporary files that the servers can reach. The one
// of this process may be open to this user only.
func (h *postgresHome) parent() (string, error) {
	for _, dir := range []string{os.TempDir(), "/tmp", "/var/tmp"} {
		if h.user == nil || open(dir) {
			return dir, nil
		}
	}
	return "", errors.New("there is no directory for temporary files that a user other than root can reach: set TMPDIR")
}

// open reports whether every user can pass through the directory at path.
func open(path string) bool {
	for path, err := filepath.EvalSymlinks(path); err == nil; path = filepath.Dir(path) {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm()&0o001 == 0 {
			return false
		}
		if path == filepath.Dir(path) {
			return true
		}
	}
	return false
}

// otherUser returns a user for Postgres to run as when this one is root.
func otherUser() (*syscall.Credential, error) {
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		if err != nil {
			return nil, err
		}
		gid, err := strconv.ParseUint(u.Gid, 10, 32)
		if err != nil {
			return nil, err
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, fmt.Errorf("Postgres refuses to run as root, and there is neither a user postgres nor a user nobody")
}
