package server

import (
	"context"
	"errors"
	"slices"
	"strconv"

	"sallyport.dev/document"
	"sallyport.dev/wire"
)

// Versions of documents: the one that counts, and their end.

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

type listDocumentVersionsInput struct {
	Name       string `json:"Name" check:"required,min=3,max=2048,pattern=[a-zA-Z0-9_\\-.:/]+"`
	MaxResults int    `json:"MaxResults" check:"min=1,max=50"`
	NextToken  string `json:"NextToken" check:"max=1024"`
}

func (in *listDocumentVersionsInput) document() string { return in.Name }

type documentVersionInfo struct {
	Name             string    `json:"Name"`
	DocumentVersion  string    `json:"DocumentVersion"`
	VersionName      string    `json:"VersionName,omitempty"`
	CreatedDate      wire.Time `json:"CreatedDate,omitzero"`
	IsDefaultVersion bool      `json:"IsDefaultVersion"`
	DocumentFormat   string    `json:"DocumentFormat"`
	Status           string    `json:"Status"`
}

type listDocumentVersionsOutput struct {
	DocumentVersions []documentVersionInfo `json:"DocumentVersions"`
	NextToken        string                `json:"NextToken,omitempty"`
}

// listDocumentVersions lists the versions of a document, the newest first.
func listDocumentVersions(ctx context.Context, c *Call, in *listDocumentVersionsInput) (*listDocumentVersionsOutput, error) {
	d, err := c.findDocument(ctx, in.Name, "")
	if err != nil {
		return nil, err
	}
	all := []document.Version{d.version}
	if !d.builtin {
		if all, err = c.Server.config.Documents.DocumentVersions(ctx, d.stored.Name); err != nil {
			return nil, err
		}
	}
	// Numbers are sorted by text: counted down, and as long as each other.
	key := func(v document.Version) string { return strconv.FormatInt(1<<40-int64(v.Number), 10) }
	page, next, err := pages[document.Version]{
		fetch: func(after string, n int) ([]document.Version, error) { return firstAfter(all, after, n, key), nil },
		key:   key, size: 50,
	}.page(c, in.NextToken, in.MaxResults)
	if err != nil {
		return nil, err
	}
	out := &listDocumentVersionsOutput{DocumentVersions: []documentVersionInfo{}, NextToken: next}
	for _, v := range page {
		out.DocumentVersions = append(out.DocumentVersions, documentVersionInfo{
			Name: d.stored.Name, DocumentVersion: strconv.Itoa(v.Number), VersionName: v.Name,
			CreatedDate: wire.Time{Time: v.Created}, IsDefaultVersion: v.Number == d.stored.DefaultVersion,
			DocumentFormat: v.Format, Status: "Active",
		})
	}
	return out, nil
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
	if err := c.checkInForce(ctx, d); err != nil {
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
