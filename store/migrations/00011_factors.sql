-- Passwords of local users and second factors. Seeds of one-time codes are sealed with
-- the master key; public keys of security keys are as they are.

-- +goose Up
CREATE TABLE passwords (
    user_id TEXT    NOT NULL CONSTRAINT passwords_pkey PRIMARY KEY
                    CONSTRAINT passwords_user REFERENCES users (id) ON DELETE CASCADE,
    hash    TEXT    NOT NULL, -- $argon2id$v=19$m=…,t=…,p=…$SALT$HASH
    set_at  BIGINT  NOT NULL,
    initial BOOLEAN NOT NULL, -- given by somebody else: only good for setting another
    expires BIGINT  NOT NULL  -- 0: never
);

CREATE TABLE factors (
    id         TEXT    NOT NULL CONSTRAINT factors_pkey PRIMARY KEY,
    user_id    TEXT    CONSTRAINT factors_user REFERENCES users (id) ON DELETE CASCADE, -- null: nobody's yet
    kind       TEXT    NOT NULL,
    key        TEXT    COLLATE "binary" NOT NULL CONSTRAINT factors_name UNIQUE,
    name       TEXT    NOT NULL,
    path       TEXT    NOT NULL,
    sealed     BYTEA   NOT NULL, -- the seed of one-time codes; empty for security keys
    credential BYTEA   NOT NULL, -- of a security key, JSON; empty for one-time codes
    counter    BIGINT  NOT NULL, -- last step of the clock whose code was taken; last count of signatures
    created    BIGINT  NOT NULL,
    enabled    BIGINT  NOT NULL, -- 0: not yet
    used       BIGINT  NOT NULL
);
CREATE INDEX factors_by_user ON factors (user_id);

-- What failed of late: until is the moment at which all of it is forgotten.
CREATE TABLE factor_attempts (
    key   TEXT   NOT NULL CONSTRAINT factor_attempts_pkey PRIMARY KEY,
    until BIGINT NOT NULL
);
CREATE INDEX factor_attempts_until ON factor_attempts (until);

-- Where people have signed in from, so that others cannot lock them out.
CREATE TABLE familiar_addresses (
    user_id TEXT   NOT NULL CONSTRAINT familiar_addresses_user REFERENCES users (id) ON DELETE CASCADE,
    address TEXT   NOT NULL,
    until   BIGINT NOT NULL,
    CONSTRAINT familiar_addresses_pkey PRIMARY KEY (user_id, address)
);
