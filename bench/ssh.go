package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"time"
)

// sshPair is two private OpenSSH servers on loopback, reached by a key of their own:
// the peer of a session through a gateway is a session through a jump host.
type sshPair struct {
	config string
	user   string
	ports  [2]int
	daemon [2]*started
}

// ssh returns the pair, starting it on first use. Where OpenSSH is not installed the
// error says so.
func (l *lab) ssh(ctx context.Context) (*sshPair, error) {
	if l.jump != nil {
		return l.jump, nil
	}
	p, err := l.newSSHPair(ctx)
	if err != nil {
		return nil, fmt.Errorf("starting sshd: %w", err)
	}
	l.jump = p
	return p, nil
}

// sshd returns the server's path, which must be absolute.
func sshd() (string, error) {
	for _, path := range []string{"/usr/sbin/sshd", "/usr/bin/sshd", "/usr/local/sbin/sshd"} {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", errors.New("OpenSSH's server is not installed (openssh-server)")
}

func (l *lab) newSSHPair(ctx context.Context) (*sshPair, error) {
	u, err := user.Current()
	if err != nil {
		return nil, err
	}
	p := &sshPair{config: l.path("ssh_config"), user: u.Username}
	if err := l.privilegeSeparation(); err != nil {
		return nil, err
	}
	for _, name := range []string{"host", "user"} {
		out, err := exec.CommandContext(ctx, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", l.path("ssh-"+name)).CombinedOutput()
		if err != nil {
			return nil, fmt.Errorf("making keys: %w: %s", err, out)
		}
	}
	for i := range p.ports {
		if p.ports[i], err = freePort(); err != nil {
			return nil, err
		}
		if p.daemon[i], err = l.startSSHD(ctx, i, p.ports[i]); err != nil {
			return nil, err
		}
	}
	return p, p.writeConfig(l)
}

// privilegeSeparation makes the empty folder that sshd demands of root.
func (l *lab) privilegeSeparation() error {
	const dir = "/run/sshd"
	if os.Geteuid() != 0 {
		return nil
	}
	err := os.Mkdir(dir, 0o755)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err == nil {
		l.later(func() { os.Remove(dir) })
	}
	return err
}

func (l *lab) startSSHD(ctx context.Context, i, port int) (*started, error) {
	path, err := sshd()
	if err != nil {
		return nil, err
	}
	shell, err := l.shell()
	if err != nil {
		return nil, err
	}
	config := l.path(fmt.Sprintf("sshd_config%d", i))
	text := fmt.Sprintf(`ListenAddress 127.0.0.1:%d
HostKey %s
AuthorizedKeysFile %s
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
PrintMotd no
PrintLastLog no
MaxStartups 200
MaxSessions 200
LogLevel ERROR
ForceCommand %s
SetEnv HOME=%s
`, port, l.path("ssh-host"), l.path("ssh-user.pub"), shell, l.dir)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	s, err := l.start(exec.Command(path, "-D", "-e", "-f", config), "sshd")
	if err != nil {
		return nil, err
	}
	err = until(ctx, 10*time.Second, "sshd", func() bool {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	if err != nil {
		return nil, s.why(err)
	}
	return s, nil
}

// writeConfig names the servers: "direct" and "behind" are the second one, the
// latter by way of the first, "jump".
func (p *sshPair) writeConfig(l *lab) error {
	text := fmt.Sprintf(`Host *
  HostName 127.0.0.1
  User %s
  IdentityFile %s
  IdentitiesOnly yes
  UserKnownHostsFile /dev/null
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking no
  LogLevel ERROR
Host jump
  Port %d
Host direct behind
  Port %d
Host behind
  ProxyJump jump
`, p.user, l.path("ssh-user"), p.ports[0], p.ports[1])
	return os.WriteFile(p.config, []byte(text), 0o600)
}

// command is ssh with this pair's configuration; without arguments after the host it
// opens a login shell on a terminal.
func (p *sshPair) command(args ...string) *exec.Cmd {
	return exec.Command("ssh", append([]string{"-F", p.config, "-e", "none"}, args...)...)
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(port)
}
