package client

import "context"

// IssueSSHCertificateInput asks for a certificate of a key of the caller's.
type IssueSSHCertificateInput struct {
	PublicKey string `json:"PublicKey"`                 // as in authorized_keys
	Lifetime  int    `json:"LifetimeSeconds,omitempty"` // 0: the server's choice
}

// IssueSSHCertificateOutput is the certificate.
type IssueSSHCertificateOutput struct {
	Certificate string   `json:"Certificate"` // a line as in FILE-cert.pub
	Serial      string   `json:"Serial"`
	KeyID       string   `json:"KeyId"`
	Principals  []string `json:"Principals"`
	ValidAfter  Time     `json:"ValidAfter"`
	ValidBefore Time     `json:"ValidBefore"`
}

// SSHAuthority is one key of the server's SSH authorities.
type SSHAuthority struct {
	ID        string `json:"Id"`
	Kind      string `json:"Kind"` // user, host or gateway
	PublicKey string `json:"PublicKey"`
	Signing   bool   `json:"Signing"`
	Created   Time   `json:"Created"`
}

// GetSSHAuthoritiesOutput tells how the SSH front door is reached and recognised.
type GetSSHAuthoritiesOutput struct {
	Authorities       []SSHAuthority `json:"Authorities"`
	TrustedUserCAKeys []string       `json:"TrustedUserCAKeys"`
	KnownHosts        []string       `json:"KnownHosts"`
	Gateway           string         `json:"Gateway"` // HOST:PORT, empty if there is none
	Suffix            string         `json:"Suffix"`  // domain of nodes, empty if there is none
}

// ListGroupSSHKeysInput names a group or a user.
type ListGroupSSHKeysInput struct {
	GroupName string `json:"GroupName,omitempty"`
	UserName  string `json:"UserName,omitempty"`
	NextToken string `json:"NextToken,omitempty"`
}

// SSHKey is an active SSH public key of a user.
type SSHKey struct {
	UserName       string `json:"UserName"`
	SSHPublicKeyID string `json:"SSHPublicKeyId"`
	PublicKey      string `json:"PublicKey"` // type and base64
}

// ListGroupSSHKeysOutput is a page of keys.
type ListGroupSSHKeysOutput struct {
	Keys      []SSHKey `json:"Keys"`
	NextToken string   `json:"NextToken"`
}

// IssueSSHCertificate gets a certificate.
func (a *API) IssueSSHCertificate(ctx context.Context, in IssueSSHCertificateInput) (*IssueSSHCertificateOutput, error) {
	return call[IssueSSHCertificateOutput](ctx, a, "IssueSSHCertificate", in)
}

// GetSSHAuthorities asks for the keys that certificates are signed with.
func (a *API) GetSSHAuthorities(ctx context.Context) (*GetSSHAuthoritiesOutput, error) {
	return call[GetSSHAuthoritiesOutput](ctx, a, "GetSSHAuthorities", struct{}{})
}

// ListGroupSSHKeys answers a page of the active keys of a group's members, or of a user.
func (a *API) ListGroupSSHKeys(ctx context.Context, in ListGroupSSHKeysInput) (*ListGroupSSHKeysOutput, error) {
	return call[ListGroupSSHKeysOutput](ctx, a, "ListGroupSSHKeys", in)
}

// AccessKeyID is the access key that calls are signed with.
func (a *API) AccessKeyID(ctx context.Context) (string, error) {
	c, err := a.cfg.Credentials.Retrieve(ctx)
	return c.AccessKeyID, err
}

// RotateSSHAuthority makes a new authority of a kind, which signs in place of the one
// with the id signing; that one stays trusted.
func (a *API) RotateSSHAuthority(ctx context.Context, kind, signing string) (*GetSSHAuthoritiesOutput, error) {
	return call[GetSSHAuthoritiesOutput](ctx, a, "RotateSSHAuthority", map[string]string{"Kind": kind, "Signing": signing})
}

// DeleteSSHAuthority ends the trust in an authority that does not sign any more.
func (a *API) DeleteSSHAuthority(ctx context.Context, id string) error {
	_, err := call[empty](ctx, a, "DeleteSSHAuthority", map[string]string{"Id": id})
	return err
}
