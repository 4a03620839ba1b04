package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"sallyport.dev/client"
)

// Options of OpenSSH's programs that take a value, by letter.
const (
	sshValued = "BbcDEeFIiJLlmOoPpQRSWw"
	scpValued = "cDFiJloPSX"
)

// login is what may be a user's name on a command line of ssh. It never begins with a
// dash, which ssh would take for an option.
var loginName = regexp.MustCompile(`^[A-Za-z0-9_.][A-Za-z0-9_.+=,@-]{0,254}$`)

func (p *program) newSSHCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ssh [--sshd] [SSH-OPTION]... [USER@]NODE [SSH-OPTION]... [COMMAND [ARG]...]",
		Short: "Run ssh to a node, which needs no open port",
		Long: `Run OpenSSH's ssh to a node, named as for sallyport connect, with ssh's own options.
Options of one dash are ssh's, those of two are sallyport's and stand before NODE.

Where the server has an SSH front door ssh goes there, with a certificate that is issued
for it: the node needs no sshd, and the session is recorded. Elsewhere, on AWS and with
--sshd, it goes to the node's own sshd through the document AWS-StartSSHSession.

Exit status: ssh's, which is the remote one, or 255.`,
		Example: `  sallyport ssh frontend-1
  sallyport ssh deploy@frontend-1 -L 8080:localhost:80
  tar c . | sallyport ssh frontend-1 tar x -C /srv
  rsync -e 'sallyport ssh' -r site/ deploy@frontend-1:/srv/`,
		DisableFlagParsing: true,
		ValidArgsFunction:  p.completeOneNode,
		RunE:               openSSH(sshValued, p.ssh),
	}
	addSSHFlags(cmd)
	return cmd
}

func (p *program) newSCPCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "scp [--sshd] [SCP-OPTION]... {PATH | [USER@]NODE:PATH}... {PATH | [USER@]NODE:PATH}",
		Short: "Copy files from and to nodes with scp",
		Long: `Run OpenSSH's scp with nodes, named as for sallyport connect, in place of hosts, and
with scp's own options. It gets there as sallyport ssh does.

Exit status: scp's.`,
		Example: `  sallyport scp report.pdf frontend-1:/tmp/
  sallyport scp -r deploy@frontend-1:/var/log/nginx .`,
		DisableFlagParsing: true,
		ValidArgsFunction:  p.completeCopy,
		RunE:               openSSH(scpValued, p.scp),
	}
	addSSHFlags(cmd)
	return cmd
}

// openSSH runs a command whose line is one of OpenSSH's.
func openSSH(valued string, run func(context.Context, *sshLine) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		line, err := parseOpenSSH(cmd, valued, args)
		if err != nil || line == nil {
			return err
		}
		return run(cmd.Context(), line)
	}
}

func addSSHFlags(cmd *cobra.Command) {
	cmd.Flags().Bool("sshd", false, "use the node's own sshd, also where there is a front door")
}

// transferDocument is what file transfers by SSH are authorised on.
const transferDocument = "Sallyport-FileTransfer"

// sshLine is a command line of ssh or scp.
type sshLine struct {
	options []string // before the first operand
	rest    []string // from the first operand on
	sshd    bool
}

// parseOpenSSH tells sallyport's options, which have two dashes, from the program's. It
// returns nil if help was asked for and given.
func parseOpenSSH(cmd *cobra.Command, valued string, args []string) (*sshLine, error) {
	line := &sshLine{}
	var own []string
	for len(args) > 0 && strings.HasPrefix(args[0], "-") && args[0] != "-" {
		n := 1
		switch {
		case args[0] == "--":
			line.rest, args = args[1:], nil
			continue
		case args[0] == "-h", args[0] == "--help":
			return nil, cmd.Help()
		case strings.HasPrefix(args[0], "--"):
			n = ownWords(cmd, args)
			own = append(own, args[:n]...)
		default:
			n = min(optionWords(args[0], valued), len(args))
			line.options = append(line.options, args[:n]...)
		}
		args = args[n:]
	}
	line.rest = append(line.rest, args...)
	if len(line.rest) == 0 {
		return nil, usagef("name a node, as sallyport nodes shows them")
	}
	return line, line.setFlags(cmd, own)
}

// setFlags takes sallyport's own options.
func (l *sshLine) setFlags(cmd *cobra.Command, own []string) error {
	flags := pflag.NewFlagSet(cmd.Name(), pflag.ContinueOnError)
	flags.AddFlagSet(cmd.InheritedFlags())
	flags.AddFlagSet(cmd.LocalFlags())
	if err := flags.Parse(own); err != nil {
		return usagef("%w; options of %s have one dash", err, cmd.Name())
	}
	l.sshd, _ = flags.GetBool("sshd")
	return nil
}

// ownWords is how many words an option of sallyport's has: two unless its value is joined
// to it or it takes none.
func ownWords(cmd *cobra.Command, args []string) int {
	name, _, joined := strings.Cut(args[0][2:], "=")
	f := cmd.Flag(name)
	if joined || f == nil || f.NoOptDefVal != "" || len(args) == 1 {
		return 1
	}
	return 2
}

// optionWords is how many words letters of one dash have: the first that takes a value
// ends them, and takes the next word where nothing is left of its own.
func optionWords(word, valued string) int {
	for i, letter := range word[1:] {
		if strings.ContainsRune(valued, letter) {
			if i+2 == len(word) {
				return 2
			}
			return 1
		}
	}
	return 1
}

func (p *program) ssh(ctx context.Context, line *sshLine) error {
	way, err := p.sshWay(ctx, line.sshd)
	if err != nil {
		return err
	}
	to, err := p.sshDestination(ctx, way, line.rest[0], "")
	if err != nil {
		return err
	}
	options, err := way.options()
	if err != nil {
		return err
	}
	args := append(options, line.options...)
	args = append(args, to)
	return p.runOpenSSH(ctx, "ssh", append(args, line.rest[1:]...))
}

func (p *program) scp(ctx context.Context, line *sshLine) error {
	if len(line.rest) < 2 {
		return usagef("want what to copy, and where to")
	}
	way, err := p.sshWay(ctx, line.sshd)
	if err != nil {
		return err
	}
	options, err := way.options()
	if err != nil {
		return err
	}
	args := append(options, line.options...)
	args = append(args, "--")
	for _, operand := range line.rest {
		node, path, remote := cutRemote(operand)
		if !remote {
			args = append(args, operand)
			continue
		}
		to, err := p.sshDestination(ctx, way, node, transferDocument)
		if err != nil {
			return err
		}
		args = append(args, copyOperand(to, path))
	}
	return p.runOpenSSH(ctx, "scp", args)
}

// copyOperand names a path there to scp, which takes a host with colons in brackets only.
func copyOperand(destination, path string) string {
	at := strings.LastIndexByte(destination, '@') + 1
	if host := destination[at:]; strings.Contains(host, ":") {
		destination = destination[:at] + "[" + host + "]"
	}
	return destination + ":" + path
}

// cutRemote tells [USER@]NODE:PATH from a path here, as scp does: by a colon before any
// slash.
func cutRemote(operand string) (node, path string, remote bool) {
	i := strings.IndexAny(operand, ":/")
	if i <= 0 || operand[i] == '/' {
		return "", operand, false
	}
	return operand[:i], operand[i+1:], true
}

// sshDestination resolves [USER@]NAME to what ssh is told. Nothing of it comes from the
// server but an id that looks like one. Where a person may only ask for the node, they are
// asked before ssh starts: it would ask in the middle of what it copies.
func (p *program) sshDestination(ctx context.Context, way sshWay, text, document string) (string, error) {
	user, name := "", text
	if at := strings.LastIndexByte(text, '@'); at >= 0 {
		user, name = text[:at], text[at+1:]
		if !loginName.MatchString(user) {
			return "", usagef("%q: the user's name before @ may have letters, digits and _ . + = , @ -, and not begin with -", text)
		}
	}
	node, _, err := p.choose(ctx, []string{name}, pickFlags{})
	if err != nil {
		return "", err
	}
	if _, door := way.(doorWay); door {
		if err := p.askFirst(ctx, node, document, user); err != nil {
			return "", err
		}
	}
	p.remember(node, nil)
	return way.destination(user, node), nil
}

// sshWay is how OpenSSH gets to nodes.
type sshWay interface {
	options() ([]string, error)
	destination(user string, n client.Node) string
}

// sshdWay leads to nodes' own sshd, through a session of this program's.
type sshdWay struct{ proxy string }

func (w sshdWay) options() ([]string, error) { return []string{"-o", "ProxyCommand=" + w.proxy}, nil }

func (w sshdWay) destination(user string, n client.Node) string {
	if user == "" {
		return n.NodeID
	}
	return user + "@" + n.NodeID
}

// doorWay leads to the server's SSH front door, by a certificate.
type doorWay struct{ lines *sshConfigLines }

func (w doorWay) options() ([]string, error) {
	options := []string{"-o", "Port=" + w.lines.port, "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=yes"}
	for _, file := range []struct{ key, name string }{
		{"IdentityFile", w.lines.files.key()}, {"CertificateFile", w.lines.files.certificate()}, {"UserKnownHostsFile", w.lines.files.knownHosts()},
	} {
		quoted, err := sshQuote(file.name)
		if err != nil {
			return nil, err
		}
		options = append(options, "-o", file.key+"="+quoted)
	}
	return options, nil
}

// destination names person, login and node in what is the user's name for ssh.
func (w doorWay) destination(user string, n client.Node) string {
	person := w.lines.user
	if user != "" {
		person += "+" + user
	}
	return person + "@" + n.NodeID + "@" + w.lines.host
}

// selfPath is the path of this program under the name that it was started by: under
// another it may be another program.
func selfPath(name string) (string, error) {
	if baseName(name) != nameSallyport {
		return os.Executable()
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return os.Executable()
	}
	return filepath.Abs(path)
}

// sshWay chooses the way: the front door where there is one, unless the node's own sshd
// is asked for.
func (p *program) sshWay(ctx context.Context, sshd bool) (sshWay, error) {
	if !sshd {
		way, err := p.doorWay(ctx)
		if !errors.Is(err, errNoFrontDoor) && !errors.Is(err, client.ErrNotSallyport) {
			return way, err
		}
		p.logger().Debug("there is no front door", "error", err)
	}
	proxy, err := p.ownCommand("proxy", "%h", "%p")
	return sshdWay{proxy}, err
}

func (p *program) doorWay(ctx context.Context) (sshWay, error) {
	files, err := p.sshFiles()
	if err != nil {
		return nil, err
	}
	lines, err := p.frontDoor(ctx, sshConfigFlags{}, files)
	if err != nil {
		return nil, err
	}
	return doorWay{lines}, p.writeKnownHosts(ctx, files)
}

// runOpenSSH runs one of OpenSSH's programs in this one's place.
func (p *program) runOpenSSH(ctx context.Context, name string, args []string) error {
	path, err := exec.LookPath(name)
	if err != nil {
		return &statusError{status: statusNotFound, err: fmt.Errorf("%s is not installed: %w", name, err)}
	}
	interrupts := make(chan os.Signal, 1) // the terminal sends them to the program itself
	signal.Notify(interrupts, os.Interrupt)
	defer signal.Stop(interrupts)
	p.logger().Debug("running", "program", path, "arguments", args)
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = p.stdin, p.stdout, p.stderr
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &exit):
		return &statusError{status: exitStatus(exit.ProcessState)}
	}
	return &statusError{status: statusNotRunnable, err: err}
}
