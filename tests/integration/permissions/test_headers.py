"""Every header by which nats-server can be told something, sent by a server to its own stream.

Each is refused or changes nothing but the sender's own message. What servers tell the ledger goes
through the intake, which passes no header on; what is tried here is stored by nats-server itself.
"""

import asyncio
import json
import re
from pathlib import Path

import pytest

from bus_schemas.codec import encode
from bus_schemas.events import FingerprintRenewed
from bus_schemas.flows import Account, Act, Role, flows
from bus_schemas.ids import derived_id
from bus_schemas.requests import ENROL
from bus_schemas.streams import LEDGER, STREAMS, Stream, stream_of
from bus_schemas.transport.fresh import fresh
from bus_schemas.transport.jetstream import read_batch
from platform_handlers.authority.nats_process import binary
from platform_handlers.authority.role_bus import role_bus
from platform_handlers.intake.handler import Intake
from tests.integration.permissions.conftest import InUse
from tests.integration.permissions.holdings import holdings
from tests.integration.permissions.oracle import Person
from tests.integration.permissions.wire import Heard, Sent, Wire

EVIL, HONEST = Person(Role.SERVER, "acme-1"), Person(Role.SERVER, "globex-1")
[STORED] = [f.subject for f in flows() if (f.role, f.act) == (Role.SERVER, Act.STORE)]
"""The one subject on which a server publishes straight into a stream."""
OWN, THEIRS = (STORED.fill({"server_id": who.name}) for who in (EVIL, HONEST))
STREAM = stream_of(STORED.wildcard)
THEIR_ID = "0193-globex-has-sent-this"

_EXPECTED = "Nats-Expected-Last-Subject-Sequence"
_SCHEDULE = "Nats-Schedule: @every 1s"
_REQUEST_INFO = 'Nats-Request-Info: {"acc": "A", "host": "192.0.2.7", "reply": "byok.v1.epoch"}'

REFUSED: tuple[tuple[str, ...], ...] = (
    ("Nats-Rollup: all",),
    ("Nats-Rollup: sub",),
    ("Nats-TTL: 1s",),
    ("Nats-TTL: never",),
    (_SCHEDULE,),
    (_SCHEDULE, f"Nats-Schedule-Target: {THEIRS}"),
    (_SCHEDULE, f"Nats-Schedule-Target: {THEIRS}", f"Nats-Schedule-Source: {THEIRS}"),
    (_SCHEDULE, f"Nats-Schedule-Target: {OWN}", "Nats-Schedule-TTL: 1s"),
    (_SCHEDULE, f"Nats-Schedule-Target: {OWN}", "Nats-Schedule-Rollup: all"),
    (_SCHEDULE, f"Nats-Schedule-Target: {OWN}", "Nats-Schedule-Time-Zone: UTC"),
    ("Nats-Expected-Stream: BYOK_CONFIG",),
    ("Nats-Expected-Last-Sequence: 99999",),
    ("Nats-Expected-Last-Msg-Id: nobody-knows",),
    (f"{_EXPECTED}: 99999",),
    (f"{_EXPECTED}: 99999", f"{_EXPECTED}-Subject: {THEIRS}"),
    ("Nats-Batch-Id: b", "Nats-Batch-Sequence: 1"),
    ("Nats-Batch-Id: b", "Nats-Batch-Sequence: 1", "Nats-Batch-Commit: 1"),
    ("Nats-Incr: +1",),
    ("Nats-Stream-Source: BYOK_LEDGER 99999 > > >",),
    (f"Nats-Trace-Dest: {THEIRS}",),
    ("Nats-Trace-Dest: byok.v1.config.globex-1",),
    ("Nats-Trace-Dest: _INBOX.globex-1.x",),
    ("Nats-Trace-Dest: _INBOX.acme-1.x", "Nats-Trace-Only: true"),
)
HARMLESS: tuple[tuple[str, ...], ...] = (
    (f"Nats-Msg-Id: {THEIR_ID}",),
    (f"Nats-Msg-Id: {'x' * 3000}",),
    (f"{_EXPECTED}-Subject: {THEIRS}",),
    (f"Nats-Schedule-Target: {THEIRS}",),
    ("Nats-Scheduler: x", "Nats-Schedule-Next: purge"),
    ("Nats-Batch-Sequence: 1", "Nats-Batch-Commit: 1"),
    ('Nats-Counter-Sources: {"BYOK_HEALTH":{"x":"1"}}',),
    ("Nats-Marker-Reason: Purge",),
    ("Nats-Marker-Reason: MaxAge",),
    ("Nats-Marker-Reason: Remove",),
    ("Nats-Stream: BYOK_LEDGER", "Nats-Stream-Identity: x"),
    ("Nats-Sequence: 1", "Nats-Last-Sequence: 99999", f"Nats-Subject: {THEIRS}"),
    ("Nats-Time-Stamp: 1999-01-01T00:00:00Z",),
    ("Nats-Num-Pending: 0", "Nats-UpTo-Sequence: 99999"),
    ("Nats-Last-Consumer: 1", "Nats-Last-Stream: 1", "Nats-Consumer-Stalled: x"),
    ("Nats-Pending-Messages: 0", "Nats-Pending-Bytes: 0", "Nats-Msg-Size: 1"),
    ("Nats-Response-Type: x", "Nats-Pin-Id: x", "Nats-Wrong-Pin-Id: x"),
    ("Nats-Required-Api-Level: 99", "Nats-Server-Xkey: x", "Nats-No-Masking: true"),
    ("Nats-Trace-Dest: byok.v1.epoch", "Nats-Trace-Hop: 1", "Nats-Trace-Origin-Account: A"),
    ("Status: 204", "Description: EOB"),
    (_REQUEST_INFO,),
)
"""Stored with the sender's own message, or a message that is not stored at all."""

OF_A_STORED_FACT = {
    b"Nats-Msg-Id",  # these two are the intake's own
    b"Content-Type",
    b"Nats-Stream",  # and the stream adds these when it is read
    b"Nats-Subject",
    b"Nats-Sequence",
    b"Nats-Time-Stamp",
}


def first_words(headers: tuple[str, ...]) -> str:
    """Return a name for a test."""
    return " ".join(headers).replace("Nats-", "").replace(THEIRS, "theirs")[:90]


def say(wire: Wire, headers: tuple[str, ...]) -> Heard | None:
    """Send one message with *headers* and return the stream's answer; None: refused at the door."""
    name = f"_INBOX.{wire.name}.said"
    wire.listen(name)
    wire.heard.clear()
    if wire.refused([Sent(OWN, b"{}", reply=name, headers=headers)]):
        return None
    return wire.until_heard(1)[0]


@pytest.fixture
def evil(in_use: InUse) -> Wire:
    """A server that belongs to its owner, not to us."""
    return in_use.wire(EVIL)


@pytest.fixture
def core(in_use: InUse) -> Wire:
    """Somebody who sees it all, once the honest neighbour has told something."""
    [told] = in_use.wire(HONEST).answers(
        Sent(THEIRS, b"honest", headers=(f"Nats-Msg-Id: {THEIR_ID}",))
    )
    assert told.answer["stream"] == STREAM.name
    return in_use.unbound(Account.CORE, "core")


def last_on(core: Wire, subject: str) -> tuple[str | None, bytes]:
    """Return sequence and body of the last message on *subject*."""
    [found] = core.answers(Sent(f"$JS.API.DIRECT.GET.{STREAM.name}.{subject}"))
    return found.header("Nats-Sequence"), found.body


@pytest.mark.parametrize("headers", [*REFUSED, *HARMLESS], ids=first_words)
def test_no_header_changes_anything_but_the_senders_own_message(
    evil: Wire, core: Wire, headers: tuple[str, ...]
) -> None:
    """Nobody's message is gone, moved or replaced, and no stream holds more than was said."""
    before, theirs, mine = holdings(core), last_on(core, THEIRS), last_on(core, OWN)
    answer = say(evil, headers)
    assert last_on(core, THEIRS) == theirs
    if headers in REFUSED:
        assert answer is None or "error" in answer.answer
        assert last_on(core, OWN) == mine
    after = holdings(core)
    after.pop((STREAM.name, OWN), None)
    before.pop((STREAM.name, OWN), None)
    assert after == before


class StartedOnce:
    """Knows servers that no evaluator has seen (`Starts`)."""

    async def newest(self, server_id: str) -> int:
        """Return 1 for the one that speaks here."""
        return {EVIL.name: 1}[server_id]


async def test_no_header_gets_into_the_ledger(in_use: InUse, evil: Wire, core: Wire) -> None:
    """The intake stores a server's fact with words of its own, whatever came along with it."""
    bus = await role_bus(in_use.installation, in_use.server.target, Role.INTAKE).open()
    try:
        await Intake(bus, StartedOnce()).listen()
        for n, headers in enumerate((*REFUSED, *HARMLESS), start=1):
            fact = FingerprintRenewed(server_id=EVIL.name, incarnation=1, n=n, held=())
            sent = Sent(fact.subject, encode(fresh(fact)), headers=headers)
            if any(line.startswith("Nats-Trace-Dest") for line in headers):
                continue  # not let in at all, as shown above
            [answer] = await asyncio.to_thread(evil.answers, sent)
            assert answer.answer["stream"] == LEDGER.name, (headers, answer)
            [stored] = await asyncio.to_thread(
                core.answers,
                Sent(f"$JS.API.DIRECT.GET.{LEDGER.name}.{fact.subject}"),
            )
            assert stored.body == sent.body
            names = set(re.findall(rb"(?m)^([^:\r\n]+): ", stored.headers))
            assert names == OF_A_STORED_FACT
    finally:
        await bus.close()


def test_readers_go_on_behind_all_of_them(in_use: InUse, evil: Wire, core: Wire) -> None:
    """Whatever was stored is read in order, by the one who reads it all."""
    for headers in HARMLESS:
        say(evil, headers)
    last_on(core, OWN)

    async def read() -> list[str]:
        bus = await role_bus(in_use.installation, in_use.server.target, Role.HEALTH).open()
        try:
            return [message.subject for message in await read_batch(bus, STREAM.name, 1, 500)]
        finally:
            await bus.close()

    assert set(asyncio.run(read())) >= {OWN, THEIRS}


@pytest.mark.parametrize("stream", [s for s in STREAMS if s is not STREAM], ids=lambda s: s.name)
def test_an_id_that_the_platform_will_use_is_not_used_up(
    evil: Wire, core: Wire, stream: Stream
) -> None:
    """An id that can be foretold is one of a stream that no server publishes to."""
    foretold = (f"Nats-Msg-Id: {derived_id('acme-1_main_key-rejected', '0193')}",)
    assert say(evil, foretold) is not None
    place = stream.arrivals[0].replace("*", "one")
    [answer] = core.answers(Sent(place, b"{}", headers=foretold))
    assert answer.answer["stream"] == stream.name
    assert "duplicate" not in answer.answer


def test_what_a_server_learns_of_a_neighbour_is_a_number(evil: Wire, core: Wire) -> None:
    """A limit: a failed compare-and-set on any subject of the stream tells its last sequence.

    So a server can find out whether an id exists and when it last told of its health; nothing that
    it told. JetStream has no way to forbid the header.
    """
    asked = (f"{_EXPECTED}: 99999", f"{_EXPECTED}-Subject: {THEIRS}")
    answer = say(evil, asked)
    assert answer is not None
    assert set(answer.answer) == {"error", "stream", "seq"}
    assert re.fullmatch(r"wrong last sequence: \d+", answer.answer["error"]["description"])


@pytest.mark.parametrize(
    "forged",
    [
        (),
        (_REQUEST_INFO,),
        (_REQUEST_INFO, _REQUEST_INFO),
        (_REQUEST_INFO.replace("Nats-Request-Info", "nats-request-info"),),
        (_REQUEST_INFO.replace(":", " :", 1),),
        (f"A: {_REQUEST_INFO}",),
    ],
)
def test_nobody_forges_where_a_join_token_is_used(in_use: InUse, forged: tuple[str, ...]) -> None:
    """The address that `byok server show` tells is the one that nats-server saw."""
    joiner = in_use.wire(Person(Role.ENROLLING, "join-one"))
    issuer = in_use.wire(Person(Role.ISSUER, "issuer"))
    issuer.listen(ENROL.wildcard)
    subject = ENROL.fill({"joiner": "join-one"})
    joiner.send(Sent(subject, b"{}", reply="_INBOX.join-one.x", headers=forged))
    [request] = issuer.until_heard(1)
    infos = re.findall(rb"(?mi)^Nats-Request-Info ?: ?(.*?)\r$", request.headers)
    real = [json.loads(info)["host"] for info in infos if b"192.0.2.7" not in info]
    assert real == ["127.0.0.1"]


def test_no_header_of_this_nats_server_is_forgotten() -> None:
    """Read from the program itself: after an upgrade a new one fails here first."""
    program = Path(binary()).read_bytes()
    named = {m[0].decode() for m in re.finditer(rb"Nats(-(?!Nats)[A-Z][A-Za-z]+)+", program)}
    tried = {line.partition(":")[0] for headers in (*REFUSED, *HARMLESS) for line in headers}
    # Go keeps its texts end to end, so what follows a name may belong to the next one.
    forgotten = {
        name
        for name in named
        if not any(name.startswith(one) or one.startswith(name) for one in tried)
    }
    assert len(named) > 30
    assert forgotten == set()
