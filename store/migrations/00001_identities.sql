-- Users, groups, roles, their keys and policies.
--
-- The same statements run on SQLite and PostgreSQL. Times are microseconds since
-- 1970 (0: none), lists and maps are JSON, and COLLATE "binary" (made by the store on
-- PostgreSQL, built into SQLite) gives both the same order. The key columns hold
-- names in lower case, since names are unique regardless of case.

-- +goose Up
CREATE TABLE revision (
    id    BIGINT NOT NULL CONSTRAINT revision_pkey PRIMARY KEY CONSTRAINT revision_single CHECK (id = 1),
    value BIGINT NOT NULL
);
INSERT INTO revision (id, value) VALUES (1, 1);

CREATE TABLE users (
    id       TEXT    NOT NULL CONSTRAINT users_pkey PRIMARY KEY,
    key      TEXT    COLLATE "binary" NOT NULL CONSTRAINT users_name UNIQUE,
    name     TEXT    NOT NULL,
    path     TEXT    NOT NULL,
    created  BIGINT  NOT NULL,
    tags     TEXT    NOT NULL,
    boundary TEXT    NOT NULL,
    disabled BOOLEAN NOT NULL
);

CREATE TABLE user_groups (
    id      TEXT   NOT NULL CONSTRAINT user_groups_pkey PRIMARY KEY,
    key     TEXT   COLLATE "binary" NOT NULL CONSTRAINT user_groups_name UNIQUE,
    name    TEXT   NOT NULL,
    path    TEXT   NOT NULL,
    created BIGINT NOT NULL
);

CREATE TABLE memberships (
    group_id TEXT NOT NULL CONSTRAINT memberships_group REFERENCES user_groups (id),
    user_id  TEXT NOT NULL CONSTRAINT memberships_user REFERENCES users (id),
    CONSTRAINT memberships_pkey PRIMARY KEY (group_id, user_id)
);
CREATE INDEX memberships_by_user ON memberships (user_id);

CREATE TABLE roles (
    id           TEXT   NOT NULL CONSTRAINT roles_pkey PRIMARY KEY,
    key          TEXT   COLLATE "binary" NOT NULL CONSTRAINT roles_name UNIQUE,
    name         TEXT   NOT NULL,
    path         TEXT   NOT NULL,
    created      BIGINT NOT NULL,
    description  TEXT   NOT NULL,
    trust        TEXT   NOT NULL,
    max_duration BIGINT NOT NULL, -- microseconds
    tags         TEXT   NOT NULL,
    boundary     TEXT   NOT NULL
);

CREATE TABLE access_keys (
    id        TEXT    NOT NULL CONSTRAINT access_keys_pkey PRIMARY KEY,
    user_id   TEXT    NOT NULL CONSTRAINT access_keys_user REFERENCES users (id),
    sealed    BYTEA   NOT NULL,
    active    BOOLEAN NOT NULL,
    created   BIGINT  NOT NULL,
    last_used BIGINT  NOT NULL
);
CREATE INDEX access_keys_by_user ON access_keys (user_id);

CREATE TABLE ssh_keys (
    id          TEXT    NOT NULL CONSTRAINT ssh_keys_pkey PRIMARY KEY,
    user_id     TEXT    NOT NULL CONSTRAINT ssh_keys_user REFERENCES users (id),
    material    TEXT    NOT NULL, -- body without its comment
    body        TEXT    NOT NULL,
    fingerprint TEXT    NOT NULL,
    active      BOOLEAN NOT NULL,
    uploaded    BIGINT  NOT NULL,
    CONSTRAINT ssh_keys_once UNIQUE (user_id, material)
);
CREATE INDEX ssh_keys_by_fingerprint ON ssh_keys (fingerprint);

CREATE TABLE inline_policies (
    owner_kind TEXT NOT NULL,
    owner_id   TEXT NOT NULL,
    key        TEXT COLLATE "binary" NOT NULL,
    name       TEXT NOT NULL,
    document   TEXT NOT NULL,
    CONSTRAINT inline_policies_pkey PRIMARY KEY (owner_kind, owner_id, key)
);

CREATE TABLE policies (
    arn             TEXT   NOT NULL CONSTRAINT policies_pkey PRIMARY KEY,
    key             TEXT   COLLATE "binary" NOT NULL CONSTRAINT policies_name UNIQUE,
    name            TEXT   NOT NULL,
    id              TEXT   NOT NULL CONSTRAINT policies_id UNIQUE,
    path            TEXT   NOT NULL,
    description     TEXT   NOT NULL,
    default_version BIGINT NOT NULL,
    last_version    BIGINT NOT NULL, -- numbers are never used twice
    created         BIGINT NOT NULL,
    updated         BIGINT NOT NULL,
    tags            TEXT   NOT NULL
);

CREATE TABLE policy_versions (
    policy_arn TEXT   NOT NULL CONSTRAINT policy_versions_policy REFERENCES policies (arn),
    number     BIGINT NOT NULL,
    document   TEXT   NOT NULL,
    created    BIGINT NOT NULL,
    CONSTRAINT policy_versions_pkey PRIMARY KEY (policy_arn, number)
);

CREATE TABLE attachments (
    owner_kind TEXT NOT NULL,
    owner_id   TEXT NOT NULL,
    policy_arn TEXT NOT NULL CONSTRAINT attachments_policy REFERENCES policies (arn),
    CONSTRAINT attachments_pkey PRIMARY KEY (owner_kind, owner_id, policy_arn)
);
CREATE INDEX attachments_by_policy ON attachments (policy_arn);
