"""What comes through a terminal's hidden prompt: all that was pasted, or a refusal."""

import asyncio
import os
import select
import sys
import termios
from collections.abc import Awaitable, Callable, Iterator
from functools import partial

import pytest

from bus_schemas.errors import ContractError
from platform_handlers.owner.asking import read_api_key, read_sign_in, read_token

KEY = b"sk-ant-api03-" + b"x" * 90
KERNELS_LINE = 4095
"""Bytes of a line that a terminal keeps when it edits lines itself (N_TTY)."""

Ask = Callable[[], str]
Type = Callable[..., Awaitable[str]]


class Terminal:
    """Somebody's terminal, and what it shows."""

    def __init__(self) -> None:
        self.keyboard, self.program = os.openpty()

    @property
    def is_editing(self) -> bool:
        """Whether it shows what is typed, as at a shell."""
        flags = termios.tcgetattr(self.program)[3]
        return bool(flags & termios.ECHO and flags & termios.ICANON)

    @property
    def has_unread(self) -> bool:
        """Whether something lies there for whoever reads next."""
        return bool(select.select([self.program], [], [], 0)[0])

    @property
    def shown(self) -> bytes:
        """What is on the screen and not read yet."""
        there = select.select([self.keyboard], [], [], 0)[0]
        return os.read(self.keyboard, 1 << 20) if there else b""


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    """One that is standard input."""
    found = Terminal()
    with os.fdopen(found.program, closefd=False) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield found
    os.close(found.keyboard)
    os.close(found.program)


@pytest.fixture
def typed(terminal: Terminal) -> Type:
    """Answer a question with pieces, each typed or pasted once the one before was read."""

    async def type_in(ask: Ask, *pieces: bytes) -> str:
        asked = asyncio.create_task(asyncio.to_thread(ask))
        async with asyncio.timeout(20):
            await _until(lambda: not terminal.is_editing)
            for piece in pieces:
                await asyncio.to_thread(_write, terminal.keyboard, piece)
                await _until(lambda: asked.done() or not terminal.has_unread)
            return await asked

    return type_in


async def _until(fact: Callable[[], bool]) -> None:
    """Return once *fact* holds; a terminal tells nobody that it was read."""
    for _ in range(4000):
        if fact():
            return
        await asyncio.sleep(0.005)
    raise TimeoutError


def _write(handle: int, data: bytes) -> None:
    while data:
        data = data[os.write(handle, data) :]


ask_key: Ask = partial(read_api_key, "Anthropic")


@pytest.mark.parametrize(
    "pieces",
    [
        (KEY + b"\n",),
        (KEY + b"\r",),
        (KEY, b"\n"),
        (KEY, b"\x04"),
        (KEY + b"z", b"\x7f", b"\n"),
        (b"wrong", b"\x15", KEY, b"\n"),
    ],
)
async def test_a_key_comes_in_as_it_was_pasted(
    terminal: Terminal, typed: Type, pieces: tuple[bytes, ...]
) -> None:
    """Whatever ends its line; only who types may also correct. Nothing of it is shown."""
    assert await typed(ask_key, *pieces) == KEY.decode()
    assert terminal.is_editing
    assert KEY[:13] not in terminal.shown


async def test_a_long_key_is_not_cut_off(typed: Type) -> None:
    """A terminal's own line has 4,095 bytes: such a key would be sealed, and be another one."""
    long = b"k" * (2 * KERNELS_LINE)
    assert await typed(ask_key, long + b"\n") == long.decode()


@pytest.mark.parametrize(
    ("pasted", "words"),
    [
        (KEY + b"\nsk-another", "several lines"),
        (KEY + b"\nsk-another\n", "several lines"),
        (KEY + b"\n\n", "a line break"),
        (b"\x1b[200~" + KEY + b"\x1b[201~\n", "invisible"),
        (KEY + b"\x7f" + b"z\n", "invisible"),
        (b"\n", "Nothing was entered"),
        (b"\x04", "Nothing was entered"),
        (b"k" * 1_000_000 + b"\n", "far too much"),
        (KEY + b"\xff\n", "no text"),
    ],
)
async def test_a_paste_is_taken_whole_or_not_at_all(
    terminal: Terminal, typed: Type, pasted: bytes, words: str
) -> None:
    """Not its first line, not its beginning; and nothing of it is left for the shell."""
    with pytest.raises(ContractError, match=words) as refused:
        await typed(ask_key, pasted)
    assert KEY.decode() not in repr(refused.value.__context__)
    assert terminal.shown == b""
    assert not terminal.has_unread


async def test_a_sign_in_may_have_long_lines(typed: Type) -> None:
    """Tokens do; the document ends with Ctrl-D, wherever that is pressed."""
    document = b'{"access_token":\n"' + b"a" * (2 * KERNELS_LINE) + b'"}'
    ask = partial(read_sign_in, "Anthropic")
    assert await typed(ask, document, b"\n", b"\x04") == f"{document.decode()}\n"
    assert await typed(ask, document + b"\x04") == document.decode()


async def test_a_token_may_have_a_space_around_it(typed: Type) -> None:
    """It is the platform's own, and no fingerprint is made of it."""
    assert await typed(read_token, b" byok_token \n") == "byok_token"
    with pytest.raises(ContractError, match="Nothing"):
        await typed(read_token, b" \n")
