package server

import (
	"context"
	"maps"
	"slices"
	"strings"

	"sallyport.dev/document"
	"sallyport.dev/identity"
	"sallyport.dev/wire"
)

// Listing documents.

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
