"""The derivations of the unlock."""

import json
from pathlib import Path
from typing import Any

import pytest

from bus_schemas.errors import Refused
from bus_schemas.oprf import OprfKey, blind
from bus_schemas.unlock import (
    key_encryption_key,
    unlock_check,
    unlock_input,
    unlock_key_info,
    unlock_preimage,
)
from vps_runtime.vault.record import unwrap_root_key, wrap_root_key

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "unlock.json").read_bytes()
)
SERVER: str = VECTORS["server_id"]
SHARE = bytes.fromhex(VECTORS["share"])
Y = bytes.fromhex(VECTORS["y"])


def test_the_derivations_match_the_vectors() -> None:
    """x_g, s_g, chk_g and KEK_g must be the same in every implementation."""
    x = unlock_input(SERVER, VECTORS["g"], SHARE)
    s = unlock_preimage(x)
    assert x.hex() == VECTORS["x"]
    assert s.hex() == VECTORS["s"]
    assert unlock_check(s).hex() == VECTORS["chk"]
    info = unlock_key_info(SERVER, VECTORS["g"], unlock_check(s))
    assert info.hex() == VECTORS["key_info"]
    key = OprfKey.from_seed(bytes.fromhex(VECTORS["seed"])).under(info)
    assert key.public_key.hex() == VECTORS["public_key"]
    assert key_encryption_key(Y, SHARE, SERVER, VECTORS["g"]).hex() == VECTORS["kek"]


@pytest.mark.parametrize(
    ("server_id", "g", "share"),
    [("server-2", 41, SHARE), (SERVER, 42, SHARE), (SERVER, 41, Y[:32])],
)
def test_each_ingredient_counts(server_id: str, g: int, share: bytes) -> None:
    """Another server, generation or share must give another input and another key."""
    assert unlock_input(server_id, g, share).hex() != VECTORS["x"]
    assert key_encryption_key(Y, share, server_id, g).hex() != VECTORS["kek"]
    check = unlock_check(unlock_preimage(unlock_input(server_id, g, share)))
    assert unlock_key_info(server_id, g, check).hex() != VECTORS["key_info"]


def test_a_share_of_another_length_is_refused() -> None:
    """A cut share is a damaged disk, not another key."""
    with pytest.raises(ValueError, match="32 bytes"):
        unlock_input(SERVER, 0, SHARE[1:])


def evaluated_kek(evaluator: OprfKey, g: int, share: bytes, claimed: int | None = None) -> bytes:
    """Derive the KEK as a server does, or as a thief who has its input evaluated as *claimed*."""
    x = unlock_input(SERVER, g, share)
    blinding, blinded = blind([x])
    info = unlock_key_info(SERVER, claimed or g, unlock_check(unlock_preimage(x)))
    key = evaluator.under(info)
    [y] = blinding.finalize(key.evaluate(blinded), key.public_key)
    return key_encryption_key(y, share, SERVER, g)


def test_disk_and_evaluator_open_the_root_key_only_together() -> None:
    """The right share and the right evaluator open it at every start; either alone never does."""
    evaluator, root = OprfKey.generate(), b"\x07" * 32
    wrapped = wrap_root_key(evaluated_kek(evaluator, 1, SHARE), SERVER, 1, root)
    opened = bytearray(32)
    unwrap_root_key(evaluated_kek(evaluator, 1, SHARE), SERVER, 1, wrapped, opened)
    assert opened == root
    for other, share, claimed in (
        (OprfKey.generate(), SHARE, 1),
        (evaluator, b"\x06" * 32, 1),
        (evaluator, SHARE, 2),
    ):
        with pytest.raises(Refused, match="root_key_does_not_open"):
            unwrap_root_key(evaluated_kek(other, 1, share, claimed), SERVER, 1, wrapped, opened)
