-- What is held, what recordings are about, and what retention and deletion know of them.

-- +goose Up
CREATE TABLE recording_holds (
    id             TEXT   COLLATE "binary" NOT NULL CONSTRAINT recording_holds_pkey PRIMARY KEY,
    kind           TEXT   NOT NULL,
    value          TEXT   COLLATE "binary" NOT NULL,
    also           TEXT   COLLATE "binary" NOT NULL, -- another name of the same; empty for none
    reason         TEXT   NOT NULL,
    held_by        TEXT   NOT NULL,
    held_at        BIGINT NOT NULL,
    released_by    TEXT   NOT NULL,
    release_reason TEXT   NOT NULL,
    released_at    BIGINT NOT NULL -- 0 while it holds
);
CREATE INDEX recording_holds_active ON recording_holds (kind, value) WHERE released_at = 0;
CREATE TABLE recording_subjects (
    name  TEXT COLLATE "binary" NOT NULL,
    kind  TEXT NOT NULL,
    value TEXT COLLATE "binary" NOT NULL,
    CONSTRAINT recording_subjects_pkey PRIMARY KEY (name, kind, value)
);
CREATE INDEX recording_subjects_by ON recording_subjects (kind, value);
CREATE TABLE recording_custody (
    name       TEXT   COLLATE "binary" NOT NULL CONSTRAINT recording_custody_pkey PRIMARY KEY,
    node_tags  TEXT   NOT NULL, -- JSON; empty if not known
    owner_tags TEXT   NOT NULL,
    plan       TEXT   NOT NULL, -- of retention, that delete_after was found by
    rule       TEXT   NOT NULL,
    leased     BIGINT NOT NULL, -- not to be deleted before
    purged     BIGINT NOT NULL, -- when nothing was left of a deleted one
    problem    TEXT   NOT NULL  -- why something is
);
-- Who holds and who deletes lock its row, and so come one after the other.
CREATE TABLE recording_guard (changes BIGINT NOT NULL);
INSERT INTO recording_guard (changes) VALUES (0);
CREATE INDEX recordings_deleted ON recordings (name) WHERE state = 'deleted';
CREATE INDEX recordings_stored_key ON recordings (key_id, name) WHERE state = 'stored';
