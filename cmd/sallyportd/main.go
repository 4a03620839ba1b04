// Sallyportd is the Sallyport server. Started as sallyport or session-manager-plugin
// it is the client instead, which is how the dev server brings both along.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"sallyport.dev/cli"
	"sallyport.dev/internal/build"
)

func main() {
	switch filepath.Base(os.Args[0]) {
	case "sallyport", "session-manager-plugin":
		os.Exit(cli.Main(os.Args))
	}
	os.Exit(run())
}

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := newRoot().ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintf(os.Stderr, "sallyportd: %v\n", err)
	if hint := (hintedError{}); errors.As(err, &hint) {
		fmt.Fprintf(os.Stderr, "hint: %s\n", hint.hint)
	}
	var usage usageError
	if errors.As(err, &usage) {
		return 2
	}
	return 1
}

// usageError is a mistake on the command line; it exits with status 2.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// hintedError is an error with what to do about it.
type hintedError struct {
	error
	hint string
}

func (e hintedError) Unwrap() error { return e.error }

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "sallyportd",
		Short:         "The Sallyport server: sessions on machines that have no inbound port open",
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       build.Version(),
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(newDev(), newServer(), newInit(), newRecording(), newIndex())
	return root
}

// noArgs refuses arguments with one clear line.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("%s takes no arguments, only flags; got %q", cmd.CommandPath(), args[0])}
	}
	return nil
}
