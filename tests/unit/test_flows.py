"""The table of who may say what."""

import pytest

from bus_schemas.event import Writer
from bus_schemas.flows import API, API_FROM_READERS, WRITERS, Account, Act, Role, flows
from bus_schemas.intake import admitted
from bus_schemas.streams import CONFIG, LEDGER


@pytest.mark.parametrize(
    ("role", "account"),
    [
        (Role.SERVER, Account.FLEET),
        (Role.DOOR, Account.FLEET),
        (Role.ENROLLING, Account.FLEET),
        (Role.OPS, Account.READERS),
        (Role.DASHBOARD, Account.READERS),
        (Role.SUBSCRIBER, Account.READERS),
        (Role.WATCHER, Account.READERS),
        (Role.CONFIG, Account.CORE),
        (Role.EVALUATOR, Account.CORE),
    ],
)
def test_whoever_is_not_a_handler_sits_outside_the_core(role: Role, account: Account) -> None:
    """Within one account a reply subject is never checked, so the split carries the security."""
    assert role.account is account
    assert role.api == (API_FROM_READERS if account is Account.READERS else API)


def test_only_the_core_stores_platform_facts() -> None:
    """Servers store their health and nothing else; readers store nothing at all."""
    storing = [flow for flow in flows() if flow.act is Act.STORE]
    assert {flow.role.account for flow in storing} == {Account.CORE, Account.FLEET}
    fleet = {flow.subject.pattern for flow in storing if flow.role.account is Account.FLEET}
    assert fleet == {"byok.v1.health.{server_id}"}


def test_a_servers_facts_are_stored_by_the_intake_alone() -> None:
    """Else one server could fill the ledger, or put headers into it that stop its readers."""
    stored = {f.subject.pattern: f.role for f in flows() if f.act is Act.STORE}
    for subject in LEDGER.through_intake:
        pattern = subject.replace("*", "{server_id}")
        assert stored[admitted(pattern)] is Role.INTAKE
        assert pattern not in stored
        acts = {(f.role, f.act) for f in flows() if f.subject.pattern == pattern}
        assert acts == {(Role.SERVER, Act.ASK), (Role.INTAKE, Act.ANSWER)}
    reads = {f.subject.pattern for f in flows() if (f.role, f.act) == (Role.INTAKE, Act.READ_LAST)}
    assert reads == {"byok.v1.ratchet.{server_id}"}  # which starts there were
    does = {f.act for f in flows() if f.role is Role.INTAKE}
    assert does == {Act.ANSWER, Act.STORE, Act.READ_LAST}


def test_every_writer_is_somebodys_role() -> None:
    """An event whose writer no role plays could never be sent."""
    assert set(WRITERS) == set(Writer)
    assert all(roles for roles in WRITERS.values())


def test_only_the_writer_of_sealed_credentials_may_purge_them() -> None:
    """A purge of the ledger would be a purge of the truth."""
    purges = [flow for flow in flows() if flow.act is Act.PURGE]
    assert {(flow.role, flow.stream) for flow in purges} == {(Role.CONFIG, CONFIG)}


def test_a_reader_of_a_stream_is_woken_by_what_the_stream_tells() -> None:
    """Without a nudge a message would be read only when its reader looks anyway."""
    readers = {(f.role, f.stream) for f in flows() if f.act is Act.READ_STREAM and f.stream}
    assert readers
    for role, stream in readers:
        nudged = {f.subject.pattern for f in flows() if f.role is role and f.act is Act.NUDGE}
        assert stream.followed
        assert nudged >= set(stream.nudges)


def test_each_request_has_one_that_asks_and_one_that_answers() -> None:
    """A question nobody may answer waits for its whole timeout."""
    asked = {f.subject for f in flows() if f.act is Act.ASK}
    answered = [f.subject for f in flows() if f.act is Act.ANSWER]
    assert asked == set(answered)
    assert len(answered) == len(asked)
