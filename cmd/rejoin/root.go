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
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/client"
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
		Use:   "rejoin",
		Short: "Resumable subscriptions over Server-Sent Events",
		Long: `Rejoin serves feeds of events. Subscribers follow a feed over Server-Sent Events,
and publishers add to it. A subscriber that was away comes back with the id of its
last event, and misses none.

Rejoin serve is the server. The other commands are its clients, at
` + defaultURL + ` unless --url names another address. They send the token in
the environment variable REJOIN_TOKEN, if there is one.

The exit code is 0 after success, 1 after a failure, and 2 if the command line or
the configuration is wrong and nothing was tried.`,
		Example: `  rejoin serve &
  rejoin tail chat &
  rejoin publish chat hello`,
		SilenceUsage:  true,
		SilenceErrors: true,
		// Without a command, help; with an unknown one, an error.
		Args: noArgs,
	}
	// Cobra's own flag would print the line with a template, and templates keep the linker
	// from leaving out methods.
	version := root.Flags().BoolP("version", "v", false, "print the version")
	root.RunE = func(cmd *cobra.Command, _ []string) error {
		if *version {
			return printVersion(cmd)
		}
		return cmd.Help()
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usageError{withNearestFlag(cmd, err)} })
	for _, group := range []struct {
		title    string
		commands []*cobra.Command
	}{
		{"Publish and follow:", []*cobra.Command{newPublishCommand(), newTailCommand()}},
		{"Look after feeds:", []*cobra.Command{newFeedsCommand(), newFeedCommand(), newCloseCommand(), newTrimCommand(), newDeleteCommand()}},
		{"Run a server:", []*cobra.Command{newServeCommand(), newCheckCommand(), newMigrateCommand(), newTokenCommand(), newHealthCommand()}},
		{"Test a server:", []*cobra.Command{newVerifyCommand(), newBenchCommand()}},
	} {
		root.AddGroup(&cobra.Group{ID: group.title, Title: group.title})
		for _, command := range group.commands {
			command.GroupID = group.title
			root.AddCommand(command)
		}
	}
	root.AddCommand(newVersionCommand())
	return root
}

// noArgs returns a usage error if there are arguments. Where a command of its own
// was expected, it names those that are nearest.
func noArgs(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return nil
	case !cmd.HasAvailableSubCommands():
		return usageError{fmt.Errorf("%s takes no arguments, but was given %q", inRoot(cmd), args[0])}
	}
	cmd.SuggestionsMinimumDistance = nearEnough
	hint := fmt.Sprintf("; %s --help lists the commands", cmd.CommandPath())
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		hint = "; did you mean " + strings.Join(near, " or ") + "?"
	}
	return usageError{fmt.Errorf("unknown command %q for %s%s", args[0], cmd.CommandPath(), hint)}
}

// nearEnough is how many letters a typo may have wrong.
const nearEnough = 2

// withNearestFlag adds to the error for an unknown flag what was probably meant.
func withNearestFlag(cmd *cobra.Command, err error) error {
	unknown, ok := errors.AsType[*pflag.NotExistError](err)
	if !ok {
		return err
	}
	typo := cmp.Or(unknown.GetSpecifiedShortnames(), unknown.GetSpecifiedName()) // -feed is meant as --feed
	// Cobra compares the names of commands only.
	names := &cobra.Command{SuggestionsMinimumDistance: nearEnough}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		names.AddCommand(&cobra.Command{Use: f.Name, Run: func(*cobra.Command, []string) {}})
	})
	near := names.SuggestionsFor(typo)
	if len(near) == 0 {
		return fmt.Errorf("%w; %s --help lists the flags", err, cmd.CommandPath())
	}
	return fmt.Errorf("%w; did you mean --%s?", err, strings.Join(near, " or --"))
}

// oneFeed returns the name of a feed, which is the only argument, or a usage error.
func oneFeed(cmd *cobra.Command, args []string) error {
	switch len(args) {
	case 0:
		return usageError{errWhichFeed(cmd)}
	case 1:
		return checkFeed(args[0])
	}
	return usageError{fmt.Errorf("%s takes one feed, but was given %q, too", inRoot(cmd), args[1])}
}

// inRoot returns the name of a command without that of the program.
func inRoot(cmd *cobra.Command) string {
	return strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()+" ")
}

// errWhichFeed asks for the feed that a command line does not name.
func errWhichFeed(cmd *cobra.Command) error {
	return fmt.Errorf("which feed? Name it, as in: %s chat", cmd.CommandPath())
}

// checkFeed returns a usage error if name cannot be the name of a feed.
func checkFeed(name string) error {
	if err := feed.CheckName(name); err != nil {
		return usageError{fmt.Errorf("feed %q: %w", name, err)}
	}
	return nil
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

// version is set by -ldflags "-X main.version=…". Without, the build's own
// record decides.
var version string

func newVersionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Long:    "Version prints the version of Rejoin, that of Go, and the system, as --version does.",
		Example: `  rejoin version`,
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return printVersion(cmd) },
	}
}

func printVersion(cmd *cobra.Command) error {
	_, err := fmt.Fprintln(cmd.OutOrStdout(), versionLine())
	return err
}

func versionLine() string {
	return fmt.Sprintf("rejoin %s %s %s/%s", currentVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
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
