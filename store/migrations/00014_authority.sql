-- What a session's start was allowed on, to decide on it again while the session lives,
-- and a number that grows whenever tags or names of nodes change.

-- +goose Up
ALTER TABLE sessions ADD COLUMN authority TEXT NOT NULL DEFAULT ''; -- JSON
ALTER TABLE commands ADD COLUMN authority TEXT NOT NULL DEFAULT ''; -- JSON
ALTER TABLE revision ADD COLUMN nodes BIGINT NOT NULL DEFAULT 1;
