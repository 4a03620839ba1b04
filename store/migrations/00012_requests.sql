-- Requests for access, what happened to them, and the files of flows.

-- +goose Up
-- Every change of a request takes this row first: requests change one after the other
-- among all members, so that events are numbered in the order in which they commit.
CREATE TABLE grant_revision (
    value  BIGINT NOT NULL, -- grows with every change
    events BIGINT NOT NULL  -- number of the last event
);
INSERT INTO grant_revision (value, events) VALUES (1, 0);

CREATE TABLE requests (
    id      TEXT   NOT NULL CONSTRAINT requests_pkey PRIMARY KEY,
    person  TEXT   NOT NULL, -- unique id of who asked
    flow    TEXT   NOT NULL,
    state   TEXT   NOT NULL,
    review  BIGINT NOT NULL, -- 1 with an open review
    created BIGINT NOT NULL,
    due     BIGINT NOT NULL, -- when its next clock is up; 0 for none
    body    TEXT   NOT NULL  -- all of it, JSON
);
CREATE INDEX requests_created ON requests (created, id);
CREATE INDEX requests_person ON requests (person, created);
CREATE INDEX requests_open ON requests (person) WHERE state IN ('Approved', 'Active');
CREATE INDEX requests_waiting ON requests (created) WHERE state IN ('Pending', 'Approved', 'Active');
CREATE INDEX requests_due ON requests (due) WHERE due > 0;

CREATE TABLE request_events (
    seq     BIGINT NOT NULL CONSTRAINT request_events_pkey PRIMARY KEY,
    request TEXT   NOT NULL CONSTRAINT request_events_request REFERENCES requests (id),
    told    BIGINT NOT NULL, -- 1 once the audit log has it
    body    TEXT   NOT NULL
);
CREATE INDEX request_events_request ON request_events (request, seq);
CREATE INDEX request_events_untold ON request_events (seq) WHERE told = 0;

CREATE TABLE flow_files (
    digest  TEXT   NOT NULL CONSTRAINT flow_files_pkey PRIMARY KEY,
    files   TEXT   NOT NULL, -- contents by name, JSON
    put_by  TEXT   NOT NULL,
    put_at  BIGINT NOT NULL
);
CREATE TABLE flows_in_force (
    digest TEXT NOT NULL -- empty for none
);
INSERT INTO flows_in_force (digest) VALUES ('');
