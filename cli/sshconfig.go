package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	"sallyport.dev/client"
)

type sshConfigFlags struct {
	write    bool
	name     string
	gateway  string
	suffix   string
	user     string
	awsHosts bool
}

func (p *program) newSSHConfigCommand() *cobra.Command {
	var f sshConfigFlags
	cmd := &cobra.Command{
		Use:   "ssh-config [--write]",
		Short: "Print or write what ssh needs to reach nodes",
		Long: `Print the lines of ssh_config by which ssh, scp, sftp, rsync, Ansible and editors reach
nodes through the server's SSH front door, as NODE.SUFFIX or NODE@sallyport. Before it
connects, ssh has the certificate renewed by sallyport ssh-cert.

--write puts them into a file of their own, in ~/.sallyport/ssh/PROFILE, and one Include
line at the beginning of ~/.ssh/config, whose other text stays as it is.`,
		Example: `  sallyport ssh-config
  sallyport ssh-config --write
  ssh deploy@frontend-1.nodes.example.com
  ssh frontend-1@sallyport`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.sshConfig(cmd.Context(), f) },
	}
	fs := cmd.Flags()
	fs.BoolVar(&f.write, "write", false, "write the lines where ssh finds them")
	fs.StringVar(&f.name, "name", "", "`NAME` of the gateway in ssh_config (sallyport, or sallyport-PROFILE)")
	fs.StringVar(&f.gateway, "gateway", "", "`HOST[:PORT]` of the front door, in place of what the server says")
	fs.StringVar(&f.suffix, "suffix", "", "`DOMAIN` of nodes, in place of what the server says")
	fs.StringVar(&f.user, "user", "", "`LOGIN` on nodes (what is your default there)")
	fs.BoolVar(&f.awsHosts, "aws-hosts", false, "also lead i-* and mi-* to the nodes' own sshd")
	return cmd
}

func (p *program) sshConfig(ctx context.Context, f sshConfigFlags) error {
	files, err := p.sshFiles()
	if err != nil {
		return err
	}
	c, err := p.frontDoor(ctx, f, files)
	if err != nil {
		return err
	}
	text, err := c.text()
	if err != nil {
		return err
	}
	if !f.write {
		if err := p.writeKnownHosts(ctx, files); err != nil {
			return err
		}
		_, err := fmt.Fprint(p.stdout, text)
		return err
	}
	if err := p.writeKnownHosts(ctx, files); err != nil {
		return err
	}
	if _, err := replaceFile(files.config(), []byte(text), 0o600); err != nil {
		return err
	}
	config, changed, err := includeInSSHConfig(files.config())
	if err != nil {
		return err
	}
	said := "includes it already"
	if changed {
		said = "includes it now"
	}
	p.say("wrote %s; %s %s", files.config(), config, said)
	if !c.withoutFrontDoor {
		// The domain is the server's to name, and all that ssh does there goes to it.
		p.say("ssh to %s now goes to %s", strings.Join(c.hosts(), " and "), net.JoinHostPort(c.host, c.port))
	}
	return nil
}

// sshConfigLines are the values of the lines, all of which have been checked: what a
// server says must not become a line of its own.
type sshConfigLines struct {
	files            sshFiles
	name             string
	host, port       string
	suffix           string // "" for none
	user, login      string
	renew            string // command line
	proxy            string // command line, "" for none
	withoutFrontDoor bool
}

var (
	hostForm   = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.:-]{0,251}[A-Za-z0-9])?$`)
	suffixForm = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$`)
	personForm = regexp.MustCompile(`^[\w+=,.@][\w+=,.@-]{0,127}$`)
	aliasForm  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$`)
)

var errNoFrontDoor = errors.New("the server has no SSH front door; --gateway names one, and --aws-hosts does without")

// frontDoor gathers and checks what goes into the lines.
func (p *program) frontDoor(ctx context.Context, f sshConfigFlags, files sshFiles) (*sshConfigLines, error) {
	c := &sshConfigLines{files: files, login: f.user, name: cmp.Or(f.name, p.gatewayName())}
	var err error
	if f.awsHosts {
		if c.proxy, err = p.ownCommand("proxy", "%h", "%p"); err != nil {
			return nil, err
		}
	}
	gateway, suffix, err := p.findGateway(ctx, f)
	switch {
	case f.awsHosts && (errors.Is(err, errNoFrontDoor) || errors.Is(err, client.ErrNotSallyport)):
		c.withoutFrontDoor = true
		return c, nil
	case err != nil:
		return nil, err
	}
	if err := c.setGateway(gateway, strings.Trim(suffix, ".")); err != nil {
		return nil, err
	}
	issued, err := p.certify(ctx, sshCertFlags{})
	if err != nil {
		return nil, err
	}
	c.user = issued.Principal[strings.LastIndexByte(issued.Principal, '/')+1:]
	if c.renew, err = p.ownCommand("ssh-cert", "--quiet"); err != nil {
		return nil, err
	}
	return c, c.check()
}

// gatewayName is what the gateway is called in ssh_config.
func (p *program) gatewayName() string {
	if name := p.profileName(); name != "default" {
		return "sallyport-" + name
	}
	return "sallyport"
}

// findGateway returns the front door's address and the domain of nodes behind it.
func (p *program) findGateway(ctx context.Context, f sshConfigFlags) (gateway, suffix string, err error) {
	api, err := p.api(ctx)
	if err != nil {
		return "", "", err
	}
	told, err := api.GetSSHAuthorities(ctx)
	if err != nil {
		return "", "", err
	}
	gateway, suffix = cmp.Or(f.gateway, told.Gateway), cmp.Or(f.suffix, told.Suffix)
	if gateway == "" {
		return "", "", errNoFrontDoor
	}
	return gateway, suffix, nil
}

func (c *sshConfigLines) setGateway(gateway, suffix string) error {
	host, port, err := net.SplitHostPort(gateway)
	if err != nil {
		host, port = strings.Trim(gateway, "[]"), "22"
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 || !hostForm.MatchString(host) {
		return fmt.Errorf("the gateway's address %.100q is not HOST:PORT", gateway)
	}
	if suffix != "" && !suffixForm.MatchString(suffix) {
		return fmt.Errorf("the nodes' domain %.100q is not a domain", suffix)
	}
	c.host, c.port, c.suffix = host, port, suffix
	return nil
}

func (c *sshConfigLines) check() error {
	switch {
	case !aliasForm.MatchString(c.name):
		return usagef("--name %q: want letters, digits and . _ -", c.name)
	case c.login != "" && !loginName.MatchString(c.login):
		return usagef("--user %q is not the name of a user", c.login)
	case !personForm.MatchString(c.user):
		return fmt.Errorf("the server calls you %.100q, which is no name for ssh", c.user)
	}
	return nil
}

// text is what ssh_config gets.
func (c *sshConfigLines) text() (string, error) {
	var b strings.Builder
	b.WriteString("# Written by sallyport ssh-config; change it by running that again.\n")
	if !c.withoutFrontDoor {
		if err := c.gatewayLines(&b); err != nil {
			return "", err
		}
	}
	if c.proxy != "" {
		fmt.Fprintf(&b, "\nHost i-* mi-*\n  ProxyCommand %s\n", c.proxy)
	}
	// Text that includes this one goes on where it was.
	b.WriteString("\nMatch all\n")
	return b.String(), nil
}

// hosts are the patterns of what goes through the front door.
func (c *sshConfigLines) hosts() []string {
	if c.suffix == "" {
		return []string{c.name}
	}
	return []string{c.name, "*." + c.suffix}
}

func (c *sshConfigLines) gatewayLines(b *strings.Builder) error {
	if strings.ContainsAny(c.renew, "\"\\") {
		return fmt.Errorf("ssh cannot run %s: the path has a quote or a backslash", c.renew)
	}
	hosts := c.hosts()
	fmt.Fprintf(b, "Match originalhost %s exec \"%s\"\n", strings.Join(hosts, ","), c.renew)
	fmt.Fprintf(b, "\nHost %s\n", strings.Join(hosts, " "))
	for _, line := range []struct{ key, value string }{
		{"IdentityFile", c.files.key()}, {"CertificateFile", c.files.certificate()}, {"UserKnownHostsFile", c.files.knownHosts()},
	} {
		value, err := sshQuote(line.value)
		if err != nil {
			return err
		}
		fmt.Fprintf(b, "  %s %s\n", line.key, value)
	}
	b.WriteString("  IdentitiesOnly yes\n  StrictHostKeyChecking yes\n")
	login := c.user
	if c.login != "" {
		login = c.login
	}
	fmt.Fprintf(b, "\nHost %s\n  HostName %s\n  Port %s\n  User \"%s\"\n", c.name, c.host, c.port, c.user)
	if c.suffix != "" {
		fmt.Fprintf(b, "\nHost *.%s\n  ProxyJump %s\n  User \"%s\"\n", c.suffix, c.name, login)
	}
	return nil
}

// sshQuote quotes a file's name for ssh_config, where % begins what is replaced.
func sshQuote(path string) (string, error) {
	if strings.ContainsAny(path, "\"\n\r$\\") {
		return "", fmt.Errorf("ssh cannot take the file name %q", path)
	}
	return `"` + strings.ReplaceAll(path, "%", "%%") + `"`, nil
}

// ownCommand is a command line for a shell that runs this program again, with what tells
// where the server is. Words that begin with % are ssh's.
func (p *program) ownCommand(words ...string) (string, error) {
	self, err := selfPath(p.name)
	if err != nil {
		return "", fmt.Errorf("finding this program: %w", err)
	}
	line := append(p.ownEnvironment(), shellQuote(self))
	for _, f := range []struct{ name, value, variable string }{
		{"profile", p.flags.profile, "AWS_PROFILE"}, {"region", p.flags.region, "AWS_REGION"},
		{"endpoint-url", p.flags.endpoint, "AWS_ENDPOINT_URL"}, {"ca-bundle", p.flags.bundle, "AWS_CA_BUNDLE"},
	} {
		if value := cmp.Or(f.value, p.getenv(f.variable)); value != "" {
			line = append(line, "--"+f.name+"="+shellQuote(value))
		}
	}
	text := strings.ReplaceAll(strings.Join(line, " "), "%", "%%") + " " + strings.Join(words, " ")
	if strings.ContainsAny(text, "\n\r") {
		return "", errors.New("a name of this command line has a newline, which ssh_config cannot have")
	}
	return text, nil
}

// ownEnvironment sets what no option does, where this shell has it and that of an editor
// that runs ssh may not. Secrets stay out of files.
func (p *program) ownEnvironment() []string {
	var set []string
	for _, name := range []string{"AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"} {
		if value := p.getenv(name); value != "" && runtime.GOOS != "windows" {
			set = append(set, name+"="+shellQuote(value))
		}
	}
	if len(set) > 0 {
		set = append([]string{"env"}, set...)
	}
	return set
}

// writeKnownHosts writes how the front door is recognised: by the host authorities that
// the server has now, and by its own key, so that one of them can be replaced. The patterns are *: the file is used for the front door and its
// nodes alone.
func (p *program) writeKnownHosts(ctx context.Context, files sshFiles) error {
	api, err := p.api(ctx)
	if err != nil {
		return err
	}
	told, err := api.GetSSHAuthorities(ctx)
	if errors.Is(err, client.ErrNotSallyport) {
		return nil
	}
	if err != nil {
		return err
	}
	var b strings.Builder
	for _, a := range told.Authorities {
		marker, known := map[string]string{"host": "@cert-authority ", "gateway": ""}[a.Kind]
		if !known {
			continue
		}
		key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(a.PublicKey))
		if err != nil {
			return fmt.Errorf("reading the host authority %.40q: it is not a public key", a.ID)
		}
		fmt.Fprintf(&b, "%s* %s", marker, ssh.MarshalAuthorizedKey(key))
	}
	_, err = replaceFile(files.knownHosts(), []byte(b.String()), 0o600)
	return err
}

// maxSSHConfig bounds the file that is read, in bytes.
const maxSSHConfig = 4 << 20

// includeInSSHConfig puts an Include line at the beginning of ~/.ssh/config: after a Host
// line it would hold for that host alone. Everything else in the file stays.
func includeInSSHConfig(file string) (config string, changed bool, err error) {
	home, err := os.UserHomeDir()
	if err != nil {
		return "", false, fmt.Errorf("finding the home directory: %w", err)
	}
	dir := filepath.Join(home, ".ssh")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", false, err
	}
	config = filepath.Join(dir, "config")
	target, mode := config, fs.FileMode(0o600)
	if linked, err := filepath.EvalSymlinks(config); err == nil {
		target = linked // people keep it elsewhere
	}
	old, err := os.ReadFile(target)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return config, false, err
	}
	if len(old) > maxSSHConfig {
		return config, false, fmt.Errorf("%s has more than %d bytes", config, maxSSHConfig)
	}
	if info, err := os.Stat(target); err == nil {
		mode = info.Mode().Perm() &^ 0o022 // ssh refuses one that others can write
	}
	quoted, err := sshQuote(file)
	if err != nil {
		return config, false, err
	}
	line := "Include " + quoted
	for l := range strings.SplitSeq(string(old), "\n") {
		if strings.TrimSpace(l) == line {
			return config, false, nil
		}
	}
	changed, err = replaceFile(target, append([]byte(line+"\n"), old...), mode)
	return config, changed, err
}
