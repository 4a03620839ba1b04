package storetest

import (
	"testing"

	"sallyport.dev/document"
)

func testDocuments(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	d := document.Stored{Name: "Shell", Type: "Session", Format: "JSON", Owner: "111111111111", Tags: map[string]string{"a": "b"},
		DefaultVersion: 1, LatestVersion: 1, Created: at(1)}
	v1 := document.Version{Document: "Shell", Number: 1, Name: "first", Format: "JSON", Content: "{}", Created: at(1)}
	must(t, s.CreateDocument(ctx, d, v1))
	wantErr(t, "taken name", s.CreateDocument(ctx, d, v1), document.ErrExists)
	wantDocument := func(version int, want document.Version) {
		t.Helper()
		gotD, gotV, err := s.Document(ctx, "Shell", version)
		must(t, err)
		wantSame(t, "document", gotD, d)
		wantSame(t, "version", gotV, want)
	}
	wantDocument(document.VersionDefault, v1)
	_, _, err := s.Document(ctx, "shell", 1)
	wantErr(t, "a name in other case is another", err, document.ErrNotFound)

	update := func(content, format string) (document.Version, error) {
		return s.UpdateDocument(ctx, document.Version{Document: "Shell", Format: format, Content: content, Created: at(2)}, 3)
	}
	_, err = update("{}", "JSON")
	wantErr(t, "the same content", err, document.ErrDuplicate)
	v2 := get[document.Version](t)(update("a: 1", "YAML"))
	wantSame(t, "new version", v2, document.Version{Document: "Shell", Number: 2, Format: "YAML", Content: "a: 1", Created: at(2)})
	d.LatestVersion, d.Format = 2, "YAML"
	wantDocument(document.VersionDefault, v1)
	wantDocument(document.VersionLatest, v2)
	wantDocument(1, v1)
	get[document.Version](t)(update("3", "JSON"))
	_, err = update("4", "JSON")
	wantErr(t, "too many versions", err, document.ErrLimit)
	must(t, s.DeleteDocumentVersion(ctx, "Shell", 3))
	v4 := get[document.Version](t)(update("4", "JSON"))
	wantSame(t, "a number is not used twice", v4.Number, 4)
	_, _, err = s.Document(ctx, "Shell", 3)
	wantErr(t, "deleted version", err, document.ErrVersion)
	wantErr(t, "deleting it twice", s.DeleteDocumentVersion(ctx, "Shell", 3), document.ErrVersion)
	wantErr(t, "deleting the default", s.DeleteDocumentVersion(ctx, "Shell", 1), document.ErrDefault)
	wantErr(t, "unknown default", s.SetDefaultDocumentVersion(ctx, "Shell", 3), document.ErrVersion)
	must(t, s.SetDefaultDocumentVersion(ctx, "Shell", 4))
	must(t, s.TagDocument(ctx, "Shell", func(tags map[string]string) (map[string]string, error) {
		delete(tags, "a")
		return tags, nil
	}))
	d.DefaultVersion, d.LatestVersion, d.Format, d.Tags = 4, 4, "JSON", nil
	wantDocument(document.VersionDefault, v4)
	wantSame(t, "versions", get[[]document.Version](t)(s.DocumentVersions(ctx, "Shell")), []document.Version{v4, v2, v1})

	for _, name := range []string{"Shell-2", "SHELL", "Other_x", "Other%"} {
		must(t, s.CreateDocument(ctx, document.Stored{Name: name, Type: "Command", Owner: "x", Created: at(1)}, v1))
	}
	list := func(f document.Filter) string {
		return names(get[[]document.Stored](t)(s.Documents(ctx, f)), func(d document.Stored) string { return d.Name })
	}
	wantSame(t, "documents", list(document.Filter{}), "Other% Other_x SHELL Shell Shell-2")
	wantSame(t, "by type", list(document.Filter{Type: "Session"}), "Shell")
	wantSame(t, "by owner", list(document.Filter{Owner: "x", Limit: 2}), "Other% Other_x")
	wantSame(t, "by prefix", list(document.Filter{Prefix: "Shell"}), "Shell Shell-2")
	wantSame(t, "by prefix with an underscore", list(document.Filter{Prefix: "Other_"}), "Other_x")
	wantSame(t, "after", list(document.Filter{After: "SHELL", Limit: 1}), "Shell")

	must(t, s.DeleteDocument(ctx, "Shell"))
	wantErr(t, "deleting twice", s.DeleteDocument(ctx, "Shell"), document.ErrNotFound)
	_, err = s.DocumentVersions(ctx, "Shell")
	wantErr(t, "versions of a deleted document", err, document.ErrNotFound)
	_, err = update("x", "JSON")
	wantErr(t, "updating a deleted document", err, document.ErrNotFound)
}
