"""The recovery code and the file that it opens."""

import json
import secrets
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus_schemas.errors import ContractError, Refused
from vps_runtime.vault.recovery import (
    CODE_BYTES,
    RecoveryFile,
    code_shown,
    code_typed,
    recovery_key,
    unwrap,
    wrap,
)

VAULT: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "vault.json").read_bytes()
)
VECTOR = VAULT["recovery"]
SERVER: str = VAULT["server"]
ROOT = bytes.fromhex(VAULT["root_key"])


def test_the_vector_opens() -> None:
    """Key and layout are those of docs/protocol.md."""
    code, salt = code_typed(VECTOR["code"]), bytes.fromhex(VECTOR["salt"])
    assert recovery_key(code, salt, SERVER).hex() == VECTOR["key"]
    file = RecoveryFile(
        server_id=SERVER, salt=salt, wrapped_root=bytes.fromhex(VECTOR["wrapped_root"])
    )
    found = bytearray(32)
    unwrap(file, code, SERVER, found)
    assert found == ROOT


def test_the_code_opens_its_own_file_only() -> None:
    """Neither another code nor another server's, nor the file of the code before."""
    code = secrets.token_bytes(CODE_BYTES)
    file, found = wrap(code, SERVER, ROOT), bytearray(32)
    unwrap(file, code, SERVER, found)
    assert found == ROOT
    for other, server_id in ((bytes(CODE_BYTES), SERVER), (code, "server-2")):
        with pytest.raises(Refused, match="recovery_code_does_not_fit"):
            unwrap(file, other, server_id, bytearray(32))
    assert wrap(code, SERVER, ROOT).wrapped_root != file.wrapped_root
    assert ROOT not in file.model_dump_json().encode()


@given(code=st.binary(min_size=CODE_BYTES, max_size=CODE_BYTES), lower=st.booleans())
def test_a_code_is_typed_as_it_is_shown(code: bytes, *, lower: bool) -> None:
    """Groups, hyphens and case are for people; 160 bits survive them."""
    shown = code_shown(code)
    assert len(shown.split()) == 8
    assert code_typed(shown.lower().replace(" ", "-") if lower else f" {shown}\n") == code


@pytest.mark.parametrize("text", ["", "hunter2", "A" * 31, "A" * 33, "1" * 32, "Ä" * 32])
def test_what_is_no_code_is_refused_without_a_word_of_it(text: str) -> None:
    """Nobody chooses a code: something shorter or made up is a mistake."""
    with pytest.raises(ContractError, match="bad_recovery_code") as caught:
        code_typed(text)
    assert not text or text not in str(caught.value)
