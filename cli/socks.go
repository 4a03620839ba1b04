package cli

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
)

// SOCKS version 5 (RFC 1928), as far as forwards need it: CONNECT without
// authentication. What it asks for is resolved on the node.

const (
	socksVersion = 5
	socksConnect = 1

	socksNoAuthentication = 0
	socksNoneAcceptable   = 0xff

	socksIPv4 = 1
	socksName = 3
	socksIPv6 = 4
)

// Replies of RFC 1928 §6.
const (
	socksSucceeded         = 0
	socksFailure           = 1
	socksNotAllowed        = 2
	socksRefused           = 5
	socksUnknownCommand    = 7
	socksUnknownAddressing = 8
)

// socksError is a request that is answered with a reply and nothing else.
type socksError struct {
	reply byte
	text  string
}

func (e *socksError) Error() string { return "SOCKS: " + e.text }

// socksRequest does the greeting and reads the request. Every length in it fits in a
// byte, so nothing needs another bound. The caller answers it with socksReply.
func socksRequest(rw io.ReadWriter) (target, error) {
	if err := socksGreeting(rw); err != nil {
		return target{}, err
	}
	var head [4]byte // version, command, reserved, kind of address
	if _, err := io.ReadFull(rw, head[:]); err != nil {
		return target{}, fmt.Errorf("SOCKS: reading the request: %w", err)
	}
	if head[0] != socksVersion {
		return target{}, fmt.Errorf("SOCKS: the request has version %d", head[0])
	}
	if head[1] != socksConnect {
		return target{}, &socksError{socksUnknownCommand, "only CONNECT is served"}
	}
	host, err := socksAddress(rw, head[3])
	if err != nil {
		return target{}, err
	}
	var port [2]byte
	if _, err := io.ReadFull(rw, port[:]); err != nil {
		return target{}, fmt.Errorf("SOCKS: reading the port: %w", err)
	}
	t := target{host: host, port: strconv.Itoa(int(binary.BigEndian.Uint16(port[:])))}
	if t.port == "0" || !remoteHost.MatchString(t.host) {
		return target{}, &socksError{socksFailure, fmt.Sprintf("%q is nothing to connect to", t.String())}
	}
	if t.host == "localhost" {
		t.host = ""
	}
	return t, nil
}

func socksGreeting(rw io.ReadWriter) error {
	var head [2]byte // version, number of methods
	if _, err := io.ReadFull(rw, head[:]); err != nil {
		return fmt.Errorf("SOCKS: reading the greeting: %w", err)
	}
	if head[0] != socksVersion {
		return fmt.Errorf("SOCKS: version %d is not served, only 5", head[0])
	}
	methods := make([]byte, head[1])
	if _, err := io.ReadFull(rw, methods); err != nil {
		return fmt.Errorf("SOCKS: reading the greeting: %w", err)
	}
	for _, m := range methods {
		if m == socksNoAuthentication {
			_, err := rw.Write([]byte{socksVersion, socksNoAuthentication})
			return err
		}
	}
	rw.Write([]byte{socksVersion, socksNoneAcceptable})
	return errors.New("SOCKS: the program insists on a password")
}

func socksAddress(r io.Reader, kind byte) (string, error) {
	size := [1]byte{}
	switch kind {
	case socksIPv4:
		size[0] = 4
	case socksIPv6:
		size[0] = 16
	case socksName:
		if _, err := io.ReadFull(r, size[:]); err != nil {
			return "", fmt.Errorf("SOCKS: reading the address: %w", err)
		}
	default:
		return "", &socksError{socksUnknownAddressing, fmt.Sprintf("addresses of kind %d are not served", kind)}
	}
	b := make([]byte, size[0])
	if _, err := io.ReadFull(r, b); err != nil {
		return "", fmt.Errorf("SOCKS: reading the address: %w", err)
	}
	if kind == socksName {
		return string(b), nil
	}
	ip, _ := netip.AddrFromSlice(b)
	return ip.String(), nil
}

// socksReply answers a request. The address that is bound is on the node and nobody's
// business.
func socksReply(w io.Writer, reply byte) error {
	_, err := w.Write([]byte{socksVersion, reply, 0, socksIPv4, 0, 0, 0, 0, 0, 0})
	return err
}
