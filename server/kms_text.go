package server

import (
	"context"
	"errors"

	"sallyport.dev/kms"
)

// Operations of the service kms that encrypt and decrypt.

func kmsTextOperations() []*Operation {
	return []*Operation{
		op("kms", "GenerateDataKey", nil, generateDataKey, checksItself),
		op("kms", "GenerateDataKeyWithoutPlaintext", nil, generateDataKeyWithoutPlaintext, checksItself),
		op("kms", "Encrypt", nil, encrypt, checksItself),
		op("kms", "Decrypt", nil, decrypt, checksItself),
		op("kms", "ReEncrypt", nil, reEncrypt, checksItself),
	}
}

type generateDataKeyInput struct {
	KeyID         string `json:"KeyId" check:"required,min=1,max=2048"`
	KeySpec       string `json:"KeySpec" check:"enum=AES_256|AES_128"`
	NumberOfBytes *int   `json:"NumberOfBytes" check:"min=1,max=1024"`
	kmsUse
}

type generateDataKeyOutput struct {
	CiphertextBlob []byte `json:"CiphertextBlob"`
	Plaintext      []byte `json:"Plaintext,omitempty"`
	KeyID          string `json:"KeyId"`
}

// size is the length of the data key that is asked for.
func (in *generateDataKeyInput) size() (int, error) {
	switch {
	case (in.KeySpec == "") == (in.NumberOfBytes == nil):
		return 0, exception("ValidationException", "Please specify either number of bytes or key spec.")
	case in.KeySpec == "AES_256":
		return 32, nil
	case in.KeySpec == "AES_128":
		return 16, nil
	}
	return *in.NumberOfBytes, nil
}

func generateDataKey(ctx context.Context, c *Call, in *generateDataKeyInput) (*generateDataKeyOutput, error) {
	k, err := c.textKey(ctx, in.KeyID, in.kmsUse)
	if err != nil {
		return nil, err
	}
	n, err := in.size()
	if err == nil {
		err = in.dry()
	}
	if err != nil {
		return nil, err
	}
	arn := c.Server.config.Realm.Key(k.ID)
	text, blob, err := c.Server.config.Keys.DataKey(ctx, k, n, in.EncryptionContext)
	if err != nil {
		return nil, c.kmsError(arn, err)
	}
	return &generateDataKeyOutput{CiphertextBlob: blob, Plaintext: text, KeyID: arn}, nil
}

func generateDataKeyWithoutPlaintext(ctx context.Context, c *Call, in *generateDataKeyInput) (*generateDataKeyOutput, error) {
	out, err := generateDataKey(ctx, c, in)
	if err == nil {
		clear(out.Plaintext)
		out.Plaintext = nil
	}
	return out, err
}

// textKey finds and authorises the key of an operation that encrypts.
func (c *Call) textKey(ctx context.Context, name string, use kmsUse) (kms.Key, error) {
	if err := use.check(); err != nil {
		return kms.Key{}, err
	}
	if err := c.setEncryptionContext(ctx, use.EncryptionContext); err != nil {
		return kms.Key{}, err
	}
	return c.useKey(ctx, c.Operation.Action, name)
}

// symmetric is the only algorithm there is.
const symmetric = "SYMMETRIC_DEFAULT"

type encryptInput struct {
	KeyID               string `json:"KeyId" check:"required,min=1,max=2048"`
	Plaintext           string `json:"Plaintext" check:"required,secret,min=4,max=5464"` // 4096 bytes as base64
	EncryptionAlgorithm string `json:"EncryptionAlgorithm" check:"enum=SYMMETRIC_DEFAULT"`
	kmsUse
}

type encryptOutput struct {
	CiphertextBlob      []byte `json:"CiphertextBlob"`
	KeyID               string `json:"KeyId"`
	EncryptionAlgorithm string `json:"EncryptionAlgorithm"`
}

func encrypt(ctx context.Context, c *Call, in *encryptInput) (*encryptOutput, error) {
	k, err := c.textKey(ctx, in.KeyID, in.kmsUse)
	if err != nil {
		return nil, err
	}
	text, err := decodeBlob("Plaintext", in.Plaintext)
	if err == nil {
		err = in.dry()
	}
	if err != nil {
		return nil, err
	}
	if len(text) > kms.MaxPlaintext {
		return nil, exception("ValidationException", "Plaintext has %d bytes; it may have %d.", len(text), kms.MaxPlaintext)
	}
	arn := c.Server.config.Realm.Key(k.ID)
	blob, err := c.Server.config.Keys.Encrypt(ctx, k, text, in.EncryptionContext)
	if err != nil {
		return nil, c.kmsError(arn, err)
	}
	return &encryptOutput{blob, arn, symmetric}, nil
}

type decryptInput struct {
	CiphertextBlob      string `json:"CiphertextBlob" check:"required,secret,min=1,max=8192"` // 6144 bytes as base64
	KeyID               string `json:"KeyId" check:"min=1,max=2048"`
	EncryptionAlgorithm string `json:"EncryptionAlgorithm" check:"enum=SYMMETRIC_DEFAULT"`
	kmsUse
}

type decryptOutput struct {
	KeyID               string `json:"KeyId"`
	Plaintext           []byte `json:"Plaintext"`
	EncryptionAlgorithm string `json:"EncryptionAlgorithm"`
}

func decrypt(ctx context.Context, c *Call, in *decryptInput) (*decryptOutput, error) {
	if err := in.check(); err != nil {
		return nil, err
	}
	if err := c.setEncryptionContext(ctx, in.EncryptionContext); err != nil {
		return nil, err
	}
	blob, wrong := c.blob("CiphertextBlob", in.CiphertextBlob)
	k, err := c.decryptingKey(ctx, orElse(in.KeyID, blob.KeyID), wrong, in.EncryptionContext)
	if err == nil {
		err = in.dry()
	}
	if err != nil {
		return nil, err
	}
	arn := c.Server.config.Realm.Key(k.ID)
	text, err := c.Server.config.Keys.Decrypt(ctx, k, blob, in.EncryptionContext)
	if err != nil {
		return nil, c.kmsError(arn, err)
	}
	return &decryptOutput{arn, text, symmetric}, nil
}

// blob decodes what a key has encrypted, and reads its head.
func (c *Call) blob(member, text string) (kms.Blob, error) {
	b, err := decodeBlob(member, text)
	if err != nil {
		return kms.Blob{}, err
	}
	blob, err := kms.ParseBlob(b)
	return blob, c.kmsError("", err)
}

// decryptingKey finds the key to decrypt with. People need policy for it, and nodes a
// session. What is wrong with the ciphertext is said to who may use it.
func (c *Call) decryptingKey(ctx context.Context, name string, wrong error, e map[string]string) (kms.Key, error) {
	k, resource, err := c.findKey(ctx, name)
	if err != nil && !errors.Is(err, kms.ErrNotFound) {
		return k, err
	}
	if c.Principal.IsNode() {
		if err := c.admitNode(ctx, k, resource, e); err != nil {
			return k, err
		}
		return k, wrong
	}
	if err := c.CheckAction(ctx, c.Operation.Action, resource); err != nil {
		return k, err
	}
	if wrong != nil {
		return k, wrong
	}
	return k, c.kmsError(resource.ARN, err)
}

type reEncryptInput struct {
	CiphertextBlob                 string            `json:"CiphertextBlob" check:"required,secret,min=1,max=8192"`
	SourceKeyID                    string            `json:"SourceKeyId" check:"min=1,max=2048"`
	SourceEncryptionContext        map[string]string `json:"SourceEncryptionContext"`
	SourceEncryptionAlgorithm      string            `json:"SourceEncryptionAlgorithm" check:"enum=SYMMETRIC_DEFAULT"`
	DestinationKeyID               string            `json:"DestinationKeyId" check:"required,min=1,max=2048"`
	DestinationEncryptionContext   map[string]string `json:"DestinationEncryptionContext"`
	DestinationEncryptionAlgorithm string            `json:"DestinationEncryptionAlgorithm" check:"enum=SYMMETRIC_DEFAULT"`
	kmsOptions
}

type reEncryptOutput struct {
	CiphertextBlob                 []byte `json:"CiphertextBlob"`
	SourceKeyID                    string `json:"SourceKeyId"`
	KeyID                          string `json:"KeyId"`
	SourceEncryptionAlgorithm      string `json:"SourceEncryptionAlgorithm"`
	DestinationEncryptionAlgorithm string `json:"DestinationEncryptionAlgorithm"`
}

// reEncrypt needs kms:ReEncryptFrom on the one key and kms:ReEncryptTo on the other.
func reEncrypt(ctx context.Context, c *Call, in *reEncryptInput) (*reEncryptOutput, error) {
	if err := in.check(); err != nil {
		return nil, err
	}
	blob, wrong := c.blob("CiphertextBlob", in.CiphertextBlob)
	from, err := c.reEncryptKey(ctx, "kms:ReEncryptFrom", orElse(in.SourceKeyID, blob.KeyID), in.SourceEncryptionContext)
	if err == nil {
		err = wrong
	}
	if err != nil {
		return nil, err
	}
	to, err := c.reEncryptKey(ctx, "kms:ReEncryptTo", in.DestinationKeyID, in.DestinationEncryptionContext)
	if err == nil {
		err = in.dry()
	}
	if err != nil {
		return nil, err
	}
	return c.reEncrypted(ctx, in, from, to, blob)
}

func (c *Call) reEncryptKey(ctx context.Context, action, name string, e map[string]string) (kms.Key, error) {
	if err := c.setEncryptionContext(ctx, e); err != nil {
		return kms.Key{}, err
	}
	return c.useKey(ctx, action, name)
}

func (c *Call) reEncrypted(ctx context.Context, in *reEncryptInput, from, to kms.Key, blob kms.Blob) (*reEncryptOutput, error) {
	keys, realm := c.Server.config.Keys, c.Server.config.Realm
	text, err := keys.Decrypt(ctx, from, blob, in.SourceEncryptionContext)
	if err != nil {
		return nil, c.kmsError(realm.Key(from.ID), err)
	}
	defer clear(text)
	again, err := keys.Encrypt(ctx, to, text, in.DestinationEncryptionContext)
	if err != nil {
		return nil, c.kmsError(realm.Key(to.ID), err)
	}
	return &reEncryptOutput{again, realm.Key(from.ID), realm.Key(to.ID), symmetric, symmetric}, nil
}
