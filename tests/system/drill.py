"""The leak drill's acts: canaries through every flow and every error path of a running system."""

import asyncio
import contextlib
import json
import os
import ssl
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bus_schemas.api import SealedSubmission, ServerView, SlotStep
from bus_schemas.credential import CredentialPayload
from bus_schemas.fields import CredentialKind, at_utc
from bus_schemas.keys import sign
from bus_schemas.providers import Provider, load_providers
from bus_schemas.sealed import SIGNATURE_DOMAIN, SealedEnvelope, seal_info
from bus_schemas.transport.fresh import new_id
from platform_handlers.demo.stage import PLATFORM, VPS, Stage
from platform_handlers.demo.story import Story
from platform_handlers.owner import sealing
from platform_handlers.owner.home import Home
from platform_handlers.owner.platform_api import PlatformApi, PlatformRefused
from tests import canaries
from tests.provider.process import ProviderProcess
from vps_runtime.state import StateFolder

OWNER: Final = "drill"
SERVER: Final = "drill-1"
_BAD: Final = {SlotStep.REJECTED, SlotStep.ABORTED, SlotStep.NEEDS_KEY}
_GOOD: Final = {SlotStep.STORED, SlotStep.VERIFIED, SlotStep.IN_USE, SlotStep.DRAINED}
_CALLED: Final = "mistral"
"""The slot that is called through the gateway."""
PLANTED: Final = "a bug that the drill planted"
FULL: Final = "No space left on device"
_PATIENCE_SECONDS: Final = 30
_AGENT: Final = "from vps_runtime.cli import main; main()"
_BYOK: Final = "from platform_handlers.cli import main; main()"
_BROKEN_SEALING: Final = f"""
import platform_handlers.owner.sealing as sealing
def seal(payload, *rest, **named):
    secret = payload.secret.get_secret_value()
    raise RuntimeError({PLANTED!r})
sealing.seal = seal
"""
_BROKEN_VAULT: Final = """
import vps_runtime.vault.credentials as credentials
async def put(self, envelope, payload, *, at):
    secret = payload.secret.get_secret_value()
    raise {error}
credentials.CredentialStore.put = put
"""


@dataclass
class Drill:
    """A running platform, one owner, one server, and what the owner's machine keeps."""

    story: Story
    now: int
    provider: ProviderProcess
    """Where every credential is sealed to: no call leaves this machine."""
    fingerprints: dict[str, str] = field(default_factory=dict)
    """By server, as its console showed them."""
    refused: int = 0
    """Requests and commands that failed, as they should."""
    crashes: list[str] = field(default_factory=list)
    """Last words of the processes that were made to crash."""
    answers: list[httpx.Response] = field(default_factory=list)
    """What the gateway gave the agent."""

    @property
    def stage(self) -> Stage:
        """The processes."""
        return self.story.stage

    @property
    def home(self) -> Home:
        """The owner's folder."""
        return Home(self.story.owner_folder(OWNER))

    async def open(self) -> None:
        """Start everything and wait until the server can be sealed to."""
        await self.story.open_platform()
        state = ("--state", str(self.story.installation.root))
        home = ("--home", str(self.story.owner_folder(OWNER)))
        token = await self.stage.command(PLATFORM, *state, "owner", "add", OWNER)
        await self.stage.command(PLATFORM, "owner", "keygen", *home)
        url = self.story.installation.api_url.read_text().strip()
        ca = ("--ca", str(self.story.installation.ca))
        await self.stage.command(PLATFORM, "owner", "connect", url, *ca, *home, stdin=token)
        await self.join(SERVER)
        self.stage.start(SERVER, *self._run(SERVER))
        await self.view(SERVER)

    async def join(self, server_id: str) -> None:
        """Make a server, and look at its console."""
        state = ("--state", str(self.story.installation.root))
        home = ("--home", str(self.story.owner_folder(OWNER)))
        folder = ("--state", str(self.story.server_folder(server_id)))
        typed = (await self.stage.command(PLATFORM, "owner", "fingerprint", *home)).split()[-1]
        token = await self.stage.command(PLATFORM, *state, "server", "add", OWNER, server_id)
        join = ("join", *folder, "--owner", typed, "--token-file", "-")
        await self.stage.command(VPS, *join, stdin=token)
        shown = await self.stage.command(VPS, "fingerprint", *folder)
        self.fingerprints[server_id] = shown.split()[-1]

    def _run(self, server_id: str) -> tuple[str, ...]:
        folder = str(self.story.server_folder(server_id))
        return (VPS, "run", "--state", folder, "--gateway-port", "0")

    async def view(self, server_id: str) -> ServerView:
        """Return the server as its owner sees it, once it has a sealing key."""

        async def look() -> ServerView | None:
            found = await asyncio.to_thread(self._ask, server_id)
            return found if found.sealing_key else None

        return await self.stage.until(f"{server_id}'s unlock", look, every=0.2)

    def _ask(self, server_id: str) -> ServerView:
        with PlatformApi(self.home.address()) as platform:
            return platform.server(server_id)

    # --- flows ---

    async def send_everything(self) -> None:
        """Seal every canary to the server, and wait until it holds them all."""
        view = await self.view(SERVER)
        slots = canaries.everything()
        with PlatformApi(self.home.address()) as platform:
            for slot_id, (provider, kind) in slots.items():
                wish = self._sealed(view, slot_id, provider, self._payload(provider, kind))
                await asyncio.to_thread(platform.send, wish)
        await self.settled(_GOOD, slots)

    async def settled(self, wanted: set[SlotStep], slots: Iterable[str]) -> None:
        """Wait until the last step of all *slots* is one of *wanted*."""
        names = set(slots)

        async def look() -> bool | None:
            found = await asyncio.to_thread(self._ask, SERVER)
            steps = {slot.slot_id: slot.latest.step for slot in found.slots}
            return all(steps.get(name) in wanted for name in names) or None

        await self.stage.until("the server's word on each slot", look, every=0.2)

    def _sealed(
        self, view: ServerView, slot_id: str, provider: Provider, payload: CredentialPayload
    ) -> SealedSubmission:
        pinned = self.fingerprints[view.server_id]
        server = sealing.trusted(view, pinned, at=at_utc(self.now))
        revision = next((s.revision for s in view.slots if s.slot_id == slot_id), 0)
        about = sealing.Sealing(OWNER, slot_id, provider, revision, new_id(), at_utc(self.now))
        return sealing.submission(payload, server, about, self.home.owner_key())

    def _payload(self, provider: Provider, kind: CredentialKind) -> CredentialPayload:
        """Return *provider*'s canary, which may be sent to the made-up provider only."""
        origin = self.provider.origin
        if kind is CredentialKind.OAUTH:
            return sealing.oauth_set(canaries.sign_in(provider, origin), provider, origin)
        return sealing.api_key(canaries.api_key(provider), provider, origin)

    async def call(self) -> None:
        """Calls through the gateway: good, streamed, broken, refused with the key repeated."""
        state = StateFolder(self.story.server_folder(SERVER))
        key = canaries.api_key(load_providers()[_CALLED])
        token, url = state.agent_token.read_text().strip(), state.gateway_url.read_text().strip()
        bearer, stranger = {"Authorization": f"Bearer {token}"}, {"x-api-key": canaries.SPILLED}
        chat = f"/{_CALLED}/chat/completions"
        spilled = json.dumps({"stream": True, "messages": canaries.SPILLED})
        async with httpx.AsyncClient(base_url=url, headers=bearer) as agent:

            async def good() -> bool | None:
                return (await agent.post(chat, content="{}")).status_code == 200 or None

            async def tell(path: str, headers: Mapping[str, str], body: str, **how: object) -> None:
                await asyncio.to_thread(self.provider.accept, key, **how)
                with contextlib.suppress(httpx.RemoteProtocolError):  # broken, as it should be
                    self.answers.append(await agent.post(path, content=body, headers=headers))
                self.refused += 1

            await self.stage.until("a call through the gateway", good, every=0.2)
            await tell(chat, {"X-Mine": canaries.SPILLED}, spilled)
            await tell(chat, {}, spilled, breaks_after=3)
            for status in (400, 401, 403, 429, 500):
                await tell(chat, {}, spilled, status=status, echo=True)
            for path in (f"/{canaries.SPILLED}/x", f"/{_CALLED}/../{canaries.SPILLED}"):
                await tell(path, {}, spilled)
            await tell(f"{chat}?key={canaries.SPILLED}", stranger | {"Authorization": ""}, spilled)
            await tell(chat, {"Origin": f"https://{canaries.SPILLED}.example"}, spilled)

    async def live_on(self) -> None:
        """A rotation, a stop and a resume, a restart, a recovery code, a replay."""
        view = await self.view(SERVER)
        provider = load_providers()["openai"]
        wish = self._sealed(
            view, "openai", provider, self._payload(provider, CredentialKind.API_KEY)
        )
        with PlatformApi(self.home.address()) as platform:
            await asyncio.to_thread(platform.send, wish)
        await self.settled(_GOOD | {SlotStep.RETIRED}, ["openai"])
        home = ("--home", str(self.story.owner_folder(OWNER)))
        for verb in ("stop", "resume"):
            await self.stage.command(PLATFORM, "key", verb, SERVER, "openai", *home)
        await asyncio.to_thread(self.stage.kill, SERVER)
        folder = ("--state", str(self.story.server_folder(SERVER)))
        code = await self.stage.command(VPS, "recovery-code", *folder)
        assert code.strip()
        self.stage.restart(SERVER)
        await self.story.verify_replay()

    # --- error paths ---

    async def send_mutations(self) -> None:
        """Two hundred damaged copies of one good envelope."""
        provider = load_providers()["anthropic"]
        payload = self._payload(provider, CredentialKind.API_KEY)
        wish = self._sealed(await self.view(SERVER), "mutated", provider, payload)
        raw, address = wish.model_dump_json().encode(), self.home.address()
        headers = {
            "Authorization": f"Bearer {address.token()}",
            "Content-Type": "application/json",
        }
        path, chance = f"/api/servers/{SERVER}/slots/mutated", Random(7)
        async with httpx.AsyncClient(base_url=address.url, verify=trusting(address.ca_file)) as api:
            for _ in range(200):
                body = bytearray(raw)
                for _ in range(chance.randint(1, 4)):
                    body[chance.randrange(len(body))] = chance.randrange(256)
                answer = await api.post(path, content=bytes(body), headers=headers)
                self.refused += answer.status_code >= 400

    async def send_what_is_refused(self) -> None:
        """Envelopes that the API, or the server behind it, must turn down."""
        provider = load_providers()["anthropic"]
        payload = self._payload(provider, CredentialKind.API_KEY)
        view = await self.view(SERVER)
        good = self._sealed(view, "refused", provider, payload)
        stranger = Ed25519PrivateKey.generate()
        public = stranger.public_key().public_bytes_raw()
        flipped = bytearray(good.envelope.ct)
        flipped[7] ^= 1
        reach_the_server = {
            "unpinned": good.envelope.model_copy(update={"sender_public_key": public}),
            "damaged": good.envelope.model_copy(update={"ct": bytes(flipped)}),
            "moved": good.envelope.model_copy(update={"key_id": "another-key"}),
        }
        with PlatformApi(self.home.address()) as platform:
            for slot_id, envelope in reach_the_server.items():
                key = stranger if slot_id == "unpinned" else self.home.owner_key()
                signed = resigned(envelope.model_copy(update={"slot_id": slot_id}), key)
                await asyncio.to_thread(
                    platform.send, SealedSubmission(envelope=signed, base_revision=0)
                )
            for changed in (
                good.envelope.model_copy(update={"sig": bytes(64)}),
                good.envelope.model_copy(update={"owner_id": "another"}),
                good.envelope.model_copy(update={"server_id": "another-1"}),
            ):
                wish = SealedSubmission(envelope=changed, base_revision=0)
                try:
                    await asyncio.to_thread(platform.send, wish)
                except PlatformRefused:
                    self.refused += 1
        await self.settled(_BAD, reach_the_server)

    async def spill(self) -> None:
        """Plain credentials where none belong: bodies, paths, headers, cursors, cookies."""
        secret = canaries.api_key(load_providers()["anthropic"], canaries.SPILLED)
        address = self.home.address()
        good = {"Authorization": f"Bearer {address.token()}", "Content-Type": "application/json"}
        post = ("POST", f"/api/servers/{SERVER}/slots/spilled")
        fields = dict.fromkeys(SealedEnvelope.model_fields, secret)
        requests: list[tuple[str, str, dict[str, str], str]] = [
            (*post, good, f'{{"envelope": "{secret}'),
            (*post, good, json.dumps(secret)),
            (*post, good, json.dumps({"envelope": fields, "base_revision": secret})),
            (*post, good, json.dumps({secret: secret, "envelope": {secret: secret}})),
            (*post, good | {"Content-Type": secret}, secret),
            ("POST", f"/api/servers/{SERVER}/slots/{secret}", good, "{}"),
            ("GET", f"/api/servers/{secret}", good, ""),
            ("GET", f"/api/{secret}?cursor={secret}", good, ""),
            ("GET", "/api/banners/stream", good | {"Last-Event-ID": secret}, ""),
            ("GET", f"/api/banners/stream?cursor={secret}", good, ""),
            ("POST", f"/api/banners/{secret}/dismissal", good, json.dumps({"why": secret})),
            ("GET", "/api/servers", {"Authorization": f"Bearer {secret}"}, ""),
            ("GET", "/", {"Cookie": f"__Host-byok-session={secret}"}, ""),
            ("POST", f"/login/{secret}", {}, secret),
            ("GET", f"/login/{secret}", {}, ""),
        ]
        async with httpx.AsyncClient(base_url=address.url, verify=trusting(address.ca_file)) as api:
            for method, path, headers, body in requests:
                answer = await api.request(method, path, headers=headers, content=body)
                assert answer.status_code >= 400 or path == "/" or "/login/" in path, (path, answer)
                assert canaries.SPILLED not in answer.text, f"{method} {path[:20]} repeats it"
                self.refused += 1

    async def paste_badly(self) -> None:
        """`byok key set` with what people paste, and with every kind of failure around it."""
        key = canaries.api_key(load_providers()["anthropic"])
        home = ("--home", str(self.story.owner_folder(OWNER)))
        command = ("key", "set", SERVER, "pasted", *home, "--provider", "anthropic")
        pinned = ("--server-fingerprint", self.fingerprints[SERVER])
        await asyncio.gather(
            self._fail(_BYOK, (*command, *pinned), f"{key}\n{key}\n"),
            self._fail(_BYOK, (*command, *pinned), f'"{key}é"'),
            self._fail(_BYOK, (*command, *pinned, "--kind", "oauth"), f'{{"access_token": "{key}"'),
            self._fail(_BYOK, (*command, *pinned, "--base-url", "http://elsewhere.example"), key),
            self._fail(_BYOK, (*command, "--server-fingerprint", "A" * 20), key),
        )
        self.crashes += await asyncio.gather(
            self._fail(_BROKEN_SEALING + _BYOK, (*command, *pinned), key),
            self._fail(_BROKEN_SEALING + _BYOK, ("--debug", *command, *pinned), key),
        )

    async def crash_the_agent(self) -> None:
        """An agent with a planted bug, one with a full disk, each with a credential in hand."""
        name = "drill-2"
        _, *run = self._run(name)
        await self.join(name)
        self.stage.start(name, VPS, *run)
        view = await self.view(name)
        await asyncio.to_thread(self.stage.kill, name)
        self.stage.processes.pop(name)
        provider = load_providers()["openai"]
        wish = self._sealed(
            view, "openai", provider, self._payload(provider, CredentialKind.API_KEY)
        )
        with PlatformApi(self.home.address()) as platform:
            await asyncio.to_thread(platform.send, wish)
        bug = _BROKEN_VAULT.format(error=f"RuntimeError({PLANTED!r})")
        self.crashes.append(await self._fail(bug + _AGENT, run, until=PLANTED))
        full = _BROKEN_VAULT.format(error=f"OSError(28, {FULL!r})")
        self.crashes.append(await self._fail(full + _AGENT, run, until=FULL))

    async def _fail(
        self, code: str, arguments: Iterable[str], pasted: str = "", until: str = ""
    ) -> str:
        """Run *code* with *arguments* until it fails, or has said *until*; return all it said."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", code, *arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "BYOK_LOG_LEVEL": "debug"},
        )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(pasted.encode())
        process.stdin.close()
        said = bytearray()
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while chunk := await process.stdout.read(65536):
                said += chunk
                if until and until.encode() in said and process.returncode is None:
                    process.terminate()
            code_of_exit = await process.wait()
        assert code_of_exit or until, said
        self.refused += 1
        (self.stage.folder / "logs" / f"command-{process.pid}.log").write_bytes(said)
        return said.decode()


def resigned(envelope: SealedEnvelope, key: Ed25519PrivateKey) -> SealedEnvelope:
    """Return *envelope* with a signature that holds, whatever was changed in it."""
    changed = envelope.model_copy(
        update={"sender_public_key": key.public_key().public_bytes_raw(), "envelope_id": new_id()}
    )
    info = seal_info(changed, changed.sender_public_key)
    signature = sign(key, SIGNATURE_DOMAIN, info, changed.enc, changed.ct)
    return changed.model_copy(update={"sig": signature})


def trusting(ca_file: Path) -> ssl.SSLContext:
    """Return a TLS context that trusts the installation's CA."""
    return ssl.create_default_context(cafile=str(ca_file))


def memory(pid: int) -> Mapping[str, bytes]:
    """Return every writable part of a process's memory, as a core image has it.

    Raises PermissionError for anybody but root: our processes forbid it to their own user.
    """
    parts = {}
    process = Path("/proc") / str(pid)
    with (process / "mem").open("rb", 0) as image:
        for line in (process / "maps").read_text().splitlines():
            span, mode, *_ = line.split()
            if not mode.startswith("rw") or line.endswith(("[vvar]", "[vsyscall]")):
                continue
            start, end = (int(edge, 16) for edge in span.split("-"))
            try:
                image.seek(start)
                parts[span] = image.read(end - start)
            except OSError:
                continue  # a guard page, or memory that the kernel itself keeps shut
    return parts
