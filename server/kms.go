package server

import (
	"context"
	"encoding/base64"
	"errors"
	"maps"
	"slices"
	"strings"

	"sallyport.dev/access"
	"sallyport.dev/kms"
	"sallyport.dev/session"
	"sallyport.dev/wire"
)

// The service kms: keys of package kms, spoken of as AWS's Key Management Service does
// (docs/encryption.md).

func kmsOperations() []*Operation {
	return slices.Concat(kmsKeyOperations(), kmsAliasOperations(), kmsTextOperations())
}

// keys are the deployment's keys.
func (c *Call) keys() (*kms.Keeper, error) {
	if c.Server.config.Keys == nil {
		return nil, exception("NotFoundException", "This server keeps no keys.")
	}
	return c.Server.config.Keys, nil
}

// kmsName is a key's id, or the name of an alias, of what a caller names a key by: either
// of them, or an ARN. It is as given where that is no ARN of ours.
func (s *Server) kmsName(given string) string {
	realm := s.config.Realm
	if id, ok := strings.CutPrefix(given, realm.Key("")); ok {
		return id
	}
	if name, ok := strings.CutPrefix(given, realm.Alias("")); ok && strings.HasPrefix(name, kms.AliasPrefix) {
		return name
	}
	return given
}

// kmsARN is the ARN of what kmsName names.
func (s *Server) kmsARN(name string) string {
	switch {
	case name == "":
		return "*"
	case strings.HasPrefix(name, "arn:"):
		return name
	case strings.HasPrefix(name, kms.AliasPrefix):
		return s.config.Realm.Alias(name)
	}
	return s.config.Realm.Key(name)
}

// findKey finds the key that a caller names. The resource is what to authorise, also
// where there is no such key (kms.ErrNotFound).
func (c *Call) findKey(ctx context.Context, given string) (k kms.Key, r access.Resource, err error) {
	name := c.Server.kmsName(given)
	delete(c.Context, "kms:RequestAlias") // of the key that ReEncrypt asked for before
	if strings.HasPrefix(name, kms.AliasPrefix) {
		c.SetContext("kms:RequestAlias", name)
	}
	r.ARN = c.Server.kmsARN(name)
	if c.Server.config.Keys == nil || given == "" {
		return k, r, kms.ErrNotFound
	}
	if k, err = c.Server.config.Keys.Key(ctx, name); err == nil {
		r.ARN = c.Server.config.Realm.Key(k.ID)
	}
	return k, r, err
}

// useKey finds the key that a caller names and authorises an action on it. That there is
// no such key is told to those who might use it.
func (c *Call) useKey(ctx context.Context, action, given string) (kms.Key, error) {
	k, resource, err := c.findKey(ctx, given)
	if err != nil && !errors.Is(err, kms.ErrNotFound) {
		return k, err
	}
	if err := c.CheckAction(ctx, action, resource); err != nil {
		return k, err
	}
	return k, c.kmsError(resource.ARN, err)
}

// ownKey is useKey for operations that name keys by id or ARN, and not by an alias.
func (c *Call) ownKey(ctx context.Context, given string) (kms.Key, error) {
	k, err := c.useKey(ctx, c.Operation.Action, given)
	if name := c.Server.kmsName(given); err == nil && strings.HasPrefix(name, kms.AliasPrefix) {
		return k, exception("InvalidArnException", "%s takes the id or the ARN of a key, not %s.", c.Operation.Name, truncate(name, 100))
	}
	return k, err
}

// kmsError words the errors of keys.
func (c *Call) kmsError(arn string, err error) error {
	switch {
	case errors.Is(err, kms.ErrNotFound) && strings.Contains(arn, ":alias/"):
		return exception("NotFoundException", "Alias %s is not found.", truncate(arn, 300))
	case errors.Is(err, kms.ErrNotFound):
		return exception("NotFoundException", "Key '%s' does not exist", truncate(arn, 300))
	case errors.Is(err, kms.ErrDisabled):
		return exception("DisabledException", "%s is disabled.", arn)
	case errors.Is(err, kms.ErrState):
		return exception("KMSInvalidStateException", "%s is not in a state in which %s is possible.", arn, c.Operation.Name)
	case errors.Is(err, kms.ErrCiphertext):
		return exception("InvalidCiphertextException", "The ciphertext does not decrypt: it was altered, or encrypted with another context, or its key is gone.")
	case errors.Is(err, kms.ErrWrongKey):
		return exception("IncorrectKeyException", "The key ID in the request does not identify a CMK that can perform this operation.")
	}
	return err
}

// kmsUse are the members that operations with texts have in common.
type kmsUse struct {
	EncryptionContext map[string]string `json:"EncryptionContext"`
	kmsOptions
}

// kmsOptions are those of them that ReEncrypt has, too.
type kmsOptions struct {
	GrantTokens []string `json:"GrantTokens" check:"max=10" each:"max=8192"`
	DryRun      bool     `json:"DryRun"`
}

// check refuses what there is not, before anything is authorised, and dry runs after.
func (o kmsOptions) check() error {
	if len(o.GrantTokens) > 0 {
		return exception("InvalidGrantTokenException", "There are no grants of keys here; policies say who may use them.")
	}
	return nil
}

func (o kmsOptions) dry() error {
	if o.DryRun {
		return exception("DryRunOperationException", "The request would have succeeded, but the DryRun option is set.")
	}
	return nil
}

// setEncryptionContext makes condition keys of an encryption context, and puts the
// session that it names into the audit record where that is the caller's.
func (c *Call) setEncryptionContext(ctx context.Context, e map[string]string) error {
	if err := kms.Context(e).Check(); err != nil {
		return exception("ValidationException", "%s", sentence(err))
	}
	for key := range c.Context {
		if strings.HasPrefix(key, "kms:EncryptionContext") {
			delete(c.Context, key)
		}
	}
	for key, value := range e {
		c.SetContext("kms:EncryptionContext:"+key, value)
	}
	if len(e) > 0 {
		c.SetContext("kms:EncryptionContextKeys", slices.Sorted(maps.Keys(e))...)
	}
	id := e[wire.ContextSessionID]
	if id == "" {
		return nil
	}
	v, err := c.Server.config.Sessions.Session(ctx, id)
	if errors.Is(err, session.ErrNotFound) {
		return nil
	}
	if err == nil && (owns(c.Principal, v) || c.Principal.IsNode() && v.NodeID == c.Principal.Name) {
		c.Session, c.Node = v.ID, v.NodeID
	}
	return err
}

// decodeBlob decodes a member of bytes.
func decodeBlob(member, text string) ([]byte, error) {
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, exception("SerializationException", "%s is not base64.", member)
	}
	return b, nil
}
