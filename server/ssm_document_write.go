package server

import (
	"context"
	"encoding/json"
	"errors"
	"strings"

	"sallyport.dev/access"
	"sallyport.dev/approval"
	"sallyport.dev/document"
)

// Creating and changing documents.

type createDocumentInput struct {
	Name           string          `json:"Name" check:"required,pattern=[a-zA-Z0-9_\\-.]{3,128}"`
	Content        string          `json:"Content" check:"required,digest,min=1"`
	VersionName    string          `json:"VersionName" check:"pattern=[a-zA-Z0-9_\\-.]{1,128}"`
	DocumentType   string          `json:"DocumentType" check:"enum=Command|Session|ManualApprovalPolicy|AutoApprovalPolicy|ManualApproval|AutoApproval"`
	DocumentFormat string          `json:"DocumentFormat" check:"enum=YAML|JSON|TEXT"`
	Tags           []tag           `json:"Tags" check:"max=50"`
	Requires       json.RawMessage `json:"Requires"`
	Attachments    json.RawMessage `json:"Attachments"`
}

func createDocumentResource(_ context.Context, c *Call, in *createDocumentInput) ([]access.Resource, error) {
	tags, err := nodeTags(in.Tags)
	if err != nil {
		return nil, err
	}
	c.SetRequestTags(tags)
	c.Document = in.Name
	r := access.Resource{ARN: c.Server.config.Realm.Document(in.Name)}
	if kind := documentType(in.DocumentType); kind != "" {
		r.Context = map[string][]string{keyDocumentType: {kind}}
	}
	return []access.Resource{r}, nil
}

// keyDocumentType is the condition key of the type of a document.
const keyDocumentType = "ssm:DocumentType"

// documentType is the type of a document as it is asked for: AWS's guide for approval
// documents writes two of them without their end.
func documentType(asked string) string {
	switch asked {
	case "ManualApproval", "AutoApproval":
		return asked + "Policy"
	}
	return asked
}

type documentDescriptionOutput struct {
	DocumentDescription documentDescription `json:"DocumentDescription"`
}

func createDocument(ctx context.Context, c *Call, in *createDocumentInput) (*documentDescriptionOutput, error) {
	for _, reserved := range []string{"aws", "amazon", "amzn", "sallyport"} {
		if strings.HasPrefix(strings.ToLower(in.Name), reserved) {
			return nil, ssmError("ValidationException", "Document names must not begin with aws, amazon, amzn or sallyport.")
		}
	}
	if len(in.Requires) > 0 || len(in.Attachments) > 0 {
		return nil, ssmError("ValidationException", "Requires and Attachments are not supported: a document stands alone.")
	}
	parsed, err := c.parseDocument(ctx, in.Name, in.Content, documentType(in.DocumentType))
	if err != nil {
		return nil, err
	}
	tags, err := nodeTags(in.Tags)
	if err != nil {
		return nil, err
	}
	format, err := documentFormat(parsed, in.Content, in.DocumentFormat)
	if err != nil {
		return nil, err
	}
	stored := document.Stored{
		Name: in.Name, Type: parsed.Type, Format: format, Owner: c.Principal.ARN, Tags: tags,
		DefaultVersion: 1, LatestVersion: 1, Created: c.Origin.Time,
	}
	v := document.Version{Document: in.Name, Number: 1, Name: in.VersionName, Format: format, Content: in.Content, Created: c.Origin.Time}
	if err := c.Server.config.Documents.CreateDocument(ctx, stored, v); err != nil {
		return nil, documentError(err, in.Name)
	}
	return &documentDescriptionOutput{c.describe(aDocument{stored: stored, version: v, parsed: parsed})}, nil
}

// parseDocument checks the text of a document, which must be of the given type, if
// one is given.
func (c *Call) parseDocument(ctx context.Context, name, content, kind string) (*document.Document, error) {
	if len(content) > document.MaxSize {
		return nil, ssmError("MaxDocumentSizeExceeded", "The document has %d bytes; at most %d are allowed.", len(content), document.MaxSize)
	}
	if approval.Is(kind) {
		return c.parseApproval(ctx, name, content, kind)
	}
	parsed, err := document.Parse(name, []byte(content))
	if mistake := (*document.Error)(nil); errors.As(err, &mistake) {
		code := "InvalidDocumentContent"
		if mistake.Path == "schemaVersion" {
			code = "InvalidDocumentSchemaVersion"
		}
		return nil, ssmError(code, "%v.", mistake)
	}
	if err != nil {
		return nil, ssmError("InvalidDocumentContent", "%v.", err)
	}
	if name == document.Preferences && parsed.SessionType != document.StandardStream {
		return nil, ssmError("InvalidDocumentContent", "Document %s holds the preferences of sessions: its sessionType must be %s.", name, document.StandardStream)
	}
	if kind != "" && parsed.Type != kind {
		return nil, ssmError("InvalidDocumentContent", "The schema version %s is that of %s documents, not of %s documents.", parsed.SchemaVersion, parsed.Type, kind)
	}
	return parsed, nil
}

// documentFormat is the format that a document is kept as: JSON unless given, and text
// where it is Cedar.
func documentFormat(d *document.Document, content, asked string) (string, error) {
	if d.Type == document.TypeAutoApproval {
		return "TEXT", nil
	}
	if asked == "TEXT" {
		return "", ssmError("ValidationException", "DocumentFormat must be JSON or YAML: text are documents of type %s only.", document.TypeAutoApproval)
	}
	format := orElse(asked, "JSON")
	return format, checkFormat(content, format)
}

// checkFormat refuses YAML under the name of JSON. The other way round it is right:
// JSON is YAML.
func checkFormat(content, format string) error {
	if format == "JSON" && !json.Valid([]byte(content)) {
		return ssmError("InvalidDocumentContent", "The content is not JSON; for YAML, DocumentFormat must say so.")
	}
	return nil
}

type updateDocumentInput struct {
	Name            string          `json:"Name" check:"required,pattern=[a-zA-Z0-9_\\-.]{3,128}"`
	Content         string          `json:"Content" check:"required,digest,min=1"`
	VersionName     string          `json:"VersionName" check:"pattern=[a-zA-Z0-9_\\-.]{1,128}"`
	DocumentVersion string          `json:"DocumentVersion" check:"pattern=[$]LATEST|[$]DEFAULT|[1-9][0-9]{0,8}"`
	DocumentFormat  string          `json:"DocumentFormat" check:"enum=YAML|JSON|TEXT"`
	Attachments     json.RawMessage `json:"Attachments"`
}

func (in *updateDocumentInput) document() string { return in.Name }

// updateDocument adds a version, which does not become the default by itself.
func updateDocument(ctx context.Context, c *Call, in *updateDocumentInput) (*documentDescriptionOutput, error) {
	old, err := c.changeable(ctx, in.Name)
	if err != nil {
		return nil, err
	}
	if err := checkLatest(old, in.DocumentVersion); err != nil {
		return nil, err
	}
	if len(in.Attachments) > 0 {
		return nil, ssmError("ValidationException", "Attachments are not supported: a document stands alone.")
	}
	parsed, err := c.parseDocument(ctx, in.Name, in.Content, old.Type)
	if err != nil {
		return nil, err
	}
	format, err := documentFormat(parsed, in.Content, in.DocumentFormat)
	if err != nil {
		return nil, err
	}
	v, err := c.addVersion(ctx, document.Version{
		Document: old.Name, Name: in.VersionName, Format: format, Content: in.Content, Created: c.Origin.Time,
	})
	old.LatestVersion = v.Number
	return &documentDescriptionOutput{c.describe(aDocument{stored: old, version: v, parsed: parsed})}, err
}

// changeable returns a document that may be changed: one that is stored.
func (c *Call) changeable(ctx context.Context, name string) (document.Stored, error) {
	stored, _, err := c.Server.config.Documents.Document(ctx, name, document.VersionDefault)
	if err == nil && approval.Is(stored.Type) {
		return stored, c.checkApproval(ctx, name)
	}
	if err == nil || !errors.Is(err, document.ErrNotFound) {
		return stored, err
	}
	if _, ok := document.Builtin(name); ok && name != document.Preferences {
		return stored, ssmError("InvalidDocumentOperation", "Document %s cannot be changed.", name)
	} else if ok {
		return stored, ssmError("InvalidDocument", "Document %s has its built-in content; create it to give it another.", name)
	}
	return stored, documentError(err, name)
}

// checkLatest refuses a change that was made from another version than the latest.
func checkLatest(d document.Stored, version string) error {
	number, err := versionNumber(version)
	if err != nil {
		return err
	}
	if version == "$DEFAULT" {
		number = d.DefaultVersion
	}
	if version == "" || number == document.VersionLatest || number == d.LatestVersion {
		return nil
	}
	return ssmError("InvalidDocumentVersion", "The document version is not the latest, %d, which a new one follows.", d.LatestVersion)
}
