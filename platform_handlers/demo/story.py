"""The demo's story: two owners, three servers, one key twice, one login twice, one rotation.

Everything goes through the commands that people use. The demo itself stands in for two persons:
the owners, and whoever sits at a server's console and types the owner's fingerprint.
"""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bus_schemas.api import SlotStep, sign_in_link
from bus_schemas.flows import Role
from bus_schemas.providers import load_providers
from bus_schemas.transport.connection import Bus
from bus_schemas.transport.target import BusTarget
from platform_handlers.authority.initialise import InitPlan, initialise
from platform_handlers.authority.installation import Installation
from platform_handlers.authority.role_bus import role_bus
from platform_handlers.authority.server_conf import BusAddress
from platform_handlers.demo import credentials
from platform_handlers.demo.stage import PLATFORM, VPS, DemoFailed, Stage, free_port
from platform_handlers.demo.watch import Standing, Watch, count, rows
from platform_handlers.owner.home import Home
from platform_handlers.provisioning.registry import FILE_NAME, Registry
from platform_handlers.provisioning.sign_ins import SignIns
from platform_handlers.subscriber.durable import Subscriber, add_subscriber

OWNERS = {"acme": ("acme-1", "acme-2"), "globex": ("globex-1",)}
_SECONDS = 30.0
_HEALTH_SECONDS = "5"
_KEY_SECONDS = "45"
_MADE_UP_PROVIDER = "platform_handlers.demo.provider"

Step = Callable[[str], None]
"""Told in words what has just been done."""


@dataclass(frozen=True)
class ApiKey:
    """The key that two servers will share."""

    provider: str = "anthropic"
    secret: str = field(default=credentials.API_KEY, repr=False)


@dataclass
class Story:
    """One run of the demo; call the chapters in order."""

    stage: Stage
    told: Step
    watch: Watch = field(default_factory=Watch)
    provider_url: str = field(default_factory=lambda: f"http://127.0.0.1:{free_port()}")
    """Of the made-up provider, which all credentials are sealed for."""
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _buses: list[Bus] = field(default_factory=list)
    _fingerprints: dict[str, str] = field(default_factory=dict)

    @property
    def installation(self) -> Installation:
        """The platform's folder."""
        return Installation(self.stage.folder / "platform")

    def server_folder(self, server_id: str) -> Path:
        """Return the state folder of one server."""
        return self.stage.folder / "servers" / server_id

    def owner_folder(self, owner_id: str) -> Path:
        """Return the folder on an owner's own machine."""
        return self.stage.folder / "owners" / owner_id

    async def open_platform(self) -> None:
        """Make an installation; start nats-server, the evaluator and the handlers."""
        plan = InitPlan(BusAddress("127.0.0.1", free_port()), hosts=("127.0.0.1", "localhost"))
        await asyncio.to_thread(initialise, self.installation.root, plan, now=int(time.time()))
        self.told("made an installation: accounts, keys, certificates")
        self.stage.start("provider", _MADE_UP_PROVIDER, self.provider_url.rpartition(":")[2])
        state = ("--state", str(self.installation.root))
        self.stage.start("nats", PLATFORM, *state, "nats", "run")
        self.stage.start("evaluator", PLATFORM, *state, "evaluator", "run")
        self.stage.start(
            "platform", PLATFORM, *state, "platform", "run", "--listen", f"127.0.0.1:{free_port()}"
        )
        await self._subscribe()
        await self.stage.until("the API's first answer", self._api_url)
        self.told("started nats-server (TLS), the blind evaluator and the platform")
        await self.stage.until("the made-up provider's start", self._provider)
        self.told("started a made-up AI provider: no call of the demo's leaves this machine")

    async def add_owners(self) -> None:
        """Each owner makes a key; each server joins with its owner's fingerprint, and starts."""
        await asyncio.gather(*(self._add_owner(owner_id) for owner_id in OWNERS))
        await asyncio.gather(*(self._unlocked(o, s) for o, ids in OWNERS.items() for s in ids))
        self.told("all servers are unlocked and have signed a sealing key")

    async def _add_owner(self, owner_id: str) -> None:
        state = ("--state", str(self.installation.root))
        token = await self.stage.command(PLATFORM, *state, "owner", "add", owner_id)
        await self._connect_owner(owner_id, token)
        servers = OWNERS[owner_id]
        await asyncio.gather(*(self._join(owner_id, server_id) for server_id in servers))
        self.told(f"{owner_id} has an owner key and {' and '.join(servers)}")

    async def send_credentials(self, key: ApiKey) -> None:
        """One API key goes to two of acme's servers, one login to acme-1 and globex-1."""
        await self.set_key("acme", "acme-1,acme-2", key.provider, key.secret)
        tested = "verified" if self.testable(key.provider) else "used untested"
        self.told(f"acme sealed one {key.provider} key for acme-1 and for acme-2: stored, {tested}")
        places = (("acme", "acme-1"), ("globex", "globex-1"))
        await asyncio.gather(*(self.set_key(*place, *self.login()) for place in places))
        self.told("acme-1 and globex-1 were given the same Claude login: stored, verified")

    def login(self) -> tuple[str, ...]:
        """Return slot, sign-in and options of the login that two servers will share."""
        return "claude-login", credentials.sign_in(self.provider_url), "--kind", "oauth"

    async def set_key(
        self, owner_id: str, servers: str, slot_id: str, secret: str, *options: str
    ) -> str:
        """Run `byok key set` as the owner of *servers*; the secret goes in by standard input."""
        provider = "anthropic" if slot_id == "claude-login" else slot_id
        testable = self.testable(provider)
        home, names = ("--home", str(self.owner_folder(owner_id))), servers.split(",")
        typed = [f"--server-fingerprint={name}={self._fingerprints[name]}" for name in names]
        said = await self.stage.command(
            PLATFORM, "key", "set", slot_id, "--servers", servers,
            "--provider", provider, *options,
            "--base-url", self.provider_url, *typed,
            "--until", "verified" if testable else "stored",
            "--wait", _KEY_SECONDS, *home,
            stdin=secret,
        )  # fmt: skip
        for name in () if testable else names:  # its check is where nothing was sealed for
            await self.stage.command(PLATFORM, "key", "verify", "--force", name, slot_id, *home)
        return said

    def testable(self, provider: str) -> bool:
        """Whether the made-up provider can stand in for the check of *provider*'s keys."""
        return load_providers()[provider].verify_url(self.provider_url) is not None

    async def rotate(self, key: ApiKey) -> None:
        """Give acme-2 a key of its own."""
        said = await self.set_key("acme", "acme-2", key.provider, credentials.NEXT_API_KEY)
        tested = "verified" if self.testable(key.provider) else "untested"
        self.told(f"acme gave acme-2 a key of its own: stored, {tested}, used from now on")
        if "drained" in said:
            self.told("drained: nothing uses the old one any more, so acme may revoke it")

    async def call(self, slot_id: str) -> None:
        """Have acme-2's agent make one call, by the gateway; then the server has a receipt."""
        status = await self.ask("acme-2", slot_id)
        home = Home(self.owner_folder("acme"))

        async def receipt() -> bool | None:
            return await asyncio.to_thread(_is_in_use, home, "acme-2", slot_id) or None

        await self.stage.until("the receipt", receipt, every=0.1)
        self.told(f"its agent called by the gateway, without the key: answered {status}, in use")

    async def ask(self, server_id: str, slot_id: str) -> int:
        """Call a model as the agent on *server_id* would; return the status of the answer."""
        return await asyncio.to_thread(_call, self.server_folder(server_id), slot_id)

    async def banners_when(self, enough: Callable[[Standing], bool]) -> list[dict[str, object]]:
        """Return all banners once *enough* holds. Raises DemoFailed when it does not in time."""
        if not await self.watch.until(enough, seconds=_SECONDS):
            seen = json.dumps(rows(self.watch.banners))
            raise DemoFailed(f"after {_SECONDS:.0f} s a subscriber still sees only {seen}")
        return rows(self.watch.banners)

    async def verify_replay(self) -> int:
        """Fold the ledger into an empty store; return how many banner events came out the same.

        Raises DemoFailed when one differs.
        """
        state = ("--state", str(self.installation.root))
        printed = await self.stage.command(PLATFORM, *state, "replay", "--verify")
        result = json.loads(printed)
        if not result["agrees"]:
            raise DemoFailed(f"the replay differs from what was published: {printed.strip()}")
        same: int = result["same"]
        self.told(f"replayed the ledger into an empty store: {same} banner events, same bytes")
        return same

    async def links(self) -> dict[str, str]:
        """Return a one-time address of the page for each owner."""
        url = self.installation.api_url.read_text().strip()
        async with await Registry.open(self.installation.platform / FILE_NAME) as registry:
            sign_ins = SignIns(registry)
            return {o: sign_in_link(url, await sign_ins.make_link(o)) for o in OWNERS}

    async def close(self) -> None:
        """Stop everything that was started."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for bus in self._buses:
            await bus.close()
        await asyncio.to_thread(self.stage.stop)

    async def _subscribe(self) -> None:
        """Listen as an ordinary subscriber, with a durable and credentials of its own."""
        target = await self.stage.until("nats-server's start", self._bus)
        setup = await role_bus(self.installation, target, Role.SETUP).open()
        try:
            subscriber = Subscriber("demo", None)
            own = await add_subscriber(setup, self.installation, subscriber)
        finally:
            await setup.close()
        bus = await Bus(target, "demo", lambda: own, api=Role.WATCHER.api).open()
        self._buses.append(bus)
        self._tasks.append(asyncio.create_task(self.watch.run(bus, "demo")))

    async def _bus(self) -> BusTarget | None:
        log = self.stage.log("nats")
        if "listens" not in log.read_text(errors="replace"):
            return None
        return BusTarget(self.installation.bus_url.read_text().strip(), self.installation.ca)

    async def _provider(self) -> bool | None:
        try:
            _, writer = await asyncio.open_connection(*self.provider_url[7:].split(":"))
        except OSError:
            return None
        writer.close()
        return True

    async def _api_url(self) -> str | None:
        path = self.installation.api_url
        return path.read_text().strip() if path.exists() else None

    async def _connect_owner(self, owner_id: str, token: str) -> None:
        home = ("--home", str(self.owner_folder(owner_id)))
        await self.stage.command(PLATFORM, "owner", "keygen", *home)
        url = self.installation.api_url.read_text().strip()
        ca = ("--ca", str(self.installation.ca))
        await self.stage.command(PLATFORM, "owner", "connect", url, *ca, *home, stdin=token)

    async def _join(self, owner_id: str, server_id: str) -> None:
        folder = str(self.server_folder(server_id))
        home = ("--home", str(self.owner_folder(owner_id)))
        state = ("--state", str(self.installation.root))
        typed = (await self.stage.command(PLATFORM, "owner", "fingerprint", *home)).split()[-1]
        token = await self.stage.command(PLATFORM, *state, "server", "add", owner_id, server_id)
        await self.stage.command(
            VPS, "join", "--state", folder, "--owner", typed, "--token-file", "-", stdin=token
        )
        shown = await self.stage.command(VPS, "fingerprint", "--state", folder)
        self._fingerprints[server_id] = shown.split()[-1]
        gateway = ("--gateway-port", "0")  # several servers on one machine
        self.stage.start(
            server_id, VPS, "run", "--state", folder, "--health-seconds", _HEALTH_SECONDS, *gateway
        )

    async def _unlocked(self, owner_id: str, server_id: str) -> None:
        home = Home(self.owner_folder(owner_id))

        async def sealing_key() -> bool | None:
            found = await asyncio.to_thread(_has_sealing_key, home, server_id)
            return found or None

        await self.stage.until(f"{server_id}'s unlock", sealing_key, every=0.2)


def _has_sealing_key(home: Home, server_id: str) -> bool:
    from platform_handlers.owner.platform_api import PlatformApi  # noqa: PLC0415 (httpx is slow)

    with PlatformApi(home.address()) as platform:
        return platform.server(server_id).sealing_key is not None


def _is_in_use(home: Home, server_id: str, slot_id: str) -> bool:
    from platform_handlers.owner.platform_api import PlatformApi  # noqa: PLC0415 (httpx is slow)

    with PlatformApi(home.address()) as platform:
        slot = platform.slot(server_id, slot_id)
    return any(step.step is SlotStep.IN_USE for step in slot.steps)


def _call(server: Path, slot_id: str) -> int:
    """Call a model as an agent would that knows the gateway's address and its own token."""
    import httpx  # noqa: PLC0415 (it is slow)

    url, token = (server / "gateway.url").read_text(), (server / "agent.token").read_text()
    with httpx.Client(base_url=url.strip(), trust_env=False) as agent:
        answer = agent.post(
            f"/{slot_id}/v1/messages", headers={"x-api-key": token.strip()}, json={"messages": []}
        )
    return answer.status_code


def all_raised(banners: Standing) -> bool:
    """Whether both keys' reuse is told on every server concerned."""
    return all(count(banners, c, standing=True) == 2 for c in ("API_KEY_REUSE", "OAUTH_REUSE"))  # noqa: PLR2004


def key_cleared(banners: Standing) -> bool:
    """Whether the API key's banners are gone again."""
    return count(banners, "API_KEY_REUSE", standing=False) == 2  # noqa: PLR2004
