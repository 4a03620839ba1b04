-- Checkpoints of the audit log, and how far it was forwarded to whom.

-- +goose Up
CREATE TABLE audit_checkpoints (
    number     BIGINT  NOT NULL CONSTRAINT audit_checkpoints_pkey PRIMARY KEY,
    made       BIGINT  NOT NULL,
    text       TEXT    NOT NULL, -- what is signed
    signature  TEXT    NOT NULL, -- armored, as of ssh-keygen -Y sign
    public_key TEXT    NOT NULL, -- as in authorized_keys
    stored     BOOLEAN NOT NULL  -- in the recording store, too
);
CREATE INDEX audit_checkpoints_waiting ON audit_checkpoints (number) WHERE NOT stored;

CREATE TABLE audit_destinations (
    name   TEXT   COLLATE "binary" NOT NULL CONSTRAINT audit_destinations_pkey PRIMARY KEY,
    holder TEXT   NOT NULL,
    until  BIGINT NOT NULL
);

CREATE TABLE audit_cursors (
    destination TEXT   COLLATE "binary" NOT NULL,
    member      TEXT   COLLATE "binary" NOT NULL,
    seq         BIGINT NOT NULL, -- of the last record that was delivered
    CONSTRAINT audit_cursors_pkey PRIMARY KEY (destination, member)
);
