-- Single-use tokens that have been used, until they expire; and small values that
-- the members of a deployment share.

-- +goose Up
CREATE TABLE used_tokens (
    id      TEXT   NOT NULL CONSTRAINT used_tokens_pkey PRIMARY KEY,
    expires BIGINT NOT NULL
);
CREATE INDEX used_tokens_by_expiry ON used_tokens (expires);

CREATE TABLE meta (
    key   TEXT NOT NULL CONSTRAINT meta_pkey PRIMARY KEY,
    value TEXT NOT NULL
);
