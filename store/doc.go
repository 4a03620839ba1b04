// Package store keeps all state in SQLite (one member) or PostgreSQL (many members)
// with the same hand-written statements. A write has been made durable when its
// method returns, and is whole or absent, never half.
package store
