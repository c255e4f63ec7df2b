"""A platform, one owner and one server, each the program that people run."""

import asyncio
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bus_schemas.api import RotationView, SlotStep
from bus_schemas.fields import at_utc
from bus_schemas.orders import Addressee, Instruction, Stamp, life, sign_order
from bus_schemas.providers import load_providers
from bus_schemas.transport.fresh import new_id
from platform_handlers.authority.initialise import InitPlan, initialise
from platform_handlers.authority.installation import Installation
from platform_handlers.authority.server_conf import BusAddress
from platform_handlers.demo.stage import PLATFORM, VPS, Stage, free_port
from platform_handlers.owner import sealing
from platform_handlers.owner.home import Home
from platform_handlers.owner.platform_api import PlatformApi

OWNER, SERVER = "acme", "acme-1"


@dataclass
class Owned:
    """All processes of a small installation; the owner's part runs in the test."""

    folder: Path
    options: tuple[str, ...] = ()
    """Of `byok-vps run`."""
    stage: Stage = field(init=False)
    fingerprint: str = ""

    def __post_init__(self) -> None:
        self.stage = Stage(self.folder)

    @property
    def installation(self) -> Installation:
        """The platform's folder."""
        return Installation(self.folder / "platform")

    @property
    def server(self) -> Path:
        """The state folder of the server."""
        return self.folder / "server"

    @property
    def home(self) -> Home:
        """The owner's folder."""
        return Home(self.folder / "owner")

    def api(self) -> PlatformApi:
        """Return the owner's client of the platform; to be closed."""
        return PlatformApi(self.home.address())

    async def open(self) -> None:
        """Start everything, up to a server that is unlocked."""
        plan = InitPlan(BusAddress("127.0.0.1", free_port()), hosts=("127.0.0.1", "localhost"))
        root = self.installation.root
        await asyncio.to_thread(initialise, root, plan, now=int(time.time()))
        state = ("--state", str(root))
        self.stage.start("nats", PLATFORM, *state, "nats", "run")
        self.stage.start("evaluator", PLATFORM, *state, "evaluator", "run")
        listen = ("--listen", f"127.0.0.1:{free_port()}")
        self.stage.start("platform", PLATFORM, *state, "platform", "run", *listen)
        url = await self.stage.until("the API's first answer", self._url, every=0.1)
        await self._add_owner(state, url)
        await self._join(state)
        self.stage.start(SERVER, VPS, "run", "--state", str(self.server), *self.options)
        await self.stage.until("the unlock", self._unlocked, every=0.2)

    def close(self) -> None:
        """Stop everything."""
        self.stage.stop()

    async def _url(self) -> str | None:
        path = self.installation.api_url
        return path.read_text().strip() if path.exists() else None

    async def _add_owner(self, state: tuple[str, ...], url: str) -> None:
        home = ("--home", str(self.home.folder))
        token = await self.stage.command(PLATFORM, *state, "owner", "add", OWNER)
        await self.stage.command(PLATFORM, "owner", "keygen", *home)
        ca = ("--ca", str(self.installation.ca))
        await self.stage.command(PLATFORM, "owner", "connect", url, *ca, *home, stdin=token)

    async def _join(self, state: tuple[str, ...]) -> None:
        home = ("--home", str(self.home.folder))
        typed = (await self.stage.command(PLATFORM, "owner", "fingerprint", *home)).split()[-1]
        token = await self.stage.command(PLATFORM, *state, "server", "add", OWNER, SERVER)
        folder = ("--state", str(self.server))
        joining = ("join", *folder, "--owner", typed, "--token-file", "-")
        await self.stage.command(VPS, *joining, stdin=token)
        shown = await self.stage.command(VPS, "fingerprint", *folder)
        self.fingerprint = shown.split()[-1]
        self.home.pin(SERVER, self.fingerprint)

    async def _unlocked(self) -> bool | None:
        return await asyncio.to_thread(self._has_sealing_key) or None

    def _has_sealing_key(self) -> bool:
        with self.api() as platform:
            return platform.server(SERVER).sealing_key is not None

    # --- what the owner does ---

    async def seal(self, slot: str, provider: str, secret: str, base_url: str) -> int:
        """Seal *secret* and send it; return its revision."""
        return await asyncio.to_thread(self._seal, slot, provider, secret, base_url)

    def _seal(self, slot_id: str, provider_id: str, secret: str, base_url: str) -> int:
        provider, at = load_providers()[provider_id], at_utc(time.time())
        with self.api() as platform:
            view = platform.server(SERVER)
            known = next((slot.revision for slot in view.slots if slot.slot_id == slot_id), 0)
            trusted = sealing.trusted(view, self.fingerprint, at=at)
            about = sealing.Sealing(OWNER, slot_id, provider, known, new_id(), at)
            payload = sealing.api_key(secret, provider, base_url)
            submission = sealing.submission(payload, trusted, about, self.home.owner_key())
            platform.send(submission)
        return submission.envelope.revision

    async def order(self, what: Instruction) -> None:
        """Sign an order and hand it in."""
        await asyncio.to_thread(self._order, what)

    def _order(self, what: Instruction) -> None:
        with self.api() as platform:
            identity = platform.server(SERVER).identity_key
            assert identity is not None
            to, n = Addressee(OWNER, SERVER, identity), platform.orders(SERVER).last_n + 1
            until = at_utc(time.time()) + life(what.kind)
            order = sign_order(self.home.owner_key(), to, what, Stamp(new_id(), n, until))
            platform.order(SERVER, order)

    async def step(self, slot: str, revision: int, *wanted: SlotStep) -> RotationView:
        """Wait until one of the steps *wanted* of *revision* is told; return the rotation."""

        async def told() -> RotationView | None:
            rotation = await asyncio.to_thread(self._rotation, slot, revision)
            there = rotation and {step.step for step in rotation.steps} & set(wanted)
            return rotation if there else None

        what = f"{slot} revision {revision}: {' or '.join(wanted)}"
        return await self.stage.until(what, told, every=0.1)

    def _rotation(self, slot: str, revision: int) -> RotationView | None:
        with self.api() as platform:
            history = platform.history(SERVER, slot)
        return next((one for one in history.rotations if one.revision == revision), None)

    async def doctor(self, *options: str) -> str:
        """Return what `byok-vps doctor` prints."""
        return await self.stage.command(VPS, "doctor", "--state", str(self.server), *options)

    async def openclaw_config(self, *options: str) -> dict[str, Any]:
        """Return what `byok-vps openclaw-config` prints."""
        command = ("openclaw-config", "--state", str(self.server), *options)
        printed: dict[str, Any] = json.loads(await self.stage.command(VPS, *command))
        return printed
