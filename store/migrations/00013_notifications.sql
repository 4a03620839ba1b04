-- Notifications: who delivers and how far events were read, what is to be delivered, the
-- messages that are kept up to date, and who is who in chats.

-- +goose Up
CREATE TABLE notify_lease (
    name     TEXT   NOT NULL CONSTRAINT notify_lease_pkey PRIMARY KEY,
    holder   TEXT   NOT NULL,
    until    BIGINT NOT NULL,
    position BIGINT NOT NULL -- seq of the last event that was read
);

CREATE TABLE notify_deliveries (
    id      TEXT   COLLATE "binary" NOT NULL CONSTRAINT notify_deliveries_pkey PRIMARY KEY,
    seq     BIGINT NOT NULL,
    request TEXT   COLLATE "binary" NOT NULL,
    kind    TEXT   NOT NULL,
    lane    TEXT   NOT NULL,
    what    TEXT   NOT NULL,
    place   TEXT   NOT NULL,
    step    BIGINT NOT NULL,
    stage   BIGINT NOT NULL,
    tries   BIGINT NOT NULL,
    next    BIGINT NOT NULL,
    state   TEXT   NOT NULL,
    problem TEXT   NOT NULL,
    made    BIGINT NOT NULL
);
CREATE INDEX notify_deliveries_due ON notify_deliveries (lane, next) WHERE state = 'waiting';
CREATE INDEX notify_deliveries_by_request ON notify_deliveries (request, seq);
CREATE INDEX notify_deliveries_by_age ON notify_deliveries (made);

CREATE TABLE notify_references (
    request  TEXT   COLLATE "binary" NOT NULL,
    service  TEXT   NOT NULL,
    place    TEXT   NOT NULL,
    channel  TEXT   NOT NULL,
    message  TEXT   NOT NULL,
    revision BIGINT NOT NULL,
    shown    TEXT   NOT NULL,
    made     BIGINT NOT NULL,
    CONSTRAINT notify_references_pkey PRIMARY KEY (request, service, place)
);
CREATE INDEX notify_references_by_age ON notify_references (made);

CREATE TABLE chat_links (
    service TEXT   COLLATE "binary" NOT NULL,
    team    TEXT   COLLATE "binary" NOT NULL,
    account TEXT   COLLATE "binary" NOT NULL,
    name    TEXT   NOT NULL,
    person  TEXT   NOT NULL,
    made    BIGINT NOT NULL,
    CONSTRAINT chat_links_pkey PRIMARY KEY (service, team, account),
    CONSTRAINT chat_links_one_each UNIQUE (service, team, person)
);
CREATE INDEX chat_links_by_person ON chat_links (person);

CREATE TABLE chat_codes (
    service TEXT   COLLATE "binary" NOT NULL,
    team    TEXT   COLLATE "binary" NOT NULL,
    account TEXT   COLLATE "binary" NOT NULL,
    hash    TEXT   NOT NULL CONSTRAINT chat_codes_hash UNIQUE, -- hex SHA-256
    name    TEXT   NOT NULL,
    team_name TEXT NOT NULL,
    expires BIGINT NOT NULL,
    CONSTRAINT chat_codes_pkey PRIMARY KEY (service, team, account)
);
