"""One vault record: opens whole or not at all."""

import json
import secrets
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus_schemas.errors import Refused
from vps_runtime.vault.record import (
    MAGIC,
    RecordName,
    open_record,
    root_key_id,
    seal_record,
    unwrap_root_key,
    wrap_root_key,
)

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "vault.json").read_bytes()
)
ROOT = bytes.fromhex(VECTORS["root_key"])
NAME = RecordName(VECTORS["server"], VECTORS["slot"], VECTORS["revision"])
RECORD = bytes.fromhex(VECTORS["record"])
KEK = bytes.fromhex(VECTORS["wrap"]["kek"])
G: int = VECTORS["wrap"]["g"]
WRAPPED = bytes.fromhex(VECTORS["wrap"]["wrapped"])


def fixed_randomness(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """Let the next salt or nonce be *value*."""
    monkeypatch.setattr(secrets, "token_bytes", lambda _length: bytes.fromhex(value))


def test_a_record_matches_the_vector(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the vector's salt a record must come out byte for byte."""
    fixed_randomness(monkeypatch, VECTORS["salt"])
    assert seal_record(ROOT, NAME, VECTORS["plaintext"].encode()) == RECORD
    assert root_key_id(ROOT) == VECTORS["root_key_id"]


def test_the_vector_opens() -> None:
    """A record written by any build of version 1 must open."""
    header, plaintext = open_record(ROOT, RECORD, NAME)
    assert plaintext.decode() == VECTORS["plaintext"]
    assert (header.server, header.slot, header.revision) == (NAME.server, NAME.slot, NAME.revision)


@given(plaintext=st.binary(max_size=2000), revision=st.integers(1, 2**53 - 1))
def test_what_is_sealed_is_opened(plaintext: bytes, revision: int) -> None:
    """Opening must return exactly what was sealed."""
    name = RecordName("server-1", "_sealing-keys", revision)
    assert open_record(ROOT, seal_record(ROOT, name, plaintext), name)[1] == plaintext


@given(position=st.integers(0, len(RECORD) - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_is_refused(position: int, bit: int) -> None:
    """No bit of a record may change, in the header or behind it."""
    raw = bytearray(RECORD)
    raw[position] ^= 1 << bit
    with pytest.raises(Refused, match="vault_record_damaged"):
        open_record(ROOT, bytes(raw), NAME)


@given(length=st.integers(0, len(RECORD) - 1))
def test_a_cut_record_is_refused(length: int) -> None:
    """A file that a crash cut short must be noticed at any length."""
    with pytest.raises(Refused, match="vault_record_damaged"):
        open_record(ROOT, RECORD[:length], NAME)


@pytest.mark.parametrize(
    ("raw", "name", "root", "why"),
    [
        (RECORD + b"\0", NAME, ROOT, "changed"),
        (MAGIC + b"\xff\xff\xff\xff" + RECORD[12:], NAME, ROOT, "begin"),
        (RECORD, RecordName("server-2", "anthropic", 7), ROOT, "another record"),
        (RECORD, RecordName("server-1", "openai", 7), ROOT, "another record"),
        (RECORD, RecordName("server-1", "anthropic", 8), ROOT, "another record"),
        (RECORD, NAME, KEK, "another root key"),
    ],
)
def test_a_wrong_record_is_refused_and_says_why(
    raw: bytes, name: RecordName, root: bytes, why: str
) -> None:
    """A swapped, old or foreign file must not pass; the error names the slot, never the content."""
    with pytest.raises(Refused, match=why) as caught:
        open_record(root, raw, name)
    assert caught.value.reason == "vault_record_damaged"
    assert f"slot {name.slot} revision {name.revision}" in caught.value.detail
    assert "made-up" not in str(caught.value)


def test_no_key_is_used_twice() -> None:
    """Two records of one plaintext must share neither salt nor ciphertext."""
    one, two = seal_record(ROOT, NAME, b"same"), seal_record(ROOT, NAME, b"same")
    assert open_record(ROOT, one, NAME)[0].salt != open_record(ROOT, two, NAME)[0].salt
    assert one[-20:] != two[-20:]


@pytest.mark.parametrize(
    ("server", "slot", "revision"),
    [
        ("server-1", "../share", 1),
        ("server-1", "a.b", 1),
        ("server-1", "a\n", 1),
        ("server-1", "__a", 1),
        ("server-1", "", 1),
        ("_server", "a", 1),
        ("server-1", "a", 0),
    ],
)
def test_a_name_that_is_no_name_is_refused(server: str, slot: str, revision: int) -> None:
    """A record's name becomes a file name, so nothing but ids may be in it."""
    with pytest.raises(ValueError, match=r"valid ids|from 1"):
        RecordName(server, slot, revision)


def test_the_wrapped_root_key_matches_the_vector(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the vector's nonce the wrapped root key must come out byte for byte."""
    fixed_randomness(monkeypatch, VECTORS["wrap"]["nonce"])
    assert wrap_root_key(KEK, NAME.server, G, ROOT) == WRAPPED
    unwrap_root_key(KEK, NAME.server, G, WRAPPED, into := bytearray(32))
    assert into == ROOT


@given(position=st.integers(0, len(WRAPPED) - 1), bit=st.integers(0, 7))
def test_a_changed_wrapping_is_refused(position: int, bit: int) -> None:
    """No bit of the wrapped root key may change."""
    raw = bytearray(WRAPPED)
    raw[position] ^= 1 << bit
    with pytest.raises(Refused, match="root_key_does_not_open"):
        unwrap_root_key(KEK, NAME.server, G, bytes(raw), bytearray(32))


@pytest.mark.parametrize(
    ("kek", "server_id", "g", "wrapped"),
    [
        (ROOT, NAME.server, G, WRAPPED),
        (KEK, "server-2", G, WRAPPED),
        (KEK, NAME.server, G + 1, WRAPPED),
        (KEK, NAME.server, G, b""),
    ],
)
def test_a_wrapping_of_another_generation_is_refused(
    kek: bytes, server_id: str, g: int, wrapped: bytes
) -> None:
    """Key, server and generation must all be the right ones."""
    with pytest.raises(Refused, match="root_key_does_not_open"):
        unwrap_root_key(kek, server_id, g, wrapped, bytearray(32))
