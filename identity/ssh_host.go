package identity

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// Limits of host certificates. They are made when a connection asks for them, so that
// none has to live long; people's clocks may be an hour behind.
const (
	hostLifetime = 24 * time.Hour
	hostBackdate = time.Hour
	// maxHosts bounds the certificates that are kept; a full map is emptied.
	maxHosts = 4096
)

type hostCertificate struct {
	signer ssh.Signer
	keys   string // ids of the authority and of the host key
	renew  time.Time
}

// HostKey returns the gateway's own host key, the same on every member: for people who
// do not trust the host authority, and know the gateway by its key.
func (s *SSH) HostKey(ctx context.Context) (ssh.Signer, error) {
	key, _, err := s.signs(ctx, SSHGateway)
	return key, err
}

// HostSigner returns the gateway's host key with a certificate for host names, which
// may begin with "*." as OpenSSH reads it. Certificates are kept and renewed.
func (s *SSH) HostSigner(ctx context.Context, names []string) (ssh.Signer, error) {
	if len(names) == 0 || slices.Contains(names, "") {
		return nil, errors.New("certifying a host: it needs names, or it would be every host")
	}
	names = slices.Sorted(slices.Values(names))
	authority, id, err := s.signs(ctx, SSHHosts)
	if err != nil {
		return nil, err
	}
	host, hostID, err := s.signs(ctx, SSHGateway)
	if err != nil {
		return nil, err
	}
	now, key, keys := s.config.Now(), strings.Join(names, "\n"), id+"/"+hostID
	s.mu.Lock()
	kept, ok := s.hosts[key]
	s.mu.Unlock()
	if ok && kept.keys == keys && now.Before(kept.renew) {
		return kept.signer, nil
	}
	signer, err := certifyHost(authority, host, names, now)
	if err != nil {
		return nil, fmt.Errorf("certifying a host: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.hosts) >= maxHosts {
		clear(s.hosts)
	}
	s.hosts[key] = hostCertificate{signer, keys, now.Add(hostLifetime / 2)}
	return signer, nil
}

func certifyHost(authority, host ssh.Signer, names []string, now time.Time) (ssh.Signer, error) {
	cert := &ssh.Certificate{
		Key: host.PublicKey(), Serial: newSerial(), CertType: ssh.HostCert, KeyId: "sallyport", ValidPrincipals: names,
		ValidAfter: uint64(now.Add(-hostBackdate).Unix()), ValidBefore: uint64(now.Add(hostLifetime).Unix()),
	}
	if err := cert.SignCert(rand.Reader, authority); err != nil {
		return nil, err
	}
	return ssh.NewCertSigner(cert, host)
}
