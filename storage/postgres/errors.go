package postgres

import (
	"crypto/tls"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/rejoin/rejoin/feed"
)

// SQLSTATE codes, of appendix A of Postgres's manual.
const (
	invalidParameter  = "22023"
	noPrivilege       = "42501"
	protocolViolation = "08P01"
	noDatabase        = "3D000"
	lockNotAvailable  = "55P03"
	deadlockDetected  = "40P01"
)

// state returns the SQLSTATE code of an error of the server, "" for any other.
func state(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code
	}
	return ""
}

// passing reports whether an error may go away by itself: because it concerns the
// connection, other transactions, resources or the intervention of an operator.
func passing(err error) bool {
	code := state(err)
	if code == "" {
		var cert *tls.CertificateVerificationError
		var alert tls.AlertError
		return !errors.As(err, &cert) && !errors.As(err, &alert)
	}
	switch code[:2] {
	case "08", "25", "40", "53", "55", "57", "58", "XX":
		return true
	}
	return false
}

// refusal is an error that does not go away by itself.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

func refuse(format string, args ...any) error { return refusal{fmt.Errorf(format, args...)} }

// explain adds to an error of opening whether it may go away by itself, and what to do
// about it.
func explain(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[refusal](err); ok {
		return err
	}
	if passing(err) {
		return unavailable(err)
	}
	switch code := state(err); {
	case strings.HasPrefix(code, "28"):
		return fmt.Errorf("the server refuses this user or password: %w", err)
	case code == noDatabase:
		return fmt.Errorf("the database has to be created first: %w", err)
	case code == noPrivilege:
		return fmt.Errorf("the user lacks a privilege; for the schema, CREATE SCHEMA rejoin AUTHORIZATION <user> is enough: %w", err)
	}
	return err
}

func unavailable(err error) error { return fmt.Errorf("%w: %w", feed.ErrUnavailable, err) }
