"""What the flow table lets each role do, and above all what it does not."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus_schemas.catalog import catalog
from bus_schemas.errors import Refused
from bus_schemas.event import Writer
from bus_schemas.flows import WRITERS, Account, Act, Role, flows
from bus_schemas.streams import STREAMS, stream_of
from platform_handlers.authority.claims import UserPlan
from platform_handlers.authority.permissions import crossings, needs, permissions

FLEET = [role for role in Role if role.account is Account.FLEET]
IDS = st.from_regex(r"[a-z0-9-]{1,63}", fullmatch=True)
SERVERS_SAY = [event for event in catalog().values() if event.writer is Writer.SERVER]
SERVER_WRITES = sorted({event.template.pattern for event in SERVERS_SAY})


def matches(subject_filter: str, subject: str) -> bool:
    """Whether NATS lets *subject_filter* stand for *subject*, which may hold wildcards itself."""
    wanted, given_ = subject_filter.split("."), subject.split(".")
    for position, token in enumerate(wanted):
        if token == ">":
            return len(given_) > position
        if position >= len(given_) or (token != "*" and token != given_[position]):
            return False
        if token == "*" and given_[position] == ">":
            return False
    return len(wanted) == len(given_)


def allowed(role: Role, name: str) -> list[str]:
    """Return every subject that NATS allows the user *name* of *role*, its inbox included."""
    template = permissions(role, flows())
    return [
        subject.replace("{{name()}}", name) for subject in template.publish + template.subscribe
    ]


def test_a_server_may_do_this_and_nothing_else() -> None:
    """The whole of it, written out: a change here is a change of the threat model."""
    server = permissions(Role.SERVER, flows())
    assert server.publish == (
        "$JS.API.DIRECT.GET.BYOK_CONFIG.byok.v1.config.{{name()}}",
        "$JS.API.DIRECT.GET.BYOK_CONFIG.byok.v1.sealed.{{name()}}.*",
        "byok.v1.evaluate.{{name()}}",
        "byok.v1.fingerprint.{{name()}}",
        "byok.v1.health.{{name()}}",
        "byok.v1.reported.{{name()}}",
        "byok.v1.token.{{name()}}",
    )
    assert server.subscribe == ("_INBOX.{{name()}}.>", "byok.v1.config.{{name()}}")
    assert not server.may_answer


def test_a_door_token_reaches_the_issuer_only() -> None:
    """It lives 90 days on a disk, so it must be worth nothing else."""
    door = permissions(Role.DOOR, flows())
    assert door.publish == ("byok.v1.token.{{name()}}",)
    assert door.subscribe == ("_INBOX.{{name()}}.>",)


def test_a_join_token_reaches_the_enrolment_only() -> None:
    """It is pasted by people, so it must be worth one enrolment."""
    enrolling = permissions(Role.ENROLLING, flows())
    assert enrolling.publish == ("byok.v1.enrol.{{name()}}",)
    assert enrolling.subscribe == ("_INBOX.{{name()}}.>",)


@given(mine=IDS, other=IDS)
def test_a_server_reaches_no_subject_of_another(mine: str, other: str) -> None:
    """Whatever two servers are called, the one's permissions never cover the other's subjects."""
    ours, theirs = allowed(Role.SERVER, mine), allowed(Role.SERVER, other)
    for subject in theirs:
        concrete = subject.replace(".*", ".slot").replace(".>", ".x")
        assert any(matches(pattern, concrete) for pattern in ours) == (mine == other)


@pytest.mark.parametrize("role", FLEET)
def test_everything_a_fleet_role_may_do_names_itself(role: Role) -> None:
    """A permission without the user's own name would be shared by the whole fleet."""
    template = permissions(role, flows())
    subjects = {*template.publish, *template.subscribe}
    assert all("{{name()}}" in subject.split(".") for subject in subjects)


@pytest.mark.parametrize("role", Role)
def test_nobody_may_do_everything(role: Role) -> None:
    """No template holds a bare wildcard, nor lets anybody but `setup` make or delete anything."""
    template = permissions(role, flows())
    for subject in template.publish + template.subscribe:
        assert subject.split(".")[0] in {"byok", "_INBOX", "$JS"}
        assert subject.split(".")[1] not in {"*", ">"}
    administers = any(
        word in subject for subject in template.publish for word in (".CREATE.", ".UPDATE.")
    )
    assert administers == (role is Role.SETUP)


@pytest.mark.parametrize("role", [role for role in Role if role.account is Account.READERS])
def test_readers_write_nothing(role: Role) -> None:
    """They publish to the JetStream API's questions only, never to a subject that is stored."""
    for subject in permissions(role, flows()).publish:
        assert subject.startswith("$JS.")
        assert not any(matches(kept, subject) for stream in STREAMS for kept in stream.subjects)


@pytest.mark.parametrize("type_", catalog())
def test_only_the_writer_of_an_event_may_publish_it(type_: str) -> None:
    """The source is checked by every reader; NATS must refuse before that."""
    event = catalog()[type_]
    subject = event.template.wildcard.replace("*", "acme-1")
    writers = {role for role in Role for s in _published(role, "acme-1") if matches(s, subject)}
    same_subject = [e for e in catalog().values() if e.template == event.template]
    assert writers == {role for e in same_subject for role in WRITERS[e.writer]}


def _published(role: Role, name: str) -> list[str]:
    return [s.replace("{{name()}}", name) for s in permissions(role, flows()).publish]


def test_a_subject_that_servers_write_is_written_by_nobody_else() -> None:
    """Else a fact's writer could not be told from its subject."""
    for pattern in SERVER_WRITES:
        saying = [f for f in flows() if f.subject.pattern == pattern]
        assert {f.role for f in saying if f.act in {Act.STORE, Act.ASK}} == {Role.SERVER}


def test_what_the_intake_lets_in_comes_from_the_intake_alone() -> None:
    """Whoever else could speak there would write as any server."""
    arrivals = {a for stream in STREAMS for a in stream.arrivals if a not in stream.subjects}
    assert arrivals
    for arrival in arrivals:
        subject = arrival.replace("*", "acme-1")
        speakers = {role for role in Role for s in _published(role, "x") if matches(s, subject)}
        assert speakers == {Role.INTAKE}


@pytest.mark.parametrize("pattern", SERVER_WRITES)
def test_a_stream_of_what_servers_say_lets_nobody_rewrite_history(pattern: str) -> None:
    """One header of one server would otherwise erase or expire everybody's facts."""
    stream = stream_of(pattern.replace("{server_id}", "*")).configuration()
    for power in ("rollup_hdrs", "msg_ttl", "msg_schedules", "msg_counter", "atomic", "batched"):
        assert stream[f"allow_{power}"] is False
    assert stream["deny_delete"] is True
    assert stream["deny_purge"] is True
    assert stream["max_bytes"] > 0


@pytest.mark.parametrize("account", [Account.FLEET, Account.READERS])
def test_an_account_imports_exactly_what_its_roles_need(account: Account) -> None:
    """A missing import is a dead feature, an import too many is a door."""
    imported = {(n.direction, n.subject.wildcard) for n in crossings(account, flows())}
    wanted = {
        (need.direction, need.subject.wildcard)
        for flow in flows()
        if flow.role.account is account
        for need in needs(flow)
    }
    assert imported == wanted


def test_the_core_imports_nothing() -> None:
    """Whatever the fleet says comes in over an export with its reply subject taken off."""
    assert crossings(Account.CORE, flows()) == ()


@pytest.mark.parametrize("role", Role)
def test_every_role_has_a_flow(role: Role) -> None:
    """A role that may do nothing has an empty allow list, which NATS reads as everything."""
    assert any(flow.role is role for flow in flows())


@pytest.mark.parametrize(
    "name",
    ["", "*", ">", "a.b", "A", "a b", "acme_1", "\u0430", "a\n", "\uff41", "x" * 64, "{{name()}}"],
)
def test_no_token_is_minted_for_a_name_that_widens_the_template(name: str) -> None:
    """The template puts names and tags into subjects as they are."""
    with pytest.raises(Refused, match="bad_user_name"):
        UserPlan(name, "U", "A", 1)
    with pytest.raises(Refused, match="bad_user_name"):
        UserPlan("subscriber", "U", "A", 1, tags=(f"owner:{name}",))


def test_the_flow_table_is_the_same_each_time() -> None:
    """Account tokens are compared with what is pushed; a changing order would be a change."""
    once, again = (
        json.dumps([permissions(role, flows()).publish for role in Role]) for _ in range(2)
    )
    assert once == again
    assert len(set(flows())) == len(flows())
