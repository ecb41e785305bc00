// Command rejoin serves resumable event feeds over HTTP, publishes to them and
// tails them.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	// go build compiles what main imports in the order of the names. SQLite takes longest,
	// on one core: from here, it is compiled beside the rest, and not after it.
	_ "github.com/mattn/go-sqlite3"
)

func main() {
	// A reader that goes away shows as a failed write, which each command
	// judges for itself: a server must not die with the reader of its log.
	signal.Ignore(syscall.SIGPIPE)

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// From the first signal on, the next one has its usual effect: it kills.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
