package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/rejoin/rejoin/feed/client"
)

const defaultURL = "http://127.0.0.1:8080"

// tokenVariable is where all clients have their token from: unlike a flag, the
// environment is not shown to everyone on the machine.
const tokenVariable = "REJOIN_TOKEN"

// newClient returns a client of the server that --url names, with the token of
// the environment. The error is a usage error.
func newClient(server string, o client.Options) (*client.Client, error) {
	o.Token = os.Getenv(tokenVariable)
	c, err := client.New(server, o)
	if err != nil {
		return nil, usageError{fmt.Errorf("--url %w", errors.Unwrap(err))}
	}
	return c, nil
}
