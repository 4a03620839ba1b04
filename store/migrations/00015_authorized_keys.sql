-- Keys in the authorized_keys files of nodes, as their agents report them.

-- +goose Up
CREATE TABLE node_keys (
    node_id  TEXT   COLLATE "binary" NOT NULL CONSTRAINT node_keys_pkey PRIMARY KEY,
    reported BIGINT NOT NULL,
    keys     TEXT   NOT NULL, -- JSON
    more     BOOLEAN NOT NULL
);
