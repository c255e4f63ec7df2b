"""One start of a server, without the evaluator."""

import pytest

from bus_schemas.approval import copy_code
from bus_schemas.errors import Refused
from bus_schemas.unlock import unlock_check, unlock_input, unlock_preimage
from vps_runtime.unlock.rules import begin, finish
from vps_runtime.vault.root_file import RootFile
from vps_runtime.vault.root_key import SecretKey

A, B, C = b"\x0a" * 32, b"\x0b" * 32, b"\x0c" * 32
Y0, Y1, Y2 = b"\x10" * 64, b"\x11" * 64, b"\x12" * 64
ROOT = b"\x0f" * 32


def test_the_first_start_takes_the_new_root_key() -> None:
    """Without a root file generation 0 is asked for, and 1 is written."""
    start = begin(None, server_id="acme-1", first_share=A, next_share=B)
    opened = finish(start, (Y0, Y1), root_key=SecretKey.of(ROOT))
    assert opened.root_key.view() == ROOT
    assert (start.g, opened.file.g, opened.file.share) == (0, 1, B)


def test_the_next_start_opens_what_the_first_wrapped() -> None:
    """The root key comes from the disk; the freshly drawn one is thrown away."""
    first = finish(
        begin(None, server_id="acme-1", first_share=A, next_share=B),
        (Y0, Y1),
        root_key=SecretKey.of(ROOT),
    )
    start = begin(first.file, server_id="acme-1", first_share=A, next_share=C)
    opened = finish(start, (Y1, Y2), root_key=SecretKey.random())
    assert opened.root_key.view() == ROOT
    assert (opened.file.g, opened.file.share) == (2, C)
    with pytest.raises(Refused, match="root_key_does_not_open"):
        finish(start, (Y2, Y1), root_key=SecretKey.random())


def test_what_is_revealed_follows_from_the_share() -> None:
    """Preimage and check are the ones of docs/protocol.md, for g and for g + 1."""
    start = begin(None, server_id="acme-1", first_share=A, next_share=B)
    x, next_x = unlock_input("acme-1", 0, A), unlock_input("acme-1", 1, B)
    assert start.inputs == (x, next_x)
    assert start.preimage == unlock_preimage(x)
    assert start.next_preimage == unlock_preimage(next_x)
    assert start.code == copy_code("acme-1", 0, unlock_check(start.preimage))


def test_a_start_that_broke_off_goes_on_with_the_share_on_the_disk() -> None:
    """The evaluator takes no other next generation any more, so it is kept before it is asked."""
    assert begin(None, server_id="acme-1", first_share=A, next_share=B).begun is None
    file = RootFile(server_id="acme-1", g=1, share=A, wrapped_root=b"\x00" * 60)
    start = begin(file, server_id="acme-1", first_share=C, next_share=B)
    assert start.begun == file.model_copy(update={"next_share": B})
    again = begin(start.begun, server_id="acme-1", first_share=C, next_share=C)
    assert again == start


def test_a_recovered_root_key_is_wrapped_without_opening_the_old_one() -> None:
    """The evaluator's key may be a new one: what it gives opens nothing, and wraps all the same."""
    file = RootFile(server_id="acme-1", g=1, share=A, wrapped_root=b"\x00" * 60)
    start = begin(file, server_id="acme-1", first_share=C, next_share=B)
    opened = finish(start, (Y0, Y1), root_key=SecretKey.of(ROOT), known=True)
    following = begin(opened.file, server_id="acme-1", first_share=C, next_share=C)
    assert finish(following, (Y1, Y2), root_key=SecretKey()).root_key.view() == ROOT


def test_another_servers_root_file_is_refused() -> None:
    """A file copied from a neighbour is named as such, before anybody is asked."""
    file = RootFile(server_id="acme-2", g=1, share=A, wrapped_root=b"\x00" * 60)
    with pytest.raises(Refused, match="root_file_of_another_server"):
        begin(file, server_id="acme-1", first_share=A, next_share=B)


def test_nothing_of_it_shows() -> None:
    """Shares and root key stay out of tracebacks."""
    start = begin(None, server_id="acme-1", first_share=A, next_share=B)
    opened = finish(start, (Y0, Y1), root_key=SecretKey.of(ROOT))
    assert "\\x0" not in repr((start, opened))
