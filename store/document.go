package store

import (
	"context"
	"strconv"

	"sallyport.dev/document"
)

const documentColumns = "name, type, format, owner, tags, default_version, latest_version, created"

func scanDocument(r row) (d document.Stored, err error) {
	err = r.Scan(&d.Name, &d.Type, &d.Format, &d.Owner, encoded{&d.Tags}, &d.DefaultVersion, &d.LatestVersion,
		stored{&d.Created})
	return d, err
}

func documentByName(t tx, name string) (document.Stored, error) {
	return one(t, about("document", name, document.ErrNotFound), scanDocument,
		"SELECT "+documentColumns+" FROM documents WHERE name = $1"+t.forUpdate, name)
}

const documentVersionColumns = "document, number, name, format, content, created"

func scanDocumentVersion(r row) (v document.Version, err error) {
	return v, r.Scan(&v.Document, &v.Number, &v.Name, &v.Format, &v.Content, stored{&v.Created})
}

func documentVersion(t tx, name string, number int) (document.Version, error) {
	return one(t, about("document "+name+" version", strconv.Itoa(number), document.ErrVersion), scanDocumentVersion,
		"SELECT "+documentVersionColumns+" FROM document_versions WHERE document = $1 AND number = $2", name, number)
}

func insertDocumentVersion(t tx, v document.Version) error {
	_, err := t.exec("INSERT INTO document_versions ("+documentVersionColumns+") VALUES ($1, $2, $3, $4, $5, $6)",
		v.Document, v.Number, v.Name, v.Format, v.Content, micros(v.Created))
	return err
}

// CreateDocument implements document.Store.
func (s *Store) CreateDocument(ctx context.Context, d document.Stored, v document.Version) error {
	return s.write(ctx, "creating document", func(t tx) error {
		_, err := t.exec("INSERT INTO documents ("+documentColumns+", last_number) VALUES ($1, $2, $3, $4, $5, 1, 1, $6, 1)",
			d.Name, d.Type, v.Format, d.Owner, encode(d.Tags), micros(d.Created))
		if err != nil {
			return orExists(err, about("document", d.Name, document.ErrExists))
		}
		v.Document, v.Number = d.Name, 1
		return insertDocumentVersion(t, v)
	})
}

// Document implements document.Store.
func (s *Store) Document(ctx context.Context, name string, version int) (document.Stored, document.Version, error) {
	t := s.read(ctx)
	d, err := documentByName(t, name)
	if err != nil {
		return document.Stored{}, document.Version{}, wrap("reading document", err)
	}
	switch version {
	case document.VersionDefault:
		version = d.DefaultVersion
	case document.VersionLatest:
		version = d.LatestVersion
	}
	v, err := documentVersion(t, name, version)
	return d, v, wrap("reading document", err)
}

// Documents implements document.Store.
func (s *Store) Documents(ctx context.Context, f document.Filter) ([]document.Stored, error) {
	w := where{}
	w.equal("type", f.Type)
	w.equal("owner", f.Owner)
	if f.Prefix != "" {
		w.add("substr(name, 1, length(?)) = ?", f.Prefix, f.Prefix)
	}
	if f.After != "" {
		w.add("name > ?", f.After)
	}
	all, err := list(s.read(ctx), scanDocument,
		"SELECT "+documentColumns+" FROM documents"+w.String()+" ORDER BY name"+limit(f.Limit), w.args...)
	return all, wrap("listing documents", err)
}

// DocumentVersions implements document.Store.
func (s *Store) DocumentVersions(ctx context.Context, name string) ([]document.Version, error) {
	all, err := list(s.read(ctx), scanDocumentVersion,
		"SELECT "+documentVersionColumns+" FROM document_versions WHERE document = $1 ORDER BY number DESC", name)
	if err == nil && len(all) == 0 {
		err = about("document", name, document.ErrNotFound) // every document has its default version
	}
	return all, wrap("listing document versions", err)
}

// UpdateDocument implements document.Store.
func (s *Store) UpdateDocument(ctx context.Context, v document.Version, limit int) (document.Version, error) {
	err := s.write(ctx, "updating document", func(t tx) error {
		d, err := documentByName(t, v.Document)
		if err != nil {
			return err
		}
		if err := mayAddVersion(t, d, v, limit); err != nil {
			return err
		}
		last, err := t.count("SELECT last_number FROM documents WHERE name = $1", d.Name)
		if err != nil {
			return err
		}
		v.Number = int(last) + 1
		if err := insertDocumentVersion(t, v); err != nil {
			return err
		}
		_, err = t.exec("UPDATE documents SET latest_version = $1, last_number = $1, format = $2 WHERE name = $3",
			v.Number, v.Format, d.Name)
		return err
	})
	if err != nil {
		return document.Version{}, err
	}
	v.Created = when(micros(v.Created))
	return v, nil
}

func mayAddVersion(t tx, d document.Stored, v document.Version, limit int) error {
	latest, err := documentVersion(t, d.Name, d.LatestVersion)
	if err != nil {
		return err
	}
	if latest.Content == v.Content && latest.Format == v.Format {
		return about("document", d.Name, document.ErrDuplicate)
	}
	kept, err := t.count("SELECT COUNT(*) FROM document_versions WHERE document = $1", d.Name)
	if err == nil && kept >= int64(limit) {
		err = about("document", d.Name, document.ErrLimit)
	}
	return err
}

// SetDefaultDocumentVersion implements document.Store.
func (s *Store) SetDefaultDocumentVersion(ctx context.Context, name string, version int) error {
	return s.write(ctx, "setting default document version", func(t tx) error {
		if _, err := documentByName(t, name); err != nil {
			return err
		}
		if _, err := documentVersion(t, name, version); err != nil {
			return err
		}
		_, err := t.exec("UPDATE documents SET default_version = $1 WHERE name = $2", version, name)
		return err
	})
}

// TagDocument implements document.Store.
func (s *Store) TagDocument(ctx context.Context, name string, change func(map[string]string) (map[string]string, error)) error {
	return s.write(ctx, "tagging document", func(t tx) error {
		d, err := documentByName(t, name)
		if err != nil {
			return err
		}
		tags, err := change(d.Tags)
		if err != nil {
			return err
		}
		_, err = t.exec("UPDATE documents SET tags = $1 WHERE name = $2", encode(tags), name)
		return err
	})
}

// DeleteDocument implements document.Store.
func (s *Store) DeleteDocument(ctx context.Context, name string) error {
	return s.write(ctx, "deleting document", func(t tx) error {
		if _, err := documentByName(t, name); err != nil { // locks it
			return err
		}
		if _, err := t.exec("DELETE FROM document_versions WHERE document = $1", name); err != nil {
			return err
		}
		_, err := t.exec("DELETE FROM documents WHERE name = $1", name)
		return err
	})
}

// DeleteDocumentVersion implements document.Store. The latest version, once deleted,
// gives way to the one before it; its number is not used again.
func (s *Store) DeleteDocumentVersion(ctx context.Context, name string, version int) error {
	return s.write(ctx, "deleting document version", func(t tx) error {
		d, err := documentByName(t, name)
		if err != nil {
			return err
		}
		if version == d.DefaultVersion {
			return about("document "+name+" version", strconv.Itoa(version), document.ErrDefault)
		}
		err = t.must(about("document "+name+" version", strconv.Itoa(version), document.ErrVersion),
			"DELETE FROM document_versions WHERE document = $1 AND number = $2", name, version)
		if err != nil {
			return err
		}
		_, err = t.exec(`UPDATE documents SET latest_version =
			(SELECT MAX(number) FROM document_versions WHERE document = $1) WHERE name = $1`, name)
		return err
	})
}
