"""Turns of the agent, driven through OpenClaw's own WebSocket."""

import asyncio
import time
import uuid
from dataclasses import dataclass, field

from vps_runtime.openclaw.link import Connection, OpenClawRefused

_SECONDS = 60.0


@dataclass(frozen=True)
class Turn:
    """One turn, as OpenClaw tells it."""

    ok: bool
    said: str
    seconds: float


async def turn(connection: Connection, model: str, session: str) -> Turn:
    """Let the agent take one turn in *session* and wait for its end."""
    began = time.monotonic()
    wish = {
        "message": "hi",
        "agentId": "main",
        "model": model,
        "sessionKey": f"agent:main:{session}",
        "idempotencyKey": str(uuid.uuid4()),
    }
    try:
        run = (await connection.ask("agent", wish, seconds=_SECONDS))["runId"]
        waiting = {"runId": run, "timeoutMs": int(_SECONDS * 1000)}
        end = await connection.ask("agent.wait", waiting, seconds=_SECONDS + 5)
    except OpenClawRefused as error:
        return Turn(ok=False, said=str(error), seconds=time.monotonic() - began)
    good = end.get("status") == "ok"
    return Turn(ok=good, said="" if good else str(end)[:400], seconds=time.monotonic() - began)


@dataclass
class Workers:
    """Some who take turns one after the other, until they are told to stop."""

    connection: Connection
    model: str
    turns: list[Turn] = field(default_factory=list)
    _enough: asyncio.Event = field(default_factory=asyncio.Event)
    _stepped: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def failed(self) -> list[str]:
        """What was said of those that failed."""
        return [one.said for one in self.turns if not one.ok]

    async def work(self, name: str, at_least: int) -> None:
        """Take turns in a session called *name*; *at_least* so many by all workers together."""
        while not self._enough.is_set() or len(self.turns) < at_least:
            self.turns.append(await turn(self.connection, self.model, name))
            self._stepped.set()

    async def until(self, turns: int) -> None:
        """Return once so many *turns* are over."""
        while len(self.turns) < turns:
            self._stepped.clear()
            await self._stepped.wait()

    def stop(self) -> None:
        """Let them end after the turn they are in."""
        self._enough.set()
