package document

import (
	"context"
	"errors"
	"time"
)

// Stored is a document kept by the server, without its content.
type Stored struct {
	Name           string // compared exactly: SSM's names know upper and lower case
	Type           string // Session, Command, …
	Format         string // JSON or YAML, of the latest version
	Owner          string // account, or the ARN that created it
	Tags           map[string]string
	DefaultVersion int
	LatestVersion  int
	Created        time.Time
}

// Version is one version of a document. Versions count from 1 and never change.
type Version struct {
	Document string // the document's name
	Number   int
	Name     string // version name given by the caller, or empty
	Format   string // JSON or YAML
	Content  string // as given
	Created  time.Time
}

// Versions that callers ask for without knowing a number.
const (
	VersionDefault = 0  // $DEFAULT
	VersionLatest  = -1 // $LATEST
)

// Filter selects documents. Zero fields do not filter.
type Filter struct {
	Type   string
	Owner  string
	Prefix string // of the name
	After  string // names after this one
	Limit  int    // 0 for all
}

// Errors of the domain. Store methods return them wrapped.
var (
	ErrNotFound  = errors.New("no such document")
	ErrVersion   = errors.New("no such document version")
	ErrExists    = errors.New("document already exists")
	ErrDuplicate = errors.New("document content is the same as the latest version")
	ErrDefault   = errors.New("document version is the default")
	ErrLimit     = errors.New("document has too many versions")
)

// Store keeps documents and their versions. Every change is atomic.
type Store interface {
	// CreateDocument stores d with v as version 1, which is its default.
	CreateDocument(ctx context.Context, d Stored, v Version) error
	// Document returns a document and one of its versions, by number or as
	// VersionDefault or VersionLatest.
	Document(ctx context.Context, name string, version int) (Stored, Version, error)
	Documents(ctx context.Context, f Filter) ([]Stored, error)            // in name order
	DocumentVersions(ctx context.Context, name string) ([]Version, error) // newest first
	// UpdateDocument adds a version with the next number, which does not become the
	// default. It returns ErrDuplicate when its content is that of the latest
	// version, ErrLimit at limit versions.
	UpdateDocument(ctx context.Context, v Version, limit int) (Version, error)
	SetDefaultDocumentVersion(ctx context.Context, name string, version int) error
	TagDocument(ctx context.Context, name string, change func(tags map[string]string) (map[string]string, error)) error
	DeleteDocument(ctx context.Context, name string) error
	DeleteDocumentVersion(ctx context.Context, name string, version int) error // ErrDefault for the default
}
