"""Laundering: an answer goes wherever its asker says, and nats-server never checks that place.

So whoever is outside the core asks everything it may, with every subject there is as the place
for the answer. Nothing may be stored but what was said openly, and in the core nobody may hear
what was not said to him.
"""

import asyncio
import json
import time
from functools import cache
from pathlib import Path

import pytest

from bus_schemas.codec import encode
from bus_schemas.errors import Refused
from bus_schemas.events import RatchetAdvanced
from bus_schemas.flows import Account, Act, Role, flows
from bus_schemas.streams import RATCHET, STREAMS
from bus_schemas.transport.fresh import fresh
from platform_handlers.authority.role_bus import role_bus
from platform_handlers.evaluator.app import read_secrets
from platform_handlers.evaluator.ratchet import Ratchets
from platform_handlers.evaluator.rules import Circumstances
from platform_handlers.evaluator.servers import ServerStore
from tests.integration.permissions.conftest import InUse
from tests.integration.permissions.holdings import holdings
from tests.integration.permissions.oracle import (
    EVERYBODY,
    Person,
    covers,
    crosses,
    hears,
    reached,
)
from tests.integration.permissions.subjects import all_subjects, of_jetstream, of_the_system
from tests.integration.permissions.wire import Heard, Sent, Wire

SUBJECTS = all_subjects()
_API = set(of_jetstream())
CHEAP = [s for s in SUBJECTS if s not in _API or (s.startswith("$JS.API.") and "_CONFIG" in s)]
"""Where all answers are sent; those to one question that stores nothing go everywhere."""

OWN_WORDS = ("_R_.", "$JS.EVENT.", "byok.v1.stored.")
"""Subjects on which nats-server itself speaks in the core."""
OUTSIDE = [who for who in EVERYBODY if who.account is not Account.CORE]
by_role = pytest.mark.parametrize("who", OUTSIDE, ids=lambda who: who.role.value)


@cache
def asked(who: Person) -> list[str]:
    """Return what *who* may say."""
    return [subject for subject in SUBJECTS if reached(who, subject)]


@cache
def is_stored(subject: str) -> bool:
    """Whether a stream keeps what is said there."""
    kept = [flow.subject.wildcard for flow in flows() if flow.act is Act.STORE]
    return any(covers(wanted, subject) for wanted in kept)


def body_of(subject: str) -> bytes:
    """Return words on which an answer comes at once."""
    if ".MSG.NEXT." in subject:
        return b'{"batch": 1, "no_wait": true}'
    return b"{}" if is_stored(subject) else b""


def attempts(who: Person) -> list[Sent]:
    """Return everything that *who* may say, with every place for the answer."""
    questions = [subject for subject in asked(who) if not subject.startswith("$JS.ACK.")]
    everywhere = next((q for q in questions if not is_stored(q)), "")
    return [
        Sent(question, body_of(question), reply=reply)
        for question in questions
        for reply in (SUBJECTS if question == everywhere else CHEAP)
    ]


@cache
def openings(account: Account) -> set[str]:
    """Return where in the core an answer may wander: imports of *account* without a wildcard."""
    mine = (who for who in EVERYBODY if who.account is account)
    exact = (s for who in mine for s in asked(who) if s.startswith("$JS.") and "*" not in s)
    streams = {flow.stream.name for flow in flows() if flow.stream}
    return {s.replace("CORE.API", "API") for s in exact if s.split(".")[-1] in streams}


class Core:
    """Hears all of the core, and answers there what nobody else does."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self._asks = [f.subject.wildcard for f in flows() if f.act is Act.ASK]
        wire.listen(">")

    def settled(self, sent: int) -> list[Heard]:
        """Return all that was heard, once each of *sent* questions has its answer."""
        questions: dict[str, Heard] = {}
        answered: set[str] = set()
        heard: list[Heard] = []
        while len(questions) < sent or not answered.issuperset(questions):
            for message in self.wire.until_heard(1):
                heard.append(message)
                if message.subject.startswith("_R_."):
                    answered.add(message.subject)
                elif message.reply:
                    questions[message.reply] = message
                    if any(covers(wanted, message.subject) for wanted in self._asks):
                        self.wire.say(Sent(message.reply, b"answer").protocol())
        return [*heard, *self.wire.take_heard()]


@by_role
def test_an_answer_is_stored_nowhere_and_wanders_nowhere(in_use: InUse, who: Person) -> None:
    """All streams hold what they held and what was openly said; no handler hears an answer."""
    core = Core(in_use.unbound(Account.CORE, "core"))
    messages = attempts(who)
    before = holdings(core.wire)
    core.wire.take_heard()
    refused = in_use.wire(who).refused(messages)  # nats-server keeps some places for itself
    through = [message for message in messages if message.reply not in refused]
    heard = core.settled(len(through))
    said = {reached(who, subject) for subject in asked(who)}
    wandered = {m.subject for m in heard if not m.subject.startswith(OWN_WORDS)} - said
    assert wandered <= openings(who.account)
    added = holdings(core.wire) - before
    own = {(stream, subject) for stream, subject in added if subject in asked(who)}
    assert set(added) == own
    assert refused <= {s for s in SUBJECTS if s.startswith(("$JS.ACK.", "_R_", "_GR_", "$GR"))}


def test_what_wanders_brings_neither_a_question_nor_a_place_for_an_answer(in_use: InUse) -> None:
    """A reader's answer may reach a stream's open import, and there it asks for nothing."""
    core = in_use.unbound(Account.CORE, "core")
    who = next(who for who in OUTSIDE if who.role is Role.SUBSCRIBER)
    places = {s: to for s in SUBJECTS if (to := crosses(who.account, s)) in openings(who.account)}
    question = next(s for s in asked(who) if ".DIRECT.GET." in s)
    for opening in places.values():
        core.listen(opening)
    in_use.wire(who).send(*(Sent(question, reply=place) for place in places))
    wandered = core.until_heard(len(places))
    assert sorted(message.subject for message in wandered) == sorted(places.values())
    assert {(message.reply, message.body) for message in wandered} == {("", b"")}


def test_no_import_of_the_fleet_is_without_a_wildcard() -> None:
    """An answer would wander into such a one; with a wildcard its own name stands in the way."""
    fleet = [flow for flow in flows() if flow.role.account is Account.FLEET]
    assert all("*" in flow.subject.wildcard for flow in fleet)
    assert openings(Account.FLEET) == set()


@by_role
def test_a_neighbour_hears_an_answer_only_where_it_listens_itself(
    in_use: InUse, who: Person
) -> None:
    """In one account an answer reaches a known inbox or a nudge, and it is still an answer.

    Inboxes are not known: nats-py makes them of 22 random characters. What a server makes of a
    forged nudge, `test_forged_nudges` shows.
    """
    neighbours = {
        Account.FLEET: Person(Role.SERVER, "globex-1"),
        Account.READERS: Person(Role.SUBSCRIBER, "globex-sub", "globex"),
    }
    neighbour = neighbours[who.account]
    victim, core = in_use.wire(neighbour), Core(in_use.unbound(Account.CORE, "core"))
    places = [s for s in SUBJECTS if hears(neighbour, s)]
    for place in places:
        victim.listen(place)
    core.wire.take_heard()
    question = next(s for s in asked(who) if not s.startswith("$JS.ACK."))
    victim.take_heard()
    in_use.wire(who).send(*(Sent(question, reply=place) for place in CHEAP if place in places))
    core.settled(len(places))
    heard = victim.take_heard()
    assert sorted(message.subject for message in heard) == sorted(places)
    assert all(not message.reply for message in heard)


def test_within_the_core_an_answer_is_stored_wherever_its_asker_says(
    in_use: InUse, tmp_path: Path
) -> None:
    """A limit: why servers and readers have accounts of their own, and states a MAC (ADR-23).

    A handler that is taken over gets bytes of its choosing onto every subject of the core: it
    stores them where it may, and has them read back to where it may not. The evaluator does not
    take such a state for its own; `test_forged_ratchets` plays it to the end.
    """
    core, handler = in_use.unbound(Account.CORE, "core"), Person(Role.HEALTH, "health")
    forged = RatchetAdvanced(server_id="laundered-1", committed=1, mac=bytes(32))
    wire, place, words = in_use.wire(handler), forged.subject, encode(fresh(forged))
    own = next(s for s in of_the_system() if is_stored(s) and reached(handler, s))
    assert reached(handler, place) is None
    [stored] = wire.answers(Sent(own, words))
    stream = next(stream for stream in STREAMS if stream.name == stored.answer["stream"])
    where = json.dumps({"seq": stored.answer["seq"]}).encode()
    core.listen(place)
    wire.send(Sent(f"$JS.API.DIRECT.GET.{stream.name}", where, reply=place))
    [laundered] = core.until_heard(1)
    assert laundered.body == words
    deadline = time.monotonic() + 5
    while (RATCHET.name, place) not in holdings(core):
        assert time.monotonic() < deadline
    with pytest.raises(Refused, match="ratchet_forged"):
        asyncio.run(_as_the_evaluator_reads_it(in_use, forged.server_id, tmp_path / "state.db"))


async def _as_the_evaluator_reads_it(in_use: InUse, server_id: str, memory: Path) -> None:
    servers = await ServerStore.open(memory)
    bus = await role_bus(in_use.installation, in_use.server.target, Role.EVALUATOR).open()
    try:
        key = read_secrets(in_use.installation).ratchet_key
        await Ratchets(bus, key, servers).read(server_id, Circumstances(now=int(time.time())))
    finally:
        await bus.close()
        await servers.close()
