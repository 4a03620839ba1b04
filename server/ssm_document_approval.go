package server

import (
	"context"
	"errors"

	"sallyport.dev/access"
	"sallyport.dev/approval"
	"sallyport.dev/document"
)

// Documents that say who gets access just in time (package approval).

// actionPutFlows is what changing flows takes. Approval documents are flows: who may
// create session documents may not thereby say who approves access.
const actionPutFlows = "sallyport:PutFlows"

// checkApproval authorises making or changing an approval document, beside the
// operation's own action.
func (c *Call) checkApproval(ctx context.Context, name string) error {
	realm := c.Server.config.Realm
	return c.CheckAction(ctx, actionPutFlows, access.Resource{
		ARN: "arn:aws:sallyport:" + realm.Region + ":" + realm.Account + ":flow/" + approval.Prefix + name,
	})
}

// parseApproval checks a document of one of their types, by itself and beside the others.
func (c *Call) parseApproval(ctx context.Context, name, content, kind string) (*document.Document, error) {
	if c.Server.config.Approval == nil {
		return nil, ssmError("ValidationException", "This server gives no access just in time, so that documents of type %s mean nothing.", kind)
	}
	if err := c.checkApproval(ctx, name); err != nil {
		return nil, err
	}
	parsed, err := approval.Parse(name, kind, content)
	if err != nil {
		return nil, ssmError("InvalidDocumentContent", "%s", sentence(err))
	}
	return parsed, c.checkBeside(ctx, parsed)
}

// checkBeside checks a document beside those in force.
func (c *Call) checkBeside(ctx context.Context, d *document.Document) error {
	err := c.Server.config.Approval.Check(ctx, d)
	if errors.Is(err, approval.ErrLimit) {
		return ssmError("DocumentLimitExceeded", "%s", sentence(err))
	}
	if wrong := (*approval.ContentError)(nil); errors.As(err, &wrong) {
		return ssmError("InvalidDocumentContent", "%s", sentence(wrong))
	}
	return err
}

// checkInForce checks a version that is to come into force: what others say may have
// changed since it was made.
func (c *Call) checkInForce(ctx context.Context, d aDocument) error {
	if !approval.Is(d.stored.Type) || c.Server.config.Approval == nil {
		return nil
	}
	return c.checkBeside(ctx, d.parsed)
}

// storedDocument reads a version of a stored document by its type.
func storedDocument(d document.Stored, v document.Version) (*document.Document, error) {
	switch d.Type {
	case document.TypeManualApproval:
		return document.ParseApproval(d.Name, []byte(v.Content))
	case document.TypeAutoApproval:
		return document.Opaque(d.Name, d.Type, v.Content), nil
	}
	return document.Parse(d.Name, []byte(v.Content))
}
