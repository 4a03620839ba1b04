-- Where recordings are, and what may become of them.

-- +goose Up
CREATE TABLE recordings (
    name            TEXT    COLLATE "binary" NOT NULL CONSTRAINT recordings_pkey PRIMARY KEY, -- 2026/11/20/SESSION
    session         TEXT    COLLATE "binary" NOT NULL,
    node            TEXT    COLLATE "binary" NOT NULL,
    node_name       TEXT    NOT NULL,
    principal       TEXT    COLLATE "binary" NOT NULL,
    document        TEXT    NOT NULL,
    member          TEXT    COLLATE "binary" NOT NULL,
    started         BIGINT  NOT NULL,
    ended           BIGINT  NOT NULL,
    end_reason      TEXT    NOT NULL,
    state           TEXT    NOT NULL,
    size            BIGINT  NOT NULL,
    sha256          TEXT    NOT NULL,
    manifest_sha256 TEXT    NOT NULL,
    key_id          TEXT    COLLATE "binary" NOT NULL,
    delete_after    BIGINT  NOT NULL, -- 0 is never
    deleted_at      BIGINT  NOT NULL,
    deleted_by      TEXT    NOT NULL,
    delete_reason   TEXT    NOT NULL
);
CREATE INDEX recordings_started ON recordings (started, name);
CREATE INDEX recordings_session ON recordings (session);
CREATE INDEX recordings_spooled ON recordings (member) WHERE state = 'spooled';
CREATE INDEX recordings_delete_after ON recordings (delete_after) WHERE delete_after > 0 AND state = 'stored';
