package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/aws/smithy-go"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"sallyport.dev/client"
)

// commandDocument runs a command on a terminal; its parameter is one shell line.
const commandDocument = "AWS-StartInteractiveCommand"

// apartDocument runs a command without a terminal: its output, its errors and its exit
// status come apart.
const apartDocument = "AWS-StartNonInteractiveCommand"

// leavePatience bounds the call that ends a session which the person left.
const leavePatience = 3 * time.Second

// nodeLogin is what a user of a node may be called.
var nodeLogin = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,30}[A-Za-z0-9_.$-]?$`)

type connectFlags struct {
	document, reason, parameters string
	login                        string
	pick                         pickFlags
	terminal, noTerminal         bool
	action                       string
	localPort                    string
}

func (p *program) newConnectCommand() *cobra.Command {
	var flags connectFlags
	cmd := &cobra.Command{
		Use:   "connect [NAME | ID | KEY=VALUE... | -] [-- COMMAND [ARG]...]",
		Short: "Open a shell on a node, or run a command there",
		Long: `Open a shell on a node, or run a command there.

The node is named by id, by name, by a unique beginning of either, or by tags that all
hold; - is the one of last time. Among several you choose; without a terminal they are
listed. Without any you get the menu.

One COMMAND alone is a line for the node's shell; with ARGs each word stays one word. On
a terminal it gets one there too. Otherwise, and with -T, standard input, output and
error are passed on as they are, and Ctrl-C interrupts the command. In a loop that reads
its own list, </dev/null keeps that from the command. With AWS's agent, and on AWS,
there is no input: sallyport ssh passes that on.
Standard output is the session's and nothing else. Typed at the start of a line,
~. leaves the session and ~? shows what else there is.

-n, -x, -s, -a, -o, -p and -r are those of aws-connect, which may be an alias of
"sallyport connect": -a tunnel forwards ports as sallyport tunnel does, local port 9999
to the node's SSH unless others are given.

Exit status: the remote one where the agent tells it, 1 if refused, 2 for wrong usage,
255 if the session could not be opened or broke, 128 and more if a signal ended it.`,
		Example: `  sallyport connect frontend-1
  sallyport connect Team=payments Environment=Development
  sallyport connect -
  sallyport connect -s front
  sallyport connect frontend-1 --login deploy
  sallyport connect frontend-1 -- journalctl -u nginx -n 20
  sallyport connect frontend-1 -T -- 'dmesg | tail' >dmesg.txt
  tar c site | sallyport connect frontend-1 -- tar x -C /srv
  sallyport connect -a tunnel -n frontend-1 5432:db.internal:5432`,
		ValidArgsFunction: p.completeTargets,
		RunE: func(cmd *cobra.Command, args []string) error {
			terms, command := args, []string(nil)
			if dash := cmd.ArgsLenAtDash(); dash >= 0 {
				terms, command = args[:dash], args[dash:]
				if len(command) == 0 {
					return usagef("no command follows --")
				}
			}
			return p.connect(cmd.Context(), terms, command, flags)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&flags.document, "document", "d", "", "session `document`; a shell, or the one for commands, unless given")
	f.StringVar(&flags.reason, "reason", "", "why, for the audit log (256 characters)")
	f.StringVar(&flags.parameters, "parameters", "", "parameters of the document: `JSON` such as {\"name\": [\"value\"]}, or NAME=VALUE,…")
	f.StringVarP(&flags.login, "login", "l", "", "`user` to be on the node, where policy lets you choose; not on AWS")
	f.BoolVarP(&flags.terminal, "terminal", "t", false, "give the command a terminal, whatever there is here")
	f.BoolVarP(&flags.noTerminal, "no-terminal", "T", false, "give the command no terminal")
	f.StringVarP(&flags.action, "action", "a", "shell", "shell, ssh (the same) or tunnel")
	f.StringVarP(&flags.localPort, "local-port", "o", "", "with -a tunnel, local `port` for the node's SSH")
	p.addPickFlags(cmd, &flags.pick)
	cmd.RegisterFlagCompletionFunc("action", cobra.FixedCompletions([]string{"shell", "ssh", "tunnel"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (p *program) connect(ctx context.Context, terms, command []string, flags connectFlags) error {
	switch flags.action {
	case "shell", "ssh":
	case "tunnel":
		return p.connectTunnel(ctx, terms, command, flags)
	case "document":
		return usagef("-a document: sallyport run NODE -- COMMAND runs commands, and --document opens a session with a document")
	default:
		return usagef("-a %q: want shell, ssh or tunnel", flags.action)
	}
	if flags.localPort != "" {
		return usagef("-o %q: a local port goes with -a tunnel", flags.localPort)
	}
	session, err := p.newCommandLine(command, flags)
	if err != nil {
		return err
	}
	node, path, err := p.choose(ctx, terms, flags.pick)
	if err != nil {
		return err
	}
	api, err := p.api(ctx)
	if err != nil {
		return err
	}
	if err := p.mayChooseLogin(ctx, api, flags.login); err != nil {
		return err
	}
	defer holdHangups()()
	in := session.input(node)
	var stream client.Stream
	err = p.withAccess(ctx, api, p.asker(), wanted{node, in.Document, flags.login}, func() (err error) {
		stream, err = api.Start(ctx, in)
		return err
	})
	if err != nil {
		return p.explainRefusal(err, node, in.Document, loginWords(flags.login)...)
	}
	p.remember(node, path)
	switch {
	case stream.Input:
		return p.command(ctx, api, stream)
	case session.apart:
		return p.commandWithoutInput(ctx, api, stream, node)
	}
	return p.shell(ctx, api, stream, p.stdin, len(command) > 0)
}

// mayChooseLogin refuses a user on the node where there is no choice: AWS would take
// another without a word.
func (p *program) mayChooseLogin(ctx context.Context, api *client.API, login string) error {
	if login == "" {
		return nil
	}
	_, err := api.GetStatus(ctx)
	if errors.Is(err, client.ErrNotSallyport) {
		return usagef("--login %q: AWS does not let you choose; the tag SSMSessionRunAs of your user or role says who you are on nodes", login)
	}
	return err
}

// commandLine is what a session is to run; nothing for a shell.
type commandLine struct {
	in    client.StartInput // but for its target
	words []string
	apart bool // without a terminal: output and errors stay apart
}

func (p *program) newCommandLine(command []string, flags connectFlags) (*commandLine, error) {
	c := &commandLine{words: command, in: client.StartInput{Document: flags.document, Reason: flags.reason, RunAs: flags.login}}
	var err error
	if c.in.Parameters, err = documentParameters(flags.parameters); err != nil {
		return nil, err
	}
	switch {
	case flags.login != "" && !nodeLogin.MatchString(flags.login):
		return nil, usagef("--login %q: want up to 32 letters, digits, dots, underscores and hyphens", flags.login)
	case flags.terminal && flags.noTerminal:
		return nil, usagef("-t and -T exclude each other")
	case flags.noTerminal && len(command) == 0:
		return nil, usagef("-T: a shell needs a terminal; a COMMAND after -- does not")
	case isForwardDocument(flags.document):
		return nil, usagef("--document %s: sallyport tunnel forwards ports, and sallyport proxy connects with one", flags.document)
	case len(command) > 0 && c.in.Parameters["command"] != nil:
		return nil, usagef("--parameters holds a command, and another follows --")
	}
	c.apart = len(command) > 0 && flags.document == "" && !flags.terminal && (flags.noTerminal || !p.onTerminal())
	return c, nil
}

// isForwardDocument reports whether a document that every deployment has forwards ports.
// Of others only the agent's handshake tells.
func isForwardDocument(name string) bool {
	return name == "AWS-StartSSHSession" || strings.HasPrefix(name, "AWS-StartPortForwardingSession") ||
		strings.HasPrefix(name, "Sallyport-StartPortForwardingSession")
}

// onTerminal reports whether both ends of a command's standard streams are a terminal.
func (p *program) onTerminal() bool {
	out, ok := p.stdout.(*os.File)
	return ok && p.stdin != nil && term.IsTerminal(int(p.stdin.Fd())) && term.IsTerminal(int(out.Fd()))
}

// input is the request for a session on a node.
func (c *commandLine) input(n client.Node) client.StartInput {
	in := c.in
	in.Target = n.NodeID
	if len(c.words) == 0 {
		return in
	}
	in.Parameters = maps.Clone(in.Parameters)
	if in.Parameters == nil {
		in.Parameters = map[string][]string{}
	}
	line := shellLine(c.words)
	switch {
	case c.apart:
		in.Document, in.Input = apartDocument, true
		in.Parameters["separateOutputStream"] = []string{"true"}
		if n.PlatformType != "Windows" { // agents split these words without a shell
			line = "sh -c " + shellQuote(line)
		}
	case in.Document == "":
		in.Document = commandDocument
	}
	in.Parameters["command"] = []string{line}
	return in
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

// loginWords are what asks why about a login.
func loginWords(login string) []string {
	if login == "" {
		return nil
	}
	return []string{"--login", login}
}

// explainRefusal adds the command that explains a refusal; more are words of it.
func (p *program) explainRefusal(err error, node client.Node, document string, more ...string) error {
	var api smithy.APIError
	var status *statusError
	if errors.As(err, &status) { // who was asked has been told
		return status
	}
	if !errors.As(err, &api) {
		p.report(err)
		return &statusError{status: statusNoAccess}
	}
	if api.ErrorCode() == "AccessDeniedException" && p.endpoint() != "" {
		p.say("%s", errorText(err))
		p.hintAsking(err)
		why := "sallyport why connect " + node.NodeID
		if document != "" {
			why += " --document " + shellQuote(document)
		}
		for _, word := range more {
			why += " " + shellQuote(word)
		}
		p.hint(why + " shows each policy and what it says")
		return &statusError{status: statusRefused}
	}
	return err
}

// shell runs an open session on the process's streams and returns how it ended. stdin
// is nil for one that takes no input.
func (p *program) shell(ctx context.Context, api *client.API, stream client.Stream, stdin *os.File, command bool) error {
	terminal := &client.Terminal{Stdin: stdin, Stdout: p.stdout, Stderr: p.stderr}
	end, err := client.RunShell(ctx, p.channel(api, stream), client.ShellConfig{Terminal: terminal, Escape: true, Exact: command})
	if err != nil || end.Output != "" {
		terminal.StartLine()
	}
	var signalled *client.SignalError
	if errors.Is(err, client.ErrLeft) || errors.As(err, &signalled) || isUntaken(err) {
		p.leave(api, stream.SessionID)
	}
	return p.sessionEnded(stream, end, err)
}

// command runs a command that takes input on the process's streams and returns how it
// ended. Whatever ends it here ends it there: it is not to wait for the rest of its input.
func (p *program) command(ctx context.Context, api *client.API, stream client.Stream) error {
	terminal := &client.Terminal{Stdin: p.stdin, Stdout: p.stdout, Stderr: p.stderr}
	end, err := client.RunExec(ctx, p.channel(api, stream), terminal)
	if err != nil && !errors.Is(err, client.ErrTimedOut) {
		p.leave(api, stream.SessionID)
	}
	return p.sessionEnded(stream, end, err)
}

// commandWithoutInput runs a command that takes no input, and says so where there is some.
func (p *program) commandWithoutInput(ctx context.Context, api *client.API, stream client.Stream, node client.Node) error {
	told := hasInput(p.stdin)
	if told {
		p.sayUnread(node)
	}
	err := p.shell(ctx, api, stream, nil, true)
	if !told && hasInput(p.stdin) {
		p.sayUnread(node)
	}
	return err
}

func (p *program) sayUnread(node client.Node) {
	p.say("standard input is not passed on: commands have none unless both the server and the node's agent are Sallyport's")
	p.hint("sallyport ssh " + node.NodeID + " COMMAND passes it on, where the node has an SSH server")
}

func (p *program) channel(api *client.API, stream client.Stream) client.ChannelConfig {
	return client.ChannelConfig{
		Stream:  stream,
		Dial:    client.Dialer(api.TLS(), p.userAgent()),
		Resume:  api.ResumeSession,
		DataKey: api.DataKey,
		Logger:  p.logger(),
	}
}

// sessionEnded turns the way a session ended into the program's.
func (p *program) sessionEnded(stream client.Stream, end client.End, err error) error {
	var signalled *client.SignalError
	switch {
	case err == nil:
		return p.ended(end)
	case errors.Is(err, client.ErrLeft):
		return &statusError{status: statusNoAccess, err: errors.New("left the session")}
	case errors.As(err, &signalled):
		return &statusError{status: signalled.Status}
	case isUntaken(err):
		return &statusError{status: brokenPipeStatus}
	case errors.Is(err, client.ErrTimedOut):
		return &statusError{status: statusNoAccess, err: fmt.Errorf("session %s timed out", stream.SessionID)}
	}
	return &statusError{status: statusNoAccess, err: err}
}

// isUntaken reports whether nobody takes the program's output any more: of a terminal
// that was closed it is told by EIO, perhaps before SIGHUP says so.
func isUntaken(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.EIO) || errors.Is(err, os.ErrClosed)
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

// holdHangups keeps SIGHUP from ending the process at once: a terminal that is closed
// brings several, and the session is still to be ended after the first.
func holdHangups() (release func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGHUP)
	return func() { signal.Stop(c) }
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
