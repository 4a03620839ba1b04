-- The audit log: whole records as JSON, with the columns that are searched by.

-- +goose Up
CREATE TABLE audit (
    member    TEXT   COLLATE "binary" NOT NULL,
    seq       BIGINT NOT NULL,
    time      BIGINT NOT NULL,
    event     TEXT   NOT NULL,
    principal TEXT   NOT NULL,
    action    TEXT   NOT NULL,
    decision  TEXT   NOT NULL,
    node      TEXT   NOT NULL,
    session   TEXT   NOT NULL,
    hash      TEXT   NOT NULL,
    record    TEXT   NOT NULL,
    CONSTRAINT audit_pkey PRIMARY KEY (member, seq)
);
CREATE INDEX audit_by_time ON audit (time, member, seq);
CREATE INDEX audit_by_session ON audit (session) WHERE session <> '';
CREATE INDEX audit_by_node ON audit (node, time) WHERE node <> '';
