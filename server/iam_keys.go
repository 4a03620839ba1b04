package server

import (
	"context"
	"errors"

	"sallyport.dev/access"
	"sallyport.dev/identity"
	"sallyport.dev/wire"
)

// Access keys. Without a UserName they are the caller's own.

func iamKeyOperations() []*Operation {
	return []*Operation{
		op("iam", "CreateAccessKey", onUserOrCaller[createKeyInput], createAccessKey),
		op("iam", "ListAccessKeys", onUserOrCaller[listKeysInput], listAccessKeys, quietly),
		op("iam", "UpdateAccessKey", onUserOrCaller[updateKeyInput], updateAccessKey),
		op("iam", "DeleteAccessKey", onUserOrCaller[deleteKeyInput], deleteAccessKey),
		op("iam", "GetAccessKeyLastUsed", onKeyOwner, getAccessKeyLastUsed, quietly),
	}
}

// maxAccessKeys is how many keys a user may have: two, so that they can be rotated.
const maxAccessKeys = 2

type createKeyInput struct{ userRefInput }

type listKeysInput struct {
	userRefInput
	pageInput
}

type deleteKeyInput struct {
	userRefInput
	AccessKeyID string `json:"AccessKeyId" check:"required,min=16,max=128,pattern=\\w+"`
}

type updateKeyInput struct {
	userRefInput
	AccessKeyID string `json:"AccessKeyId" check:"required,min=16,max=128,pattern=\\w+"`
	Status      string `json:"Status" check:"required,enum=Active|Inactive"`
}

type accessKeyOutput struct {
	AccessKey struct {
		UserName        string    `xml:"UserName"`
		AccessKeyID     string    `xml:"AccessKeyId"`
		Status          string    `xml:"Status"`
		SecretAccessKey string    `xml:"SecretAccessKey"`
		CreateDate      wire.Time `xml:"CreateDate"`
	} `xml:"AccessKey"`
}

func (out *accessKeyOutput) made() string { return out.AccessKey.AccessKeyID }

// createAccessKey makes a key. Its answer is the only place where the secret ever
// appears; the store gets it sealed.
func createAccessKey(ctx context.Context, c *Call, in *createKeyInput) (*accessKeyOutput, error) {
	user, err := userKind().find(ctx, c, in.UserName)
	if err != nil {
		return nil, err
	}
	key, secret := identity.NewAccessKey(c.Server.config.Sealer, user.owner.Name, c.Origin.Time)
	switch err := c.Server.config.Identities.CreateAccessKey(ctx, key, maxAccessKeys); {
	case errors.Is(err, identity.ErrLimit):
		return nil, overQuota("AccessKeysPerUser", maxAccessKeys)
	case err != nil:
		return nil, userKind().error(err, in.UserName)
	}
	out := &accessKeyOutput{}
	out.AccessKey.UserName, out.AccessKey.AccessKeyID = key.User, key.ID
	out.AccessKey.Status, out.AccessKey.CreateDate = status(key.Active), wire.Time{Time: key.Created}
	out.AccessKey.SecretAccessKey = secret
	return out, nil
}

func status(active bool) string {
	if active {
		return "Active"
	}
	return "Inactive"
}

type accessKeyShape struct {
	UserName    string    `xml:"UserName"`
	AccessKeyID string    `xml:"AccessKeyId"`
	Status      string    `xml:"Status"`
	CreateDate  wire.Time `xml:"CreateDate"`
}

type accessKeysOutput struct {
	AccessKeyMetadata memberList[accessKeyShape] `xml:"AccessKeyMetadata"`
	pageOutput
}

func listAccessKeys(ctx context.Context, c *Call, in *listKeysInput) (*accessKeysOutput, error) {
	user, err := userKind().find(ctx, c, in.UserName)
	if err != nil {
		return nil, err
	}
	keys, err := c.Server.config.Identities.AccessKeys(ctx, user.owner.Name)
	if err != nil {
		return nil, err
	}
	keys, more, err := pageOf(c, in.pageInput, keys, func(k identity.AccessKey) string { return k.ID })
	out := &accessKeysOutput{pageOutput: more}
	for _, k := range keys {
		out.AccessKeyMetadata.add(accessKeyShape{k.User, k.ID, status(k.Active), wire.Time{Time: k.Created}})
	}
	return out, err
}

// keyError words an error about a key of a user. A key of somebody else is not found:
// the store is asked with both.
func keyError(err error, id string) error {
	if errors.Is(err, identity.ErrNotFound) {
		return noSuchEntity("The Access Key with id %s cannot be found.", id)
	}
	return err
}

func updateAccessKey(ctx context.Context, c *Call, in *updateKeyInput) (*nothing, error) {
	user, err := userKind().find(ctx, c, in.UserName)
	if err != nil {
		return nil, err
	}
	err = c.Server.config.Identities.UpdateAccessKey(ctx, user.owner.Name, in.AccessKeyID, in.Status == "Active")
	return &nothing{}, keyError(err, in.AccessKeyID)
}

func deleteAccessKey(ctx context.Context, c *Call, in *deleteKeyInput) (*nothing, error) {
	user, err := userKind().find(ctx, c, in.UserName)
	if err != nil {
		return nil, err
	}
	err = c.Server.config.Identities.DeleteAccessKey(ctx, user.owner.Name, in.AccessKeyID)
	return &nothing{}, keyError(err, in.AccessKeyID)
}

type keyLastUsedInput struct {
	AccessKeyID string `json:"AccessKeyId" check:"required,min=16,max=128,pattern=\\w+"`
}

// onKeyOwner authorises on the user whose key it is, or on any user where there is
// no such key.
func onKeyOwner(ctx context.Context, c *Call, in *keyLastUsedInput) ([]access.Resource, error) {
	key, err := c.Server.config.Identities.AccessKey(ctx, in.AccessKeyID)
	if errors.Is(err, identity.ErrNotFound) {
		return []access.Resource{{ARN: "*"}}, nil
	}
	if err != nil {
		return nil, err
	}
	return one(userKind().resource(ctx, c, key.User))
}

type keyLastUsedOutput struct {
	UserName          string `xml:"UserName"`
	AccessKeyLastUsed struct {
		LastUsedDate wire.Time `xml:"LastUsedDate"`
		ServiceName  string    `xml:"ServiceName"`
		Region       string    `xml:"Region"`
	} `xml:"AccessKeyLastUsed"`
}

func getAccessKeyLastUsed(ctx context.Context, c *Call, in *keyLastUsedInput) (*keyLastUsedOutput, error) {
	key, err := c.Server.config.Identities.AccessKey(ctx, in.AccessKeyID)
	if err != nil {
		return nil, keyError(err, in.AccessKeyID)
	}
	out := &keyLastUsedOutput{UserName: key.User}
	out.AccessKeyLastUsed.LastUsedDate = wire.Time{Time: key.LastUsed}
	// The service is not noted; N/A is also what IAM says of a key never used.
	out.AccessKeyLastUsed.ServiceName, out.AccessKeyLastUsed.Region = "N/A", "N/A"
	if !key.LastUsed.IsZero() {
		out.AccessKeyLastUsed.Region = c.Server.config.Realm.Region
	}
	return out, nil
}
