package cli

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"sallyport.dev/client"
)

// renewBefore is how long before its end a certificate is replaced.
const renewBefore = 5 * time.Minute

type sshCertFlags struct {
	key      string
	agent    bool
	lifetime time.Duration
	print    bool
	force    bool
	quiet    bool
}

func (p *program) newSSHCertCommand() *cobra.Command {
	var f sshCertFlags
	cmd := &cobra.Command{
		Use:   "ssh-cert [--key FILE | --agent]",
		Short: "Get a certificate for SSH",
		Long: `Get a short-lived certificate by which the SSH front door knows you, as whoever your
AWS credentials are. It lasts for 8 hours, or as long as the credentials if that is less.

The key is one of sallyport's own, in ~/.sallyport/ssh/PROFILE, or the one that --key
names. --agent puts a new key and its certificate into the running ssh-agent, for as long
as the certificate lasts, and writes no file. A certificate that is still good is not
asked for again: sallyport ssh-config lets ssh run this command each time.`,
		Example: `  sallyport ssh-cert
  sallyport ssh-cert --key ~/.ssh/id_ed25519_sk
  sallyport ssh-cert --agent --lifetime 1h
  ssh-keygen -L -f <(sallyport ssh-cert --print)`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.sshCert(cmd.Context(), f) },
	}
	fs := cmd.Flags()
	fs.StringVar(&f.key, "key", "", "certify the key in `FILE`")
	fs.BoolVar(&f.agent, "agent", false, "put a new key and its certificate into the ssh-agent")
	fs.DurationVar(&f.lifetime, "lifetime", 0, "how long it is to last, 12h at most")
	fs.BoolVar(&f.print, "print", false, "print the certificate itself")
	fs.BoolVar(&f.force, "force", false, "get a new one, also where there is one")
	fs.BoolVarP(&f.quiet, "quiet", "q", false, "print nothing if it went well")
	return cmd
}

// issuedSSH is what the command tells of a certificate.
type issuedSSH struct {
	Certificate string    `json:"certificate,omitempty"` // file
	Key         string    `json:"key,omitempty"`         // file
	Agent       bool      `json:"agent,omitempty"`
	Principal   string    `json:"principal"`
	Principals  []string  `json:"principals"`
	ValidBefore time.Time `json:"validBefore"`
	New         bool      `json:"new"`

	line string
}

func (p *program) sshCert(ctx context.Context, f sshCertFlags) error {
	switch {
	case f.agent && f.key != "":
		return usagef("give either --key or --agent")
	case f.lifetime < 0 || f.lifetime > 12*time.Hour:
		return usagef("--lifetime %v: want 12h at most", f.lifetime)
	}
	issued, err := p.certify(ctx, f)
	if err != nil {
		return err
	}
	switch {
	case f.quiet:
		return nil
	case f.print:
		_, err = fmt.Fprintln(p.stdout, issued.line)
		return err
	case p.flags.json:
		return p.writeJSON(issued)
	}
	where := issued.Certificate
	if issued.Agent {
		where = "in the ssh-agent"
	}
	_, err = fmt.Fprintf(p.stdout, "certificate  %s\nfor          %s\nuntil        %s\n",
		where, client.CleanLine(issued.Principal), issued.ValidBefore.Local().Format(time.DateTime))
	return err
}

func (p *program) certify(ctx context.Context, f sshCertFlags) (*issuedSSH, error) {
	if f.agent {
		return p.certifyInAgent(ctx, f)
	}
	files, err := p.sshFiles()
	if err != nil {
		return nil, err
	}
	if f.key != "" {
		return p.certifyFile(ctx, f, strings.TrimSuffix(f.key, ".pub"))
	}
	if err := makeSSHKey(files.key()); err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	return p.certifyOwn(ctx, f, files)
}

// sshNote tells what a certificate was asked for with. One of an access key that is not
// used any more, or of another server, is not good any longer, though it has not ended.
type sshNote struct {
	Endpoint  string `json:"endpoint,omitempty"`
	AccessKey string `json:"accessKey,omitempty"` // long-lived ones only
	SignIn    string `json:"signIn,omitempty"`    // where sallyport login is used without a profile
}

func (p *program) certifyOwn(ctx context.Context, f sshCertFlags, files sshFiles) (*issuedSSH, error) {
	api, err := p.api(ctx)
	if err != nil {
		return nil, err
	}
	now := sshNote{Endpoint: api.Endpoint(), SignIn: p.signIn}
	if id, err := api.AccessKeyID(ctx); err == nil && strings.HasPrefix(id, "AKIA") {
		now.AccessKey = id
	}
	var before sshNote
	if b, err := os.ReadFile(files.note()); err == nil {
		_ = json.Unmarshal(b, &before) // what cannot be read is another
	}
	f.force = f.force || before != now
	issued, err := p.certifyFile(ctx, f, files.key())
	if err != nil || !issued.New {
		return issued, err
	}
	b, err := json.Marshal(now)
	if err == nil {
		_, err = replaceFile(files.note(), append(b, '\n'), 0o600)
	}
	if err != nil {
		return nil, err
	}
	return issued, p.writeKnownHosts(ctx, files)
}

// certifyFile certifies the key in a file, unless it has a certificate that is good.
func (p *program) certifyFile(ctx context.Context, f sshCertFlags, path string) (*issuedSSH, error) {
	key, err := readPublicKey(path)
	if err != nil {
		return nil, err
	}
	file := path + "-cert.pub"
	if b, err := os.ReadFile(file); err == nil && !f.force {
		if cert, err := parseCertificate(b, key); err == nil && lasts(cert, f.lifetime) {
			return told(cert, file, path), nil
		}
	}
	cert, err := p.issue(ctx, key, f.lifetime)
	if err != nil {
		return nil, err
	}
	if _, err := replaceFile(file, ssh.MarshalAuthorizedKey(cert), 0o600); err != nil {
		return nil, err
	}
	issued := told(cert, file, path)
	issued.New = true
	return issued, nil
}

// lasts reports whether a certificate is good for a while, and not for longer than was
// asked for now.
func lasts(cert *ssh.Certificate, lifetime time.Duration) bool {
	left := time.Until(time.Unix(int64(cert.ValidBefore), 0))
	return left > renewBefore && (lifetime == 0 || left <= lifetime)
}

func told(cert *ssh.Certificate, file, key string) *issuedSSH {
	return &issuedSSH{
		Certificate: file, Key: key, Principal: cert.KeyId, Principals: cert.ValidPrincipals,
		ValidBefore: time.Unix(int64(cert.ValidBefore), 0), line: strings.TrimSpace(string(ssh.MarshalAuthorizedKey(cert))),
	}
}

// issue asks for a certificate of a key and checks that it is one.
func (p *program) issue(ctx context.Context, key ssh.PublicKey, lifetime time.Duration) (*ssh.Certificate, error) {
	api, err := p.api(ctx)
	if err != nil {
		return nil, err
	}
	out, err := api.IssueSSHCertificate(ctx, client.IssueSSHCertificateInput{
		PublicKey: strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))), Lifetime: int(lifetime / time.Second),
	})
	if err != nil {
		return nil, err
	}
	cert, err := parseCertificate([]byte(out.Certificate), key)
	if err != nil {
		return nil, fmt.Errorf("reading the certificate: %w", err)
	}
	return cert, nil
}

// parseCertificate reads a user certificate of a key.
func parseCertificate(line []byte, key ssh.PublicKey) (*ssh.Certificate, error) {
	parsed, _, _, _, err := ssh.ParseAuthorizedKey(line)
	if err != nil {
		return nil, err
	}
	cert, ok := parsed.(*ssh.Certificate)
	switch {
	case !ok || cert.CertType != ssh.UserCert:
		return nil, errors.New("it is not a certificate for users")
	case !bytes.Equal(cert.Key.Marshal(), key.Marshal()):
		return nil, errors.New("it is for another key")
	}
	return cert, nil
}

// makeSSHKey makes an Ed25519 key in a file with mode 0600, unless there is one.
func makeSSHKey(path string) error {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	block, err := ssh.MarshalPrivateKey(private, "sallyport")
	if err != nil {
		return err
	}
	public, err := ssh.NewPublicKey(private.Public())
	if err != nil {
		return err
	}
	return writeSSHKey(path, pem.EncodeToMemory(block), ssh.MarshalAuthorizedKey(public))
}

// writeSSHKey writes a key pair. Of programs that do so at the same time one wins; the
// others take its key.
func writeSSHKey(path string, private, public []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".key-*") // made with mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(private)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil
		}
		return err
	}
	_, err = replaceFile(path+".pub", public, 0o644)
	return err
}

// readPublicKey reads the public key of a private key's file: from FILE.pub, or from
// the private key if it is not encrypted.
func readPublicKey(path string) (ssh.PublicKey, error) {
	b, err := os.ReadFile(path + ".pub")
	if err == nil {
		key, _, _, _, err := ssh.ParseAuthorizedKey(b)
		if err != nil {
			return nil, fmt.Errorf("reading %s.pub: it holds no public key", path)
		}
		return key, nil
	}
	if b, err = os.ReadFile(path); err != nil {
		return nil, fmt.Errorf("reading the key: %w", err)
	}
	signer, err := ssh.ParsePrivateKey(b)
	if missing := (*ssh.PassphraseMissingError)(nil); errors.As(err, &missing) && missing.PublicKey != nil {
		return missing.PublicKey, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: it holds no private key that can be read, and there is no %[1]s.pub", path)
	}
	return signer.PublicKey(), nil
}

// agentComment marks keys that this program has put into the agent.
func (p *program) agentComment() string { return "sallyport " + p.profileName() }

// certifyInAgent puts a key that is nowhere else into the ssh-agent.
func (p *program) certifyInAgent(ctx context.Context, f sshCertFlags) (*issuedSSH, error) {
	socket := p.getenv("SSH_AUTH_SOCK")
	if socket == "" {
		return nil, errors.New("no ssh-agent is running: SSH_AUTH_SOCK is not set")
	}
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil, fmt.Errorf("asking the ssh-agent: %w", err)
	}
	defer conn.Close()
	keys := agent.NewClient(conn)
	if cert := p.inAgent(keys); cert != nil && !f.force && lasts(cert, f.lifetime) {
		return inAgent(cert), nil
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		return nil, err
	}
	cert, err := p.issue(ctx, key, f.lifetime)
	if err != nil {
		return nil, err
	}
	left := max(time.Until(time.Unix(int64(cert.ValidBefore), 0)), time.Second)
	err = keys.Add(agent.AddedKey{
		PrivateKey: private, Certificate: cert, Comment: p.agentComment(), LifetimeSecs: uint32(left / time.Second),
	})
	if err != nil {
		return nil, fmt.Errorf("adding the key to the ssh-agent: %w", err)
	}
	issued := inAgent(cert)
	issued.New = true
	return issued, nil
}

func inAgent(cert *ssh.Certificate) *issuedSSH {
	issued := told(cert, "", "")
	issued.Agent = true
	return issued
}

// inAgent finds the newest certificate that this program has put into the agent.
func (p *program) inAgent(keys agent.ExtendedAgent) (newest *ssh.Certificate) {
	all, err := keys.List()
	if err != nil {
		return nil
	}
	for _, k := range all {
		parsed, err := ssh.ParsePublicKey(k.Blob)
		cert, ok := parsed.(*ssh.Certificate)
		if err != nil || !ok || k.Comment != p.agentComment() {
			continue
		}
		if newest == nil || cert.ValidBefore > newest.ValidBefore {
			newest = cert
		}
	}
	return newest
}
