-- Keys of the key service, and which sessions their ends encrypt.

-- +goose Up
CREATE TABLE kms_keys (
    id          TEXT   COLLATE "binary" NOT NULL CONSTRAINT kms_keys_pkey PRIMARY KEY,
    description TEXT   NOT NULL,
    state       TEXT   NOT NULL,
    created     BIGINT NOT NULL,
    deletion    BIGINT NOT NULL,
    version     BIGINT NOT NULL,
    rotated     BIGINT NOT NULL,
    on_demand   BIGINT NOT NULL,
    rotation    BIGINT NOT NULL -- days
);
CREATE TABLE kms_material (
    key_id  TEXT   COLLATE "binary" NOT NULL,
    version BIGINT NOT NULL,
    sealed  BYTEA  NOT NULL,
    created BIGINT NOT NULL,
    CONSTRAINT kms_material_pkey PRIMARY KEY (key_id, version),
    CONSTRAINT kms_material_of FOREIGN KEY (key_id) REFERENCES kms_keys (id) ON DELETE CASCADE
);
CREATE TABLE kms_aliases (
    name    TEXT   COLLATE "binary" NOT NULL CONSTRAINT kms_aliases_pkey PRIMARY KEY,
    key_id  TEXT   COLLATE "binary" NOT NULL,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL,
    CONSTRAINT kms_aliases_of FOREIGN KEY (key_id) REFERENCES kms_keys (id) ON DELETE CASCADE
);
CREATE INDEX kms_aliases_by_key ON kms_aliases (key_id, name);
ALTER TABLE sessions ADD COLUMN kms_key TEXT NOT NULL DEFAULT '';
ALTER TABLE sessions ADD COLUMN encryption TEXT NOT NULL DEFAULT '';
