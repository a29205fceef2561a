"""The tables of the outbox, and the two statements that are longer than a line."""

from __future__ import annotations

SCHEMA = """
CREATE TABLE IF NOT EXISTS envelopes (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, created REAL NOT NULL, expires REAL NOT NULL,
    boot TEXT NOT NULL, stored REAL NOT NULL, container BLOB NOT NULL);  -- the long column last: others are read alone
CREATE TABLE IF NOT EXISTS seen (id TEXT PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS chains (
    deployment TEXT PRIMARY KEY, chain TEXT NOT NULL, sequence INTEGER NOT NULL, previous TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS dead_letters (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL, reason TEXT NOT NULL, container BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS counts (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
"""
MOVE_CHAIN = """
INSERT INTO chains VALUES (?, ?, ?, ?) ON CONFLICT (deployment) DO UPDATE
SET chain = excluded.chain, sequence = excluded.sequence, previous = excluded.previous
WHERE excluded.chain <> chain OR excluded.sequence > sequence
"""
EXPIRE = """
DELETE FROM envelopes WHERE number IN (
SELECT number FROM envelopes
WHERE (boot = ? AND stored + expires - created <= ?) OR (boot <> ? AND expires <= ?) LIMIT ?)
"""
