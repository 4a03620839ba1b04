package server

import (
	"context"
	"errors"

	"sallyport.dev/document"
	"sallyport.dev/kms"
	"sallyport.dev/session"
)

// encrypted reports whether the ends of the session encrypt what they send each other.
// Those of a Port session do not, whatever its document says: what they carry is.
func (p *plan) encrypted() bool {
	return p.resolved != nil && p.resolved.Inputs.KMSKeyID != "" && p.document.SessionType != document.Port
}

// encryptSession completes the request for a session whose ends encrypt the stream, as
// far as the server's configuration admits those.
func (c *Call) encryptSession(ctx context.Context, in StartInput, p *plan, req *session.StartRequest) error {
	if !p.encrypted() {
		return nil
	}
	if in.Exec != nil {
		return ssmError("InvalidDocument", "Document %s demands encryption between client and node (kmsKeyId). Sessions through the SSH gateway have none: for the node, the gateway is their client.", p.document.Name)
	}
	mode, name := c.Server.config.Encrypted, p.resolved.Inputs.KMSKeyID
	if mode == session.EncryptionNone {
		return ssmError("InvalidDocument", `Sessions with document %s are encrypted between client and node (kmsKeyId), and this server refuses those: its setting sessions.encrypted is "refuse".`, p.document.Name)
	}
	k, err := c.sessionKey(ctx, name)
	switch {
	case errors.Is(err, kms.ErrNotFound) && mode == session.EncryptionRecorded:
		return ssmError("InvalidDocument", `The key %s (kmsKeyId of document %s) is none of this server's, so that it cannot record sessions with it, which its setting sessions.encrypted = "record" demands.`, truncate(name, 200), p.document.Name)
	case err != nil && !errors.Is(err, kms.ErrNotFound):
		return err
	}
	req.Session.KMSKey, req.Session.Encryption = orElse(k.ID, name), mode
	req.Options.Encrypted, req.Options.KMSKeyID = true, name
	req.Options.Record = req.Options.Record && mode == session.EncryptionRecorded
	return nil
}

// sessionKey finds the key that a session's document names.
func (c *Call) sessionKey(ctx context.Context, name string) (kms.Key, error) {
	if c.Server.config.Keys == nil {
		return kms.Key{}, kms.ErrNotFound
	}
	return c.Server.config.Keys.Key(ctx, c.Server.kmsName(name))
}
