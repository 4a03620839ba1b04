-- The keys of the SSH authorities, sealed with the master key. Of each kind one signs;
-- the others are still trusted.

-- +goose Up
CREATE TABLE ssh_authorities (
    id         TEXT    NOT NULL CONSTRAINT ssh_authorities_pkey PRIMARY KEY,
    kind       TEXT    NOT NULL,
    public_key TEXT    NOT NULL, -- as in authorized_keys
    sealed     BYTEA   NOT NULL,
    signing    BOOLEAN NOT NULL,
    created    BIGINT  NOT NULL
);
CREATE UNIQUE INDEX ssh_authorities_signing ON ssh_authorities (kind) WHERE signing;
