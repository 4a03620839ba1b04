package cli

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path"
	"regexp"
	"strconv"
	"strings"
	"unicode"
)

// loopback is where forwards listen unless told otherwise: other machines cannot reach
// it, and other users of this machine can.
const loopback = "127.0.0.1"

// forwardSpec is one forward as it is typed: [[BIND:]LOCAL:][HOST:]PORT, or a path in
// place of either end.
type forwardSpec struct {
	network string // tcp or unix, of the local end
	bind    string // address to listen on, for tcp
	local   string // port to listen on, 0 for any; or the path of a socket
	host    string // as the node knows it; empty for the node itself
	port    string
	socket  string // path on the node, in place of host and port
}

var (
	// remoteHost is what the documents of port sessions allow.
	remoteHost = regexp.MustCompile(`^[A-Za-z0-9:][A-Za-z0-9._:%-]{0,254}$`)
	portNumber = regexp.MustCompile(`^[0-9]{1,5}$`)
	errSpec    = errors.New("want PORT, HOST:PORT, LOCAL:HOST:PORT, BIND:LOCAL:HOST:PORT or LOCAL:/SOCKET, with IPv6 addresses in brackets")
)

// maxSocketPath is how long the path of a unix socket may be on the least of systems, in
// bytes.
const maxSocketPath = 103

// parseForward reads what is typed of one forward.
func parseForward(text string) (forwardSpec, error) {
	parts, err := specParts(text)
	if err != nil {
		return forwardSpec{}, fmt.Errorf("forward %q: %w", text, err)
	}
	s, err := specOf(parts)
	if err == nil {
		err = s.check()
	}
	if err != nil {
		return forwardSpec{}, fmt.Errorf("forward %q: %w", text, err)
	}
	return s, nil
}

// specParts splits at colons outside of brackets, and takes the brackets off.
func specParts(text string) ([]string, error) {
	var parts []string
	for rest := text; ; {
		var part string
		if strings.HasPrefix(rest, "[") {
			end := strings.IndexByte(rest, ']')
			if end < 0 {
				return nil, errors.New("a bracket is not closed")
			}
			part, rest = rest[1:end], rest[end+1:]
			if _, err := netip.ParseAddr(part); err != nil || rest != "" && rest[0] != ':' {
				return nil, errSpec
			}
		} else {
			end := strings.IndexByte(rest, ':')
			if end < 0 {
				end = len(rest)
			}
			part, rest = rest[:end], rest[end:]
		}
		parts = append(parts, part)
		if rest == "" {
			return parts, nil
		}
		rest = rest[1:]
	}
}

// specOf tells the parts' meanings by their number and by which are ports.
func specOf(parts []string) (forwardSpec, error) {
	s := forwardSpec{network: "tcp", bind: loopback}
	if isPath(parts[0]) {
		s.network, s.bind, s.local = "unix", "", parts[0]
		parts = parts[1:]
	}
	if len(parts) == 0 || len(parts) > 4 || s.network == "unix" && len(parts) > 2 {
		return s, errSpec
	}
	if s.port = parts[len(parts)-1]; strings.HasPrefix(s.port, "/") {
		s.port, s.socket = "", s.port
	}
	parts = parts[:len(parts)-1]
	if s.socket != "" && s.network == "unix" && len(parts) > 0 {
		return s, errSpec
	}
	switch {
	case len(parts) == 0:
	case len(parts) == 1 && s.network == "tcp" && portNumber.MatchString(parts[0]):
		s.local = parts[0]
	case len(parts) == 1:
		s.host = parts[0]
	case len(parts) == 2 && portNumber.MatchString(parts[0]):
		s.local, s.host = parts[0], parts[1]
	case len(parts) == 2 && portNumber.MatchString(parts[1]):
		s.bind, s.local = parts[0], parts[1]
	case len(parts) == 3:
		s.bind, s.local, s.host = parts[0], parts[1], parts[2]
	default:
		return s, errSpec
	}
	if s.socket != "" && (s.host != "" || s.local == "") {
		return s, errors.New("a socket of the node goes with a local port or socket, and no host: LOCAL:/PATH")
	}
	if s.network == "tcp" && s.local == "" {
		s.local = s.port
	}
	return s, nil
}

func isPath(s string) bool { return strings.HasPrefix(s, "/") || strings.HasPrefix(s, "./") }

func (s *forwardSpec) check() error {
	if n, err := strconv.Atoi(s.port); s.socket == "" && (!portNumber.MatchString(s.port) || err != nil || n < 1 || n > 65535) {
		return fmt.Errorf("port %q: want 1 to 65535", s.port)
	}
	if s.network == "unix" {
		if len(s.local) > maxSocketPath {
			return fmt.Errorf("the path of a socket may have %d bytes", maxSocketPath)
		}
	} else if err := s.checkListen(); err != nil {
		return err
	}
	if s.socket != "" {
		return s.checkSocket()
	}
	if s.host != "" && !remoteHost.MatchString(s.host) {
		return fmt.Errorf("host %q: want a name or an address", s.host)
	}
	if s.host == "localhost" {
		s.host = ""
	}
	return nil
}

func (s *forwardSpec) checkSocket() error {
	if len(s.socket) > maxSocketPath || path.Clean(s.socket) != s.socket || strings.ContainsFunc(s.socket, unicode.IsControl) {
		return fmt.Errorf("socket %q: want a plain absolute path of at most %d bytes", s.socket, maxSocketPath)
	}
	return nil
}

func (s *forwardSpec) checkListen() error {
	if n, err := strconv.Atoi(s.local); !portNumber.MatchString(s.local) || err != nil || n > 65535 {
		return fmt.Errorf("local port %q: want 0 (any free one) to 65535", s.local)
	}
	switch {
	case s.bind == "*":
		s.bind = ""
	case s.bind == "localhost":
		s.bind = loopback
	default:
		if _, err := netip.ParseAddr(s.bind); err != nil {
			return fmt.Errorf("address to listen on %q: want an address, localhost or *; IPv6 addresses stand in brackets", s.bind)
		}
	}
	return nil
}

// parseSOCKS reads [ADDR:]PORT of --socks.
func parseSOCKS(text string) (forwardSpec, error) {
	parts, err := specParts(text)
	if err == nil && len(parts) > 2 {
		err = errSpec
	}
	s := forwardSpec{network: "tcp", bind: loopback}
	if err == nil {
		s.local = parts[len(parts)-1]
		if len(parts) == 2 {
			s.bind = parts[0]
		}
		err = s.checkListen()
	}
	if err != nil {
		return s, fmt.Errorf("--socks %q: want [ADDRESS:]PORT: %w", text, err)
	}
	return s, nil
}

// address is what to listen on.
func (s forwardSpec) address() string {
	if s.network == "unix" {
		return s.local
	}
	return net.JoinHostPort(s.bind, s.local)
}

// exposed reports whether other machines may reach what listens here.
func (s forwardSpec) exposed() bool {
	if s.network == "unix" {
		return false
	}
	ip, err := netip.ParseAddr(s.bind)
	return err != nil || !ip.IsLoopback()
}

// target is what the node dials.
func (s forwardSpec) target() target { return target{s.host, s.port, s.socket} }

// target is one end that sessions forward to.
type target struct {
	host   string // empty for the node itself
	port   string
	socket string // path on the node, in place of both
}

func (t target) String() string {
	if t.socket != "" {
		return t.socket
	}
	if t.host == "" {
		return "port " + t.port
	}
	return net.JoinHostPort(t.host, t.port)
}

// why is what asks why about a session to the target: the document, and words.
func (t target) why() (document string, more []string) {
	document, _ = t.document()
	switch {
	case t.socket != "":
		more = []string{"--parameters", "unixSocket=" + t.socket}
	case t.host != "":
		more = []string{"--parameters", "host=" + t.host + ",portNumber=" + t.port}
	}
	return document, more
}

// document is the one that forwards to the target, with its parameters.
func (t target) document() (name string, parameters map[string][]string) {
	if t.socket != "" {
		return "Sallyport-StartPortForwardingSessionToNodeSocket", map[string][]string{"unixSocket": {t.socket}}
	}
	parameters = map[string][]string{"portNumber": {t.port}, "localPortNumber": {"0"}}
	if t.host == "" {
		return "AWS-StartPortForwardingSession", parameters
	}
	parameters["host"] = []string{t.host}
	return "AWS-StartPortForwardingSessionToRemoteHost", parameters
}
