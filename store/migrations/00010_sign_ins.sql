-- People who sign in: where they are signed in, what waits to be confirmed by them, and
-- the accounts at OpenID providers that they are. Of secrets only hashes are kept.

-- +goose Up
CREATE TABLE sign_ins (
    id         TEXT   COLLATE "binary" NOT NULL CONSTRAINT sign_ins_pkey PRIMARY KEY,
    user_id    TEXT   NOT NULL, -- of a user who may be gone
    kind       TEXT   NOT NULL,
    method     TEXT   NOT NULL,
    factor     TEXT   NOT NULL,
    factor_at  BIGINT NOT NULL,
    computer   TEXT   NOT NULL,
    created    BIGINT NOT NULL,
    used       BIGINT NOT NULL,
    expires    BIGINT NOT NULL,
    ip         TEXT   NOT NULL,
    agent      TEXT   NOT NULL,
    secret     TEXT   NOT NULL CONSTRAINT sign_ins_secret UNIQUE,
    spent      TEXT   NOT NULL, -- JSON
    ended      BIGINT NOT NULL,
    because    TEXT   NOT NULL
);
CREATE INDEX sign_ins_by_user ON sign_ins (user_id, created);
CREATE INDEX sign_ins_by_creation ON sign_ins (created, id);

CREATE TABLE sign_in_pairings (
    id         TEXT   NOT NULL CONSTRAINT sign_in_pairings_pkey PRIMARY KEY,
    user_code  TEXT   NOT NULL,
    client     TEXT   NOT NULL,
    kind       TEXT   NOT NULL,
    computer   TEXT   NOT NULL,
    redirect   TEXT   NOT NULL,
    challenge  TEXT   NOT NULL,
    ip         TEXT   NOT NULL,
    agent      TEXT   NOT NULL,
    created    BIGINT NOT NULL,
    expires    BIGINT NOT NULL,
    state      TEXT   NOT NULL,
    user_id    TEXT   NOT NULL,
    confirmed_by TEXT NOT NULL,
    method     TEXT   NOT NULL,
    factor     TEXT   NOT NULL,
    factor_at  BIGINT NOT NULL,
    sign_in    TEXT   NOT NULL
);
CREATE UNIQUE INDEX sign_in_pairings_by_code ON sign_in_pairings (user_code) WHERE user_code <> '';
CREATE INDEX sign_in_pairings_by_end ON sign_in_pairings (expires);

CREATE TABLE sign_in_accounts (
    issuer   TEXT   NOT NULL,
    subject  TEXT   NOT NULL,
    user_id  TEXT   NOT NULL CONSTRAINT sign_in_accounts_user REFERENCES users (id),
    provider TEXT   NOT NULL,
    name     TEXT   NOT NULL,
    linked   BIGINT NOT NULL,
    linked_by TEXT  NOT NULL,
    CONSTRAINT sign_in_accounts_pkey PRIMARY KEY (issuer, subject)
);
CREATE INDEX sign_in_accounts_by_user ON sign_in_accounts (user_id);
