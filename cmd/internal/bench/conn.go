package bench

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/rejoin/rejoin/feed/client"
)

// answerPatience is how long the server may take to answer.
const answerPatience = 30 * time.Second

// target is where connections go. They speak HTTP/1.1 with as little work
// on this side as possible.
type target struct {
	address  string
	host     string // as the request says it
	base     string // what the paths begin with, escaped
	tls      *tls.Config
	token    string
	loopback bool
}

func newTarget(u *url.URL, token string) *target {
	t := &target{host: u.Host, base: strings.TrimSuffix(u.EscapedPath(), "/"), token: token}
	port := u.Port()
	if port == "" {
		port = u.Scheme
	}
	t.address = net.JoinHostPort(u.Hostname(), port)
	if u.Scheme == "https" {
		t.tls = &tls.Config{ServerName: u.Hostname(), NextProtos: []string{"http/1.1"}}
	}
	ip := net.ParseIP(u.Hostname())
	t.loopback = ip.To4() != nil && ip.IsLoopback()
	return t
}

// dial opens the i-th connection.
func (t *target) dial(ctx context.Context, i int) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, answerPatience)
	defer cancel()
	var dialer net.Dialer
	if t.loopback {
		// One address has too few ports for more than some ten thousand.
		dialer.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+i%16))}
	}
	conn, err := dialer.DialContext(ctx, "tcp", t.address)
	if err != nil {
		return nil, err
	}
	// Nothing is left to be said when a connection is closed here; otherwise
	// its port would stay in use for a minute.
	if err := conn.(*net.TCPConn).SetLinger(0); err != nil {
		conn.Close()
		return nil, err
	}
	if t.tls == nil {
		return conn, nil
	}
	secure := tls.Client(conn, t.tls)
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return secure, nil
}

// head returns the beginning of a request, without the empty line at its end.
func (t *target) head(method, path string) []byte {
	head := fmt.Appendf(nil, "%s %s%s HTTP/1.1\r\nHost: %s\r\n", method, t.base, path, t.host)
	if t.token != "" {
		head = fmt.Appendf(head, "Authorization: Bearer %s\r\n", t.token)
	}
	return head
}

// responseHead is what matters in the head of a response.
type responseHead struct {
	status  int
	length  int // of the body; -1 if the head does not say
	chunked bool
	closing bool // the connection is not used again
	events  bool // the body is an event stream
}

var errNotHTTP = errors.New("the answer is not HTTP/1.1")

func readHead(r *bufio.Reader) (responseHead, error) {
	h := responseHead{length: -1}
	line, err := r.ReadSlice('\n')
	if err != nil {
		return h, err
	}
	version, rest, _ := bytes.Cut(line, []byte(" "))
	status, digits := leadingNumber(rest)
	if !bytes.HasPrefix(version, []byte("HTTP/1.")) || digits != 3 {
		return h, errNotHTTP
	}
	h.status = int(status)
	h.closing = version[len(version)-1] == '0'
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return h, err
		}
		if line = bytes.TrimRight(line, "\r\n"); len(line) == 0 {
			return h, nil
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if h.length, err = strconv.Atoi(string(value)); err != nil || h.length < 0 {
				return h, errNotHTTP
			}
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			h.chunked = bytes.EqualFold(value, []byte("chunked"))
		case bytes.EqualFold(name, []byte("Connection")):
			h.closing = bytes.EqualFold(value, []byte("close"))
		case bytes.EqualFold(name, []byte("Content-Type")):
			h.events = bytes.HasPrefix(value, []byte("text/event-stream"))
		}
	}
}

// refusedStatus is a status that is not the one hoped for.
type refusedStatus int

func (r refusedStatus) Error() string {
	return fmt.Sprintf("the server answers %d %s", int(r), http.StatusText(int(r)))
}

// permanent reports whether asking again is of no use.
func (r refusedStatus) permanent() bool { return !(&client.Problem{Status: int(r)}).Temporary() }

// openStream asks for an event stream on the i-th connection. What has come of
// its body is in the reader.
func (t *target) openStream(ctx context.Context, i int, path, cursor string) (net.Conn, *bufio.Reader, responseHead, error) {
	conn, err := t.dial(ctx, i)
	if err != nil {
		return nil, nil, responseHead{}, err
	}
	request := append(t.head(http.MethodGet, path), "Accept: text/event-stream\r\n"...)
	if cursor != "" {
		request = fmt.Appendf(request, "Last-Event-ID: %s\r\n", cursor)
	}
	reader := bufio.NewReaderSize(conn, 4<<10)
	head, err := func() (responseHead, error) {
		if err := conn.SetDeadline(time.Now().Add(answerPatience)); err != nil {
			return responseHead{}, err
		}
		stop := context.AfterFunc(ctx, func() { conn.Close() })
		defer stop()
		if _, err := conn.Write(append(request, "\r\n"...)); err != nil {
			return responseHead{}, err
		}
		head, err := readHead(reader)
		switch {
		case err != nil:
			return head, err
		case head.status != http.StatusOK:
			return head, refusedStatus(head.status)
		case !head.events:
			return head, errors.New("the answer is not an event stream")
		case !stop():
			return head, ctx.Err()
		}
		return head, conn.SetDeadline(time.Time{})
	}()
	if err != nil {
		conn.Close()
	}
	return conn, reader, head, err
}
