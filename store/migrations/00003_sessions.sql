-- Sessions, live and past.

-- +goose Up
CREATE TABLE sessions (
    id           TEXT   COLLATE "binary" NOT NULL CONSTRAINT sessions_pkey PRIMARY KEY,
    node_id      TEXT   NOT NULL, -- kept after the node is deregistered
    target       TEXT   NOT NULL,
    document     TEXT   NOT NULL,
    session_type TEXT   NOT NULL,
    owner        TEXT   NOT NULL,
    owner_id     TEXT   NOT NULL,
    owner_name   TEXT   NOT NULL,
    reason       TEXT   NOT NULL,
    source_ip    TEXT   NOT NULL,
    run_as       TEXT   NOT NULL,
    state        TEXT   NOT NULL,
    started      BIGINT NOT NULL,
    ended        BIGINT NOT NULL,
    end_reason   TEXT   NOT NULL,
    exit_status  BIGINT,
    member       TEXT   NOT NULL,
    recording    TEXT   NOT NULL,
    bytes_in     BIGINT NOT NULL,
    bytes_out    BIGINT NOT NULL,
    max_duration BIGINT NOT NULL, -- microseconds
    idle_timeout BIGINT NOT NULL  -- microseconds
);
CREATE INDEX sessions_by_start ON sessions (started, id);
CREATE INDEX sessions_by_owner ON sessions (owner_id, started);
CREATE INDEX sessions_by_node ON sessions (node_id, started);
CREATE INDEX sessions_active ON sessions (started, id) WHERE state NOT IN ('Terminated', 'Failed');
