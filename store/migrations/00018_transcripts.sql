-- Transcripts of sessions, by which they are searched. The table transcript_trigrams, which
-- finds the blocks that hold a text, is made by the program: it is not the same in both
-- databases.

-- +goose Up
CREATE TABLE transcripts (
    number  BIGINT NOT NULL CONSTRAINT transcripts_pkey PRIMARY KEY,
    session TEXT   COLLATE "binary" NOT NULL CONSTRAINT transcripts_session UNIQUE,
    state   TEXT   NOT NULL, -- live, partial, whole, gone
    member  TEXT   NOT NULL, -- that writes it
    touched BIGINT NOT NULL,
    blocks  BIGINT NOT NULL
);
CREATE INDEX transcripts_unfinished ON transcripts (touched) WHERE state IN ('live', 'partial');
CREATE TABLE transcript_blocks (
    id    BIGINT NOT NULL CONSTRAINT transcript_blocks_pkey PRIMARY KEY, -- transcripts.number * 1048576 + which
    times TEXT   NOT NULL, -- hex
    text  TEXT   NOT NULL
);
