-- Nodes and the activations by which they register.

-- +goose Up
CREATE TABLE activations (
    id           TEXT   COLLATE "binary" NOT NULL CONSTRAINT activations_pkey PRIMARY KEY,
    code_hash    BYTEA  NOT NULL,
    description  TEXT   NOT NULL,
    default_name TEXT   NOT NULL,
    iam_role     TEXT   NOT NULL,
    max_count    BIGINT NOT NULL,
    used_count   BIGINT NOT NULL,
    expires      BIGINT NOT NULL,
    created      BIGINT NOT NULL,
    tags         TEXT   NOT NULL,
    node_ids     TEXT   NOT NULL,
    CONSTRAINT activations_limit CHECK (used_count <= max_count)
);

CREATE TABLE nodes (
    id                TEXT   COLLATE "binary" NOT NULL CONSTRAINT nodes_pkey PRIMARY KEY,
    name              TEXT   NOT NULL,
    tags              TEXT   NOT NULL,
    activation_id     TEXT   NOT NULL, -- kept after the activation is deleted
    iam_role          TEXT   NOT NULL,
    fingerprint       TEXT   NOT NULL,
    public_key        TEXT   NOT NULL,
    public_key_type   TEXT   NOT NULL,
    registered        BIGINT NOT NULL,
    agent_name        TEXT   NOT NULL,
    agent_version     TEXT   NOT NULL,
    agent_status      TEXT   NOT NULL,
    platform_type     TEXT   NOT NULL,
    platform_name     TEXT   NOT NULL,
    platform_version  TEXT   NOT NULL,
    computer_name     TEXT   NOT NULL,
    ip_address        TEXT   NOT NULL,
    availability_zone TEXT   NOT NULL,
    last_ping         BIGINT NOT NULL,
    member            TEXT   NOT NULL, -- holds the control channel; empty: not connected
    connected_at      BIGINT NOT NULL
);
