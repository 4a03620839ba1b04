-- Requests that are open are few among all that there ever were. Indexes of these have the
-- order of listings: otherwise SQLite rather goes through all.

-- +goose Up
-- What requests_waiting was meant for.
CREATE INDEX requests_unsettled ON requests (created, id) WHERE state IN ('Pending', 'Approved', 'Active');
-- Those with an open review.
CREATE INDEX requests_review ON requests (created, id) WHERE review = 1;
-- A person's that a clock is set for: those that are open, and those of which something
-- outside is to be taken back.
CREATE INDEX requests_clocks ON requests (person, created, id) WHERE due > 0;
