package server

import (
	"context"
	"errors"
	"net/netip"
	"regexp"
	"time"

	"sallyport.dev/audit"
	"sallyport.dev/identity"
	"sallyport.dev/node"
	"sallyport.dev/wire"
)

// How machines become nodes, and nodes get and renew what they sign with
// (docs/protocol.md §7).

func agentRegisterOperations() []*Operation {
	return []*Operation{
		op("ssm", "RegisterManagedInstance", nil, registerManagedInstance, anonymously),
		op("ssm", "RequestManagedInstanceRoleToken", nil, requestRoleToken, withNodeKey),
		op("ssm", "UpdateManagedInstancePublicKey", nil, updatePublicKey, withNodeKey),
	}
}

// How many wrong codes or ids are told so in a window; the others are throttled. What
// keeps codes from being guessed is that they have 160 random bits.
const (
	failuresPerSource     = 20
	failuresPerActivation = 60
	failureWindow         = time.Minute
)

// registrations slows down guessing.
type registrations struct{ sources, activations *node.Attempts }

func newRegistrations(now func() time.Time) registrations {
	return registrations{
		sources:     node.NewAttempts(failuresPerSource, failureWindow, now),
		activations: node.NewAttempts(failuresPerActivation, failureWindow, now),
	}
}

// failed counts a wrong code and reports whether there were not too many before.
func (r registrations) failed(source, activation string) bool {
	return r.sources.Failed(source) && r.activations.Failed(activation)
}

// sourceKey is what attempts of one source are counted under: an IPv4 address, or the
// /64 that a single IPv6 machine may choose its address from.
func sourceKey(ip string) string {
	addr, err := netip.ParseAddr(ip)
	if err != nil || addr.Is4() {
		return ip
	}
	prefix, err := addr.Prefix(64)
	if err != nil {
		return ip
	}
	return prefix.String()
}

// fingerprintPattern is wider than the UUIDs that agents make.
var fingerprintPattern = regexp.MustCompile(`^[0-9A-Za-z._:-]{8,128}$`)

// Failures of registering and of proving a machine, as the audit log calls them.
const (
	wrongActivation  identity.Failure = "wrong activation"
	wrongFingerprint identity.Failure = "wrong fingerprint"
)

// registerManagedInstance turns an activation into a node. The answer to a wrong code
// is that to an unknown activation, and takes as long.
func registerManagedInstance(ctx context.Context, c *Call, in *wire.RegisterManagedInstance) (*wire.RegisterManagedInstanceResult, error) {
	a, err := c.activation(ctx, in.ActivationID, in.ActivationCode)
	if err != nil {
		return nil, err
	}
	if _, err := node.ParsePublicKey(in.PublicKey, in.PublicKeyType); err != nil {
		return nil, err
	}
	if !fingerprintPattern.MatchString(in.Fingerprint) {
		return nil, ssmError("ValidationException", "Fingerprint must be 8 to 128 letters, digits, dots, colons, dashes and underscores.")
	}
	n, err := c.Server.config.Nodes.Register(ctx, node.Node{
		Name: a.DefaultName, Tags: a.Tags, ActivationID: a.ID, IAMRole: a.IAMRole,
		Fingerprint: in.Fingerprint, PublicKey: in.PublicKey, PublicKeyType: in.PublicKeyType,
		Registered: c.Origin.Time,
	}, c.Origin.Time, node.NewID)
	if err != nil {
		return nil, registerError(err)
	}
	if err := c.recordRegistration(ctx, n); err != nil {
		// What cannot be recorded does not happen.
		return nil, errors.Join(err, c.Server.config.Nodes.Unregister(context.WithoutCancel(ctx), n))
	}
	return &wire.RegisterManagedInstanceResult{InstanceID: n.ID}, nil
}

func registerError(err error) error {
	switch {
	case errors.Is(err, node.ErrActivationExpired):
		return ssmError("ActivationExpired", "The activation has expired.")
	case errors.Is(err, node.ErrRegistrationLimit):
		return ssmError("RegistrationLimitExceeded", "The activation has no registrations left.")
	case errors.Is(err, node.ErrExists):
		return ssmError("InstanceAlreadyRegistered", "A node with the id that the activation fixes is registered; deregister it first.")
	case errors.Is(err, node.ErrInvalidActivation):
		return errInvalidActivation()
	}
	return err
}

func errInvalidActivation() error {
	return ssmError("InvalidActivation", "The activation code or the activation id is not valid.")
}

// activation returns the activation that a code belongs to. A right code passes whatever
// failed before, or anyone behind the same address could keep machines from registering.
func (c *Call) activation(ctx context.Context, id, code string) (node.Activation, error) {
	if len(id) > 64 || len(code) > 256 {
		return node.Activation{}, errInvalidActivation()
	}
	a, err := c.Server.config.Nodes.Activation(ctx, id)
	if err != nil && !errors.Is(err, node.ErrInvalidActivation) && !errors.Is(err, node.ErrNotFound) {
		return a, err
	}
	if a.CodeMatches(code) {
		return a, nil
	}
	c.refused(ctx, wrongActivation, "a machine tried to register with a wrong activation code or id")
	if !c.Server.agents.registrations.failed(sourceKey(c.Origin.SourceIP), id) {
		return node.Activation{}, ssmError("ThrottlingException", "Too many registrations with a wrong code. Try again in a minute.")
	}
	return node.Activation{}, errInvalidActivation()
}

// refused records a machine that failed to prove what it is, like a refused login.
func (c *Call) refused(ctx context.Context, f identity.Failure, message string) {
	c.Server.logins.refused(ctx, c.Origin, &identity.AuthError{Failure: f, Message: message, AccessKeyID: c.Principal.AccessKeyID})
}

func (c *Call) recordRegistration(ctx context.Context, n node.Node) error {
	arn := c.Server.config.Realm.Node(n.ID)
	return c.record(ctx, audit.Record{
		Event: audit.EventNode, Principal: arn, Resources: []string{arn}, Node: n.ID, Reason: "registered",
		Details: map[string]string{"activation": n.ActivationID},
	})
}

// record writes an audit record about the call, beside that of the decision.
func (c *Call) record(ctx context.Context, r audit.Record) error {
	r.Time, r.Action = c.Origin.Time, c.Operation.Action
	r.SourceIP, r.UserAgent, r.RequestID = c.Origin.SourceIP, c.Origin.UserAgent, c.Origin.RequestID
	_, err := c.Server.config.Audit.Append(context.WithoutCancel(ctx), r)
	return err
}

// roleTokenLifetime is how long a node's temporary credentials last. Agents renew
// them at half of it.
const roleTokenLifetime = time.Hour

// requestRoleToken gives a node temporary credentials for its key. A machine that
// shows the key with another fingerprint is a copy, made from an image for instance:
// it must register itself.
func requestRoleToken(ctx context.Context, c *Call, in *wire.RequestManagedInstanceRoleToken) (*wire.RequestManagedInstanceRoleTokenResult, error) {
	n, err := c.Server.config.Nodes.Node(ctx, c.Principal.Name)
	if err != nil {
		return nil, err
	}
	if !n.FingerprintMatches(in.Fingerprint) {
		c.refused(ctx, wrongFingerprint, "a machine showed the key of "+n.ID+" with another fingerprint; it may be a copy")
		return nil, ssmError("MachineFingerprintDoesNotMatch", "The fingerprint is not that of the machine that registered. A copy of a machine must register itself.")
	}
	expires := c.Origin.Time.Add(roleTokenLifetime)
	credentials, err := c.Server.issuer.Issue(identity.Claims{
		Kind: identity.KindNode, Name: n.ID, ID: registrationOf(n), IssuedAt: c.Origin.Time, ExpiresAt: expires,
	})
	if err != nil {
		return nil, err
	}
	if err := c.recordRoleToken(ctx, credentials); err != nil {
		return nil, err
	}
	return &wire.RequestManagedInstanceRoleTokenResult{
		AccessKeyID: credentials.AccessKeyID, SecretAccessKey: credentials.SecretAccessKey,
		SessionToken: credentials.SessionToken, TokenExpirationDate: float64(expires.Unix()),
	}, nil
}

// recordRoleToken records that a node got credentials, the first time in an hour: all
// nodes renew theirs twice in it.
func (c *Call) recordRoleToken(ctx context.Context, issued identity.Credentials) error {
	if c.Server.agents.tokens.has(c.Principal.Name) {
		return nil
	}
	err := c.record(ctx, audit.Record{
		Event: audit.EventNode, Principal: c.Principal.ARN, Resources: []string{c.Principal.ARN}, Node: c.Principal.Name,
		Reason: "credentials issued", Details: map[string]string{"issued_access_key_id": issued.AccessKeyID},
	})
	if err == nil {
		c.Server.agents.tokens.note(c.Principal.Name)
	}
	return err
}

// updatePublicKey replaces a node's key. The request is signed with the old one.
func updatePublicKey(ctx context.Context, c *Call, in *wire.UpdateManagedInstancePublicKey) (*nothing, error) {
	if _, err := node.ParsePublicKey(in.NewPublicKey, in.NewPublicKeyType); err != nil {
		return nil, err
	}
	err := c.record(ctx, audit.Record{
		Event: audit.EventNode, Principal: c.Principal.ARN, Resources: []string{c.Principal.ARN},
		Node: c.Principal.Name, Reason: "key replaced",
	})
	if err != nil {
		return nil, err
	}
	return &nothing{}, c.Server.config.Nodes.UpdateNode(ctx, c.Principal.Name, func(n *node.Node) error {
		n.PublicKey, n.PublicKeyType = in.NewPublicKey, in.NewPublicKeyType
		return nil
	})
}
