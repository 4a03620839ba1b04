-- Where the text of sessions is written beside their recordings: objects in S3, streams in
-- CloudWatch Logs. Rows hold names and a position, nothing that was shown.

-- +goose Up
CREATE TABLE aws_logs (
    session   TEXT    COLLATE "binary" NOT NULL,
    kind      TEXT    NOT NULL, -- s3, logs
    recording TEXT    NOT NULL,
    node_id   TEXT    NOT NULL,
    owner     TEXT    NOT NULL, -- ARN
    place     TEXT    NOT NULL, -- bucket, log group
    name      TEXT    NOT NULL, -- key, stream
    encrypted BOOLEAN NOT NULL, -- the place must encrypt
    streaming BOOLEAN NOT NULL,
    run_as    TEXT    NOT NULL,
    state     TEXT    NOT NULL, -- waiting, done, failed
    position  BIGINT  NOT NULL, -- bytes of text that were delivered
    created   BIGINT  NOT NULL,
    due       BIGINT  NOT NULL,
    tries     BIGINT  NOT NULL, -- that failed
    error     TEXT    NOT NULL,
    written   BIGINT  NOT NULL,
    member    TEXT    NOT NULL, -- that works on it until lease
    lease     BIGINT  NOT NULL,
    CONSTRAINT aws_logs_pkey PRIMARY KEY (session, kind)
);
CREATE INDEX aws_logs_waiting ON aws_logs (due) WHERE state = 'waiting';
CREATE INDEX aws_logs_held ON aws_logs (member) WHERE state = 'waiting';
