"""Noticing that a certificate was renewed: whoever shows it takes it without a restart."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from platform_handlers.authority.installation import PairFiles

_LOOK_SECONDS = 0.5

_Stamp = tuple[int, int]


async def renewals(pair: PairFiles) -> AsyncIterator[None]:
    """Yield, for ever, each time *pair*'s files have changed and come to rest for a moment."""
    shown = seen = await asyncio.to_thread(_stamps, pair)
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        found = await asyncio.to_thread(_stamps, pair)
        if found == seen != shown:
            shown = found
            yield
        seen = found


def _stamps(pair: PairFiles) -> tuple[_Stamp, _Stamp]:
    return _stamp(pair.certificate), _stamp(pair.key)


def _stamp(path: Path) -> _Stamp:
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return (found.st_ino, found.st_mtime_ns)
