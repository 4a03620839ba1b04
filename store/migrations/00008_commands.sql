-- Run Command: commands, and what they came to on each node.

-- +goose Up
CREATE TABLE commands (
    id               TEXT COLLATE "binary" NOT NULL CONSTRAINT commands_pkey PRIMARY KEY,
    document         TEXT   NOT NULL,
    document_version TEXT   NOT NULL,
    comment          TEXT   NOT NULL,
    content          TEXT   NOT NULL, -- JSON
    parameters       TEXT   NOT NULL, -- JSON, as given
    filled           TEXT   NOT NULL, -- JSON, as sent
    node_ids         TEXT   NOT NULL, -- JSON, as given
    targets          TEXT   NOT NULL, -- JSON, as given
    max_concurrency  TEXT   NOT NULL,
    max_errors       TEXT   NOT NULL,
    delivery         BIGINT NOT NULL, -- microseconds
    execution        BIGINT NOT NULL, -- microseconds
    requested        BIGINT NOT NULL,
    owner            TEXT   NOT NULL,
    owner_id         TEXT   NOT NULL,
    owner_name       TEXT   NOT NULL,
    root_id          TEXT   NOT NULL,
    source_ip        TEXT   NOT NULL,
    status           TEXT   NOT NULL,
    details          TEXT   NOT NULL,
    target_count     BIGINT NOT NULL,
    completed_count  BIGINT NOT NULL,
    error_count      BIGINT NOT NULL,
    undelivered      BIGINT NOT NULL,
    cancelled_by     TEXT   NOT NULL,
    ended            BIGINT NOT NULL,
    revision         BIGINT NOT NULL,
    member           TEXT   NOT NULL,
    lease            BIGINT NOT NULL
);
CREATE INDEX commands_by_request ON commands (requested, id);
CREATE INDEX commands_active ON commands (lease) WHERE ended = 0;
CREATE INDEX commands_by_end ON commands (ended);

CREATE TABLE command_invocations (
    command_id   TEXT   COLLATE "binary" NOT NULL,
    node_id      TEXT   COLLATE "binary" NOT NULL,
    node_name    TEXT   NOT NULL,
    rank         BIGINT NOT NULL,
    requested    BIGINT NOT NULL,
    status       TEXT   NOT NULL,
    details      TEXT   NOT NULL,
    trace        TEXT   NOT NULL,
    tries        BIGINT NOT NULL,
    tried        BIGINT NOT NULL,
    sent         BIGINT NOT NULL,
    delivered    BIGINT NOT NULL,
    started      BIGINT NOT NULL,
    ended        BIGINT NOT NULL,
    cancel_asked BIGINT NOT NULL,
    cancel_tries BIGINT NOT NULL,
    cancel_tried BIGINT NOT NULL,
    revision     BIGINT NOT NULL,
    steps        TEXT   NOT NULL, -- JSON
    CONSTRAINT command_invocations_pkey PRIMARY KEY (command_id, node_id)
);
CREATE INDEX invocations_by_node ON command_invocations (node_id, requested);
CREATE INDEX invocations_by_request ON command_invocations (requested, command_id);
CREATE INDEX invocations_active ON command_invocations (node_id) WHERE ended = 0;
