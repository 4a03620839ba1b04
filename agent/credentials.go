package agent

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"sallyport.dev/wire"
)

// ErrOtherMachine is returned where the registration belongs to another machine (or
// the server says so) and no activation is configured to register this one.
var ErrOtherMachine = errors.New("the registration was made on another machine")

// credentials are the node's temporary access key.
type credentials struct {
	id, secret, token string
	refresh, expires  time.Time
}

// nodeIdentity is the node's registration and what follows from it.
type nodeIdentity struct {
	mu    sync.Mutex // held while credentials are fetched, so that one fetch serves all
	reg   registration
	key   *rsa.PrivateKey
	creds credentials

	node atomic.Value // reg.InstanceID, readable while mu is held for a fetch
}

// NodeID returns the id that the node is registered under, empty before Run or
// Register has registered it.
func (a *Agent) NodeID() string {
	id, _ := a.identity.node.Load().(string)
	return id
}

// Register registers the machine with the configured activation, in place of any
// earlier registration, which stays in force if this fails. It returns the node's id.
// With the id comes an error if the new node is not let in (ErrKeyRefused) or cannot
// reach the server any more; the new registration is kept then.
func (a *Agent) Register(ctx context.Context) (string, error) {
	if err := makeStateDir(a.cfg.StateDir); err != nil {
		return "", err
	}
	held, err := lock(a.cfg.StateDir)
	if err != nil {
		return "", err
	}
	defer held.Close()
	act, err := a.activation()
	if err != nil {
		return "", fmt.Errorf("registering: %w", err)
	}
	if err := a.register(ctx, act); err != nil {
		return "", err
	}
	if err := a.eachEndpoint(func(e *endpoint) error { _, err := a.credentials(ctx, e); return err }); err != nil {
		return a.NodeID(), fmt.Errorf("registered as %s, but the node gets no credentials: %w", a.NodeID(), err)
	}
	return a.NodeID(), nil
}

// activation returns the activation that is configured now, if any.
func (a *Agent) activation() (Activation, error) {
	if a.cfg.FindActivation == nil {
		return a.cfg.Activation, nil
	}
	return a.cfg.FindActivation()
}

// ensureRegistered loads the registration, or makes one where there is none or where
// it came with a copy of another machine's disk.
func (a *Agent) ensureRegistered(ctx context.Context) error {
	r, err := loadRegistration(a.cfg.StateDir)
	switch {
	case errors.Is(err, ErrNotRegistered):
		return a.registerFirst(ctx)
	case err != nil:
		return err
	case !r.Machine.same(a.cfg.machine()):
		a.log.Warn("registration was copied from another machine", "node", r.InstanceID)
		return a.reregister(ctx)
	}
	key, err := decodeKey(r.PrivateKey)
	if err != nil {
		return err
	}
	a.identity.set(r, key)
	return nil
}

// registerFirst registers a machine that has no registration.
func (a *Agent) registerFirst(ctx context.Context) error {
	act, err := a.activation()
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", ErrNotRegistered, err)
	case !act.given():
		return fmt.Errorf("%w and no activation is configured", ErrNotRegistered)
	}
	return a.registerPatiently(ctx, act)
}

func (id *nodeIdentity) set(r registration, key *rsa.PrivateKey) {
	id.mu.Lock()
	defer id.mu.Unlock()
	id.reg, id.key, id.creds = r, key, credentials{}
	id.node.Store(r.InstanceID)
}

// reregister registers the machine anew, which needs an activation.
func (a *Agent) reregister(ctx context.Context) error {
	act, err := a.activation()
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", ErrOtherMachine, err)
	case !act.given():
		return fmt.Errorf("%w; configure an activation to register this one", ErrOtherMachine)
	}
	return a.registerPatiently(ctx, act)
}

// registerPatiently retries while no server answers. A refusal is final: asking again
// with the same activation would not change it.
func (a *Agent) registerPatiently(ctx context.Context, act Activation) error {
	wait := backoff{min: minBackoff, max: maxBackoff}
	for {
		err := a.register(ctx, act)
		var e *apiError
		if err == nil || errors.As(err, &e) && e.status < 500 {
			return err
		}
		a.log.Warn("registering", "error", err)
		if !wait.wait(ctx) {
			return err
		}
	}
}

// register tries each server once.
func (a *Agent) register(ctx context.Context, act Activation) error {
	if !act.given() {
		return errors.New("registering: no activation is configured")
	}
	r, key, in, err := a.newRegistration(act)
	if err != nil {
		return fmt.Errorf("registering: %w", err)
	}
	var out wire.RegisterManagedInstanceResult
	if err := a.eachEndpoint(func(e *endpoint) error {
		return e.call(ctx, "RegisterManagedInstance", nil, in, &out)
	}); err != nil {
		return fmt.Errorf("registering: %w", err)
	}
	if !validID(out.InstanceID) {
		return fmt.Errorf("registering: the server's node id %q is not usable", out.InstanceID)
	}
	r.InstanceID = out.InstanceID
	if err := r.save(a.cfg.StateDir); err != nil {
		return err
	}
	a.identity.set(r, key)
	a.log.Info("registered", "node", r.InstanceID)
	return nil
}

func (a *Agent) newRegistration(act Activation) (registration, *rsa.PrivateKey, wire.RegisterManagedInstance, error) {
	var in wire.RegisterManagedInstance
	key, err := newKey()
	if err != nil {
		return registration{}, nil, in, err
	}
	private, err := encodeKey(key)
	if err != nil {
		return registration{}, nil, in, err
	}
	public, err := publicKey(key)
	if err != nil {
		return registration{}, nil, in, err
	}
	r := registration{
		Region: a.cfg.Region, Fingerprint: uuid.NewString(), Registered: a.cfg.now().UTC().Truncate(time.Second),
		Machine: a.cfg.machine(), PrivateKey: private,
	}
	in = wire.RegisterManagedInstance{
		ActivationCode: act.Code, ActivationID: act.ID,
		Fingerprint: r.Fingerprint, PublicKey: public, PublicKeyType: "Rsa",
	}
	return r, key, in, nil
}

// eachEndpoint tries f on the servers in turn, beginning with the current one, until
// one answers, be it with a refusal.
func (a *Agent) eachEndpoint(f func(*endpoint) error) error {
	var err error
	first := int(a.current.Load())
	for i := range a.endpoints {
		err = f(a.endpoints[(first+i)%len(a.endpoints)])
		var e *apiError
		if err == nil || errors.As(err, &e) && e.status < 500 {
			return err
		}
	}
	return err
}

// signWith returns a signer with the node's temporary credentials, fetched if need be.
func (a *Agent) signWith(ctx context.Context, e *endpoint) (signer, error) {
	c, err := a.credentials(ctx, e)
	if err != nil {
		return nil, err
	}
	return func(r *http.Request, body []byte, service string) error {
		signHMAC(r, body, scope{a.cfg.now(), a.region(), service}, c)
		return nil
	}, nil
}

func (a *Agent) region() string { return a.cfg.Region }

// credentials returns the temporary credentials, renewed at half of their life. Old
// ones do as long as they are valid and no new ones can be had.
func (a *Agent) credentials(ctx context.Context, e *endpoint) (credentials, error) {
	id := &a.identity
	id.mu.Lock()
	defer id.mu.Unlock()
	now := a.cfg.now()
	if now.Before(id.creds.refresh) {
		return id.creds, nil
	}
	c, rotate, err := a.fetchLocked(ctx, e)
	if err != nil {
		if now.Before(id.creds.expires) {
			a.log.Warn("renewing credentials", "error", err)
			return id.creds, nil
		}
		return credentials{}, err
	}
	id.creds = c
	if rotate {
		a.rotateLocked(ctx, e)
	}
	return c, nil
}

// forget drops the temporary credentials: a server refused them.
func (a *Agent) forget() {
	a.identity.mu.Lock()
	defer a.identity.mu.Unlock()
	a.identity.creds = credentials{}
}

// fetchLocked asks for credentials with the node's key, and where that is refused
// with the key of a rotation whose outcome is unknown.
func (a *Agent) fetchLocked(ctx context.Context, e *endpoint) (credentials, bool, error) {
	id := &a.identity
	c, rotate, err := a.roleToken(ctx, e, id.key)
	if !refused(err) || hasCode(err, "Throttling") {
		return c, rotate, err
	}
	err = fmt.Errorf("%w: %w", ErrKeyRefused, err)
	if id.reg.NextKey == "" {
		return credentials{}, false, err
	}
	next, derr := decodeKey(id.reg.NextKey)
	if derr != nil {
		return credentials{}, false, err
	}
	if c, rotate, nerr := a.roleToken(ctx, e, next); nerr == nil {
		return c, rotate, a.adoptLocked(next)
	}
	return credentials{}, false, err
}

func (a *Agent) roleToken(ctx context.Context, e *endpoint, key *rsa.PrivateKey) (credentials, bool, error) {
	var out wire.RequestManagedInstanceRoleTokenResult
	in := wire.RequestManagedInstanceRoleToken{Fingerprint: a.identity.reg.Fingerprint}
	if err := e.call(ctx, "RequestManagedInstanceRoleToken", a.signRSA(key), in, &out); err != nil {
		return credentials{}, false, err
	}
	now := a.cfg.now()
	expires := time.Unix(int64(out.TokenExpirationDate), 0)
	if out.AccessKeyID == "" || out.SecretAccessKey == "" || !expires.After(now) {
		return credentials{}, false, errors.New("RequestManagedInstanceRoleToken: the answer has no valid credentials")
	}
	return credentials{
		id: out.AccessKeyID, secret: out.SecretAccessKey, token: out.SessionToken,
		refresh: now.Add(expires.Sub(now) / 2), expires: expires,
	}, out.UpdateKeyPair, nil
}

// signRSA returns a signer with the node's key; the identity's mutex is held.
func (a *Agent) signRSA(key *rsa.PrivateKey) signer {
	node := a.identity.reg.InstanceID
	return func(r *http.Request, body []byte, service string) error {
		return signRSA(r, body, scope{a.cfg.now(), a.region(), service}, node, key)
	}
}

// rotateLocked gives the server a new key, as it asked. The key is on disk before the
// server hears of it; an answer that is lost is settled by fetchLocked.
func (a *Agent) rotateLocked(ctx context.Context, e *endpoint) {
	if err := a.tryRotateLocked(ctx, e); err != nil {
		a.log.Warn("rotating the node's key", "error", err)
		return
	}
	a.log.Info("rotated the node's key")
}

func (a *Agent) tryRotateLocked(ctx context.Context, e *endpoint) error {
	id := &a.identity
	next, err := newKey()
	if err != nil {
		return err
	}
	if id.reg.NextKey != "" { // the key of an unsettled rotation is offered again
		if next, err = decodeKey(id.reg.NextKey); err != nil {
			return err
		}
	}
	if id.reg.NextKey, err = encodeKey(next); err != nil {
		return err
	}
	if err := id.reg.save(a.cfg.StateDir); err != nil {
		return err
	}
	public, err := publicKey(next)
	if err != nil {
		return err
	}
	in := wire.UpdateManagedInstancePublicKey{NewPublicKey: public, NewPublicKeyType: "Rsa"}
	if err := e.call(ctx, "UpdateManagedInstancePublicKey", a.signRSA(id.key), in, &struct{}{}); err != nil {
		return err
	}
	return a.adoptLocked(next)
}

// adoptLocked makes the next key the node's key.
func (a *Agent) adoptLocked(next *rsa.PrivateKey) error {
	id := &a.identity
	private, err := encodeKey(next)
	if err != nil {
		return err
	}
	id.key, id.reg.PrivateKey, id.reg.NextKey = next, private, ""
	return id.reg.save(a.cfg.StateDir)
}
