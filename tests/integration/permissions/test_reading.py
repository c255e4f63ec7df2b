"""The subject of a read says what may be read; its body must not say something else."""

import json

import pytest

from bus_schemas.flows import Account, Act, Role, flows
from bus_schemas.streams import BANNERS, CONFIG
from tests.integration.permissions.conftest import InUse
from tests.integration.permissions.oracle import EVERYBODY, Person, reached
from tests.integration.permissions.subjects import all_subjects
from tests.integration.permissions.wire import Heard, Sent

MINE, THEIRS = b"this belongs to acme", b"this belongs to globex"
SERVER = Person(Role.SERVER, "acme-1")
SUBSCRIBER = Person(Role.SUBSCRIBER, "acme-sub", "acme")

BODIES: tuple[dict[str, object], ...] = (
    {},
    {"seq": 1},
    {"seq": 1, "batch": 100},
    {"seq": 1, "next_by_subj": ">"},
    {"seq": 1, "next_by_subj": ">", "batch": 100},
    {"last_by_subj": "byok.v1.config.globex-1"},
    {"last_by_subj": "byok.v1.banner.globex.one"},
    {"multi_last": [">"]},
    {"multi_last": ["byok.v1.config.*"], "batch": 100},
    {"batch": 100, "no_wait": True},
    {"batch": 100, "no_wait": True, "group": "x", "min_pending": 0},
    {"subjects_filter": ">", "deleted_details": True},
)


@pytest.fixture(scope="module", autouse=True)
def _stored(in_use: InUse) -> None:
    """Both have a document, a sealing and a banner."""
    core = in_use.unbound(Account.CORE, "core")
    for words, server, owner in ((MINE, "acme-1", "acme"), (THEIRS, "globex-1", "globex")):
        subjects = (
            f"byok.v1.config.{server}",
            f"byok.v1.sealed.{server}.one",
            f"byok.v1.banner.{owner}.one",
        )
        assert all("seq" in a.answer for a in core.answers(*(Sent(s, words) for s in subjects)))


def told(in_use: InUse, who: Person, subject: str, body: bytes) -> list[Heard]:
    """Return all that *who* hears when it asks, up to the first answer that ends it."""
    wire, inbox = in_use.wire(who), f"_INBOX.{who.name}.asked"
    wire.listen(f"_INBOX.{who.name}.>")
    wire.send(Sent(subject, body, reply=inbox))
    heard = wire.until_heard(1)
    while heard[-1].header("Nats-Num-Pending") not in {None, "0"}:
        heard += wire.until_heard(1)
    return heard


def words(body: dict[str, object], subject: str) -> bytes:
    """Return *body* as JSON, so that a pull is answered at once although there is nothing."""
    return json.dumps(body | ({"no_wait": True} if ".MSG.NEXT." in subject else {})).encode()


@pytest.mark.parametrize("body", BODIES, ids=json.dumps)
@pytest.mark.parametrize("who", [SERVER, SUBSCRIBER], ids=lambda who: who.role.value)
def test_no_body_makes_a_read_wider_than_its_subject(
    in_use: InUse, who: Person, body: dict[str, object]
) -> None:
    """Direct gets, pulls and info: whatever is asked for in words, the neighbour's is not told."""
    asked = [s for s in all_subjects() if reached(who, s) and s.startswith("$JS.")]
    reads = [subject for subject in asked if not subject.startswith("$JS.ACK.")]
    heard = [m for s in reads for m in told(in_use, who, s, words(body, s))]
    assert len(heard) >= len(reads)
    assert not [m for m in heard if THEIRS in m.body or b"globex" in m.body + m.headers]


def test_without_a_body_both_read_their_own(in_use: InUse) -> None:
    """The test above is able to fail: on the same subjects their own is told."""
    document = f"$JS.API.DIRECT.GET.{CONFIG.name}.byok.v1.config.acme-1"
    banner = f"$JS.CORE.API.DIRECT.GET.{BANNERS.name}.byok.v1.banner.acme.one"
    assert told(in_use, SERVER, document, b"")[0].body == MINE
    assert told(in_use, SUBSCRIBER, banner, b"")[0].body == MINE


@pytest.mark.parametrize("last", ["*", ">", "one.>", "o*", "%", "*.*"])
def test_a_wildcard_in_a_read_widens_nothing(in_use: InUse, last: str) -> None:
    """A name that is a wildcard is taken for the sender's own at most."""
    asked = {
        SERVER: f"$JS.API.DIRECT.GET.{CONFIG.name}.byok.v1.sealed.acme-1.{last}",
        SUBSCRIBER: f"$JS.CORE.API.DIRECT.GET.{BANNERS.name}.byok.v1.banner.acme.{last}",
    }
    for who, subject in asked.items():
        wire = in_use.wire(who)
        if not wire.refused([Sent(subject)]):
            assert all(m.body in {b"", MINE} for m in told(in_use, who, subject, b""))
    above = f"$JS.API.DIRECT.GET.{CONFIG.name}.byok.v1.sealed.{last}"
    assert in_use.wire(SERVER).refused([Sent(above)]) == {above}


def test_an_acknowledgement_touches_ones_own_durable_only(in_use: InUse) -> None:
    """The neighbour's delivery is neither acknowledged, ended nor taken, in whatever words."""
    globex = in_use.wire(Person(Role.SUBSCRIBER, "globex-sub", "globex"))
    pull = f"$JS.CORE.API.CONSUMER.MSG.NEXT.{BANNERS.name}.globex-sub"
    globex.listen("_INBOX.globex-sub.>")
    globex.send(Sent(pull, b'{"batch": 1}', reply="_INBOX.globex-sub.x"))
    [delivery] = globex.until_heard(1)
    assert delivery.body == THEIRS
    for words in (b"", b"+ACK", b"-NAK", b"+TERM", b"+WPI", b'+NXT {"batch": 10}'):
        wire = in_use.wire(SUBSCRIBER)
        assert wire.refused([Sent(delivery.reply, words)]) == {delivery.reply}
    [info] = globex.answers(Sent(f"$JS.CORE.API.CONSUMER.INFO.{BANNERS.name}.globex-sub"))
    assert info.answer["num_ack_pending"] == 1
    [acknowledged] = globex.answers(Sent(delivery.reply, b"+ACK"))
    assert acknowledged.status == ""


def test_nobody_outside_the_core_sees_a_stream_that_servers_are_told_by() -> None:
    """Sealings and documents are read one by one, each by its server; nobody reads them all."""
    whole = {f.role for f in flows() if f.act is Act.READ_STREAM and f.stream is CONFIG}
    assert whole == set()
    assert {who.role for who in EVERYBODY if reached(who, "$JS.API.STREAM.INFO.BYOK_CONFIG")} == {
        Role.SETUP
    }
