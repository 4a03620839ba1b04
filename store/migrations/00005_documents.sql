-- SSM documents and their versions.

-- +goose Up
CREATE TABLE documents (
    name            TEXT   COLLATE "binary" NOT NULL CONSTRAINT documents_pkey PRIMARY KEY,
    type            TEXT   NOT NULL,
    format          TEXT   NOT NULL,
    owner           TEXT   NOT NULL,
    tags            TEXT   NOT NULL,
    default_version BIGINT NOT NULL,
    latest_version  BIGINT NOT NULL, -- the newest that is kept
    last_number     BIGINT NOT NULL, -- numbers are never used twice
    created         BIGINT NOT NULL
);

CREATE TABLE document_versions (
    document TEXT   COLLATE "binary" NOT NULL CONSTRAINT document_versions_document REFERENCES documents (name),
    number   BIGINT NOT NULL,
    name     TEXT   NOT NULL,
    format   TEXT   NOT NULL,
    content  TEXT   NOT NULL,
    created  BIGINT NOT NULL,
    CONSTRAINT document_versions_pkey PRIMARY KEY (document, number)
);
