package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"sallyport.dev/client"
)

// Exit statuses of every command.
const (
	statusDone     = 0
	statusRefused  = 1   // refused by the server, or failed
	statusUsage    = 2   // the command line makes no sense
	statusNoAccess = 255 // connect: no session, or it broke
)

// program is one run of the command line with what it needs of the process.
type program struct {
	stdin   *os.File
	stdout  io.Writer
	stderr  io.Writer
	getenv  func(string) string
	version string
	name    string // that the program was started under

	flags struct {
		profile, region, endpoint, bundle string
		json, debug                       bool
	}
	connected *client.API
	signIn    string // id of the sign-in that connected uses, if it does
}

// statusError makes the program exit with a status; err, if any, is reported.
type statusError struct {
	status int
	err    error
}

// Error implements error.
func (e *statusError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.status)
	}
	return e.err.Error()
}

// Unwrap returns what is reported.
func (e *statusError) Unwrap() error { return e.err }

// ran marks an error that a command returned by itself; others are cobra's, about
// the command line.
type ran struct{ err error }

func (e *ran) Error() string { return e.err.Error() }
func (e *ran) Unwrap() error { return e.err }

// usagef is an error about the command line that only the command can see.
func usagef(format string, args ...any) error {
	return &statusError{status: statusUsage, err: fmt.Errorf(format, args...)}
}

// run executes args, without the program's name, and returns the exit status.
func (p *program) run(ctx context.Context, args []string) int {
	root := p.newRoot()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return statusDone
	}
	return p.fail(cmd, err)
}

// fail reports err and returns the status to exit with.
func (p *program) fail(cmd *cobra.Command, err error) int {
	var status *statusError
	var own *ran
	switch {
	case errors.As(err, &status):
		if status.err != nil {
			p.report(status.err)
		}
		if status.status == statusUsage && status.err != nil {
			p.hint(fmt.Sprintf("%s --help shows how it is used", cmd.CommandPath()))
		}
		return status.status
	case errors.As(err, &own):
		p.report(err)
		return statusRefused
	}
	p.say("%s", client.Clean(err.Error()))
	p.hint(fmt.Sprintf("%s --help shows how it is used", cmd.CommandPath()))
	return statusUsage
}

// say writes one line to standard error.
func (p *program) say(format string, args ...any) {
	fmt.Fprintf(p.stderr, "sallyport: "+format+"\n", args...)
}

func (p *program) hint(text string) { fmt.Fprintf(p.stderr, "hint: %s\n", text) }

// report writes an error, and the fix if there is a known one.
func (p *program) report(err error) {
	p.say("%s", errorText(err))
	if h := p.hintFor(err); h != "" {
		p.hint(h)
	}
}

func (p *program) userAgent() string {
	return "sallyport/" + strings.Trim(p.version, "()")
}

func (p *program) logger() *slog.Logger {
	if !p.flags.debug {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(p.stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// api connects on first use.
func (p *program) api(ctx context.Context) (*client.API, error) {
	if p.connected != nil {
		return p.connected, nil
	}
	o, _ := p.bySignIn(ctx, client.Options{
		Profile:   p.flags.profile,
		Region:    p.flags.region,
		Endpoint:  p.flags.endpoint,
		CABundle:  p.flags.bundle,
		UserAgent: p.userAgent(),
		Logger:    p.logger(),
	})
	a, err := client.Connect(ctx, o)
	if err != nil {
		return nil, err
	}
	p.connected = a
	return a, nil
}

// interactive reports whether a person can be asked: standard input and standard
// error are terminals.
func (p *program) interactive() bool {
	out, ok := p.stderr.(*os.File)
	return ok && p.stdin != nil && term.IsTerminal(int(p.stdin.Fd())) && term.IsTerminal(int(out.Fd()))
}
