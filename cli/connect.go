package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/smithy-go"
	"github.com/spf13/cobra"

	"sallyport.dev/client"
)

// commandDocument runs a command on a terminal; its parameter is one shell line.
const commandDocument = "AWS-StartInteractiveCommand"

// leavePatience bounds the call that ends a session which the person left.
const leavePatience = 3 * time.Second

type connectFlags struct {
	document, reason, parameters string
}

func (p *program) newConnectCommand() *cobra.Command {
	var flags connectFlags
	cmd := &cobra.Command{
		Use:   "connect {NAME | ID | KEY=VALUE...} [-- COMMAND [ARG]...]",
		Short: "Open a shell on a node, or run a command there",
		Long: `Open a shell on a node, or run a command there on a terminal of its own.

The node is named by id, by name, by a unique beginning of either, or by tags that all
hold. Among several you choose; without a terminal they are listed.

One COMMAND alone is a line for the node's shell; with ARGs each word stays one word.
Standard output is the session's and nothing else. Typed at the start of a line,
~. leaves the session and ~? shows what else there is.

Exit status: the remote one where the agent tells it, 1 if refused, 2 for wrong usage,
255 if the session could not be opened or broke, 128 and more if a signal ended it.`,
		Example: `  sallyport connect frontend-1
  sallyport connect Team=payments Environment=Development
  sallyport connect frontend-1 -- journalctl -u nginx -n 20
  sallyport connect frontend-1 -- 'dmesg | tail'
  echo uptime | sallyport connect frontend-1`,
		Args:              atLeast(1, "name a node, as sallyport nodes shows them"),
		ValidArgsFunction: p.completeTargets,
		RunE: func(cmd *cobra.Command, args []string) error {
			terms, command := args, []string(nil)
			if dash := cmd.ArgsLenAtDash(); dash >= 0 {
				terms, command = args[:dash], args[dash:]
			}
			return p.connect(cmd.Context(), terms, command, flags)
		},
	}
	f := cmd.Flags()
	f.StringVar(&flags.document, "document", "", "session `document`; a shell, or the one for commands, unless given")
	f.StringVar(&flags.reason, "reason", "", "why, for the audit log (256 characters)")
	f.StringVar(&flags.parameters, "parameters", "", "parameters of the document as `JSON`: {\"name\": [\"value\"]}")
	return cmd
}

func (p *program) connect(ctx context.Context, terms, command []string, flags connectFlags) error {
	if len(terms) == 0 {
		return usagef("no node is named")
	}
	if slices.Contains(terms, "") {
		return usagef("the node's name is empty; sallyport nodes shows them")
	}
	in, err := startInput(command, flags)
	if err != nil {
		return err
	}
	node, err := p.resolve(ctx, terms)
	if err != nil {
		return err
	}
	api, err := p.api(ctx)
	if err != nil {
		return err
	}
	in.Target = &node.NodeID
	stream, err := api.StartSession(ctx, in)
	if err != nil {
		return p.explainRefusal(err, node, aws.ToString(in.DocumentName))
	}
	return p.shell(ctx, api, stream, len(command) > 0)
}

// startInput builds the request, without its target.
func startInput(command []string, flags connectFlags) (*ssm.StartSessionInput, error) {
	in := &ssm.StartSessionInput{}
	if flags.parameters != "" {
		if err := json.Unmarshal([]byte(flags.parameters), &in.Parameters); err != nil {
			return nil, usagef(`--parameters: want JSON such as {"name": ["value"]}: %w`, err)
		}
	}
	if flags.reason != "" {
		in.Reason = &flags.reason
	}
	if flags.document != "" {
		in.DocumentName = &flags.document
	}
	if len(command) == 0 {
		return in, nil
	}
	if in.DocumentName == nil {
		in.DocumentName = aws.String(commandDocument)
	}
	if in.Parameters == nil {
		in.Parameters = map[string][]string{}
	}
	if in.Parameters["command"] != nil {
		return nil, usagef("--parameters holds a command, and another follows --")
	}
	in.Parameters["command"] = []string{shellLine(command)}
	return in, nil
}

// shellLine is a line that a POSIX shell reads as these words. A single word is
// taken to be a line already.
func shellLine(words []string) string {
	if len(words) == 1 {
		return words[0]
	}
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = shellQuote(w)
	}
	return strings.Join(quoted, " ")
}

const shellSafe = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+./:=@%^,"

func shellQuote(w string) string {
	if w != "" && strings.Trim(w, shellSafe) == "" {
		return w
	}
	return "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
}

// explainRefusal adds the command that explains a refusal.
func (p *program) explainRefusal(err error, node client.Node, document string) error {
	var api smithy.APIError
	if !errors.As(err, &api) {
		p.report(err)
		return &statusError{status: statusNoAccess}
	}
	if api.ErrorCode() == "AccessDeniedException" && p.endpoint() != "" {
		p.say("%s", errorText(err))
		why := "sallyport why connect " + node.NodeID
		if document != "" {
			why += " --document " + shellQuote(document)
		}
		p.hint(why + " shows each policy and what it says")
		return &statusError{status: statusRefused}
	}
	return err
}

// shell runs an open session on the process's streams and returns how it ended.
func (p *program) shell(ctx context.Context, api *client.API, stream client.Stream, command bool) error {
	terminal := &client.Terminal{Stdin: p.stdin, Stdout: p.stdout, Stderr: p.stderr}
	end, err := client.RunShell(ctx, client.ChannelConfig{
		Stream: stream,
		Dial:   client.Dialer(api.TLS(), p.userAgent()),
		Resume: api.ResumeSession,
		Logger: p.logger(),
	}, client.ShellConfig{Terminal: terminal, Escape: true, Exact: command})
	if err != nil || end.Output != "" {
		terminal.StartLine()
	}
	var signalled *client.SignalError
	switch {
	case err == nil:
		return p.ended(end)
	case errors.Is(err, client.ErrLeft):
		p.leave(api, stream.SessionID)
		return &statusError{status: statusNoAccess, err: errors.New("left the session")}
	case errors.As(err, &signalled):
		p.leave(api, stream.SessionID)
		return &statusError{status: signalled.Status}
	case errors.Is(err, syscall.EPIPE), errors.Is(err, os.ErrClosed):
		p.leave(api, stream.SessionID)
		return &statusError{status: brokenPipeStatus}
	case errors.Is(err, client.ErrTimedOut):
		return &statusError{status: statusNoAccess, err: fmt.Errorf("session %s timed out", stream.SessionID)}
	}
	return &statusError{status: statusNoAccess, err: err}
}

// brokenPipeStatus is that of a program that SIGPIPE ended.
const brokenPipeStatus = 128 + 13

// ended turns the end of a session into the exit status. Words without a status mean
// that it was not the session's program that ended it.
func (p *program) ended(end client.End) error {
	switch {
	case end.ExitStatus != nil && *end.ExitStatus == 0 && end.Output == "":
		return nil
	case end.ExitStatus != nil:
		if end.Output != "" {
			p.say("%s", client.Clean(words(end.Output)))
		}
		return &statusError{status: *end.ExitStatus & 0xff}
	case end.Output != "":
		return &statusError{status: statusNoAccess, err: errors.New(words(end.Output))}
	}
	return nil
}

// banner is a line that AWS's agent, and ours for its sake, puts above what went wrong.
var banner = regexp.MustCompile(`(?m)^-{4,}ERROR-{4,}\s*$`)

// words are what a message says to a person, without an agent's banner.
func words(output string) string {
	lines := strings.FieldsFunc(banner.ReplaceAllString(output, ""), func(r rune) bool { return r == '\n' || r == '\r' })
	return strings.TrimSpace(strings.Join(lines, "\n"))
}

// leave ends a session that the person left, so that nothing goes on in it. It may
// be that the server cannot be reached, which is why the person left: it ends there
// by itself then.
func (p *program) leave(api *client.API, id string) {
	ctx, cancel := context.WithTimeout(context.Background(), leavePatience)
	defer cancel()
	if err := api.TerminateSession(ctx, id); err != nil {
		p.logger().Debug("ending the session", "session", id, "error", err)
	}
}
