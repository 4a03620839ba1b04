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
	"sallyport.dev/identity"
	"sallyport.dev/wire"
)

// Documents: those that are stored, and those that every deployment has.

func ssmDocumentOperations() []*Operation {
	return []*Operation{
		op("ssm", "GetDocument", nil, getDocument, checksItself, quietly),
		op("ssm", "DescribeDocument", nil, describeDocument, checksItself, quietly),
		op("ssm", "ListDocuments", nil, listDocuments, quietly),
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
	parsed, err := document.Parse(name, []byte(v.Content))
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
	case format == d.version.Format:
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

// Listing.

type documentFilter struct {
	Key   string `json:"key" check:"required,enum=Name|Owner|PlatformTypes|DocumentType"`
	Value string `json:"value" check:"required,min=1,max=256"`
}

type documentValuesFilter struct {
	Key    string   `json:"Key" check:"required,min=1,max=163"`
	Values []string `json:"Values" check:"max=50" each:"min=1,max=256"`
}

type listDocumentsInput struct {
	DocumentFilterList []documentFilter       `json:"DocumentFilterList" check:"max=10"`
	Filters            []documentValuesFilter `json:"Filters" check:"max=6"`
	MaxResults         int                    `json:"MaxResults" check:"min=1,max=50"`
	NextToken          string                 `json:"NextToken" check:"max=1024"`
}

type documentIdentifier struct {
	Name            string    `json:"Name"`
	CreatedDate     wire.Time `json:"CreatedDate,omitzero"`
	Owner           string    `json:"Owner"`
	VersionName     string    `json:"VersionName,omitempty"`
	PlatformTypes   []string  `json:"PlatformTypes"`
	DocumentVersion string    `json:"DocumentVersion"`
	DocumentType    string    `json:"DocumentType"`
	SchemaVersion   string    `json:"SchemaVersion"`
	DocumentFormat  string    `json:"DocumentFormat"`
	Tags            []tag     `json:"Tags,omitempty"`
}

type listDocumentsOutput struct {
	DocumentIdentifiers []documentIdentifier `json:"DocumentIdentifiers"`
	NextToken           string               `json:"NextToken,omitempty"`
}

func listDocuments(ctx context.Context, c *Call, in *listDocumentsInput) (*listDocumentsOutput, error) {
	match, err := c.documentMatcher(in)
	if err != nil {
		return nil, err
	}
	all, err := c.allDocuments(ctx)
	if err != nil {
		return nil, err
	}
	name := func(d aDocument) string { return d.stored.Name }
	page, next, err := pages[aDocument]{
		fetch: func(after string, n int) ([]aDocument, error) { return firstAfter(all, after, n, name), nil },
		key:   name, keep: match, size: 50,
	}.page(c, in.NextToken, in.MaxResults)
	if err != nil {
		return nil, err
	}
	out := &listDocumentsOutput{DocumentIdentifiers: []documentIdentifier{}, NextToken: next}
	for _, d := range page {
		out.DocumentIdentifiers = append(out.DocumentIdentifiers, c.identify(d))
	}
	return out, nil
}

func (c *Call) identify(d aDocument) documentIdentifier {
	x := c.describe(d)
	return documentIdentifier{
		Name: x.Name, CreatedDate: x.CreatedDate, Owner: x.Owner, VersionName: x.VersionName,
		PlatformTypes: x.PlatformTypes, DocumentVersion: x.DocumentVersion, DocumentType: x.DocumentType,
		SchemaVersion: x.SchemaVersion, DocumentFormat: x.DocumentFormat, Tags: x.Tags,
	}
}

// allDocuments lists the default versions of all documents in the order of names.
func (c *Call) allDocuments(ctx context.Context) ([]aDocument, error) {
	stored, err := c.Server.config.Documents.Documents(ctx, document.Filter{})
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, d := range stored {
		names[d.Name] = true
	}
	for _, name := range document.BuiltinNames() {
		names[name] = true
	}
	var all []aDocument
	for _, name := range slices.Sorted(maps.Keys(names)) {
		d, err := c.findDocument(ctx, name, "")
		if err != nil {
			return nil, err
		}
		all = append(all, d)
	}
	return all, nil
}

// documentMatcher compiles the filters of a listing, all of which must hold.
func (c *Call) documentMatcher(in *listDocumentsInput) (func(aDocument) (bool, error), error) {
	filters := slices.Clone(in.Filters)
	for _, f := range in.DocumentFilterList {
		filters = append(filters, documentValuesFilter{f.Key, []string{f.Value}})
	}
	for _, f := range filters {
		known := []string{"Name", "Owner", "PlatformTypes", "DocumentType", "SearchKeyword"}
		if !slices.Contains(known, f.Key) && !strings.HasPrefix(f.Key, "tag:") {
			return nil, ssmError("InvalidFilterKey", "The filter key %q is not valid: it must be %s or tag:KEY.", f.Key, strings.Join(known, ", "))
		}
	}
	return func(d aDocument) (bool, error) {
		return !slices.ContainsFunc(filters, func(f documentValuesFilter) bool {
			return !slices.ContainsFunc(f.Values, func(v string) bool { return c.documentHas(d, f.Key, v) })
		}), nil
	}, nil
}

// documentHas reports whether a document has an attribute. Names match by their
// beginning, keywords by any part of the name.
func (c *Call) documentHas(d aDocument, key, value string) bool {
	switch key {
	case "Name":
		return strings.HasPrefix(d.stored.Name, value)
	case "SearchKeyword":
		return strings.Contains(strings.ToLower(d.stored.Name), strings.ToLower(value))
	case "DocumentType":
		return d.stored.Type == value
	case "PlatformTypes":
		return slices.ContainsFunc(d.parsed.Platforms(), func(p string) bool { return strings.EqualFold(p, value) })
	case "Owner":
		return c.ownedBy(d, value)
	}
	return slices.Contains(identity.Tags(d.stored.Tags).Values(strings.TrimPrefix(key, "tag:")), value)
}

func (c *Call) ownedBy(d aDocument, owner string) bool {
	amazon := c.documentOwner(d.stored) == "Amazon"
	switch owner {
	case "All":
		return true
	case "Amazon", "Public":
		return amazon
	case "Self", "Private", c.Server.config.Realm.Account:
		return !amazon
	}
	return false
}

// Writing.

type createDocumentInput struct {
	Name           string          `json:"Name" check:"required,pattern=[a-zA-Z0-9_\\-.]{3,128}"`
	Content        string          `json:"Content" check:"required,digest,min=1"`
	VersionName    string          `json:"VersionName" check:"pattern=[a-zA-Z0-9_\\-.]{1,128}"`
	DocumentType   string          `json:"DocumentType" check:"enum=Command|Session"`
	DocumentFormat string          `json:"DocumentFormat" check:"enum=YAML|JSON"`
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
	return []access.Resource{{ARN: c.Server.config.Realm.Document(in.Name)}}, nil
}

type documentDescriptionOutput struct {
	DocumentDescription documentDescription `json:"DocumentDescription"`
}

func createDocument(ctx context.Context, c *Call, in *createDocumentInput) (*documentDescriptionOutput, error) {
	for _, reserved := range []string{"aws", "amazon", "amzn"} {
		if strings.HasPrefix(strings.ToLower(in.Name), reserved) {
			return nil, ssmError("ValidationException", "Document names must not begin with aws, amazon or amzn.")
		}
	}
	if len(in.Requires) > 0 || len(in.Attachments) > 0 {
		return nil, ssmError("ValidationException", "Requires and Attachments are not supported: a document stands alone.")
	}
	parsed, err := parseDocument(in.Name, in.Content, in.DocumentType)
	if err != nil {
		return nil, err
	}
	tags, err := nodeTags(in.Tags)
	if err != nil {
		return nil, err
	}
	format := orElse(in.DocumentFormat, "JSON")
	if err := checkFormat(in.Content, format); err != nil {
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
func parseDocument(name, content, kind string) (*document.Document, error) {
	if len(content) > document.MaxSize {
		return nil, ssmError("MaxDocumentSizeExceeded", "The document has %d bytes; at most %d are allowed.", len(content), document.MaxSize)
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
	if kind != "" && parsed.Type != kind {
		return nil, ssmError("InvalidDocumentContent", "The schema version %s is that of %s documents, not of %s documents.", parsed.SchemaVersion, parsed.Type, kind)
	}
	return parsed, nil
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
	DocumentFormat  string          `json:"DocumentFormat" check:"enum=YAML|JSON"`
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
	parsed, err := parseDocument(in.Name, in.Content, old.Type)
	if err != nil {
		return nil, err
	}
	format := orElse(in.DocumentFormat, "JSON")
	if err := checkFormat(in.Content, format); err != nil {
		return nil, err
	}
	v, err := c.addVersion(ctx, document.Version{
		Document: old.Name, Name: in.VersionName, Format: format, Content: in.Content, Created: c.Origin.Time,
	})
	old.LatestVersion = v.Number
	return &documentDescriptionOutput{c.describe(aDocument{stored: old, version: v, parsed: parsed})}, err
}

func (c *Call) addVersion(ctx context.Context, v document.Version) (document.Version, error) {
	if v.Name != "" {
		versions, err := c.Server.config.Documents.DocumentVersions(ctx, v.Document)
		if err != nil {
			return v, err
		}
		if slices.ContainsFunc(versions, func(old document.Version) bool { return old.Name == v.Name }) {
			return v, ssmError("DuplicateDocumentVersionName", "The document has a version named %s.", v.Name)
		}
	}
	added, err := c.Server.config.Documents.UpdateDocument(ctx, v, maxDocumentVersions)
	return added, documentError(err, v.Document)
}

// changeable returns a document that may be changed: one that is stored.
func (c *Call) changeable(ctx context.Context, name string) (document.Stored, error) {
	stored, _, err := c.Server.config.Documents.Document(ctx, name, document.VersionDefault)
	if err == nil || !errors.Is(err, document.ErrNotFound) {
		return stored, err
	}
	if _, ok := document.Builtin(name); ok && strings.HasPrefix(name, "AWS-") {
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

type defaultVersionInput struct {
	Name            string `json:"Name" check:"required,pattern=[a-zA-Z0-9_\\-.]{3,128}"`
	DocumentVersion string `json:"DocumentVersion" check:"required,pattern=[1-9][0-9]{0,8}"`
}

func (in *defaultVersionInput) document() string { return in.Name }

type defaultVersionOutput struct {
	Description struct {
		Name               string `json:"Name"`
		DefaultVersion     string `json:"DefaultVersion"`
		DefaultVersionName string `json:"DefaultVersionName,omitempty"`
	} `json:"Description"`
}

func updateDocumentDefaultVersion(ctx context.Context, c *Call, in *defaultVersionInput) (*defaultVersionOutput, error) {
	if _, err := c.changeable(ctx, in.Name); err != nil {
		return nil, err
	}
	d, err := c.findDocument(ctx, in.Name, in.DocumentVersion)
	if err != nil {
		return nil, err
	}
	err = c.Server.config.Documents.SetDefaultDocumentVersion(ctx, d.stored.Name, d.version.Number)
	out := &defaultVersionOutput{}
	out.Description.Name, out.Description.DefaultVersion = d.stored.Name, in.DocumentVersion
	out.Description.DefaultVersionName = d.version.Name
	return out, documentError(err, in.Name)
}

type deleteDocumentInput struct {
	Name            string `json:"Name" check:"required,pattern=[a-zA-Z0-9_\\-.]{3,128}"`
	DocumentVersion string `json:"DocumentVersion" check:"pattern=[$]LATEST|[$]DEFAULT|[1-9][0-9]{0,8}"`
	VersionName     string `json:"VersionName" check:"pattern=[a-zA-Z0-9_\\-.]{1,128}"`
}

func (in *deleteDocumentInput) document() string { return in.Name }

// deleteDocument deletes a document, or one version of it where one is named. Deleting
// the preferences brings the built-in ones back.
func deleteDocument(ctx context.Context, c *Call, in *deleteDocumentInput) (*nothing, error) {
	if _, err := c.changeable(ctx, in.Name); err != nil {
		return nil, err
	}
	if in.DocumentVersion == "" && in.VersionName == "" {
		return &nothing{}, documentError(c.Server.config.Documents.DeleteDocument(ctx, in.Name), in.Name)
	}
	d, err := c.named(ctx, in.Name, in.DocumentVersion, in.VersionName)
	if err != nil {
		return nil, err
	}
	err = c.Server.config.Documents.DeleteDocumentVersion(ctx, in.Name, d.version.Number)
	if errors.Is(err, document.ErrDefault) {
		return nil, ssmError("InvalidDocumentOperation", "The default version cannot be deleted; make another the default first.")
	}
	return &nothing{}, documentError(err, in.Name)
}
