package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"

	"sallyport.dev/access"
	"sallyport.dev/document"
	"sallyport.dev/wire"
)

// Documents: those that are stored, and those that every deployment has.

func ssmDocumentOperations() []*Operation {
	return []*Operation{
		op("ssm", "GetDocument", nil, getDocument, checksItself, quietly),
		op("ssm", "DescribeDocument", nil, describeDocument, checksItself, quietly),
		op("ssm", "ListDocuments", nil, listDocuments, quietly),
		op("ssm", "ListDocumentVersions", onDocument[listDocumentVersionsInput], listDocumentVersions, quietly),
		op("ssm", "CreateDocument", createDocumentResource, createDocument),
		op("ssm", "UpdateDocument", onDocument[updateDocumentInput], updateDocument),
		op("ssm", "UpdateDocumentDefaultVersion", onDocument[defaultVersionInput], updateDocumentDefaultVersion),
		op("ssm", "DeleteDocument", onDocument[deleteDocumentInput], deleteDocument),
	}
}

// maxDocumentVersions is how many versions of a document are kept.
const maxDocumentVersions = 1000

// aDocument is one version of a document, stored or built in.
type aDocument struct {
	stored  document.Stored
	version document.Version
	parsed  *document.Document
	builtin bool
}

// documentName takes the name out of a document's ARN; names are left as they are. An
// ARN must be the one that policies know the document by: another region or account
// would be another document, which is not here.
func (s *Server) documentName(name string) (string, error) {
	if !strings.HasPrefix(name, "arn:") {
		return name, nil
	}
	_, bare, _ := strings.Cut(name, ":document/")
	if bare == "" || strings.ContainsAny(bare, ":/") || s.config.Realm.Document(bare) != name {
		return "", ssmError("InvalidDocument", "Document with ARN %s does not exist.", name)
	}
	return bare, nil
}

// documentResource is what an operation on the named document is authorised on. A
// document that does not exist is authorised by its ARN alone.
func (c *Call) documentResource(ctx context.Context, name string) (access.Resource, error) {
	name, err := c.Server.documentName(name)
	if err != nil {
		return access.Resource{}, err
	}
	c.Document = name
	r := access.Resource{ARN: c.Server.config.Realm.Document(name)}
	d, _, err := c.Server.config.Documents.Document(ctx, name, document.VersionDefault)
	if err != nil && !errors.Is(err, document.ErrNotFound) {
		return r, err
	}
	r.Tags = d.Tags
	if err == nil {
		r.Context = map[string][]string{keyDocumentType: {d.Type}}
	}
	return r, nil
}

func onDocument[In any, P interface {
	*In
	document() string
}](ctx context.Context, c *Call, in P) ([]access.Resource, error) {
	return one(c.documentResource(ctx, in.document()))
}

// checkDocument authorises reading a document: users and roles by policy, nodes
// always, since documents that run on them refer to others.
func (c *Call) checkDocument(ctx context.Context, name string) error {
	r, err := c.documentResource(ctx, name)
	if err != nil {
		return err
	}
	if !c.Principal.IsNode() {
		return c.Check(ctx, r)
	}
	c.checked = true
	return c.Server.checker.Admit(ctx, c.query(c.Operation.Action, []access.Resource{r}))
}

// findDocument returns a version of a document: "" and $DEFAULT are the default, else
// $LATEST or a number. Stored documents come before those built in.
func (c *Call) findDocument(ctx context.Context, name, version string) (aDocument, error) {
	name, err := c.Server.documentName(name)
	if err != nil {
		return aDocument{}, err
	}
	number, err := versionNumber(version)
	if err != nil {
		return aDocument{}, err
	}
	stored, v, err := c.Server.config.Documents.Document(ctx, name, number)
	if errors.Is(err, document.ErrNotFound) {
		return builtinDocument(name, number)
	}
	if err != nil {
		return aDocument{}, documentError(err, name)
	}
	parsed, err := storedDocument(stored, v)
	return aDocument{stored: stored, version: v, parsed: parsed}, err
}

func builtinDocument(name string, number int) (aDocument, error) {
	parsed, ok := document.Builtin(name)
	if !ok {
		return aDocument{}, documentError(document.ErrNotFound, name)
	}
	if number > 1 {
		return aDocument{}, documentError(document.ErrVersion, name)
	}
	content, err := parsed.JSON()
	if err != nil {
		return aDocument{}, err
	}
	return aDocument{
		stored:  document.Stored{Name: name, Type: parsed.Type, Format: "JSON", Owner: "Amazon", DefaultVersion: 1, LatestVersion: 1},
		version: document.Version{Document: name, Number: 1, Format: "JSON", Content: string(content)},
		parsed:  parsed, builtin: true,
	}, nil
}

func documentError(err error, name string) error {
	switch {
	case errors.Is(err, document.ErrNotFound):
		return ssmError("InvalidDocument", "Document with name %s does not exist.", name)
	case errors.Is(err, document.ErrVersion):
		return ssmError("InvalidDocumentVersion", "Document %s does not have that version.", name)
	case errors.Is(err, document.ErrExists):
		return ssmError("DocumentAlreadyExists", "Document with name %s already exists.", name)
	case errors.Is(err, document.ErrDuplicate):
		return ssmError("DuplicateDocumentContent", "The content of the document is the same as that of its latest version.")
	case errors.Is(err, document.ErrLimit):
		return ssmError("DocumentVersionLimitExceeded", "A document may have at most %d versions.", maxDocumentVersions)
	}
	return err
}

func versionNumber(version string) (int, error) {
	switch version {
	case "", "$DEFAULT":
		return document.VersionDefault, nil
	case "$LATEST":
		return document.VersionLatest, nil
	}
	n, err := strconv.Atoi(version)
	if err != nil || n < 1 {
		return 0, ssmError("InvalidDocumentVersion", "The version %q is not valid: it must be a number, $LATEST or $DEFAULT.", version)
	}
	return n, nil
}

// Reading.

type getDocumentInput struct {
	Name            string `json:"Name" check:"required,min=3,max=2048,pattern=[a-zA-Z0-9_\\-.:/]+"`
	VersionName     string `json:"VersionName" check:"pattern=[a-zA-Z0-9_\\-.]{1,128}"`
	DocumentVersion string `json:"DocumentVersion" check:"pattern=[$]LATEST|[$]DEFAULT|[1-9][0-9]{0,8}"`
	DocumentFormat  string `json:"DocumentFormat" check:"enum=JSON|YAML|TEXT"`
}

type getDocumentOutput struct {
	Name            string    `json:"Name"`
	CreatedDate     wire.Time `json:"CreatedDate,omitzero"`
	VersionName     string    `json:"VersionName,omitempty"`
	DocumentVersion string    `json:"DocumentVersion"`
	Status          string    `json:"Status"`
	Content         string    `json:"Content"`
	DocumentType    string    `json:"DocumentType"`
	DocumentFormat  string    `json:"DocumentFormat"`
}

func getDocument(ctx context.Context, c *Call, in *getDocumentInput) (*getDocumentOutput, error) {
	if err := c.checkDocument(ctx, in.Name); err != nil {
		return nil, err
	}
	d, err := c.named(ctx, in.Name, in.DocumentVersion, in.VersionName)
	if err != nil {
		return nil, err
	}
	format := orElse(in.DocumentFormat, d.version.Format)
	if d.stored.Type == document.TypeAutoApproval {
		format = d.version.Format // Cedar is not to be had as anything else
	}
	content, err := d.content(format)
	return &getDocumentOutput{
		Name: d.stored.Name, CreatedDate: wire.Time{Time: d.version.Created}, VersionName: d.version.Name,
		DocumentVersion: strconv.Itoa(d.version.Number), Status: "Active", Content: content,
		DocumentType: d.stored.Type, DocumentFormat: format,
	}, err
}

// named finds a version by its number or by its name.
func (c *Call) named(ctx context.Context, name, version, versionName string) (aDocument, error) {
	if versionName == "" {
		return c.findDocument(ctx, name, version)
	}
	name, err := c.Server.documentName(name)
	if err != nil {
		return aDocument{}, err
	}
	versions, err := c.Server.config.Documents.DocumentVersions(ctx, name)
	if err != nil {
		return aDocument{}, documentError(err, name)
	}
	i := slices.IndexFunc(versions, func(v document.Version) bool { return v.Name == versionName })
	if i < 0 {
		return aDocument{}, documentError(document.ErrVersion, name)
	}
	return c.findDocument(ctx, name, strconv.Itoa(versions[i].Number))
}

// content gives the text as it was given where that is the format asked for, and
// converted otherwise.
func (d aDocument) content(format string) (string, error) {
	switch {
	case format == d.version.Format, d.stored.Type == document.TypeAutoApproval:
		return d.version.Content, nil
	case format == "YAML":
		b, err := d.parsed.YAML()
		return string(b), err
	default:
		b, err := d.parsed.JSON()
		return string(b), err
	}
}

type describeDocumentInput struct {
	Name            string `json:"Name" check:"required,min=3,max=2048,pattern=[a-zA-Z0-9_\\-.:/]+"`
	VersionName     string `json:"VersionName" check:"pattern=[a-zA-Z0-9_\\-.]{1,128}"`
	DocumentVersion string `json:"DocumentVersion" check:"pattern=[$]LATEST|[$]DEFAULT|[1-9][0-9]{0,8}"`
}

type documentParameter struct {
	Name         string `json:"Name"`
	Type         string `json:"Type"`
	Description  string `json:"Description,omitempty"`
	DefaultValue string `json:"DefaultValue,omitempty"`
}

type documentDescription struct {
	Hash            string              `json:"Hash"`
	HashType        string              `json:"HashType"`
	Name            string              `json:"Name"`
	VersionName     string              `json:"VersionName,omitempty"`
	Owner           string              `json:"Owner"`
	CreatedDate     wire.Time           `json:"CreatedDate,omitzero"`
	Status          string              `json:"Status"`
	DocumentVersion string              `json:"DocumentVersion"`
	Description     string              `json:"Description,omitempty"`
	Parameters      []documentParameter `json:"Parameters,omitempty"`
	PlatformTypes   []string            `json:"PlatformTypes"`
	DocumentType    string              `json:"DocumentType"`
	SchemaVersion   string              `json:"SchemaVersion"`
	LatestVersion   string              `json:"LatestVersion"`
	DefaultVersion  string              `json:"DefaultVersion"`
	DocumentFormat  string              `json:"DocumentFormat"`
	Tags            []tag               `json:"Tags,omitempty"`
}

func (c *Call) describe(d aDocument) documentDescription {
	hash := sha256.Sum256([]byte(d.version.Content))
	return documentDescription{
		Hash: hex.EncodeToString(hash[:]), HashType: "Sha256", Name: d.stored.Name, VersionName: d.version.Name,
		Owner: c.documentOwner(d.stored), CreatedDate: wire.Time{Time: d.stored.Created}, Status: "Active",
		DocumentVersion: strconv.Itoa(d.version.Number), Description: d.parsed.Description,
		Parameters: parametersOf(d.parsed), PlatformTypes: d.parsed.Platforms(), DocumentType: d.stored.Type,
		SchemaVersion: d.parsed.SchemaVersion, LatestVersion: strconv.Itoa(d.stored.LatestVersion),
		DefaultVersion: strconv.Itoa(d.stored.DefaultVersion), DocumentFormat: d.version.Format, Tags: tagList(d.stored.Tags),
	}
}

// documentOwner is Amazon or the account.
func (c *Call) documentOwner(d document.Stored) string {
	if d.Owner == "Amazon" && strings.HasPrefix(d.Name, "AWS-") {
		return "Amazon"
	}
	return c.Server.config.Realm.Account
}

func parametersOf(d *document.Document) []documentParameter {
	var list []documentParameter
	for _, name := range slices.Sorted(maps.Keys(d.Parameters)) {
		p := d.Parameters[name]
		shape := documentParameter{Name: name, Type: p.Type, Description: p.Description}
		if json.Unmarshal(p.Default, &shape.DefaultValue) != nil {
			shape.DefaultValue = string(p.Default)
		}
		list = append(list, shape)
	}
	return list
}

type describeDocumentOutput struct {
	Document documentDescription `json:"Document"`
}

func describeDocument(ctx context.Context, c *Call, in *describeDocumentInput) (*describeDocumentOutput, error) {
	if err := c.checkDocument(ctx, in.Name); err != nil {
		return nil, err
	}
	d, err := c.named(ctx, in.Name, in.DocumentVersion, in.VersionName)
	if err != nil {
		return nil, err
	}
	return &describeDocumentOutput{c.describe(d)}, nil
}
