package server

import (
	"context"
	"strings"

	"sallyport.dev/access"
	"sallyport.dev/kms"
	"sallyport.dev/wire"
)

// Operations of the service kms on keys and their names.

func kmsKeyOperations() []*Operation {
	return []*Operation{
		op("kms", "CreateKey", nil, createKey),
		op("kms", "DescribeKey", nil, describeKey, checksItself, quietly),
		op("kms", "ListKeys", nil, listKeys, quietly),
		op("kms", "EnableKey", nil, enableKey, checksItself),
		op("kms", "DisableKey", nil, disableKey, checksItself),
		op("kms", "ScheduleKeyDeletion", nil, scheduleKeyDeletion, checksItself),
		op("kms", "CancelKeyDeletion", nil, cancelKeyDeletion, checksItself),
		op("kms", "EnableKeyRotation", nil, enableKeyRotation, checksItself),
		op("kms", "DisableKeyRotation", nil, disableKeyRotation, checksItself),
		op("kms", "GetKeyRotationStatus", nil, getKeyRotationStatus, checksItself, quietly),
		op("kms", "RotateKeyOnDemand", nil, rotateKeyOnDemand, checksItself),
		op("kms", "GetKeyPolicy", nil, getKeyPolicy, checksItself, quietly),
	}
}

func kmsAliasOperations() []*Operation {
	return []*Operation{
		op("kms", "CreateAlias", nil, createAlias, checksItself),
		op("kms", "DeleteAlias", nil, deleteAlias, checksItself),
		op("kms", "ListAliases", nil, listAliases, quietly),
	}
}

type newKeyInput struct {
	Description string `json:"Description" check:"max=8192"`
	KeyUsage    string `json:"KeyUsage" check:"max=100"`
	KeySpec     string `json:"KeySpec" check:"max=100"`
	OldSpec     string `json:"CustomerMasterKeySpec" check:"max=100"`
	Origin      string `json:"Origin" check:"max=100"`
	MultiRegion bool   `json:"MultiRegion"`
	Policy      string `json:"Policy" check:"digest,max=131072"`
	Tags        []struct {
		Key   string `json:"TagKey" check:"max=128"`
		Value string `json:"TagValue" check:"max=256"`
	} `json:"Tags" check:"max=50"`
}

// unsupported names what AWS has and is not to be had here.
func (in *newKeyInput) unsupported() error {
	for _, wrong := range []struct {
		is   bool
		what string
	}{
		{in.KeyUsage != "" && in.KeyUsage != "ENCRYPT_DECRYPT", "KeyUsage must be ENCRYPT_DECRYPT."},
		{in.KeySpec != "" && in.KeySpec != symmetric, "KeySpec must be SYMMETRIC_DEFAULT."},
		{in.OldSpec != "" && in.OldSpec != symmetric, "CustomerMasterKeySpec must be SYMMETRIC_DEFAULT."},
		{in.Origin != "" && in.Origin != "AWS_KMS", "Origin must be AWS_KMS."},
		{in.MultiRegion, "Keys belong to one deployment."},
		{in.Policy != "", "Keys have no policies of their own here; those of users, groups and roles say who may use them."},
		{len(in.Tags) > 0, "Keys have no tags here."},
	} {
		if wrong.is {
			return exception("UnsupportedOperationException", "%s", wrong.what)
		}
	}
	return nil
}

// keyMetadata is a key as AWS tells of it.
type keyMetadata struct {
	AWSAccountID         string    `json:"AWSAccountId"`
	KeyID                string    `json:"KeyId"`
	Arn                  string    `json:"Arn"`
	CreationDate         wire.Time `json:"CreationDate"`
	Enabled              bool      `json:"Enabled"`
	Description          string    `json:"Description"`
	KeyUsage             string    `json:"KeyUsage"`
	KeyState             string    `json:"KeyState"`
	DeletionDate         wire.Time `json:"DeletionDate,omitzero"`
	Origin               string    `json:"Origin"`
	KeyManager           string    `json:"KeyManager"`
	OldSpec              string    `json:"CustomerMasterKeySpec"`
	KeySpec              string    `json:"KeySpec"`
	EncryptionAlgorithms []string  `json:"EncryptionAlgorithms"`
	MultiRegion          bool      `json:"MultiRegion"`
}

func (c *Call) keyMetadata(k kms.Key) keyMetadata {
	realm := c.Server.config.Realm
	return keyMetadata{
		AWSAccountID: realm.Account, KeyID: k.ID, Arn: realm.Key(k.ID), CreationDate: wire.Time{Time: k.Created},
		Enabled: k.State == kms.Enabled, Description: k.Description, KeyUsage: "ENCRYPT_DECRYPT", KeyState: string(k.State),
		DeletionDate: wire.Time{Time: k.Deletion}, Origin: "AWS_KMS", KeyManager: "CUSTOMER",
		OldSpec: symmetric, KeySpec: symmetric, EncryptionAlgorithms: []string{symmetric},
	}
}

type keyMetadataOutput struct {
	KeyMetadata keyMetadata `json:"KeyMetadata"`
}

type newKeyOutput keyMetadataOutput

func (o *newKeyOutput) made() string { return o.KeyMetadata.Arn }

func createKey(ctx context.Context, c *Call, in *newKeyInput) (*newKeyOutput, error) {
	if err := in.unsupported(); err != nil {
		return nil, err
	}
	keys, err := c.keys()
	if err != nil {
		return nil, err
	}
	k, err := keys.Create(ctx, in.Description)
	if err != nil {
		return nil, err
	}
	return &newKeyOutput{c.keyMetadata(k)}, nil
}

type keyInput struct {
	KeyID string `json:"KeyId" check:"required,min=1,max=2048"`
}

func describeKey(ctx context.Context, c *Call, in *keyInput) (*keyMetadataOutput, error) {
	k, err := c.useKey(ctx, c.Operation.Action, in.KeyID)
	if err != nil {
		return nil, err
	}
	return &keyMetadataOutput{c.keyMetadata(k)}, nil
}

type listKMSKeysInput struct {
	Limit  int    `json:"Limit" check:"min=1,max=1000"`
	Marker string `json:"Marker" check:"max=1024"`
}

type listedKey struct {
	KeyID  string `json:"KeyId"`
	KeyArn string `json:"KeyArn"`
}

type listKMSKeysOutput struct {
	Keys       []listedKey `json:"Keys"`
	NextMarker string      `json:"NextMarker,omitempty"`
	Truncated  bool        `json:"Truncated"`
}

func listKeys(ctx context.Context, c *Call, in *listKMSKeysInput) (*listKMSKeysOutput, error) {
	keys, err := c.keys()
	if err != nil {
		return nil, err
	}
	p := pages[kms.Key]{
		size:  100,
		fetch: func(after string, n int) ([]kms.Key, error) { return keys.Keys(ctx, after, n) },
		key:   func(k kms.Key) string { return k.ID },
	}
	found, next, err := p.page(c, in.Marker, in.Limit)
	if err != nil {
		return nil, err
	}
	out := &listKMSKeysOutput{Keys: []listedKey{}, NextMarker: next, Truncated: next != ""}
	for _, k := range found {
		out.Keys = append(out.Keys, listedKey{k.ID, c.Server.config.Realm.Key(k.ID)})
	}
	return out, nil
}

// changeKey authorises a change of a key and makes it.
func (c *Call) changeKey(ctx context.Context, given string, change func(*kms.Keeper, kms.Key) error) error {
	k, err := c.ownKey(ctx, given)
	if err != nil {
		return err
	}
	return c.kmsError(c.Server.config.Realm.Key(k.ID), change(c.Server.config.Keys, k))
}

func enableKey(ctx context.Context, c *Call, in *keyInput) (*struct{}, error) {
	return &struct{}{}, c.changeKey(ctx, in.KeyID, func(keys *kms.Keeper, k kms.Key) error { return keys.SetEnabled(ctx, k.ID, true) })
}

func disableKey(ctx context.Context, c *Call, in *keyInput) (*struct{}, error) {
	return &struct{}{}, c.changeKey(ctx, in.KeyID, func(keys *kms.Keeper, k kms.Key) error { return keys.SetEnabled(ctx, k.ID, false) })
}

type scheduleKeyDeletionInput struct {
	KeyID  string `json:"KeyId" check:"required,min=1,max=2048"`
	Window *int   `json:"PendingWindowInDays" check:"min=7,max=30"`
}

type scheduleKeyDeletionOutput struct {
	KeyID        string    `json:"KeyId"`
	DeletionDate wire.Time `json:"DeletionDate"`
	KeyState     string    `json:"KeyState"`
	Window       int       `json:"PendingWindowInDays"`
}

func scheduleKeyDeletion(ctx context.Context, c *Call, in *scheduleKeyDeletionInput) (*scheduleKeyDeletionOutput, error) {
	days := kms.DefaultWindow
	if in.Window != nil {
		days = *in.Window
	}
	var out *scheduleKeyDeletionOutput
	err := c.changeKey(ctx, in.KeyID, func(keys *kms.Keeper, k kms.Key) (err error) {
		k, err = keys.ScheduleDeletion(ctx, k.ID, days)
		out = &scheduleKeyDeletionOutput{c.Server.config.Realm.Key(k.ID), wire.Time{Time: k.Deletion}, string(k.State), days}
		return err
	})
	return out, err
}

type keyIDOutput struct {
	KeyID string `json:"KeyId"`
}

func cancelKeyDeletion(ctx context.Context, c *Call, in *keyInput) (*keyIDOutput, error) {
	out := &keyIDOutput{}
	err := c.changeKey(ctx, in.KeyID, func(keys *kms.Keeper, k kms.Key) error {
		out.KeyID = c.Server.config.Realm.Key(k.ID)
		return keys.CancelDeletion(ctx, k.ID)
	})
	return out, err
}

type enableKeyRotationInput struct {
	KeyID  string `json:"KeyId" check:"required,min=1,max=2048"`
	Period *int   `json:"RotationPeriodInDays" check:"min=90,max=2560"`
}

func enableKeyRotation(ctx context.Context, c *Call, in *enableKeyRotationInput) (*struct{}, error) {
	days := kms.DefaultPeriod
	if in.Period != nil {
		days = *in.Period
	}
	return &struct{}{}, c.changeKey(ctx, in.KeyID, func(keys *kms.Keeper, k kms.Key) error { return keys.SetRotation(ctx, k.ID, days) })
}

func disableKeyRotation(ctx context.Context, c *Call, in *keyInput) (*struct{}, error) {
	return &struct{}{}, c.changeKey(ctx, in.KeyID, func(keys *kms.Keeper, k kms.Key) error { return keys.SetRotation(ctx, k.ID, 0) })
}

type keyRotationOutput struct {
	KeyID   string    `json:"KeyId"`
	Enabled bool      `json:"KeyRotationEnabled"`
	Period  int       `json:"RotationPeriodInDays,omitempty"`
	Next    wire.Time `json:"NextRotationDate,omitzero"`
}

func getKeyRotationStatus(ctx context.Context, c *Call, in *keyInput) (*keyRotationOutput, error) {
	k, err := c.ownKey(ctx, in.KeyID)
	if err != nil {
		return nil, err
	}
	return &keyRotationOutput{c.Server.config.Realm.Key(k.ID), k.Rotation > 0, k.Rotation, wire.Time{Time: k.NextRotation()}}, nil
}

func rotateKeyOnDemand(ctx context.Context, c *Call, in *keyInput) (*keyIDOutput, error) {
	out := &keyIDOutput{}
	err := c.changeKey(ctx, in.KeyID, func(keys *kms.Keeper, k kms.Key) error {
		out.KeyID = c.Server.config.Realm.Key(k.ID)
		return keys.Rotate(ctx, k.ID)
	})
	return out, err
}

type getKeyPolicyInput struct {
	KeyID      string `json:"KeyId" check:"required,min=1,max=2048"`
	PolicyName string `json:"PolicyName" check:"enum=default"`
}

type getKeyPolicyOutput struct {
	Policy     string `json:"Policy"`
	PolicyName string `json:"PolicyName"`
}

// getKeyPolicy tells the policy that every key has: the one with which AWS leaves it to
// the policies of users, groups and roles who may use a key.
func getKeyPolicy(ctx context.Context, c *Call, in *getKeyPolicyInput) (*getKeyPolicyOutput, error) {
	if _, err := c.ownKey(ctx, in.KeyID); err != nil {
		return nil, err
	}
	return &getKeyPolicyOutput{
		Policy: `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::` +
			c.Server.config.Realm.Account + `:root"},"Action":"kms:*","Resource":"*"}]}`,
		PolicyName: "default",
	}, nil
}

type createAliasInput struct {
	AliasName string `json:"AliasName" check:"required,min=1,max=256"`
	Target    string `json:"TargetKeyId" check:"required,min=1,max=2048"`
}

// createAlias is authorised on the alias and on its key, as by AWS.
func createAlias(ctx context.Context, c *Call, in *createAliasInput) (*struct{}, error) {
	if err := c.Check(ctx, access.Resource{ARN: c.Server.config.Realm.Alias(in.AliasName)}); err != nil {
		return nil, err
	}
	if !kms.IsAliasName(in.AliasName) {
		return nil, exception("InvalidAliasNameException", "An alias is called alias/NAME: letters, digits, slashes, underscores and dashes, and not alias/aws/….")
	}
	return &struct{}{}, c.changeKey(ctx, in.Target, func(keys *kms.Keeper, k kms.Key) error {
		return keys.CreateAlias(ctx, in.AliasName, k.ID)
	})
}

type deleteAliasInput struct {
	AliasName string `json:"AliasName" check:"required,min=1,max=256"`
}

func deleteAlias(ctx context.Context, c *Call, in *deleteAliasInput) (*struct{}, error) {
	arn := c.Server.config.Realm.Alias(in.AliasName)
	if err := c.Check(ctx, access.Resource{ARN: arn}); err != nil {
		return nil, err
	}
	keys, err := c.keys()
	if err != nil {
		return nil, err
	}
	if !strings.HasPrefix(in.AliasName, kms.AliasPrefix) {
		return nil, c.kmsError(c.Server.config.Realm.Alias(kms.AliasPrefix+in.AliasName), kms.ErrNotFound)
	}
	alias, err := keys.Alias(ctx, in.AliasName)
	if err != nil {
		return nil, c.kmsError(arn, err)
	}
	return &struct{}{}, c.changeKey(ctx, alias.KeyID, func(keys *kms.Keeper, k kms.Key) error {
		return keys.DeleteAlias(ctx, in.AliasName, k.ID)
	})
}

type listAliasesInput struct {
	KeyID  string `json:"KeyId" check:"min=1,max=2048"`
	Limit  int    `json:"Limit" check:"min=1,max=100"`
	Marker string `json:"Marker" check:"max=1024"`
}

type listedAlias struct {
	AliasName string    `json:"AliasName"`
	AliasArn  string    `json:"AliasArn"`
	Target    string    `json:"TargetKeyId"`
	Created   wire.Time `json:"CreationDate"`
	Updated   wire.Time `json:"LastUpdatedDate"`
}

type listAliasesOutput struct {
	Aliases    []listedAlias `json:"Aliases"`
	NextMarker string        `json:"NextMarker,omitempty"`
	Truncated  bool          `json:"Truncated"`
}

func listAliases(ctx context.Context, c *Call, in *listAliasesInput) (*listAliasesOutput, error) {
	keys, err := c.keys()
	if err != nil {
		return nil, err
	}
	id := c.Server.kmsName(in.KeyID)
	p := pages[kms.Alias]{
		size:  100,
		fetch: func(after string, n int) ([]kms.Alias, error) { return keys.Aliases(ctx, id, after, n) },
		key:   func(a kms.Alias) string { return a.Name },
	}
	found, next, err := p.page(c, in.Marker, in.Limit)
	if err != nil {
		return nil, err
	}
	out := &listAliasesOutput{Aliases: []listedAlias{}, NextMarker: next, Truncated: next != ""}
	for _, a := range found {
		out.Aliases = append(out.Aliases, listedAlias{
			a.Name, c.Server.config.Realm.Alias(a.Name), a.KeyID, wire.Time{Time: a.Created}, wire.Time{Time: a.Updated},
		})
	}
	return out, nil
}
