package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"

	"sallyport.dev/identity"
	"sallyport.dev/member"
)

// devSuffix is the domain that the dev server's nodes appear under by SSH. It is in no
// DNS; ssh reaches it through the front door.
const devSuffix = "dev.internal"

// writeSSH gives each sample user an SSH key, registers it, and writes a configuration
// for stock ssh into DIR/ssh.
func (d devFiles) writeSSH(ctx context.Context, m *member.Member) error {
	if m.SSHAddress() == "" {
		return nil
	}
	if err := os.MkdirAll(d.path("ssh"), 0o700); err != nil {
		return err
	}
	for _, u := range sampleUsers {
		if err := d.writeSSHKey(ctx, m, u.name); err != nil {
			return fmt.Errorf("key of %s: %w", u.name, err)
		}
		if err := d.writeSSHConfig(m, u.name); err != nil {
			return err
		}
	}
	return d.writeKnownHosts(ctx, m)
}

func (d devFiles) writeSSHKey(ctx context.Context, m *member.Member, user string) error {
	path := d.path("ssh", user)
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	block, err := ssh.MarshalPrivateKey(private, user)
	if err != nil {
		return err
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		return err
	}
	line := string(bytes.TrimSpace(ssh.MarshalAuthorizedKey(key)))
	if err := m.RegisterSSHKey(ctx, user, line); err != nil {
		return err
	}
	if err := writeFile(path+".pub", line+" "+user+"\n", 0o600); err != nil {
		return err
	}
	return writeFile(path, string(pem.EncodeToMemory(block)), 0o600)
}

// writeSSHConfig writes DIR/ssh/USER.config; that of alice is DIR/ssh/config, too.
func (d devFiles) writeSSHConfig(m *member.Member, user string) error {
	host, port, err := net.SplitHostPort(m.SSHAddress())
	if err != nil {
		return err
	}
	text := fmt.Sprintf(`# ssh -F this frontend-1.%[1]s, or frontend-1@gateway
Host gateway
  HostName %[2]s
  Port %[3]s
Host *.%[1]s
  User %[4]s
  ProxyJump %[4]s@gateway
Host *
  IdentityFile %[5]s
  IdentitiesOnly yes
  UserKnownHostsFile %[6]s
  StrictHostKeyChecking yes
`, devSuffix, host, port, user, sshConfigQuote(d.path("ssh", user)), sshConfigQuote(d.path("ssh", "known_hosts")))
	if user == "alice" {
		if err := writeFile(d.path("ssh", "config"), text, 0o600); err != nil {
			return err
		}
	}
	return writeFile(d.path("ssh", user+".config"), text, 0o600)
}

// sshConfigQuote writes a path for ssh_config, where % begins what is replaced.
func sshConfigQuote(path string) string {
	return `"` + strings.NewReplacer("%", "%%", `"`, `\"`).Replace(path) + `"`
}

func (d devFiles) writeKnownHosts(ctx context.Context, m *member.Member) error {
	all, err := m.Store.SSHAuthorities(ctx, identity.SSHHosts)
	if err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(m.SSHAddress())
	if err != nil {
		return err
	}
	var b strings.Builder
	for _, a := range all {
		fmt.Fprintf(&b, "@cert-authority [%s]:%s,*.%s %s\n", host, port, devSuffix, a.PublicKey)
	}
	return writeFile(d.path("ssh", "known_hosts"), b.String(), 0o600)
}

// sshTour tells how to use the front door.
func sshTour(o devOptions, m *member.Member) string {
	if m.SSHAddress() == "" {
		return ""
	}
	config := filepath.Join(o.dir, "ssh", "config")
	return fmt.Sprintf(`  # by SSH, with nothing of ours installed; scp, sftp and rsync work alike
  ssh -F %s frontend-1.%s

`, shellQuoteIfNeeded(config), devSuffix)
}
