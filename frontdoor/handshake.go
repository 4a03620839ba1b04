package frontdoor

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport.dev/access"
	"sallyport.dev/client"
	"sallyport.dev/identity"
)

const (
	// serverVersion begins as it does because OpenSSH's client tells only servers of that
	// name when nobody takes its output any more (eow@openssh.com).
	serverVersion = "SSH-2.0-OpenSSH_compatible_Sallyport"
	// maxTries bounds the keys that are refused in one connection: agents offer many.
	// maxOffers bounds all questions about keys, those answered well included.
	maxTries  = 10
	maxOffers = 64
	// minRSA is the least size of RSA keys, in bits.
	minRSA = 2048
)

// proven is what one authentication attempt has shown. It travels in the permissions of
// that attempt, so that what was said about another key or under another user name
// cannot stand in for it.
type proven struct {
	user      string // SSH user name
	key       ssh.PublicKey
	person    string // for asking again
	principal identity.Principal
	target    userName
	mayPTY    bool
	mayPort   bool
	mayAgent  bool
	expires   time.Time // zero for never
}

type provenKey struct{}

// handshake is one connection until its person has proven who they are.
type handshake struct {
	door   *Door
	conn   net.Conn
	names  []string // of the host certificate
	origin access.Origin
	places chan struct{} // of the connection's channels
	// Of a connection to NODE.SUFFIX, through another one: the node, and the person of
	// the outer connection.
	node, outer string

	offers  int // by the handshake's goroutine alone
	told    bool
	refusal error // the last one
	timeout atomic.Bool
}

var (
	errOffers = errors.New("too many keys were offered")
	errLate   = errors.New("authentication took too long")
)

// run does the handshake. The context is that of the door.
func (h *handshake) run(ctx context.Context) (*connection, error) {
	ctx, cancel := context.WithTimeout(ctx, h.door.cfg.HandshakeTimeout)
	defer cancel()
	// Not every connection knows deadlines; all can be closed.
	stop := context.AfterFunc(ctx, func() { h.timeout.Store(true); h.conn.Close() })
	defer stop()
	config, err := h.config(ctx)
	if err != nil {
		return nil, err
	}
	sc, channels, requests, err := ssh.NewServerConn(h.conn, config)
	if err != nil {
		return nil, err
	}
	p, ok := sc.Permissions.ExtraData[provenKey{}].(*proven)
	if !ok || p.user != sc.User() || !stop() {
		sc.Close()
		return nil, errLate
	}
	h.origin.UserAgent = client.Clean(string(sc.ClientVersion()))
	return newConnection(h, sc, channels, requests, p), nil
}

func (h *handshake) config(ctx context.Context) (*ssh.ServerConfig, error) {
	algorithms := ssh.SupportedAlgorithms()
	config := &ssh.ServerConfig{
		Config:                  ssh.Config{KeyExchanges: algorithms.KeyExchanges, Ciphers: algorithms.Ciphers, MACs: algorithms.MACs},
		PublicKeyAuthAlgorithms: algorithms.PublicKeyAuths,
		MaxAuthTries:            maxTries,
		ServerVersion:           serverVersion,
		PublicKeyCallback: func(meta ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			return h.offered(ctx, meta, key)
		},
	}
	certified, err := h.door.cfg.Server.HostSigner(ctx, h.names)
	if err != nil {
		return nil, fmt.Errorf("finding the host certificate: %w", err)
	}
	plain, err := h.door.cfg.Server.HostKey(ctx)
	if err != nil {
		return nil, fmt.Errorf("finding the host key: %w", err)
	}
	config.AddHostKey(certified)
	config.AddHostKey(plain)
	return config, nil
}

// offered answers whether a key will do. It is asked before the key is proven, and
// perhaps never proven: nothing is concluded here.
func (h *handshake) offered(ctx context.Context, meta ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
	if h.offers++; h.offers > maxOffers {
		h.conn.Close()
		return nil, errOffers
	}
	p, err := h.prove(ctx, meta.User(), key)
	if err != nil {
		return nil, h.refuse(ctx, meta.User(), key, err)
	}
	permissions := &ssh.Permissions{ExtraData: map[any]any{provenKey{}: p}}
	if cert, ok := key.(*ssh.Certificate); ok {
		permissions.CriticalOptions = cert.CriticalOptions // source-address is the library's
	}
	return permissions, nil
}

// prove finds out what a key would prove.
func (h *handshake) prove(ctx context.Context, user string, key ssh.PublicKey) (*proven, error) {
	p := &proven{user: user, key: key, mayPTY: true, mayPort: true, mayAgent: true}
	if err := checkKey(key); err != nil {
		return nil, err
	}
	if err := h.readUser(p); err != nil {
		return nil, err
	}
	if err := h.identify(ctx, p); err != nil {
		return nil, err
	}
	p.expires = p.principal.ExpiresAt
	if cert, ok := key.(*ssh.Certificate); ok {
		p.restrict(cert)
	}
	if h.node == "" {
		return p, nil
	}
	var err error
	p.target.login, err = innerLogin(user, p.principal)
	return p, err
}

func (h *handshake) readUser(p *proven) (err error) {
	if h.node != "" {
		p.target.node = h.node
		return checkText(p.user, maxUser)
	}
	p.target, err = parseUser(p.user)
	p.person = p.target.person
	return err
}

// identify finds who is behind the key. Where several users have registered it, the SSH
// user name tells which: also alone, as on the way to a node behind the door.
func (h *handshake) identify(ctx context.Context, p *proven) (err error) {
	p.principal, err = h.door.cfg.Server.SSHPrincipal(ctx, p.key, p.person)
	refused := (*identity.AuthError)(nil)
	if !errors.As(err, &refused) || refused.Failure != identity.NameNeeded || p.person != "" {
		return err
	}
	if p.person = h.outer; h.node == "" {
		p.person = p.user
	}
	principal, again := h.door.cfg.Server.SSHPrincipal(ctx, p.key, p.person)
	if again != nil {
		return err
	}
	p.principal = principal
	return nil
}

// restrict applies what a certificate says that its bearer may, and until when.
func (p *proven) restrict(cert *ssh.Certificate) {
	has := func(name string) bool { _, ok := cert.Extensions[name]; return ok }
	p.mayPTY, p.mayPort, p.mayAgent = has("permit-pty"), has("permit-port-forwarding"), has("permit-agent-forwarding")
	if cert.ValidBefore >= uint64(1)<<62 {
		return
	}
	if until := time.Unix(int64(cert.ValidBefore), 0); p.expires.IsZero() || until.Before(p.expires) {
		p.expires = until
	}
}

var errWeakKey = errors.New("RSA keys must have at least 2048 bits")

func checkKey(key ssh.PublicKey) error {
	if cert, ok := key.(*ssh.Certificate); ok {
		if cert.CertType != ssh.UserCert {
			return errors.New("the certificate is not one for users")
		}
		key = cert.Key
	}
	crypto, ok := key.(ssh.CryptoPublicKey)
	if !ok {
		return nil
	}
	if rsaKey, ok := crypto.CryptoPublicKey().(*rsa.PublicKey); ok && rsaKey.N.BitLen() < minRSA {
		return errWeakKey
	}
	return nil
}

// refuse says no to a key, and the first time why, as far as the key's bearer may know.
// Nothing is said about nodes.
func (h *handshake) refuse(ctx context.Context, user string, key ssh.PublicKey, err error) error {
	h.refusal = err
	refused := (*identity.AuthError)(nil)
	switch {
	case errors.As(err, &refused), errors.Is(err, errUserName), errors.Is(err, errWeakKey):
	case ctx.Err() != nil:
		return errLate
	default:
		h.door.log.Error("looking up an SSH key", "from", h.conn.RemoteAddr(), "error", err)
		err = errors.New("the key could not be looked up; the server's log tells the cause")
	}
	if h.told {
		return err
	}
	h.told = true
	return &ssh.BannerError{Err: err, Message: "sallyport: " + client.Clean(bannerText(h.owner(user), key, err)) + "\r\n"}
}

// owner is whose a key would have to be: the person that the SSH user name names, or
// somebody's. That somebody else has registered the key is not said.
func (h *handshake) owner(user string) string {
	if h.node == "" {
		if t, err := parseUser(user); err == nil && t.person != "" {
			return "not a key of " + t.person + "'s"
		}
	}
	return "nobody's"
}

func bannerText(owner string, key ssh.PublicKey, err error) string {
	refused := (*identity.AuthError)(nil)
	if !errors.As(err, &refused) {
		return err.Error()
	}
	if _, ok := key.(*ssh.Certificate); ok {
		return refused.Message + " \"sallyport ssh-cert\" gets a new certificate."
	}
	if refused.Failure != identity.UnknownKey {
		return refused.Message
	}
	return "the key " + ssh.FingerprintSHA256(key) + " is " + owner + " here; register it with \"aws iam upload-ssh-public-key\", or get a certificate with \"sallyport ssh-cert\""
}

// failed takes note of a handshake that came to nothing. Connections that offered no
// key are port scans and health checks.
func (h *handshake) failed(err error) {
	if h.timeout.Load() {
		err = errLate
	}
	log := h.door.log.Debug
	if h.refusal != nil {
		log = h.door.log.Info
		h.door.cfg.Server.SSHRefused(context.WithoutCancel(h.door.ctx), h.origin, h.refusal)
	}
	log("SSH handshake failed", "from", h.conn.RemoteAddr(), "offers", h.offers, "error", err)
}

// still looks the person up again: their key or certificate, and they themselves. An
// error says that they may not be here any longer. When that cannot be told, they are
// who they were.
func (d *Door) still(ctx context.Context, p *proven) (identity.Principal, error) {
	if !p.expires.IsZero() && !d.cfg.Now().Before(p.expires) {
		return identity.Principal{}, errExpired
	}
	now, err := d.cfg.Server.SSHPrincipal(ctx, p.key, p.person)
	refused := (*identity.AuthError)(nil)
	switch {
	case errors.As(err, &refused), err == nil && now.UserID != p.principal.UserID:
		return identity.Principal{}, errEnded
	case err == nil:
		return now, nil
	case ctx.Err() == nil:
		d.log.Warn("looking whether a person may stay", "principal", p.principal.ARN, "error", err)
	}
	return p.principal, nil
}
