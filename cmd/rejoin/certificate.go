package main

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// certificateEvery is how long a certificate is used before its files are read
// again: renewals need neither a restart nor a signal.
const certificateEvery = time.Minute

// certificate is the one that the server shows, as its files had it last.
type certificate struct {
	files  TLSConfig
	every  time.Duration
	logger *slog.Logger

	mu      sync.Mutex
	current *tls.Certificate
	read    time.Time
}

func openCertificate(files TLSConfig, logger *slog.Logger) (*certificate, error) {
	c := &certificate{files: files, every: certificateEvery, logger: logger}
	if err := c.load(); err != nil {
		return nil, err
	}
	return c, nil
}

// load needs mu, once others know of c.
func (c *certificate) load() error {
	c.read = time.Now()
	pair, err := tls.LoadX509KeyPair(c.files.Cert, c.files.Key)
	if err != nil {
		return fmt.Errorf("tls.cert, tls.key: %w", err)
	}
	c.current = &pair
	return nil
}

// get returns the certificate for a handshake. Files that cannot be used, such
// as those of a renewal half done, leave the one that there is.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.read) >= c.every {
		if err := c.load(); err != nil {
			c.logger.Warn("the certificate cannot be read again; the old one stays", "error", err)
		}
	}
	return c.current, nil
}

func (c *certificate) config() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.get}
}
