"""A credential is judged by its own provider's documented word, and told to nobody else."""

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
import structlog
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from pydantic import SecretStr

from bus_schemas.credential import CredentialPayload, OAuthSet
from bus_schemas.events.health import Validity
from bus_schemas.providers import Provider, load_providers
from bus_schemas.sealed import SealedEnvelope
from platform_handlers.authority.tls import Pair, make_ca, make_server_certificate
from vps_runtime.keys.calls import Calls
from vps_runtime.rotation.rules import Verdict
from vps_runtime.vault.credentials import CredentialStore, Held
from vps_runtime.vault.root_key import SecretKey
from vps_runtime.vault.store import Vault
from vps_runtime.verification.judge import Judge

KEY = "canary-made-up-" + "k" * 40
REFRESHED = "canary-refreshed-" + "r" * 40
PROVIDERS = tuple(load_providers().values())
VALID, INVALID, LIMITED, UNKNOWN = Validity
UNDOCUMENTED = (201, 204, 206, 300, 301, 302, 303, 307, 308, 404, 418, 500, 502, 503, 504, 529)
OWN_HOST = "models.example.org"
HOSTS = sorted({OWN_HOST, *(str(urlsplit(each.verify.url).hostname) for each in PROVIDERS)})

each_provider = pytest.mark.parametrize("provider", PROVIDERS, ids=lambda each: each.id)


@dataclass
class Answer:
    """What the stand-in for the internet says next."""

    status: int = 200
    body: bytes = b'{"valid": true}'
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Internet(AbstractResolver):
    """Every name leads to one server on loopback, which notes whom each call was meant for."""

    port: int = 0
    plain_port: int = 0
    answer: Answer = field(default_factory=Answer)
    calls: list[tuple[str, str, str, dict[str, str], bytes]] = field(default_factory=list)
    """Host, method, path with query, headers, body."""
    knows: bool = True
    held_up: asyncio.Event | None = None
    """Set: answers wait for it."""
    called: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """A caller went away before its answer."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Send everybody to the one server."""
        del port, family
        if not self.knows:
            raise OSError("no such name")
        where = {"hostname": host, "host": "127.0.0.1", "port": self.port, "proto": 0, "flags": 0}
        return [ResolveResult(**where, family=socket.AF_INET)]  # type: ignore[typeddict-item]

    async def close(self) -> None:
        """Nothing is open."""

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Note the call and answer it."""
        headers = {name.lower(): value for name, value in request.headers.items()}
        body = await request.read()
        self.calls.append((headers["host"], request.method, request.path_qs, headers, body))
        self.called.set()
        if self.held_up is not None:
            try:
                await self.held_up.wait()
            except asyncio.CancelledError:
                self.gone.set()
                raise
        said = self.answer
        return web.Response(status=said.status, body=said.body, headers=dict(said.headers))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A CA file, and a file with a certificate for every host of the catalogue."""
    folder, now = tmp_path_factory.mktemp("tls"), datetime.now(UTC)
    ca = make_ca("test", now=now)
    (folder / "ca.pem").write_bytes(ca.certificate)
    _write(folder / "hosts.pem", make_server_certificate(ca, "everybody", HOSTS, now=now))
    return folder / "ca.pem", folder / "hosts.pem"


def _write(path: Path, pair: Pair) -> None:
    path.write_bytes(pair.certificate + pair.key)


def _context(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
async def internet(authority: tuple[Path, Path]) -> AsyncIterator[Internet]:
    """All providers at once, behind TLS and, on another port, without."""
    net = Internet()
    server = web.Server(net.handle, handler_cancellation=True, access_log=None)
    runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=_context(authority[1])).start()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    net.port, net.plain_port = (address[1] for address in runner.addresses)
    yield net
    await runner.cleanup()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[CredentialStore]:
    """A vault of a server's own."""
    with SecretKey.random() as key:
        yield CredentialStore(Vault(tmp_path / "vault", "acme-1"), "acme-1", key)


@asynccontextmanager
async def session_to(net: Internet, ca: Path | None) -> AsyncIterator[aiohttp.ClientSession]:
    """A session as the runtime has it, into that internet."""
    trusted = ssl.create_default_context(cafile=ca)
    connector = aiohttp.TCPConnector(resolver=net, ssl=trusted, use_dns_cache=False)
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        auto_decompress=False,
    ) as session:
        yield session


@pytest.fixture
async def session(
    internet: Internet, authority: tuple[Path, Path]
) -> AsyncIterator[aiohttp.ClientSession]:
    """The same, trusting that internet's certificates."""
    async with session_to(internet, authority[0]) as session:
        yield session


@dataclass
class Bench:
    """A judge with everything it stands on."""

    internet: Internet
    store: CredentialStore
    session: aiohttp.ClientSession
    reached: list[tuple[str, bool]] = field(default_factory=list)

    async def hold(self, provider: str, payload: CredentialPayload, revision: int = 1) -> Held:
        """Put a credential into the vault."""
        fields: dict[str, Any] = {
            "slot_id": "main",
            "provider": provider,
            "kind": payload.kind,
            "revision": revision,
            "envelope_id": "018f0000-0000-7000-8000-000000000000",
        }
        envelope = SealedEnvelope.model_construct(**fields)
        return await self.store.put(envelope, payload, at=0)

    def judge(self, **options: Any) -> Judge:  # noqa: ANN401 (of Judge)
        """Return a judge."""
        calls = Calls()
        calls.on_reach(lambda slot, answered: self.reached.append((slot, answered)))
        return Judge(self.store, self.session, calls=calls, **options)

    async def verdict(self, provider: str, base_url: str | None = None, **options: Any) -> Verdict:  # noqa: ANN401 (the same)
        """Judge a key of *provider*, sealed for *base_url*."""
        held = await self.hold(provider, api_key(provider, base_url))
        return await self.judge(**options).judge(held)

    @property
    def hosts(self) -> set[str]:
        """Whoever was called."""
        return {host for host, *_ in self.internet.calls}


@pytest.fixture
def bench(internet: Internet, store: CredentialStore, session: aiohttp.ClientSession) -> Bench:
    """A judge between a vault and that internet."""
    return Bench(internet, store, session)


def api_key(provider: str, base_url: str | None = None) -> CredentialPayload:
    """Return a made-up key."""
    entry = load_providers()[provider]
    return CredentialPayload(
        secret=SecretStr(KEY),
        base_url=base_url or entry.base_url,
        header_style=entry.header_style,
    )


def sign_in(
    provider: str, *, access: str = KEY, ends: timedelta | None = None
) -> CredentialPayload:
    """Return a made-up sign-in whose access token ends in *ends* from now."""
    entry = load_providers()[provider]
    tokens = OAuthSet(
        access_token=SecretStr(access),
        refresh_token=SecretStr("canary-refresh-token"),
        expires_at=None if ends is None else datetime.now(UTC) + ends,
        token_endpoint="https://auth.example.org/token",
        client_id="byok",
        issuer="https://auth.example.org",
    )
    return CredentialPayload(oauth=tokens, base_url=entry.base_url, header_style=entry.header_style)


@each_provider
async def test_each_documented_status_is_its_word_and_no_other_is_any(
    bench: Bench, provider: Provider
) -> None:
    """All 23, at their real addresses: host, path, method and body are the documented ones."""
    wanted = urlsplit(provider.verify.url)
    target = wanted.path + (f"?{wanted.query}" if wanted.query else "")
    bench.internet.answer.headers = {"location": f"https://{OWN_HOST}/elsewhere"}
    statuses = {403, *UNDOCUMENTED, *provider.verify.statuses}
    for status in statuses:
        bench.internet.answer.status = status
        word = provider.verify.only_with.get(status)
        bench.internet.answer.body = json.dumps({"valid": True, "reason": word}).encode()
        verdict = await bench.verdict(provider.id)
        documented = provider.verify.statuses.get(status, UNKNOWN)
        reason = "undocumented_answer" if documented is UNKNOWN else None
        assert verdict == Verdict(documented, status, reason)
    assert bench.hosts == {wanted.hostname}  # no redirect was followed
    assert len(bench.internet.calls) == len(statuses)
    for _, method, path, headers, body in bench.internet.calls:
        assert (method, path) == (provider.verify.method, target)
        assert body == (provider.verify.body or "").encode()
        assert "cookie" not in headers
        assert "referer" not in headers


@each_provider
async def test_a_key_goes_to_the_host_it_was_sealed_for_and_to_no_other(
    bench: Bench, provider: Provider
) -> None:
    """An own address gets the same check below it, or none is made (CVE-2026-21852)."""
    verdict = await bench.verdict(provider.id, f"https://{OWN_HOST}/own/v1")
    if provider.verify.url.startswith(provider.base_url + "/"):
        assert verdict == Verdict(VALID, 200, None)
        assert bench.hosts == {OWN_HOST}
        below = provider.verify.url.removeprefix(provider.base_url)
        assert bench.internet.calls[0][2] == f"/own/v1{below}"
        assert bench.reached == [("main", True)]
    else:
        assert verdict == Verdict(UNKNOWN, None, "no_check")
        assert bench.internet.calls == []
        assert bench.reached == []  # nobody was asked, so nobody failed to answer


async def test_a_server_without_tls_on_this_machine_is_asked_too(bench: Bench) -> None:
    """An owner may seal a key for a model server beside the agent."""
    verdict = await bench.verdict("openai", f"http://127.0.0.1:{bench.internet.plain_port}/v1/")
    assert verdict == Verdict(VALID, 200, None)
    assert bench.internet.calls[0][2] == "/v1/models"


@pytest.mark.parametrize(
    ("provider", "body", "said"),
    [
        ("xai", b'{"api_key_blocked": true}', INVALID),
        ("xai", b'{"api_key_disabled": true}', INVALID),
        ("xai", b'{"team_blocked": true}', INVALID),
        ("xai", b'{"api_key_blocked": false, "name": "made up"}', VALID),
        ("xai", b"<html>", UNKNOWN),
        ("xai", b'{"api_key_blocked": true' + b" " * 70_000 + b"}", UNKNOWN),
        ("cohere", b'{"valid": false}', INVALID),
        ("openai", b'{"api_key_blocked": true}', VALID),
    ],
)
async def test_a_body_has_a_say_only_where_the_provider_documents_it(
    bench: Bench, provider: str, body: bytes, said: Validity
) -> None:
    """A blocked key still gets 200 at xAI; what is no documented body is no good word."""
    bench.internet.answer.body = body
    assert (await bench.verdict(provider)).validity is said


Talk = Callable[[asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def bare(talk: Talk) -> AsyncIterator[str]:
    """Speak bare TCP after each request's head; gives the address of a model server there."""
    busy: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        busy.add(task)
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await reader.readuntil(b"\r\n\r\n")
            await talk(writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        server.close()
        for task in busy:
            task.cancel()
        await asyncio.gather(*busy, return_exceptions=True)
        await server.wait_closed()


def says(*parts: bytes, hangs: bool = False) -> Talk:
    """Write *parts*, and then end, or hang."""

    async def talk(writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
        if hangs:
            await asyncio.Event().wait()

    return talk


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("talk", "reason"),
    [
        (says(), "provider_unreachable"),
        (says(b"HTTP/1.1 2"), "provider_unreachable"),
        (says(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), "provider_unreachable"),
        (says(HEAD + b"X-Long: " + b"x" * 200_000 + b"\r\n\r\n"), "provider_unreachable"),
        (says(HEAD + b"Content-Length: 9\r\n\r\n{"), "provider_unreachable"),
        (says(hangs=True), "provider_timed_out"),
        (says(HEAD, hangs=True), "provider_timed_out"),
        (says(HEAD + b"Content-Length: 9\r\n\r\n{", hangs=True), "provider_timed_out"),
        (says(b"HTTP/1.1 103 Early Hints\r\n\r\n", hangs=True), "provider_timed_out"),
    ],
    ids=[
        "closed at once",
        "half a line",
        "another protocol",
        "endless header",
        "half a body",
        "no answer",
        "half a head",
        "a body that stops",
        "only an interim answer",
    ],
)
async def test_what_is_no_answer_says_nothing(bench: Bench, talk: Talk, reason: str) -> None:
    """Trouble on the way neither takes a key nor refuses it; it is a sign against the provider."""
    async with bare(talk) as address:
        verdict = await bench.verdict("xai", address, within=0.3)
    assert verdict == Verdict(UNKNOWN, None, reason)
    assert bench.reached == [("main", False)]


async def test_an_endless_body_is_not_waited_for(bench: Bench) -> None:
    """A body without a say is not read; one with a say is read to its documented size."""
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"

    async def for_ever(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(chunk)
            await writer.drain()

    async with bare(for_ever) as address, asyncio.timeout(10):
        assert await bench.verdict("openai", address, within=9) == Verdict(VALID, 200, None)
        assert await bench.verdict("xai", address, within=9) == (
            Verdict(UNKNOWN, 200, "undocumented_answer")
        )


async def test_nobody_at_the_address_says_nothing(bench: Bench) -> None:
    """A refused connection, a name that leads nowhere, and one that is no name."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        refused = await bench.verdict("openai", f"http://127.0.0.1:{port}/v1")
    bench.internet.knows = False
    nowhere = await bench.verdict("openai")
    odd = await bench.verdict("openai", f"https://{'x' * 70}.example.org")
    assert {refused, nowhere, odd} == {Verdict(UNKNOWN, None, "provider_unreachable")}
    assert bench.internet.calls == []


async def test_a_certificate_that_is_not_the_providers_ends_it(
    bench: Bench, authority: tuple[Path, Path]
) -> None:
    """Neither an unknown CA, nor another host's name, nor a port without TLS gets the key."""
    other = await bench.verdict("openai", "https://not-in-the-certificate.example.org/v1")
    async with session_to(bench.internet, None) as stranger:
        bench.session = stranger
        unknown_ca = await bench.verdict("openai")
    async with session_to(bench.internet, authority[0]) as trusting:
        bench.session, bench.internet.port = trusting, bench.internet.plain_port
        plain = await bench.verdict("openai")
    assert {other, unknown_ca, plain} == {Verdict(UNKNOWN, None, "provider_unreachable")}
    assert bench.internet.calls == []


async def test_no_log_line_holds_a_word_of_the_call(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """A careless provider repeats the key in its refusal; the log says the verdict alone."""
    bench.internet.answer = Answer(401, f"no such key {KEY}".encode(), {"x-refused-key": KEY})
    caplog.set_level(0)
    with structlog.testing.capture_logs() as said:
        assert (await bench.verdict("xai")).validity is INVALID
    assert [line["event"] for line in said] == ["credential_judged"]
    assert "canary" not in repr(said) + caplog.text


async def test_a_call_that_is_broken_off_leaves_nothing_behind(bench: Bench) -> None:
    """A server that locks itself must not wait for a provider, nor leave the key in a socket."""
    bench.internet.held_up = asyncio.Event()
    held = await bench.hold("openai", api_key("openai"))
    asking = asyncio.create_task(bench.judge().judge(held))
    async with asyncio.timeout(10):
        await bench.internet.called.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await bench.internet.gone.wait()
    assert bench.reached == []


async def test_a_damaged_record_is_no_verdict(bench: Bench, tmp_path: Path) -> None:
    """Nobody is asked about a credential that cannot be read."""
    held = await bench.hold("openai", api_key("openai"))
    [record] = (tmp_path / "vault").iterdir()
    record.write_bytes(b"torn")
    verdict = await bench.judge().judge(held)
    assert verdict.validity is UNKNOWN
    assert verdict.reason is not None
    assert bench.internet.calls == []


REFRESH_TOOK = Verdict(VALID, 200, None)


@dataclass
class Refresher:
    """Stands for the one who refreshes sign-ins: says a verdict, and stores what is new."""

    bench: Bench
    verdict: Verdict = REFRESH_TOOK
    access: str = REFRESHED
    asked: int = 0

    async def __call__(self, held: Held) -> Verdict:
        """Refresh *held*."""
        self.asked += 1
        if self.verdict.validity is VALID:
            await self.bench.hold(held.provider, sign_in(held.provider, access=self.access))
        return self.verdict

    async def judge(self, provider: str, ends: timedelta | None = None) -> Verdict:
        """Judge a sign-in at *provider* with this refresher."""
        held = await self.bench.hold(provider, sign_in(provider, ends=ends))
        return await self.bench.judge(refreshed=self).judge(held)

    @property
    def tokens(self) -> list[str]:
        """The access tokens that calls were made with."""
        sent = [headers["authorization"] for *_, headers, _ in self.bench.internet.calls]
        return [value.removeprefix("Bearer ") for value in sent]


async def test_a_sign_in_that_a_call_can_judge_is_not_refreshed_for_it(bench: Bench) -> None:
    """Each refresh uses a token up; a call does not."""
    refresher = Refresher(bench)
    assert await refresher.judge("anthropic", timedelta(hours=1)) == Verdict(VALID, 200, None)
    assert (refresher.asked, refresher.tokens) == (0, [KEY])
    assert bench.internet.calls[0][3]["anthropic-beta"] == "oauth-2025-04-20"


async def test_an_access_token_that_is_over_is_refreshed_first(bench: Bench) -> None:
    """Its 401 would say nothing of the sign-in."""
    refresher = Refresher(bench)
    assert await refresher.judge("anthropic", timedelta(seconds=-1)) == Verdict(VALID, 200, None)
    assert (refresher.asked, refresher.tokens) == (1, [REFRESHED])


async def test_a_refused_access_token_is_no_refused_sign_in(bench: Bench) -> None:
    """What the refresh says counts; a refreshed token that is refused as well is the end."""
    bench.internet.answer.status = 401
    refresher = Refresher(bench)
    assert await refresher.judge("anthropic") == Verdict(INVALID, 401, None)
    assert (refresher.asked, refresher.tokens) == (1, [KEY, REFRESHED])
    refresher.verdict = Verdict(UNKNOWN, 503, "provider_unreachable")
    assert await refresher.judge("anthropic") == refresher.verdict


async def test_where_no_call_judges_a_sign_in_its_refresh_does(bench: Bench) -> None:
    """`invalid_grant` is the one word that somebody else has used it (RFC 6749 5.2)."""
    refresher = Refresher(bench)
    assert await refresher.judge("openai") == Verdict(VALID, 200, None)
    refresher.verdict = Verdict(INVALID, 400, "invalid_grant")
    assert await refresher.judge("openai") == refresher.verdict
    assert bench.internet.calls == []
    alone = await bench.hold("openai", sign_in("openai"))
    assert await bench.judge().judge(alone) == Verdict(UNKNOWN, None, "no_check")
