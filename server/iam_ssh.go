package server

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"sallyport.dev/identity"
	"sallyport.dev/wire"
)

// SSH public keys that users register.

func iamSSHOperations() []*Operation {
	return []*Operation{
		op("iam", "UploadSSHPublicKey", onUserOrCaller[uploadSSHKeyInput], uploadSSHKey),
		op("iam", "GetSSHPublicKey", onUserOrCaller[getSSHKeyInput], getSSHKey, quietly),
		op("iam", "ListSSHPublicKeys", onUserOrCaller[listKeysInput], listSSHKeys, quietly),
		op("iam", "UpdateSSHPublicKey", onUserOrCaller[updateSSHKeyInput], updateSSHKey),
		op("iam", "DeleteSSHPublicKey", onUserOrCaller[deleteSSHKeyInput], deleteSSHKey),
	}
}

// maxSSHKeys is how many SSH public keys a user may have, as in IAM.
const maxSSHKeys = 5

type uploadSSHKeyInput struct {
	userRefInput
	SSHPublicKeyBody string `json:"SSHPublicKeyBody" check:"required,digest,min=1,max=16384"`
}

type deleteSSHKeyInput struct {
	userRefInput
	SSHPublicKeyID string `json:"SSHPublicKeyId" check:"required,min=20,max=128,pattern=\\w+"`
}

type getSSHKeyInput struct {
	userRefInput
	SSHPublicKeyID string `json:"SSHPublicKeyId" check:"required,min=20,max=128,pattern=\\w+"`
	Encoding       string `json:"Encoding" check:"required"`
}

type updateSSHKeyInput struct {
	userRefInput
	SSHPublicKeyID string `json:"SSHPublicKeyId" check:"required,min=20,max=128,pattern=\\w+"`
	Status         string `json:"Status" check:"required,enum=Active|Inactive"`
}

type sshKeyOutput struct {
	SSHPublicKey struct {
		UserName         string    `xml:"UserName"`
		SSHPublicKeyID   string    `xml:"SSHPublicKeyId"`
		Fingerprint      string    `xml:"Fingerprint"`
		SSHPublicKeyBody string    `xml:"SSHPublicKeyBody"`
		Status           string    `xml:"Status"`
		UploadDate       wire.Time `xml:"UploadDate"`
	} `xml:"SSHPublicKey"`
}

func sshKeyShape(k identity.SSHPublicKey, body string) *sshKeyOutput {
	out := &sshKeyOutput{}
	out.SSHPublicKey.UserName, out.SSHPublicKey.SSHPublicKeyID = k.User, k.ID
	out.SSHPublicKey.Fingerprint, out.SSHPublicKey.SSHPublicKeyBody = k.Fingerprint, body
	out.SSHPublicKey.Status, out.SSHPublicKey.UploadDate = status(k.Active), wire.Time{Time: k.Uploaded}
	return out
}

func uploadSSHKey(ctx context.Context, c *Call, in *uploadSSHKeyInput) (*sshKeyOutput, error) {
	user, err := userKind().find(ctx, c, in.UserName)
	if err != nil {
		return nil, err
	}
	pub, comment, err := parseSSHKey(in.SSHPublicKeyBody)
	if err != nil {
		return nil, err
	}
	key := identity.SSHPublicKey{
		ID: identity.NewSSHKeyID(), User: user.owner.Name, Body: authorizedKey(pub, comment),
		Fingerprint: ssh.FingerprintLegacyMD5(pub), Active: true, Uploaded: c.Origin.Time,
	}
	switch err := c.Server.config.Identities.CreateSSHKey(ctx, key, maxSSHKeys); {
	case errors.Is(err, identity.ErrLimit):
		return nil, overQuota("SSHPublicKeysPerUser", maxSSHKeys)
	case errors.Is(err, identity.ErrExists):
		return nil, exception("DuplicateSSHPublicKey", "The SSH public key is already registered.")
	case err != nil:
		return nil, userKind().error(err, in.UserName)
	}
	return sshKeyShape(key, key.Body), nil
}

// parseSSHKey reads one public key, in the form of authorized_keys or as PEM of its
// PKIX DER. Options before a key (command="…") are refused rather than dropped.
func parseSSHKey(body string) (ssh.PublicKey, string, error) {
	body = strings.TrimSpace(body)
	pub, comment, err := parseSSHText(body)
	if strings.HasPrefix(body, "-----BEGIN") {
		comment = ""
		pub, err = parseSSHPEM(body)
	}
	if err != nil {
		return nil, "", exception("InvalidPublicKey", "The public key is not valid: %v.", err)
	}
	if err := checkStrength(pub); err != nil {
		return nil, "", exception("InvalidPublicKey", "The public key is not valid: %v.", err)
	}
	return pub, comment, nil
}

func parseSSHText(body string) (ssh.PublicKey, string, error) {
	pub, comment, options, rest, err := ssh.ParseAuthorizedKey([]byte(body))
	switch {
	case err != nil:
		return nil, "", errors.New("it is neither an authorized_keys line nor PEM")
	case len(options) > 0:
		return nil, "", errors.New("it has options before the key")
	case len(rest) > 0:
		return nil, "", errors.New("there is more than one key")
	}
	return pub, comment, nil
}

func parseSSHPEM(body string) (ssh.PublicKey, error) {
	block, rest := pem.Decode([]byte(body))
	if block == nil || block.Type != "PUBLIC KEY" || len(strings.TrimSpace(string(rest))) > 0 {
		return nil, errors.New("it is not one PEM block of a PUBLIC KEY")
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, errors.New("its PEM does not hold a public key")
	}
	pub, err := ssh.NewPublicKey(parsed)
	if err != nil {
		return nil, errors.New("its kind is not known to SSH")
	}
	return pub, nil
}

// checkStrength accepts RSA of 2048 bits and more, the NIST curves and Ed25519, with
// or without a security key; not DSA, and no certificates.
func checkStrength(pub ssh.PublicKey) error {
	allowed := []string{
		ssh.KeyAlgoRSA, ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521,
		ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256,
	}
	if !slices.Contains(allowed, pub.Type()) {
		return errors.New("its kind must be rsa, ecdsa or ed25519")
	}
	key, ok := pub.(ssh.CryptoPublicKey)
	if !ok {
		return nil
	}
	if r, ok := key.CryptoPublicKey().(*rsa.PublicKey); ok && (r.N.BitLen() < 2048 || r.N.BitLen() > 16384) {
		return errors.New("an RSA key must have 2048 to 16384 bits")
	}
	return nil
}

// authorizedKey is the line kept of a key. The comment comes from the caller and ends
// up in files: nothing but printable text on the same line.
func authorizedKey(pub ssh.PublicKey, comment string) string {
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(pub)))
	comment = strings.Map(func(r rune) rune {
		if r < ' ' || r > 0xFF || r >= 0x7F && r < 0xA0 {
			return -1
		}
		return r
	}, comment)
	return strings.TrimSpace(line + " " + comment)
}

func getSSHKey(ctx context.Context, c *Call, in *getSSHKeyInput) (*sshKeyOutput, error) {
	user, err := userKind().find(ctx, c, in.UserName)
	if err != nil {
		return nil, err
	}
	key, err := c.Server.config.Identities.SSHKey(ctx, user.owner.Name, in.SSHPublicKeyID)
	if err != nil {
		return nil, sshKeyError(err, in.SSHPublicKeyID)
	}
	body, err := encodeSSHKey(key.Body, in.Encoding)
	if err != nil {
		return nil, err
	}
	return sshKeyShape(key, body), nil
}

// encodeSSHKey gives a stored key as Encoding asks: SSH, the authorized_keys line, or
// PEM of its PKIX DER, which a security key does not have.
func encodeSSHKey(line, encoding string) (string, error) {
	unrecognized := exception("UnrecognizedPublicKeyEncoding", "The public key encoding format is unsupported or unrecognized: it must be SSH or PEM.")
	switch encoding {
	case "SSH":
		return line, nil
	case "PEM":
		pub, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
		if err != nil {
			return "", err
		}
		der, ok := pkixOf(pub)
		if !ok {
			return "", unrecognized
		}
		return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), nil
	}
	return "", unrecognized
}

func pkixOf(pub ssh.PublicKey) ([]byte, bool) {
	holder, ok := pub.(ssh.CryptoPublicKey)
	if !ok {
		return nil, false
	}
	var key crypto.PublicKey
	switch k := holder.CryptoPublicKey().(type) {
	case *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey:
		key = k
	default:
		return nil, false
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	return der, err == nil
}

type sshKeyMetadata struct {
	UserName       string    `xml:"UserName"`
	SSHPublicKeyID string    `xml:"SSHPublicKeyId"`
	Status         string    `xml:"Status"`
	UploadDate     wire.Time `xml:"UploadDate"`
}

type sshKeysOutput struct {
	SSHPublicKeys memberList[sshKeyMetadata] `xml:"SSHPublicKeys"`
	pageOutput
}

func listSSHKeys(ctx context.Context, c *Call, in *listKeysInput) (*sshKeysOutput, error) {
	user, err := userKind().find(ctx, c, in.UserName)
	if err != nil {
		return nil, err
	}
	keys, err := c.Server.config.Identities.SSHKeys(ctx, user.owner.Name)
	if err != nil {
		return nil, err
	}
	keys, more, err := pageOf(c, in.pageInput, keys, func(k identity.SSHPublicKey) string { return k.ID })
	out := &sshKeysOutput{pageOutput: more}
	for _, k := range keys {
		out.SSHPublicKeys.add(sshKeyMetadata{k.User, k.ID, status(k.Active), wire.Time{Time: k.Uploaded}})
	}
	return out, err
}

func sshKeyError(err error, id string) error {
	if errors.Is(err, identity.ErrNotFound) {
		return noSuchEntity("The Public Key with id %s cannot be found.", id)
	}
	return err
}

func updateSSHKey(ctx context.Context, c *Call, in *updateSSHKeyInput) (*nothing, error) {
	user, err := userKind().find(ctx, c, in.UserName)
	if err != nil {
		return nil, err
	}
	err = c.Server.config.Identities.UpdateSSHKey(ctx, user.owner.Name, in.SSHPublicKeyID, in.Status == "Active")
	return &nothing{}, sshKeyError(err, in.SSHPublicKeyID)
}

func deleteSSHKey(ctx context.Context, c *Call, in *deleteSSHKeyInput) (*nothing, error) {
	user, err := userKind().find(ctx, c, in.UserName)
	if err != nil {
		return nil, err
	}
	err = c.Server.config.Identities.DeleteSSHKey(ctx, user.owner.Name, in.SSHPublicKeyID)
	return &nothing{}, sshKeyError(err, in.SSHPublicKeyID)
}
