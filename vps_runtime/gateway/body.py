"""The body of a call on its way to the provider, kept until the provider has answered."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, NoReturn

from vps_runtime.gateway import web
from vps_runtime.gateway.problem import BROKEN_BODY, TOO_LARGE, TOO_SLOW, NotPassedOn, Problem

LARGEST: Final = 64 * 1024 * 1024
"""Bytes of a body; the providers' own limits are lower."""
KEPT: Final = 8 * 1024 * 1024
"""Bytes up to which a body can be sent once more."""
_AT_ONCE: Final = 64 * 1024
"""Bytes up to which a body is awaited before it goes on: nobody can tell, and it is one write."""


Payload = bytes | AsyncIterator[bytes] | None
"""What a client takes as a body."""


@dataclass
class Room:
    """Bytes that all kept bodies together may still take."""

    left: int


class Body:
    """Read once from the agent; sent on as it comes, and again as long as it is kept whole."""

    def __init__(self, request: web.BaseRequest, room: Room, patience: float) -> None:
        """*patience* is for the next part of it, in seconds. Raises NotPassedOn if it is too long.

        Nothing is read yet.
        """
        self.length = request.content_length
        if self.length is not None and self.length > LARGEST:
            raise NotPassedOn(TOO_LARGE)
        self.exists = request.body_exists
        self.problem: Problem | None = None
        """Why it does not go on to its end, once it does not."""
        self._request = request
        self._content = request.content
        # RFC 9110 10.1.1: whoever speaks HTTP/1.0 knows no 100.
        self._awaited = "Expect" in request.headers and request.version >= (1, 1)
        self._room = room
        self._patience = patience
        self._is_small = self.length is not None and self.length <= _AT_ONCE
        self._small: bytes | None = None
        self._kept: list[bytes] | None = []
        self._kept_size = 0
        self._read = 0
        self._reading = asyncio.Lock()  # a sender that was broken off may not have noticed yet

    @property
    def again(self) -> bool:
        """Whether it can be sent once more."""
        return self._is_small or self._kept is not None

    @property
    def arrived(self) -> bool:
        """Whether all of it is here."""
        return self._content.is_eof()

    async def payload(self) -> Payload:
        """Return what to give to a client: a small body in one piece, any other as it comes.

        Raises NotPassedOn, ConnectionError.
        """
        if not self.exists:
            return None
        if not self._is_small:
            return self._parts()
        if self._small is None:
            self._small = b"".join([part async for part in self._rest()])
        return self._small

    def forget(self) -> None:
        """Drop what was kept."""
        self._room.left += self._kept_size
        self._kept, self._kept_size = None, 0

    async def _parts(self) -> AsyncIterator[bytes]:
        for part in self._kept or ():
            yield part
        async for part in self._rest():
            yield part

    async def _rest(self) -> AsyncIterator[bytes]:
        if self._awaited:
            self._awaited = False
            await self._request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while not self._content.at_eof():
            try:
                async with asyncio.timeout(self._patience), self._reading:
                    part = await self._content.readany()
            except TimeoutError:
                self.fail(TOO_SLOW)
            except (web.RequestPayloadError, ValueError):
                self.fail(BROKEN_BODY)
            self._read += len(part)
            if self._read > LARGEST:
                self.fail(TOO_LARGE)
            if part:
                self._keep(part)
                yield part

    def _keep(self, part: bytes) -> None:
        if self._kept is None or self._is_small:
            return
        if self._kept_size + len(part) > KEPT or len(part) > self._room.left:
            self.forget()
            return
        self._kept.append(part)
        self._kept_size += len(part)
        self._room.left -= len(part)

    def fail(self, problem: Problem) -> NoReturn:
        """End the call with *problem*, while its body is on its way. Raises NotPassedOn."""
        self.problem = problem
        raise NotPassedOn(problem) from None
