"""The tables of the registry. Secrets stand in it as SHA-256 only."""

from typing import Final

from bus_schemas.transport.outbox import OUTBOX_SCHEMA

REGISTRY_SCHEMA: Final = (
    """
CREATE TABLE IF NOT EXISTS owners (
    owner_id TEXT PRIMARY KEY,
    token_hash BLOB NOT NULL UNIQUE,
    added_at INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS links (
    hash BLOB PRIMARY KEY,
    owner_id TEXT NOT NULL REFERENCES owners,
    expires_at INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS sessions (
    hash BLOB PRIMARY KEY,
    owner_id TEXT NOT NULL REFERENCES owners,
    expires_at INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS servers (
    server_id TEXT PRIMARY KEY, -- rows are never deleted: an id is never issued twice
    owner_id TEXT NOT NULL REFERENCES owners,
    state TEXT NOT NULL,
    nkey TEXT UNIQUE,
    identity_key BLOB UNIQUE,
    enrolled_at INTEGER,
    ended_at INTEGER,
    reason TEXT,
    join_hash BLOB NOT NULL UNIQUE,
    join_expires_at INTEGER NOT NULL,
    join_used_at INTEGER,
    join_used_from TEXT,
    join_tried_at INTEGER,
    join_tried_from TEXT
) STRICT;
CREATE TABLE IF NOT EXISTS former_keys ( -- of machines whose place another one took
    nkey TEXT PRIMARY KEY,
    identity_key BLOB NOT NULL UNIQUE,
    server_id TEXT NOT NULL REFERENCES servers,
    ended_at INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS former_keys_of ON former_keys (server_id);
CREATE TABLE IF NOT EXISTS join_attempts (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    server_id TEXT NOT NULL REFERENCES servers,
    at INTEGER NOT NULL,
    source TEXT NOT NULL,
    outcome TEXT NOT NULL -- "enrolled", "again", or why it was refused
) STRICT;
CREATE INDEX IF NOT EXISTS join_attempts_of ON join_attempts (server_id, outcome, position);
CREATE TABLE IF NOT EXISTS claims (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    issued_at INTEGER NOT NULL, -- the newest iat ever given to an account JWT
    wanted INTEGER NOT NULL, -- grows with every revocation
    pushed INTEGER NOT NULL -- the value of wanted that the bus has confirmed
) STRICT;
INSERT OR IGNORE INTO claims VALUES (1, 0, 0, 0);
CREATE TABLE IF NOT EXISTS trusted_authorities (
    server_id TEXT PRIMARY KEY REFERENCES servers,
    authorities TEXT NOT NULL -- a JSON list of CA ids, as the server told with its last renewal
) STRICT;
"""
    + OUTBOX_SCHEMA
)
