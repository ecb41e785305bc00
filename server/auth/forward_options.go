package auth

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// ForwardOptions configures which application a [Forward] asks, and how.
type ForwardOptions struct {
	// URL is asked with GET: http, https, or unix:/run/app.sock:/path for an
	// application that listens on a Unix socket.
	URL string
	// CAFile is a file with the certificates, as PEM, that must have signed that of an
	// https URL; empty means those of the system.
	CAFile string
	// Timeout limits the time until an answer; 0 means 5 seconds.
	Timeout time.Duration
	// Cache is how long an answer counts for the same question; 0 means that none is
	// kept.
	Cache time.Duration
	// Recheck is about the time after which an open stream is asked about again; 0
	// means a minute.
	Recheck time.Duration
	// Grace is how long open streams outlive the last answer about them while the
	// application does not answer.
	Grace time.Duration
	// Concurrency limits the questions under way; 0 means 64.
	Concurrency int
	// Logger receives messages for operators; nil means slog.Default.
	Logger *slog.Logger
}

func (o ForwardOptions) withDefaults() ForwardOptions {
	o.Timeout = cmp.Or(o.Timeout, 5*time.Second)
	o.Recheck = cmp.Or(o.Recheck, time.Minute)
	o.Concurrency = cmp.Or(o.Concurrency, 64)
	o.Logger = cmp.Or(o.Logger, slog.Default())
	return o
}

// Faults returns the errors in o that it can find without files and networks. Each
// begins with the name of the option in the configuration, and contains no secret.
func (o ForwardOptions) Faults() (faults []error) {
	u, _, err := o.parse()
	if err != nil {
		faults = append(faults, prefix("url", err))
	}
	if o.CAFile != "" && err == nil && u.Scheme != "https" {
		faults = append(faults, errors.New("ca_file: it is for a url that begins with https"))
	}
	return faults
}

// unixScheme begins a URL of an application that listens on a Unix socket.
const unixScheme = "unix:"

// parse returns the URL to ask, and the Unix socket that leads there, if one does.
func (o ForwardOptions) parse() (u *url.URL, socket string, err error) {
	address := o.URL
	if after, isSocket := strings.CutPrefix(address, unixScheme); isSocket {
		path, ok := "", false
		if socket, path, ok = strings.Cut(after, ":/"); !ok || !strings.HasPrefix(socket, "/") {
			return nil, "", errors.New("it begins with unix:, and is not like unix:/run/app.sock:/path")
		}
		address = "http://localhost/" + path
	}
	u, err = url.Parse(address)
	switch {
	case o.URL == "":
		return nil, "", errors.New("the address to ask is missing, such as http://127.0.0.1:3000/rejoin")
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return nil, "", errors.New("it is not an address such as http://127.0.0.1:3000/rejoin, https://app.internal/rejoin or unix:/run/app.sock:/rejoin")
	case u.User != nil:
		// net/http would send them for clients without credentials of their own.
		return nil, "", errors.New("it must not have a user and a password: the application gets the credentials of each client")
	case u.Fragment != "":
		return nil, "", errors.New("it must not have a fragment (#)")
	}
	return u, socket, nil
}

// Place returns where the application is, without secrets.
func (o ForwardOptions) Place() string {
	u, socket, err := o.parse()
	switch {
	case err != nil:
		return ""
	case socket != "":
		return socket
	}
	return u.Host
}

// answerHeaderBytes limits the head of an answer.
const answerHeaderBytes = 64 << 10

// transport returns a transport to the application alone: no proxy is used.
func (o ForwardOptions) transport(socket string) (*http.Transport, error) {
	t := &http.Transport{
		DisableCompression:     true,
		ForceAttemptHTTP2:      true,
		MaxIdleConnsPerHost:    o.Concurrency,
		MaxResponseHeaderBytes: answerHeaderBytes,
		IdleConnTimeout:        time.Minute,
	}
	if socket != "" {
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		}
	}
	if o.CAFile == "" {
		return t, nil
	}
	content, err := os.ReadFile(o.CAFile)
	if err != nil {
		return nil, prefix("ca_file", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(content) {
		return nil, fmt.Errorf("ca_file: %s has no certificate as PEM", o.CAFile)
	}
	t.TLSClientConfig = &tls.Config{RootCAs: pool}
	return t, nil
}
