package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"unicode"
	"unicode/utf8"

	"github.com/rejoin/rejoin/feed/client"
	"github.com/spf13/cobra"
)

// The exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2 // the command line or the configuration is wrong; nothing was tried
)

// usageError is for what the caller wrote, as opposed to what then happened.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

// run carries out one command line and returns its exit code. Errors are
// printed here and nowhere else.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRootCommand()
	root.SetArgs(args)
	root.SetIn(stdin)
	stdout, stderr = harmless(stdout), harmless(stderr)
	root.SetOut(stdout)
	root.SetErr(stderr)

	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	fmt.Fprintln(stderr, "rejoin:", err)
	if _, ok := errors.AsType[usageError](err); ok {
		return exitUsage
	}
	return exitFailed
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "rejoin",
		Short:         "Resumable subscriptions over Server-Sent Events",
		SilenceUsage:  true,
		SilenceErrors: true,
		// Without a command, help; with an unknown one, an error.
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(
		newServeCommand(),
		newPublishCommand(),
		newTailCommand(),
		newVerifyCommand(),
		newTokenCommand(),
		newHealthCommand(),
		newBenchCommand(),
		newVersionCommand(),
	)
	return root
}

// usageArgs makes what check finds a usage error.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError{err}
		}
		return nil
	}
}

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

// harmless returns a writer that shows what strangers wrote, if w is a terminal.
// A terminal obeys control characters: they set its title, change what has been
// printed, and in some answer for the one who types. To anything else, which is
// for programs, every byte goes as it is.
func harmless(w io.Writer) io.Writer {
	if file, ok := w.(*os.File); ok && isTerminal(file) {
		return terminal{w}
	}
	return w
}

func isTerminal(file *os.File) bool {
	info, err := file.Stat()
	// The null device is no terminal, and has no reader.
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// terminal shows control characters, and what is not UTF-8, as \x1b or \u202e.
// Each Write has to be of whole characters.
type terminal struct{ io.Writer }

func (t terminal) Write(p []byte) (int, error) {
	if _, err := t.Writer.Write(appendVisible(nil, p)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// appendVisible appends text as a terminal may have it.
func appendVisible(dst, text []byte) []byte {
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		switch {
		case r == utf8.RuneError && size == 1:
			dst = fmt.Appendf(dst, `\x%02x`, text[0])
		case !obeyed(r):
			dst = append(dst, text[:size]...)
		case r < 0x80:
			dst = fmt.Appendf(dst, `\x%02x`, r)
		default:
			dst = fmt.Appendf(dst, `\u%04x`, r)
		}
		text = text[size:]
	}
	return dst
}

// obeyed reports whether a terminal does something else with r than to show it,
// or than to move to the next tab or line: the control characters of ASCII and
// Latin-1, those that turn the direction of text around, other line ends.
func obeyed(r rune) bool {
	switch {
	case r == '\t', r == '\n':
		return false
	case unicode.IsControl(r), r == '\u2028', r == '\u2029':
		return true
	}
	return r >= '\u202a' && r <= '\u202e' || r >= '\u2066' && r <= '\u2069'
}

// version is set by -ldflags "-X main.version=…". Without, the build's own
// record decides.
var version string

func newVersionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "rejoin %s %s %s/%s\n", currentVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}

func currentVersion() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	return cmp.Or(info.Main.Version, "unknown")
}
