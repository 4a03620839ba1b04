package store

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"sallyport.dev/audit"
	"sallyport.dev/document"
	"sallyport.dev/identity"
	"sallyport.dev/node"
	"sallyport.dev/session"
)

// Options say how a store is opened.
type Options struct {
	Logger   *slog.Logger // required
	ReadOnly bool         // refuse every change; the schema must be current
}

// Store is the state of a deployment. It is safe for concurrent use.
type Store struct {
	identity.Store
	nodeStore
	sessionStore
	auditStore
	documentStore
}

type (
	nodeStore     = node.Store
	sessionStore  = session.Store
	auditStore    = audit.Store
	documentStore = document.Store
)

var errOpening = errors.New("store cannot be opened yet")

// Open opens the store at a URL: sqlite:PATH, a plain path, or postgres://….
func Open(ctx context.Context, url string, opts Options) (*Store, error) {
	return nil, errOpening
}

// Close writes what has been accepted and closes the store.
func (s *Store) Close() error { return nil }

// Ping reports whether the database answers.
func (s *Store) Ping(ctx context.Context) error { return errOpening }

// UseToken notes that a single-use token has been used, until it expires. It
// reports whether this was the first use, on any member.
func (s *Store) UseToken(ctx context.Context, id string, expires time.Time) (first bool, err error) {
	return false, errOpening
}

// Meta returns a value kept under a key, or "" for none.
func (s *Store) Meta(ctx context.Context, key string) (string, error) { return "", errOpening }

// SetMeta keeps a value under a key.
func (s *Store) SetMeta(ctx context.Context, key, value string) error { return errOpening }
