"""One start of a server, without the evaluator."""

import pytest

from bus_schemas.errors import Refused
from bus_schemas.unlock import unlock_check, unlock_input, unlock_preimage
from vps_runtime.unlock.rules import begin, finish
from vps_runtime.vault.root_file import RootFile

A, B, C = b"\x0a" * 32, b"\x0b" * 32, b"\x0c" * 32
Y0, Y1, Y2 = b"\x10" * 64, b"\x11" * 64, b"\x12" * 64
ROOT = b"\x0f" * 32


def test_the_first_start_takes_the_new_root_key() -> None:
    """Without a root file generation 0 is asked for, and 1 is written."""
    start = begin(None, server_id="acme-1", first_share=A, next_share=B)
    opened = finish(start, (Y0, Y1), new_root_key=ROOT)
    assert (start.g, opened.root_key, opened.file.g, opened.file.share) == (0, ROOT, 1, B)


def test_the_next_start_opens_what_the_first_wrapped() -> None:
    """The root key comes from the disk; the freshly drawn one is thrown away."""
    first = finish(
        begin(None, server_id="acme-1", first_share=A, next_share=B), (Y0, Y1), new_root_key=ROOT
    )
    start = begin(first.file, server_id="acme-1", first_share=A, next_share=C)
    opened = finish(start, (Y1, Y2), new_root_key=b"\x00" * 32)
    assert (opened.root_key, opened.file.g, opened.file.share) == (ROOT, 2, C)
    with pytest.raises(Refused, match="root_key_does_not_open"):
        finish(start, (Y2, Y1), new_root_key=ROOT)


def test_what_is_revealed_follows_from_the_share() -> None:
    """Preimage and check are the ones of docs/protocol.md, for g and for g + 1."""
    start = begin(None, server_id="acme-1", first_share=A, next_share=B)
    x, next_x = unlock_input("acme-1", 0, A), unlock_input("acme-1", 1, B)
    assert start.inputs == (x, next_x)
    assert start.preimage == unlock_preimage(x)
    assert start.next_preimage == unlock_preimage(next_x)
    assert start.next_check == unlock_check(unlock_preimage(next_x))


def test_another_servers_root_file_is_refused() -> None:
    """A file copied from a neighbour is named as such, before anybody is asked."""
    file = RootFile(server_id="acme-2", g=1, share=A, wrapped_root=b"\x00" * 60)
    with pytest.raises(Refused, match="root_file_of_another_server"):
        begin(file, server_id="acme-1", first_share=A, next_share=B)


def test_nothing_of_it_shows() -> None:
    """Shares and root key stay out of tracebacks."""
    start = begin(None, server_id="acme-1", first_share=A, next_share=B)
    opened = finish(start, (Y0, Y1), new_root_key=ROOT)
    assert "\\x0" not in repr((start, opened))
