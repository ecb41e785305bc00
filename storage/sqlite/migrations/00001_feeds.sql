-- +goose Up
CREATE TABLE store (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    id   TEXT NOT NULL
) STRICT;

-- A row is never deleted: the numbering of a feed goes on for ever.
CREATE TABLE feeds (
    id      INTEGER PRIMARY KEY,
    name    TEXT NOT NULL UNIQUE,
    first   INTEGER NOT NULL,           -- the oldest id kept; last + 1 when none is
    last    INTEGER NOT NULL,           -- the newest id ever given
    closed  INTEGER NOT NULL DEFAULT 0,
    updated INTEGER NOT NULL            -- the time of the newest event, in Unix milliseconds
) STRICT;

-- WITHOUT ROWID would write each event where its feed is, on a page of its own: with a
-- thousand feeds in use an append would take two to three times as long. With rowids,
-- events are written side by side, and only the keys are spread out.
CREATE TABLE events (
    feed INTEGER NOT NULL,              -- feeds.id
    seq  INTEGER NOT NULL,              -- the event's id
    type TEXT NOT NULL,
    data TEXT NOT NULL,
    json INTEGER NOT NULL,
    time INTEGER NOT NULL,              -- Unix milliseconds; never falls within a feed
    PRIMARY KEY (feed, seq)
) STRICT;
