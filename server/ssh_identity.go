package server

import (
	"cmp"
	"context"
	"errors"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport.dev/access"
	"sallyport.dev/identity"
	"sallyport.dev/wire"
)

// People and hosts known by SSH: certificates, and the authorities that sign them.

// SSHGateway says where people find the SSH front door.
type SSHGateway struct {
	// Address is HOST:PORT as people reach it; empty where there is none.
	Address string
	// Suffix is the domain that nodes appear under, such as nodes.example.com, without
	// dots at either end; empty where there is none.
	Suffix string
}

func sshOperations() []*Operation {
	return []*Operation{
		op("sallyport", "IssueSSHCertificate", nil, issueSSHCertificate, checksItself),
		op("sallyport", "GetSSHAuthorities", nil, getSSHAuthorities, forEveryone, quietly),
		op("sallyport", "RotateSSHAuthority", nil, rotateSSHAuthority),
		op("sallyport", "DeleteSSHAuthority", nil, deleteSSHAuthority),
		op("sallyport", "ListGroupSSHKeys", nil, listGroupSSHKeys, checksItself, quietly),
	}
}

// SSHPrincipal returns who is behind a key or certificate that an SSH handshake has
// proven; see identity.SSH.Principal. Calling it again tells whether they may stay.
// Refusals are *identity.AuthError; what is recorded of them is for the caller.
func (s *Server) SSHPrincipal(ctx context.Context, key ssh.PublicKey, name string) (identity.Principal, error) {
	return s.ssh.Principal(ctx, key, name)
}

// HostSigner returns the gateway's host key with a certificate for host names, kept and
// renewed: ask anew for each connection.
func (s *Server) HostSigner(ctx context.Context, names []string) (ssh.Signer, error) {
	return s.ssh.HostSigner(ctx, names)
}

// HostKey returns the gateway's host key without a certificate, the same on every
// member, for people who do not trust the host authority.
func (s *Server) HostKey(ctx context.Context) (ssh.Signer, error) { return s.ssh.HostKey(ctx) }

type issueSSHInput struct {
	PublicKey string `json:"PublicKey" check:"required,digest,min=1,max=16384"`
	Lifetime  int    `json:"LifetimeSeconds" check:"min=0,max=43200"`
}

type issueSSHOutput struct {
	Certificate string    `json:"Certificate"` // a line as in FILE-cert.pub
	Serial      string    `json:"Serial"`      // decimal: more than a JSON number holds
	KeyID       string    `json:"KeyId"`
	Principals  []string  `json:"Principals"`
	ValidAfter  wire.Time `json:"ValidAfter"`
	ValidBefore wire.Time `json:"ValidBefore"`
}

// made names the certificate for the audit log, as sshd's log does by its serial.
func (o *issueSSHOutput) made() string { return "SSH certificate serial " + o.Serial }

// issueSSHCertificate certifies a key of the caller's. It gives nobody more than their
// credentials do, so that no policy has to allow it; one may deny it.
func issueSSHCertificate(ctx context.Context, c *Call, in *issueSSHInput) (*issueSSHOutput, error) {
	if c.Principal.IsNode() {
		return nil, c.refuse(ctx, "because nodes have no SSH certificates")
	}
	if err := c.CheckOwn(ctx, access.Resource{ARN: c.Principal.PolicyARN, Tags: c.Principal.Tags}); err != nil {
		return nil, err
	}
	key, _, err := parseSSHKey(in.PublicKey)
	if err != nil {
		return nil, err
	}
	cert, err := c.Server.ssh.Certify(ctx, c.Principal, key, time.Duration(in.Lifetime)*time.Second)
	if err != nil {
		return nil, err
	}
	return &issueSSHOutput{
		Certificate: strings.TrimSpace(string(ssh.MarshalAuthorizedKey(cert))),
		Serial:      strconv.FormatUint(cert.Serial, 10), KeyID: cert.KeyId, Principals: cert.ValidPrincipals,
		ValidAfter: unixTime(cert.ValidAfter), ValidBefore: unixTime(cert.ValidBefore),
	}, nil
}

func unixTime(seconds uint64) wire.Time { return wire.Time{Time: time.Unix(int64(seconds), 0).UTC()} }

// refuse refuses a call that no policy has a say in; because begins with "because".
func (c *Call) refuse(ctx context.Context, because string) error {
	c.checked = true
	return c.Server.checker.Refuse(ctx, c.query(c.Operation.Action, []access.Resource{{ARN: c.Principal.ARN}}), because)
}

type sshAuthority struct {
	ID        string    `json:"Id"`
	Kind      string    `json:"Kind"`
	PublicKey string    `json:"PublicKey"`
	Signing   bool      `json:"Signing"`
	Created   wire.Time `json:"Created"`
}

type sshAuthoritiesOutput struct {
	Authorities []sshAuthority `json:"Authorities"`
	// TrustedUserCAKeys are the lines of the file that sshd's option of that name names.
	TrustedUserCAKeys []string `json:"TrustedUserCAKeys"`
	// KnownHosts are lines of a known_hosts file for the gateway and the nodes behind it.
	KnownHosts []string `json:"KnownHosts"`
	Gateway    string   `json:"Gateway,omitempty"` // HOST:PORT
	Suffix     string   `json:"Suffix,omitempty"`
}

func getSSHAuthorities(ctx context.Context, c *Call, _ *struct{}) (*sshAuthoritiesOutput, error) {
	gateway := c.Server.config.SSH
	out := &sshAuthoritiesOutput{Gateway: gateway.Address, Suffix: gateway.Suffix}
	for _, kind := range []identity.SSHAuthorityKind{identity.SSHUsers, identity.SSHHosts, identity.SSHGateway, identity.SSHEvidence, identity.SSHAudit} {
		all, err := c.Server.ssh.Authorities(ctx, kind)
		if err != nil {
			return nil, err
		}
		for _, a := range all {
			out.add(a, gateway)
		}
	}
	return out, nil
}

func (o *sshAuthoritiesOutput) add(a identity.SSHAuthority, gateway SSHGateway) {
	o.Authorities = append(o.Authorities, sshAuthority{
		ID: a.ID, Kind: string(a.Kind), PublicKey: a.PublicKey, Signing: a.Signing, Created: wire.Time{Time: a.Created},
	})
	switch a.Kind {
	case identity.SSHUsers:
		o.TrustedUserCAKeys = append(o.TrustedUserCAKeys, a.PublicKey+" sallyport "+a.ID)
	case identity.SSHHosts, identity.SSHGateway:
		// The gateway's own key is known too, so that the authority can be replaced
		// without shutting anybody out.
		if patterns := gateway.patterns(); patterns != "" {
			marker := map[identity.SSHAuthorityKind]string{identity.SSHHosts: "@cert-authority "}[a.Kind]
			o.KnownHosts = append(o.KnownHosts, marker+patterns+" "+a.PublicKey+" sallyport "+a.ID)
		}
	}
}

// patterns are the host patterns that the gateway answers to, as known_hosts has them.
func (g SSHGateway) patterns() string {
	var all []string
	if host := knownHost(g.Address); host != "" {
		all = append(all, host)
	}
	if g.Suffix != "" {
		all = append(all, "*."+g.Suffix)
	}
	return strings.Join(all, ",")
}

type rotateSSHInput struct {
	Kind string `json:"Kind" check:"required,enum=user|host|gateway|evidence|audit"`
	// Signing is the id of the authority that signs now, as GetSSHAuthorities tells, so
	// that two administrators do not rotate twice.
	Signing string `json:"Signing" check:"required,min=1,max=64"`
}

func rotateSSHAuthority(ctx context.Context, c *Call, in *rotateSSHInput) (*sshAuthoritiesOutput, error) {
	if err := c.Server.ssh.Rotate(ctx, identity.SSHAuthorityKind(in.Kind), in.Signing); err != nil {
		return nil, err
	}
	return getSSHAuthorities(ctx, c, &struct{}{})
}

type deleteSSHInput struct {
	ID string `json:"Id" check:"required,min=1,max=64"`
}

// deleteSSHAuthority ends the trust in an authority that signs no more, and in every
// certificate that it signed.
func deleteSSHAuthority(ctx context.Context, c *Call, in *deleteSSHInput) (*struct{}, error) {
	return &struct{}{}, c.Server.config.Identities.DeleteSSHAuthority(ctx, in.ID)
}

type groupKeysInput struct {
	GroupName  string `json:"GroupName" check:"min=0,max=128,pattern=[\\w+=,.@-]*"`
	UserName   string `json:"UserName" check:"min=0,max=64,pattern=[\\w+=,.@-]*"`
	MaxResults int    `json:"MaxResults" check:"min=0,max=50"`
	NextToken  string `json:"NextToken" check:"max=1024"`
}

type groupSSHKey struct {
	UserName       string `json:"UserName"`
	SSHPublicKeyID string `json:"SSHPublicKeyId"`
	PublicKey      string `json:"PublicKey"` // type and base64, without a comment
}

type groupKeysOutput struct {
	Keys      []groupSSHKey `json:"Keys"` // in order of their ids
	NextToken string        `json:"NextToken,omitempty"`
}

// keysPage is how many keys a page has: of the largest that are accepted, 150 KB.
const keysPage = 50

// nodeKeyGroups is the tag of a node that lists the groups whose keys it may read.
const nodeKeyGroups = "SSHKeyGroups"

// listGroupSSHKeys answers the active SSH keys of a group's members, or of one user,
// leaving out who is disabled. A node may read those of the groups that its tag
// SSHKeyGroups names, which people with ssm:AddTagsToResource set, and of no user;
// others need sallyport:ListGroupSSHKeys on the group or user.
func listGroupSSHKeys(ctx context.Context, c *Call, in *groupKeysInput) (*groupKeysOutput, error) {
	if err := c.checkKeysOf(ctx, in); err != nil {
		return nil, err
	}
	if (in.GroupName == "") == (in.UserName == "") {
		return nil, exception("ValidationException", "Name either GroupName or UserName.")
	}
	keys, err := c.keysOf(ctx, in)
	if err != nil {
		return nil, err
	}
	return pageOfKeys(c, in, keys)
}

func (c *Call) checkKeysOf(ctx context.Context, in *groupKeysInput) error {
	if c.Principal.IsNode() {
		return c.checkNodeGroup(ctx, in.GroupName)
	}
	if in.UserName != "" {
		user, err := c.Server.config.Identities.User(ctx, in.UserName)
		if err != nil && !errors.Is(err, identity.ErrNotFound) {
			return err
		}
		return c.Check(ctx, c.Server.userResource(in.UserName, user))
	}
	group, err := c.Server.config.Identities.Group(ctx, in.GroupName)
	if err != nil && !errors.Is(err, identity.ErrNotFound) {
		return err
	}
	if err != nil {
		group = identity.Group{Name: in.GroupName}
	}
	return c.Check(ctx, access.Resource{ARN: c.Server.config.Realm.IAM("group", group.Path, group.Name)})
}

// checkNodeGroup decides which groups' keys a node may read. The tags are those that
// the node has now.
func (c *Call) checkNodeGroup(ctx context.Context, group string) error {
	if group == "" || !mayReadKeys(c.Principal.Tags, group) {
		return c.refuse(ctx, "because the node's tag "+nodeKeyGroups+" does not name the group")
	}
	c.checked, c.Node = true, c.Principal.Name
	return nil
}

func mayReadKeys(tags identity.Tags, group string) bool {
	return slices.ContainsFunc(tags.Values(nodeKeyGroups), func(name string) bool {
		return name != "" && strings.EqualFold(name, group)
	})
}

// keysOf lists the keys that were asked for, in order of their ids.
func (c *Call) keysOf(ctx context.Context, in *groupKeysInput) ([]identity.SSHPublicKey, error) {
	keys, err := c.groupOrUserKeys(ctx, in)
	slices.SortFunc(keys, func(a, b identity.SSHPublicKey) int { return cmp.Compare(a.ID, b.ID) })
	return keys, err
}

func (c *Call) groupOrUserKeys(ctx context.Context, in *groupKeysInput) ([]identity.SSHPublicKey, error) {
	store := c.Server.config.Identities
	if in.GroupName != "" {
		keys, err := store.GroupSSHKeys(ctx, in.GroupName)
		if err != nil {
			return nil, err
		}
		return c.addGrantedKeys(ctx, in.GroupName, keys)
	}
	user, err := store.User(ctx, in.UserName)
	if err != nil || user.Disabled {
		return nil, err
	}
	keys, err := store.SSHKeys(ctx, user.Name)
	return slices.DeleteFunc(keys, func(k identity.SSHPublicKey) bool { return !k.Active }), err
}

func pageOfKeys(c *Call, in *groupKeysInput, keys []identity.SSHPublicKey) (*groupKeysOutput, error) {
	p := pages[identity.SSHPublicKey]{
		size: keysPage,
		key:  func(k identity.SSHPublicKey) string { return k.ID },
		fetch: func(after string, n int) ([]identity.SSHPublicKey, error) {
			i := 0
			for i < len(keys) && keys[i].ID <= after {
				i++
			}
			return keys[i:min(i+n, len(keys))], nil
		},
	}
	page, next, err := p.page(c, in.NextToken, in.MaxResults)
	out := &groupKeysOutput{Keys: []groupSSHKey{}, NextToken: next}
	for _, k := range page {
		out.Keys = append(out.Keys, groupSSHKey{k.User, k.ID, keyMaterial(k.Body)})
	}
	return out, err
}

// keyMaterial is a stored key without its comment, which is its owner's to choose.
func keyMaterial(line string) string {
	fields := strings.Fields(line)
	return strings.Join(fields[:min(2, len(fields))], " ")
}

// knownHost spells HOST:PORT as known_hosts does: [HOST]:PORT unless the port is 22.
func knownHost(address string) string {
	host, port, err := net.SplitHostPort(address)
	switch {
	case err != nil:
		return ""
	case port == "22":
		return host
	}
	return "[" + host + "]:" + port
}
