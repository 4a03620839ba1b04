-- Who began the chain of roles that a session was started with: disabling that person
-- ends the session.

-- +goose Up
ALTER TABLE sessions ADD COLUMN root_id TEXT NOT NULL DEFAULT '';
