package member

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"regexp"

	"sallyport.dev/client"
	"sallyport.dev/frontdoor"
	"sallyport.dev/internal/build"
	"sallyport.dev/server"
)

// SSH opens the SSH front door.
type SSH struct {
	// Listen is the address of the SSH listener, such as ":2222".
	Listen string `hcl:"listen"`
	// Address is HOST:PORT as people reach it: what "sallyport ssh-config" writes, and
	// what the host certificate is for. Listen by default, with this machine's name
	// where that has none.
	Address string `hcl:"address,optional"`
	// Names are further host names and addresses by which people reach it.
	Names []string `hcl:"names,optional"`
	// Suffix is the domain under which nodes appear, such as nodes.example.com:
	// "ssh NODE.SUFFIX" through this gateway. Nothing has to be in DNS. None by default.
	Suffix string `hcl:"suffix,optional"`
	// Environment are the environment variables that people may set, * at the end
	// standing for any rest: LANG, LC_*, TERM and COLORTERM by default. What decides
	// which code runs (PATH, LD_*, …) is never let through.
	Environment []string `hcl:"environment,optional"`
	// RecordLimit bounds what is recorded of each command without a terminal, in MiB per
	// direction; 16 by default. Beyond it, number and SHA-256 of the bytes are kept.
	RecordLimit int `hcl:"record_limit_mib,optional"`
}

const maxRecordLimit = 1 << 20 // MiB

var (
	suffixPattern   = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$`)
	variablePattern = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*\*?$`)
)

func (s *SSH) check() error {
	if s == nil {
		return nil
	}
	if _, _, err := net.SplitHostPort(s.Listen); err != nil {
		return fmt.Errorf("ssh.listen: %q is not HOST:PORT", s.Listen)
	}
	if s.Address != "" {
		if host, port, err := net.SplitHostPort(s.Address); err != nil || host == "" || port == "" {
			return fmt.Errorf("ssh.address: %q is not HOST:PORT", s.Address)
		}
	}
	if s.Suffix != "" && (!suffixPattern.MatchString(s.Suffix) || len(s.Suffix) > 200) {
		return fmt.Errorf("ssh.suffix: %q is not a domain in lower case, such as nodes.example.com", s.Suffix)
	}
	for _, name := range s.Environment {
		if !variablePattern.MatchString(name) {
			return fmt.Errorf("ssh.environment: %q is not a variable's name, with or without * at its end", name)
		}
	}
	if s.RecordLimit < 0 || s.RecordLimit > maxRecordLimit {
		return fmt.Errorf("ssh.record_limit_mib: %d is not between 0 and %d", s.RecordLimit, maxRecordLimit)
	}
	return nil
}

// recordLimit is in bytes, 0 for the default.
func (s *SSH) recordLimit() int64 {
	if s == nil {
		return 0
	}
	return int64(s.RecordLimit) << 20
}

// listenSSH opens the address of the front door; it is not served yet.
func (m *Member) listenSSH() (err error) {
	if m.cfg.SSH == nil {
		return nil
	}
	if m.ssh, err = net.Listen("tcp", m.cfg.SSH.Listen); err != nil {
		return fmt.Errorf("listening on %s: %w", m.cfg.SSH.Listen, err)
	}
	return nil
}

// sshGateway says where people find the front door.
func (m *Member) sshGateway() server.SSHGateway {
	if m.ssh == nil {
		return server.SSHGateway{}
	}
	return server.SSHGateway{Address: m.SSHAddress(), Suffix: m.cfg.SSH.Suffix}
}

// SSHAddress is HOST:PORT of the front door as people reach it; empty if there is none.
func (m *Member) SSHAddress() string {
	if m.ssh == nil {
		return ""
	}
	if m.cfg.SSH.Address != "" {
		return m.cfg.SSH.Address
	}
	listen := m.ssh.Addr().(*net.TCPAddr)
	host, _, _ := net.SplitHostPort(m.cfg.SSH.Listen) // was checked
	if host == "" || listen.IP.IsUnspecified() {
		host, _ = os.Hostname()
	}
	return net.JoinHostPort(cmp.Or(host, "localhost"), fmt.Sprint(listen.Port))
}

// openDoor makes the front door ready to serve.
func (m *Member) openDoor(ctx context.Context, peers *tls.Config) (err error) {
	if m.ssh == nil {
		return nil
	}
	host, _, err := net.SplitHostPort(m.SSHAddress())
	if err != nil {
		return err
	}
	cfg := frontdoor.Config{
		Server: m.api, Gateway: m.gateway, Logger: m.log, Now: m.cfg.Now,
		Names: append([]string{host}, m.cfg.SSH.Names...), Suffix: m.cfg.SSH.Suffix, Environment: m.cfg.SSH.Environment,
	}
	if m.access != nil {
		cfg.Access = m.access
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsLoopback() {
		cfg.Names = append(cfg.Names, "localhost")
	}
	if peers != nil {
		cfg.Dial = client.Dialer(peers, "sallyportd/"+build.Version())
	}
	m.door, err = frontdoor.New(ctx, cfg)
	return err
}

func (m *Member) serveSSH() {
	if m.door == nil {
		return
	}
	m.running.Go(func() {
		if err := m.door.Serve(m.ssh); err != nil {
			select {
			case m.failed <- fmt.Errorf("serving SSH on %s: %w", m.ssh.Addr(), err):
			default:
			}
		}
	})
}

// closeSSH accepts no more connections; closeDoor ends those that there are, after the
// gateway has told their sessions.
func (m *Member) closeSSH() error {
	if m.ssh == nil {
		return nil
	}
	return ignoreClosed(m.ssh.Close())
}

func (m *Member) closeDoor(ctx context.Context) error {
	if m.door == nil {
		return nil
	}
	if err := m.door.Close(ctx); err != nil {
		return fmt.Errorf("closing SSH connections: %w", err)
	}
	return nil
}
