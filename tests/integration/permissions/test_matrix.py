"""The permission matrix: everybody tries everything, on the real server, with real tokens.

Who may do what is asked of the flow table by matching (`oracle`), not of the code that makes the
tokens. Allowed means that a tap on the whole core heard exactly that message on exactly that
subject; refused means that nats-server said so, for exactly that subject, and the tap heard none.
"""

import re
from pathlib import Path

import pytest

from bus_schemas.flows import Account, Act, Role, flows
from bus_schemas.streams import stream_of
from platform_handlers.authority.nats_process import binary
from tests.integration.permissions.conftest import InUse
from tests.integration.permissions.oracle import EVERYBODY, Person, covers, crosses, hears, reached
from tests.integration.permissions.subjects import (
    CONSUMER_VERBS,
    OTHER_VERBS,
    STREAM_VERBS,
    all_filters,
    all_subjects,
    filled,
    of_the_system,
    templates,
)
from tests.integration.permissions.wire import Sent, Wire

SUBJECTS, FILTERS = all_subjects(), all_filters()
by_role = pytest.mark.parametrize("who", EVERYBODY, ids=lambda who: who.role.value)
outside = pytest.mark.parametrize("account", [Account.FLEET, Account.READERS])


@pytest.fixture(scope="module")
def tap(in_use: InUse) -> Wire:
    """Somebody in the core who hears everything that arrives there."""
    wire = in_use.unbound(Account.CORE, "tap")
    wire.listen(">")
    return wire


def arrived(tap: Wire) -> set[tuple[str, str]]:
    """Return what the tap heard of the probes: what was said, and where it arrived."""
    heard = [(message.header("Probe"), message) for message in tap.take_heard()]
    # A direct get hands a stored probe out again, as an answer.
    return {(p, m.subject) for p, m in heard if p and not m.header("Nats-Sequence")}


def spoken(wire: Wire) -> set[str]:
    """Return where *wire* heard somebody, but not what a stream told of it afterwards."""
    return {m.subject for m in wire.take_heard() if not m.header("Nats-Sequence")}


def probes(subjects: list[str]) -> list[Sent]:
    """Return a message for each subject that says where it was meant to go."""
    return [Sent(subject, headers=(f"Probe: {subject}",)) for subject in subjects]


@by_role
def test_everybody_publishes_what_the_table_says_and_nothing_else(
    in_use: InUse, tap: Wire, who: Person
) -> None:
    """Every subject of ours and of JetStream, own and neighbour's: it arrives, or is refused."""
    expected = {(s, there) for s in SUBJECTS if (there := reached(who, s))}
    arrived(tap)
    refused = in_use.wire(who).refused(probes(SUBJECTS))
    assert arrived(tap) == expected
    assert refused == set(SUBJECTS) - {subject for subject, _ in expected}


@by_role
@pytest.mark.parametrize("queue", ["", "q"])
def test_everybody_listens_where_the_table_says_and_nowhere_else(
    in_use: InUse, who: Person, queue: str
) -> None:
    """Every subject and everything wider, alone and in a queue group."""
    refused = in_use.wire(who).refused_subscriptions(FILTERS, queue)
    assert refused == {wanted for wanted in FILTERS if not hears(who, wanted)}


@by_role
def test_what_is_stored_is_acknowledged_by_its_own_stream(in_use: InUse, who: Person) -> None:
    """An allowed message not only arrives: the stream that the catalogue names has it."""
    stores = [f.subject for f in flows() if (f.role, f.act) == (who.role, Act.STORE)]
    mine = [(s, t) for t in stores for s in filled(t) if reached(who, s)]
    answers = in_use.wire(who).answers(*(Sent(subject, b"{}") for subject, _ in mine))
    kept_by = [answer.answer["stream"] for answer in answers]
    assert kept_by == [stream_of(template.wildcard).name for _, template in mine]


@outside
def test_an_account_reaches_the_core_by_its_imports_only(
    in_use: InUse, tap: Wire, account: Account
) -> None:
    """Even a user whom no template holds back: the second wall stands by itself."""
    arrived(tap)
    wire = in_use.unbound(account, "unbound")
    wire.refused(probes(SUBJECTS))
    assert arrived(tap) == {(s, there) for s in SUBJECTS if (there := crosses(account, s))}


@outside
def test_an_account_hears_of_the_core_what_its_roles_are_nudged_by(
    in_use: InUse, account: Account
) -> None:
    """A listener on everything, whom no template holds back, hears the imported subjects only."""
    listener, speaker = in_use.unbound(account, "ear"), in_use.unbound(Account.CORE, "mouth")
    listener.listen(">")
    listener.take_heard()
    speaker.refused(probes(SUBJECTS))
    nudges = [f.subject for f in flows() if f.act is Act.NUDGE and f.role.account is account]
    expected = {s for s in SUBJECTS if any(covers(nudge.wildcard, s) for nudge in nudges)}
    assert spoken(listener) == expected


@by_role
def test_everybody_hears_its_own_and_not_its_neighbours(in_use: InUse, who: Person) -> None:
    """Subscribed to all it may, one hears what its subjects say, when the core says everything."""
    wire, speaker = in_use.wire(who), in_use.unbound(Account.CORE, "mouth")
    nudges = [f for f in flows() if f.role is who.role and f.act in {Act.NUDGE, Act.ANSWER}]
    mine = {flow.subject.rewrite(**who.own) for flow in nudges}
    for subject in mine:
        wire.listen(subject)
    speaker.refused(probes(of_the_system()))
    heard = spoken(wire)
    crossing = {f.subject.wildcard for f in nudges if who.account is Account.CORE or f.stream}
    expected = {
        subject
        for subject in of_the_system()
        if any(covers(wanted, subject) for wanted in mine)
        and any(covers(wanted, subject) for wanted in crossing)
    }
    assert heard == expected


ASKED = [flow for flow in flows() if flow.act is Act.ASK]


@pytest.mark.parametrize("flow", ASKED, ids=lambda f: f"{f.role.value}-{f.subject.pattern}")
def test_a_request_reaches_the_one_who_answers_and_is_answered_once(
    in_use: InUse, flow: object
) -> None:
    """Asked by the table's asker, answered by its answerer, who may then say no more."""
    asking = next(f for f in ASKED if f is flow)
    answering = next(
        f for f in flows() if f.act is Act.ANSWER and f.subject.wildcard == asking.subject.wildcard
    )
    person = next(who for who in EVERYBODY if who.role is asking.role)
    asker, answerer = in_use.wire(person), in_use.wire(Person(answering.role, answering.role))
    answerer.listen(answering.subject.wildcard)
    subject = next(s for s in filled(asking.subject) if reached(person, s))
    inbox = f"_INBOX.{person.name}.answer"
    asker.listen(inbox)
    asker.send(Sent(subject, b"question", reply=inbox))
    [question] = answerer.until_heard(1)
    assert answerer.refused([Sent(question.reply, b"first")]) == set()
    assert answerer.refused([Sent(question.reply, b"second")]) == {question.reply}
    assert [message.body for message in asker.until_heard(1)] == [b"first"]


def test_a_star_at_the_end_of_a_permission_is_as_good_as_the_rest_of_the_subject() -> None:
    """nats-server lets `a.>` pass for `a.*`; so nothing of ours may lie below what one may hear."""
    for template in templates():
        deeper = template.wildcard.removesuffix("*") + "*.>"
        assert not [subject for subject in of_the_system() if covers(deeper, subject)]


def test_every_subject_of_the_system_is_tried() -> None:
    """A new event, request or stream takes part in the matrix without anybody thinking of it."""
    tried = [template.wildcard for template in templates()]
    for flow in flows():
        assert flow.subject.pattern == ">" or flow.subject.wildcard in tried
    for wanted in tried:
        assert len([s for s in SUBJECTS if covers(wanted, s)]) >= (2 if "*" in wanted else 1)
    assert {who.role for who in EVERYBODY} == set(Role)


def test_no_verb_of_this_nats_server_is_forgotten() -> None:
    """Read from the program itself: after an upgrade a new verb fails here first."""
    program = Path(binary()).read_bytes()
    named = {m[1].decode() for m in re.finditer(rb"\$JS\.API\.([A-Z]{3}[A-Z_.]*)", program)}
    known = (
        *OTHER_VERBS,
        *(f"STREAM.{verb}" for verb in STREAM_VERBS),
        *(f"CONSUMER.{verb}" for verb in (*CONSUMER_VERBS, "LIST", "NAMES")),
        "DIRECT.GET",
    )
    whole = ("STREAM.", "CONSUMER.", "ACCOUNT.", "META.", "SERVER.", "DIRECT.")
    # Go keeps its texts end to end, so what follows a verb may belong to the next one.
    forgotten = {
        verb
        for verb in named
        if verb not in whole
        and not any(verb.startswith(one.rstrip(".")) for one in known)
        and not any(one.startswith(verb.rstrip(".")) for one in known)
    }
    assert len(named) > 30
    assert forgotten == set()
